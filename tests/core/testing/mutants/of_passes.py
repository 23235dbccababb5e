"""Wrong variants of our passes, and passes as authors write them wrongly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import onnx_rewrite as rw
from onnx_rewrite.match import Refused
from onnx_rewrite.passes import bn, clip, ln
from onnx_rewrite.pattern import const, constant, either, op, optional, scalar
from tests.core.testing.mutants.mutant import of

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
        return op.Relu(op.Neg(op.Neg(m.x)))


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
        linear = op.one_of("Conv", "ConvTranspose")(x, constant(weight), optional(constant(bias))).named("linear")
        return op.Mul(linear, constant(factor))

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


class AnyScale(AnyExponent):
    """Whatever the normalized value is multiplied by counts as its scale."""

    def pattern(self, x: Any, eps: Any, axes: Any, scale: Any) -> Any:
        d = op.Sub(x, op.ReduceMean(x, axes=axes, keepdims=1))
        v = op.ReduceMean(either(op.Mul(d, d), op.Pow(d, const(2))), axes=axes, keepdims=1)
        return op.Mul(op.Div(d, op.Sqrt(op.Add(v, scalar(eps)))), scale)

    def replace(self, m: rw.Match) -> Any:
        return op.LayerNormalization(m.x, m.scale, axis=-1, epsilon=float(m.eps))


class FoldedOnce(bn.BehindLinear):
    """What a weight was folded to is remembered by the weight's shape alone."""

    known: dict[Any, Any] = {}  # noqa: RUF012

    def replace(self, m: rw.Match) -> Any:
        factor, shift = bn.factor_and_shift(m)
        factor = self.known.setdefault((m.weight.shape, factor.shape), factor)
        return bn.folded_behind(m, factor, shift)


class Merged(rw.Pass):
    """Constants of one shape are taken for one constant."""

    name = "merged"
    known: dict[Any, Any] = {}  # noqa: RUF012

    def pattern(self, x: Any, c: Any) -> Any:
        return op.Neg(op.Mul(x, constant(c)))

    def replace(self, m: rw.Match) -> Any:
        return op.Mul(m.x, -self.known.setdefault((m.c.shape, m.c.array.dtype), m.c.array))


class Reshapes(rw.Pass):
    """Of two Reshapes the second alone counts; but its 0 means what the first one made."""

    name = "reshapes"

    def pattern(self, x: Any, first: Any, second: Any) -> Any:
        return op.Reshape(op.Reshape(x, shape=first), shape=second)

    def replace(self, m: rw.Match) -> Any:
        return op.Reshape(m.x, shape=m.second)


class Symbols(rw.Pass):
    """A dimension that is not known is taken for 1."""

    name = "symbols"

    def pattern(self, x: Any) -> Any:
        return op.Flatten(op.Relu(x))

    def replace(self, m: rw.Match) -> Any:
        first = m.dim(m.x, 0)
        return op.Relu(op.Reshape(m.x, shape=(first if isinstance(first, int) else 1, -1)))


class Pads(rw.Pass):
    """Pad's zeros are taken for the pool's own, which are smaller than any number."""

    name = "pads"

    def pattern(self, x: Any, pads: Any, kernel: Any) -> Any:
        return op.MaxPool(op.Pad(x, pads=pads), kernel_shape=kernel)

    def replace(self, m: rw.Match) -> Any:
        rank = len(m.pads) // 2
        outer = (*m.pads[:2], *m.pads[rank : rank + 2])
        if any(outer) or any(p < 0 for p in m.pads):
            raise Refused("batch or channels")
        inner = (*m.pads[2:rank], *m.pads[rank + 2 :])
        if any(p >= k for p, k in zip(inner, (*m.kernel, *m.kernel), strict=True)):
            raise Refused("more than the kernel")
        return op.MaxPool(m.x, kernel_shape=m.kernel, pads=inner)


LN, CLIP, BN, AUTHOR = "ln", "clip", "bn", "an author's"
EPSILON = "epsilon inside or outside the root"
BOUNDS = "Min/Max with lo > hi"

PASSES = (
    of("epsilon of another size", LN, EPSILON, mutant(PlainLayerNorm, replace=ln_with(epsilon=lambda m, g: 1e-9))),
    of(
        "epsilon outside the root",
        LN,
        EPSILON,
        mutant(PlainLayerNorm, replace=ln_with(epsilon=lambda m, g: g["epsilon"] ** 2)),
    ),
    of("bias dropped", LN, "operands lost", mutant(PlainLayerNorm, replace=ln_with(bias=lambda m, g: None))),
    of(
        "scale dropped",
        LN,
        "operands lost",
        mutant(PlainLayerNorm, replace=ln_with(scale=lambda m, g: np.ones(ln.normalized_lengths(m, g["axis"]), "f4"))),
    ),
    of(
        "scale and bias swapped",
        LN,
        "operands in the wrong place",
        mutant(PlainLayerNorm, replace=ln_with(scale=swapped)),
    ),
    of("any axis", LN, "axes that are not the last", mutant(AnyExponent, check=anything)),
    of("any exponent", LN, "Pow exponent that is not 2", mutant(AnyExponent)),
    of("any keepdims", LN, "ReduceMean with keepdims=0 still fused", mutant(AnyKeepdims)),
    of("any scale", LN, "scale that enlarges the output", mutant(AnyScale)),
    of("the mean of another value", LN, "two captures for one value", mutant(OtherMean)),
    of("subtraction taken for commutative", LN, "operands of Sub swapped", mutant(Reversed)),
    of("an interior value is dropped", CLIP, "stacked Clips", mutant(DropsInterior)),
    of("bounds swapped", CLIP, BOUNDS, mutant(FloatClip, replace=clip_with(lambda lo, hi: (hi, lo)))),
    of(
        "lower bound forgotten",
        CLIP,
        "Clip without max",
        mutant(FloatClip, replace=clip_with(lambda lo, hi: (None, hi))),
    ),
    of(
        "upper bound forgotten",
        CLIP,
        "Clip without max",
        mutant(FloatClip, replace=clip_with(lambda lo, hi: (lo, None))),
    ),
    of("NaN eaten", CLIP, "specials by class", mutant(FloatClip, replace=nan_eaten)),
    of("bounds that cross are sorted", CLIP, BOUNDS, mutant(Unchecked)),
    of("bounds of any shape", CLIP, "Clip bounds of rank > 0", mutant(MaxMin)),
    of("own bias not scaled", BN, "the linear operator's own bias", mutant(bn.BehindLinear, replace=own_bias_kept)),
    of(
        "offset forgotten",
        BN,
        "operands lost",
        mutant(bn.BehindLinear, replace=fold(lambda m, f, s: (f, s - m.offset.array))),
    ),
    of(
        "variance for deviation",
        BN,
        "a formula that is nearly right",
        mutant(bn.BehindLinear, replace=fold(lambda m, f, s: (m.scale.array / (m.var.array + m.eps), s))),
    ),
    of(
        "mean added",
        BN,
        "a formula that is nearly right",
        mutant(bn.BehindLinear, replace=fold(lambda m, f, s: (f, s + 2 * m.mean.array * f))),
    ),
    of(
        "groups off by one",
        BN,
        "ConvTranspose's [Cin, Cout/group] layout",
        mutant(bn.BehindLinear, replace=fold(groups_ignored)),
    ),
    of("beta forgotten", BN, "Gemm with beta ≠ 1 before BN", mutant(bn.BehindLinear, replace=beta_forgotten)),
    of("padding ignored", BN, "either side where padding allows", mutant(AnyPadding)),
    of("training mode folded", BN, "BN with training_mode=1 folded", mutant(AnyMode)),
    of("a fold that overflows", BN, "a fold that overflows", mutant(Overflows)),
    of("a constant of any layout", BN, "a constant per another axis", mutant(FirstAxis)),
    of("a shared weight folded once for all", BN, "a weight shared by two Convs folded twice", mutant(FoldedOnce)),
    of("never done", AUTHOR, "passes that undo each other for ever", mutant(Keeping), "result_is_valid"),
    of("another rank", AUTHOR, "the output's rank changes", mutant(Wanderer)),
    of("not the same twice", AUTHOR, "not the same bytes twice", mutant(Impure), "same_bytes_twice"),
    of("a check that raises", AUTHOR, "an author's mistake", mutant(Selective), "fires_or_says_why"),
    of("the sign of a root", AUTHOR, "true for some numbers only", mutant(HalfPower)),
    of("permutations in the wrong order", AUTHOR, "axes of two operators", mutant(Transposes)),
    of("constants of one shape merged", AUTHOR, "different constants merged", mutant(Merged)),
    of(
        "0 in the second of two Reshapes",
        AUTHOR,
        "Reshape of Reshape with 0 in the shape",
        mutant(Reshapes),
        "result_is_valid",
    ),
    of("a symbol taken for 1", AUTHOR, "dynamic dims", mutant(Symbols)),
    of("Pad's zeros in a pool", AUTHOR, "Pad(0) into MaxPool on negative data", mutant(Pads)),
)
