from __future__ import annotations

import errno
import os
import re
import subprocess
import sys

import pytest

from onnx_rewrite.cli import app, main, texts


def options_of(command: str) -> set[str]:
    """The options of a command, as cyclopts understands its parameters."""
    root = app.build()
    target = root[command] if command else root
    names = {name for argument in target.assemble_argument_collection() for name in argument.names}
    return {name for name in names if name.startswith("-") and not name.startswith(("--no-", "--empty-"))}


@pytest.mark.parametrize("command", list(texts.BY_COMMAND))
def test_help_describes_the_options_that_there_are(command: str) -> None:
    described = re.findall(r"^  (-[^\s,]+)(?:, (--\S+))?", texts.BY_COMMAND[command], flags=re.MULTILINE)
    found = {name for pair in described for name in pair if name}
    extra = {"-h", "--help"} | ({"--version"} if not command else set())
    assert found == options_of(command) | extra


def test_help_names_every_command() -> None:
    assert set(app.COMMANDS) == set(texts.BY_COMMAND) - {""}
    for command in app.COMMANDS:
        assert re.search(rf"^  {command} ", texts.REWRITE, flags=re.MULTILINE)


@pytest.mark.parametrize("command", list(texts.BY_COMMAND))
def test_help_fits_80_columns(command: str) -> None:
    assert max(map(len, texts.BY_COMMAND[command].splitlines())) <= 80


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["m.onnx", "--help"], ["m.onnx", "--passes", "ln", "-h"]])
def test_help_of_the_program(rewrite, argv: list[str]) -> None:
    ran = rewrite(*argv)
    assert (ran.status, ran.out, ran.err) == (0, texts.REWRITE, "")


@pytest.mark.parametrize("command", [name for name in texts.BY_COMMAND if name])
def test_help_of_a_command(rewrite, command: str) -> None:
    ran = rewrite(command, "--help")
    assert (ran.status, ran.out) == (0, texts.BY_COMMAND[command])


def test_no_arguments_is_bad_usage(rewrite) -> None:
    ran = rewrite()
    assert (ran.status, ran.out, ran.err) == (2, "", texts.REWRITE)


def test_version(rewrite) -> None:
    ran = rewrite("--version")
    assert ran.status == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", ran.out)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from onnx_rewrite.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = {name.partition(".")[0] for name in done.stderr.split()}
    assert "onnx_rewrite" in imported
    assert not imported & {"numpy", "onnx", "onnx_ir", "onnxruntime", "rich", "cyclopts", "attrs", "dataclasses"}


class Full:
    """Standard output on a disk that is full."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def flush(self) -> None:
        pass

    def fileno(self) -> int:
        raise OSError("no file")


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_output_on_a_full_disk(
    argument: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    assert main([argument]) == 2
    assert capsys.readouterr().err == f"error: {os.strerror(errno.ENOSPC)}\n"
