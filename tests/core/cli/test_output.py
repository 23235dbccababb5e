from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from onnx_rewrite.cli import output


def test_text_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    output.write_text(target, "→\n")
    assert target.read_bytes() == "→\n".encode()
    if os.name == "posix":
        plain = tmp_path / "plain"
        plain.touch()
        assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    output.write_text(target, "again\n")
    assert target.read_text(encoding="utf-8") == "again\n"
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "plain") == ["a.json"]


def test_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("before")
    with pytest.raises(UnicodeEncodeError):
        output.write_text(target, "lone surrogate \udc80")
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_program_is_named_as_it_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/rewrite"])
    assert output.program() == "rewrite"
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    assert output.program() == "uv run rewrite"
    monkeypatch.setattr(sys, "argv", ["/site-packages/onnx_rewrite/__main__.py"])
    assert output.program() == "python -m onnx_rewrite"


def test_no_progress_without_a_terminal() -> None:
    with output.tracked() as progress:
        assert progress is None


class Terminal:
    """Standard error that says that it is a terminal."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_vanishes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with output.tracked() as progress:
        assert progress is not None
        progress.advance()  # before any stage: nothing to advance
        progress.stage("verify", 3)
        progress.advance(2)
        progress.stage("save")
    assert "save" in terminal.text
    assert terminal.text.rstrip("\n").endswith(("\033[2K", "\033[?25h"))
