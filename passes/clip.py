"""Clip.

Min, Max, Relu and Clip each bound a value; two in a row are one Clip. If the inner one maps x to
min(max(x, a), b) with a <= b and the outer one is f, which rises with x, both together map x to
min(max(x, f(a)), f(b)), and f(a) <= f(b): also where the two ranges do not meet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_rewrite.analysis.dtypes import FLOATS, INTEGERS, numpy_dtype
from onnx_rewrite.match import Constant, Match, Refused
from onnx_rewrite.pattern import constant, either, op, optional
from onnx_rewrite.registry import Pass, RuleSet


def bounded(x: Any, step: str, lo: Any, hi: Any, low: Any, high: Any) -> Any:
    """`x` after any operator that bounds it.

    Args:
        x: What is bounded.
        step: Captures the node.
        lo: Captures the lower bound of a Clip.
        hi: Captures the upper bound of a Clip.
        low: Captures the constant of a Max.
        high: Captures the constant of a Min.
    """
    return either(
        op.Min(x, constant(high)).named(step),
        op.Max(x, constant(low)).named(step),
        op.Clip(x, min=optional(lo), max=optional(hi)).named(step),
        op.Relu(x).named(step),
    )


class Saturations(Pass):
    """Two bounds in a row."""

    name = "clip"

    def pattern(
        self, x: Any, lo1: Any, hi1: Any, low1: Any, high1: Any, lo2: Any, hi2: Any, low2: Any, high2: Any
    ) -> Any:
        inner = bounded(x, "inner", lo1, hi1, low1, high1)
        return bounded(inner, "outer", lo2, hi2, low2, high2)

    def check(self, m: Match) -> None:
        if m.inner.op_type == "Relu" and m.outer.op_type == "Relu":
            raise Refused("Relu after Relu bounds nothing more")
        dtype = m.x.dtype
        if dtype is None:
            raise Refused(f"the dtype of value '{m.x.name}' is not known", m.x)
        if dtype not in FLOATS | INTEGERS:
            raise Refused(f"Clip has no type {dtype.name}", m.x)
        if dtype not in FLOATS and m.version < 12:
            raise Refused(f"Clip takes {dtype.name} from opset 12 on; the model's is {m.version}", m.x)
        for bound in (m.low1, m.high1, m.low2, m.high2):
            if bound is not None:
                scalar_bound(m, bound)
        self.bounds(m)

    def bounds(self, m: Match) -> tuple[float | None, float | None]:
        """Lower and upper bound of both together; None where there is none.

        Raises:
            Refused: A bound is NaN.
        """
        lo, hi = interval(m, m.inner, m.lo1, m.hi1, m.low1, m.high1)
        lo2, hi2 = interval(m, m.outer, m.lo2, m.hi2, m.low2, m.high2)

        def outer(value: float) -> float:
            return min(max(value, lo2), hi2)

        lo, hi = outer(lo), outer(hi)
        return (None if lo == -math.inf else lo, None if hi == math.inf else hi)

    def replace(self, m: Match) -> Any:
        dtype = numpy_dtype(m.x.dtype)
        assert dtype is not None
        lo, hi = self.bounds(m)
        if m.version < 11:
            return op.Clip(m.x, min=None if lo is None else float(lo), max=None if hi is None else float(hi))
        return op.Clip(
            m.x,
            min=None if lo is None else np.asarray(lo, dtype),
            max=None if hi is None else np.asarray(hi, dtype),
        )


def interval(m: Match, node: ir.Node, lo: Any, hi: Any, low: Any, high: Any) -> tuple[float, float]:
    """The range onto which one operator maps everything; lower <= upper.

    A Clip whose lower bound exceeds the upper one gives the upper one everywhere (ONNX Clip, and measured).

    Raises:
        Refused: A bound is NaN.
    """
    lower, upper = -math.inf, math.inf
    if node.op_type == "Relu":
        lower = 0
    elif node.op_type == "Max":
        lower = scalar_bound(m, low)
    elif node.op_type == "Min":
        upper = scalar_bound(m, high)
    else:
        lower, upper = _clip_bound(m, lo, -math.inf), _clip_bound(m, hi, math.inf)
    if math.isnan(lower) or math.isnan(upper):
        raise Refused("a bound is NaN", node)
    return min(lower, upper), upper


def _clip_bound(m: Match, bound: Any, absent: float) -> float:
    """A bound of Clip; the lowest and highest finite numbers, old defaults, bound nothing but infinities."""
    return absent if bound is None else bound


def scalar_bound(m: Match, bound: Constant) -> float:
    """The number that a constant bound holds in every element.

    Raises:
        Refused: It has several numbers, or broadcasting it would give the result another shape.
    """
    array, shape = bound.array, bound.shape
    if array.size == 0 or not bool((array == array.reshape(-1)[0]).all()):
        if array.size == 1:
            raise Refused("a bound is NaN", bound)
        raise Refused(f"a bound of shape {list(shape)} holds different numbers; Clip takes one", bound)
    rank = m.rank(m.x)
    if shape and (rank is None or len(shape) > rank):
        raise Refused(f"a bound of shape {list(shape)} may give the result another rank", bound)
    for offset, length in enumerate(reversed(shape), start=1):
        if length != 1 and m.dim(m.x, -offset) != length:
            raise Refused(f"a bound of shape {list(shape)} may enlarge the result", bound)
    return array.reshape(-1)[0].item()


@dataclass(frozen=True)
class FuseClip(RuleSet):
    """Fuses Min and Max with constant bounds, Relu and Clip that follow each other into one Clip.

    Bounds are kept exactly, also where the lower one exceeds the upper one.
    """

    name = "clip"

    def rules(self) -> tuple[Pass, ...]:
        return (Saturations(),)
