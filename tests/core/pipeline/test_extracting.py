"""A part of a model computes what the whole computes there."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import onnx_rewrite as rw
from onnx_rewrite.errors import UsageError
from onnx_rewrite.verify.feeds import Source
from onnx_rewrite.verify.regimes import UNIT

MODELS = Path(__file__).parents[2] / "models"
HYBRID = MODELS / "exported" / "hybrid_legacy_op12_keep_bn.onnx"

# Old and new opsets, dynamic shapes, node names that repeat, bodies, functions, weights that are inputs.
REAL = [
    "exported/hybrid_legacy_op12_keep_bn.onnx",
    "exported/bert_legacy_op12_dynamic.onnx",
    "exported/t5_legacy_op12.onnx",
    "exported/swin_legacy_op12.onnx",
    "exported/convnext_dynamo_op18.onnx",
    "exported/batchnorms_legacy_op9_keep_bn.onnx",
    "exported/gpt2_dynamo_op18_sdpa.onnx",
    "handmade/if_subgraph_minmax_op13.onnx",
    "handmade/outer_value_used_in_subgraph_op13.onnx",
    "handmade/local_function_minmax_op18.onnx",
    "handmade/split_multi_output_op12.onnx",
    "handmade/unsorted_names_empty_nodenames_op12.onnx",
]

Arrays = dict[str, "np.ndarray[Any, np.dtype[Any]]"]


def run(proto: onnx.ModelProto, feeds: Arrays) -> Arrays:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


@lru_cache
def everything(name: str) -> tuple[onnx.ModelProto, Arrays]:
    """A model, and all values of its main graph on one feed."""
    model = onnx.load(MODELS / name)
    source = Source(model, 0, None)
    feed = dict(source.draw(UNIT, next(iter(source.bindings()))).values)
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    present = {value.name for value in watched.graph.output}
    for node in watched.graph.node:
        watched.graph.output.extend(onnx.ValueInfoProto(name=n) for n in node.output if n and n not in present)
    return model, {**feed, **run(watched, feed)}


def same(a: Any, b: Any) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def compare(name: str, part: rw.Extracted) -> onnx.ModelProto:
    """Whether a part gives, on the whole model's values, the whole model's values."""
    _, values = everything(name)
    proto = part.to_proto()
    onnx.checker.check_model(proto, full_check=True)
    found = run(proto, {n: values[n] for n in part.inputs})
    assert list(found) == part.outputs
    for output, array in found.items():
        assert same(array, values[output]), output
    return proto


@pytest.mark.parametrize("name", REAL)
@settings(max_examples=8)
@given(data=st.data())
def test_any_cut_of_a_real_model(name: str, data: st.DataObject) -> None:
    model, values = everything(name)
    computed = [n for node in model.graph.node for n in node.output if n and node.op_type != "Constant"]
    to = data.draw(st.lists(st.sampled_from(computed), min_size=1, max_size=2, unique=True), label="to")
    free = [n for n in values if n not in to]
    from_ = data.draw(st.lists(st.sampled_from(free), max_size=3, unique=True), label="from")
    if from_ and not upstream(model, to) & set(from_):
        with pytest.raises(UsageError, match="not depend"):
            rw.extract(model, from_=from_, to=to)
        return
    part = rw.extract(model, from_=from_ or None, to=to)
    assert part.outputs == to
    graph_inputs = {value.name for value in model.graph.input}
    assert set(part.inputs) <= {*from_, *graph_inputs}
    besides = [n for n in part.inputs if n not in from_]
    assert all(any(f"'{n}'" in note for note in part.notes) for n in besides) or not from_
    proto = compare(name, part)
    # Exactly what is needed: every node and every initializer leads to an output.
    used = {n for node in proto.graph.node for n in node.input} | set(part.outputs) | captured(proto.graph)
    assert all(any(n in used for n in node.output) for node in proto.graph.node)
    assert {tensor.name for tensor in proto.graph.initializer} <= used


def upstream(model: onnx.ModelProto, to: list[str]) -> set[str]:
    """Names of all values that some values depend on, through other values named in `to` too."""
    producer = {n: node for node in model.graph.node for n in node.output}
    found: set[str] = set()
    waiting = list(to)
    while waiting:
        node = producer.get(waiting.pop())
        if node is not None:
            inside = captured(onnx.GraphProto(node=[node]))
            new = ({*node.input} | inside) - found
            found |= new
            waiting.extend(new)
    return found


def captured(graph: onnx.GraphProto) -> set[str]:
    found: set[str] = set()
    for node in graph.node:
        for attribute in node.attribute:
            for inner in attribute.g.node:
                found.update(inner.input)
            found |= captured(attribute.g)
    return found


@pytest.mark.parametrize("name", REAL)
def test_all_of_a_model_is_the_model(name: str) -> None:
    model, _ = everything(name)
    needed = {n for node in model.graph.node for n in node.input}
    inputs = {value.name for value in model.graph.input}
    part = rw.extract(model, to=[value.name for value in model.graph.output])
    if inputs <= needed and {t.name for t in model.graph.initializer} <= needed:
        assert part.to_proto().SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    compare(name, part)


@pytest.mark.parametrize(
    ("name", "site", "nodes"),
    [
        ("exported/hybrid_legacy_op12_keep_bn.onnx", "ln[1]", 9),
        ("exported/hybrid_legacy_op12_keep_bn.onnx", "bn[0]", 2),
        ("exported/hybrid_legacy_op12_keep_bn.onnx", "clip[1]", 2),
        ("exported/swin_legacy_op12.onnx", "ln[10]", 9),
        ("exported/bert_legacy_op12_dynamic.onnx", "ln[4]", 9),
        ("exported/batchnorms_legacy_op9_keep_bn.onnx", "bn[3]", 2),
    ],
)
def test_a_site_is_what_the_run_calls_so(name: str, site: str, nodes: int) -> None:
    model, _ = everything(name)
    part = rw.extract(model, match=site)
    report = rw.rewrite(model, site.partition("[")[0], verify="local").report  # a run that may look at shapes
    (reported,) = [s for entry in report.passes for s in entry.sites if s.id == site]
    assert not part.notes
    assert part.inputs == reported.inputs
    assert part.outputs == reported.outputs
    proto = compare(name, part)
    names = [node.name for node in proto.graph.node if node.op_type != "Constant"]
    assert sorted(names) == sorted(reported.nodes)
    assert part.nodes == nodes == len(names)
    # The part is a site of its own.
    assert rw.rewrite(proto, site.partition("[")[0]).report.applied == 1


def test_a_site_that_earlier_replacements_made_is_what_the_model_has_there() -> None:
    name = "exported/minmax_legacy_op12.onnx"
    part = rw.extract(MODELS / name, match="clip[3]")  # the Clips that clip[1] and clip[2] made
    assert part.notes == ["earlier replacements made nodes of clip[3]: the part is what the model has in their place"]
    operators = {node.op_type for node in compare(name, part).graph.node}
    assert operators == {"Min", "Max", "Clip", "Constant"}


def test_a_site_in_a_body() -> None:
    name = "handmade/if_subgraph_minmax_op13.onnx"
    model, _ = everything(name)
    part = rw.extract(model, match="clip[0]")
    proto = part.to_proto()
    onnx.checker.check_model(proto, full_check=True)
    assert {node.op_type for node in proto.graph.node} <= {"Min", "Max", "Constant"}
    assert part.nodes == 2
    (size,) = (dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim)
    feed = {part.inputs[0]: np.linspace(-9, 9, size, dtype=np.float32)}
    again = rw.rewrite(proto, "clip")
    assert again.report.applied == 1
    assert same(run(proto, feed)[part.outputs[0]], run(again.to_proto(), feed)[part.outputs[0]])


FUNCTIONS = """
<ir_version: 9, opset_import: ["": 18, "local": 1]>
main (float[2, 3] x) => (float[2, 3] y)
{
    a = local.First (x)
    b = Neg (a)
    y = local.Second (b)
}
<domain: "local", opset_import: ["": 18]>
First (v) => (w)
{
    lo = Constant <value_float: float = -1.0> ()
    hi = Constant <value_float: float = 1.0> ()
    m = Min (v, hi)
    w = Max (m, lo)
}
<domain: "local", opset_import: ["": 18]>
Second (v) => (w)
{
    lo = Constant <value_float: float = -2.0> ()
    hi = Constant <value_float: float = 0.5> ()
    m = Min (v, hi)
    w = Max (m, lo)
}
"""


@pytest.mark.parametrize(("site", "expected"), [("clip[0]", [-1, 0, 1]), ("clip[1]", [-2, 0, 0.5])])
def test_a_site_in_a_function_among_others_of_the_same_names(site: str, expected: list[float]) -> None:
    part = rw.extract(onnx.parser.parse_model(FUNCTIONS), match=site)
    proto = part.to_proto()
    onnx.checker.check_model(proto, full_check=True)
    assert (part.inputs, part.outputs, len(proto.functions)) == (["v"], ["w"], 0)
    assert run(proto, {"v": np.float32([[-9, 0, 9]] * 2)})["w"][0].tolist() == expected


def test_functions_that_are_called_come_along_and_no_others() -> None:
    part = rw.extract(onnx.parser.parse_model(FUNCTIONS), to="b")
    proto = part.to_proto()
    assert [function.name for function in proto.functions] == ["First"]
    assert run(proto, {"x": np.float32([[-9, 0, 9]] * 2)})["b"][0].tolist() == [1, 0, -1]


def test_a_node_that_is_needed_for_another_output_of_its_own() -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 13]>
        main (float[4] x) => (float[2] y)
        {
            a, b = Split (x)
            y = Add (a, b)
        }
        """
    )
    part = rw.extract(model, from_="a", to="y")
    assert part.inputs == ["a", "x"]
    assert part.notes == ["'x' stays an input: --from 'a' does not cut 'y' off"]
    proto = part.to_proto()
    onnx.checker.check_model(proto, full_check=True)
    assert run(proto, {"a": np.float32([10, 20]), "x": np.float32([1, 2, 3, 4])})["y"].tolist() == [13, 24]


def test_values_that_a_body_captures_are_followed() -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 13]>
        main (bool c, float[2] x) => (float[2] y)
        <float[2] w = {1, 2}, float[2] unused = {3, 4}>
        {
            a = Neg (x)
            b = Add (a, w)
            d = Exp (b)
            y = If (c) <
                then_branch = t () => (float[2] p) { q = Mul (a, w) p = Add (q, b) },
                else_branch = e () => (float[2] r) { r = Abs (a) }
            >
        }
        """
    )
    whole = {"x": np.float32([1, -5]), "c": np.array(True)}
    part = rw.extract(model, from_="a", to="y")
    assert part.inputs == ["a", "c"]
    proto = part.to_proto()
    onnx.checker.check_model(proto, full_check=True)
    assert [tensor.name for tensor in proto.graph.initializer] == ["w"]
    assert {node.op_type for node in proto.graph.node} == {"Add", "If"}
    found = run(proto, {"a": -whole["x"], "c": whole["c"]})
    assert same(found["y"], run(model, whole)["y"])
    # Downwards too: y depends on b through a body alone.
    assert rw.extract(model, from_="b").outputs == ["y"]


def test_everything_else_of_the_model_stays(tmp_path: Path) -> None:
    model = onnx.load(HYBRID)
    helper.set_model_props(model, {"author": "me"})
    model.graph.doc_string = "a graph"
    model.opset_import.append(helper.make_opsetid("com.example", 3))
    info = helper.make_tensor_value_info("/ln1/Sub_output_0", TensorProto.FLOAT, [1, 64, 24])
    model.graph.value_info.append(info)
    cut = helper.make_tensor_value_info("/Transpose_output_0", TensorProto.FLOAT, [1, "tokens", 24])
    model.graph.value_info.append(cut)
    for node in model.graph.node:
        node.metadata_props.add(key="scope", value=node.name)
    before = model.SerializeToString(deterministic=True)
    proto = rw.extract(model, from_="/Transpose_output_0", to="/ln1/Add_1_output_0").to_proto()
    assert model.SerializeToString(deterministic=True) == before
    for field in ("ir_version", "producer_name", "producer_version", "metadata_props", "opset_import"):
        assert getattr(proto, field) == getattr(model, field)
    assert (proto.graph.name, proto.graph.doc_string) == (model.graph.name, "a graph")
    assert list(proto.graph.value_info) == [info]
    assert list(proto.graph.input) == [cut]
    nodes = {node.name: node for node in model.graph.node}
    assert list(proto.graph.node) == [
        node for node in model.graph.node if node.name in {n.name for n in proto.graph.node}
    ]
    assert all(node == nodes[node.name] for node in proto.graph.node)


def test_external_weights_stay_where_they_are(tmp_path: Path) -> None:
    model = onnx.load(HYBRID)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    part = rw.extract(tmp_path / "m.onnx", to="/ln1/Add_1_output_0")
    part.save(tmp_path / "part.onnx")
    assert sorted(os.listdir(tmp_path)) == ["m.onnx", "part.onnx", "w.bin"]
    bare = onnx.load(tmp_path / "part.onnx", load_external_data=False)
    assert all(t.data_location == TensorProto.EXTERNAL for t in bare.graph.initializer)
    _, values = everything("exported/hybrid_legacy_op12_keep_bn.onnx")
    found = run(onnx.load(tmp_path / "part.onnx"), {"x": values["x"]})
    assert same(found["/ln1/Add_1_output_0"], values["/ln1/Add_1_output_0"])
    (tmp_path / "elsewhere").mkdir()
    part.save(tmp_path / "elsewhere" / "part.onnx")
    found = run(onnx.load(tmp_path / "elsewhere" / "part.onnx"), {"x": values["x"]})
    assert same(found["/ln1/Add_1_output_0"], values["/ln1/Add_1_output_0"])
    with pytest.raises(rw.OnnxRewriteError, match="is the input"):
        part.save(tmp_path / "m.onnx")


def test_an_initializer_becomes_an_input() -> None:
    model, values = everything("exported/hybrid_legacy_op12_keep_bn.onnx")
    part = rw.extract(model, from_="x,stem.weight", to="/stem/Conv_output_0")
    proto = part.to_proto()
    onnx.checker.check_model(proto, full_check=True)
    assert part.inputs == ["x", "stem.weight"]
    assert "stem.weight" not in {t.name for t in proto.graph.initializer}
    weight = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "stem.weight")
    found = run(proto, {"x": values["x"], "stem.weight": weight})
    assert same(found["/stem/Conv_output_0"], values["/stem/Conv_output_0"])


def test_quantization_annotations_come_with_their_tensors() -> None:
    model = onnx.load(HYBRID)
    for name, tensor in (("/ln1/Sub_output_0", "here"), ("/ln2/Sub_output_0", "there")):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(0.1), tensor))
        annotation = model.graph.quantization_annotation.add(tensor_name=name)
        annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value=tensor)
    proto = rw.extract(model, match="ln[0]").to_proto()
    assert [a.tensor_name for a in proto.graph.quantization_annotation] == ["/ln1/Sub_output_0"]
    assert "here" in {t.name for t in proto.graph.initializer}
    assert "there" not in {t.name for t in proto.graph.initializer}


def test_training_info_is_left_out_and_that_is_said() -> None:
    model = onnx.load(HYBRID)
    model.training_info.add().update_binding.add(key="stem.weight", value="stem.weight")
    part = rw.extract(model, match="ln[0]")
    assert "training_info" in part.notes[0]
    assert not part.to_proto().training_info


def test_an_input_that_is_not_needed_is_left_out_and_that_is_said() -> None:
    part = rw.extract(
        HYBRID, from_=["/ln1/Sub_output_0", "/ln3/Sub_output_0", "/ln1/Sqrt_output_0"], to="/ln1/Add_1_output_0"
    )
    assert part.inputs == ["/ln1/Sub_output_0", "/ln1/Sqrt_output_0"]
    assert part.notes == ["'/ln3/Sub_output_0' is left out: not needed for '/ln1/Add_1_output_0'"]


UNKNOWN = """
<ir_version: 8, opset_import: ["": 13, "com.example": 1]>
main (float[2] x) => (float[2] y)
{
    a = Neg (x)
    b = com.example.Secret (a)
    y = Abs (b)
}
"""


def model_with_an_unknown_type() -> onnx.ModelProto:
    return onnx.parser.parse_model(UNKNOWN)


@pytest.mark.parametrize(
    ("chosen", "message", "hint"),
    [
        ({}, "either a site, or values", "--from"),
        ({"to": "y", "match": "ln[0]"}, "either a site, or values", "--from"),
        ({"to": "/ln1/Add_1_output_1"}, "no value '/ln1/Add_1_output_1'", "/ln1/Add_1_output_0"),
        ({"from_": "/ln1/Add_1", "to": "y"}, "no value '/ln1/Add_1'", "is a node (Add)"),
        ({"to": " , "}, "--to names no value", ""),
        ({"to": "x"}, "an input of the model", "node"),
        ({"to": "stem.weight"}, "an initializer", "node"),
        ({"from_": "y"}, "no output of the model depends on 'y'", "--to"),
        ({"from_": "/ln1/Add_1_output_0", "to": "/ln1/Sub_output_0"}, "does not depend on", "alone"),
        ({"from_": "x,y", "to": "y"}, "named by --from and by --to", "one of them"),
        ({"match": "ln[3]"}, "ln finds ln[0] to ln[2]", "--dry-run"),
        ({"match": "ln"}, "no id of a site", "ln[3]"),
        ({"match": "lnn[0]"}, "no pass 'lnn'", "ln"),
        ({"match": "ln[0]", "passes": "clip"}, "--passes does not name", ""),
    ],
)
def test_what_cannot_be_cut(chosen: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        rw.extract(HYBRID, **chosen)
    assert message in str(caught.value)
    assert hint in (caught.value.hint or "")


def test_a_type_that_nobody_knows_names_the_value_and_the_way_out() -> None:
    with pytest.raises(UsageError, match="the type of 'b' is not known") as caught:
        rw.extract(model_with_an_unknown_type(), from_="b")
    assert "'y'" in (caught.value.hint or "") or "'a'" in (caught.value.hint or "")
    assert rw.extract(model_with_an_unknown_type(), from_="a").inputs == ["a"]


def test_a_value_of_a_body_is_not_reached_by_name() -> None:
    model = onnx.load(MODELS / "handmade" / "if_subgraph_minmax_op13.onnx")
    inner = next(n for node in model.graph.node for a in node.attribute for i in a.g.node for n in i.output)
    with pytest.raises(UsageError) as caught:
        rw.extract(model, to=inner)
    assert "--match" in (caught.value.hint or "")


def test_the_passes_of_the_run_number_the_sites() -> None:
    assert rw.extract(HYBRID, match="clip[0]", passes="bn,clip").outputs == rw.extract(HYBRID, match="clip[0]").outputs
