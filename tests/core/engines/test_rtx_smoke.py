"""A rewritten model becomes a real TensorRT-RTX engine on a machine without a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_rewrite as rw
from onnx_rewrite import demo
from onnx_rewrite.engines.protocol import EngineError, Model, Profile
from onnx_rewrite.engines.tensorrt_rtx import AheadOfTimeEngine, TensorRTRTX, parse_layers
from onnx_rewrite.errors import UsageError

pytestmark = pytest.mark.usefixtures("rtx")


MODELS = Path(__file__).resolve().parents[2] / "models"


def build(model: onnx.ModelProto, **profiles: Profile) -> AheadOfTimeEngine:
    return TensorRTRTX().build(Model(model), profiles=profiles)


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
    engine = build(fused())
    assert engine.size == len(engine.data) > 1000
    assert engine.precision == "fp32"
    assert engine.device == "SM89 (ahead of time)"
    assert {node for layer in engine.layers for node in layer.nodes} == {"norm", "clip"}


def test_builds_what_rewrite_writes(tmp_path: Path) -> None:
    result = rw.rewrite(demo.copy_model(tmp_path), demo.PASSES)
    model = result.to_proto()
    assert result.report.applied == 7
    engine = build(model)
    new = {node.name for node in model.graph.node if node.op_type in ("LayerNormalization", "Clip")}
    built = {node for layer in engine.layers for node in layer.nodes}
    assert len(new) == 5
    assert new <= built


def test_a_dynamic_input_needs_a_shape() -> None:
    with pytest.raises(UsageError, match="input x has dynamic dimensions"):
        build(fused("batch"))
    assert build(fused("batch"), x=Profile.fixed(4, 8, 16)).layers
    assert build(fused("batch"), x=Profile((1, 8, 16), (4, 8, 16), (32, 8, 16))).layers


def test_a_refused_node_is_named() -> None:
    model = fused()
    model.graph.node[1].CopyFrom(helper.make_node("Frobnicate", ["n"], ["y"], name="the odd one"))
    with pytest.raises(EngineError, match=r"node the odd one \(Frobnicate\)"):
        build(model)


def test_an_unknown_compute_capability_is_refused() -> None:
    with pytest.raises(UsageError, match="SM90"):
        TensorRTRTX("SM90")


def test_another_compute_capability() -> None:
    assert TensorRTRTX("SM120").build(Model(fused())).device == "SM120 (ahead of time)"


def test_it_does_not_run_and_says_so() -> None:
    engine = build(fused())
    assert engine.obstacle == "built ahead of time for SM89, not run"
    with pytest.raises(EngineError, match="not run"):
        engine.run({})


def test_precision_is_what_the_model_says() -> None:
    with pytest.raises(UsageError, match="this one is fp32, not fp16"):
        TensorRTRTX().build(Model(fused()), precision="fp16")


def test_external_data_is_found_beside_the_model(tmp_path: Path) -> None:
    onnx.save(fused(), tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    assert any(t.data_location == TensorProto.EXTERNAL for t in model.graph.initializer)
    assert TensorRTRTX().build(Model(model, tmp_path)).layers


def test_a_local_function_is_parsed() -> None:
    model = onnx.load(MODELS / "handmade" / "local_function_minmax_op18.onnx")
    assert model.functions
    assert build(model).layers


def test_a_text_without_layers() -> None:
    assert parse_layers("Nothing of the kind") == ()
