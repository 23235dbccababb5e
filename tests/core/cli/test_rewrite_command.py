"""`rewrite MODEL` up to the pipeline: what it is asked, what is written, which status comes back."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

import pytest

from onnx_rewrite.errors import ModelError, NotEquivalentError
from onnx_rewrite.report.schema import Report


def test_defaults(rewrite, pipeline, model: Path) -> None:
    ran = rewrite(model, "--passes", "ln")
    assert (ran.status, ran.err) == (0, "")
    assert pipeline.saved == ["m.rewritten.onnx"]
    (call,) = pipeline.calls
    call.pop("progress")
    assert call == {
        "source": "m.onnx",
        "passes": "ln",
        "target": "onnx",
        "opset": None,
        "inputs": None,
        "shapes": None,
        "verify": "full",
        "only": None,
        "skip": None,
        "accept": (),
        "strict": False,
        "seed": 0,
        "feeds_per_site": None,
        "print_between_passes": None,
        "adapters": None,
    }
    for fact in ("ln[0]", "Sub_1, Div_2", "equivalent", "9 → 1", "12 → 17", "m.rewritten.onnx"):
        assert fact in ran.out


def test_every_option_arrives(rewrite, pipeline, model: Path) -> None:
    options = (
        "--passes ln,clip --target tensorrt-10 --opset 18 --inputs f.npz --shape x=1,3 --shape a=b= --verify local"
    )
    more = "--only ln[3] --only ^/stem/ --skip /head/ --accept inconclusive --strict --seed 7 --quiet -o out.onnx"
    ran = rewrite(model, *options.replace("--shape a=b= ", "").split(), "--shape", "a=b=", *more.split())
    assert (ran.status, ran.out, ran.err) == (0, "", "")
    call = pipeline.calls[0]
    assert call["passes"] == "ln,clip"
    assert call["target"] == "tensorrt-10"
    assert call["opset"] == 18
    assert call["inputs"] == "f.npz"
    assert call["shapes"] == {"x": (1, 3), "a=b": ()}
    assert call["verify"] == "local"
    assert call["only"] == ("ln[3]", "^/stem/")
    assert call["skip"] == ("/head/",)
    assert call["accept"] == ("inconclusive",)
    assert call["strict"] is True
    assert call["seed"] == 7
    assert pipeline.saved == ["out.onnx"]


def test_opset_keep(rewrite, pipeline, model: Path) -> None:
    assert rewrite(model, "--passes", "ln", "--opset", "keep").status == 0
    assert pipeline.calls[0]["opset"] == "keep"


def test_standard_input_and_output(rewrite, pipeline) -> None:
    ran = rewrite("-", "--passes", "ln", "-o", "-")
    assert ran.status == 0
    assert pipeline.calls[0]["source"] == "-"
    assert pipeline.saved == ["-"]
    assert ran.out == ""
    assert "ln[0]" in ran.err


def test_dry_run_writes_nothing(rewrite, pipeline, model: Path) -> None:
    ran = rewrite(model, "--passes", "ln", "--dry-run")
    assert ran.status == 0
    assert pipeline.saved == []
    assert "written  nothing" in ran.out


def test_in_place(rewrite, pipeline, model: Path) -> None:
    assert rewrite(model, "--passes", "ln", "--in-place").status == 0
    assert pipeline.saved == ["m.onnx"]


def test_a_model_named_like_a_command(rewrite, pipeline, model: Path) -> None:
    model.rename("passes")
    assert rewrite("./passes", "--passes", "ln").status == 0
    assert pipeline.calls[0]["source"] == "./passes"


def test_quiet_still_warns(rewrite, pipeline, model: Path) -> None:
    pipeline.report.warnings.append("clip[2] was not verified")
    ran = rewrite(model, "--passes", "ln", "--quiet")
    assert (ran.status, ran.out) == (0, "")
    assert "warning: clip[2] was not verified" in ran.err


def test_engines_are_measured_once_the_model_is_safe(rewrite, pipeline, model: Path) -> None:
    options = ("--inputs", "f.npz", "--shape", "x=1,3", "--seed", "7", "--report", "r.json")
    ran = rewrite(model, "--passes", "ln", "--bench", "onnxruntime", *options)
    assert (ran.status, ran.err) == (0, "")
    assert pipeline.order == ["save", "measure"]
    (call,) = pipeline.measured
    call.pop("progress")
    assert call == {"engines": "onnxruntime", "inputs": "f.npz", "shapes": {"x": (1, 3)}, "seed": 7}
    assert "the model before could not be built: node Sub_1: no" in ran.out
    assert len(Report.from_json(Path("r.json").read_text(encoding="utf-8")).benchmark) == 2


def test_in_place_the_original_is_measured_before_it_is_overwritten(rewrite, pipeline, model: Path) -> None:
    assert rewrite(model, "--passes", "ln", "--bench", "onnxruntime", "--in-place").status == 0
    assert pipeline.order == ["measure", "save"]


def test_dry_run_measures_too(rewrite, pipeline, model: Path) -> None:
    assert rewrite(model, "--passes", "ln", "--bench", "onnxruntime", "--dry-run").status == 0
    assert pipeline.order == ["measure"]


def test_auto_says_in_one_line_what_is_missing(rewrite, pipeline, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    ran = rewrite(model, "--passes", "ln", "--bench", "auto")
    assert (ran.status, ran.err) == (0, "")
    line = "tensorrt: TensorRT is not installed; tensorrt-rtx: TensorRT-RTX is not installed"
    assert f"\nnot on this machine: {line}\n" in ran.out


@pytest.mark.parametrize("command", [["m.onnx", "--bench"], ["bench", "m.onnx", "--engines"]])
def test_a_named_engine_that_is_missing_ends_it_before_any_work(
    rewrite, pipeline, model: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    ran = rewrite(*command, "onnxruntime,tensorrt-rtx")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("error: tensorrt-rtx is not available: TensorRT-RTX is not installed\n")
    assert "pip install 'onnx-rewrite[tensorrt-rtx]'" in ran.err
    assert pipeline.calls == []
    assert os.listdir() == ["m.onnx"]


@pytest.mark.parametrize("name", ["r.json", "r.html", "R.JSON"])
def test_report(rewrite, pipeline, model: Path, name: str) -> None:
    ran = rewrite(model, "--passes", "ln", "--report", name)
    assert ran.status == 0
    text = Path(name).read_text(encoding="utf-8")
    if name.lower().endswith("json"):
        assert Report.from_json(text) == pipeline.report
        assert json.loads(text)["output"]["path"] == "m.rewritten.onnx"
    else:
        assert text.startswith("<!doctype html>")
    assert sorted(os.listdir()) == sorted(["m.onnx", name])  # no temporary file is left


def test_not_equivalent(rewrite, pipeline, model: Path) -> None:
    pipeline.error = NotEquivalentError("2 sites were rolled back", hint="--verbose lists them")
    pipeline.error.report = pipeline.report
    ran = rewrite(model, "--passes", "ln", "--strict", "--report", "r.json")
    assert ran.status == 1
    assert ran.err == "error: 2 sites were rolled back\nhint: --verbose lists them\n"
    assert "ln[0]" in ran.out
    assert json.loads(Path("r.json").read_text(encoding="utf-8"))["output"]["path"] is None
    assert pipeline.saved == []


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ModelError("m.onnx: not a model", hint="do this"), 2, "error: m.onnx: not a model\nhint: do this\n"),
        (KeyboardInterrupt(), 130, "error: interrupted; no partial file was left\n"),
        (FileNotFoundError(errno.ENOENT, "No such file", "w.bin"), 2, "error: No such file: w.bin\n"),
        (MemoryError(), 2, "error: out of memory\n"),
    ],
)
def test_errors_are_one_message(
    rewrite, pipeline, model: Path, error: BaseException, status: int, message: str
) -> None:
    pipeline.error = error
    ran = rewrite(model, "--passes", "ln")
    assert (ran.status, ran.out) == (status, "")
    assert ran.err.startswith(message)
    assert "Traceback" not in ran.err


def test_disk_full(rewrite, pipeline, model: Path) -> None:
    pipeline.save_error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "m.rewritten.onnx")
    ran = rewrite(model, "--passes", "ln", "--report", "r.json")
    assert ran.status == 2
    assert ran.err == f"error: {os.strerror(errno.ENOSPC)}: m.rewritten.onnx\n"
    assert os.listdir() == ["m.onnx"]


def test_an_error_of_ours_asks_for_a_report(rewrite, pipeline, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.error = ZeroDivisionError("oops")
    ran = rewrite(model, "--passes", "ln")
    assert ran.status == 70
    assert ran.err.startswith("error: internal error: ZeroDivisionError: oops (at cli/conftest.py:")
    assert "hint: please report this" in ran.err
    monkeypatch.setenv("ONNX_REWRITE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        rewrite(model, "--passes", "ln")
