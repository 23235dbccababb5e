"""The pass fires on each spelling, is equivalent there, and leaves what is nearly one."""

from __future__ import annotations

import onnx
import onnx.parser
import pytest
from onnx_rewrite_hardswish import FuseHardSwish

import onnx_rewrite as rw

SPELLINGS = {
    "sigmoid": "s = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x)  y = Mul (x, s)",
    "mul-div": "a = Add (x, three)  c = Clip (a, zero, six)  m = Mul (x, c)  y = Div (m, six)",
    "div-mul": "a = Add (three, x)  c = Clip (a, zero, six)  d = Div (c, six)  y = Mul (d, x)",
    "mul-mul": "a = Add (x, three)  c = Clip (a, zero, six)  m = Mul (c, sixth)  y = Mul (x, m)",
}
NEAR_MISSES = {
    "slope": "s = HardSigmoid <alpha = 0.2, beta = 0.5> (x)  y = Mul (x, s)",
    "default slope": "s = HardSigmoid (x)  y = Mul (x, s)",
    "offset": "a = Add (x, six)  c = Clip (a, zero, six)  m = Mul (x, c)  y = Div (m, six)",
    "bound": "a = Add (x, three)  c = Clip (a, zero, three)  m = Mul (x, c)  y = Div (m, six)",
    "divisor": "a = Add (x, three)  c = Clip (a, zero, six)  m = Mul (x, c)  y = Div (m, three)",
    "another value": "a = Add (x, three)  c = Clip (a, zero, six)  m = Mul (a, c)  y = Div (m, six)",
}


def model(body: str, opset: int = 13) -> onnx.ModelProto:
    """A model of one input x and one output y."""
    return onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": {opset}]> g (float[2, N, 5] x) => (float[2, N, 5] y)
        <float three = {{3.0}}, float zero = {{0.0}}, float six = {{6.0}}, float sixth = {{0.16666667}}> {{ {body} }}"""
    )


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("opset", [13, 17])
def test_fires(spelling: str, opset: int) -> None:
    result = rw.rewrite(model(SPELLINGS[spelling], opset), FuseHardSwish())
    assert [node.op_type for node in result.to_proto().graph.node] == ["HardSwish"]
    assert [site.verification.verdict for site in result.sites] == ["equivalent"]
    assert result.report.verification.verdict == "equivalent"


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_leaves_what_is_nearly_one(name: str) -> None:
    assert not rw.rewrite(model(NEAR_MISSES[name]), FuseHardSwish()).changed


@pytest.mark.parametrize(("spelling", "fires"), [("sigmoid", True), ("clip", False), ("any", True)])
def test_option(spelling: str, fires: bool) -> None:
    assert rw.rewrite(model(SPELLINGS["sigmoid"]), FuseHardSwish(spelling)).changed is fires
