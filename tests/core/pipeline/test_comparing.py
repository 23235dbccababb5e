"""What `diff` says changed is what changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

import onnx_rewrite as rw
from onnx_rewrite.pipeline.differing import Change, Difference, NodeEntry, TensorChange
from onnx_rewrite.report.difference import render

MODELS = Path(__file__).parents[2] / "models"
HYBRID = MODELS / "exported" / "hybrid_legacy_op12_keep_bn.onnx"
LISTS = (
    "properties", "opsets", "inputs", "outputs", "metadata", "nodes_added", "nodes_removed", "nodes_changed",
    "initializers", "functions", "value_types",
)  # fmt: skip


def said(found: Difference) -> set[str]:
    return {name for name in LISTS if getattr(found, name)}


def test_the_same_file_is_identical() -> None:
    found = rw.diff(HYBRID, HYBRID)
    assert found.identical
    assert found.same
    assert not found
    assert found.nodes_unchanged == found.nodes_before == found.nodes_after == 93


def test_another_spelling_of_the_same_model_is_the_same(tmp_path: Path) -> None:
    model = onnx.load(HYBRID)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            other = helper.make_tensor(tensor.name, TensorProto.FLOAT, values.shape, values.ravel().tolist())
            tensor.CopyFrom(other)
    tensors = list(model.graph.initializer)[::-1]
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    found = rw.diff(HYBRID, tmp_path / "m.onnx")
    assert not found.identical
    assert found.same
    assert said(found) == set()


def test_what_passes_replaced() -> None:
    result = rw.rewrite(HYBRID, "ln,clip,bn", verify="off")
    found = rw.diff(HYBRID, result.to_proto())
    sites = {(s.id.partition("[")[0], frozenset(s.nodes)) for e in result.report.passes for s in e.sites}
    recorded = {(r.pass_name, frozenset(r.sources)) for r in found.replacements if r.pass_name != "opset"}
    assert recorded == sites
    ln = [r for r in found.replacements if r.pass_name == "ln"]
    assert [(len(r.sources), r.constants, r.nodes) for r in ln] == [
        (9, 2, [f"LayerNormalization '/ln{i}/Add_1'"]) for i in (1, 2, 3)
    ]
    # Nothing is left over: all that differs is due to a pass.
    entries = [*found.nodes_added, *found.nodes_removed, *found.nodes_changed]
    assert all(entry.replacement is not None for entry in entries)
    assert found.opsets == [Change("ai.onnx", "12", "17")]
    counts = {o.operator: (o.before, o.after) for o in found.operators}
    assert counts["LayerNormalization"] == (0, 3)
    assert counts["BatchNormalization"] == (2, 0)
    assert sum(o.after - o.before for o in found.operators) == found.nodes_after - found.nodes_before
    assert not rw.diff(result.to_proto(), result.to_proto()).replacements


def drop_names(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.name = ""


def rename_value(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == "/ln1/Sub_output_0":
                    names[i] = "renamed"


def weight(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "ln1.weight")
    values = numpy_helper.to_array(tensor).copy()
    values[[1, 2]] += np.float32([0.5, -0.25])
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def shorten(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "ln1.weight")
    tensor.CopyFrom(numpy_helper.from_array(np.ones(3, np.float16), tensor.name))


def node_named(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def attribute(model: onnx.ModelProto) -> None:
    node = node_named(model, "/ln1/ReduceMean")
    node.attribute[0].CopyFrom(helper.make_attribute(node.attribute[0].name, [1, 2]))


EDITS: dict[str, tuple[Callable[[onnx.ModelProto], object], set[str]]] = {
    "node names": (drop_names, {"nodes_changed"}),
    "a value's name": (rename_value, {"nodes_changed"}),
    "a weight": (weight, {"initializers"}),
    "a weight's type": (shorten, {"initializers"}),
    "an attribute": (attribute, {"nodes_changed"}),
    "an operator": (lambda m: setattr(node_named(m, "/ln1/Sub"), "op_type", "Add"), {"nodes_changed"}),
    "a doc string": (lambda m: setattr(node_named(m, "/ln1/Sub"), "doc_string", "?"), {"nodes_changed"}),
    "the IR version": (lambda m: setattr(m, "ir_version", 8), {"properties"}),
    "the producer": (lambda m: setattr(m, "producer_name", "me"), {"properties"}),
    "the graph's name": (lambda m: setattr(m.graph, "name", "me"), {"properties"}),
    "metadata": (lambda m: helper.set_model_props(m, {"author": "me"}), {"metadata"}),
    "an opset": (lambda m: m.opset_import.append(helper.make_opsetid("com.example", 2)), {"opsets"}),
    "an input's shape": (
        lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_param", "n"),
        {"inputs"},
    ),
    "an output": (
        lambda m: m.graph.output.append(helper.make_tensor_value_info("/Min_output_0", TensorProto.FLOAT, None)),
        {"outputs"},
    ),
    "a node": (lambda m: m.graph.node.add(op_type="Neg", input=["y"], output=["z"]), {"nodes_added"}),
    "an inner type": (
        lambda m: m.graph.value_info.append(helper.make_tensor_value_info("/ln1/Sub_output_0", TensorProto.FLOAT, [1])),
        {"value_types"},
    ),
    "an annotation": (
        lambda m: m.graph.quantization_annotation.add(tensor_name="x").quant_parameter_tensor_names.add(
            key="SCALE_TENSOR", value="stem.weight"
        ),
        {"properties"},
    ),
    "training": (lambda m: m.training_info.add(), {"properties"}),
}


@pytest.mark.parametrize("edit", EDITS)
def test_one_edit_is_named_where_it_is_and_nowhere_else(edit: str) -> None:
    model = onnx.load(HYBRID)
    change, expected = EDITS[edit]
    change(model)
    found = rw.diff(HYBRID, model)
    assert not found.same
    assert said(found) == expected
    assert said(rw.diff(model, HYBRID)) == {name.replace("nodes_added", "nodes_removed") for name in expected}


def test_the_words_for_an_edit() -> None:
    model = onnx.load(HYBRID)
    weight(model)
    attribute(model)
    node_named(model, "/ln2/Sub").op_type = "Add"
    found = rw.diff(HYBRID, model)
    change = "2 of 24 values, by at most 0.5"
    assert found.initializers == [TensorChange("ln1.weight", "float[24]", "float[24]", change)]
    mean, sub = found.nodes_changed
    assert mean.details == [Change("axes", "[-1]", "[1, 2]")]
    assert (sub.name, sub.operator_before, sub.operator) == ("/ln2/Sub", "Sub", "Add")


def test_names_pair_nodes_whose_outputs_were_renamed() -> None:
    model = onnx.load(HYBRID)
    rename_value(model)
    found = rw.diff(HYBRID, model)
    renamed = next(node for node in found.nodes_changed if node.name == "/ln1/Sub")
    assert renamed.details == [Change("outputs", "/ln1/Sub_output_0", "renamed")]
    assert not found.nodes_added


def test_bodies_and_functions() -> None:
    model = onnx.load(MODELS / "handmade" / "if_subgraph_minmax_op13.onnx")
    other = onnx.ModelProto()
    other.CopyFrom(model)
    (holder,) = [node for node in other.graph.node if node.op_type == "If"]
    body = holder.attribute[0].g
    body.node[-1].op_type = "Sum" if body.node[-1].op_type != "Sum" else "Mean"
    found = rw.diff(model, other)
    assert said(found) == {"nodes_changed"}
    assert found.nodes_changed[0].scope.endswith(f".{holder.attribute[0].name}/")

    model = onnx.load(MODELS / "handmade" / "local_function_minmax_op18.onnx")
    other.CopyFrom(model)
    other.functions[0].node[-1].op_type = "Sum"
    found = rw.diff(model, other)
    assert said(found) == {"nodes_changed", "functions"}
    assert "::" in found.functions[0].name
    del other.functions[:]
    other.graph.node[0].domain = ""
    assert rw.diff(model, other).functions[0].after is None


def test_external_data_at_the_same_place_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.load(HYBRID)
    onnx.save(model, tmp_path / "a.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    bare = onnx.load(tmp_path / "a.onnx", load_external_data=False)
    bare.producer_name = "me"
    onnx.save(bare, tmp_path / "b.onnx")
    with monkeypatch.context() as patch:
        patch.setattr(ir.ExternalTensor, "tobytes", None)
        assert said(rw.diff(tmp_path / "a.onnx", tmp_path / "b.onnx")) == {"properties"}
    # Elsewhere the bytes decide.
    (tmp_path / "c").mkdir()
    model = onnx.load(HYBRID)
    weight(model)
    onnx.save(model, tmp_path / "c" / "c.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    found = rw.diff(tmp_path / "a.onnx", tmp_path / "c" / "c.onnx")
    assert [change.name for change in found.initializers] == ["ln1.weight"]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (np.float32([np.nan, 1]), np.float32([np.nan, 1]), None),
        (np.float32([0.0, 1]), np.float32([-0.0, 1]), "in their bits alone"),
        (np.float32([np.inf, 1]), np.float32([1, 1]), "1 of 2 values, by at most inf"),
        (np.array([True, False]), np.array([True, True]), "1 of 2 values"),
        (np.array([b"a", b"b"], object), np.array([b"a", b"c"], object), "1 of 2 values"),
        (np.int64([2**62, 1]), np.int64([2**62, 4]), "1 of 2 values, by at most 3"),
    ],
)
def test_values(a: np.ndarray, b: np.ndarray, expected: str | None) -> None:
    def model(array: np.ndarray) -> onnx.ModelProto:
        made = onnx.load(HYBRID)
        made.graph.initializer.append(numpy_helper.from_array(array, "extra"))
        return made

    found = rw.diff(model(a), model(b))
    assert [change.values for change in found.initializers] == ([] if expected is None else [expected])


@given(st.sets(st.integers(0, 92)), st.sets(st.integers(0, 92)))
def test_every_node_is_counted_once(left_out_a: set[int], left_out_b: set[int]) -> None:
    """Of two subsets of a model's nodes, exactly the common ones are unchanged."""

    def without(numbers: set[int]) -> onnx.ModelProto:
        model = onnx.load(HYBRID)
        kept = [node for i, node in enumerate(model.graph.node) if i not in numbers]
        known = {n for node in kept for n in node.output}
        gone = [n for i in sorted(numbers) for n in model.graph.node[i].output]
        del model.graph.node[:]
        model.graph.node.extend(kept)
        for name in gone:  # whatever is read must be there
            if name not in known and name != "y":
                model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
        del model.graph.output[:]
        model.graph.output.append(helper.make_tensor_value_info(kept[-1].output[0] if kept else "x", 1, None))
        return model

    found = rw.diff(without(left_out_a), without(left_out_b))
    assert found.nodes_unchanged == 93 - len(left_out_a | left_out_b)
    assert len(found.nodes_removed) == len(left_out_b - left_out_a)
    assert len(found.nodes_added) == len(left_out_a - left_out_b)
    assert not found.nodes_changed


@pytest.mark.parametrize("width", [80, 120])
def test_lists_are_cut_to_the_width_and_to_a_number(width: int) -> None:
    found = Difference(same=False, nodes_before=40, nodes_after=3)
    found.nodes_removed = [NodeEntry("", f"/a/very/long/{'path/' * 20}{i}", "Add", []) for i in range(40)]

    def printed(*, everything: bool) -> list[str]:
        console = Console(width=width, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
        with console.file:
            render(found, "a.onnx", "b.onnx", console, everything=everything)
            return console.export_text().splitlines()

    short, full = printed(everything=False), printed(everything=True)
    assert max(map(len, short + full)) <= width
    assert any("and 30 more (--all lists them)" in line for line in short)
    assert sum(line.startswith("  - ") for line in short) == 10
    assert sum(line.startswith("  - ") for line in full) == 40
