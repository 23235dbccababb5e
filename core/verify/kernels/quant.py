"""Quantization, exact: the only roundings are those that the operators define."""

from __future__ import annotations

import numpy as np
import onnx

from onnx_rewrite.verify.dtypes import FLOATS, Array, numpy_dtype
from onnx_rewrite.verify.kernels import Node, kernel

_PACKED = {onnx.TensorProto.INT4: (-8, 7, np.int8), onnx.TensorProto.UINT4: (0, 15, np.uint8)}


def _spread(node: Node, value: Array, x: Array) -> Array:
    """A scale or zero point, per tensor, per axis or per block, broadcast against x."""
    if value.ndim == 0 or value.size == 1:
        return value.reshape(())
    axis = node.get("axis", 1) % x.ndim
    block = node.get("block_size", 0)
    if block:
        return np.take(np.repeat(value, block, axis=axis), np.arange(x.shape[axis]), axis=axis)
    return value.reshape([-1 if i == axis else 1 for i in range(x.ndim)])


@kernel("QuantizeLinear")
def quantize_linear(node: Node, x: Array, scale: Array, zero: Array | None = None) -> Array:
    """Round half to even, then saturate."""
    to = node.get("output_dtype", 0) or (
        onnx.TensorProto.UINT8 if zero is None else onnx.helper.np_dtype_to_tensor_dtype(zero.dtype)
    )
    if to in _PACKED:
        low, high, dtype = _PACKED[to]
    elif to in FLOATS or numpy_dtype(to).kind not in "iu":
        raise node.fail("quantization to a float type rounds")
    else:
        dtype = numpy_dtype(to)
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    level = np.rint(x / _spread(node, scale, x)) + (0 if zero is None else _spread(node, zero, x).astype(np.float64))
    return np.clip(np.nan_to_num(level, nan=0.0), low, high).astype(dtype)


@kernel("DequantizeLinear")
def dequantize_linear(node: Node, x: Array, scale: Array, zero: Array | None = None) -> Array:
    level = x.astype(np.float64)
    if zero is not None:
        level = level - _spread(node, zero, x).astype(np.float64)
    return level * _spread(node, scale, x)


@kernel("DynamicQuantizeLinear")
def dynamic_quantize_linear(node: Node, x: Array) -> tuple[Array, Array, Array]:
    low, high = min(0.0, float(x.min(initial=0.0))), max(0.0, float(x.max(initial=0.0)))
    scale = (high - low) / 255.0
    zero = np.clip(np.rint(-low / scale), 0, 255) if scale else 0.0
    levels = np.rint(x / scale) if scale else np.zeros_like(x)
    return np.clip(levels + zero, 0, 255).astype(np.uint8), np.asarray(scale), np.asarray(zero).astype(np.uint8)
