"""Reductions, arg-reductions, cumulative sums, sorting, and the softmax family."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnx_rewrite.verify.dtypes import Array
from onnx_rewrite.verify.kernels import Node, kernel


def logsumexp(x: Array, axis: int | tuple[int, ...] | None, keepdims: bool) -> Array:
    """log(sum(exp(x))) without overflow; an all-infinite slice keeps its infinity."""
    top = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    shift = np.where(np.isfinite(top), top, 0.0)
    out = np.log(np.sum(np.exp(x - shift), axis=axis, keepdims=True)) + shift
    return out if keepdims else np.squeeze(out, axis=axis)


def _mean(x: Array, axis: tuple[int, ...] | None, keepdims: bool) -> Array:
    return np.mean(x, axis=axis, keepdims=keepdims, dtype=np.float64).astype(x.dtype)


_REDUCTIONS: dict[str, Callable[[Array, tuple[int, ...] | None, bool], Array]] = {
    "ReduceSum": lambda x, a, k: np.sum(x, axis=a, keepdims=k, dtype=x.dtype),
    "ReduceMean": _mean,
    "ReduceProd": lambda x, a, k: np.prod(x, axis=a, keepdims=k, dtype=x.dtype),
    "ReduceMax": lambda x, a, k: np.max(x, axis=a, keepdims=k),
    "ReduceMin": lambda x, a, k: np.min(x, axis=a, keepdims=k),
    "ReduceL1": lambda x, a, k: np.sum(np.abs(x), axis=a, keepdims=k, dtype=x.dtype),
    "ReduceL2": lambda x, a, k: np.sqrt(np.sum(np.square(x), axis=a, keepdims=k)).astype(x.dtype),
    "ReduceSumSquare": lambda x, a, k: np.sum(np.square(x), axis=a, keepdims=k, dtype=x.dtype),
    "ReduceLogSum": lambda x, a, k: np.log(np.sum(x, axis=a, keepdims=k)).astype(x.dtype),
    "ReduceLogSumExp": lambda x, a, k: logsumexp(x.astype(np.float64), a, k).astype(x.dtype),
}


@kernel(*_REDUCTIONS)
def reduction(node: Node, x: Array, axes: Array | None = None) -> Array:
    """A reduction over ``axes`` (attribute in older opsets, input in newer ones); none given means all."""
    chosen = node.get("axes") if axes is None else axes.ravel().tolist()
    if not chosen and node.get("noop_with_empty_axes", 0):
        return x
    axis = tuple(chosen) if chosen else None
    keepdims = bool(node.get("keepdims", 1))
    if x.size == 0 and node.proto.op_type in ("ReduceMax", "ReduceMin"):
        least = node.proto.op_type == "ReduceMax"
        fill: float = -np.inf if least else np.inf
        if x.dtype.kind != "f":
            fill = not least if x.dtype.kind == "b" else np.iinfo(x.dtype).min if least else np.iinfo(x.dtype).max
        return np.asarray((np.max if least else np.min)(x, axis=axis, keepdims=keepdims, initial=fill))
    return np.asarray(_REDUCTIONS[node.proto.op_type](x, axis, keepdims))


@kernel("ArgMax", "ArgMin")
def arg_reduction(node: Node, x: Array) -> Array:
    axis, function = node.get("axis", 0), np.argmax if node.proto.op_type == "ArgMax" else np.argmin
    if node.get("select_last_index", 0):
        out = x.shape[axis] - 1 - function(np.flip(x, axis), axis=axis)
    else:
        out = function(x, axis=axis)
    out = np.asarray(out, dtype=np.int64)
    return np.expand_dims(out, axis) if node.get("keepdims", 1) else out


@kernel("TopK")
def top_k(node: Node, x: Array, k: Array | None = None) -> tuple[Array, Array]:
    """The k largest (or smallest), sorted; of equal elements the one with the lower index comes first."""
    count = int(node.get("k")) if k is None else int(k.ravel()[0])
    axis = node.get("axis", -1)
    if node.get("largest", 1):  # A stable descending sort is a stable ascending one of the flipped axis, flipped.
        order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis=axis, kind="stable")
    order = np.take(order, np.arange(count), axis=axis)
    return np.take_along_axis(x, order, axis=axis), order.astype(np.int64)


@kernel("CumSum")
def cum_sum(node: Node, x: Array, axis: Array) -> Array:
    dim = int(axis)
    flipped = bool(node.get("reverse", 0))
    data = np.flip(x, dim) if flipped else x
    out = np.cumsum(data, axis=dim, dtype=x.dtype)
    if node.get("exclusive", 0):
        out = out - data
    return np.flip(out, dim) if flipped else out


def _softmax(x: Array, axis: int | tuple[int, ...]) -> Array:
    shifted = np.exp(x - np.max(x, axis=axis, keepdims=True, initial=-np.inf))
    return shifted / np.sum(shifted, axis=axis, keepdims=True)


@kernel("Softmax", "LogSoftmax", "Hardmax")
def softmax(node: Node, x: Array) -> Array:
    """Over one axis from opset 13 on; over all axes from ``axis`` on before that (the input is coerced to two
    dimensions).
    """
    rank = x.ndim
    axis: int | tuple[int, ...]
    if node.version >= 13:
        axis = node.get("axis", -1)
    else:
        axis = tuple(range(node.get("axis", 1) % max(rank, 1), rank))
    if x.size == 0:
        return x
    if node.proto.op_type == "Softmax":
        return _softmax(x, axis)
    if node.proto.op_type == "LogSoftmax":
        return x - logsumexp(x, axis, True)
    flat = x.reshape((*x.shape[: axis[0]], -1)) if isinstance(axis, tuple) else np.moveaxis(x, axis, -1)
    hot = np.zeros_like(flat)
    np.put_along_axis(hot, np.argmax(flat, axis=-1)[..., None], 1, axis=-1)
    return hot.reshape(x.shape) if isinstance(axis, tuple) else np.moveaxis(hot, -1, axis)
