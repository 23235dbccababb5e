"""Measures of how far two arrays are apart, and thresholds on them.

All compare B with A element by element in float64. Where both are NaN, or the same infinity, they agree; an element
that is finite in only one of them, or another kind of non-finite, is infinitely far.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_rewrite.errors import UsageError
from onnx_rewrite.verify.dtypes import Array


@dataclass(frozen=True)
class Metric:
    """What a measure is.

    Attributes:
        text: In words.
        at_least: Whether larger is better: a threshold is then the least that is accepted, else the most.
        perfect: Its value for equal arrays.
    """

    text: str
    at_least: bool
    perfect: float


METRICS: dict[str, Metric] = {
    "abs": Metric("largest absolute difference", False, 0.0),
    "mean": Metric("mean absolute difference", False, 0.0),
    "rel": Metric("largest difference relative to the larger of the two numbers", False, 0.0),
    "ulp": Metric("largest distance in numbers of the coarser type", False, 0.0),
    "psnr": Metric("peak signal to noise in dB: 20 log10(max|A| / root of the mean squared difference)", True, np.inf),
    "cosine": Metric("cosine of the angle between the two as vectors", True, 1.0),
    "top-1": Metric("share of rows along the last axis whose largest element is in the same place", True, 1.0),
}
"""The measures by name, in the order in which they are shown."""

DEFAULT = ("abs", "mean", "rel")
"""Measures that are shown where none are asked for."""


def choose(names: str | Sequence[str] | None, thresholds: Mapping[str, float]) -> tuple[str, ...]:
    """The measures to take: those named ("abs,ulp", or a sequence) and those with a threshold, in the usual order.

    Raises:
        UsageError: A name is unknown; the hint has the nearest or all.
    """
    listed = [part.strip() for part in names.split(",")] if isinstance(names, str) else list(names or DEFAULT)
    wanted = {_known(name) for name in listed if name} | {_known(name) for name in thresholds}
    return tuple(name for name in METRICS if name in wanted)


def _known(name: str) -> str:
    if name not in METRICS:
        near = difflib.get_close_matches(name, METRICS, 1)
        raise UsageError(
            f"unknown metric {name!r}", hint=f"did you mean {near[0]!r}?" if near else f"one of: {', '.join(METRICS)}"
        )
    return name


def refused(measures: Mapping[str, float], thresholds: Mapping[str, float]) -> str | None:
    """The first measure that does not keep to its threshold, in words, or None; NaN keeps to none."""
    for name, limit in thresholds.items():
        value = measures[name]
        if METRICS[name].at_least and not value >= limit:
            return f"{name} is {value:.6g}, less than {limit:.6g}"
        if not METRICS[name].at_least and not value <= limit:
            return f"{name} is {value:.6g}, more than {limit:.6g}"
    return None


def gaps(a: Array, b: Array) -> Array:
    """Absolute differences in float64 of two arrays of one shape and any number types; infinite where one is NaN or
    infinite and the other is not the same.
    """
    if "c" in (a.dtype.kind, b.dtype.kind):
        return np.asarray(np.abs(a - b))
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(wide_a - wide_b)
    same = (wide_a == wide_b) | (np.isnan(wide_a) & np.isnan(wide_b))
    if a.dtype.kind in "iub" and b.dtype.kind in "iub":
        # Integers beyond 2^53 may differ although their doubles do not.
        return np.where(a == b, 0.0, np.maximum(gap, 1.0))
    return np.where(same, 0.0, np.where(np.isfinite(wide_a) & np.isfinite(wide_b), gap, np.inf))


def relative(a: Array, b: Array, gap: Array) -> Array:
    """Differences relative to the larger of the two numbers: 0 to 2, or infinite."""
    size = np.maximum(np.abs(a.astype(np.float64)), np.abs(b.astype(np.float64)))
    return np.where(gap == 0, 0.0, np.where(np.isfinite(gap), gap / np.where(size > 0, size, 1.0), np.inf))


_CODES = {
    "float16": (np.uint16, 16),
    "bfloat16": (np.uint16, 16),
    "float32": (np.uint32, 32),
    "float64": (np.uint64, 64),
}
_ORDER = ("bfloat16", "float16", "float32", "float64")


def ulps(a: Array, b: Array, gap: Array) -> Array:
    """Distances counted in representable numbers: two neighbours are 1 apart, +0 and -0 are equal.

    Arrays of two float types are both rounded to the coarser one first. For other types the difference itself.
    """
    names = a.dtype.name, b.dtype.name
    if not all(name in _CODES for name in names):
        return gap
    coarse = (a if _ORDER.index(names[0]) <= _ORDER.index(names[1]) else b).dtype
    high, low = (_ordered(v.astype(coarse)) for v in (a, b))
    distance = (np.maximum(high, low) - np.minimum(high, low)).astype(np.float64)
    return np.where(gap == 0, 0.0, np.where(np.isfinite(gap), distance, np.inf))


def _ordered(values: Array) -> Array:
    """Unsigned integers in the order of the numbers that the bits stand for."""
    kind, bits = _CODES[values.dtype.name]
    code = np.ascontiguousarray(values).view(kind).reshape(values.shape).astype(np.uint64)
    middle = np.uint64(1 << (bits - 1))
    magnitude = code & (middle - np.uint64(1))
    return np.where(code >= middle, middle - magnitude, middle + magnitude)


def psnr(a: Array, gap: Array) -> float:
    """The signal to noise ratio in dB; infinite for equal arrays, minus infinity where an element is infinitely far."""
    noise = float(np.max(gap, initial=0.0))
    if noise == 0:
        return float("inf")
    wide = np.abs(a.astype(np.float64))
    peak = float(np.max(wide, initial=0.0, where=np.isfinite(wide)))
    if peak == 0 or not np.isfinite(noise):
        return float("-inf")
    root = noise * float(np.sqrt(np.mean((gap / noise) ** 2)))
    return float(20 * (np.log10(peak) - np.log10(root)))


def cosine(a: Array, b: Array, gap: Array) -> float:
    """The cosine over elements that are finite in both; 1 for equal arrays, 0 if only one is zero, NaN where an
    element is infinitely far.
    """
    if not np.any(gap):
        return 1.0
    if not np.all(np.isfinite(gap)):
        return float("nan")
    left, right = (v.astype(np.float64).ravel() for v in (a, b))
    finite = np.isfinite(left)
    left, right = left[finite], right[finite]
    tops = [float(np.max(np.abs(v), initial=0.0)) for v in (left, right)]
    if 0.0 in tops:
        return 0.0
    left, right = left / tops[0], right / tops[1]
    value = float(left @ right / (np.sqrt(left @ left) * np.sqrt(right @ right)))
    return max(-1.0, min(1.0, value))


def top_1(a: Array, b: Array) -> tuple[int, int]:
    """(rows that agree, rows): along the last axis, whether B's largest element is where A has its largest; any of
    several equal ones in A will do.
    """
    if not a.size:
        return 0, 0
    left, right = (v.astype(np.float64).reshape(-1, v.shape[-1] if v.ndim else 1) for v in (a, b))
    place = np.argmax(right, axis=1)[:, None]
    top = left.max(axis=1, keepdims=True)
    agree = np.take_along_axis(left, place, axis=1) == top
    # NaN has no order: such rows agree where the first NaN is in the same place.
    lost = np.isnan(top)
    agree = np.where(lost, np.argmax(left, axis=1)[:, None] == place, agree)
    return int(np.count_nonzero(agree)), len(left)
