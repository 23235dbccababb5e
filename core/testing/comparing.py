"""A comparison that shares nothing with the judge: how far may rounding alone move the original?

The judge holds both models against the original in float64. Here the original runs once more with inputs, weights and
interior values that differ by one unit in the last place: what that moves, times a constant, is what a replacement may
differ by. Both must agree before a
rewrite counts as right, so that a mistake in one of them does not hide a mistake in a pass.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.inliner

from onnx_rewrite.verify.defects import overflows_in_half
from onnx_rewrite.verify.dtypes import Array
from onnx_rewrite.verify.promote import has_halves

FACTOR = 128.0
"""How often the movement that one unit in the last place causes may be exceeded."""

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
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


class Pair:
    """An original and what became of it, ready to be compared on feeds.

    Args:
        before: The original.
        after: The rewritten model.
        nan: Whether NaN must come out where it did.

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
        self._noisy_ones: dict[Any, Any] = {}

    @functools.cached_property
    def _result(self) -> Any:
        return session(self._after)

    def _noisy(self, feed: Mapping[str, Array]) -> Any:
        shapes = tuple((name, array.shape) for name, array in feed.items())
        if shapes not in self._noisy_ones:
            self._noisy_ones[shapes] = session(noisy(self._model, dict(shapes)))
        return self._noisy_ones[shapes]

    def difference(self, feed: Mapping[str, Array], kind: str) -> str | None:
        """What differs on a feed by more than rounding explains, or None.

        Raises:
            CannotRun: The original does not run on it.
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
        moved: list[Any] = []
        if kind != "nan":
            near = self._noisy(feed)
            moved = [near.run(None, _nudged(feed, turn)) for turn in range(2)]
        for number, output in enumerate(self._model.graph.output):
            reason = _difference(first[number], second[number], [m[number] for m in moved], kind, nan=self._nan)
            if reason is not None:
                return f"output '{output.name}' on {kind} numbers: {reason}"
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
    pair, ran = Pair(before, after, nan=nan), False
    for kind, feed in feeds(before, seed):
        try:
            reason = pair.difference(feed, kind)
        except CannotRun:
            continue
        ran = True
        if reason is not None:
            return Disagreement(reason, feed)
    if not ran:
        raise CannotRun("the original ran on no feed")
    return None


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


def _nudged(feed: Mapping[str, Array], turn: int) -> dict[str, Array]:
    """The same inputs, each moved by up to two units in its last place."""
    return {
        name: _moved(array, 1000 * turn + number) if array.dtype.name in _UNITS else array
        for number, (name, array) in enumerate(feed.items())
    }


def noisy(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]] | None = None) -> onnx.ModelProto:
    """The same model, with its weights and what its nodes give moved by up to two units in the last place.

    In bodies too; functions are inlined, since their bodies state no types.

    Args:
        model: The model.
        shapes: What its inputs are fed; needed where the model states no sizes, or symbols.
    """
    flat = (
        onnx.inliner.inline_local_functions(model)
        if model.functions
        else onnx.ModelProto.FromString(model.SerializeToString())
    )
    for value in flat.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, (shapes or {}).get(value.name, ()), strict=False):
            dim.dim_value = size
    if any(d.dim_param for o in flat.graph.output for d in o.type.tensor_type.shape.dim):
        del flat.graph.value_info[:]  # they state the symbols, too
        for value in flat.graph.output:
            value.type.tensor_type.ClearField("shape")
    near = onnx.shape_inference.infer_shapes(flat)
    _disturb(near.graph)
    return near


def _disturb(graph: onnx.GraphProto) -> None:
    shapes = {v.name: v.type.tensor_type for v in (*graph.value_info, *graph.output)}
    nodes: list[onnx.NodeProto] = []
    for number, tensor in enumerate(graph.initializer):
        _move(tensor, number)
    for node in graph.node:
        nodes.append(node)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _disturb(attribute.g)
            elif attribute.type == onnx.AttributeProto.TENSOR:
                _move(attribute.t, len(nodes))
        for number, name in enumerate(node.output):
            kind = shapes.get(name)
            noise = None if kind is None or node.op_type in _EXACT else _noise(kind, len(nodes))
            if noise is not None:
                noise.name, node.output[number] = f"{name}_noise", f"{name}_exact"
                graph.initializer.append(noise)
                nodes.append(onnx.helper.make_node("Mul", [f"{name}_exact", noise.name], [name]))
    del graph.node[:]
    graph.node.extend(nodes)


_EXACT = frozenset({"Constant", "Identity", "If", "Loop", "Scan"})


def _noise(kind: Any, turn: int) -> onnx.TensorProto | None:
    """Factors of one unit in the last place around 1, or None where the type is no float of known shape."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type) if kind.elem_type else np.dtype(bool)
    dims = kind.shape.dim if kind.HasField("shape") else None
    if dtype.name not in _UNITS or dims is None or any(not d.HasField("dim_value") for d in dims):
        return None
    return onnx.numpy_helper.from_array(_moved(np.ones([d.dim_value for d in dims], dtype), turn))


_STEPS = np.asarray(
    [0.8566748838545029, 0.7338918566271260, 0.6287067210378087, 0.5385972572236101, 0.4614027427763899]
)
"""Along each axis, so much of the range lies between neighbours: powers of 1/1.1673, the generalised golden ratio of
Roberts' sequence in four dimensions (x^5 = x + 1), so that no step is near a whole number."""


def _moved(array: Array, turn: int) -> Array:
    """An array, each element moved by up to two units in its last place, and neighbours along every axis differently.

    Drawn signs may be the same in all of a row: what subtracts a mean would take such a movement away.
    """
    unit = _UNITS[array.dtype.name]
    rng = np.random.default_rng(turn)
    phase = np.full(array.shape, rng.random())
    for axis, length in enumerate(array.shape):
        steps = np.arange(length) * _STEPS[axis % len(_STEPS)]
        phase = phase + steps.reshape([-1 if a == axis else 1 for a in range(array.ndim)])
    with np.errstate(all="ignore"):
        found = array.astype(np.float64) * (1 + unit * (4 * (phase % 1.0) - 2))
        return np.asarray(found.astype(array.dtype))


def _move(tensor: onnx.TensorProto, turn: int) -> None:
    array = onnx.numpy_helper.to_array(tensor)
    if array.dtype.name in _UNITS:
        tensor.CopyFrom(onnx.numpy_helper.from_array(_moved(array, turn), tensor.name))


def _difference(before: Any, after: Any, moved: list[Any], kind: str, *, nan: bool) -> str | None:
    if not isinstance(before, np.ndarray) or not isinstance(after, np.ndarray):
        return None
    if before.shape != after.shape or before.dtype != after.dtype:
        return f"{before.dtype}{list(before.shape)} became {after.dtype}{list(after.shape)}"
    if before.dtype.kind != "f":
        wrong = int((before != after).sum())
        stable = all((before == m).all() for m in moved)
        return f"{wrong} elements differ" if wrong and stable else None
    with np.errstate(all="ignore"):
        one, other = before.astype(np.float64), after.astype(np.float64)
        if kind == "nan":
            if nan and np.isfinite(one[~np.isnan(one)]).all() and (np.isnan(one) != np.isnan(other)).any():
                return f"{int(np.isnan(one).sum())} NaN became {int(np.isnan(other).sum())}"
            return None
        finite = np.isfinite(one)
        for other_run in moved:
            finite &= np.isfinite(other_run)
        if not finite.any():
            return None
        if not np.isfinite(other[finite]).all():
            return "a finite element is not finite any more"
        scale = float(np.abs(one[finite]).max())
        unit = _UNITS.get(before.dtype.name, 2.0**-10)
        movement = max((float(np.abs(m.astype(np.float64) - one)[finite].max()) for m in moved), default=0.0)
        bound = FACTOR * (movement + unit * scale)
        tiny = float(np.finfo(before.dtype).tiny) if before.dtype.name in _UNITS else 0.0
        gap = float(np.abs(one - other)[finite].max())
    if gap <= bound + tiny:
        return None
    return f"they differ by {gap:.3g}, of which rounding explains {bound:.3g}"
