"""Operators that move elements and do not compute: shapes, slices, joins, padding."""

from __future__ import annotations

import numpy as np
import onnx

from onnx_rewrite.verify.dtypes import FLOATS, Array, numpy_dtype
from onnx_rewrite.verify.kernels import Node, kernel


def ints(attribute: object, value: Array | None) -> list[int] | None:
    """A list of integers that is an attribute in older opsets and an input in newer ones."""
    if value is not None:
        return [int(v) for v in np.asarray(value).ravel()]
    return None if attribute is None else [int(v) for v in np.asarray(attribute).ravel()]


@kernel("Reshape")
def reshape(node: Node, x: Array, shape: Array) -> Array:
    """Zero copies the input's dimension (unless allowzero), -1 is inferred."""
    dims = [int(d) for d in shape]
    if not node.get("allowzero", 0):
        dims = [x.shape[i] if d == 0 else d for i, d in enumerate(dims)]
    return x.reshape(dims)


@kernel("Flatten")
def flatten(node: Node, x: Array) -> Array:
    axis = node.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:])))


@kernel("Squeeze")
def squeeze(node: Node, x: Array, axes: Array | None = None) -> Array:
    chosen = ints(node.get("axes"), axes)
    return np.squeeze(x, axis=None if chosen is None else tuple(chosen))


@kernel("Unsqueeze")
def unsqueeze(node: Node, x: Array, axes: Array | None = None) -> Array:
    return np.expand_dims(x, tuple(ints(node.get("axes"), axes) or ()))


@kernel("Transpose")
def transpose(node: Node, x: Array) -> Array:
    return np.transpose(x, node.get("perm"))


@kernel("Concat")
def concat(node: Node, *values: Array) -> Array:
    return np.concatenate(values, axis=node.get("axis", 1))


@kernel("Split")
def split(node: Node, x: Array, sizes: Array | None = None) -> tuple[Array, ...]:
    """By sizes, or into as many equal parts as there are outputs (the last one smaller from opset 18 on)."""
    axis = node.get("axis", 0)
    parts = ints(node.get("split"), sizes)
    if parts is None:
        count = node.get("num_outputs", len(node.proto.output))
        part = -(-x.shape[axis] // count)
        parts = [min(part, max(0, x.shape[axis] - i * part)) for i in range(count)]
    return tuple(np.split(x, np.cumsum(parts)[:-1], axis=axis))


@kernel("Slice")
def slice_(node: Node, x: Array, starts: Array | None = None, ends: Array | None = None,
           axes: Array | None = None, steps: Array | None = None) -> Array:  # fmt: skip
    first, last = ints(node.get("starts"), starts) or [], ints(node.get("ends"), ends) or []
    where = ints(node.get("axes"), axes) or list(range(len(first)))
    by = ints(None, steps) or [1] * len(first)
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(first, last, where, by, strict=True):
        size = x.shape[axis]
        start, end = (v + size if v < 0 else v for v in (start, end))
        if step > 0:
            start, end = min(max(start, 0), size), min(max(end, 0), size)
        else:
            start, end = min(max(start, 0), size - 1), min(max(end, -1), size - 1)
        index[axis] = slice(start, None if end < 0 else end, step)
    return x[tuple(index)]


@kernel("Expand")
def expand(node: Node, x: Array, shape: Array) -> Array:
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(int(d) for d in shape)))


@kernel("Tile")
def tile(node: Node, x: Array, repeats: Array) -> Array:
    return np.tile(x, tuple(int(r) for r in repeats))


@kernel("Shape")
def shape(node: Node, x: Array) -> Array:
    return np.asarray(x.shape, dtype=np.int64)[node.get("start", 0) : node.get("end", None)]


@kernel("Size")
def size(node: Node, x: Array) -> Array:
    return np.asarray(x.size, dtype=np.int64)


@kernel("ConstantOfShape")
def constant_of_shape(node: Node, dims: Array) -> Array:
    value = node.get("value", np.zeros(1))
    return np.full(tuple(int(d) for d in dims), value.ravel()[0], dtype=value.dtype)


@kernel("Range")
def range_(node: Node, start: Array, limit: Array, delta: Array) -> Array:
    start, limit, delta = (np.asarray(v).reshape(()) for v in (start, limit, delta))
    count = max(0, int(np.ceil((limit - start) / delta)))
    return (start + np.arange(count) * delta).astype(start.dtype)


@kernel("EyeLike")
def eye_like(node: Node, x: Array) -> Array:
    to = node.get("dtype")
    dtype = x.dtype if to is None else np.dtype(np.float64) if to in FLOATS else numpy_dtype(to)
    return np.eye(*x.shape, k=node.get("k", 0)).astype(dtype)


@kernel("Trilu")
def trilu(node: Node, x: Array, k: Array | None = None) -> Array:
    offset = 0 if k is None else int(k)
    return np.triu(x, offset) if node.get("upper", 1) else np.tril(x, offset)


_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


@kernel("Pad")
def pad(
    node: Node, x: Array, pads: Array | None = None, value: Array | None = None, axes: Array | None = None
) -> Array:
    """Begin and end per axis; a negative number crops."""
    amounts = ints(node.get("pads"), pads) or []
    where = [a % x.ndim for a in (ints(None, axes) or range(len(amounts) // 2))]
    widths = [(0, 0)] * x.ndim
    for i, axis in enumerate(where):
        widths[axis] = (amounts[i], amounts[i + len(where)])
    x = x[tuple(slice(max(0, -b), n - max(0, -e)) for (b, e), n in zip(widths, x.shape, strict=True))]
    widths = [(max(b, 0), max(e, 0)) for b, e in widths]
    mode = _MODES[node.get("mode", "constant")]
    if mode != "constant":
        return np.pad(x, widths, mode=mode)  # type: ignore[call-overload]
    fill = node.get("value", 0) if value is None else value.ravel()[0]
    return np.pad(x, widths, constant_values=fill)


@kernel("DepthToSpace")
def depth_to_space(node: Node, x: Array) -> Array:
    n, c, h, w = x.shape
    b = node.get("blocksize")
    if node.get("mode", "DCR") == "DCR":
        out = x.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        out = x.reshape(n, c // (b * b), b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return out.reshape(n, c // (b * b), h * b, w * b)


@kernel("SpaceToDepth")
def space_to_depth(node: Node, x: Array) -> Array:
    n, c, h, w = x.shape
    b = node.get("blocksize")
    order = (0, 3, 5, 1, 2, 4) if node.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return x.reshape(n, c, h // b, b, w // b, b).transpose(order).reshape(n, c * b * b, h // b, w // b)


def cast_to(node: Node, x: Array, to: int) -> Array:
    """To a float of any width: float64, since the reference does not round; to an integer: truncated towards zero."""
    if to in FLOATS:
        if x.dtype.kind in "OUS":
            raise node.fail("strings are not evaluated")
        return np.asarray(x, dtype=np.float64)
    if to == onnx.TensorProto.STRING or x.dtype.kind in "OUS":
        raise node.fail("strings are not evaluated")
    if to == onnx.TensorProto.BOOL:
        return x != 0
    dtype = numpy_dtype(to)
    if dtype.kind in "iu":
        return np.trunc(x).astype(dtype) if x.dtype.kind == "f" else x.astype(dtype)
    raise node.fail(f"a cast to {dtype.name} rounds")


@kernel("Cast")
def cast(node: Node, x: Array) -> Array:
    return cast_to(node, x, node.get("to"))


@kernel("CastLike")
def cast_like(node: Node, x: Array, target: Array) -> Array:
    return cast_to(node, x, onnx.helper.np_dtype_to_tensor_dtype(target.dtype))
