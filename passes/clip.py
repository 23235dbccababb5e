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
        for bound in new_bounds(m):
            if bound is not None and m.version < 11 and float(np.float32(bound)) != bound:
                raise Refused(f"bound {bound} is no 32-bit float, which Clip's attributes are below opset 11", m.x)
        if dtype == ir.DataType.DOUBLE and m.version < 12:  # Min, Max and Relu run there: the model would not any more
            raise Refused(f"onnxruntime has Clip of DOUBLE from opset 12 on; the model's is {m.version}", m.x)

    def replace(self, m: Match) -> Any:
        dtype = numpy_dtype(m.x.dtype)
        number = float if m.version < 11 else lambda bound: np.asarray(bound, dtype)
        lo, hi = (None if bound is None else number(bound) for bound in new_bounds(m))
        return op.Clip(m.x, min=lo, max=hi)


def new_bounds(m: Match) -> tuple[float | None, float | None]:
    """Lower and upper bound of both operators together; None where Clip does without.

    Raises:
        Refused: A bound is NaN, or no scalar.
    """
    absent = bounds_of_none(m)
    lo, hi = interval(m, m.inner, absent, m.lo1, m.hi1, m.low1, m.high1)
    lo2, hi2 = interval(m, m.outer, absent, m.lo2, m.hi2, m.low2, m.high2)
    lo, hi = (min(max(bound, lo2), hi2) for bound in (lo, hi))
    if m.x.dtype not in FLOATS:  # integers know no infinity
        lo, hi = max(lo, absent[0]), min(hi, absent[1])
    return (None if lo == absent[0] else lo, None if hi == absent[1] else hi)


def bounds_of_none(m: Match) -> tuple[float, float]:
    """What a Clip without bounds clips to: the lowest and highest finite number, below opset 11 those of float32.

    So an infinite bound is not the same as none.
    """
    dtype = ir.DataType.FLOAT if m.version < 11 else m.x.dtype
    number = float if dtype in FLOATS else int
    return number(dtype.min), number(dtype.max)


def interval(
    m: Match, node: ir.Node, absent: tuple[float, float], lo: Any, hi: Any, low: Any, high: Any
) -> tuple[float, float]:
    """The range onto which one operator maps everything; lower <= upper.

    A Clip whose lower bound exceeds the upper one gives the upper one everywhere (ONNX Clip, and measured).

    Raises:
        Refused: A bound is NaN, or no scalar.
    """
    lower, upper = -math.inf, math.inf
    if node.op_type == "Relu":
        lower = 0
    elif node.op_type == "Max":
        lower = scalar_bound(m, low)
    elif node.op_type == "Min":
        upper = scalar_bound(m, high)
    else:
        if any(v is not None and v.shape is not None and len(v.shape) > 1 for v in node.inputs[1:]):
            raise Refused(f"Clip '{node.name}' has a bound that is no scalar", node)
        lower, upper = (given if given is not None else none for given, none in zip((lo, hi), absent, strict=True))
    if math.isnan(lower) or math.isnan(upper):
        raise Refused("a bound is NaN", node)
    return min(lower, upper), upper


def scalar_bound(m: Match, bound: Constant) -> float:
    """The number that a constant bound holds in every element.

    Raises:
        Refused: It is NaN, has several numbers, or broadcasting it would give the result another shape.
    """
    array, shape = bound.array, bound.shape
    if np.isnan(array).any():
        raise Refused("a bound is NaN", bound)
    if array.size == 0 or (array != array.reshape(-1)[0]).any():
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
