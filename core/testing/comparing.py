"""A comparison beside the judge's: before and after, both in onnxruntime, and how far rounding may move the original.

The judge holds both models against the original in float64, and takes the original's own error for the measure. Here
they are held against each other, and the measure is what an error analysis of the original explains. Both must agree
before a rewrite counts as right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from onnx_rewrite.testing.rounding import Erring, errors
from onnx_rewrite.verify.defects import overflows_in_half
from onnx_rewrite.verify.dtypes import Array
from onnx_rewrite.verify.kernels import CannotEvaluate
from onnx_rewrite.verify.promote import has_halves
from onnx_rewrite.verify.sparse import without_sparse_in_functions

FLOOR = 8.0
"""So many units in the last place of an output's largest element are always accepted, as the judge does."""

FACTOR = 4.0
"""How often what rounding explains may be exceeded: two bits, since the errors of the analysis are drawn."""

_UNITS = {"float32": 2.0**-23, "float64": 2.0**-52, "float16": 2.0**-10}


@dataclass(frozen=True)
class Disagreement:
    """Where two models differ.

    Attributes:
        reason: In words.
        feed: The inputs that show it.
    """

    reason: str
    feed: dict[str, Array]


class CannotRun(Exception):
    """The original does not run; the message says why."""


def session(model: onnx.ModelProto) -> Any:
    """A session on one thread, its optimisations off."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    source = without_sparse_in_functions(model).SerializeToString()
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


class Pair:
    """An original and what became of it, ready to be compared on feeds.

    Args:
        before: The original.
        after: The rewritten model.
        nan: Whether NaN must come out where it did.

    Attributes:
        undetermined: Whether on some feed rounding decides of an element whether it is finite, so that nothing was
            said of that element.

    Raises:
        CannotRun: onnxruntime does not open the original.
    """

    def __init__(self, before: onnx.ModelProto, after: onnx.ModelProto, *, nan: bool = True) -> None:
        try:
            self._before = session(before)
        except Exception as error:
            raise CannotRun(str(error)) from error
        if has_halves(after) and overflows_in_half(after):
            raise CannotRun("onnxruntime's kernel of the result overflows inside in fp16")
        self._model, self._after, self._nan = before, after, nan
        self.undetermined = False

    @cached_property
    def _result(self) -> Any:
        return session(self._after)

    def difference(self, feed: Mapping[str, Array], kind: str) -> str | None:
        """What differs on a feed by more than rounding explains, or None.

        Raises:
            CannotRun: The original does not run on it, or nothing is known of its rounding.
        """
        try:
            first = self._before.run(None, dict(feed))
        except Exception as error:
            raise CannotRun(str(error)) from error
        try:
            given = (*self._result.get_inputs(), *self._result.get_overridable_initializers())
            names = {i.name for i in given}
            second = self._result.run(None, {n: a for n, a in feed.items() if n in names})
        except Exception as error:
            return f"onnxruntime runs the original but not the result: {error}"
        if kind == "nan" and not self._nan:
            return None
        alike = _nan_alike if kind == "nan" else _close
        if all(alike(a, b) for a, b in zip(first, second, strict=True)):
            return None
        try:
            explained = errors(self._model, feed)
        except CannotEvaluate as error:
            raise CannotRun(str(error)) from error
        self.undetermined |= any(not np.isfinite(e.error).all() for e in explained)
        for number, output in enumerate(self._model.graph.output):
            found = _nan_moved if kind == "nan" else _difference
            reason = found(first[number], second[number], explained[number])
            if reason is not None:
                return f"output '{output.name}' on {kind} numbers: {reason}"
        return None

    def disagreement(self, seed: int = 0) -> Disagreement | None:
        """The first feed on which the two differ by more than rounding explains, or None.

        Raises:
            CannotRun: The original runs on no feed.
        """
        ran = False
        for kind, feed in feeds(self._model, seed):
            try:
                reason = self.difference(feed, kind)
            except CannotRun:
                continue
            ran = True
            if reason is not None:
                return Disagreement(reason, feed)
        if not ran:
            raise CannotRun("the original ran on no feed")
        return None


def disagreement(
    before: onnx.ModelProto, after: onnx.ModelProto, *, seed: int = 0, nan: bool = True
) -> Disagreement | None:
    """The first feed on which two models differ by more than rounding explains, or None.

    Args:
        before: The original.
        after: The rewritten model.
        seed: Of the numbers that are fed.
        nan: Whether NaN must come out where it did.

    Raises:
        CannotRun: onnxruntime does not run the original.
    """
    return Pair(before, after, nan=nan).disagreement(seed)


def feeds(model: onnx.ModelProto, seed: int) -> Iterator[tuple[str, dict[str, Array]]]:
    """Inputs of several kinds, among them other values for initializers that are inputs too.

    Symbolic dimensions have the size that their names end with, else 3.
    """
    given = {t.name for t in model.graph.initializer}
    for number, (kind, scale) in enumerate((("usual", 1.0), ("small", 1e-4), ("large", 50.0), ("nan", 1.0))):
        rng = np.random.default_rng((seed, number))
        feed: dict[str, Array] = {}
        for value in model.graph.input:
            if value.name in given:
                continue
            tensor = value.type.tensor_type
            shape = [d.dim_value if d.HasField("dim_value") else _size(d.dim_param) for d in tensor.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            if dtype.kind == "b":
                array = np.asarray(rng.random(shape) < 0.5)
            elif dtype.kind in "iu":
                array = rng.integers(0, 4, shape).astype(dtype)
            else:
                numbers = rng.standard_normal(shape) * scale
                if kind == "nan" and numbers.size:
                    numbers.reshape(-1)[0] = np.nan
                array = numbers.astype(dtype)
            feed[value.name] = np.asarray(array)
        yield kind, feed
        if kind == "usual" and (others := _overriding(model)):
            yield "overriding", {**feed, **others}


def _overriding(model: onnx.ModelProto) -> dict[str, Array]:
    """Other values for weights that are inputs too; integers, which may be axes or shapes, stay."""
    given = {v.name for v in model.graph.input}
    found: dict[str, Array] = {}
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor) if tensor.name in given else None
        if array is not None and array.dtype.kind == "f":
            found[tensor.name] = np.asarray(array * array.dtype.type(0.5) + array.dtype.type(0.25))
    return found


def _size(symbol: str) -> int:
    digits = "".join(c for c in symbol if c.isdigit())
    return int(digits) if digits else 3


def _shape_or_type(before: Array, after: Array) -> str | None:
    if before.shape == after.shape and before.dtype == after.dtype:
        return None
    return f"{before.dtype}{list(before.shape)} became {after.dtype}{list(after.shape)}"


def _nan_alike(before: Any, after: Any) -> bool:
    """Whether NaN comes out of the same elements, or infinities came out anyhow."""
    if not isinstance(before, np.ndarray) or not isinstance(after, np.ndarray):
        return True
    if _shape_or_type(before, after) is not None:
        return False
    if before.dtype.kind != "f":
        return True
    was, now = np.isnan(before), np.isnan(after)
    return bool(np.isinf(before).any() or (was == now).all())


def _nan_moved(before: Any, after: Any, explained: Erring) -> str | None:
    """Where NaN comes out that did not, or the other way round, although rounding does not decide of it."""
    if _nan_alike(before, after):
        return None
    changed = _shape_or_type(before, after)
    if changed is not None:
        return changed
    was, now = np.isnan(before), np.isnan(after)
    told = np.isfinite(explained.error)
    return f"{int(was.sum())} NaN became {int(now.sum())}" if (was != now)[told].any() else None


def _close(before: Any, after: Any) -> bool:
    """Whether an output differs by so little that its rounding need not be analysed."""
    if not isinstance(before, np.ndarray) or not isinstance(after, np.ndarray):
        return True
    if _shape_or_type(before, after) is not None:
        return False
    if before.dtype.name not in _UNITS:
        return bool((before == after).all())
    one, other = before.astype(np.float64), after.astype(np.float64)
    finite = np.isfinite(one)
    if not finite.any():
        return True
    gap = np.abs(one - other)[finite].max()
    return bool(gap <= FLOOR * _UNITS[before.dtype.name] * np.abs(one[finite]).max())  # not if the gap is NaN


def _difference(before: Any, after: Any, explained: Erring) -> str | None:
    """What differs by more than rounding explains, where that determines the original at all."""
    if not isinstance(before, np.ndarray) or not isinstance(after, np.ndarray):
        return None
    changed = _shape_or_type(before, after)
    if changed is not None:
        return changed
    error = explained.error if explained.exact.shape == before.shape else np.zeros(before.shape)
    if before.dtype.kind != "f":
        wrong = int(((before != after) & (error == 0)).sum())
        return f"{wrong} elements differ" if wrong else None
    one, other = before.astype(np.float64), after.astype(np.float64)
    told = np.isfinite(one) & np.isfinite(error)
    if not told.any():
        return None
    if not np.isfinite(other[told]).all():
        return "a finite element is not finite any more"
    unit = _UNITS.get(before.dtype.name, 2.0**-10)
    bound = FACTOR * float(error[told].max()) + FLOOR * unit * float(np.abs(one[told]).max())
    gap = float(np.abs(one - other)[told].max())
    if gap <= bound + float(np.finfo(before.dtype).tiny):
        return None
    return f"they differ by {gap:.3g}, of which rounding explains {bound:.3g}"
