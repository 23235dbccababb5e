"""Pooling, one elementwise step per kernel position."""

from __future__ import annotations

import numpy as np

from onnx_rewrite.verify.dtypes import Array
from onnx_rewrite.verify.kernels import Node, kernel
from onnx_rewrite.verify.kernels.conv import positions, strided, window


@kernel("MaxPool")
def max_pool(node: Node, x: Array) -> Array:
    """Padding never wins; the second output (indices) is left to onnxruntime."""
    if node.outputs > 1:
        return NotImplemented
    shape = node.get("kernel_shape")
    strides, dilations, pads, sizes = window(node, x.shape[2:], shape, ceil=bool(node.get("ceil_mode", 0)))
    low = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    padded = _room(x, shape, strides, dilations, pads, sizes, low)
    out = np.full((*x.shape[:2], *sizes), low, dtype=x.dtype)
    for offset in positions(shape):
        np.maximum(out, padded[strided(offset, strides, dilations, sizes)], out=out)
    return out


def _room(x: Array, shape: list[int], strides: list[int], dilations: list[int], pads: list[tuple[int, int]],
          sizes: list[int], fill: float) -> Array:  # fmt: skip
    """X padded with fill, and far enough for the windows that ceil_mode adds."""
    widths = [(0, 0), (0, 0)]
    for n, k, s, d, (begin, end), out in zip(x.shape[2:], shape, strides, dilations, pads, sizes, strict=True):
        widths.append((begin, max(end, (out - 1) * s + (k - 1) * d + 1 - n - begin)))
    return np.pad(x, widths, constant_values=fill)


@kernel("AveragePool", "LpPool")
def average_pool(node: Node, x: Array) -> Array:
    """AveragePool divides by the elements seen: those of the input, or with count_include_pad also the declared
    padding.
    """
    shape = node.get("kernel_shape")
    strides, dilations, pads, sizes = window(node, x.shape[2:], shape, ceil=bool(node.get("ceil_mode", 0)))
    power = float(node.get("p", 2)) if node.proto.op_type == "LpPool" else None
    data = x if power is None else np.abs(x) ** power
    counted = np.ones((1, 1, *x.shape[2:]))
    if node.get("count_include_pad", 0):
        counted = np.pad(counted, [(0, 0), (0, 0), *pads], constant_values=1.0)
        counted = _room(counted, shape, strides, dilations, [(0, 0)] * len(sizes), sizes, 0.0)
    else:
        counted = _room(counted, shape, strides, dilations, pads, sizes, 0.0)
    padded = _room(data, shape, strides, dilations, pads, sizes, 0.0)
    total, count = np.zeros((*x.shape[:2], *sizes)), np.zeros((1, 1, *sizes))
    for offset in positions(shape):
        spot = strided(offset, strides, dilations, sizes)
        total += padded[spot]
        count += counted[spot]
    return total / count if power is None else total ** (1.0 / power)


@kernel("GlobalAveragePool")
def global_average_pool(node: Node, x: Array) -> Array:
    return x.mean(axis=tuple(range(2, x.ndim)), keepdims=True)


@kernel("GlobalMaxPool")
def global_max_pool(node: Node, x: Array) -> Array:
    return x.max(axis=tuple(range(2, x.ndim)), keepdims=True)


@kernel("GlobalLpPool")
def global_lp_pool(node: Node, x: Array) -> Array:
    p = float(node.get("p", 2))
    return np.sum(np.abs(x) ** p, axis=tuple(range(2, x.ndim)), keepdims=True) ** (1.0 / p)
