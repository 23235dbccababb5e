from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_rewrite.engines.onnxruntime import OnnxRuntime
from onnx_rewrite.engines.protocol import EngineError, Model

from .models import linear

X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
W = np.arange(12, dtype=np.float32).reshape(4, 3) / 8


def test_it_runs_and_tells_its_times() -> None:
    engine = OnnxRuntime().build(Model(linear(0.5)))
    outputs = engine.run({"x": X})
    assert list(outputs) == ["y"]
    assert np.allclose(outputs["y"], np.maximum(X @ W + 0.5, 0), atol=1e-6)
    engine.run({"x": X})
    first, second = engine.timings
    assert second.start >= first.start + first.seconds
    assert engine.obstacle is None
    assert engine.precision == "fp32"
    assert engine.device.startswith(("CPU (", "CUDA"))


def test_its_layers_are_what_the_optimisations_leave() -> None:
    engine = OnnxRuntime().build(Model(linear(0.5)))
    assert 0 < len(engine.layers) < 3  # MatMul, Add and Relu: at least two are one
    assert engine.size > 100
    kept = [node for layer in engine.layers for node in layer.nodes]
    assert set(kept) <= {"product", "sum", "relu"}


def test_a_refused_node_is_named() -> None:
    with pytest.raises(EngineError, match=r"no\.such::Frobnicate \(node 'sum'\)"):
        OnnxRuntime().build(Model(linear(operator="Frobnicate", domain="no.such")))
    with pytest.raises(EngineError, match="Frobnicate"):
        OnnxRuntime().build(Model(linear(operator="Frobnicate")))


def test_a_feed_that_does_not_fit() -> None:
    engine = OnnxRuntime().build(Model(linear()))
    with pytest.raises(EngineError, match="x"):
        engine.run({"x": X[:, :2]})
    assert engine.timings == []


def test_external_data(tmp_path: Path) -> None:
    onnx.save(linear(0.5), tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    model = Model(onnx.load(tmp_path / "m.onnx", load_external_data=False), tmp_path)
    engine = OnnxRuntime().build(model)
    assert np.allclose(engine.run({"x": X})["y"], np.maximum(X @ W + 0.5, 0), atol=1e-6)
    assert engine.layers
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "w.bin"]


def test_an_ir_version_newer_than_the_library() -> None:
    model = linear()
    model.ir_version = onnx.IR_VERSION + 1
    assert OnnxRuntime().build(Model(model)).run({"x": X})
    assert model.ir_version == onnx.IR_VERSION + 1
