"""Bad usage: one message that says what is wrong, and status 2, before any work is done."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onnx_rewrite.cli import arguments
from onnx_rewrite.errors import UsageError


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("m.onnx --pases ln", "unknown option: --pases. Did you mean --passes?"),
        ("m.onnx extra", "unexpected argument: extra"),
        ("--passes ln", "requires an argument"),
        ("m.onnx --passes", "--passes requires an argument"),
        ("m.onnx --verify some", "--verify"),
        ("m.onnx --target tpu", "--target"),
        ("m.onnx --accept different", "--accept"),
        ("m.onnx --seed x", "--seed"),
        ("m.onnx --opset old", "--opset old: neither a number nor 'keep'"),
        ("m.onnx --opset 0", "--opset 0: neither a number nor 'keep'"),
        ("m.onnx --shape x", "--shape x: not of the form NAME=DIMS"),
        ("m.onnx --shape x=1,a", "--shape x=1,a: not of the form NAME=DIMS"),
        ("m.onnx --shape x=-1", "--shape x=-1: not of the form NAME=DIMS"),
        ("m.onnx --shape =1", "--shape =1: not of the form NAME=DIMS"),
        ("m.onnx --shape x=1 --shape x=2", "gives the shape of x twice"),
        ("m.onnx -o m.onnx", "m.onnx is the model itself"),
        ("m.onnx -o ./m.onnx", "./m.onnx is the model itself"),
        ("m.onnx -o missing/o.onnx", "the folder missing does not exist"),
        ("m.onnx -o folder", "-o folder: is a folder"),
        (f"m.onnx -o {os.devnull}", "is not a regular file" if os.name == "posix" else ""),
        ("m.onnx -o o.onnx --in-place", "--in-place and -o exclude each other"),
        ("- --in-place", "--in-place needs a file"),
        ("-", "a model from standard input needs -o"),
        ("m.onnx --report r.txt", "the name must end in .json or .html"),
        ("m.onnx --report missing/r.json", "the folder missing does not exist"),
        ("m.onnx --verbose --quiet", "--verbose and --quiet exclude each other"),
        ("nothing.onnx", "nothing.onnx: no such file"),
        ("inspct", "did you mean `rewrite inspect`?"),
        ("inspct m.onnx", "did you mean `rewrite inspect`?"),
        ("inspect", "requires an argument"),
        ("check m.onnx", "requires an argument"),
        ("m.onnx --bench nonesuch", "unknown engine 'nonesuch'"),
        ("m.onnx --bench onnxruntim", "did you mean onnxruntime?"),
        ("bench m.onnx --engines onnxruntim", "did you mean onnxruntime?"),
        ("bench", "a model is needed"),
        ("bench - --compare -", "only one of the two models can come from standard input"),
        ("check - -", "only one of the two models can come from standard input"),
        ("passes --nothing", "unknown option: --nothing"),
    ],
)
def test_bad_usage(rewrite, pipeline, model: Path, argv: str, message: str) -> None:
    Path("folder").mkdir()
    ran = rewrite(*argv.split())
    assert ran.status == 2
    assert ran.out == ""
    assert ran.err.startswith("error: ")
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert pipeline.calls == []
    assert sorted(os.listdir()) == ["folder", "m.onnx"]


def test_a_folder_that_cannot_be_written_to(rewrite, pipeline, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("locked").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write everywhere
    ran = rewrite(model, "-o", "locked/o.onnx")
    assert ran.status == 2
    assert "the folder locked cannot be written to" in ran.err


def test_a_symbolic_link_to_the_model_is_the_model(model: Path) -> None:
    try:
        Path("link.onnx").symlink_to(model)
    except OSError:
        pytest.skip("no symbolic links here")
    with pytest.raises(UsageError, match="is the model itself"):
        arguments.output_path("m.onnx", "link.onnx", in_place=False)


@pytest.mark.parametrize(
    ("name", "output"),
    [("a.onnx", "a.rewritten.onnx"), ("d/a.b.onnx", "d/a.b.rewritten.onnx"), ("a.onnxtxt", "a.rewritten.onnx")],
)
def test_default_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, output: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("d").mkdir()
    assert Path(arguments.output_path(name, None, in_place=False)) == Path(output)
