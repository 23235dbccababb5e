"""`rewrite plugins`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from onnx_rewrite.cli import main


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins"]) == 0
    out = capsys.readouterr().out
    assert "deform_conv" in out
    assert "onnx_rewrite::ReluSigmoid" in out
    assert main(["plugins", "list", "deform_conv", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["op"] == "onnx_rewrite::DeformConv2d"
    assert (Path(told["sources"]) / "kernel.cu").is_file()


@pytest.mark.skipif(os.name != "posix", reason="the pretended compiler is a shell script")
def test_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    nvcc = tmp_path / "nvcc"
    nvcc.write_text('#!/bin/sh\nfor a in "$@"; do [ "$p" = -o ] && o=$a; p=$a; done\necho built > "$o"\n')
    nvcc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    include = tmp_path / "include"
    include.mkdir()
    (include / "NvInferRuntime.h").write_text("")
    parts = (("MAJOR", 10), ("MINOR", 1), ("PATCH", 0))
    (include / "NvInferVersion.h").write_text("".join(f"#define NV_TENSORRT_{name} {n}\n" for name, n in parts))
    output = tmp_path / "out"
    arguments = ["plugins", "build", "relu_sigmoid", "--tensorrt-include", str(include), "--arch", "sm_80"]
    assert main([*arguments, "-o", str(output)]) == 0
    assert "for TensorRT 10.1.0" in capsys.readouterr().out
    assert (output / "libonnx_rewrite_relu_sigmoid.so").read_text() == "built\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["build", "nothing"], "there is no plugin 'nothing'"),
        (["list", "--arch", "sm_80"], "are of `rewrite plugins build`"),
        (["build", "--tensorrt-include", "nowhere"], "no NvInferVersion.h"),
        (["remove"], "remove"),
    ],
)
def test_refuses(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", *arguments]) == 2
    assert said in capsys.readouterr().err
