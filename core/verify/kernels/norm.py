"""Normalizations. Variances are those of the whole population (divided by n), as in the specification."""

from __future__ import annotations

import numpy as np

from onnx_rewrite.verify.dtypes import Array
from onnx_rewrite.verify.kernels import Node, kernel

# The schemas declare their defaults as float32 numbers.
_EPS = float(np.float32(1e-5))


def _normalize(x: Array, axes: tuple[int, ...], eps: float) -> tuple[Array, Array, Array]:
    mean = x.mean(axis=axes, keepdims=True)
    inverse = 1.0 / np.sqrt(np.square(x - mean).mean(axis=axes, keepdims=True) + eps)
    return (x - mean) * inverse, mean, inverse


def _per_channel(v: Array, rank: int) -> Array:
    return v.reshape(-1, *[1] * (rank - 2))


@kernel("LayerNormalization")
def layer_normalization(node: Node, x: Array, scale: Array, bias: Array | None = None) -> tuple[Array, ...]:
    axis = node.get("axis", -1) % x.ndim
    out, mean, inverse = _normalize(x, tuple(range(axis, x.ndim)), node.get("epsilon", _EPS))
    out = out * scale
    return (out if bias is None else out + bias), mean, inverse


@kernel("RMSNormalization")
def rms_normalization(node: Node, x: Array, scale: Array) -> Array:
    axes = tuple(range(node.get("axis", -1) % x.ndim, x.ndim))
    return x / np.sqrt(np.square(x).mean(axis=axes, keepdims=True) + node.get("epsilon", _EPS)) * scale


@kernel("InstanceNormalization")
def instance_normalization(node: Node, x: Array, scale: Array, bias: Array) -> Array:
    out = _normalize(x, tuple(range(2, x.ndim)), node.get("epsilon", _EPS))[0]
    return out * _per_channel(scale, x.ndim) + _per_channel(bias, x.ndim)


@kernel("GroupNormalization")
def group_normalization(node: Node, x: Array, scale: Array, bias: Array) -> Array:
    """Scale and bias are per group below opset 21, per channel from there on."""
    n, c = x.shape[:2]
    groups = node.get("num_groups")
    out = _normalize(x.reshape(n, groups, -1), (2,), node.get("epsilon", _EPS))[0].reshape(x.shape)
    if node.version < 21:
        scale, bias = np.repeat(scale, c // groups), np.repeat(bias, c // groups)
    return out * _per_channel(scale, x.ndim) + _per_channel(bias, x.ndim)


@kernel("BatchNormalization")
def batch_normalization(node: Node, x: Array, scale: Array, bias: Array, mean: Array, var: Array) -> tuple[Array, ...]:
    """With the given statistics, or with the batch's own in training mode (an attribute from opset 14 on, more than
    one output from 7 on, no `is_test` before).
    """
    if node.version < 9 and not node.get("spatial", 1):
        raise node.fail("spatial=0 is not evaluated")
    rank, eps = max(x.ndim, 2), node.get("epsilon", _EPS)
    momentum = node.get("momentum", float(np.float32(0.9)))
    training = bool(node.get("training_mode", 0)) if node.version >= 14 else node.outputs > 1
    if node.version < 7:
        training = not node.get("is_test", 0)
    if not training:
        return ((x - _per_channel(mean, rank)) / np.sqrt(_per_channel(var, rank) + eps) * _per_channel(scale, rank)
                + _per_channel(bias, rank),)  # fmt: skip
    axes = (0, *range(2, x.ndim))
    seen, spread = x.mean(axis=axes), x.var(axis=axes)
    out = (x - _per_channel(seen, rank)) / np.sqrt(_per_channel(spread, rank) + eps) * _per_channel(scale, rank)
    running = momentum * mean + (1 - momentum) * seen, momentum * var + (1 - momentum) * spread
    return (out + _per_channel(bias, rank), *running, seen, spread)


@kernel("LRN")
def lrn(node: Node, x: Array) -> Array:
    size, beta = node.get("size"), node.get("beta", 0.75)
    alpha, bias = node.get("alpha", float(np.float32(1e-4))), node.get("bias", 1.0)
    before, after = (size - 1) // 2, -(-(size - 1) // 2)
    padded = np.pad(np.square(x), [(0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)])
    total = sum(padded[:, i : i + x.shape[1]] for i in range(size))
    return x / (bias + alpha / size * total) ** beta


@kernel("MeanVarianceNormalization")
def mean_variance_normalization(node: Node, x: Array) -> Array:
    axes = tuple(node.get("axes") or (0, 2, 3))
    mean = x.mean(axis=axes, keepdims=True)
    # The constant of the operator's function body.
    return (x - mean) / (np.sqrt(np.square(x).mean(axis=axes, keepdims=True) - mean**2) + float(np.float32(1e-9)))


@kernel("LpNormalization")
def lp_normalization(node: Node, x: Array) -> Array:
    axis, p = node.get("axis", -1), node.get("p", 2)
    norm = np.abs(x).sum(axis=axis, keepdims=True) if p == 1 else np.sqrt(np.square(x).sum(axis=axis, keepdims=True))
    return np.where(norm == 0, 0.0, x / norm)
