"""Workers of `python -m benchmarks tensorrt` and `mhsa`, one job at a time each, under a deadline."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from benchmarks.trt_worker import ANSWER


class Worker:
    """A process that does one job after the other.

    Args:
        name: For its log.
        gpu: What CUDA_VISIBLE_DEVICES is set to; "" hides all; None leaves it.
        log: Where the process's messages go.
        module: What it runs.
    """

    def __init__(self, name: str, gpu: str | None, log: Path, module: str = "benchmarks.trt_worker") -> None:
        self.name, self._gpu, self._log, self._module = name, gpu, log, module
        self._process: subprocess.Popen[str] | None = None
        self._file: TextIO | None = None

    def do(self, job: dict[str, Any], until: float) -> dict[str, Any]:
        """The worker's answer, {"result": ...} or {"error": words}; past `until` (perf_counter) it is killed."""
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
        except OSError:
            pass  # what reading its answer says
        answers: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=self._read, args=(process, answers), daemon=True)
        reader.start()
        try:
            line = answers.get(timeout=max(until - time.perf_counter(), 0.01))
        except queue.Empty:
            self.close()
            return {"error": "the time was up", "late": True}
        reader.join()
        if line is None:
            status = process.wait()
            self.close()
            return {"error": f"the process ended with status {status}", "crashed": True}
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout, self._file):
                if stream is not None:
                    stream.close()
            self._process = self._file = None

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            environment = dict(os.environ)
            if self._gpu is not None:
                environment["CUDA_VISIBLE_DEVICES"] = self._gpu
            self._file = self._log.open("a", encoding="utf-8")
            self._process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-m", self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._file,
                env=environment,
                text=True,
                cwd=Path(__file__).resolve().parent.parent,
            )
        return self._process

    @staticmethod
    def _read(process: subprocess.Popen[str], answers: queue.Queue[str | None]) -> None:
        assert process.stdout is not None
        for line in process.stdout:  # a library may print there too
            if line.startswith(ANSWER):
                answers.put(line[len(ANSWER) :])
                return
        answers.put(None)


def gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES lets a process see, one by one; [] without a GPU."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [one.strip() for one in named.split(",") if one.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [str(i) for i, line in enumerate(listed.splitlines()) if line.startswith("GPU ")]
