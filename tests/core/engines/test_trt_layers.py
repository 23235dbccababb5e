from __future__ import annotations

import json

import onnx
import pytest
from onnx import TensorProto, helper

from onnx_rewrite.engines.protocol import Model
from onnx_rewrite.engines.trt_build import parsable
from onnx_rewrite.engines.trt_layers import inspected, listed, readable
from onnx_rewrite.report.layers import destinations, reformats
from onnx_rewrite.report.schema import LayerReport

from .models import linear


def chain(*names: str) -> onnx.ModelProto:
    """Relus one after another."""
    info = helper.make_tensor_value_info
    nodes = [helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"], name=name) for i, name in enumerate(names)]
    graph = helper.make_graph(
        nodes, "g", [info("v0", TensorProto.FLOAT, [2])], [info(f"v{len(names)}", TensorProto.FLOAT, [2])]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def read(model: onnx.ModelProto, *entries: object) -> list[tuple[str, ...]]:
    return [layer.nodes for layer in inspected(json.dumps({"Layers": entries}), model)]


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("a", ("a",)),
        ("a + b", ("a", "b")),
        ("PWN(a, b)", ("a", "b")),
        ("PWN(PWN(a), PWN(b, c))", ("a", "b", "c")),
        ("a || c", ("a", "c")),
        ("(Unnamed Layer* 3) [Shuffle] + b", ("b",)),
        ("{ForeignNode[b...d]}", ("b", "c", "d")),
        ("Reformatting CopyNode for Input Tensor 0 to a + b", ()),
        ("something of the builder's", ()),
    ],
)
def test_names_of_fused_layers_before_there_was_metadata(name: str, nodes: tuple[str, ...]) -> None:
    assert read(chain("a", "b", "c", "d", "e"), {"Name": name, "LayerType": "x"}) == [nodes]


def test_a_region_takes_no_node_of_another_layer() -> None:
    names = ("a", "b", "c", "d")
    assert read(chain(*names), {"Name": "{ForeignNode[a...d]}"}, {"Name": "c"}) == [("a", "b", "d"), ("c",)]
    assert read(chain(*names), {"Name": "{ForeignNode[a...d]}"}, {"Name": "z"}) == [names, ()]


@pytest.mark.parametrize("separator", ["", "\x1e", "\x1f"])
def test_metadata_says_it_best(separator: str) -> None:
    metadata = separator.join(f"[ONNX Layer: {name}]" for name in ("/a/x[0]", "b", "b"))
    entry = {"Name": "{ForeignNode[a...d]}", "LayerType": "kgen", "Metadata": metadata}
    if separator:
        assert read(chain("a", "c", "d"), entry) == [("/a/x[0]", "b")]
    else:
        assert read(chain("a", "c", "d"), {**entry, "Metadata": "[ONNX Layer: b][ONNX Layer: e][ONNX Layer: f]"}) == [
            ("b", "e", "f")
        ]


def test_types_of_all_versions() -> None:
    """8 and 10 say "Format/Datatype", 11 says "Datatype"."""
    old = {
        "Name": "a",
        "Inputs": [{"Format/Datatype": "Row major linear FP16 format"}],
        "Outputs": [{"Datatype": "Half"}],
    }
    new = {"Name": "b", "Inputs": [{"Datatype": "Float"}, {"Datatype": "INT8"}], "Outputs": [{"Datatype": "BFloat16"}]}
    found = inspected(json.dumps({"Layers": [old, new]}), chain("a", "b"))
    assert [layer.types for layer in found] == ["FP16 -> FP16", "FP32+INT8 -> BF16"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"Layers": null}', '{"Bindings": ["x"]}'])
def test_what_is_no_list_of_layers(text: str) -> None:
    assert inspected(text, chain("a")) == ()


def test_names_alone() -> None:
    """What an engine of lower verbosity gives."""
    assert read(chain("a", "b"), "a + b") == [("a", "b")]
    assert listed("Layers:\nnonsense\n") == ()


def test_where_a_node_went() -> None:
    layers = [
        LayerReport("one", "kgen", ["a", "b"]),
        LayerReport("two", "kgen", ["b", "c"]),
        LayerReport("Reformatting CopyNode for a", ""),
    ]
    a, b, z = destinations(["a", "b", "z"], layers)
    assert (a.layers, a.beside) == (("one",), ("b",))
    assert (b.layers, b.beside) == (("one", "two"), ("a", "c"))
    assert (z.layers, z.beside) == ((), ())
    assert reformats(layers) == layers[2:]


def test_attention_may_be_taken_apart_where_that_is_asked_for() -> None:
    model = linear()
    model.graph.node.append(helper.make_node("Attention", ["q", "k", "v"], ["o"], name="attention"))
    model.graph.node.append(helper.make_node("Attention", ["q", "k", "v"], ["p"], name="other", domain="com.microsoft"))
    assert parsable(Model(model), functions=True) is model
    made = parsable(Model(model), functions=True, decomposable=True)
    marked = {node.name for node in made.graph.node if any(a.name == "TRT_decomposable" for a in node.attribute)}
    assert marked == {"attention"}
    assert not any(a.name == "TRT_decomposable" for node in model.graph.node for a in node.attribute)
    assert parsable(Model(linear()), functions=True, decomposable=True).graph.node[0].op_type == "MatMul"


def test_a_region_is_what_lies_between_its_tensors() -> None:
    """Its name tells nothing: both ends are layers of the library's own. Reformats are passed through."""
    region = "{ForeignNode[(Unnamed Layer* 3) [Constant] + (Unnamed Layer* 4) [Shuffle]...(Unnamed Layer* 9) [Sum]]}"
    entries = [
        {"Name": "a", "Inputs": [{"Name": "v0"}], "Outputs": [{"Name": "v1"}]},
        {"Name": "copy", "LayerType": "Reformat", "Inputs": [{"Name": "v1"}], "Outputs": [{"Name": "in"}]},
        {"Name": region, "LayerType": "Myelin", "Inputs": [{"Name": "in"}], "Outputs": [{"Name": "out"}]},
        {"Name": "copy 2", "LayerType": "Reformat", "Inputs": [{"Name": "out"}], "Outputs": [{"Name": "v4"}]},
        {"Name": "odd", "Inputs": [{"Name": "v4"}], "Outputs": [{"Name": "v5"}], "TacticValue": "0x0000000000000000"},
    ]
    assert read(chain("a", "b", "c", "d", "e"), *entries) == [("a",), (), ("b", "c", "d"), (), ("e",)]
    assert inspected(json.dumps({"Layers": entries}), chain("a"))[4].tactic == ""


BROKEN = '{"Layers": [{"Name": "a", "Metadata": "[ONNX Layer: a]\x1e[ONNX Layer: b]\x1f"}, {"Name": "c"}]}'


def test_control_characters_in_what_the_inspector_gives() -> None:
    with pytest.raises(ValueError, match="control character"):
        json.loads(BROKEN)
    text = readable(BROKEN, lambda i: pytest.fail("not needed"), 2)
    assert json.loads(text)["Layers"][1] == {"Name": "c"}
    assert [layer.nodes for layer in inspected(text, chain("a", "b", "c"))] == [("a", "b"), ("c",)]
    assert [layer.nodes for layer in inspected(BROKEN, chain("a", "b", "c"))] == [("a", "b"), ("c",)]


def test_layers_one_by_one_where_the_whole_cannot_be_read() -> None:
    singles = ['{"Name": "a"}', '{"Name": "b', '{"Name": "c\x1e"}']
    text = readable('{"Layers": [', singles.__getitem__, 3)
    assert [layer.name for layer in inspected(text, chain("a"))] == ["a", "layer 1", "c\x1e"]
    valid = '{"Layers": ["a"]}'
    assert readable(valid, singles.__getitem__, 1) is valid
    assert readable("", singles.__getitem__, 0) == ""
