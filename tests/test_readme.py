"""What README.md and the help texts show works as shown."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onnx_rewrite import demo
from onnx_rewrite.cli import app, texts

ROOT = Path(__file__).resolve().parent.parent


def blocks(language: str, name: str = "README.md") -> list[str]:
    """The fenced blocks of a language."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The command lines that begin with `rewrite`, without comments, pipes and redirections."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    lines += [
        line.strip() for text in texts.BY_COMMAND.values() for line in text.partition("Examples:")[2].splitlines()
    ]
    found = [re.sub(r"^.*\| *", "", line) for line in lines]
    return sorted({re.split(r"\s+[#<>]", line)[0].strip() for line in found if line.startswith("rewrite ")})


@pytest.mark.parametrize("line", commands())
def test_every_command_shown_is_understood(line: str) -> None:
    arguments = shlex.split(line)[1:]
    tokens = ["\0-" if token == "-" else token for token in arguments]
    command, bound, *_ = app.build().parse_args(tokens, exit_on_error=False, print_error=False)
    expected = arguments[0] if arguments[0] in app.COMMANDS else "rewrite"
    assert command.__name__ == expected
    assert bound is not None


def test_there_are_commands_and_programs_to_test() -> None:
    assert len(commands()) >= 15
    assert len(blocks("python")) >= 2


def run(program: str, folder: Path) -> str:
    """What a program prints that is run beside a file model.onnx."""
    shutil.copy(demo.copy_model(folder), folder / "model.onnx")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python(number: int, tmp_path: Path) -> None:
    """Every program runs as it stands, and what it does is equivalent."""
    printed = run(blocks("python")[number], tmp_path)
    assert "applied" in printed
    assert "equivalent" in printed


def test_the_mistake_that_is_described_is_rolled_back(tmp_path: Path) -> None:
    wrong = 'op.Gelu(m.x, approximate="tanh")'
    assert f"`{wrong}`" in (ROOT / "README.md").read_text(encoding="utf-8")
    (program,) = [block for block in blocks("python") if "op.Gelu(m.x)" in block]
    assert "rolled_back" in run(program.replace("op.Gelu(m.x)", wrong), tmp_path)
