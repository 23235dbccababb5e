"""The parent's side of the child processes: asks, waits no longer than a limit, starts a new one after a crash."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO, cast

import onnx

ROOT = Path(__file__).parents[2]

STARTING = 120.0
"""Seconds for a child's imports."""


class Missing(Exception):
    """A peer is not installed; the message says what is missing."""


class Died(Exception):
    """A child ended, or had to be ended; the message says how."""


@dataclass
class Answer:
    """What a child said.

    Attributes:
        notes: Its line.
        models: Its models.
        failure: Why there is none: an exception of the peer, a crash, or the time limit; else "".
    """

    notes: dict[str, Any] = field(default_factory=dict)
    models: list[onnx.ModelProto] = field(default_factory=list)
    failure: str = ""


class Worker:
    """One child process, started at the first request and after each crash.

    Args:
        name: As `child.handler_of` takes it.
        limit: Seconds for one request.
        environment: What differs from this process's.
    """

    def __init__(self, name: str, limit: float = 20.0, environment: dict[str, str] | None = None) -> None:
        self.name, self.limit = name, limit
        self.crashes = 0
        self._environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        self._environment |= {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the child."""
        if self._process is not None:
            for pid in {self._servant, self._process.pid}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    cast(BinaryIO, stream).close()
            self._errors.close()
            self._process = None

    def start(self) -> None:
        """Starts the child if there is none.

        Raises:
            Missing: The peer is not installed.
            Died: It does not start.
        """
        if self._process is not None:
            return
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (as long as the child lives)
        command = [sys.executable, "-m", "benchmarks.peers_fuzz.child", self.name]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env=self._environment,
        )
        self._buffer, self._servant = b"", self._process.pid
        self._await_ready(monotonic() + STARTING)

    def ask(self, models: Sequence[onnx.ModelProto], **line: Any) -> Answer:
        """One request.

        Raises:
            Missing: The peer is not installed.
        """
        self.start()
        assert self._process is not None
        blobs = [m.SerializeToString(deterministic=True) for m in models]
        head = json.dumps({**line, "sizes": [len(b) for b in blobs]}).encode()
        try:
            stream = cast(BinaryIO, self._process.stdin)
            stream.write(head + b"\n" + b"".join(blobs))
            stream.flush()
            told, made = self._answer(monotonic() + self.limit)
        except (Died, BrokenPipeError) as error:
            return Answer(failure=self._again(str(error)))
        if "died" in told:
            return Answer(failure=self._again(self._how_it_ended(told["died"])))
        if "error" in told:
            return Answer(told, failure=f"raises {told['error']}")
        return Answer(told, [onnx.ModelProto.FromString(m) for m in made])

    def _again(self, reason: str) -> str:
        """Gets another servant in place of one that died, or has to be ended; returns the reason."""
        self.crashes += 1
        assert self._process is not None
        try:
            if self._servant == self._process.pid:  # no fork on this system
                raise Died("")
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._servant, signal.SIGKILL)
            self._await_ready(monotonic() + STARTING)
        except (Died, BrokenPipeError):
            self.close()
        return reason

    def _await_ready(self, until: float) -> None:
        while True:
            told, _ = self._answer(until)
            if "missing" in told:
                self.close()
                raise Missing(told["missing"])
            if "ready" in told:
                self._servant = told["ready"]
                return

    def _answer(self, until: float) -> tuple[dict[str, Any], list[bytes]]:
        while b"\n" not in self._buffer:
            self._more(until)
        line, _, self._buffer = self._buffer.partition(b"\n")
        told = json.loads(line)
        made: list[bytes] = []
        for size in told["sizes"]:
            while len(self._buffer) < size:
                self._more(until)
            made.append(self._buffer[:size])
            self._buffer = self._buffer[size:]
        return told, made

    def _more(self, until: float) -> None:
        assert self._process is not None
        stream = cast(BinaryIO, self._process.stdout)
        ready, _, _ = select.select([stream], [], [], max(0.0, until - monotonic()))
        if not ready:
            raise Died(f"no answer in {self.limit:g} s")
        found = os.read(stream.fileno(), 1 << 16)
        if not found:
            raise Died(self._how_it_ended(self._process.wait()))
        self._buffer += found

    def _how_it_ended(self, status: int) -> str:
        self._errors.seek(0)
        last = [line for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()][-1:]
        self._errors.truncate(0)
        how = f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return f"{how}{f': {last[0].strip()[:200]}' if last else ''}"
