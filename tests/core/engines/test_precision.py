from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from onnx_rewrite.engines.precision import as_stated, stated
from onnx_rewrite.errors import UsageError

from .models import linear


@pytest.mark.parametrize(
    ("kind", "name"), [(TensorProto.FLOAT, "fp32"), (TensorProto.FLOAT16, "fp16"), (TensorProto.DOUBLE, "fp64")]
)
def test_the_weights_say(kind: int, name: str) -> None:
    assert stated(linear(kind=kind)) == name


def test_a_constant_is_a_weight_too_and_the_many_outvote_the_few() -> None:
    model = linear(kind=TensorProto.FLOAT16)
    many = helper.make_tensor("c", TensorProto.FLOAT, [20], [0.0] * 20)
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=many))
    assert stated(model) == "fp32"


def test_a_model_without_weights_is_named_after_its_inputs() -> None:
    model = linear(kind=TensorProto.FLOAT16)
    del model.graph.initializer[:]
    assert stated(model) == "fp16"
    assert stated(onnx.ModelProto()) == "fp32"


def test_a_quantized_model() -> None:
    model = linear()
    model.graph.node.append(helper.make_node("DequantizeLinear", ["q", "s"], ["d"]))
    assert stated(model) == "int8"


def test_another_one_is_refused() -> None:
    assert as_stated(linear(), "fp32", "e") == as_stated(linear(), None, "e") == "fp32"
    with pytest.raises(UsageError, match="e computes in the types that the model names: this one is fp32, not bf16"):
        as_stated(linear(), "bf16", "e")
