"""Conv, Gemm and batch normalization: what may be folded, into which weight, and which wrong folds are caught."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import onnx_rewrite as rw
from onnx_rewrite.match import Match
from onnx_rewrite.passes.bn import BehindLinear, factor_and_shift
from onnx_rewrite.pattern import constant, op, optional
from onnx_rewrite.registry import Pass
from tests.passes import building
from tests.passes.building import f32, node, ops

from .building import fires, initializers, is_caught, is_judged_wrong, is_left

OUT = 6
BN = "BatchNormalization({}, g, be, mu, va)"
CONV = f"a = Conv(x, w, b) y = {BN.format('a')}"


def bn(
    text: str,
    constants: dict[str, Any] | None = None,
    *,
    x: str = "2,4,7,7",
    y: str = "n,o,h,w",
    channels: int = OUT,
    **options: Any,
) -> onnx.ModelProto:
    """A model of `text`, which may use statistics of `channels` channels and the weights w and b."""
    given = {
        "g": f32(channels),
        "be": f32(channels),
        "mu": f32(channels),
        "va": np.abs(f32(channels)) + np.float32(0.5),
        "w": f32(channels, 4, 3, 3),
        "b": f32(channels),
    } | (constants or {})
    words = text.replace("(", " ").replace(")", " ").replace(",", " ").split()
    used = {k: v for k, v in given.items() if k in words}
    outputs = f"float[{y}] y{options.pop('extra', '')}"
    inputs = f"float[{x}] x{options.pop('more', '')}"
    return building.model(text, used, inputs=inputs, outputs=outputs, opset=options.pop("opset", 15), **options)


def folded(made: onnx.ModelProto, left: list[str], sites: int = 1) -> onnx.ModelProto:
    proto = fires(made, "bn", sites)
    assert [o for o in ops(proto) if o != "Identity"] == left
    return proto


class WrongFold(BehindLinear):
    """Asks for nothing, so that it folds what must not be folded."""

    name = "wrong"

    def check(self, m: Match) -> None:
        del m


class IgnoresMode(WrongFold):
    """Folds whatever the mode."""

    name = "ignores-mode"

    def pattern(self, x: Any, weight: Any, bias: Any, scale: Any, offset: Any, mean: Any, var: Any, eps: Any) -> Any:
        linear = op.Conv(x, constant(weight), constant(bias)).named("linear")
        statistics = [constant(c) for c in (scale, offset, mean, var)]
        return op.BatchNormalization(linear, *statistics, epsilon=eps).named("bn")

    def replace(self, m: Match) -> Any:
        factor = m.scale.array / np.sqrt(m.var.array + m.eps)
        weight = (m.weight.array * factor.reshape(-1, 1, 1, 1)).astype(np.float32)
        return op.Conv(m.x, weight, ((m.bias.array - m.mean.array) * factor + m.offset.array).astype(np.float32))


def test_bn_with_training_mode_1() -> None:
    """It normalizes by the statistics of the batch that it sees, not by those that it was given."""
    training = "a = Conv(x, w, b) y, m2, v2 = BatchNormalization<training_mode={}>(a, g, be, mu, va)"
    is_left(bn(training.format(1)), "bn")
    alone = CONV.replace("BatchNormalization(", "BatchNormalization<training_mode={}>(")
    is_left(bn(alone.format(1), valid=False), "bn")
    folded(bn(alone.format(0)), ["Conv"])
    is_judged_wrong(bn(training.format(1)), IgnoresMode())
    fires(bn(alone.format(0)), IgnoresMode())


def test_bn_of_opset_6_trains_unless_it_is_a_test() -> None:
    """Below opset 7 `is_test` says so, and is 0 if it is left out."""
    for mode, sites in (("", 0), ("<is_test=0>", 0), ("<is_test=1>", 1)):
        made = bn(CONV.replace("BatchNormalization(", f"BatchNormalization{mode}("), opset=6)
        result = rw.rewrite(made, "bn", verify="off")  # onnxruntime has no kernel
        assert result.report.passes[0].applied == sites


class ForgetsBeta(BehindLinear):
    """Folds into a Gemm as if beta were 1."""

    name = "forgets-beta"

    def replace(self, m: Match) -> Any:
        factor, shift = factor_and_shift(m)
        weight = (m.weight.array * factor).astype(np.float32)
        return op.Gemm(m.x, weight, (m.bias.array * factor + shift).astype(np.float32))


def test_gemm_with_beta_that_is_not_1_before_bn() -> None:
    gemm = f"a = Gemm<beta={{}}>(x, w, b) y = {BN.format('a')}"
    shapes: dict[str, Any] = {"constants": {"w": f32(4, OUT)}, "x": "2,4", "y": "2,6"}
    for beta in (0.5, 2.0, 0.0, 1.0):
        folded(bn(gemm.format(beta), **shapes), ["Gemm"])
    is_judged_wrong(bn(gemm.format(0.5), **shapes), ForgetsBeta())
    fires(bn(gemm.format(1.0), **shapes), ForgetsBeta())


@pytest.mark.parametrize("name", ["w", "b", "g", "va"])
def test_weight_that_is_an_initializer_and_a_graph_input(name: str) -> None:
    """The caller may give another one, so it is no constant."""
    made = bn(CONV, overridable=(name,))
    is_left(made, "bn")
    assert name in {i.name for i in made.graph.input}
    folded(bn(CONV), ["Conv"])


class TransposedAsConv(BehindLinear):
    """Takes the first axis of a ConvTranspose's weight for the output channels, as a Conv's is."""

    name = "as-conv"

    def pattern(self, x: Any, weight: Any, bias: Any, scale: Any, offset: Any, mean: Any, var: Any, eps: Any) -> Any:
        linear = op.one_of("Conv", "ConvTranspose")(x, constant(weight), optional(constant(bias))).named("linear")
        statistics = [constant(c) for c in (scale, offset, mean, var)]
        return op.BatchNormalization(linear, *statistics, epsilon=eps, training_mode=0).named("bn")

    def check(self, m: Match) -> None:
        del m

    def replace(self, m: Match) -> Any:
        factor, shift = factor_and_shift(m)
        weight = (m.weight.array * factor.reshape(-1, 1, 1, 1)).astype(np.float32)
        return op.like(m.linear, m.x, weight, (m.bias.array * factor + shift).astype(np.float32))


def test_conv_transpose_has_the_output_channels_on_axis_1() -> None:
    """[Cin, Cout/group]: where the two are equal, the wrong axis fits."""
    text = f"a = ConvTranspose<group={{}}>(x, w, b) y = {BN.format('a')}"
    square, grouped = f32(4, 4, 3, 3), f32(4, 3, 3, 3)
    folded(bn(text.format(1), {"w": square}, channels=4), ["ConvTranspose"])
    folded(bn(text.format(2), {"w": grouped}, channels=6), ["ConvTranspose"])
    folded(bn(text.format(4), {"w": f32(4, 2, 3, 3)}, channels=8), ["ConvTranspose"])
    is_judged_wrong(bn(text.format(1), {"w": square}, channels=4), TransposedAsConv())
    is_judged_wrong(bn(text.format(2), {"w": f32(4, 2, 3, 3)}, channels=4), TransposedAsConv())
    fires(bn(text.format(1).replace("ConvTranspose", "Conv"), {"w": square}, channels=4), TransposedAsConv())


def test_output_of_conv_is_a_graph_output_or_has_two_consumers() -> None:
    is_left(bn(CONV, extra=", float[n,o,h,w] a"), "bn", "value 'a' is an output of the graph")
    two = f"a = Conv(x, w, b) y0 = {BN.format('a')} c = Neg(a) y = Add(y0, c)"
    is_left(bn(two), "bn", "value 'a' is also used by Neg")
    folded(bn(two.replace("Neg(a)", "Neg(y0)")), ["Conv", "Neg", "Add"])
    # Even without a condition of its own, a pass cannot take away what others read.
    is_left(bn(two), WrongFold(), "value 'a' is also used by Neg")


def test_weight_shared_by_two_convs_is_folded_for_each() -> None:
    second = "BatchNormalization(c, g2, be, mu, va)"
    text = f"a = Conv(x, w, b) p = {BN.format('a')} c = Conv(x, w, b) q = {second} y = Sub(p, q)"
    made = bn(text, {"g2": f32(OUT)})
    proto = folded(made, ["Conv", "Conv", "Sub"], 2)
    convs = [n for n in proto.graph.node if n.op_type == "Conv"]
    assert convs[0].input[1] != convs[1].input[1]
    assert "w" not in initializers(proto)
    # One of the two has no normalization: its weight stays as it was.
    half = bn(text.replace(second, "Neg(c)"))
    proto = folded(half, ["Conv", "Conv", "Neg", "Sub"])
    assert (initializers(proto)["w"] == initializers(half)["w"]).all()


def test_fold_that_overflows() -> None:
    huge = np.full(OUT, 1e20, np.float32)
    weights = np.full((OUT, 4, 3, 3), 1e20, np.float32)
    is_left(bn(CONV, {"g": huge, "w": weights}), "bn", "does not fit into FLOAT")
    folded(bn(CONV, {"g": huge}), ["Conv"])
    folded(bn(CONV, {"w": weights}), ["Conv"])

    class Overflows(WrongFold):
        """Folds in the precision of the weights."""

        name = "overflows"

        def replace(self, m: Match) -> Any:
            factor, shift = factor_and_shift(m)
            with np.errstate(all="ignore"):
                weight = (m.weight.array * factor.reshape(-1, 1, 1, 1)).astype(np.float32)
                return op.like(m.linear, m.x, weight, (m.bias.array * factor + shift).astype(np.float32))

    small = np.full((1, 4, 7, 7), 1e-30, np.float32)  # on which the two operators stay finite
    made = bn("z = Mul(x, tiny) " + CONV.replace("(x", "(z"), {"g": huge, "w": weights, "tiny": small}, x="1,4,7,7")
    is_caught(made, Overflows())
    fires(bn(CONV), Overflows())


def test_matmul_and_add_with_another_consumer() -> None:
    """The Add's other reader keeps the sum, the product's other reader keeps the product."""
    text = f"p = MatMul(x, w) a = Add(p, b) y = {BN.format('a')}"
    shapes: dict[str, Any] = {"constants": {"w": f32(4, OUT)}, "x": "2,4", "y": "2,6"}
    is_left(bn(text, **shapes, extra=", float[2,6] a"), "bn", "value 'a' is an output of the graph")
    is_left(bn(f"{text} z = Neg(p)", **shapes, extra=", float[2,6] z"), "bn", "value 'p' is also used by Neg")
    folded(bn(text, **shapes), ["MatMul", "Add"])
    folded(bn(f"{text} z = Neg(y)", **shapes, extra=", float[2,6] z"), ["MatMul", "Add", "Neg"])


class MatMulToGemm(Pass):
    """MatMul and Add are a Gemm, of matrices."""

    name = "gemm"

    def pattern(self, x: Any, weight: Any, bias: Any) -> Any:
        return op.Add(op.MatMul(x, constant(weight)), constant(bias))

    def replace(self, m: Match) -> Any:
        return op.Gemm(m.x, m.weight, m.bias)


def test_matmul_of_one_dimension() -> None:
    """A vector times a matrix is a vector: it has no axis of channels, and Gemm does not take it."""
    statistics = {"w": f32(4), "b": f32(1)}
    text = f"a = MatMul(x, w) y = {BN.format('a')}"
    is_left(bn(text, statistics, x="2,4", y="2", channels=1), "bn", "rank 2")
    folded(bn(text, statistics | {"w": f32(4, 1)}, x="2,4", y="2,1", channels=1), ["MatMul", "Add"])
    linear = "a = MatMul(x, w) y = Add(a, b)"
    matrix = {"w": f32(4, OUT), "b": f32(OUT)}
    is_caught(bn(linear, matrix, x="4", y="6"), MatMulToGemm())
    is_caught(bn(linear, statistics, x="2,4", y="2"), MatMulToGemm())
    is_caught(bn(linear, matrix, x="3,2,4", y="3,2,6"), MatMulToGemm())
    assert ops(fires(bn(linear, matrix, x="2,4", y="2,6"), MatMulToGemm())) == ["Gemm"]
    assert node(fires(bn(linear, matrix, x="n,4", y="n,6"), MatMulToGemm()), "Gemm").output == ["y"]
