"""Consoles, progress and report files: everything that commands print or write besides models."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from onnx_rewrite.report.schema import Report

LOG_WIDTH = 120
"""Columns where the output is no terminal and COLUMNS is not set."""


def console(*, stderr: bool = False) -> Console:
    """A console on standard output or error: colours on a terminal only, no emoji, no guessing at numbers."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else LOG_WIDTH
    return Console(file=stream, width=width, highlight=False, emoji=False)


def program() -> str:
    """How this program was started, so that the commands it suggests work when they are copied."""
    if Path(sys.argv[0]).name == "__main__.py":
        return "python -m onnx_rewrite"
    return "uv run rewrite" if "UV_RUN_RECURSION_DEPTH" in os.environ else "rewrite"


class Tracker(Protocol):
    """What the pipeline tells of its progress."""

    def stage(self, name: str, total: int | None = None) -> None:
        """A new stage begins, of `total` steps where that is known."""
        ...

    def advance(self, n: int = 1) -> None:
        """`n` more steps of the stage are done."""
        ...


class _Bar:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def stage(self, name: str, total: int | None = None) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(name, total=total)

    def advance(self, n: int = 1) -> None:
        if self._task is not None:
            self._progress.advance(self._task, n)


@contextmanager
def tracked(*, quiet: bool = False) -> Generator[Tracker | None, None, None]:
    """A progress bar on standard error that vanishes at the end, or None where that is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        yield _Bar(progress)


def write_report(report: Report, path: Path) -> None:
    """Writes the report as JSON, or as HTML by the file's ending; whole or not at all."""
    if path.suffix.lower() == ".json":
        text = report.to_json()
    else:
        from onnx_rewrite.report.page import render

        text = render(report)
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text to a file that appears whole or not at all.

    Raises:
        OSError: It cannot be written; a file of that name is then as it was.
    """
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        if path.exists():
            shutil.copymode(path, temporary)
        else:
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
