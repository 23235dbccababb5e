"""Functions on a gs.Graph as passes: what they may do, what is undone, and that nothing else changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import onnx_rewrite as rw
from onnx_rewrite.registry import registry

gs = pytest.importorskip("onnx_graphsurgeon")

MODELS = Path(__file__).parents[2] / "models"
EXPORTED = MODELS / "exported"
HYBRID = EXPORTED / "hybrid_legacy_op12_keep_bn.onnx"


@pytest.fixture(autouse=True)
def own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test declares its functions anew."""
    monkeypatch.setattr(registry, "_declared", dict(registry._declared))


def declared(function: Callable[..., Any]) -> Callable[..., Any]:
    return rw.graphsurgeon_pass(function.__name__.replace("_", "-"))(function)


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


# -- functions as people write them -----------------------------------------------------------------------------------


@gs.Graph.register()
def replace_with_clip(self: Any, inputs: list[Any], outputs: list[Any]) -> Any:
    # From NVIDIA's example 08: disconnect the subgraph, then insert the layer in its place.
    for tensor in inputs:
        tensor.outputs.clear()
    for tensor in outputs:
        tensor.inputs.clear()
    return self.layer(op="Clip", inputs=inputs, outputs=outputs)


@gs.Graph.register(opsets=[12, 17])
def min_max_clip(self: Any, x: Any, low: Any, high: Any, out: Any) -> Any:
    out.inputs.clear()
    return self.layer(op="Clip", name=f"{out.name}_clip", inputs=[x, low, high], outputs=[out])


@gs.Graph.register()
def shift(self: Any, x: Any, by: Any, name: str) -> Any:
    return self.layer(op="Add", name=name, inputs=[x, by], outputs=[f"{name}_out"])[0]


def min_max(graph: Any) -> None:
    """Replaces Max(Min(x, high), low) by Clip."""
    for node in [n for n in graph.nodes if n.op == "Min" and len(n.outputs[0].outputs) == 1]:
        last = node.o()
        if last.op == "Max":
            graph.min_max_clip(node.inputs[0], last.inputs[1], node.inputs[1], last.outputs[0])
    graph.cleanup().toposort()


def remove_identity(graph: Any) -> Any:
    """Removes Identity and Dropout, as NVIDIA's example 06 does, and returns the graph."""
    for node in [n for n in graph.nodes if n.op in ("Identity", "Dropout")]:
        source = node.inputs[0]
        if not source.inputs or len(source.outputs) != 1:
            continue
        before = source.inputs[0]
        before.outputs = list(node.outputs)[:1]
        node.outputs.clear()
    return graph.cleanup().toposort()


def fold_scale(graph: Any) -> None:
    """Folds the weight of a Mul by a constant into the Conv before it."""
    for node in [n for n in graph.nodes if n.op == "Mul" and isinstance(n.inputs[1], gs.Constant)]:
        if not node.inputs[0].inputs or node.i().op != "Conv":
            continue
        conv, scale = node.i(), node.inputs[1].values.reshape(-1, 1, 1, 1)
        for index in range(1, len(conv.inputs)):
            old = conv.inputs[index]
            factor = scale if index == 1 else scale.reshape(-1)
            conv.inputs[index] = gs.Constant(f"{old.name}_scaled", old.values * factor)
        conv.outputs = node.outputs
        node.outputs.clear()
    graph.cleanup()


def insert_and_undo(graph: Any) -> None:
    """Inserts two layers behind the first Conv that cancel each other."""
    conv = next(n for n in graph.nodes if n.op == "Conv")
    out = conv.outputs[0]
    readers = list(out.outputs)
    shifted = graph.shift(out, np.float32(2).reshape(1), "up")
    back = graph.shift(shifted, np.float32(-2).reshape(1), "down")
    for reader in readers:
        reader.inputs[reader.inputs.index(out)] = back
    graph.toposort()


def modify_attribute(graph: Any) -> None:
    """Writes Softmax's axis as a positive number."""
    for node in graph.nodes:
        if node.op == "Softmax" and node.attrs.get("axis") == -1:
            node.attrs["axis"] = len(node.inputs[0].shape) - 1


SCALED = """<ir_version: 8, opset_import: ["": 13]> g (float[1, 2, 4, 4] x) => (float[1, 3, 4, 4] y)
    <float[3, 2, 1, 1] w = {1, 2, 3, 4, 5, 6}, float[3] b = {1, 2, 3}, float[1, 3, 1, 1] s = {2, 3, 4}> {
    c = Conv (x, w, b)
    m = Mul (c, s)
    r = Relu (m)
    y = Identity (r)
}"""


def sites(result: Any) -> list[tuple[str, str, str]]:
    return [(site.id, site.status, site.verification.verdict) for site in result.sites]


@pytest.mark.parametrize(
    ("source", "function", "gone", "new"),
    [
        (HYBRID, min_max, ("Min", "Max"), "Clip"),
        (EXPORTED / "minmax_legacy_op12.onnx", min_max, ("Min", "Max"), "Clip"),
        (SCALED, remove_identity, ("Identity",), None),
        (SCALED, fold_scale, ("Mul",), None),
        (HYBRID, insert_and_undo, (), "Add"),
        (EXPORTED / "vit_legacy_op17.onnx", modify_attribute, (), None),
    ],
)
def test_functions_as_people_write_them(source: Any, function: Any, gone: tuple[str, ...], new: str | None) -> None:
    model = onnx.parser.parse_model(source) if isinstance(source, str) else onnx.load(source)
    result = rw.rewrite(model, declared(function))
    name = function.__name__.replace("_", "-")
    assert sites(result) == [(f"{name}[0]", "applied", "equivalent")]
    assert result.report.verification.verdict == "equivalent"
    after = result.to_proto()
    onnx.checker.check_model(after, full_check=True)
    before_kinds, after_kinds = kinds(model), kinds(after)
    for kind in gone:
        assert after_kinds[kind] < before_kinds[kind]
    if new is not None:
        assert after_kinds[new] > before_kinds[new]
    assert after.graph.input == model.graph.input
    assert after.graph.output == model.graph.output
    report = result.report.passes[0]
    assert (report.name, report.applied, report.sites[0].verification.verdict) == (name, 1, "equivalent")
    assert report.sites[0].nodes
    # Graphsurgeon reorders a whole graph: of what stays, the order stays.
    order = [node.output[0] for node in model.graph.node]
    stayed = [node.output[0] for node in after.graph.node if node.output[0] in order]
    assert stayed == sorted(stayed, key=order.index)


def test_the_second_run_of_a_function_that_finds_nothing_more_changes_nothing() -> None:
    passes = declared(min_max)
    once = rw.rewrite(HYBRID, passes)
    again = rw.rewrite(once.to_proto(), passes)
    assert [s.nodes for s in again.sites] == []
    assert again.to_proto() == once.to_proto()


def test_new_nodes_record_the_pass_and_what_they_replace() -> None:
    result = rw.rewrite(HYBRID, declared(min_max))
    notes = {
        n.name: {p.key: p.value for p in n.metadata_props} for n in result.to_proto().graph.node if n.op_type == "Clip"
    }
    assert {frozenset(props["onnx_rewrite.sources"].split(", ")) for props in notes.values()} == {
        frozenset({"/Min", "/Max"}),
        frozenset({"/Min_1", "/Max_1"}),
    }
    assert {props["onnx_rewrite.pass"] for props in notes.values()} == {"min-max"}
    shown = rw.diff(HYBRID, result.to_proto()).replacements
    assert [r.pass_name for r in shown] == ["min-max", "min-max"]


# -- what is undone ---------------------------------------------------------------------------------------------------


def lying(graph: Any) -> None:
    """Replaces, and gets a bound wrong."""
    min_max(graph)
    clip = next(n for n in graph.nodes if n.op == "Clip")
    clip.inputs[2] = gs.Constant("wrong_bound", np.array(0.25, np.float32))
    graph.cleanup()


def lying_weights(graph: Any) -> None:
    """Changes a weight in place."""
    next(n for n in graph.nodes if n.op == "Conv").inputs[1].values *= 1.01


def raising(graph: Any) -> None:
    """Raises halfway, after it broke the graph."""
    graph.nodes[3].outputs.clear()
    graph.nodes[2].name = "broken"
    raise ZeroDivisionError("halfway")


def exiting(graph: Any) -> None:
    """Clears the inputs of all nodes, and does not clean up."""
    for node in graph.nodes:
        node.inputs.clear()


def forgetful(graph: Any) -> None:
    """Cuts a value that is still read."""
    next(n for n in graph.nodes if n.op == "Conv").outputs.clear()
    graph.cleanup()


def invalid(graph: Any) -> None:
    """Writes an operator that there is not."""
    next(n for n in graph.nodes if n.op == "Conv").op = "Convolution"


def cutting(graph: Any) -> None:
    """Makes an inner value the output."""
    graph.outputs = [next(n for n in graph.nodes if n.op == "Conv").outputs[0]]
    graph.outputs[0].dtype = np.float32
    graph.cleanup()


def retyping(graph: Any) -> None:
    """Makes the batch symbolic."""
    graph.inputs[0].shape = ["N", *graph.inputs[0].shape[1:]]


def a_list(graph: Any) -> Any:
    """Returns no graph."""
    return graph.nodes


def circular(graph: Any) -> None:
    """Makes a node read what it gives."""
    conv = next(n for n in graph.nodes if n.op == "Conv")
    conv.inputs[0] = conv.outputs[0]


@pytest.mark.parametrize(
    ("function", "verdict", "reason"),
    [
        (lying, "different", "became"),
        (lying_weights, "different", "became"),
        (raising, "not verified", "the function raised ZeroDivisionError: halfway"),
        (exiting, "not verified", "valid ONNX"),
        (forgetful, "not verified", ""),
        (invalid, "not verified", "Convolution"),
        (cutting, "not verified", "changes the model's outputs: y became"),
        (retyping, "not verified", "type of the model's input 'x'"),
        (a_list, "not verified", "not a graph"),
        (circular, "not verified", "cycle"),
    ],
)
def test_what_is_wrong_is_rolled_back(function: Any, verdict: str, reason: str) -> None:
    result = rw.rewrite(HYBRID, [declared(function), "ln"], verify="full")
    site = result.sites[0]
    assert (site.status, site.verification.verdict) == ("rolled_back", verdict)
    assert reason in (site.reason or "")
    assert result.report.passes[0].rolled_back == 1
    # The model is as if the function had not been there.
    assert result.to_proto() == rw.rewrite(HYBRID, "ln").to_proto()
    with pytest.raises(rw.NotEquivalentError, match="rolled back"):
        rw.rewrite(HYBRID, function, strict=True)


def test_the_verdict_comes_from_the_judge() -> None:
    """Without it the lie would stay."""
    result = rw.rewrite(HYBRID, declared(lying), verify="off")
    assert sites(result) == [("lying[0]", "applied", "not verified")]
    assert "nothing was verified" in result.report.warnings[0]


def test_a_failure_is_saved(tmp_path: Path) -> None:
    (script,) = rw.rewrite(HYBRID, declared(lying)).save_failures(tmp_path)
    assert (script.parent / "before.onnx").is_file()


# -- nothing else changes ---------------------------------------------------------------------------------------------


def copy(graph: Any) -> Any:
    """Returns a copy: other objects, the same graph."""
    return graph.copy()


def through_a_file(graph: Any) -> Any:
    """Writes the graph and reads it again."""
    return gs.import_onnx(gs.export_onnx(graph))


def sort(graph: Any) -> Any:
    """Sorts, which graphsurgeon does by depth."""
    return graph.toposort()


def look(graph: Any) -> None:
    """Loads all weights, and changes none."""
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Constant):
            assert tensor.values.size


def samples() -> Iterator[Path]:
    yield from sorted(MODELS.glob("handmade/*.onnx"))
    for name in ("hybrid_legacy_op12_keep_bn", "t5_dynamo_op18_sdpa", "swin_legacy_op12", "gpt2_legacy_op12"):
        yield EXPORTED / f"{name}.onnx"


@pytest.mark.parametrize("path", list(samples()), ids=lambda path: path.stem)
def test_a_function_that_changes_nothing_gives_no_site(path: Path) -> None:
    for function in (copy, through_a_file, sort, look):
        result = rw.rewrite(path, declared(function), verify="off")
        assert result.sites == [], function.__name__
        assert not result.changed
        assert result.to_proto() == onnx.load(path)


FULL = """<ir_version: 10, opset_import: ["": 18, "custom": 3, "unused": 7], producer_name: "p", producer_version: "1",
          domain: "d", model_version: 4, doc_string: "model", metadata_props: ["m": "1"]>
g (float[N, 4] x, bool flag) => (float[N, 4] y, float[N, 4] z)
<float[4] w = {1, 2, 3, 4}, float scale = {0.5}, float unused = {7}, float[N, 4] a, float[N, 4] e> {
    [first] a = custom.Twice (x)
    [min] i = Min (a, w)
    [max] e = Max (i, scale)
    [branch] y = If (flag) <then_branch = then () => (t) { [deep] t = Relu (e) },
                            else_branch = other () => (f) { [deeper] f = Identity (e) }>
    [last] z = Neg (a)
}
<domain: "custom", opset_import: ["": 18], doc_string: "function">
Twice (v) => (u) { [sum] u = Add (v, v) }
"""


def full_model() -> onnx.ModelProto:
    """A model with everything that graphsurgeon forgets."""
    model = onnx.parser.parse_model(FULL)
    graph = model.graph
    graph.doc_string = "graph"
    graph.metadata_props.add(key="g", value="2")
    for node in (*graph.node, *model.functions[0].node, *(n for a in graph.node[3].attribute for n in a.g.node)):
        node.doc_string = f"doc of {node.name}"
        node.metadata_props.add(key="of", value=node.name)
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.doc_string = f"doc of {value.name}"
        value.metadata_props.add(key="of", value=value.name)
    model.functions[0].metadata_props.add(key="f", value="3")
    annotation = graph.quantization_annotation.add(tensor_name="e")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="scale")
    graph.input[0].type.denotation = "IMAGE"
    graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    onnx.checker.check_model(model, full_check=True)
    return model


def test_what_graphsurgeon_forgets_is_kept() -> None:
    model = full_model()
    assert model.graph.quantization_annotation
    forgotten = gs.export_onnx(gs.import_onnx(model))
    assert not forgotten.metadata_props
    assert not forgotten.graph.quantization_annotation

    def swap(graph: Any) -> None:
        low, last = next(n for n in graph.nodes if n.op == "Min"), next(n for n in graph.nodes if n.op == "Max")
        out = last.outputs[0]
        out.inputs.clear()
        graph.layer(op="Max", name="new", inputs=[low.outputs[0], last.inputs[1]], outputs=[out])
        graph.cleanup()  # toposort() of graphsurgeon 0.6.1 recurses for ever where there are functions and bodies

    result = rw.rewrite(model, declared(swap))
    after = result.to_proto()
    assert sites(result) == [("swap[0]", "applied", "equivalent")], result.sites[0].reason
    expected = onnx.ModelProto()
    expected.CopyFrom(model)
    new = expected.graph.node[2]
    assert new.name == "max"
    # Everything but the new node is as it was, field by field; what it replaced left it its notes.
    new.name = "new"
    del new.metadata_props[:]
    for key, value in (("of", "max"), ("onnx_rewrite.pass", "swap"), ("onnx_rewrite.sources", "max")):
        new.metadata_props.add(key=key, value=value)
    found = after.graph.node[2]
    found.metadata_props.sort(key=lambda p: p.key)
    assert after == expected


def test_bodies_and_functions_are_edited_in_place() -> None:
    model = full_model()

    def absolute(graph: Any) -> None:
        then = next(n for n in graph.nodes if n.op == "If").attrs["then_branch"]
        relu = then.nodes[0]
        out = relu.outputs[0]
        relu.outputs.clear()
        inner = gs.Variable("inner")
        then.nodes.append(gs.Node("Relu", "again", inputs=[inner], outputs=[out]))
        relu.outputs.append(inner)
        add = graph.functions[0].nodes[0]
        out = add.outputs[0]
        doubled = gs.Variable("doubled")
        add.outputs = [doubled]
        graph.functions[0].nodes.append(gs.Node("Identity", "same", inputs=[doubled], outputs=[out]))

    result = rw.rewrite(model, declared(absolute))
    assert sites(result) == [("absolute[0]", "applied", "equivalent")]
    after = result.to_proto()
    assert [n.op_type for n in after.graph.node[3].attribute[0].g.node] == ["Relu", "Relu"]
    assert [n.op_type for n in after.functions[0].node] == ["Add", "Identity"]
    assert after.functions[0].metadata_props == model.functions[0].metadata_props
    assert after.graph.node[3].attribute[1] == model.graph.node[3].attribute[1]


def test_a_new_node_with_bodies() -> None:
    model = full_model()

    def branch(graph: Any) -> None:
        last = next(n for n in graph.nodes if n.name == "last")
        source, out = last.inputs[0], last.outputs[0]
        last.outputs.clear()
        bodies = {}
        for name in ("then_branch", "else_branch"):
            result = gs.Variable(f"{name}_result", dtype=np.float32)
            node = gs.Node("Neg", f"{name}_neg", inputs=[source], outputs=[result])
            bodies[name] = gs.Graph(nodes=[node], outputs=[result], name=name)
        graph.nodes.append(gs.Node("If", "chosen", attrs=bodies, inputs=[graph.inputs[1]], outputs=[out]))
        graph.nodes.remove(last)

    result = rw.rewrite(model, declared(branch))
    assert sites(result) == [("branch[0]", "applied", "equivalent")], result.sites[0].reason
    assert kinds(result.to_proto())["If"] == 2


def test_a_new_node_takes_over_the_notes_and_the_place_of_what_it_replaces() -> None:
    model = full_model()

    def clip(graph: Any) -> None:
        low, last = next(n for n in graph.nodes if n.op == "Min"), next(n for n in graph.nodes if n.op == "Max")
        out = last.outputs[0]
        out.inputs.clear()
        doubled = graph.layer(op="Min", name="new", inputs=[low.inputs[0], low.inputs[1]], outputs=["low"])[0]
        graph.layer(op="Clip", name="clip", inputs=[doubled, last.inputs[1]], outputs=[out])
        graph.cleanup()

    result = rw.rewrite(model, rw.graphsurgeon_pass("to-clip")(clip))
    assert sites(result) == [("to-clip[0]", "applied", "equivalent")], result.sites[0].reason
    nodes = result.to_proto().graph.node
    assert [n.name for n in nodes] == ["first", "new", "clip", "branch", "last"]
    for node in nodes[1:3]:
        assert {p.key: p.value for p in node.metadata_props} == {
            "of": "min; max", "onnx_rewrite.pass": "to-clip", "onnx_rewrite.sources": "min, max",
        }  # fmt: skip
    (value,) = [v for v in result.to_proto().graph.value_info if v.name == "e"]
    assert value == next(v for v in model.graph.value_info if v.name == "e")


def test_a_body_is_inlined() -> None:
    """Nodes move from a body to the main graph; both branches are the same for what flows in here."""
    model = full_model()

    def inline(graph: Any) -> None:
        branch = next(n for n in graph.nodes if n.op == "If")
        body, out = branch.attrs["then_branch"], branch.outputs[0]
        branch.outputs.clear()
        body.nodes[-1].outputs = [out]
        graph.nodes.extend(body.nodes)
        graph.nodes.remove(branch)

    result = rw.rewrite(model, declared(inline))
    assert sites(result) == [("inline[0]", "applied", "equivalent")], result.sites[0].reason
    assert [n.name for n in result.to_proto().graph.node] == ["first", "min", "max", "last", "deep"]


def rename(graph: Any) -> None:
    """Gives other names to values and weights."""
    for name, tensor in graph.tensors().items():
        if not any(tensor is other for other in (*graph.inputs, *graph.outputs)):
            tensor.name = f"new_{name}"


def one_name_twice(graph: Any) -> None:
    """Inserts nodes and values that have one name."""
    for conv in [n for n in graph.nodes if n.op == "Conv"]:
        out = conv.outputs[0]
        conv.outputs = [gs.Variable("same", dtype=out.dtype, shape=out.shape)]
        graph.nodes.append(gs.Node("Identity", "same", inputs=[conv.outputs[0]], outputs=[out]))


def exchange_operands(graph: Any) -> None:
    """Exchanges the operands of sums."""
    for node in graph.nodes:
        if node.op == "Add":
            node.inputs = list(reversed(node.inputs))


def local_function(graph: Any) -> None:
    """Adds a function to the model and calls it."""
    x, y = gs.Variable("fx"), gs.Variable("fy")
    body = [gs.Node("Identity", inputs=[x], outputs=[y])]
    graph.functions.append(gs.Function("Same", domain="mine", nodes=body, inputs=[x], outputs=[y], opset=graph.opset))
    out = graph.outputs[0]
    before = gs.Variable("before", dtype=out.dtype, shape=out.shape)
    out.inputs[0].outputs = [before]
    graph.nodes.append(gs.Node("Same", "call", domain="mine", inputs=[before], outputs=[out]))


@pytest.mark.parametrize("function", [rename, one_name_twice, exchange_operands, local_function])
def test_other_edits(function: Any) -> None:
    result = rw.rewrite(HYBRID, [declared(function), "ln", "bn"])
    assert sites(result)[0][1:] == ("applied", "equivalent"), result.sites[0].reason
    assert result.report.verification.verdict == "equivalent"
    onnx.checker.check_model(result.to_proto(), full_check=True)


def test_a_custom_op_is_kept_and_called_not_verified() -> None:
    def plugin(graph: Any) -> None:
        conv = next(n for n in graph.nodes if n.op == "Conv")
        conv.op, conv.domain = "MyConv", "my.ops"

    result = rw.rewrite(HYBRID, declared(plugin))
    assert sites(result) == [("plugin[0]", "applied", "not verified")]
    assert result.report.output.opset == {"": 12, "my.ops": 1}
    assert result.report.warnings
    (node,) = [n for n in result.to_proto().graph.node if n.op_type == "MyConv"]
    assert {p.key: p.value for p in node.metadata_props} == {
        "onnx_rewrite.pass": "plugin", "onnx_rewrite.sources": "/stem/Conv",
    }  # fmt: skip


# -- beside other passes ----------------------------------------------------------------------------------------------


def test_functions_and_patterns_run_in_the_order_given() -> None:
    seen: list[Counter[str]] = []

    def first(graph: Any) -> None:
        seen.append(Counter(node.op for node in graph.nodes))

    def second(graph: Any) -> None:
        seen.append(Counter(node.op for node in graph.nodes))
        min_max(graph)

    result = rw.rewrite(HYBRID, [declared(first), "ln", declared(second), "clip", "bn"])
    assert [report.name for report in result.report.passes] == ["first", "ln", "second", "clip", "bn"]
    assert [report.applied for report in result.report.passes] == [0, 3, 1, 0, 2]
    assert (seen[0]["LayerNormalization"], seen[1]["LayerNormalization"]) == (0, 3)
    assert result.report.verification.verdict == "equivalent"
    names = [site.pass_name for site in sorted(result.sites, key=lambda site: site.number)]
    assert names == ["ln", "ln", "ln", "second", "bn", "bn"]


def test_options_and_names() -> None:
    def drop(graph: Any, *, operator: str = "Identity", times: int = 1) -> None:
        for node in [n for n in graph.nodes if n.op == operator][:times]:
            node.i().outputs = list(node.outputs)
            node.outputs.clear()
        graph.cleanup()

    declared(drop)
    model = onnx.parser.parse_model(SCALED)
    assert not rw.rewrite(model, "drop:times=0").changed
    assert rw.rewrite(model, "drop:operator=Identity").changed
    assert rw.rewrite(model, "drop:operator=Relu").sites[0].verification.verdict == "different"
    described = rw.passes.describe("drop")
    assert [(o.name, o.type, o.default) for o in described.options] == [
        ("operator", "text", "Identity"),
        ("times", "an integer", "1"),
    ]
    with pytest.raises(rw.UsageError, match="an integer, not 'many'"):
        rw.rewrite(model, "drop:times=many")


def test_only_skip_and_opset_hold_for_functions_too() -> None:
    passes = declared(min_max)
    assert not rw.rewrite(HYBRID, passes, skip="min-max[0]").changed
    assert rw.rewrite(HYBRID, passes, only="min-max[0]").changed

    def raise_opset(graph: Any) -> None:
        graph.opset = 13

    declared(raise_opset)
    kept = rw.rewrite(EXPORTED / "minmax_legacy_op12.onnx", "raise-opset", opset="keep")
    assert kept.sites[0].status == "refused"
    raised = rw.rewrite(EXPORTED / "minmax_legacy_op12.onnx", "raise-opset")
    assert raised.report.output.opset == {"": 13}


def test_a_wrong_whole_takes_the_function_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the function's own verdict lets through, the whole model shows, and its edit is found."""
    from onnx_rewrite.pipeline import graphsurgeon
    from onnx_rewrite.verdict import Verification

    monkeypatch.setattr(graphsurgeon, "judge_models", lambda *_, **__: Verification("equivalent"))
    result = rw.rewrite(HYBRID, ["ln", declared(lying), "bn"])
    status = {site.id: site.status for site in result.sites}
    assert status["lying[0]"] == "rolled_back"
    assert set(status.values()) == {"applied", "rolled_back"}
    assert list(status.values()).count("rolled_back") == 1
    assert result.report.verification.verdict == "equivalent"


# -- graphs as models -------------------------------------------------------------------------------------------------


def test_a_pattern_pass_is_applied_to_a_graph() -> None:
    graph = gs.import_onnx(onnx.load(HYBRID))
    before = len(graph.nodes)
    result = rw.rewrite(graph, "ln,clip")
    assert [report.applied for report in result.report.passes] == [3, 2]
    assert len(graph.nodes) == before  # the given one is not changed
    rewritten = result.to_graphsurgeon()
    assert Counter(node.op for node in rewritten.nodes)["LayerNormalization"] == 3
    assert rw.check(HYBRID, gs.export_onnx(rewritten)).verdict == "equivalent"


def test_a_graph_that_is_no_model_is_a_models_error() -> None:
    graph = gs.import_onnx(onnx.load(HYBRID))
    graph.outputs[0].dtype = None
    with pytest.raises(rw.ModelError, match=r"gs\.Graph cannot be written"):
        rw.rewrite(graph, "ln")


def test_inspect_counts_a_function_and_explain_says_that_it_has_no_pattern() -> None:
    declared(min_max)
    assert rw.inspect(HYBRID, "min-max").sites == {"min-max": {"applied": 1, "refused": 0}}
    with pytest.raises(rw.UsageError, match="is a function"):
        rw.explain(HYBRID, "min-max")


def test_external_data_reaches_the_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.parser.parse_model(SCALED)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = rw.rewrite(tmp_path / "m.onnx", declared(fold_scale))
    assert sites(result) == [("fold-scale[0]", "applied", "equivalent")]
    result.save(tmp_path / "out.onnx")
    assert rw.check(tmp_path / "m.onnx", tmp_path / "out.onnx").verdict == "equivalent"


def test_without_graphsurgeon_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    declared(min_max)
    monkeypatch.setitem(__import__("sys").modules, "onnx_graphsurgeon", None)
    with pytest.raises(rw.UsageError) as caught:
        rw.rewrite(HYBRID, "min-max")
    assert "onnx-rewrite[graphsurgeon]" in (caught.value.hint or "")
