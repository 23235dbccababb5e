"""The options of `rewrite bench`, on a machine without a GPU."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from onnx_rewrite import demo
from onnx_rewrite.engines import nsight, registry

MODELS = Path(__file__).resolve().parents[2] / "models"
QUICK = ("--duration", "0", "--warmup", "0", "--iterations", "10")


@pytest.fixture
def hybrid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    demo.copy_model(Path())
    return Path(demo.MODEL)


@pytest.fixture
def rtx() -> None:
    lack = registry.get("tensorrt-rtx").unavailable()
    if lack is not None:
        if os.environ.get("ONNX_REWRITE_REQUIRE_RTX") == "1":
            pytest.fail(lack.reason)
        pytest.skip(lack.reason)


def test_exports_of_two_models(rewrite, hybrid: Path) -> None:
    rewrite(hybrid, "--quiet", "-o", "after.onnx")
    files = ("--export-times", "t.json", "--export-layers", "l.json", "--export-outputs", "o.json")
    ran = rewrite("bench", "after.onnx", "--compare", hybrid, "--engines", "onnxruntime", *QUICK, *files)
    assert ran.status == 0, ran.err
    for side in ("before", "after"):
        times = json.loads(Path(f"t.{side}.json").read_text())
        assert len(times) >= 10
        assert times[0]["latencyMs"] > 0
        assert json.loads(Path(f"l.{side}.json").read_text())["Layers"]
        (output,) = json.loads(Path(f"o.{side}.json").read_text())
        assert len(output["values"]) > 0
    assert "times    t.before.json" in ran.out
    ran = rewrite("bench", "after.onnx", "--engines", "onnxruntime", *QUICK, "--export-engine", "e.engine")
    assert "engine   not written: onnxruntime has no engine" in ran.out
    assert not Path("e.engine").exists()


@pytest.mark.usefixtures("rtx")
def test_layers_without_a_gpu(rewrite, hybrid: Path) -> None:
    options = ("--engines", "tensorrt-rtx", "--compute-capability", "SM86", "--profile", "--export-log", "b.log")
    node = next(n.name for n in onnx.load(hybrid).graph.node if n.op_type == "Conv")
    ran = rewrite("bench", hybrid, *options, "--where", node, "--where", "nonesuch", "--export-profile", "p.json",
                  "--export-engine", "e.engine")  # fmt: skip
    assert ran.status == 0, ran.err
    assert "engine   e.engine" in ran.out
    assert Path("e.engine").stat().st_size > 10_000
    assert "SM86 (ahead of time)" in ran.out
    assert "layers of the model after, tensorrt-rtx" in ran.out
    assert f"  {node}: in " in ran.out
    assert "  nonesuch: in no layer" in ran.out
    assert "profile  not written" in ran.out
    ran = rewrite("bench", "--log", "b.log")
    assert ran.status == 0, ran.err
    assert "ONNX nodes parsed" in ran.out
    ran = rewrite("bench", "--log", "b.log", "--json")
    assert json.loads(ran.out)["nodes"]["Conv"] > 0


@pytest.mark.usefixtures("rtx")
def test_a_profile_of_shapes(rewrite) -> None:
    model = MODELS / "handmade" / "convnet_dynbatch_op12.onnx"
    name = onnx.load(model).graph.input[0].name
    ran = rewrite("bench", model, "--engines", "tensorrt-rtx", "--shape", f"{name}=1x3x16x16:4x3x16x16:8x3x16x16")
    assert ran.status == 0, ran.err
    assert f"{name} [4, 3, 16, 16]" in ran.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--shape", "x=1,3:2,3"), "not of the form NAME=MIN:OPT:MAX"),
        (("--shape", "x=1,3:2,3:1,3"), "must not fall"),
        (("--shape", "x=1,3:2,3:3"), "different ranks"),
        (("--level", "7"), "a number from 0 to 5"),
        (("--precision", "fp61"), "unknown precision 'fp61'"),
        (("--plugin", "none.so"), "--plugin none.so: no such file"),
        (("--export-times", "nowhere/t.json"), "the folder nowhere does not exist"),
        (("--streams", "0"), "at least one stream"),
        (("--engines", "tensorrt-rtx", "--compute-capability", "SM90"), "builds nothing for 'SM90'"),
        (("--nsys", "r"), "nsys"),
        (("--log", "x.log"), "takes no model"),
    ],
)
def test_what_does_not_fit(
    rewrite, hybrid: Path, options: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    ran = rewrite("bench", hybrid, *options)
    assert (ran.status, ran.out) == (2, "")
    assert words in ran.err


def test_without_a_model_or_a_log(rewrite) -> None:
    ran = rewrite("bench")
    assert ran.status == 2
    assert "a model is needed" in ran.err
    ran = rewrite("bench", "--log", "missing.log")
    assert (ran.status, ran.out) == (2, "")
    assert "missing.log: No such file" in ran.err


def test_a_gpu_that_is_missing(rewrite, hybrid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    ran = rewrite(hybrid, "-o", "o.onnx", "--bench", "tensorrt")
    assert (ran.status, Path("o.onnx").exists()) == (2, False)
    assert len(ran.err.strip().splitlines()) == 2  # what is missing, and what helps
    ran = rewrite("bench", hybrid, "--engines", "auto", *QUICK)
    assert ran.status == 0
    assert "not on this machine: tensorrt: TensorRT is not installed" in ran.out


def test_the_command_line_under_nsight() -> None:
    found = nsight.command("r", ["bench", "m.onnx", "--nsys", "r", "--engines", "tensorrt"])
    assert found[:2] == ["nsys", "profile"]
    assert found[-4:] == ["bench", "m.onnx", "--engines", "tensorrt"]
    assert nsight.command("r", ["bench", "--nsys=r", "m.onnx"])[-2:] == ["bench", "m.onnx"]


def test_ranges_for_nsight_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    @contextlib.contextmanager
    def annotate(name: str, domain: str) -> Iterator[None]:
        names.append(name)
        yield

    monkeypatch.setitem(sys.modules, "nvtx", types.SimpleNamespace(annotate=annotate))
    with nsight.span("unseen"):
        pass
    monkeypatch.setenv("ONNX_REWRITE_NVTX", "1")
    with nsight.span("seen"):
        pass
    monkeypatch.setitem(sys.modules, "nvtx", None)
    with nsight.span("no package"):
        pass
    assert names == ["seen"]
