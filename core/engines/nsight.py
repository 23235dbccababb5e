"""Runs this program again under Nsight Systems, with NVTX ranges for what it does."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

from onnx_rewrite.errors import UsageError

_MARK = "ONNX_REWRITE_NVTX"


def watched() -> bool:
    """Whether this process runs under Nsight Systems, started by `run`."""
    return _MARK in os.environ


def span(name: str) -> contextlib.AbstractContextManager[object]:
    """An NVTX range around what is done inside; nothing where nobody watches, or the package nvtx is not installed."""
    if not watched():
        return contextlib.nullcontext()
    try:
        return importlib.import_module("nvtx").annotate(name, domain="onnx-rewrite")
    except ImportError:
        return contextlib.nullcontext()


def command(report: str, arguments: Sequence[str]) -> list[str]:
    """The command line that profiles `rewrite ARGUMENTS`, the option that asked for it taken out."""
    rest: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == "--nsys":
            skip = True
        elif not argument.startswith("--nsys="):
            rest.append(argument)
    tracing = ["--trace=cuda,nvtx", "--cuda-graph-trace=node", "--force-overwrite=true", f"--output={report}"]
    return ["nsys", "profile", *tracing, sys.executable, "-m", "onnx_rewrite", *rest]


def run(report: str, arguments: Sequence[str]) -> int:
    """Profiles; returns the exit status.

    Raises:
        UsageError: There is no Nsight Systems on this machine.
    """
    if shutil.which("nsys") is None:
        raise UsageError(
            "--nsys: Nsight Systems (nsys) is not on this machine's PATH",
            hint="see https://developer.nvidia.com/nsight-systems, or use --profile",
        )
    return subprocess.run(command(report, arguments), env={**os.environ, _MARK: "1"}, check=False).returncode
