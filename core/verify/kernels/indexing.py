"""Operators that pick or place elements by index."""

from __future__ import annotations

import numpy as np

from onnx_rewrite.verify.dtypes import Array
from onnx_rewrite.verify.kernels import Node, kernel


@kernel("Gather")
def gather(node: Node, x: Array, indices: Array) -> Array:
    axis = node.get("axis", 0)
    if indices.size and (indices.min() < -x.shape[axis] or indices.max() >= x.shape[axis]):
        raise IndexError(f"Gather: an index is outside [-{x.shape[axis]}, {x.shape[axis]})")
    return np.take(x, indices, axis=axis)


@kernel("GatherElements")
def gather_elements(node: Node, x: Array, indices: Array) -> Array:
    axis = node.get("axis", 0) % x.ndim
    grid = list(np.indices(indices.shape, sparse=True))
    grid[axis] = indices
    return x[tuple(grid)]


@kernel("GatherND")
def gather_nd(node: Node, x: Array, indices: Array) -> Array:
    batch = node.get("batch_dims", 0)
    lead = x.shape[:batch]
    flat = x.reshape((-1, *x.shape[batch:])) if batch else x[None]
    index = indices.reshape((-1, *indices.shape[batch:])) if batch else indices[None]
    picked = [data[tuple(np.moveaxis(where, -1, 0))] for data, where in zip(flat, index, strict=True)]
    out = np.stack(picked) if picked else np.empty((0,), x.dtype)
    return out.reshape((*lead, *out.shape[1:])) if batch else out[0]


@kernel("OneHot")
def one_hot(node: Node, indices: Array, depth: Array, values: Array) -> Array:
    count, axis = int(np.asarray(depth).ravel()[0]), node.get("axis", -1)
    where = np.trunc(indices).astype(np.int64)
    where = np.where(where < 0, where + count, where)
    axis = axis + indices.ndim + 1 if axis < 0 else axis
    steps = np.arange(count).reshape([-1 if i == axis else 1 for i in range(indices.ndim + 1)])
    return np.where(np.expand_dims(where, axis) == steps, values[1], values[0])


@kernel("NonZero")
def non_zero(node: Node, x: Array) -> Array:
    return np.asarray(np.nonzero(np.atleast_1d(x)), dtype=np.int64)


@kernel("Compress")
def compress(node: Node, x: Array, condition: Array) -> Array:
    return np.compress(condition, x, axis=node.get("axis"))


def _combine(node: Node, out: Array, index: tuple[Array, ...], updates: Array) -> Array:
    mode = node.get("reduction", "none")
    if mode == "none":
        out[index] = updates
    else:
        {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[mode].at(out, index, updates)
    return out


@kernel("ScatterND")
def scatter_nd(node: Node, x: Array, indices: Array, updates: Array) -> Array:
    return _combine(node, x.copy(), tuple(np.moveaxis(indices, -1, 0)), updates)


@kernel("ScatterElements", "Scatter")
def scatter_elements(node: Node, x: Array, indices: Array, updates: Array) -> Array:
    grid = list(np.indices(indices.shape, sparse=True))
    grid[node.get("axis", 0) % x.ndim] = indices
    return _combine(node, x.copy(), tuple(np.broadcast_arrays(*grid)), updates)
