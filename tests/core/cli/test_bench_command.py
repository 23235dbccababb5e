"""`rewrite bench` on real models, and what `--bench` adds to a real run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_rewrite import demo
from onnx_rewrite.engines import bench, timing
from onnx_rewrite.report.schema import Report

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "Effort", lambda: timing.Effort(warmup_seconds=0.0, seconds=0.0, iterations=10))


@pytest.fixture
def hybrid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo's model in the current folder."""
    monkeypatch.chdir(tmp_path)
    demo.copy_model(Path())
    return Path(demo.MODEL)


def test_rewrite_with_bench(rewrite, hybrid: Path) -> None:
    ran = rewrite(hybrid, "--bench", "onnxruntime", "--report", "r.json")
    assert (ran.status, ran.err) == (0, "")
    rows = Report.from_json(Path("r.json").read_text(encoding="utf-8")).benchmark
    assert [(row.engine, row.model, row.built) for row in rows] == [
        ("onnxruntime", "before", True),
        ("onnxruntime", "after", True),
    ]
    for fact in ("latency, median", "layers", f"{rows[0].layers}", "fp32 of x [1, 3, 32, 32]"):
        assert fact in ran.out
    assert sorted(os.listdir()) == ["hybrid.onnx", "hybrid.rewritten.onnx", "r.json"]


def test_compare(rewrite, hybrid: Path) -> None:
    rewrite(hybrid, "--quiet")
    ran = rewrite("bench", "hybrid.rewritten.onnx", "--compare", hybrid, "--engines", "onnxruntime")
    assert (ran.status, ran.err) == (0, "")
    assert "before" in ran.out
    assert "ratio" in ran.out


def test_json(rewrite, hybrid: Path) -> None:
    ran = rewrite("bench", hybrid, "--engines", "onnxruntime", "--json")
    found = json.loads(ran.out)
    assert found["schema"] == 1
    (row,) = found["benchmark"]
    assert row["latency_ms"]["median"] > 0
    assert row["shapes"] == {"x": [1, 3, 32, 32]}


def test_auto_with_json_prints_nothing_but_json(rewrite, hybrid: Path) -> None:
    ran = rewrite("bench", hybrid, "--json")
    assert ran.status == 0
    assert {row["engine"] for row in json.loads(ran.out)["benchmark"]} >= {"onnxruntime"}


def test_shapes_and_inputs_of_a_user(rewrite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = MODELS / "handmade" / "convnet_dynbatch_op12.onnx"
    name = onnx.load(model).graph.input[0].name
    options = ("--engines", "onnxruntime", "--json")
    ran = rewrite("bench", model, *options, "--shape", f"{name}=5,3,16,16")
    assert ran.status == 0, ran.err
    assert json.loads(ran.out)["benchmark"][0]["shapes"] == {name: [5, 3, 16, 16]}
    np.savez("f.npz", **{name: np.zeros((4, 3, 16, 16), np.float32)})
    ran = rewrite("bench", model, *options, "--inputs", "f.npz")
    assert json.loads(ran.out)["benchmark"][0]["shapes"] == {name: [4, 3, 16, 16]}
    ran = rewrite("bench", model, *options, "--shape", "nonesuch=5")
    assert (ran.status, ran.out) == (2, "")
    assert "the model has no input 'nonesuch'" in ran.err


def test_what_is_refused_is_named_and_the_rewritten_model_is_kept(
    rewrite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = onnx.load(MODELS / "handmade" / "custom_deform_conv2d_op12.onnx")
    made.graph.node[1].op_type = "mystery"
    onnx.save(made, "model.onnx")
    model = Path("model.onnx")
    ran = rewrite("bench", model, "--engines", "onnxruntime")
    assert ran.status == 1
    assert "the model could not be built: custom operator custom::mystery (node 'deform_conv2d_6')" in ran.out
    ran = rewrite(model, "-o", "out.onnx", "--bench", "onnxruntime")
    assert ran.status == 0
    assert "neither model could be built: custom operator custom::mystery" in ran.out
    assert Path("out.onnx").is_file()


@pytest.mark.parametrize("command", [["no.onnx"], ["{}", "--compare", "no.onnx"]])
def test_no_such_model(rewrite, hybrid: Path, command: list[str]) -> None:
    ran = rewrite("bench", *(part.format(hybrid) for part in command), "--engines", "onnxruntime")
    assert (ran.status, ran.out) == (2, "")
    assert "no.onnx" in ran.err
