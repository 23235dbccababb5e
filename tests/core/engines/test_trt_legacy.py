"""What the parser of TensorRT 8.6 would read wrongly."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_rewrite import rewrite
from onnx_rewrite.engines.protocol import EngineError, Model
from onnx_rewrite.engines.trt_build import parsable
from onnx_rewrite.engines.trt_legacy import spelled_for_8

MODELS = Path(__file__).parents[2] / "models"


def model(*nodes: onnx.NodeProto, constants: dict[str, list[int]] | None = None, feeds: str = "x") -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in (constants or {}).items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 4])]
    inputs += [helper.make_tensor_value_info(name, TensorProto.INT64, [1]) for name in feeds.split() if name != "x"]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", inputs, [output], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def test_axes_of_reductions_become_attributes() -> None:
    constant = helper.make_node("Constant", [], ["axes"], value_ints=[-1])
    made = spelled_for_8(model(constant, helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0)))
    assert list(made.graph.node[1].input) == ["x"]
    assert attributes(made.graph.node[1]) == {"axes": [-1], "keepdims": 0}
    made = spelled_for_8(model(helper.make_node("ReduceMax", ["x", "axes"], ["y"]), constants={"axes": [0, 2]}))
    assert attributes(made.graph.node[0]) == {"axes": [0, 2]}


def test_a_body_sees_constants_around_it() -> None:
    inner = helper.make_graph(
        [helper.make_node("ReduceSum", ["x", "axes"], ["z"], name="inner")],
        "then",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    made = spelled_for_8(model(node, constants={"axes": [1]}))
    assert [attributes(one.g.node[0]) for one in made.graph.node[0].attribute] == [{"axes": [1]}] * 2


def test_a_reduction_over_nothing_is_the_identity() -> None:
    made = spelled_for_8(model(helper.make_node("ReduceSum", ["x"], ["y"], noop_with_empty_axes=1)))
    assert (made.graph.node[0].op_type, attributes(made.graph.node[0])) == ("Identity", {})
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"], noop_with_empty_axes=1)
    assert spelled_for_8(model(node, constants={"axes": []})).graph.node[0].op_type == "Identity"
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"], noop_with_empty_axes=0)
    assert attributes(spelled_for_8(model(node, constants={"axes": []})).graph.node[0]) == {}


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (helper.make_node("ReduceMean", ["x", "i"], ["y"], name="n"), "its axes, i, are computed"),
        (helper.make_node("ReduceL1", ["x"], ["y"], name="n", noop_with_empty_axes=1), "noop_with_empty_axes"),
        (helper.make_node("ScatterND", ["x", "i", "x"], ["y"], name="n", reduction="add"), "its reduction, add,"),
        (helper.make_node("Resize", ["x", "", "s"], ["y"], name="n", antialias=1), "its antialias"),
        (helper.make_node("Pad", ["x", "p", "", "i"], ["y"], name="n"), "its axes"),
    ],
)
def test_what_has_no_other_spelling_is_refused(node: onnx.NodeProto, reason: str) -> None:
    with pytest.raises(EngineError, match=rf"node n \({node.op_type}\): .*{reason}"):
        spelled_for_8(model(node, feeds="x i"))


def test_an_initializer_that_is_fed_is_no_constant() -> None:
    node = helper.make_node("ReduceMean", ["x", "i"], ["y"], name="n")
    with pytest.raises(EngineError, match="are computed"):
        spelled_for_8(model(node, constants={"i": [1]}, feeds="x i"))


def test_what_is_read_rightly_is_left() -> None:
    plain = model(helper.make_node("ScatterND", ["x", "i", "x"], ["y"], reduction="none"), feeds="x i")
    assert spelled_for_8(plain) is plain
    foreign = model(helper.make_node("ReduceMean", ["x", "i"], ["y"], domain="mine"), feeds="x i")
    assert spelled_for_8(foreign) is foreign
    old = onnx.load(MODELS / "exported" / "bert_legacy_op12.onnx", load_external_data=False)
    assert spelled_for_8(old) is old


def test_an_exported_model_of_opset_19() -> None:
    exported = onnx.load(MODELS / "exported" / "deformconv_dynamo_op19.onnx")
    before = exported.SerializeToString()
    made = parsable(Model(exported), functions=False, legacy=True)
    (mean,) = (node for node in made.graph.node if node.op_type == "ReduceMean")
    assert len(mean.input) == 1
    assert attributes(mean)["axes"]
    assert exported.SerializeToString() == before
    assert parsable(Model(exported), functions=False) is exported


def test_why_a_file_could_not_be_lowered_is_said() -> None:
    gelu = helper.make_node("Gelu", ["m"], ["y"], name="gelu")
    proto = model(helper.make_node("ReduceMean", ["x", "axes"], ["m"], name="mean"), gelu, constants={"axes": [1]})
    proto.opset_import[0].version = 20
    (said,) = rewrite(proto, "clip", target="tensorrt-8.6").report.warnings
    assert "overlooks the axes of ReduceMean 'mean'" in said
    assert "lowering it here failed: Gelu 'gelu': opset 17 does not have it" in said
