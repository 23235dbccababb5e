"""The commands of docs/engines.md that need no GPU run as they stand."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from onnx_rewrite import demo
from onnx_rewrite.cli import main
from onnx_rewrite.engines import registry

PAGE = (Path(__file__).parents[1] / "docs" / "engines.md").read_text(encoding="utf-8")


def test_commands_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    lack = registry.get("tensorrt-rtx").unavailable()
    if lack is not None:
        if os.environ.get("ONNX_REWRITE_REQUIRE_RTX") == "1":
            pytest.fail(lack.reason)
        pytest.skip(lack.reason)
    monkeypatch.chdir(tmp_path)
    demo.copy_model(Path())
    Path(demo.MODEL).rename("model.onnx")
    commands = re.search(r"```sh\n(.*?)```", PAGE, re.DOTALL)[1].splitlines()
    assert len(commands) == 3
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0, capsys.readouterr().err


def test_options_that_the_page_names_are_real() -> None:
    from onnx_rewrite.cli.texts import BENCH, REWRITE

    for option in set(re.findall(r"--[a-z][a-z-]+", PAGE)):
        assert option in BENCH or option in REWRITE
