"""The programs of docs/extending.md run as they stand, and do what the page says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onnx_rewrite import demo

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def run(program: str, folder: Path) -> str:
    """What a program prints that is run beside a file model.onnx."""
    shutil.copy(demo.copy_model(folder), folder / "model.onnx")
    env = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_every_program_runs(number: int, tmp_path: Path) -> None:
    program = blocks("python")[number]
    if "graphsurgeon" in program:
        pytest.importorskip("onnx_graphsurgeon")
    assert "equivalent" in run(program, tmp_path)


def test_the_function_is_applied_and_a_lie_is_not(tmp_path: Path) -> None:
    pytest.importorskip("onnx_graphsurgeon")
    (program,) = [block for block in blocks("python") if "gs-min-max" in block]
    assert "gs-min-max[0] applied equivalent" in run(program, tmp_path)
    wrong = program.replace("inputs=[x, low, high]", "inputs=[x, high, low]")
    assert wrong != program
    assert "gs-min-max[0] rolled_back different" in run(wrong, tmp_path)


def test_the_entry_point_shown_is_the_examples() -> None:
    (block,) = blocks("toml")
    project = (ROOT / "examples" / "onnx-rewrite-hardswish" / "pyproject.toml").read_text(encoding="utf-8")
    assert block in project


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", PAGE)
    assert targets
    assert all((ROOT / "docs" / target).exists() for target in targets)
