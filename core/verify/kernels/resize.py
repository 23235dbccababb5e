"""Resize and Upsample: one small matrix of weights per axis, since every mode of the specification is separable."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from onnx_rewrite.verify.dtypes import Array
from onnx_rewrite.verify.kernels import Node, kernel
from onnx_rewrite.verify.kernels.layout import ints

_ROUND: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _coordinates(mode: str, n: int, out: int, scale: float, roi: tuple[float, float]) -> Array:
    """Where each output element lies on the input axis (the specification's coordinate_transformation_mode)."""
    at = np.arange(out, dtype=np.float64)
    # The length before it is rounded down to an integer.
    length = scale * n
    match mode:
        case "half_pixel":
            return (at + 0.5) / scale - 0.5
        case "half_pixel_symmetric":
            return n / 2 * (1 - out / length) + (at + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            return (at + 0.5) / scale - 0.5 if length > 1 else np.zeros(out)
        case "align_corners":
            return at * (n - 1) / (length - 1) if length != 1 else np.zeros(out)
        case "asymmetric":
            return at / scale
        case "tf_crop_and_resize":
            start, end = roi
            if length <= 1:
                return np.full(out, 0.5 * (start + end) * (n - 1))
            return start * (n - 1) + at * (end - start) * (n - 1) / (length - 1)
        case _:
            raise ValueError(f"coordinate_transformation_mode {mode!r}")


def _cubic(distance: Array, a: float) -> Array:
    """Keys' kernel (Cubic convolution interpolation, 1981) with coefficient a."""
    d = np.abs(distance)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _weights(node: Node, at: Array, n: int) -> Array:
    """[out, n]: how much of each input element goes into each output element."""
    mode = node.get("mode", "nearest")
    out = np.zeros((at.size, n))
    rows = np.arange(at.size)
    if mode == "nearest":
        rounding = node.get("nearest_mode", "floor" if node.version < 11 else "round_prefer_floor")
        out[rows, np.clip(_ROUND[rounding](at), 0, n - 1).astype(np.int64)] = 1.0
        return out
    radius = 2 if mode == "cubic" else 1
    coefficient = node.get("cubic_coeff_a", -0.75)
    reach = radius + 1
    steps = np.arange(-reach, reach + 1)
    places = np.floor(at)[:, None] + steps
    distance = places - at[:, None]
    taps = _cubic(distance, coefficient) if mode == "cubic" else np.maximum(0.0, 1.0 - np.abs(distance))
    inside = (places >= 0) & (places < n)
    if node.get("exclude_outside", 0):
        taps = np.where(inside, taps, 0.0)
    total = taps.sum(axis=1, keepdims=True)
    taps = np.divide(taps, total, out=np.zeros_like(taps), where=total != 0)
    np.add.at(out, (np.broadcast_to(rows[:, None], places.shape), np.clip(places, 0, n - 1).astype(np.int64)), taps)
    return out


@kernel("Resize", "Upsample")
def resize(node: Node, x: Array, *rest: Array | None) -> Array:
    """By scales or to sizes, over all axes or the given ones; antialiasing is left to onnx.reference."""
    if node.get("antialias", 0) and node.get("mode", "nearest") != "nearest":
        return NotImplemented
    old = node.proto.op_type == "Upsample" or node.version < 11
    roi, scales, sizes = (None, *rest, None, None)[:3] if old else (*rest, None, None, None)[:3]
    if scales is None and node.get("scales") is not None:
        scales = np.asarray(node.get("scales"))
    axes = [a % x.ndim for a in (ints(node.get("axes"), None) or range(x.ndim))]
    wanted = ints(None, sizes) if sizes is not None and sizes.size else None
    if wanted is not None:
        ratios = [w / x.shape[a] for w, a in zip(wanted, axes, strict=True)]
        policy = node.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            ratios = [ratio] * len(axes)
            wanted = [math.floor(x.shape[a] * ratio + 0.5) for a in axes]
    else:
        if scales is None or not scales.size:
            raise node.fail("neither scales nor sizes are given")
        ratios = [float(s) for s in scales.ravel()]
        wanted = [math.floor(x.shape[a] * s) for a, s in zip(axes, ratios, strict=True)]
    transform = "asymmetric" if old else node.get("coordinate_transformation_mode", "half_pixel")
    crop = transform == "tf_crop_and_resize"
    dtype = x.dtype
    x = x.astype(np.float64)
    outside: list[tuple[int, Array]] = []
    for i, (axis, size, ratio) in enumerate(zip(axes, wanted, ratios, strict=True)):
        n = x.shape[axis]
        span = (float(roi[i]), float(roi[i + len(axes)])) if crop and roi is not None and roi.size else (0.0, 1.0)
        at = _coordinates(transform, n, size, ratio, span)
        if crop:
            outside.append((axis, (at < 0) | (at > n - 1)))
        elif size == n and ratio == 1.0:
            continue
        x = _apply(_weights(node, at, n), x, axis)
    for axis, mask in outside:
        shape = [-1 if d == axis else 1 for d in range(x.ndim)]
        x = np.where(mask.reshape(shape), node.get("extrapolation_value", 0.0), x)
    return x.astype(dtype)


def _apply(weights: Array, x: Array, axis: int) -> Array:
    """Weighted sums along an axis; only the weights that are not zero take part, so NaN and infinities stay where they
    are.
    """
    used = weights != 0
    width = int(used.sum(axis=1).max(initial=1))
    picked = np.argsort(~used, axis=1, kind="stable")[:, :width]
    moved = np.moveaxis(x, axis, -1)
    out = np.zeros((*moved.shape[:-1], weights.shape[0]))
    for k in range(width):
        factor = np.take_along_axis(weights, picked[:, k : k + 1], axis=1)[:, 0]
        term = moved[..., picked[:, k]]
        out += np.where(factor == 0, 0.0, term * factor)
    return np.moveaxis(out, -1, axis)
