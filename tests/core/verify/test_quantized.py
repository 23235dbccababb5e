"""Quantized graphs are judged in their own steps: one of them at a tie of rounding is no difference, two are."""

from __future__ import annotations

import onnx
import pytest

from onnx_rewrite.verify import LocalJudge

TEXT = """
<ir_version: 8, opset_import: ["": 17]>
g (float[64] x0) => ({kind}[64] y0)
<float three = {{3}}, float third = {{0.33333334}}, float scale = {{0.6666667}},
 uint8 zero = {{128}}, uint8 next = {{129}}, float other = {{0.68}}>
{{ {nodes} }}
"""
DIVIDED = "a = Div (x0, three)  q = QuantizeLinear (a, scale, zero)"
MULTIPLIED = "a = Mul (x0, third)  q = QuantizeLinear (a, scale, zero)"


def quantized(nodes: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(TEXT.format(kind="uint8", nodes=f"{nodes}  y0 = Identity (q)"))


def dequantized(nodes: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        TEXT.format(kind="float", nodes=f"{nodes}  d = DequantizeLinear (q, scale, zero)  y0 = Relu (d)")
    )


@pytest.mark.parametrize("build", [quantized, dequantized])
def test_one_step_at_a_tie_is_no_difference(build) -> None:
    """Small integers times 1/3 over 2/3 are halves: rounding decides which way they go."""
    verdict = LocalJudge(feeds=200)(build(DIVIDED), build(MULTIPLIED))
    assert verdict.equivalent, verdict
    assert verdict.error_before < 1e-3  # what the tie moves is not the original's error, which the bound rests on


@pytest.mark.parametrize("build", [quantized, dequantized])
@pytest.mark.parametrize(
    "wrong",
    [
        MULTIPLIED.replace("zero)", "next)"),
        MULTIPLIED.replace("scale", "other"),
        MULTIPLIED.replace("a = Mul (x0, third)", "b = Mul (x0, third)  a = Round (b)"),
    ],
    ids=["zero point", "scale", "rounded twice"],
)
def test_a_step_elsewhere_is_one(build, wrong: str) -> None:
    verdict = LocalJudge()(build(DIVIDED), build(wrong))
    assert verdict.verdict == "different", verdict


def test_ties_of_other_decisions_stay_inconclusive() -> None:
    def chosen(nodes: str) -> onnx.ModelProto:
        return onnx.parser.parse_model(
            TEXT.format(kind="int64", nodes=f"{nodes}  r = Round (b)  y0 = Cast <to = 7> (r)")
        )

    verdict = LocalJudge(feeds=200)(
        chosen("a = Div (x0, three)  b = Div (a, scale)"), chosen("a = Mul (x0, third)  b = Div (a, scale)")
    )
    assert verdict.verdict == "inconclusive", verdict
