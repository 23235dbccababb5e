"""Wrong variants of our passes, one per class of bugs, that the suite must find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import onnx_rewrite as rw
from onnx_rewrite.match import Refused
from onnx_rewrite.passes import bn, clip, ln
from onnx_rewrite.pattern import const, constant, either, maybe, op, optional, scalar

Members = dict[str, Any]


def mutant(base: type[Any], **members: Any) -> Any:
    """A pass of one rule, `base` with some of its parts replaced."""
    return type("Mutant", (base,), {"name": "mutant", **members})()


def anything(self: Any, m: rw.Match) -> None:
    """A check that forbids nothing."""


def without(base: type[Any], *reasons: str) -> Callable[[Any, rw.Match], None]:
    """The check of `base`, deaf to refusals that contain one of the words."""

    def check(self: Any, m: rw.Match) -> None:
        try:
            base.check(self, m)
        except Refused as refused:
            if not any(word in refused.reason for word in reasons):
                raise

    return check


# -- layer normalization


def ln_with(**changed: Any) -> Callable[[Any, rw.Match], Any]:
    def replace(self: Any, m: rw.Match) -> Any:
        axis = ln.normalized_axis(m)
        lengths = ln.normalized_lengths(m, axis)
        dtype = np.dtype(m.x.dtype.numpy())
        scale = np.ones(lengths, dtype) if m.scale is None else ln.parameter_like(m, m.scale, axis)
        bias = None if m.bias is None else ln.parameter_like(m, m.bias, axis)
        given = {"x": m.x, "scale": scale, "bias": bias, "axis": axis, "epsilon": float(m.eps)}
        given |= {name: value(m, given) for name, value in changed.items()}
        inputs = [given["x"], given["scale"]] + ([] if given["bias"] is None else [given["bias"]])
        return op.LayerNormalization(*inputs, axis=given["axis"], epsilon=given["epsilon"])

    return replace


class PlainLayerNorm(ln.TwoPass):
    """Without the mixed precision of the original, so that its parts are easy to break."""

    def check(self, m: rw.Match) -> None:
        super().check(m)
        ln.normalized_lengths(m, ln.normalized_axis(m))
        if ln.widened(m) is not None:
            raise Refused("mixed precision")


def swapped(m: rw.Match, given: Members) -> Any:
    return given["scale"] if m.scale is None or m.bias is None else given["bias"]


class AnyExponent(PlainLayerNorm):
    def pattern(self, x: Any, eps: Any, axes: Any, power: Any) -> Any:
        d = op.Sub(x, op.ReduceMean(x, axes=axes, keepdims=1))
        v = op.ReduceMean(op.Pow(d, scalar(power)), axes=axes, keepdims=1)
        return op.Div(d, op.Sqrt(op.Add(v, scalar(eps))))

    def check(self, m: rw.Match) -> None:
        if m.axes != (m.rank(m.x) - 1,):
            raise Refused("not the last axis")

    def replace(self, m: rw.Match) -> Any:
        (length,) = ln.normalized_lengths(m, -1)
        scale = np.ones(length, np.dtype(m.x.dtype.numpy()))
        return op.LayerNormalization(m.x, scale, axis=-1, epsilon=float(m.eps))


class AnyKeepdims(AnyExponent):
    def pattern(self, x: Any, eps: Any, axes: Any, keep: Any) -> Any:
        d = op.Sub(x, op.ReduceMean(x, axes=axes, keepdims=keep))
        v = op.ReduceMean(op.Mul(d, d), axes=axes, keepdims=keep)
        return op.Div(d, op.Sqrt(op.Add(v, scalar(eps))))


class OtherMean(AnyExponent):
    """The mean of another value: two captures where there should be one."""

    def pattern(self, x: Any, y: Any, eps: Any, axes: Any) -> Any:
        d = op.Sub(x, op.ReduceMean(y, axes=axes, keepdims=1))
        v = op.ReduceMean(op.Mul(d, d), axes=axes, keepdims=1)
        return op.Div(d, op.Sqrt(op.Add(v, scalar(eps))))


class Reversed(AnyExponent):
    """Sub matched as if it were commutative: mean - x for x - mean."""

    def pattern(self, x: Any, eps: Any, axes: Any) -> Any:
        mean = op.ReduceMean(x, axes=axes, keepdims=1)
        d = either(op.Sub(x, mean), op.Sub(mean, x))
        v = op.ReduceMean(op.Mul(d, d), axes=axes, keepdims=1)
        return op.Div(d, op.Sqrt(op.Add(v, scalar(eps))))


class Keeping(AnyExponent):
    """Finds its own result again."""

    def pattern(self, x: Any) -> Any:
        return op.Relu(x)

    def check(self, m: rw.Match) -> None:
        pass

    def replace(self, m: rw.Match) -> Any:
        return op.Relu(m.x)


# -- clip


def clip_with(change: Callable[[Any, Any], tuple[Any, Any]]) -> Callable[[Any, rw.Match], Any]:
    def replace(self: Any, m: rw.Match) -> Any:
        dtype = np.dtype(m.x.dtype.numpy())
        number = float if m.version < 11 else lambda bound: np.asarray(bound, dtype)
        lo, hi = change(*clip.new_bounds(m))
        return op.Clip(m.x, min=None if lo is None else number(lo), max=None if hi is None else number(hi))

    return replace


def nan_eaten(self: Any, m: rw.Match) -> Any:
    clipped = clip.Saturations.replace(self, m)
    return op.Where(op.IsNaN(m.x), np.zeros((), np.dtype(m.x.dtype.numpy())), clipped)


class FloatClip(clip.Saturations):
    def check(self, m: rw.Match) -> None:
        super().check(m)
        if m.x.dtype.name != "FLOAT" or m.version < 13:
            raise Refused("float at opset 13 only")


class MaxMin(clip.Pass):
    """Bounds of any shape, whatever they do to the result."""

    def pattern(self, x: Any, low: Any, high: Any) -> Any:
        return op.Min(op.Max(x, constant(low)), constant(high))

    def replace(self, m: rw.Match) -> Any:
        if m.version < 12:
            raise Refused("old")
        low, high = m.low.array.min(), m.high.array.max()
        return op.Clip(m.x, min=np.asarray(low), max=np.asarray(high))


class Unchecked(MaxMin):
    """Lower and upper bound are taken for a range, also where they cross."""

    def check(self, m: rw.Match) -> None:
        if m.version < 12 or m.low.array.size != 1 or m.high.array.size != 1 or m.low.shape or m.high.shape:
            raise Refused("no scalars")

    def replace(self, m: rw.Match) -> Any:
        low, high = m.low.array.item(), m.high.array.item()
        dtype = m.low.array.dtype
        return op.Clip(m.x, min=np.asarray(min(low, high), dtype), max=np.asarray(max(low, high), dtype))


class OldForm(MaxMin):
    """Writes the attribute form whatever the opset."""

    check = Unchecked.check

    def replace(self, m: rw.Match) -> Any:
        return op.Clip(m.x, min=m.low.array.reshape(1), max=m.high.array.reshape(1))


class DropsInterior(clip.Saturations):
    """The inner bound is forgotten."""

    def replace(self, m: rw.Match) -> Any:
        return op.like(m.outer, m.x, *m.outer.inputs[1:])


# -- batch normalization


def fold(change: Callable[[rw.Match, Any, Any], tuple[Any, Any]]) -> Callable[[Any, rw.Match], Any]:
    return lambda self, m: bn.folded_behind(m, *change(m, *bn.factor_and_shift(m)))


def own_bias_kept(self: Any, m: rw.Match) -> Any:
    factor, shift = bn.factor_and_shift(m)
    if m.bias is not None and m.linear.op_type == "Conv":
        shift = shift - m.bias.array * factor + m.bias.array
    return bn.folded_behind(m, factor, shift)


def groups_ignored(m: rw.Match, factor: Any, shift: Any) -> tuple[Any, Any]:
    groups = bn.group(m.linear)
    return np.roll(factor, len(factor) // groups if groups > 1 else 0), shift


def beta_forgotten(self: Any, m: rw.Match) -> Any:
    factor, shift = bn.factor_and_shift(m)
    made = bn.folded_behind(m, factor, shift)
    if m.linear.op_type != "Gemm" or m.bias is None:
        return made
    transposed = m.linear.attributes.get_int("transB", 0)
    weight = m.weight.array * (factor[:, None] if transposed else factor)
    bias = (m.bias.array * factor + shift).astype(m.weight.array.dtype)
    return op.like(m.linear, m.x, weight.astype(m.weight.array.dtype), bias, beta=1.0)


class AnyPadding(bn.BeforeConvolution):
    def check(self, m: rw.Match) -> None:
        factor, _ = bn.factor_and_shift(m)
        if len(factor) != m.weight.shape[1] * bn.group(m.linear):
            raise Refused("channels")


class AnyMode(bn.BehindLinear):
    def pattern(self, x: Any, weight: Any, bias: Any, scale: Any, offset: Any, mean: Any, var: Any, eps: Any) -> Any:
        linear = op.Conv(x, constant(weight), optional(constant(bias))).named("linear")
        return op.BatchNormalization(linear, *map(constant, (scale, offset, mean, var)), epsilon=eps).named("bn")

    def check(self, m: rw.Match) -> None:
        if len(m.scale.array) != m.weight.shape[0] or not (m.var.array + m.eps > 0).all():
            raise Refused("channels")

    def replace(self, m: rw.Match) -> Any:
        factor = m.scale.array / np.sqrt(m.var.array + m.eps)
        return bn.folded_behind(m, factor, m.offset.array - m.mean.array * factor)


def overflowing(array: Any, like: Any) -> Any:
    with np.errstate(all="ignore"):
        return array.astype(like.array.dtype)


class Overflows(bn.BehindLinear):
    def replace(self, m: rw.Match) -> Any:
        kept = bn.stored
        bn.stored = overflowing
        try:
            return super().replace(m)
        finally:
            bn.stored = kept


class FirstAxis(bn.FrozenBehindConvolution):
    """A constant of any layout counts as one number per channel."""

    def pattern(self, x: Any, weight: Any, bias: Any, factor: Any) -> Any:
        return op.Mul(bn.convolution(x, weight, bias), constant(factor))

    def check(self, m: rw.Match) -> None:
        if m.factor.array.size != bn.output_channels(m):
            raise Refused("channels")

    def replace(self, m: rw.Match) -> Any:
        return bn.folded_behind(m, m.factor.array.reshape(-1).astype(np.float64), np.zeros(1))


# -- the interface


class Wanderer(rw.Pass):
    """The replacement has another shape than what it replaces."""

    def pattern(self, x: Any, low: Any) -> Any:
        return op.Max(x, constant(low))

    def replace(self, m: rw.Match) -> Any:
        return op.Max(m.x, m.low.array.reshape((1,) * 3 + m.low.array.shape))


class Impure(rw.Pass):
    """What it makes depends on how often it ran."""

    count = 0

    def pattern(self, x: Any) -> Any:
        return op.Softplus(x)

    def replace(self, m: rw.Match) -> Any:
        Impure.count += 1
        return op.Log(op.Add(op.Exp(m.x), np.asarray(1 + 1e-7 * Impure.count, np.dtype(m.x.dtype.numpy()))))


class Selective(rw.Pass):
    """A commuted operand is passed over in silence."""

    def pattern(self, x: Any, y: Any) -> Any:
        return op.Sub(op.Abs(x), op.Neg(y))

    def check(self, m: rw.Match) -> None:
        if m.rank(m.x) == 3:
            raise ZeroDivisionError("an author's mistake")

    def replace(self, m: rw.Match) -> Any:
        return op.Add(op.Abs(m.x), m.y)


class HalfPower(rw.Pass):
    """The sign of a root is lost: (x²)^½ is |x|, and not x."""

    def pattern(self, x: Any) -> Any:
        return op.Sqrt(op.Mul(x, x))

    def replace(self, m: rw.Match) -> Any:
        return m.x


class Transposes(rw.Pass):
    """Two permutations in the wrong order."""

    def pattern(self, x: Any, first: Any, second: Any) -> Any:
        return op.Transpose(op.Transpose(x, perm=first), perm=second)

    def replace(self, m: rw.Match) -> Any:
        return op.Transpose(m.x, perm=tuple(m.second[axis] for axis in m.first))


MUTANTS: dict[str, tuple[str, Any]] = {
    "epsilon of another size": ("constants", mutant(PlainLayerNorm, replace=ln_with(epsilon=lambda m, g: 1e-9))),
    "epsilon outside the root": (
        "constants",
        mutant(PlainLayerNorm, replace=ln_with(epsilon=lambda m, g: g["epsilon"] ** 2)),
    ),
    "bias dropped": ("operands", mutant(PlainLayerNorm, replace=ln_with(bias=lambda m, g: None))),
    "scale dropped": (
        "operands",
        mutant(PlainLayerNorm, replace=ln_with(scale=lambda m, g: np.ones(ln.normalized_lengths(m, g["axis"]), "f4"))),
    ),
    "scale and bias swapped": ("operands", mutant(PlainLayerNorm, replace=ln_with(scale=swapped))),
    "any axis": ("axes", mutant(AnyExponent, check=anything)),
    "any exponent": ("constants", mutant(AnyExponent)),
    "any keepdims": ("axes", mutant(AnyKeepdims)),
    "the mean of another value": ("captures", mutant(OtherMean)),
    "subtraction taken for commutative": ("captures", mutant(Reversed)),
    "an interior value is dropped": ("structure", mutant(DropsInterior)),
    "never done": ("termination", mutant(Keeping)),
    "bounds swapped": ("bounds", mutant(FloatClip, replace=clip_with(lambda lo, hi: (hi, lo)))),
    "lower bound forgotten": ("bounds", mutant(FloatClip, replace=clip_with(lambda lo, hi: (None, hi)))),
    "upper bound forgotten": ("bounds", mutant(FloatClip, replace=clip_with(lambda lo, hi: (lo, None)))),
    "NaN eaten": ("specials", mutant(FloatClip, replace=nan_eaten)),
    "bounds that cross are sorted": ("bounds", mutant(Unchecked)),
    "bounds of any shape": ("broadcasting", mutant(MaxMin)),
    "bounds of rank 1": ("broadcasting", mutant(OldForm)),
    "own bias not scaled": ("weights", mutant(bn.BehindLinear, replace=own_bias_kept)),
    "offset forgotten": (
        "weights",
        mutant(bn.BehindLinear, replace=fold(lambda m, f, s: (f, s - m.offset.array))),
    ),
    "variance for deviation": (
        "weights",
        mutant(bn.BehindLinear, replace=fold(lambda m, f, s: (m.scale.array / (m.var.array + m.eps), s))),
    ),
    "mean added": (
        "weights",
        mutant(bn.BehindLinear, replace=fold(lambda m, f, s: (f, s + 2 * m.mean.array * f))),
    ),
    "groups off by one": ("weights", mutant(bn.BehindLinear, replace=fold(groups_ignored))),
    "beta forgotten": ("attributes", mutant(bn.BehindLinear, replace=beta_forgotten)),
    "padding ignored": ("attributes", mutant(AnyPadding)),
    "training mode folded": ("attributes", mutant(AnyMode)),
    "a fold that overflows": ("specials", mutant(Overflows)),
    "a constant of any layout": ("broadcasting", mutant(FirstAxis)),
    "another rank": ("broadcasting", mutant(Wanderer)),
    "not the same twice": ("determinism", mutant(Impure)),
    "a check that raises": ("errors", mutant(Selective)),
    "the sign of a root": ("meaning", mutant(HalfPower)),
    "permutations in the wrong order": ("axes", mutant(Transposes)),
}
"""By name: the class of bugs, and a pass that has one."""

del const, maybe
