"""`rewrite minimise MODEL --check CMD`: the smallest model that still shows a failure."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated

import onnx
from cyclopts import Parameter

from onnx_rewrite.cli import arguments, output
from onnx_rewrite.errors import UsageError

PLACE = "{}"
"""Where the command wants the model's path; else it is the last argument."""


def minimise(
    model: arguments.PathOrStdio,
    /,
    *,
    check: str,
    out: Annotated[str | None, Parameter(name=("--output", "-o"))] = None,
    seconds: float | None = None,
    timeout: float = 60.0,
) -> int:
    """Reduces a model; `onnx_rewrite.cli.texts.MINIMISE` describes the options."""
    from onnx_rewrite.model import load, to_proto
    from onnx_rewrite.pipeline.minimising import Minimiser, NotInteresting

    command = shlex.split(check)
    if not command:
        raise UsageError("--check is empty", hint="a command that ends with status 0 if the model shows the failure")
    destination = arguments.output_path(model, out, in_place=False, suffix=".minimal.onnx")
    if destination == "-":
        raise UsageError("a minimal model goes to a file", hint="-o FILE")
    loaded = load(model)
    proto = to_proto(loaded)
    if loaded.base_dir is not None:
        onnx.load_external_data_for_model(proto, str(loaded.base_dir))
    before = len(proto.graph.node)
    with tempfile.TemporaryDirectory(prefix="onnx-rewrite-") as folder, output.tracked() as progress:
        if progress is not None:
            progress.stage("nodes left", before)

        def shows(candidate: onnx.ModelProto) -> bool:
            path = Path(folder) / "candidate.onnx"
            onnx.save(candidate, path)
            return _run(command, path, timeout) == 0

        minimiser = Minimiser(proto, shows, seconds=seconds)
        try:
            smallest = minimiser.run()
        except NotInteresting:
            path = Path(folder) / "candidate.onnx"
            raise UsageError(
                f"the command ends with status {_run(command, path, timeout)} on the model itself; "
                "0 would say that it shows the failure",
                hint="try it by hand: " + shlex.join(_with(command, Path(model))),
            ) from None
    onnx.save(smallest, destination)
    human = output.console()
    human.print(f"{before:,} nodes to {len(smallest.graph.node):,}, after {minimiser.asked:,} tries", markup=False)
    human.print(f"written  {destination}", markup=False, soft_wrap=True)
    if len(smallest.graph.node) <= 12:
        human.print()
        human.print(onnx.printer.to_text(smallest), markup=False, soft_wrap=True)
    return 0


def _with(command: list[str], path: Path) -> list[str]:
    if any(PLACE in part for part in command):
        return [part.replace(PLACE, str(path)) for part in command]
    return [*command, str(path)]


def _run(command: list[str], path: Path, timeout: float) -> int:
    try:
        return subprocess.run(
            _with(command, path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=timeout, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return 124  # as timeout(1) says it
    except OSError as error:
        raise UsageError(f"--check: {command[0]}: {os.strerror(error.errno or 0)}", hint="give its path") from error
