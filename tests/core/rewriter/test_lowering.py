"""A model for a parser that misreads what came with opset 18."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnx_rewrite import rewrite
from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.analysis.types import complete_types
from onnx_rewrite.rewriter.lowering import lower_opset
from onnx_rewrite.rewriter.names import Names
from onnx_rewrite.rewriter.raising import CannotRaise
from onnx_rewrite.verdict import not_verified
from onnx_rewrite.verify import LocalJudge

MODELS = Path(__file__).parents[2] / "models"
REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")


def model(
    *nodes: onnx.NodeProto,
    opset: int = 18,
    constants: dict[str, object] | None = None,
    feeds: dict[str, int] | None = None,
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", kind, [2, 3, 4])]
    inputs += [helper.make_tensor_value_info(k, TensorProto.INT64, [n]) for k, n in (feeds or {}).items()]
    tensors = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", kind, None)], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def lowered(proto: onnx.ModelProto, *, judged: bool = True) -> onnx.ModelProto:
    found = ir.serde.deserialize_model(proto)
    complete_types(found)
    judge = LocalJudge(seed=0, feeds=2) if judged else None
    lower_opset(found, 17, judge=judge, names=Names(found), constants=Constants())
    return ir.serde.serialize_model(found)


def run(proto: onnx.ModelProto) -> np.ndarray:
    x = np.random.default_rng(0).uniform(0.5, 2, (2, 3, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@given(
    st.sampled_from(REDUCTIONS),
    st.lists(st.integers(-3, 2), max_size=3, unique_by=lambda axis: axis % 3),
    st.booleans(),
    st.booleans(),
    st.integers(18, 22),
)
def test_reductions_do_the_same_below(name: str, axes: list[int], keep: bool, given_axes: bool, opset: int) -> None:
    inputs = ["x", "axes"] if given_axes else ["x"]
    node = helper.make_node(f"Reduce{name}", inputs, ["y"], keepdims=int(keep))
    before = model(node, opset=opset, constants={"axes": axes} if given_axes else {})
    after = lowered(before, judged=False)
    onnx.checker.check_model(after)
    assert [(one.domain, one.version) for one in after.opset_import] == [("", 17)]
    np.testing.assert_array_equal(run(before), run(after))


MEAN = helper.make_node("ReduceMean", ["x", "axes"], ["m"], name="mean")
AXES: dict[str, object] = {"axes": [1]}


@pytest.mark.parametrize(
    ("proto", "reason"),
    [
        (model(MEAN, feeds={"axes": 1}), "ReduceMean 'mean': its axes are computed"),
        (model(helper.make_node("ReduceMean", ["x"], ["y"], name="n", noop_with_empty_axes=1)), "reduces over nothing"),
        (model(helper.make_node("Gelu", ["x"], ["y"], name="n"), opset=20), "opset 17 does not have it"),
        (
            model(helper.make_node("Pad", ["x", "p", "", "a"], ["y"], name="n"), constants={"p": [1, 1], "a": [1]}),
            "so many inputs are not known",
        ),
        (
            model(helper.make_node("Split", ["x"], ["y", "z"], name="n", num_outputs=2), constants=AXES),
            "num_outputs is not known",
        ),
        (
            model(helper.make_node("Reshape", ["x", "s"], ["y"], name="n"), opset=19, constants={"s": [-1]},
                  kind=TensorProto.FLOAT8E4M3FN),
            "x may not be",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_said_below_stays(proto: onnx.ModelProto, reason: str) -> None:
    found = ir.serde.deserialize_model(proto)
    complete_types(found)
    before = ir.serde.serialize_model(found).SerializeToString()
    with pytest.raises(CannotRaise, match=reason):
        lower_opset(found, 17, judge=None, names=Names(found), constants=Constants())
    assert ir.serde.serialize_model(found).SerializeToString() == before


def test_other_versions_are_judged() -> None:
    for mode in ("reflect", "wrap"):
        pad = helper.make_node("Pad", ["x", "p"], ["y"], name="n", mode=mode)
        before = model(pad, opset=19, constants={"p": [0, 0, 1, 0, 0, 1]})
        if mode == "wrap":
            with pytest.raises(CannotRaise, match="Pad 'n': mode=wrap is not known in opset 17"):
                lowered(before)
        else:
            np.testing.assert_array_equal(run(lowered(before)), run(before))


def test_what_is_judged_otherwise_stays() -> None:
    pad = helper.make_node("Pad", ["x", "p"], ["y"], name="n")
    found = ir.serde.deserialize_model(model(pad, opset=19, constants={"p": [0, 0, 1, 0, 0, 1]}))
    complete_types(found)
    wrong = not_verified("this test says so")
    with pytest.raises(CannotRaise, match="Pad 'n': is not verified in opset 17"):
        lower_opset(found, 17, judge=lambda before, after: wrong, names=Names(found), constants=Constants())
    assert found.graph.opset_imports[""] == 19


@pytest.mark.parametrize("name", ["deformconv_dynamo_op19", "deformconv_dynamo_op22"])
def test_an_exported_model_for_its_target(name: str) -> None:
    path = MODELS / "exported" / f"{name}.onnx"
    result = rewrite(path, "deform-conv", target="tensorrt-8.6")
    made = result.to_proto()
    onnx.checker.check_model(made, full_check=True)
    assert result.report.output.opset[""] == 17
    assert not any(len(node.input) > 1 for node in made.graph.node if node.op_type == "ReduceMean")
    assert not result.report.warnings
    assert result.report.verification is not None
    assert result.report.verification.verdict == "equivalent"
    kept = rewrite(path, "deform-conv", target="tensorrt-8.6", opset="keep", verify="off")
    assert kept.report.output.opset[""] == kept.report.model.opset[""]
    assert any("overlooks the axes of ReduceMean 'node_mean'" in line for line in kept.report.warnings)
    other = rewrite(path, "deform-conv", target="tensorrt-10", verify="off")
    assert not any("overlooks" in line for line in other.report.warnings)
