"""The small operator: from torch's export to a function that runs, and a node that TensorRT finds a plugin for."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnx_rewrite as rw
from onnx_rewrite.testing import PassTestSuite
from tests.passes.building import attributes, fires, node, ops

# x.clamp(min=0) / (1 + torch.exp(-x)) as torch 2.15 exports it, by the names it gives.
EXPORTED = """
    zero = Constant <value = float {0.0}> ()
    clamped = Clip(x, zero)
    negative = Neg(x)
    grown = Exp(negative)
    one = Constant <value = float {1.0}> ()
    sum = Add(grown, one)
    y = Div(clamped, sum)
"""


def exported(opset: int) -> onnx.ModelProto:
    body = EXPORTED.replace("Clip(x, zero)", "Clip <min = 0.0> (x)") if opset < 11 else EXPORTED
    return onnx.parser.parse_model(
        f'<ir_version: 7, opset_import: ["": {opset}]> g (float[n, 4] x) => (float[n, 4] y) {{ {body} }}'
    )


@pytest.mark.parametrize("opset", [10, 12, 17])
def test_the_export_becomes_one_node_with_a_function(opset: int) -> None:
    import onnxruntime

    made = fires(exported(opset), "relu-sigmoid")
    assert ops(made) == ["ReluSigmoid"]
    given = attributes(node(made, "ReluSigmoid"))
    assert given == {"plugin_namespace": b"onnx_rewrite", "plugin_version": b"1"}
    assert [f.name for f in made.functions] == ["ReluSigmoid"]
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.linspace(-100, 100, 40, dtype=np.float32).reshape(10, 4)
    with np.errstate(over="ignore"):
        expected = np.maximum(x, 0) / (1 + np.exp(-x))
    assert np.abs(session.run(None, {"x": x})[0] - expected).max() < 1e-5


def test_tensorrt_8_6_gets_the_node_alone_and_it_is_still_known() -> None:
    model = exported(12)
    made = rw.rewrite(model, "relu-sigmoid", target="tensorrt-8.6").to_proto()
    assert not made.functions
    assert rw.check(model, made).verdict == "equivalent"
    assert not rw.rewrite(made, "relu-sigmoid", target="tensorrt-8.6").changed


def test_it_is_no_default() -> None:
    from onnx_rewrite.cli.arguments import default_passes

    assert default_passes() == ["bn", "clip", "deform-conv", "ln"]


def test_the_opset_is_raised_with_its_function() -> None:
    """A later pass raises the model: the function follows."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 12]> g (float[2, 4] x) => (float[2, 4] y) {'
        + EXPORTED.replace("y = Div", "a = Div")
        + "m = ReduceMean <axes = [-1]> (a) d = Sub(a, m) two = Constant <value = float {2.0}> () q = Pow(d, two)"
        " v = ReduceMean <axes = [-1]> (q) e = Constant <value = float {0.00001}> () w = Add(v, e) s = Sqrt(w)"
        " y = Div(d, s) }"
    )
    made = fires_both(model)
    assert made.opset_import[0].version == 17
    (function,) = made.functions
    assert {o.domain: o.version for o in function.opset_import} == {"": 17}


def fires_both(model: onnx.ModelProto) -> onnx.ModelProto:
    result = rw.rewrite(model, "relu-sigmoid,ln")
    assert [p.applied for p in result.report.passes] == [1, 1]
    assert result.report.verification.verdict == "equivalent"
    onnx.checker.check_model(result.to_proto(), full_check=True)
    return result.to_proto()


class TestReluSigmoid(PassTestSuite):
    pass_ = "relu-sigmoid"
    examples = 15
    seed = 1
