"""`--time-passes` and `--print-between-passes`."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

MODEL = Path(__file__).parents[2] / "models" / "exported" / "hybrid_legacy_op12_keep_bn.onnx"


def kinds(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_a_model_for_each_turn(rewrite, tmp_path: Path) -> None:
    out, stages, report = tmp_path / "out.onnx", tmp_path / "stages", tmp_path / "r.json"
    ran = rewrite(MODEL, "--passes", "ln,clip,bn", "-o", out, "--print-between-passes", stages, "--report", report)
    assert ran.status == 0
    files = sorted(stages.iterdir())
    assert [f.name for f in files] == ["00.input.onnx", "01.ln.onnx", "02.clip.onnx", "03.bn.onnx"]
    assert files[0].read_bytes() == MODEL.read_bytes()
    assert files[-1].read_bytes() == out.read_bytes()
    assert [kinds(f).count("LayerNormalization") for f in files] == [0, 3, 3, 3]
    assert [kinds(f).count("BatchNormalization") for f in files][2:] == [2, 0]
    for file in files:
        onnx.checker.check_model(file, full_check=True)
    assert json.loads(report.read_text())["passes"]


def test_a_turn_without_edits_writes_nothing(rewrite, tmp_path: Path) -> None:
    ran = rewrite(MODEL, "--passes", "bn", "-o", tmp_path / "o.onnx", "--print-between-passes", tmp_path / "s")
    assert ran.status == 0
    assert [f.name for f in sorted((tmp_path / "s").iterdir())] == ["00.input.onnx", "01.bn.onnx"]


@pytest.mark.parametrize("what", ["file", "full"])
def test_a_folder_that_cannot_serve(rewrite, tmp_path: Path, what: str) -> None:
    place = tmp_path / "s"
    if what == "file":
        place.write_text("x")
    else:
        place.mkdir()
        (place / "x").write_text("x")
    ran = rewrite(MODEL, "-o", tmp_path / "o.onnx", "--print-between-passes", place)
    assert ran.status == 2
    assert str(place) in ran.err
    assert not (tmp_path / "o.onnx").exists()


def test_times(rewrite, tmp_path: Path) -> None:
    ran = rewrite(MODEL, "--passes", "ln,clip", "--dry-run", "--time-passes")
    assert ran.status == 0
    table = ran.out[ran.out.index("match") :]
    assert all(word in table for word in ("apply", "verify", "total", "share", "ln", "clip", "everything else"))
