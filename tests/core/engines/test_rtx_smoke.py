"""A rewritten model becomes a real TensorRT-RTX engine on a machine without a GPU.

The library is part of the `dev` group on Linux x86-64. Elsewhere these tests are skipped, which
ONNX_REWRITE_REQUIRE_RTX=1 (set by CI) turns into a failure.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_rewrite as rw
from onnx_rewrite import demo
from onnx_rewrite.engines import tensorrt_rtx
from onnx_rewrite.errors import ModelError, UsageError


@pytest.fixture(autouse=True)
def _library() -> None:
    if not tensorrt_rtx.available():
        if os.environ.get("ONNX_REWRITE_REQUIRE_RTX") == "1":
            pytest.fail("tensorrt-rtx does not load, and ONNX_REWRITE_REQUIRE_RTX=1 asks for it")
        pytest.skip("tensorrt-rtx is not installed")


def fused(batch: int | str = 2) -> onnx.ModelProto:
    """LayerNormalization and Clip, as the passes `ln` and `clip` write them."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 8, 16])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 8, 16])
    constants = {
        "scale": np.linspace(0.5, 1.5, 16, dtype=np.float32),
        "bias": np.linspace(-1, 1, 16, dtype=np.float32),
        "lo": np.float32(0),
        "hi": np.float32(6),
    }
    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale", "bias"], ["n"], name="norm", axis=-1),
        helper.make_node("Clip", ["n", "lo", "hi"], ["y"], name="clip"),
    ]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "fused", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_builds_a_fused_model_ahead_of_time() -> None:
    engine = tensorrt_rtx.build(fused().SerializeToString())
    assert len(engine.data) > 1000
    assert engine.device == "SM89 (ahead of time)"
    assert {node for layer in engine.layers for node in layer.nodes} == {"norm", "clip"}


def test_builds_what_rewrite_writes(tmp_path: Path) -> None:
    result = rw.rewrite(demo.copy_model(tmp_path), demo.PASSES)
    model = result.to_proto()
    assert result.report.applied == 7
    engine = tensorrt_rtx.build(model.SerializeToString())
    new = {node.name for node in model.graph.node if node.op_type in ("LayerNormalization", "Clip")}
    built = {node for layer in engine.layers for node in layer.nodes}
    assert len(new) == 5
    assert new <= built


def test_a_dynamic_input_needs_a_shape() -> None:
    model = fused("batch").SerializeToString()
    with pytest.raises(UsageError, match="input x has dynamic dimensions"):
        tensorrt_rtx.build(model)
    assert tensorrt_rtx.build(model, shapes={"x": (4, 8, 16)}).layers


def test_a_refused_node_is_named() -> None:
    model = fused()
    model.graph.node[1].CopyFrom(helper.make_node("Frobnicate", ["n"], ["y"], name="the odd one"))
    with pytest.raises(ModelError, match=r"node the odd one \(Frobnicate\)"):
        tensorrt_rtx.build(model.SerializeToString())


def test_an_unknown_compute_capability_is_refused() -> None:
    with pytest.raises(UsageError, match="SM90"):
        tensorrt_rtx.build(fused().SerializeToString(), compute_capability="SM90")
