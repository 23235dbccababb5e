"""Batch normalization folded into the linear operator beside it.

In inference y = (x - mean) / sqrt(var + epsilon) * scale + bias is, per channel, y = factor * x + shift (Ioffe and
Szegedy, 2015; BatchNormalization in the ONNX operator specification), which a convolution or a matrix product before
it, or an unpadded convolution behind it, can absorb.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_rewrite.analysis.foreign import spelling_of
from onnx_rewrite.match import Constant, Match, Refused
from onnx_rewrite.pattern import constant, either, maybe, op, optional, spelled
from onnx_rewrite.registry import Pass, RuleSet

Array = np.ndarray[Any, np.dtype[Any]]


DEFORMABLE = "onnx_rewrite::DeformConv2d"


def convolution(x: Any, weight: Any, bias: Any, offset: Any, mask: Any) -> Any:
    """Conv, ConvTranspose, or a deformable convolution in any spelling, with constant weights."""
    operands = {"weight": constant(weight), "bias": optional(constant(bias)), "mask": optional(mask)}
    return either(
        op.one_of("Conv", "ConvTranspose")(x, constant(weight), optional(constant(bias))).named("linear"),
        spelled(DEFORMABLE, x=x, offset=offset, **operands).named("linear"),
    )


def linear_operator(x: Any, weight: Any, bias: Any, offset: Any, mask: Any) -> Any:
    """Whatever multiplies by constant weights and adds a constant bias."""
    product = op.MatMul(x, constant(weight)).named("linear")
    return either(
        convolution(x, weight, bias, offset, mask),
        op.Gemm(x, constant(weight), optional(constant(bias))).named("linear"),
        maybe(lambda p: op.Add(p, constant(bias)), product),
    )


def normalization(x: Any, scale: Any, offset: Any, mean: Any, var: Any, eps: Any) -> Any:
    """BatchNormalization in inference."""
    statistics = [constant(c) for c in (scale, offset, mean, var)]
    return op.BatchNormalization(x, *statistics, epsilon=eps, training_mode=0).named("bn")


def check_attributes(node: ir.Node) -> None:
    """An attribute that each call of a function gives anew is not known.

    Raises:
        Refused: There is one.
    """
    for attribute in node.attributes.values():
        if attribute.is_ref():
            raise Refused(f"{attribute.name} of {node.op_type} '{node.name}' is an attribute of the function", node)


def factor_and_shift(m: Match) -> tuple[Array, Array]:
    """What the normalization does per channel, float64, each of shape (C,).

    Raises:
        Refused: It computes statistics of its own, they do not fit together, or a variance has no root.
    """
    check_attributes(m.bn)
    if any(v.name for v in m.bn.outputs[1:]) or len([v for v in m.bn.outputs if v.uses() or v.is_graph_output()]) > 1:
        raise Refused(
            f"BatchNormalization '{m.bn.name}' gives statistics of the batch too: it is in training mode", m.bn
        )
    if m.bn.attributes.get_int("spatial", 1) == 0:
        raise Refused(f"BatchNormalization '{m.bn.name}' normalizes each position by itself (spatial=0)", m.bn)
    scale, offset, mean, var = (c.array.astype(np.float64) for c in (m.scale, m.offset, m.mean, m.var))
    if not scale.shape == offset.shape == mean.shape == var.shape or scale.ndim != 1:
        raise Refused("the statistics are not one number per channel", m.bn)
    if not (var + float(m.eps) > 0).all():
        raise Refused("a variance plus epsilon is not positive", m.var)
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(var + float(m.eps))
        return factor, offset - mean * factor


def stored(array: Array, like: Constant) -> Array:
    """`array` in the precision of the weight that it replaces.

    Raises:
        Refused: A number is not finite there, or so large that products with it overflow on the way to a sum that does
            not: above the largest number to the power of 7/8 (5e33 for float32, 16,000 for float16).
    """
    with np.errstate(all="ignore"):
        folded = array.astype(like.array.dtype)
        sizes = np.abs(folded.astype(np.float64))
    if not (sizes <= float(like.dtype.max) ** 0.875).all():
        raise Refused(f"a folded weight does not fit into {like.dtype.name}, with room for sums", like)
    return folded


def output_channels(m: Match) -> int:
    """How many channels the linear operator gives.

    Raises:
        Refused: The channels are not on axis 1 of its output.
    """
    node: ir.Node = m.linear
    check_attributes(node)
    shape = m.weight.shape
    if node.op_type == "Conv" or is_deformable(node):
        return shape[0]
    if node.op_type == "ConvTranspose":
        return shape[1] * group(node)
    if node.op_type == "Gemm":
        return shape[0] if node.attributes.get_int("transB", 0) else shape[1]
    if len(shape) != 2 or m.rank(m.output) != 2:
        raise Refused("the channels of a MatMul are on axis 1 only where the result has rank 2", node)
    return shape[1]


def is_deformable(node: ir.Node) -> bool:
    """Whether a node is a deformable convolution."""
    spelling = spelling_of(node)
    return spelling is not None and spelling.operator.title == DEFORMABLE


def with_weights(m: Match, weight: Array, bias: Array) -> list[Any]:
    """The operands of the deformable convolution with other weights.

    Raises:
        Refused: It has no input for a bias.
    """
    node, spelling = m.linear, spelling_of(m.linear)
    assert spelling is not None
    inputs: list[Any] = list(node.inputs)
    for role, array in (("weight", weight), ("bias", bias)):
        position = spelling.position(role)
        if position is None:
            raise Refused(f"{node.op_type} '{node.name}' takes no {role}: deform-conv gives it a form that does", node)
        inputs += [None] * (position + 1 - len(inputs))
        inputs[position] = array
    return inputs


def group(node: ir.Node) -> int:
    """The number of groups of a convolution."""
    return node.attributes.get_int("group", 1) or 1


def folded_behind(m: Match, factor: Array, shift: Array) -> Any:
    """The linear operator with `factor * (...) + shift` folded in."""
    node: ir.Node = m.linear
    weight, name = m.weight.array.astype(np.float64), node.op_type
    bias = np.zeros(1) if m.bias is None else m.bias.array.astype(np.float64)
    with np.errstate(all="ignore"):
        if name == "Conv" or is_deformable(node):
            weight = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
        elif name == "ConvTranspose":
            groups = group(node)
            split = weight.reshape(groups, -1, *weight.shape[1:])
            per_group = factor.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
            weight = (split * per_group).reshape(weight.shape)
        elif name == "Gemm":
            weight = weight * (factor[:, None] if node.attributes.get_int("transB", 0) else factor)
            bias = bias * (node.attributes.get_float("beta", 1.0))
        else:
            weight = weight * factor
        bias = bias * factor + shift
    new_weight, new_bias = stored(weight, m.weight), stored(bias, m.weight)
    if name == "MatMul":
        return op.Add(op.like(node, m.x, new_weight), new_bias)
    if name == "Gemm":
        return op.like(node, m.x, new_weight, new_bias, beta=1.0)
    if is_deformable(node):
        return op.like(node, *with_weights(m, new_weight, new_bias))
    return op.like(node, m.x, new_weight, new_bias)


class BehindLinear(Pass):
    """BatchNormalization behind Conv, ConvTranspose, a deformable convolution, Gemm or MatMul."""

    def pattern(
        self,
        x: Any,
        weight: Any,
        bias: Any,
        moved: Any,
        mask: Any,
        scale: Any,
        offset: Any,
        mean: Any,
        var: Any,
        eps: Any,
    ) -> Any:
        linear = linear_operator(x, weight, bias, moved, mask)
        return normalization(linear, scale, offset, mean, var, eps)

    def check(self, m: Match) -> None:
        factor, _ = factor_and_shift(m)
        if len(factor) != output_channels(m):
            raise Refused(f"{len(factor)} statistics for {output_channels(m)} channels", m.bn)
        if is_deformable(m.linear):
            with_weights(m, m.weight.array, factor)
        elif m.bias is not None:
            check_bias(m, len(factor))

    def replace(self, m: Match) -> Any:
        return folded_behind(m, *factor_and_shift(m))


def check_bias(m: Match, channels: int) -> None:
    """A bias is one number, or has the channels on its last axis, and does not enlarge the result.

    Raises:
        Refused: It is not.
    """
    shape: tuple[int, ...] = m.bias.shape
    if m.linear.op_type in ("Conv", "ConvTranspose"):
        return
    if len(shape) > 2 or (shape and shape[-1] not in (1, channels)):
        raise Refused(f"a bias of shape {list(shape)} is not one number per channel", m.bias)
    if m.linear.op_type == "MatMul" and len(shape) == 2 and shape[0] != 1:
        raise Refused(f"a bias of shape {list(shape)} differs from row to row", m.bias)


class FrozenBehindConvolution(Pass):
    """A frozen normalization behind a convolution, spelt with one constant per channel.

    y = (convolution + before - mean) / divisor * factor + shift - less, most of which may be absent.
    """

    def pattern(
        self,
        x: Any,
        weight: Any,
        bias: Any,
        moved: Any,
        mask: Any,
        before: Any,
        mean: Any,
        divisor: Any,
        factor: Any,
        shift: Any,
        less: Any,
    ) -> Any:
        linear = convolution(x, weight, bias, moved, mask)
        moved = maybe(lambda c: either(op.Add(c, constant(before)), op.Sub(c, constant(mean))), linear)
        divided = op.Div(moved, constant(divisor))
        scaled = either(op.Mul(either(divided, moved), constant(factor)), divided)
        return maybe(lambda s: either(op.Add(s, constant(shift)), op.Sub(s, constant(less))), scaled)

    def check(self, m: Match) -> None:
        if is_deformable(m.linear):
            with_weights(m, m.weight.array, m.weight.array)
        factors = [c for c in (m.factor, m.divisor) if c is not None]
        for parameter in (*factors, m.before, m.mean, m.shift, m.less):
            if parameter is not None:
                per_channel(m, parameter)
        if all(len(per_channel(m, c)) == 1 for c in factors) and output_channels(m) != 1:
            raise Refused("the factor is one number for all channels: no frozen normalization", factors[0])

    def replace(self, m: Match) -> Any:
        def parameter(capture: Constant | None, absent: float) -> Array:
            given = np.full(1, absent) if capture is None else per_channel(m, capture)
            return np.broadcast_to(given, output_channels(m))

        with np.errstate(all="ignore"):
            factor = parameter(m.factor, 1) / parameter(m.divisor, 1)
            shift = (parameter(m.before, 0) - parameter(m.mean, 0)) * factor
            return folded_behind(m, factor, shift + parameter(m.shift, 0) - parameter(m.less, 0))


def per_channel(m: Match, parameter: Constant) -> Array:
    """A constant such as [1, C, 1, 1] or [C, 1, 1] as float64 of shape (C,) or (1,).

    Raises:
        Refused: It varies along another axis, or gives the result another rank.
    """
    shape, rank = parameter.shape, len(m.weight.shape)
    aligned = (1,) * (rank - len(shape)) + shape
    if len(shape) > rank or any(d != 1 for axis, d in enumerate(aligned) if axis != 1):
        raise Refused(f"a constant of shape {list(shape)} is not one number per channel", parameter)
    if aligned[1] not in (1, output_channels(m)):
        raise Refused(f"a constant of shape {list(shape)} enlarges the result", parameter)
    return parameter.array.astype(np.float64).reshape(-1)


class BeforeConvolution(Pass):
    """BatchNormalization before a Conv that pads nothing: padding would be normalized too."""

    def pattern(self, x: Any, weight: Any, bias: Any, scale: Any, offset: Any, mean: Any, var: Any, eps: Any) -> Any:
        normed = normalization(x, scale, offset, mean, var, eps)
        return op.Conv(normed, constant(weight), optional(constant(bias))).named("linear")

    def check(self, m: Match) -> None:
        check_attributes(m.linear)
        attributes = m.linear.attributes
        if any(attributes.get_ints("pads", ())) or attributes.get_string("auto_pad", "NOTSET") not in (
            "NOTSET",
            "VALID",
        ):
            raise Refused(f"Conv '{m.linear.name}' pads with zeros behind the normalization", m.linear)
        factor, _ = factor_and_shift(m)
        if len(factor) != m.weight.shape[1] * group(m.linear):
            raise Refused(f"{len(factor)} statistics for {m.weight.shape[1] * group(m.linear)} channels", m.bn)

    def replace(self, m: Match) -> Any:
        factor, shift = factor_and_shift(m)
        weight = m.weight.array.astype(np.float64)
        groups = group(m.linear)
        per_input = (groups, 1, weight.shape[1], *[1] * (weight.ndim - 2))
        split = weight.reshape(groups, -1, *weight.shape[1:])
        with np.errstate(all="ignore"):
            bias = (split * shift.reshape(per_input)).sum(axis=tuple(range(2, split.ndim))).reshape(-1)
            if m.bias is not None:
                bias = bias + m.bias.array
            weight = (split * factor.reshape(per_input)).reshape(weight.shape)
        return op.like(m.linear, m.x, stored(weight, m.weight), stored(bias, m.weight))


@dataclass(frozen=True)
class FoldBatchNorm(RuleSet):
    """Folds batch normalization into the Conv, ConvTranspose, Gemm or MatMul beside it.

    Also into a deformable convolution before it, in any spelling, and the frozen spellings with Mul or Div and Add or
    Sub. A weight that several operators share is folded for each of them. Left alone: training mode, a convolution
    whose own output is needed, a padded Conv behind the normalization.
    """

    name = "bn"

    def rules(self) -> tuple[Pass, ...]:
        return (BehindLinear(), FrozenBehindConvolution(), BeforeConvolution())
