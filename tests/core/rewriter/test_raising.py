"""Raising a model's opset: all or nothing, judged, and nothing lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.analysis.types import complete_types
from onnx_rewrite.model import LoadedModel, load, to_proto
from onnx_rewrite.opset import changes
from onnx_rewrite.opset.adapters import ADAPTERS
from onnx_rewrite.rewriter.names import Names, all_graphs
from onnx_rewrite.rewriter.raising import CannotRaise, Raised, raise_opset
from onnx_rewrite.verdict import Verification
from onnx_rewrite.verify import LocalJudge

MODELS = Path(__file__).parents[2] / "models" / "exported"
NEWEST = 23 if ort.__version__ < "1.24" else 26
OLD = [
    "batchnorms_legacy_op9_keep_bn",
    "bert_legacy_op11",
    "bert_legacy_op12_dynamic",
    "gpt2_legacy_op12",
    "hybrid_legacy_op12_keep_bn",
    "hybrid_legacy_op17_keep_bn",
    "minmax_legacy_op10",
    "mobilenet_v2_legacy_op10_keep_bn",
    "swin_legacy_op12",
    "t5_legacy_op12",
]


def text(source: str) -> LoadedModel:
    return load(onnx.parser.parse_model(source))


def lift(loaded: LoadedModel, target: int, judge: Any = None, **options: Any) -> Raised:
    complete_types(loaded.ir)
    return raise_opset(loaded.ir, target, judge=judge, names=Names(loaded.ir), constants=Constants(), **options)


def draw(model: onnx.ModelProto) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    given = {i.name for i in model.graph.initializer}
    feeds: dict[str, Any] = {}
    for info in model.graph.input:
        if info.name in given:
            continue
        shape = [d.dim_value or 3 for d in info.type.tensor_type.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        drawn = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
        feeds[info.name] = drawn.astype(dtype)
    return feeds


def run(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(n.op_type for n in model.graph.node if n.op_type != "Constant")


def same_results(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    feeds = draw(before)
    for mine, theirs in zip(run(after, feeds), run(before, feeds), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OLD)
def test_exported_models_keep_their_results_and_their_nodes(name: str) -> None:
    before = onnx.load(MODELS / f"{name}.onnx")
    judge = LocalJudge()
    for target in (17, 18, 21, NEWEST):
        loaded = load(MODELS / f"{name}.onnx")
        if loaded.ir.opset_imports[""] >= target:
            continue
        old_nodes = {node.name: node for node in loaded.ir.graph}
        raised = lift(loaded, target, judge)
        after = to_proto(loaded)
        onnx.checker.check_model(after, full_check=True)
        assert after.opset_import[0].version == target
        assert raised.target == target
        # Nothing that is no constant was added, and what got no other form is the same object.
        assert operators(after) == operators(before)
        changed = {label for label, _ in raised.changed}
        for node in loaded.ir.graph:
            assert (old_nodes.get(node.name) is node) == (node.name not in changed)
        assert {v.verdict for _, v in raised.changed} <= {"equivalent"}
        same_results(before, after)


def test_a_model_without_value_info_is_raised_as_well() -> None:
    before = onnx.load(MODELS / "swin_legacy_op12.onnx")
    del before.graph.value_info[:]
    loaded = load(before)
    lift(loaded, 17, LocalJudge())
    after = to_proto(loaded)
    assert operators(after) == operators(before)
    assert not after.graph.value_info  # inferred types are not written


def test_the_same_target_changes_nothing_and_a_lower_one_is_refused() -> None:
    loaded = load(MODELS / "hybrid_legacy_op12_keep_bn.onnx")
    before = to_proto(loaded)
    assert lift(loaded, 12).changed == ()
    with pytest.raises(CannotRaise, match="opset 11 is lower"):
        lift(loaded, 11)
    with pytest.raises(CannotRaise, match="newer than the installed onnx"):
        lift(loaded, 99)
    assert to_proto(loaded) == before


def test_opsets_below_seven_are_refused() -> None:
    loaded = text('<ir_version: 4, opset_import: ["": 6]> g (float[2] x) => (float[2] y) { y = Relu(x) }')
    with pytest.raises(CannotRaise, match=r"opset 6: .* below 7"):
        lift(loaded, 17)


TWO_STEPS = """
<ir_version: 7, opset_import: ["": 12]>
g (float[2,3,4] x) => (float[2,3,4] y)
<float[2,1,3,4] wide>
{ wide = Unsqueeze <axes = [1]> (x)  flat = Squeeze <axes = [1]> (wide)  y = Softmax <axis = 1> (flat) }
"""


@pytest.mark.parametrize("verdict", ["different", "inconclusive", "not verified"])
def test_a_bad_verdict_leaves_the_model_as_it_was(verdict: Any) -> None:
    loaded = text(TWO_STEPS)
    before = to_proto(loaded)
    uses = {v.name: len(v.uses()) for n in loaded.ir.graph for v in n.inputs if v is not None}

    def judge(a: onnx.ModelProto, b: onnx.ModelProto) -> Verification:
        assert [o.version for o in a.opset_import] == [12]
        assert [o.version for o in b.opset_import] == [17]
        softmax = any(n.op_type == "Softmax" for n in a.graph.node)
        return Verification(verdict if softmax else "equivalent", reason="because")

    with pytest.raises(CannotRaise, match=f"Softmax 'y': its form at opset 17 is {verdict}: because") as error:
        lift(loaded, 17, judge)
    assert error.value.node is not None
    assert error.value.node.op_type == "Softmax"
    assert to_proto(loaded) == before
    assert {v.name: len(v.uses()) for n in loaded.ir.graph for v in n.inputs if v is not None} == uses
    if verdict == "inconclusive":
        assert len(lift(loaded, 17, judge, accept_inconclusive=True).changed) == 3


def test_a_wrong_form_is_refused_even_where_only_the_form_changes() -> None:
    loaded = text(TWO_STEPS)
    with pytest.raises(CannotRaise, match="Unsqueeze"):
        lift(loaded, 17, lambda _, __: Verification("different"))


def test_the_judge_sees_each_form_once() -> None:
    loaded = load(MODELS / "swin_legacy_op12.onnx")
    judged: list[bytes] = []

    def judge(a: onnx.ModelProto, b: onnx.ModelProto) -> Verification:
        judged.append(a.SerializeToString() + b.SerializeToString())
        return Verification("equivalent")

    raised = lift(loaded, 17, judge)
    assert len(raised.changed) > 100
    assert len(set(judged)) == len(judged) < 20


def test_data_that_is_never_finite_does_not_stand_in_the_way() -> None:
    loaded = text("""
<ir_version: 8, opset_import: ["": 11]>
g (float[1,2] x) => (float[1,2] y) <float[2] mask = {-inf, nan}> { a = Unsqueeze <axes = [0]> (mask)  y = Add(a, x) }
""")
    assert [v.verdict for _, v in lift(loaded, 17, LocalJudge()).changed] == ["equivalent"]


def test_what_belongs_to_a_node_and_its_value_is_carried_over() -> None:
    proto = onnx.parser.parse_model(TWO_STEPS)
    proto.graph.node[0].name = "widen"
    proto.graph.node[0].doc_string = "adds an axis"
    proto.graph.node[0].metadata_props.add(key="source", value="line 3")
    note = proto.graph.quantization_annotation.add(tensor_name="wide")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="s")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(2).reshape(()), "s"))
    loaded = load(proto)
    lift(loaded, 17)
    after = to_proto(loaded)
    node = next(n for n in after.graph.node if n.op_type == "Unsqueeze")
    assert (node.name, node.doc_string, list(node.output)) == ("widen", "adds an axis", ["wide"])
    metadata = {m.key: m.value for m in node.metadata_props}
    assert metadata["source"] == "line 3"
    assert metadata["onnx_rewrite.pass"] == "opset"
    assert after.graph.quantization_annotation == proto.graph.quantization_annotation
    assert after.graph.value_info == proto.graph.value_info


def test_equal_constants_are_shared_and_collide_with_no_name() -> None:
    loaded = text("""
<ir_version: 7, opset_import: ["": 12]>
g (float[2,3] x) => (float[2,1,3] a, float[2,1,3] b, float[2,1,3] a_opset_0)
{ a = Unsqueeze <axes = [1]> (x)  b = Unsqueeze <axes = [1]> (x)  a_opset_0 = Unsqueeze <axes = [1]> (x) }
""")
    lift(loaded, 13)
    after = to_proto(loaded)
    onnx.checker.check_model(after, full_check=True)
    assert len(after.graph.initializer) == 1
    assert {n.input[1] for n in after.graph.node} == {after.graph.initializer[0].name}
    assert [o.name for o in after.graph.output] == ["a", "b", "a_opset_0"]


BODIES = """
<ir_version: 7, opset_import: ["": 12]>
g (float[2,3] x, bool c, int64 n) => (float[2,3] y, float[2,3] z)
{
  y = If (c) <then_branch = t () => (float[2,3] a) { u = Unsqueeze <axes = [0]> (x)  a = Squeeze <axes = [0]> (u) },
              else_branch = e () => (float[2,3] b) { b = Softmax <axis = 0> (x) }>
  z = Loop (n, c, y) <body = l (int64 i, bool go, float[2,3] s) => (bool go2, float[2,3] s2)
    { go2 = Identity(go)  r = ReduceSum <axes = [1], keepdims = 1> (s)  s2 = Div(s, r) }>
}
"""


@pytest.mark.parametrize("target", [13, 17, 21])
def test_bodies_are_raised_and_judged(target: int) -> None:
    before = onnx.parser.parse_model(BODIES)
    loaded = load(before)
    raised = lift(loaded, target, LocalJudge())
    after = to_proto(loaded)
    onnx.checker.check_model(after, full_check=True)
    assert [(label, v.verdict) for label, v in raised.changed] == [
        ("u", "equivalent"), ("a", "equivalent"), ("b", "equivalent"), ("r", "equivalent"),
    ]  # fmt: skip
    x = np.random.default_rng(0).random((2, 3), np.float32)
    for c in (True, False):
        feeds = {"x": x, "c": np.asarray(c), "n": np.asarray(2)}
        for mine, theirs in zip(run(after, feeds), run(before, feeds), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-6)


FUNCTIONS = """
<ir_version: 9, opset_import: ["": 12, "my": 1]>
g (float[2,3] x) => (float[2,1,3] y, float[2,2] z)
{ y = my.Widen <lo = -0.5, dims = [1]> (x)  z = my.Top <axis = 1, count = 2> (x) }
<domain: "my", opset_import: ["": 9]> Top <axis, count> (v) => (w)
{ w, i = TopK <k: int = @count, axis: int = @axis> (v) }
<domain: "my", opset_import: ["": 10]> Widen <lo, dims> (a) => (b)
{ c = Clip <min: float = @lo, max = 0.25> (a)  b = Unsqueeze <axes: ints = @dims> (c) }
"""


def test_functions_are_raised_with_references_to_their_attributes() -> None:
    loaded = text(FUNCTIONS)
    lift(loaded, 17, LocalJudge())
    after = to_proto(loaded)
    onnx.checker.check_model(after, full_check=True)
    assert [{o.domain: o.version for o in f.opset_import} for f in after.functions] == [{"": 17}, {"": 17}]
    assert [sorted(f.attribute) for f in after.functions] == [["axis", "count"], ["dims", "lo"]]
    assert [n.op_type for n in after.functions[1].node if n.op_type != "Constant"] == ["Clip", "Unsqueeze"]
    x = np.asarray([[-1, 0, 1], [2, -3, 0.125]], np.float32)
    y, z = run(after, {"x": x})
    np.testing.assert_array_equal(y, np.clip(x, -0.5, 0.25)[:, None])
    np.testing.assert_array_equal(z, -np.sort(-x)[:, :2])


def test_a_function_that_is_called_with_two_dtypes_gets_bounds_of_either() -> None:
    loaded = text("""
<ir_version: 9, opset_import: ["": 17, "my": 1]>
g (float[2,3] x, double[2] v) => (float[2,3] y, double[2] w)
{ y = my.Limit <lo = -0.5> (x)  w = my.Limit <lo = -0.25> (v) }
<domain: "my", opset_import: ["": 10]> Limit <lo> (a) => (b) { b = Clip <min: float = @lo, max = 0.125> (a) }
""")
    raised = lift(loaded, 17, LocalJudge())
    assert [v.verdict for _, v in raised.changed] == ["not verified"]
    after = to_proto(loaded)
    onnx.checker.check_model(after, full_check=True)
    x = np.asarray([[-1, 0, 1], [2, -3, 0.125]], np.float32)
    y, w = run(after, {"x": x, "v": x[:, 0].astype(np.float64)})
    np.testing.assert_array_equal(y, np.clip(x, -0.5, 0.125))
    np.testing.assert_array_equal(w, np.clip(x[:, 0].astype(np.float64), -0.25, 0.125))


def test_a_change_of_meaning_that_cannot_be_judged_is_refused() -> None:
    loaded = text("""
<ir_version: 9, opset_import: ["": 12, "my": 1]>
g (float[2,3] x, float[2,3,4] v) => (float[2,3] y, float[2,3,4] w) { y = my.S (x)  w = my.S (v) }
<domain: "my", opset_import: ["": 12]> S (a) => (b) { b = Softmax <axis = 1> (a) }
""")
    before = to_proto(loaded)
    with pytest.raises(CannotRaise, match=r"Softmax 'b': .* not verified: the type of value 'a' is not known"):
        lift(loaded, 17, LocalJudge())
    assert to_proto(loaded) == before
    lift(loaded, 17)  # without a judge it is right nevertheless
    after = to_proto(loaded)
    onnx.checker.check_model(after)
    same_results(before, after)


X = "float[1,2,3] x, float[2] s) => (float[1,2,3] y)"
WITHOUT_EQUAL = {
    "training mode": (9, f"{X} {{ y, m, v, a, b = BatchNormalization (x, s, s, s, s) }}"),
    "spatial=0": (7, f"{X} {{ y = BatchNormalization <spatial = 0> (x, s, s, s, s) }}"),
    "its mask is used": (7, "float[2] x) => (float[2] y, float[2] m) { y, m = Dropout (x) }"),
    "channels": (
        18,
        "float[1,N,3] x, float[1] s) => (float[1,N,3] y) { y = GroupNormalization <num_groups = 1> (x, s, s) }",
    ),
    "Scan of opset 8": (
        8,
        "float[1,2] x) => (float[N,2] y) { y = Scan <num_scan_inputs=1, body = b (e) => (o) { o = Neg(e) }> ('', x) }",
    ),
}


@pytest.mark.parametrize("reason", WITHOUT_EQUAL)
def test_what_has_no_equal_names_the_node_and_the_reason(reason: str) -> None:
    opset, source = WITHOUT_EQUAL[reason]
    loaded = text(f'<ir_version: 4, opset_import: ["": {opset}]> g ({source}'.replace("''", '""'))
    complete_types(loaded.ir)
    before = to_proto(loaded)
    with pytest.raises(CannotRaise, match=rf"\w+ 'y': .*{reason}"):
        lift(loaded, 21)
    assert to_proto(loaded) == before


def test_an_operator_that_onnx_does_not_know_stays_as_it_is() -> None:
    loaded = text('<ir_version: 8, opset_import: ["": 9]> g (float[2] x) => (float[2] y) { y = Nothing (x) }')
    assert lift(loaded, 21).changed == ()


def test_an_operator_of_another_domain_is_not_touched() -> None:
    loaded = text("""
<ir_version: 7, opset_import: ["": 12, "other": 3]>
g (float[2,3,4] x) => (float[2,3,4] y) { y = other.Softmax <axis = 1> (x) }
""")
    assert lift(loaded, 17).changed == ()
    assert {o.domain: o.version for o in to_proto(loaded).opset_import} == {"": 17, "other": 3}


@pytest.mark.parametrize(("target", "lowest"), [(13, 8), (17, 8), (19, 9), (21, 10), (23, 11)])
def test_the_ir_version_follows(target: int, lowest: int) -> None:
    loaded = text('<ir_version: 3, opset_import: ["": 9]> g (float[2] x) => (float[2] y) { y = Relu(x) }')
    lift(loaded, target)
    assert loaded.ir.ir_version == onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", target)])
    assert loaded.ir.ir_version <= lowest
    newer = text('<ir_version: 12, opset_import: ["": 9]> g (float[2] x) => (float[2] y) { y = Relu(x) }')
    lift(newer, target)
    assert newer.ir.ir_version == 12


CONVERTED = {
    "Upsample": (9, 13, "float[1,1,4,4] x) => (float[1,1,8,8] y) <float[4] s = {1, 1, 2, 2}> { y = Upsample (x, s) }"),
    "GridSample": (
        16,
        20,
        'float[1,1,4,4] x, float[1,2,2,2] i) => (float[1,1,2,2] y) { y = GridSample <mode = "bilinear"> (x, i) }',
    ),
    "Softmax": (12, 13, "float[2,3,4] x) => (float[2,3,4] y) { y = Softmax <axis = 1> (x) }"),
    "Split": (11, 18, "float[2,4] x) => (float[2,2] y, float[2,2] z) { y, z = Split <axis = 1> (x) }"),
    "Relu": (11, 18, "float[2,4] x) => (float[2,4] y) { y = Relu (x) }"),
}


@pytest.mark.parametrize("op_type", CONVERTED)
def test_operators_of_no_table_go_through_the_version_converter(op_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opset, target, source = CONVERTED[op_type]
    monkeypatch.delitem(ADAPTERS, op_type, raising=False)
    changes.adapter_for.cache_clear()
    monkeypatch.setattr(changes, "INPUT_FORMS", {})
    monkeypatch.setattr(changes, "_compatible", lambda *_: False)
    try:
        loaded = text(f'<ir_version: 7, opset_import: ["": {opset}]> g ({source}')
        before = to_proto(loaded)
        node = next(iter(loaded.ir.graph))
        lift(loaded, target)
    finally:
        changes.adapter_for.cache_clear()
    after = to_proto(loaded)
    onnx.checker.check_model(after, full_check=True)
    same_results(before, after)
    assert (next(iter(loaded.ir.graph)) is node) == (op_type == "Relu")


def test_raising_twice_is_raising_once() -> None:
    once, twice = load(MODELS / "hybrid_legacy_op12_keep_bn.onnx"), load(MODELS / "hybrid_legacy_op12_keep_bn.onnx")
    lift(once, 21)
    lift(twice, 17)
    lift(twice, 21)
    assert operators(to_proto(once)) == operators(to_proto(twice))
    same_results(to_proto(once), to_proto(twice))


def test_every_graph_keeps_its_order_and_its_names() -> None:
    loaded = load(MODELS / "swin_legacy_op12.onnx")
    before = [[n.name for n in graph] for graph in all_graphs(loaded.ir)]
    outputs = [v.name for v in loaded.ir.graph.outputs]
    lift(loaded, 18)
    assert [[n.name for n in graph] for graph in all_graphs(loaded.ir)] == before
    assert [v.name for v in loaded.ir.graph.outputs] == outputs
    assert isinstance(loaded.ir, ir.Model)


# onnxruntime has no kernel for Softplus of doubles; at opset 18 it expands the function that defines it.
SOFTPLUS = """
<ir_version: 8, opset_import: ["": 18]>
g (double[2] x) => (double[2] y) { y = Softplus(x) }
"""


def test_a_model_is_not_raised_to_where_a_node_has_no_kernel() -> None:
    before = to_proto(text(SOFTPLUS))
    loaded = text(SOFTPLUS)
    opens = LocalJudge().opens
    with pytest.raises(CannotRaise, match="Softplus 'y': it runs as it is, and not at opset 23"):
        lift(loaded, 23, opens=opens)
    assert to_proto(loaded) == before
    assert lift(text(SOFTPLUS.replace("double", "float")), 23, opens=opens).target == 23
    # What does not run as it is stands in nobody's way.
    assert lift(text(SOFTPLUS.replace("18", "17")), 23, opens=opens).target == 23
