"""The command line. `main` is the entry point of the program `rewrite` and of `python -m onnx_rewrite`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

STDIO_TOKEN = "\0-"
"""Stands for the argument "-" while arguments are parsed."""

EXIT_USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status; never raises for what a user can cause.

    `--help` and `--version` are answered here, before anything heavy is imported, because the libraries that
    parse and print everything else take longer to import than a help text may take to appear.

    Args:
        argv: The arguments without the program's name; `sys.argv[1:]` by default.

    Returns:
        0 done; 1 not equivalent, or `--strict` and not everything was verified; 2 bad usage or an unreadable
        model; 70 an error in this program; 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _answer(arguments)
    except OSError as error:
        drop_output()
        return fail(error.strerror or str(error), None, EXIT_USAGE)
    if status is not None:
        return status
    if argv is None:  # the process is this program's own
        from onnx_rewrite.deferral import defer

        defer()
    from onnx_rewrite.cli.app import run

    return run(arguments)


def _answer(arguments: Sequence[str]) -> int | None:
    """Prints help or the version if they are asked for; returns None if they are not."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if not arguments or "--help" in options or "-h" in options:
        from onnx_rewrite.cli import texts

        texts.show(arguments[0] if arguments else "", sys.stdout if arguments else sys.stderr)
        return 0 if arguments else EXIT_USAGE
    if arguments[0] == "--version":
        from onnx_rewrite import __version__

        print(__version__, flush=True)
        return 0
    return None


def fail(message: str, hint: str | None, status: int) -> int:
    """Prints a message and a hint on standard error, and returns `status`."""
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    return status


def drop_output() -> None:
    """Lets what is still to be written to standard output vanish.

    Whoever read it has gone, or the disk is full: Python's last flush must not raise that a second time.
    """
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
