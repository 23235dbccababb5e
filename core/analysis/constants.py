"""Which values are known before the model runs, and what they are.

A constant may be an initializer, a `Constant` node with any of its value attributes, a value captured from an
outer graph, or what a chain of layout and cast operators makes of those. An initializer that is also a graph
input is not one: the caller may override it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnx_rewrite.analysis.dtypes import NUMBERS, numpy_dtype
from onnx_rewrite.model.nodes import dense, tensor_in

Array = np.ndarray[Any, np.dtype[Any]]

# Chains above this many elements are not folded: they are weights, and nobody matches on their values.
MAX_FOLDED_ELEMENTS = 1 << 24


# What computes a constant is a handful of nodes; longer chains are the model itself.
MAX_FOLDED_NODES = 64


class Constants:
    """Resolves values to constants, remembering every answer.

    An answer stays right while the model is edited, because an edit never changes what a value means; it only
    makes new values.
    """

    def __init__(self) -> None:
        self._known: dict[ir.Value, Array | None] = {}
        self._is: dict[ir.Value, bool] = {}
        self._scalars: dict[ir.Value, Any] = {}

    def forget_unknown(self) -> None:
        """Looks again at what was not known: a shape may have been learned since."""
        self._known = {value: array for value, array in self._known.items() if array is not None}
        self._is = {value: known for value, known in self._is.items() if known}

    def is_constant(self, value: ir.Value | None) -> bool:
        """Whether `array(value)` is not None, without reading any weight where that can be told."""
        if value is None:
            return False
        known = self._is.get(value)
        if known is None:
            if value.producer() is None:
                known = value.const_value is not None and not value.is_graph_input()
            else:
                known = self.array(value) is not None
            self._is[value] = known
        return known

    def size(self, value: ir.Value) -> int | None:
        """Number of elements of a constant, without reading a weight; None if it is not constant."""
        if value.producer() is None:
            tensor = value.const_value
            return None if tensor is None or value.is_graph_input() else int(tensor.size)
        array = self.array(value)
        return None if array is None else int(array.size)

    def array(self, value: ir.Value | None) -> Array | None:
        """The constant's elements (any shape, the value's dtype), or None if `value` is not constant."""
        if value is None:
            return None
        if value in self._known:
            return self._known[value]
        found = self._resolve(value)
        self._known[value] = found
        return found

    def scalar(self, value: ir.Value | None) -> Any | None:
        """The only element of a constant with one element, as a Python number, or None."""
        if value is None:
            return None
        known = self._scalars.get(value)
        if known is None and self.size(value) == 1:
            array = self.array(value)
            if array is not None:
                known = self._scalars[value] = array.reshape(()).item()
        return known

    def rests_on_constants(self, node: ir.Node) -> bool:
        """Whether `node` is computed from constants by a few nodes that can be folded; looks at them one by one,
        since a chain of additions may be as long as the model.
        """
        waiting, seen = [node], {node}
        while waiting:
            current = waiting.pop()
            for value in current.inputs[: 1 if current.op_type == "CastLike" else None]:
                producer = None if value is None else value.producer()
                if producer is None:
                    if not self.is_constant(value):
                        return False
                elif value in self._known and self._known[value] is None and producer is not node:
                    return False
                elif producer not in seen:
                    if producer.op_type not in _FOLDS or len(seen) == MAX_FOLDED_NODES:
                        return False
                    seen.add(producer)
                    if producer.op_type != "Shape":
                        waiting.append(producer)
        return True

    def _resolve(self, value: ir.Value) -> Array | None:
        node = value.producer()
        if node is None:
            tensor = value.const_value
            if tensor is None or value.is_graph_input() or tensor.dtype == ir.DataType.STRING:
                return None
            return tensor.numpy()
        if node.domain not in ("", "ai.onnx"):
            return None
        fold = _FOLDS.get(node.op_type)
        if fold is None or any(attribute.is_ref() for attribute in node.attributes.values()):
            return None
        # A placeholder first: a cyclic graph must not send us round for ever.
        self._known[value] = None
        return fold(self, node)


def _constant_node(_: Constants, node: ir.Node) -> Array | None:
    if len(node.attributes) != 1:
        return None
    ((name, attr),) = node.attributes.items()
    if attr.is_ref():
        return None
    if name == "value" and attr.type == ir.AttributeType.TENSOR:
        tensor = tensor_in(attr)
        return None if tensor.dtype == ir.DataType.STRING else tensor.numpy()
    if name == "sparse_value" and isinstance(attr.value, onnx.SparseTensorProto):
        return dense(attr.value) if int(np.prod(attr.value.dims)) <= MAX_FOLDED_ELEMENTS else None
    if name == "value_float":
        return np.asarray(attr.as_float(), np.float32)
    if name == "value_floats":
        return np.asarray(attr.as_floats(), np.float32)
    if name == "value_int":
        return np.asarray(attr.as_int(), np.int64)
    if name == "value_ints":
        return np.asarray(attr.as_ints(), np.int64)
    return None


def _ints(constants: Constants, node: ir.Node, name: str, index: int) -> list[int] | None:
    """A list of integers that is an attribute in old opsets and an input in newer ones; None if unknown."""
    attr = node.attributes.get(name)
    if attr is not None:
        return None if attr.is_ref() else [int(i) for i in attr.as_ints()]
    if index < len(node.inputs) and node.inputs[index] is not None:
        array = constants.array(node.inputs[index])
        return None if array is None else [int(i) for i in array.ravel()]
    return []


def _first(constants: Constants, node: ir.Node) -> Array | None:
    return constants.array(node.inputs[0]) if node.inputs else None


def _cast(constants: Constants, node: ir.Node) -> Array | None:
    array, to = _first(constants, node), node.attributes.get("to")
    if array is None or to is None or to.is_ref():
        return None
    return _as_type(array, ir.DataType(to.as_int()))


def _cast_like(constants: Constants, node: ir.Node) -> Array | None:
    array = _first(constants, node)
    like = node.inputs[1] if len(node.inputs) > 1 else None
    return None if array is None or like is None or like.dtype is None else _as_type(array, like.dtype)


def _as_type(array: Array, dtype: ir.DataType) -> Array | None:
    target = numpy_dtype(dtype)
    # The 8-bit floats saturate as an attribute says, and no pass asks for them.
    if target is None or (dtype not in NUMBERS and dtype != ir.DataType.BOOL):
        return None
    with np.errstate(all="ignore"):
        return array.astype(target)


def _shape(_: Constants, node: ir.Node) -> Array | None:
    value = node.inputs[0]
    if value is None or value.shape is None:
        return None
    start = node.attributes.get_int("start", 0) or 0
    end = node.attributes.get_int("end", None)
    dims = list(value.shape)[start:end]
    return np.asarray(dims, np.int64) if all(isinstance(d, int) for d in dims) else None


def _expand(constants: Constants, node: ir.Node) -> Array | None:
    array, shape = _first(constants, node), _ints(constants, node, "", 1)
    if array is None or shape is None:
        return None
    try:
        full = np.broadcast_shapes(array.shape, tuple(shape))
    except ValueError:
        return None
    return np.broadcast_to(array, full) if int(np.prod(full)) <= MAX_FOLDED_ELEMENTS else None


def _constant_of_shape(constants: Constants, node: ir.Node) -> Array | None:
    shape = _ints(constants, node, "", 0)
    if shape is None or int(np.prod(shape)) > MAX_FOLDED_ELEMENTS:
        return None
    attr = node.attributes.get("value")
    fill = np.zeros(1, np.float32) if attr is None else attr.as_tensor().numpy()
    return np.full(shape, fill.reshape(-1)[0], fill.dtype)


def _unsqueeze(constants: Constants, node: ir.Node) -> Array | None:
    array, axes = _first(constants, node), _ints(constants, node, "axes", 1)
    return None if array is None or axes is None else np.expand_dims(array, tuple(axes))


def _squeeze(constants: Constants, node: ir.Node) -> Array | None:
    array, axes = _first(constants, node), _ints(constants, node, "axes", 1)
    return None if array is None or axes is None else np.squeeze(array, tuple(axes) if axes else None)


def _reshape(constants: Constants, node: ir.Node) -> Array | None:
    array, shape = _first(constants, node), _ints(constants, node, "shape", 1)
    if array is None or shape is None:
        return None
    if not node.attributes.get_int("allowzero", 0):
        shape = [array.shape[i] if d == 0 else d for i, d in enumerate(shape)]
    return array.reshape(shape)


def _transpose(constants: Constants, node: ir.Node) -> Array | None:
    array, perm = _first(constants, node), node.attributes.get_ints("perm", None)
    return None if array is None else array.transpose(perm)


def _flatten(constants: Constants, node: ir.Node) -> Array | None:
    array = _first(constants, node)
    if array is None:
        return None
    axis = node.attributes.get_int("axis", 1) or 0
    axis = axis + array.ndim if axis < 0 else axis
    return array.reshape(int(np.prod(array.shape[:axis])), -1)


def _concat(constants: Constants, node: ir.Node) -> Array | None:
    parts = [constants.array(v) for v in node.inputs]
    axis = node.attributes.get_int("axis", None)
    if axis is None or any(p is None for p in parts) or sum(p.size for p in parts if p is not None) > 1 << 16:
        return None
    return np.concatenate([p for p in parts if p is not None], axis)


def _known_sizes(value: ir.Value | None) -> Array | None:
    """The shape that a Shape node gives, -1 for sizes that are not known; None if it is no such node."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "Shape" or node.domain not in ("", "ai.onnx"):
        return None
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    if shape is None or "start" in node.attributes or "end" in node.attributes:
        return None
    return np.asarray([d if isinstance(d, int) else -1 for d in shape], np.int64)


def _of_sizes(
    select: Callable[[Constants, ir.Node, Array], Array | None],
) -> Callable[[Constants, ir.Node], Array | None]:
    """An operator that selects elements; of a shape that is known in part it may select what is."""

    def fold(constants: Constants, node: ir.Node) -> Array | None:
        array = _first(constants, node)
        if array is not None:
            return select(constants, node, array) if array.size <= 1 << 16 else None
        sizes = _known_sizes(node.inputs[0] if node.inputs else None)
        found = None if sizes is None else select(constants, node, sizes)
        return None if found is None or (found < 0).any() else found

    return fold


def _slice(constants: Constants, node: ir.Node, array: Array) -> Array | None:
    starts, ends = _ints(constants, node, "starts", 1), _ints(constants, node, "ends", 2)
    axes, steps = _ints(constants, node, "axes", 3), _ints(constants, node, "steps", 4)
    if starts is None or ends is None or axes is None or steps is None:
        return None
    index = [slice(None)] * array.ndim
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        step = steps[number] if steps else 1
        if step < 1:
            return None
        index[axes[number] if axes else number] = slice(start, end, step)
    return array[tuple(index)]


def _gather(constants: Constants, node: ir.Node, data: Array) -> Array | None:
    indices = constants.array(node.inputs[1])
    return None if indices is None else np.take(data, indices, axis=node.attributes.get_int("axis", 0))


def _clip(constants: Constants, node: ir.Node) -> Array | None:
    """Bounds are attributes or operands; a bound that is left out is none."""
    array = _first(constants, node)
    if array is None or array.dtype.kind != "f" or array.size > 1 << 16:
        return None
    bounds: list[Any] = []
    for place, name in enumerate(("min", "max"), 1):
        given = node.inputs[place] if place < len(node.inputs) else None
        if given is not None:
            bounds.append(constants.scalar(given))
            if bounds[-1] is None:
                return None
        else:
            attribute = node.attributes.get_float(name, None)
            bounds.append(attribute)
    low, high = bounds
    array = array if low is None else np.maximum(array, array.dtype.type(low))
    return array if high is None else np.minimum(array, array.dtype.type(high))


def _float_unary(function: Callable[[Array], Array]) -> Callable[[Constants, ir.Node], Array | None]:
    def fold(constants: Constants, node: ir.Node) -> Array | None:
        array = _first(constants, node)
        if array is None or array.dtype.kind != "f" or array.size > 1 << 16:
            return None
        with np.errstate(all="ignore"):
            return function(array).astype(array.dtype)

    return fold


def _float_binary(function: Callable[[Array, Array], Array]) -> Callable[[Constants, ir.Node], Array | None]:
    """What computes a frozen normalization from its statistics, or sizes from others."""

    def fold(constants: Constants, node: ir.Node) -> Array | None:
        if not constants.rests_on_constants(node):
            return None
        a, b = (constants.array(v) for v in node.inputs)
        if a is None or b is None or a.dtype != b.dtype or max(a.size, b.size) > 1 << 16:
            return None
        if a.dtype.kind == "i":
            return _of_integers(function, a, b)
        if a.dtype.kind != "f":
            return None
        with np.errstate(all="ignore"):
            return function(a, b)

    return fold


def _of_integers(function: Callable[[Array, Array], Array], a: Array, b: Array) -> Array | None:
    """Arithmetic of sizes; a division is exact in numpy only where nothing is negative."""
    if max(a.size, b.size) > 1 << 8 or function is np.power:
        return None
    if function is not np.divide:
        return function(a, b)
    return None if (a < 0).any() or (b < 1).any() else a // b


def _safely(fold: Callable[[Constants, ir.Node], Array | None]) -> Callable[[Constants, ir.Node], Array | None]:
    """An ill-formed chain is no constant; whether it is an error is for the checker to say."""

    def guarded(constants: Constants, node: ir.Node) -> Array | None:
        try:
            return fold(constants, node)
        except (ValueError, IndexError, TypeError):
            return None

    return guarded


# Only operators that exporters put between a constant and its use, and that are exact in numpy.
_FOLDS: dict[str, Callable[[Constants, ir.Node], Array | None]] = {
    name: _safely(fold)
    for name, fold in {
        "Add": _float_binary(np.add),
        "Cast": _cast,
        "CastLike": _cast_like,
        "Clip": _clip,
        "Concat": _concat,
        "Constant": _constant_node,
        "ConstantOfShape": _constant_of_shape,
        "Div": _float_binary(np.divide),
        "Exp": _float_unary(np.exp),
        "Expand": _expand,
        "Flatten": _flatten,
        "Gather": _of_sizes(_gather),
        "Identity": _first,
        "Max": _float_binary(np.maximum),
        "Min": _float_binary(np.minimum),
        "Mul": _float_binary(np.multiply),
        "Neg": _float_unary(np.negative),
        "Pow": _float_binary(np.power),
        "Reciprocal": _float_unary(np.reciprocal),
        "Reshape": _reshape,
        "Shape": _shape,
        "Slice": _of_sizes(_slice),
        "Sqrt": _float_unary(np.sqrt),
        "Squeeze": _squeeze,
        "Sub": _float_binary(np.subtract),
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
    }.items()
}
