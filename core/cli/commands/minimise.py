"""`rewrite minimise MODEL --check CMD`: the smallest model that still shows a failure."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import onnx
from cyclopts import Parameter

from onnx_rewrite.cli import arguments, output
from onnx_rewrite.errors import UsageError

PLACE = "{}"
"""Where the command wants the model's path; else it is the last argument."""

TIMED_OUT = 124
"""The status of a run that took too long, as timeout(1) says it."""

_MOST_IN_ONE_FILE = 1_900_000_000


def minimise(
    model: arguments.PathOrStdio,
    /,
    *,
    check: str,
    status: str = "0",
    says: str | None = None,
    out: Annotated[arguments.PathOrStdio | None, Parameter(name=("--output", "-o"))] = None,
    seconds: float | None = None,
    timeout: float = 60.0,
) -> int:
    """Reduces a model; `onnx_rewrite.cli.texts.MINIMISE` describes the options."""
    from onnx_rewrite.model import load, save, to_proto
    from onnx_rewrite.pipeline.minimising import Minimiser, NotInteresting
    from onnx_rewrite.pipeline.minimising.cuts import count_nodes

    command = shlex.split(check)
    if not command:
        raise UsageError("--check is empty", hint="a command that ends with status 0 if the model shows the failure")
    if timeout <= 0 or (seconds is not None and seconds <= 0):
        raise UsageError("--seconds and --timeout are more than 0")
    destination = arguments.output_path(model, out, in_place=False, suffix=".minimal.onnx")
    if destination == "-":
        raise UsageError("a minimal model goes to a file", hint="-o FILE")
    loaded = load(model)
    proto = to_proto(loaded)
    before = count_nodes(proto)
    with tempfile.TemporaryDirectory(prefix="onnx-rewrite-") as folder, output.tracked() as bar:
        candidate = Candidate(Path(folder) / "candidate.onnx", command, timeout)
        left = [before]
        if bar is not None:
            bar.stage("nodes taken away", before)

        def progress(nodes: int) -> None:
            if bar is not None:
                bar.advance(left[0] - nodes)
            left[0] = nodes

        wanted = Wanted(status, says)

        def shows(model: onnx.ModelProto) -> bool:
            return wanted.by(*candidate.outcome(model))

        minimiser = Minimiser(proto, shows, folder=loaded.base_dir, seconds=seconds, progress=progress)
        try:
            smallest = minimiser.run()
        except NotInteresting:
            raise UsageError(
                f"the model itself does not show it: the command ends with status {candidate.last}"
                f"{wanted.missing()}, and {wanted.told()}",
                hint="try it by hand: " + shlex.join(placed(command, Path(model))),
            ) from None
    save(load(smallest), destination)
    after = count_nodes(smallest)
    human = output.console()
    human.print(f"{before:,} nodes to {after:,}, after {minimiser.asked:,} tries", markup=False)
    if minimiser.late:
        human.print(f"stopped after {seconds:g} seconds: there may be a smaller one", markup=False)
    human.print(f"written  {destination}", markup=False, soft_wrap=True)
    if after <= 12:
        human.print()
        human.print(onnx.printer.to_text(smallest), markup=False, soft_wrap=True)
    return 0


@dataclass
class Wanted:
    """What shows the failure.

    Attributes:
        status: The exit status, or "same" for the one that the model itself gives, which is then not 0.
        says: A text that the command prints, or None.
    """

    status: str
    says: str | None

    def __post_init__(self) -> None:
        try:
            self._number = None if self.status == "same" else int(self.status)
        except ValueError:
            raise UsageError(f"--status {self.status}: neither a number nor 'same'") from None
        self._heard = True

    def by(self, status: int, printed: str) -> bool:
        """Whether a run of the command shows it; the first run is that of the model itself."""
        if self._number is None and status != 0:
            self._number = status
        self._heard = self.says is None or self.says in printed
        return status == self._number and self._heard

    def missing(self) -> str:
        """What the last run did not say."""
        return "" if self._heard else f" and does not print '{self.says}'"

    def told(self) -> str:
        """In words."""
        if self.status == "same":
            return "any but 0 would say that it does"
        return f"{self.status} would say that it does"


class Candidate:
    """A file that the command is run on.

    Args:
        path: The file.
        command: The command, in its parts.
        timeout: Seconds for one run.

    Attributes:
        last: The status of the last run.
    """

    def __init__(self, path: Path, command: Sequence[str], timeout: float) -> None:
        self._path, self._command, self._timeout = path, list(command), timeout
        self.last = 0

    def outcome(self, model: onnx.ModelProto) -> tuple[int, str]:
        """Writes a model, runs the command, and returns its status and what it printed.

        Raises:
            UsageError: There is no such command.
        """
        self._write(model)
        try:
            done = subprocess.run(
                placed(self._command, self._path),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=self._timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            self.last, printed = TIMED_OUT, late.output or b""
        except OSError as error:
            name = self._command[0]
            raise UsageError(f"--check: {name}: {os.strerror(error.errno or 0)}", hint="give its path") from error
        else:
            self.last, printed = done.returncode, done.stdout
        return self.last, printed.decode(errors="replace")

    def _write(self, model: onnx.ModelProto) -> None:
        from onnx_rewrite.pipeline.minimising.weights import nbytes

        data = self._path.with_suffix(".data")
        data.unlink(missing_ok=True)
        large = sum(nbytes(t) for t in model.graph.initializer) > _MOST_IN_ONE_FILE
        onnx.save(model, self._path, save_as_external_data=large, location=data.name)


def placed(command: Sequence[str], path: Path) -> list[str]:
    """The command with the path in its place."""
    if any(PLACE in part for part in command):
        return [part.replace(PLACE, str(path)) for part in command]
    return [*command, str(path)]
