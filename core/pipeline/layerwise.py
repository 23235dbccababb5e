"""Compares every value that two models both have, and finds where the error is born."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnx_rewrite.model import LoadedModel
from onnx_rewrite.pipeline import boundary
from onnx_rewrite.pipeline.aligning import Aligned, element_types
from onnx_rewrite.pipeline.walking import Walk
from onnx_rewrite.verify.compare import compare
from onnx_rewrite.verify.dtypes import FLOATS, HALVES, Array, Tolerance
from onnx_rewrite.verify.feeds import Feed
from onnx_rewrite.verify.judge import Subject
from onnx_rewrite.verify.measures import Layer, Layers, errors, finite_scale
from onnx_rewrite.verify.metrics import gaps
from onnx_rewrite.verify.native import Runner, common, mixed_bound
from onnx_rewrite.verify.reference import CannotEvaluate, Reference
from onnx_rewrite.verify.session import first_line

BATCH_BYTES = 256 << 20
"""About as much memory the values of one batch may take, over both models and the reference."""
BATCH_VALUES = 1024
"""The most values of one batch."""
FIRST_BATCH = 32
"""Values of the first batch, which shows how large values are."""
_GROWTH = 8


def compare_layers(
    aligned: Aligned,
    first: LoadedModel,
    second: LoadedModel,
    feed: Feed,
    tolerance: Tolerance,
    progress: Any = None,
    *,
    batch_bytes: int = BATCH_BYTES,
) -> Layers:
    """Compares the values of the main graphs that have the same name in both models.

    Values are exposed in batches, so that no more of them are in memory than `batch_bytes` allows, and each batch runs
    no more of the graph than its values need. Bodies and functions are looked at from outside only.

    Args:
        aligned: The two models with one interface.
        first: A as it was loaded, for the types of its values.
        second: B as it was loaded.
        feed: What to feed, in A's types.
        tolerance: What is accepted of each value, by the judge's rule.
        progress: Told how many values are done.
        batch_bytes: The memory for the values of one batch.

    Returns:
        A layer per value, in the order of A's graph.
    """
    work = _Comparison(aligned, feed, tolerance, (element_types(first), element_types(second)))
    names = work.names
    if progress is not None:
        progress.stage("comparing layer by layer", len(names))
    start, size = 0, FIRST_BATCH
    while start < len(names):
        batch = names[start : start + size]
        used = work.run(batch)
        start += len(batch)
        if progress is not None:
            progress.advance(len(batch))
        fits = int(batch_bytes / max(1.0, used / len(batch)))
        size = max(1, min(BATCH_VALUES, size * _GROWTH, fits))
    return work.result()


class _Side:
    """One model in onnxruntime: who gives what, and its values batch by batch."""

    def __init__(self, model: onnx.ModelProto, folder: Path | None, types: Mapping[str, int]) -> None:
        self.types = types
        self.model = boundary.part(model, list(model.graph.output))
        self.makers: dict[str, onnx.NodeProto] = {}
        for node in self.model.graph.node:
            if node.op_type != "Constant":
                self.makers.update((name, node) for name in node.output if name)
        self._folder = folder

    def node(self, name: str) -> str:
        """The operator that gives a value, with the node's name."""
        maker = self.makers[name]
        return f"{maker.op_type} {maker.name}".strip()

    def walk(self, values: Mapping[str, Array], wanted: Sequence[str]) -> Walk:
        """The model's values on these feeds, in its own precision or promoted as a whole.

        Raises:
            Exception: onnxruntime's, if it cannot open the model.
        """
        subject = Subject(self.model, base=self._folder)
        whole = Runner(subject)
        model, types, folder = self.model, dict(self.types), self._folder
        if whole.promoted:
            # All at once: a part alone might have the kernels, and give other types than the next one takes.
            subject = subject.promoted()
            model, folder = subject.proto, None
            types = {name: onnx.TensorProto.FLOAT if kind in HALVES else kind for name, kind in types.items()}
        return Walk(model, values, wanted, types, lambda part, given: Runner(Subject(part, base=folder))(given))


class _Comparison:
    def __init__(
        self, aligned: Aligned, feed: Feed, tolerance: Tolerance, types: tuple[Mapping[str, int], Mapping[str, int]]
    ) -> None:
        self._feed, self._tolerance = feed, tolerance
        values = common(aligned.a, aligned.b, feed.values)
        self._a = _Side(aligned.a, aligned.folder_a, types[0])
        self._b = _Side(aligned.b, aligned.folder_b, types[1])
        self.names = [name for name in self._a.makers if name in self._b.makers]
        folder = str(aligned.folder_a or "")
        self._exact = Walk(self._a.model, values, self.names, {}, lambda part, given: Reference(part, folder)(given))
        self._layers: dict[str, Layer] = {}
        self._skipped: dict[str, str] = {}
        self._blind: set[str] = set()
        """Values that no float64 evaluation reaches."""
        self._walks: list[Walk] = []
        for side, who in ((self._a, "A"), (self._b, "B")):
            try:
                self._walks.append(side.walk(values, self.names))
            except Exception as error:
                self._skipped = dict.fromkeys(self.names, f"onnxruntime cannot open {who}: {first_line(error)}")
                self.names = []
                return

    def run(self, names: Sequence[str]) -> int:
        """Compares some values; returns how many bytes they took."""
        found: list[dict[str, Any]] = []
        for walk, who in zip(self._walks, "AB", strict=True):
            try:
                found.append(walk(names))
            except Exception as error:
                if len(names) == 1:
                    self._skipped[names[0]] = f"onnxruntime cannot give it in {who}: {first_line(error)}"
                    return 0
                # One value that cannot be an output must not hide the others.
                half = len(names) // 2
                return self.run(names[:half]) + self.run(names[half:])
        references = self._references(names)
        used = 0
        for name in names:
            a, b, reference = found[0][name], found[1][name], references.get(name)
            if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
                self._skipped[name] = "it is no tensor"
                continue
            used += a.nbytes + b.nbytes + (reference.nbytes if isinstance(reference, np.ndarray) else 0)
            with np.errstate(all="ignore"):
                self._layers[name] = self._layer(name, a, b, reference)
        return used

    def _references(self, names: Sequence[str]) -> dict[str, Array]:
        """The values in float64, those that depend on what has no such evaluation left out."""
        while True:
            seen = [name for name in names if name not in self._blind]
            if not seen:
                return {}
            try:
                return self._exact(seen)
            except CannotEvaluate as error:
                lost = set(error.node.output) & set(self._a.makers)
            except Exception:
                lost = set[str]()
            lost = self._descendants(lost or set(seen)) - self._blind or set(seen)
            self._blind |= lost
            self._exact.drop(lost)

    def _descendants(self, names: set[str]) -> set[str]:
        found = set(names)
        for node in self._a.model.graph.node:
            if not found.isdisjoint(boundary.uses(node)):
                found.update(node.output)
        return found

    def _layer(self, name: str, a: Array, b: Array, reference: Array | None) -> Layer:
        types = self._types(name, a, b)
        kinds = [onnx.TensorProto.DataType.Name(kind).lower() for kind in types]
        made = Layer(name, self._a.node(name), self._b.node(name), a.shape, kinds[0], kinds[1], None, 0.0, None, 0.0)
        if a.shape != b.shape:
            reason = f"shape {list(a.shape)} in A and {list(b.shape)} in B"
            return replace(made, error_b=float("inf"), exceeded=True, reason=reason)
        if a.dtype.kind in "OUS":
            same = bool(np.all(np.asarray(a == b)))
            return replace(made, error_b=0.0 if same else float("inf"), exceeded=not same)
        gap = gaps(a, b)
        if reference is None or reference.shape != a.shape:
            return replace(made, error_b=_top(gap), scale=finite_scale(a, types), exceeded=None)
        if set(types) <= FLOATS and types[0] == types[1] and a.dtype == b.dtype:
            found = compare(types[0], a, b, reference, self._tolerance)
            numbers = found.error_before, found.error_after, found.bound
            exceeded, reason = not found.ok, found.reason
        elif set(types) <= FLOATS:
            error_a, error_b = _top(errors(a, reference, types[0])), _top(errors(b, reference, types[1]))
            finite = error_a if np.isfinite(error_a) else 0.0
            bound = mixed_bound(self._tolerance, *types, finite, finite_scale(reference, types))
            numbers, exceeded, reason = (error_a, error_b, bound), not error_b <= bound, None
        else:
            numbers, reason = (_top(gaps(a, reference)), _top(gaps(b, reference)), 0.0), None
            exceeded = bool(np.any(gap))
        scale = finite_scale(reference, types)
        return replace(
            made,
            error_a=numbers[0],
            error_b=numbers[1],
            bound=numbers[2],
            scale=scale,
            exceeded=exceeded,
            reason=reason,
        )

    def _types(self, name: str, a: Array, b: Array) -> tuple[int, int]:
        known = self._a.types.get(name, 0), self._b.types.get(name, 0)
        arrays = (onnx.helper.np_dtype_to_tensor_dtype(v.dtype) for v in (a, b))
        found = [kind or array for kind, array in zip(known, arrays, strict=True)]
        return found[0], found[1]

    def result(self) -> Layers:
        """All values compared so far, with what each grew from."""
        layers: list[Layer] = []
        near = _Nearest(self._b.makers, self._layers)
        for name in self.names:
            layer = self._layers.get(name)
            if layer is None:
                continue
            inputs = near(name)
            mine = _relative(layer)
            theirs = max((_relative(self._layers[i]) for i in inputs), default=0.0)
            growth = mine / theirs if 0 < theirs < float("inf") else None
            layers.append(replace(layer, inputs=inputs, growth=growth))
        born = _born(layers, {o.name for o in self._a.model.graph.output})
        only = [len(side.makers) - len(self.names) for side in (self._a, self._b)]
        return Layers(self._feed.regime, tuple(layers), born, *only, skipped=dict(self._skipped))


class _Nearest:
    """The compared values that a value of B is computed from, past those that are not compared."""

    def __init__(self, makers: Mapping[str, onnx.NodeProto], compared: Mapping[str, Layer]) -> None:
        self._makers, self._compared = makers, compared

    def __call__(self, name: str) -> tuple[str, ...]:
        found: dict[str, None] = {}
        seen = {name}
        left = list(self._behind(name))
        while left:
            value = left.pop(0)
            if value in seen:
                continue
            seen.add(value)
            if value in self._compared:
                found[value] = None
            else:
                left.extend(self._behind(value))
        return tuple(found)

    def _behind(self, name: str) -> Iterator[str]:
        maker = self._makers.get(name)
        if maker is not None:
            inputs = [value for value in maker.input if value]
            yield from inputs
            yield from sorted(boundary.uses(maker) - set(inputs))


def _born(layers: Sequence[Layer], outputs: set[str]) -> str | None:
    """The first value beyond its bound from which an unbroken chain of such values leads to an output.

    Others have no part in a wrong output: the two models use a name for different things, or the difference cancels.
    """
    beyond = {layer.name: layer for layer in layers if layer.exceeded}
    reaching: set[str] = set()
    left = [name for name in beyond if name in outputs]
    while left:
        name = left.pop()
        if name not in reaching:
            reaching.add(name)
            left.extend(value for value in beyond[name].inputs if value in beyond)
    return next((layer.name for layer in layers if layer.name in reaching), None)


def _top(values: Array) -> float:
    return float(np.max(values, initial=0.0))


def _relative(layer: Layer) -> float:
    """A value's error in units of its size."""
    if layer.error_b == 0:
        return 0.0
    return layer.error_b / layer.scale if layer.scale > 0 else float("inf")
