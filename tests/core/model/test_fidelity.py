"""Nothing outside an edit changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from onnx.backend.test.case.node import collect_testcases

from onnx_rewrite.errors import ModelError
from onnx_rewrite.model import (
    KEEP_VALUE_INFO,
    LoadedModel,
    count_nodes,
    is_edited,
    load,
    original_name,
    reload,
    save,
    to_proto,
)
from onnx_rewrite.model.edits import Edits
from onnx_rewrite.model.fidelity import Rebuild

from . import builders
from .builders import ALL_MODELS, chain, content, replace, rich, then_of, with_body, with_sparse, with_training

BUILDERS: list[Callable[[], onnx.ModelProto]] = [rich, with_body, with_sparse, with_training]


def rebuilt(loaded: LoadedModel) -> onnx.ModelProto:
    """The model written the long way: every node and value compared and written one by one."""
    return Rebuild(Edits(loaded.origin, loaded.ir), loaded.base_dir, "model", shortcuts=False).model()


@pytest.mark.parametrize("path", ALL_MODELS, ids=lambda path: path.stem)
def test_real_models_come_back_the_same(path: Path, tmp_path: Path) -> None:
    loaded = load(path)
    assert not is_edited(loaded)
    assert content(rebuilt(loaded)) == content(loaded.proto)
    assert to_proto(loaded) == loaded.proto
    assert save(loaded, tmp_path / "out.onnx").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("path", ALL_MODELS, ids=lambda path: path.stem)
def test_an_edit_changes_nothing_else(path: Path) -> None:
    original = onnx.load(path)
    loaded = load(path)
    graph = loaded.ir.graph
    old = next((n for n in graph if len(n.outputs) == 1 and n.inputs and n.inputs[0] and n.op_type != "If"), None)
    if old is None:
        pytest.skip("no node to replace")
    index = next(i for i, n in enumerate(original.graph.node) if list(n.output) == [old.outputs[0].name])
    new = ir.Node("", "Neg", [old.inputs[0]], name="new")
    new.outputs[0].name = old.outputs[0].name
    graph.insert_before(old, new)
    old.outputs[0].replace_all_uses_with(new.outputs[0], replace_graph_outputs=True)
    graph.remove(old, safe=True)

    written = to_proto(loaded)
    expected = onnx.ModelProto()
    expected.CopyFrom(original)
    node = expected.graph.node[index]
    node.CopyFrom(helper.make_node("Neg", [node.input[0]], list(node.output), name="new"))
    if not loaded.was_sorted:
        key = lambda n: n.output[0]  # noqa: E731
        for model in (written, expected):
            nodes = sorted(model.graph.node, key=key)
            del model.graph.node[:]
            model.graph.node.extend(nodes)
    assert content(written) == content(expected)
    assert content(loaded.proto) == content(original)


@pytest.mark.parametrize("build", BUILDERS)
def test_rare_parts_come_back_the_same(build: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    model = build()
    path = tmp_path / "in.onnx"
    path.write_bytes(model.SerializeToString())
    loaded = load(path)
    assert not is_edited(loaded)
    assert content(rebuilt(loaded)) == content(model)
    assert save(loaded, tmp_path / "out.onnx").read_bytes() == path.read_bytes()
    assert content(load(model).proto) == content(model)


def test_rare_parts_survive_an_edit_elsewhere() -> None:
    model = rich()
    loaded = load(model)
    new = ir.Node("", "Abs", [next(iter(loaded.ir.graph)).outputs[0]], name="new")
    new.outputs[0].name = "extra"
    loaded.ir.graph.append(new)
    expected = onnx.ModelProto()
    expected.CopyFrom(model)
    expected.graph.node.append(helper.make_node("Abs", ["branched"], ["extra"], name="new"))
    assert is_edited(loaded)
    assert content(to_proto(loaded)) == content(expected)
    assert content(rebuilt(loaded)) == content(expected)


def test_a_node_with_rare_attributes_keeps_them_when_its_input_changes() -> None:
    model = rich()
    loaded = load(model)
    node = next(node for node in loaded.ir.graph if node.op_type == "Every")
    node.replace_input_with(0, loaded.ir.graph.inputs[0])
    expected = next(n for n in model.graph.node if n.op_type == "Every")
    expected.input[0] = "x"
    assert content(to_proto(loaded)) == content(model)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # onnx computes overflows and NaN on purpose
def test_onnx_node_tests_come_back_the_same() -> None:
    cases = [case for case in collect_testcases(None) if case.model is not None]  # type: ignore[arg-type]
    assert len(cases) > 1000
    for case in cases[::12]:
        loaded = load(case.model)
        assert content(rebuilt(loaded)) == content(case.model), case.name
        assert not is_edited(loaded), case.name


@given(st.dictionaries(st.text(), st.text(), max_size=4), st.text(), st.integers(0, 3))
def test_any_notes_come_back(props: dict[str, str], doc_string: str, where: int) -> None:
    model = chain("Relu", "Abs")
    owner = (model, model.graph, model.graph.node[0], model.graph.input[0])[where]
    owner.doc_string = doc_string  # type: ignore[attr-defined]
    for key, value in props.items():
        owner.metadata_props.add(key=key, value=value)  # type: ignore[attr-defined]
    loaded = load(model)
    assert not is_edited(loaded)
    assert content(rebuilt(loaded)) == content(model)
    replace(loaded.ir.graph, "Abs", "Neg")
    model.graph.node[1].CopyFrom(helper.make_node("Neg", ["v0"], ["y"], name="new_Neg"))
    assert content(to_proto(loaded)) == content(model)


def test_changed_notes_of_an_existing_node_are_written() -> None:
    loaded = load(rich())
    node = next(node for node in loaded.ir.graph if node.op_type == "Abs")
    node.metadata_props["added"] = "1"
    node.doc_string = "other"
    assert is_edited(loaded)
    expected = rich()
    expected.graph.node[1].metadata_props.add(key="added", value="1")
    expected.graph.node[1].doc_string = "other"
    assert content(to_proto(loaded)) == content(expected)


def test_changed_notes_of_a_value_are_written() -> None:
    loaded = load(rich())
    value = next(iter(loaded.ir.graph)).outputs[0]
    value.metadata_props["added"] = "1"
    value.doc_string = "other"
    expected = rich()
    expected.graph.value_info[0].metadata_props.add(key="added", value="1")
    expected.graph.value_info[0].doc_string = "other"
    assert content(to_proto(loaded)) == content(expected)


def test_an_edit_inside_a_body() -> None:
    loaded = load(with_body())
    branch = next(iter(loaded.ir.graph)).attributes["then_branch"].as_graph()
    replace(branch, "Relu", "Neg")
    expected = with_body()
    then_of(expected).node[0].CopyFrom(helper.make_node("Neg", ["x"], ["inner"], name="new_Neg"))
    assert content(to_proto(loaded)) == content(expected)


def test_an_edit_inside_a_function() -> None:
    loaded = load(rich())
    replace(next(iter(loaded.ir.functions.values())), "Abs", "Neg")
    expected = rich()
    expected.functions[0].node[1].CopyFrom(helper.make_node("Neg", ["b"], ["c"], name="new_Neg"))
    assert content(to_proto(loaded)) == content(expected)


def test_value_info_goes_with_its_value_and_follows_new_types() -> None:
    model = chain("Relu", "Abs", "Neg")
    model.graph.value_info.extend([builders.info("v1"), builders.info("v0")])
    loaded = load(model)
    first, second, third = loaded.ir.graph
    third.replace_input_with(0, first.outputs[0])
    loaded.ir.graph.remove(second, safe=True)
    first.outputs[0].shape = ir.Shape([7, "n"])
    written = to_proto(loaded)
    assert [entry.name for entry in written.graph.value_info] == ["v0"]
    assert written.graph.value_info[0] == builders.info("v0", [7, "n"])


def test_a_new_value_under_an_old_name_takes_no_knowledge_away() -> None:
    model = chain("Relu", "Abs")
    model.graph.value_info.append(builders.info("v0"))
    loaded = load(model)
    new = replace(loaded.ir.graph, "Relu", "Neg")
    new.outputs[0].shape = None
    assert to_proto(loaded).graph.value_info[0] == builders.info("v0")
    new.outputs[0].shape = ir.Shape([4])
    assert to_proto(loaded).graph.value_info[0] == builders.info("v0", [4])
    new.outputs[0].type = ir.TensorType(ir.DataType.DOUBLE)
    assert to_proto(loaded).graph.value_info[0] == builders.info("v0", [4], onnx.TensorProto.DOUBLE)


@pytest.mark.parametrize("marked", [False, True])
def test_new_values_get_value_info_only_when_marked(marked: bool) -> None:
    loaded = load(chain("Relu"))
    relu = next(iter(loaded.ir.graph))
    new = ir.Node("", "Neg", [relu.inputs[0]], name="new")
    value = new.outputs[0]
    value.name, value.type, value.shape = "fresh", ir.TensorType(ir.DataType.FLOAT), ir.Shape([2, 3])
    if marked:
        value.meta[KEEP_VALUE_INFO] = True
    loaded.ir.graph.insert_before(relu, new)
    relu.replace_input_with(0, value)
    assert [entry.name for entry in to_proto(loaded).graph.value_info] == (["fresh"] if marked else [])


def test_initializers_added_replaced_renamed_and_removed() -> None:
    model = chain("Relu")
    arrays = {name: np.full(3, index, np.float32) for index, name in enumerate(("a", "b", "c", "d"))}
    for name, array in arrays.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    loaded = load(model)
    values = loaded.ir.graph.initializers
    added = ir.Value(name="new", const_value=ir.tensor(np.float32([9]), name="new"))
    loaded.ir.graph.register_initializer(added)
    values["a"].const_value = ir.tensor(np.float32([7]), name="a")
    del values["b"]
    values["c"].name = "renamed"
    written = to_proto(loaded).graph.initializer
    assert [tensor.name for tensor in written] == ["a", "renamed", "d", "new"]
    assert onnx.numpy_helper.to_array(written[0]).tolist() == [7]
    assert onnx.numpy_helper.to_array(written[1]).tolist() == [2, 2, 2]
    assert content(loaded.proto) == content(model)  # onnx_ir renames through to the protobuf tensor


def test_tensors_shared_with_another_model_do_not_change_the_original() -> None:
    model = chain("Relu")
    constant = helper.make_node("Constant", [], ["k"], value=onnx.numpy_helper.from_array(np.float32([1])))
    model.graph.node.append(constant)
    loaded = load(model)
    tensor = list(loaded.ir.graph)[-1].attributes["value"].as_tensor()
    ir.serde.serialize_graph(
        ir.Graph([], [], nodes=[], initializers=[ir.Value(name="other", const_value=tensor)], name="cut")
    )
    assert tensor.name == "other"
    assert not is_edited(loaded)
    assert content(to_proto(loaded)) == content(model)


def test_names_are_not_invented() -> None:
    model = chain("Relu", "Abs")
    for node in model.graph.node:
        node.ClearField("name")
    loaded = load(model)
    assert [original_name(node) for node in loaded.ir.graph] == ["", ""]
    replace(loaded.ir.graph, "Abs", "Neg")
    assert [node.name for node in to_proto(loaded).graph.node] == ["", "new_Neg"]


def test_opsets_version_and_functions_follow_the_ir() -> None:
    model = rich()
    loaded = load(model)
    loaded.ir.opset_imports[""] = 21
    loaded.ir.opset_imports["made.here"] = 1
    loaded.ir.ir_version = 12
    body = ir.Graph([ir.Value(name="a")], [], nodes=[], opset_imports={"": 21}, name="f")
    node = ir.Node("", "Abs", [body.inputs[0]], name="abs")
    node.outputs[0].name = "b"
    body.append(node)
    body.outputs.append(node.outputs[0])
    function = ir.Function("made.here", "F", graph=body, attributes=[])
    loaded.ir.functions[function.identifier()] = function
    written = to_proto(loaded)
    assert written.ir_version == 12
    assert [(entry.domain, entry.version) for entry in written.opset_import] == [
        ("", 21), ("custom", 3), ("local", 1), ("made.here", 1),
    ]  # fmt: skip
    assert content(written.functions[0]) == content(model.functions[0])  # type: ignore[arg-type]
    nodes, opsets = [helper.make_node("Abs", ["a"], ["b"], name="abs")], [helper.make_opsetid("", 21)]
    assert written.functions[1] == helper.make_function("made.here", "F", ["a"], ["b"], nodes, opsets)
    del loaded.ir.functions[("local", "Fn", "")]
    assert [function.name for function in to_proto(loaded).functions] == ["F"]


def test_ai_onnx_is_the_default_domain_and_stays_spelled_as_it_was() -> None:
    model = chain("Relu", "Abs")
    model.opset_import[0].domain = "ai.onnx"
    model.graph.node[0].domain = "ai.onnx"
    loaded = load(model)
    assert loaded.ir.opset_imports == {"": 17}
    assert content(rebuilt(loaded)) == content(model)
    loaded.ir.opset_imports[""] = 18
    model.opset_import[0].version = 18
    assert content(to_proto(loaded)) == content(model)


def test_sparse_initializers_are_values_without_data() -> None:
    loaded = load(with_sparse())
    value = loaded.ir.graph.initializers["sparse"]
    assert value.const_value is None
    assert value.shape == ir.Shape([2, 3])
    assert not value.is_graph_input()
    assert [value.name for value in loaded.ir.graph.inputs] == ["x", "cond"]
    add, branch = list(loaded.ir.graph)[:2]
    assert add.inputs[1] is value
    assert next(iter(branch.attributes["then_branch"].as_graph())).inputs[0] is value
    replace(loaded.ir.graph, "Abs", "Neg")
    assert content(to_proto(loaded).graph.sparse_initializer[0]) == content(with_sparse().graph.sparse_initializer[0])  # type: ignore[arg-type]


def test_sparse_initializers_in_bodies_are_found() -> None:
    model = with_body()
    branch = then_of(model)
    branch.sparse_initializer.append(builders.sparse_tensor("hidden"))
    branch.node[0].input[0] = "hidden"
    loaded = load(model)
    assert content(rebuilt(loaded)) == content(model)
    body = next(iter(loaded.ir.graph)).attributes["then_branch"].as_graph()
    assert body.initializers["hidden"].const_value is None
    replace(loaded.ir.graph, "Abs", "Neg")
    model.graph.node[1].CopyFrom(helper.make_node("Neg", ["branched"], ["y"], name="new_Neg"))
    assert content(to_proto(loaded)) == content(model)


def test_a_sparse_initializer_in_use_cannot_be_removed() -> None:
    loaded = load(with_sparse())
    del loaded.ir.graph.initializers["sparse"]
    with pytest.raises(ModelError, match="'sparse'"):
        to_proto(loaded)


@pytest.mark.parametrize("name", ["w", "v0"])
def test_what_training_info_needs_cannot_be_removed(name: str) -> None:
    loaded = load(with_training())
    graph = loaded.ir.graph
    if name == "w":
        graph.initializers["w"].name = "elsewhere"
    else:
        next(iter(graph)).outputs[0].name = "elsewhere"
    with pytest.raises(ModelError, match=f"'{name}'.*training_info"):
        to_proto(loaded)


def test_training_info_is_carried_past_an_edit() -> None:
    loaded = load(with_training())
    replace(loaded.ir.graph, "Abs", "Neg")
    assert to_proto(loaded).training_info == with_training().training_info


def test_a_quantization_annotation_keeps_its_scale() -> None:
    loaded = load(rich())
    loaded.ir.graph.initializers["w0"].name = "other"
    with pytest.raises(ModelError, match=r"'w0'.*SCALE_TENSOR"):
        to_proto(loaded)


def test_names_that_edits_must_keep() -> None:
    assert load(rich()).kept_names == {"w0"}
    assert load(with_training()).kept_names == {"w", "w_new", "v0"}
    assert not load(chain("Relu")).kept_names


def test_reloading_forgets_the_edits(tmp_path: Path) -> None:
    path = builders.external_model(tmp_path)
    loaded = load(path)
    replace(loaded.ir.graph, "Relu", "Neg")
    loaded.ir.graph.initializers["w0"].name = "renamed"
    again = reload(loaded)
    assert (again.path, again.sha256, again.base_dir) == (loaded.path, loaded.sha256, loaded.base_dir)
    assert not is_edited(again)
    assert is_edited(loaded)
    assert content(to_proto(again)) == path.read_bytes()
    weights = again.ir.graph.initializers["w1"].const_value
    assert weights is not None
    assert weights.numpy().tobytes() == builders.weights_of(path)["w1"]
    replace(again.ir.graph, "Relu", "Abs")
    assert [node.op_type for node in to_proto(loaded).graph.node][-1] == "Neg"
    assert [node.op_type for node in to_proto(again).graph.node][-1] == "Abs"


def test_another_ir_model_is_written_as_it_is() -> None:
    loaded = load(chain("Relu", "Abs"))
    loaded.ir = ir.from_proto(chain("Neg"))
    written = to_proto(loaded)
    assert [node.op_type for node in written.graph.node] == ["Neg"]
    onnx.checker.check_model(written, full_check=True)


def test_unsorted_models_stay_unsorted_until_they_are_edited() -> None:
    model = chain("Relu", "Abs", "Neg")
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    loaded = load(model)
    assert not loaded.was_sorted
    assert [node.op_type for node in loaded.ir.graph] == ["Relu", "Abs", "Neg"]
    assert content(to_proto(loaded)) == content(rebuilt(loaded)) == content(model)
    replace(loaded.ir.graph, "Abs", "Sqrt")
    written = to_proto(loaded)
    assert [node.op_type for node in written.graph.node] == ["Relu", "Sqrt", "Neg"]
    onnx.checker.check_model(written, full_check=True)


def test_nodes_inserted_out_of_order_are_sorted() -> None:
    loaded = load(chain("Relu", "Abs"))
    relu, absolute = loaded.ir.graph
    new = ir.Node("", "Neg", [relu.outputs[0]], name="new")
    new.outputs[0].name = "n"
    loaded.ir.graph.append(new)
    absolute.replace_input_with(0, new.outputs[0])
    written = to_proto(loaded)
    assert [node.op_type for node in written.graph.node] == ["Relu", "Neg", "Abs"]


def test_a_value_whose_producer_is_gone_is_refused() -> None:
    loaded = load(chain("Relu", "Abs"))
    loaded.ir.graph.remove(next(iter(loaded.ir.graph)))
    with pytest.raises(ModelError, match=r"node 'n1' \(Abs\) reads 'v0', whose producer"):
        to_proto(loaded)


def test_a_name_given_twice_is_refused() -> None:
    loaded = load(chain("Relu", "Abs"))
    next(iter(loaded.ir.graph)).outputs[0].name = "x"
    with pytest.raises(ModelError, match="the name 'x' twice"):
        to_proto(loaded)


def test_a_new_body_is_written_with_what_it_knows() -> None:
    loaded = load(with_body())
    graph = loaded.ir.graph
    old = next(iter(graph))
    clones = {name: attr.as_graph().clone(allow_outer_scope_values=True) for name, attr in old.attributes.items()}
    new = ir.Node("", "If", old.inputs, [ir.AttrGraph(name, body) for name, body in clones.items()], name="new")
    new.outputs[0].name, new.outputs[0].type, new.outputs[0].shape = "branched", *_type(old.outputs[0])
    graph.insert_before(old, new)
    old.outputs[0].replace_all_uses_with(new.outputs[0])
    graph.remove(old, safe=True)
    written = to_proto(loaded)
    onnx.checker.check_model(written, full_check=True)
    then = then_of(written)
    assert [entry.name for entry in then.value_info] == ["inner"]
    assert then.initializer[0] == then_of(with_body()).initializer[0]


def test_the_same_edit_gives_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for name in ("a.onnx", "b.onnx"):
        loaded = load(rich())
        replace(loaded.ir.graph, "Abs", "Neg")
        written.append(save(loaded, tmp_path / name).read_bytes())
    assert written[0] == written[1]


def test_count_nodes_looks_into_bodies_and_functions() -> None:
    model = rich()
    model.graph.node.append(helper.make_node("Constant", [], ["k"], value_float=1.0))
    assert count_nodes(load(with_body()).ir) == 6
    assert count_nodes(load(model).ir) == len(model.graph.node) - 1 + 4 + 2 + 2


def _type(value: ir.Value) -> tuple[ir.TypeProtocol | None, ir.Shape | None]:
    return value.type, value.shape
