"""What a comparison of two models found, output by output and layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from onnx_rewrite.verdict import Verification
from onnx_rewrite.verify.dtypes import FLOATS, Array, largest
from onnx_rewrite.verify.histogram import Counting, Histogram
from onnx_rewrite.verify.metrics import cosine, gaps, psnr, relative, top_1, ulps

Number = float | int | bool | str


@dataclass(frozen=True)
class Worst:
    """The element where B is furthest from A.

    Attributes:
        index: Its position.
        a: What A gave.
        b: What B gave.
        reference: A in float64, or None where there is none.
        feed: The feed on which it was seen.
    """

    index: tuple[int, ...]
    a: Number
    b: Number
    reference: Number | None
    feed: str


@dataclass(frozen=True)
class OutputMeasures:
    """One output over all feeds.

    Attributes:
        name: What A calls it.
        name_b: What B calls it.
        shape: Its shape on the first feed, in A.
        dtype_a: Its element type in A ("float32").
        dtype_b: The same in B.
        elements: Elements compared, over all feeds.
        differing: How many of them are not equal.
        not_finite: How many are NaN or infinite in one model only.
        finite: How many are finite in both.
        error_a: Largest absolute error of A against A in float64; None without a reference.
        error_b: The same of B.
        bound: The largest error_b that the judge accepts, or would in the coarser type; None without a reference.
        metrics: The measures that were asked for, by name.
        worst: The worst element, or None if nothing was compared.
        histograms: Absolute errors: "A" and "B" against A in float64, or "B - A" without a reference.
        obstacle: Why it was not compared to the end, or None.
    """

    name: str
    name_b: str
    shape: tuple[int, ...] = ()
    dtype_a: str = ""
    dtype_b: str = ""
    elements: int = 0
    differing: int = 0
    not_finite: int = 0
    finite: int = 0
    error_a: float | None = None
    error_b: float | None = None
    bound: float | None = None
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    worst: Worst | None = None
    histograms: dict[str, Histogram] = field(default_factory=dict[str, Histogram])
    obstacle: str | None = None


@dataclass(frozen=True)
class Layer:
    """A value that both models have, on one feed.

    Attributes:
        name: Its name.
        node_a: The node that gives it in A: its operator and name ("Add /block/Add_1").
        node_b: The same in B.
        shape: Its shape in A.
        dtype_a: Its element type in A.
        dtype_b: The same in B.
        error_a: Largest absolute error of A against A in float64; None without a reference.
        error_b: The same of B; without a reference, B against A.
        bound: The largest error_b that is accepted; None without a reference.
        scale: Largest finite magnitude of the reference (of A without one).
        growth: error_b / scale over the largest such ratio among `inputs`; None where theirs are 0 or unknown.
        inputs: The nearest compared values that it is computed from in B.
        exceeded: Whether error_b is beyond the bound, or the shape or class of a number is another; None if unknown.
        reason: Why, in words, or None.
    """

    name: str
    node_a: str
    node_b: str
    shape: tuple[int, ...]
    dtype_a: str
    dtype_b: str
    error_a: float | None
    error_b: float
    bound: float | None
    scale: float
    growth: float | None = None
    inputs: tuple[str, ...] = ()
    exceeded: bool | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Layers:
    """All values that both models have, in the order of A's graph.

    Attributes:
        feed: The feed that was run.
        layers: One entry per value that was compared.
        born: Name of the first value beyond its bound from which an unbroken chain of such values leads to an output,
            or None.
        only_a: How many values of A have no counterpart in B.
        only_b: The reverse.
        skipped: Values of both that could not be compared, with the reason.
    """

    feed: str
    layers: tuple[Layer, ...] = ()
    born: str | None = None
    only_a: int = 0
    only_b: int = 0
    skipped: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Checked(Verification):
    """The verdict on two models, with what was measured.

    Attributes:
        judged_by: "float64": the judge, against A in float64; "thresholds": the user's; "nothing": only measured.
        outputs: The outputs that were compared, in A's order.
        thresholds: The user's thresholds, by metric.
        layers: The comparison layer by layer, if it was asked for.
        notes: What is to be known besides.
    """

    judged_by: Literal["float64", "thresholds", "nothing"] = "float64"
    outputs: tuple[OutputMeasures, ...] = ()
    thresholds: dict[str, float] = field(default_factory=dict[str, float])
    layers: Layers | None = None
    notes: tuple[str, ...] = ()


def type_name(dtype: np.dtype[np.generic]) -> str:
    """ONNX's name of a numpy dtype."""
    known = {"float32": "float", "float64": "double", "object": "string"}
    return known.get(dtype.name, str(dtype.name))


def errors(values: Array, reference: Array, elem_type: int) -> Array:
    """Absolute errors against a float64 reference; a reference beyond the range of the type counts as infinite."""
    if reference.dtype == np.float64 and elem_type in FLOATS:
        top = largest(elem_type)
        reference = np.where(np.abs(reference) > top, np.copysign(np.inf, reference), reference)
    return gaps(values, reference)


def finite_scale(values: Array, types: tuple[int, int]) -> float:
    """The largest magnitude that is finite in both of two float types (0 for other types)."""
    top = min((largest(kind) for kind in types if kind in FLOATS), default=np.inf)
    sizes = np.abs(values.astype(np.float64))
    return float(np.max(sizes, initial=0.0, where=np.isfinite(sizes) & (sizes <= top)))


class Measuring:
    """Adds up the measures of one output, feed by feed; keeps no array.

    Args:
        name: What A calls it.
        name_b: What B calls it.
        metrics: Names of the measures to take.
        types: ONNX float types of A's and B's output as declared, 0 for others; the arrays may be wider.
    """

    def __init__(self, name: str, name_b: str, metrics: tuple[str, ...], types: tuple[int, int] = (0, 0)) -> None:
        self._names, self._metrics, self._types = (name, name_b), metrics, types
        self._shape: tuple[int, ...] | None = None
        self._dtypes = ("", "")
        self._elements = self._differing = self._not_finite = self._finite = 0
        self._sum = 0.0
        self._tops: dict[str, float] = {}
        self._rows = [0, 0]
        self._far = -1.0
        self._worst: Worst | None = None
        self._errors: tuple[float, float] | None = None
        self._bound: float | None = None
        self._histograms: dict[str, Counting] = {}
        self._obstacle: str | None = None

    def add(
        self, feed: str, a: object, b: object, reference: Array | None, dtypes: tuple[str, str] = ("", "")
    ) -> tuple[float, float, float] | None:
        """One feed.

        Args:
            feed: What the feed is called.
            a: What A gave.
            b: What B gave.
            reference: A in float64, or None.
            dtypes: Names of the element types to show, where the arrays have wider ones.

        Returns:
            (largest error of A, largest error of B, largest finite magnitude of the reference), or None without one.
        """
        if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
            self._obstacle = "is no tensor"
            return None
        if self._shape is None:
            self._shape = a.shape
            self._dtypes = (dtypes[0] or type_name(a.dtype), dtypes[1] or type_name(b.dtype))
        if a.shape != b.shape:
            self._obstacle = f"has shape {list(a.shape)} in A and {list(b.shape)} in B (feed: {feed})"
            return None
        self._elements += a.size
        if "O" in (a.dtype.kind, b.dtype.kind) or a.dtype.kind in "US":
            gap = np.where(np.asarray(a != b), np.inf, 0.0)
            reference = None
            self._finite += a.size
        else:
            with np.errstate(all="ignore"):
                gap = gaps(a, b)
                self._finite += int(np.count_nonzero(np.isfinite(gap) & np.isfinite(a.astype(np.float64))))
                self._measure(a, b, gap)
        self._place(feed, a, b, gap, reference)
        if reference is None or reference.shape != a.shape:
            self._histograms.setdefault("B - A", Counting()).add(gap)
            return None
        with np.errstate(all="ignore"):
            found = errors(a, reference, self._types[0]), errors(b, reference, self._types[1])
            scale = finite_scale(reference, self._types)
        for label, error in zip("AB", found, strict=True):
            self._histograms.setdefault(label, Counting()).add(error)
        tops = float(np.max(found[0], initial=0.0)), float(np.max(found[1], initial=0.0))
        self._errors = tops if self._errors is None else (max(self._errors[0], tops[0]), max(self._errors[1], tops[1]))
        return *tops, scale

    def limit(self, bound: float) -> None:
        """Says what error of B is accepted on the feed just added; the largest of all feeds is shown."""
        self._bound = max(bound, self._bound or 0.0)

    def _measure(self, a: Array, b: Array, gap: Array) -> None:
        self._sum += float(np.sum(gap))

        def worse(name: str, value: float) -> None:
            # NaN is worse than any number.
            known = self._tops.get(name)
            if known is None or np.isnan(value) or (value < known if name in ("psnr", "cosine") else value > known):
                self._tops[name] = value

        for name in self._metrics:
            if name == "rel":
                worse(name, float(np.max(relative(a, b, gap), initial=0.0)))
            elif name == "ulp":
                worse(name, float(np.max(ulps(a, b, gap), initial=0.0)))
            elif name == "psnr":
                worse(name, psnr(a, gap))
            elif name == "cosine":
                worse(name, cosine(a, b, gap))
            elif name == "top-1":
                good, rows = top_1(a, b)
                self._rows[0] += good
                self._rows[1] += rows

    def _place(self, feed: str, a: Array, b: Array, gap: Array, reference: Array | None) -> None:
        self._differing += int(np.count_nonzero(gap))
        self._not_finite += int(np.count_nonzero(np.isinf(gap)))
        if not gap.size or not float(np.max(gap)) > self._far:
            return
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(gap)), gap.shape))
        self._far = float(gap[index])
        exact = None if reference is None or reference.shape != a.shape else _number(reference[index])
        self._worst = Worst(index, _number(a[index]), _number(b[index]), exact, feed)

    def result(self) -> OutputMeasures:
        """What was measured so far."""
        far = max(self._far, 0.0)
        values = {"abs": far, "mean": self._sum / self._elements if self._elements else 0.0, **self._tops}
        values["top-1"] = self._rows[0] / self._rows[1] if self._rows[1] else 1.0
        if self._obstacle:
            values = {}
        elif self._dtypes[0] == "string":
            values = {"abs": far, "mean": far, "rel": far, "ulp": far}
        error_a, error_b = self._errors or (None, None)
        return OutputMeasures(
            *self._names,
            self._shape or (),
            *self._dtypes,
            self._elements,
            self._differing,
            self._not_finite,
            self._finite,
            error_a,
            error_b,
            self._bound,
            {name: values.get(name, float("nan")) for name in self._metrics},
            self._worst,
            {label: counting.result() for label, counting in self._histograms.items()},
            self._obstacle,
        )


def _number(value: object) -> Number:
    """A plain Python number of any scalar."""
    if isinstance(value, np.generic):
        found = value.item()
        # A scalar of ml_dtypes may come back as itself.
        return found if isinstance(found, (bool, int, float, str)) else float(str(value))
    return value if isinstance(value, (bool, int, float, str)) else str(value)
