"""Runs this program again under Nsight Systems."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence

from onnx_rewrite.errors import UsageError


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
    return subprocess.run(command(report, arguments), check=False).returncode
