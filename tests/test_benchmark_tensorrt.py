"""The matrix on a GPU, with a driver and a library that need none: two GPUs, a refused model, a time that is up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from . import stub_driver

MODELS = Path(__file__).resolve().parent / "models"


def run(folder: Path, *arguments: str) -> tuple[int, str, list[dict]]:
    environment = stub_driver.environment(
        folder, CUDA_VISIBLE_DEVICES="0,1", ONNX_REWRITE_CACHE=str(folder / "cache"), PYTHONFAULTHANDLER="1"
    )
    out = folder / "t.json"
    command = [sys.executable, "-m", "benchmarks", "tensorrt", "--out", str(out), "--processors", "1", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=MODELS.parents[1])
    assert out.is_file(), done.stderr
    return done.returncode, done.stdout, json.loads(out.read_text())["rows"]


def test_the_matrix(tmp_path: Path) -> None:
    folder = stub_driver.make(tmp_path)
    minmax, refused = MODELS / "handmade" / "min_max.onnx", MODELS / "handmade" / "std_deformconv_op19.onnx"
    plan = (f"{minmax}:clip:fp16", f"{minmax}:ln:fp16", f"{refused}:clip:fp16")
    short = ("--duration", "0.02", "--unchanged")
    status, table, rows = run(folder, "--plan", plan[0], plan[2], *short)
    measured, unbuilt = rows
    assert (status, measured["applied"], measured["before"]["device"]) == (0, 1, "Stub GPU")
    assert measured["before"]["cached"]
    assert measured["after"]["max_abs_error"] < 1e-6
    assert measured["after"]["latency_ms"]["median"] > 0
    assert "No importer registered for op: DeformConv" in unbuilt["error"]
    assert "std_deformconv_op19" in table
    # A second run keeps what was measured and tries what was not; it has no time, and says so.
    status, _, rows = run(folder, "--plan", *plan, *short, "--resume", "--budget", "0")
    assert status == 0
    assert rows[0] == measured
    assert [row.get("error") for row in rows[1:]] == ["not measured: the time was up"] * 2


def test_attention_on_two_gpus_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    folder = stub_driver.make(tmp_path)
    asked = ["swin_t", "--micro", "--batch", "1", "--precision", "fp16", "--forms", "spelling", "--duration", "0.02"]
    for budget in ("100", "0"):
        command = [sys.executable, "-m", "benchmarks", "mhsa", *asked, "--budget", budget]
        command += ["--work", str(folder / "work"), "--out", str(folder / "m.json"), "--processors", "1"]
        environment = stub_driver.environment(
            folder, CUDA_VISIBLE_DEVICES="0,1", ONNX_REWRITE_CACHE=str(folder / "cache")
        )
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, cwd=MODELS.parents[1]
        )
        document = json.loads((folder / "m.json").read_text())
        assert [row["variant"] for row in document["rows"]] == ["original", "spelling"], done.stderr
        assert all(row["median"] > 0 and row["error_max"] < 1e-5 for row in document["rows"])
        assert (done.returncode, document["machine"]["gpu"], document["machine"]["gpus"]) == (0, "Stub GPU", 2)
