"""What is reduced inside bodies and functions, where types are not inferred, and with weights in files of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from onnx import helper, numpy_helper

import onnx_rewrite as rw
from onnx_rewrite.pipeline.minimising import Minimiser
from onnx_rewrite.pipeline.minimising.cuts import all_nodes, count_nodes, subgraph
from onnx_rewrite.pipeline.minimising.knowledge import Knowledge
from onnx_rewrite.pipeline.minimising.weights import LARGE, Weights
from onnx_rewrite.testing import models


def everything(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return list(all_nodes([*model.graph.node, *(n for f in model.functions for n in f.node)]))


def kinds(model: onnx.ModelProto) -> list[str]:
    return sorted(node.op_type for node in everything(model))


def has(*op_types: str) -> Any:
    return lambda model: set(op_types) <= set(kinds(model))


def parsed(text: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model, full_check=True)
    return model


BRANCHES = """
<ir_version: 8, opset_import: ["": 17]>
g (float[2] x, bool c) => (float[2] y)
{
    a = Abs (x)
    r = If (c) <
        then_branch = t () => (float[2] p) { p0 = Exp (a) p1 = Neg (p0) p = Sin (p1) },
        else_branch = f () => (float[2] q) { q0 = Relu (a) q = Cos (q0) }
    >
    y = Sigmoid (r)
}
"""

LOOP = """
<ir_version: 8, opset_import: ["": 17]>
g (float[2] x, int64 n, bool c) => (float[2] y)
{
    z = Neg (x)
    last = Loop (n, c, z) <
        body = b (int64 i, bool on, float[2] s) => (bool on2, float[2] s3) {
            on2 = Identity (on)  s1 = Exp (s)  s2 = Sin (s1)  s3 = Add (s2, z)
        }
    >
    y = Sigmoid (last)
}
"""

FUNCTION = """
<ir_version: 8, opset_import: ["": 17, "local": 1]>
g (float[2] x) => (float[2] y) { a = Abs (x)  b, d = local.f (a, x)  y = Neg (b) }
<domain: "local", opset_import: ["": 17]>
f (p, q) => (r, u) { s = Exp (p)  t = Sin (s)  r = Cos (t)  u = Tan (q) }
"""


@pytest.mark.parametrize(
    ("text", "wanted", "left"),
    [
        (BRANCHES, has("Sin"), ["Sin"]),
        (BRANCHES, has("Sin", "If"), ["Identity", "If", "Sin"]),
        (BRANCHES, has("Exp", "Sigmoid"), ["Exp", "Sigmoid"]),
        (LOOP, has("Sin"), ["Sin"]),
        (LOOP, has("Sin", "Loop"), ["Identity", "Loop", "Sin"]),
        (FUNCTION, has("Sin"), ["Sin"]),
        (FUNCTION, has("Sin", "f"), ["Sin", "f"]),
    ],
)
def test_bodies_and_functions_are_reduced(text: str, wanted: Any, left: list[str]) -> None:
    smallest = rw.minimise(parsed(text), wanted)
    assert kinds(smallest) == left
    onnx.checker.check_model(smallest, full_check=True)


def test_what_a_function_does_not_need_goes() -> None:
    smallest = rw.minimise(parsed(FUNCTION), has("Sin", "f"))
    (function,) = smallest.functions
    assert (len(function.input), len(function.output), len(function.node)) == (1, 1, 1)


def unknown(domain: str) -> onnx.ModelProto:
    """A shape that is computed, so that inference does not know it, and an operator of another domain."""
    model = onnx.parser.parse_model(
        f"""
    <ir_version: 8, opset_import: ["": 17, "custom": 1]>
    g (float[2,3] x) => (float y)
    <int64[1] one = {{1}}, int64[1] start = {{0}}>
    {{
        big = Exp (x)
        kept = Compress <axis = 1> (big, mask)
        s = Shape (kept)
        flat = Gather (s, start)
        shape = Concat <axis = 0> (flat, one, one)
        w = {domain}Softsign (kept)
        r = ReduceMax <keepdims = 0> (w)
        y = Neg (r)
    }}
    """
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([True, False, True]), "mask"))
    del model.graph.value_info[:]
    return model


def test_values_are_measured_where_nothing_is_inferred() -> None:
    model = unknown("")
    inferred = onnx.shape_inference.infer_shapes(model)
    shape = next(v for v in inferred.graph.value_info if v.name == "kept").type.tensor_type.shape
    assert not shape.dim[1].HasField("dim_value")
    weights = Weights()
    known = Knowledge(weights.taken_from(model), weights)
    assert known.numbers("shape").tolist() == [2, 1, 1]  # type: ignore[union-attr]
    smallest = rw.minimise(model, has("Softsign"))
    assert kinds(smallest) == ["Softsign"]


def test_an_operator_that_nobody_knows() -> None:
    """No type is inferred behind it, and onnxruntime cannot run it: a neighbour's element type must do."""
    smallest = rw.minimise(unknown("custom."), has("ReduceMax"))
    assert kinds(smallest) == ["ReduceMax"]
    assert smallest.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_shapes_that_were_computed_become_constants() -> None:
    """Reshape stays a Reshape to a constant shape: a shape that is an input would be another model."""
    model = parsed("""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[4,6] x, float[3] z) => (float[a,b] y)
    <int64[1] two = {2}, int64[1] rest = {-1}>
    { s = Shape (z)  t = Concat <axis = 0> (two, rest)  u = Abs (x)  v = Reshape (u, t)  y = Relu (v) }
    """)

    def runs_and_reshapes(m: onnx.ModelProto) -> bool:
        session = ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"])
        feeds = {
            i.name: np.full(
                [d if isinstance(d, int) else 2 for d in i.shape], 7, np.float32 if "float" in i.type else "i8"
            )
            for i in session.get_inputs()
        }
        session.run(None, feeds)
        return "Reshape" in kinds(m)

    smallest = rw.minimise(model, runs_and_reshapes)
    assert kinds(smallest) == ["Reshape"]
    assert [t.name for t in smallest.graph.initializer] == ["t"]
    assert [i.name for i in smallest.graph.input] == ["u"]


def large(folder: Path) -> Path:
    weight = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, [3, 64])],
        [helper.make_tensor_value_info("y", 1, [3, 64])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    return folder / "m.onnx"


def test_weights_in_a_file_of_their_own(tmp_path: Path) -> None:
    """The predicate sees the weights, and dimensions shrink together with them."""
    path = large(tmp_path)

    def last_weight_is_large(m: onnx.ModelProto) -> bool:
        return any(numpy_helper.to_array(t).max() > 4000 for t in m.graph.initializer)

    kept = rw.minimise(path, last_weight_is_large)
    assert kinds(kept) == ["MatMul"]
    assert max(numpy_helper.to_array(kept.graph.initializer[0]).ravel()) > 4000
    assert kept.graph.initializer[0].data_location == onnx.TensorProto.DEFAULT
    smallest = rw.minimise(path, has("MatMul"))
    assert list(smallest.graph.initializer[0].dims) == [1, 1]


def test_a_placeholder_stands_for_what_is_large() -> None:
    array = np.zeros(LARGE, np.float32)
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(array, "w")])
    weights = Weights()
    held = weights.taken_from(helper.make_model(graph))
    assert held.ByteSize() < 200
    assert numpy_helper.to_array(weights.filled(held).graph.initializer[0]).shape == (LARGE,)
    assert [v.name for v in weights.without(held).graph.input] == ["w"]


@settings(max_examples=25, deadline=None)
@given(models())
def test_the_result_fails_is_valid_and_cannot_lose_a_node(model: onnx.ModelProto) -> None:
    rarest = min(set(kinds(model)), key=lambda k: (kinds(model).count(k), k))
    wanted = has(rarest)
    before = model.SerializeToString(deterministic=True)
    minimiser = Minimiser(model, wanted)
    smallest = minimiser.run()
    assert model.SerializeToString(deterministic=True) == before
    assert wanted(smallest)
    onnx.checker.check_model(smallest, full_check=True)
    assert count_nodes(smallest) <= count_nodes(model)
    weights = Weights()
    values = Knowledge(smallest, weights).values(smallest)
    for one in range(len(smallest.graph.node)):
        kept = [i for i in range(len(smallest.graph.node)) if i != one]
        less = subgraph(smallest, kept, values) if kept else None
        assert less is None or not wanted(less)
    again = Minimiser(model, wanted)
    assert again.run().SerializeToString(deterministic=True) == smallest.SerializeToString(deterministic=True)
    assert again.asked == minimiser.asked


def test_time_runs_out_with_the_smallest_so_far() -> None:
    model = onnx.load(Path(__file__).parents[2] / "models" / "exported" / "minmax_legacy_op12.onnx")
    ticks = iter(range(10_000))
    minimiser = Minimiser(model, lambda m: next(ticks) < 10**6, seconds=0)
    assert minimiser.run() == model
    assert minimiser.late
