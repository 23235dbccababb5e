"""Runs peers in processes of their own, with a time limit."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def best(peer: str, source: str, target: str, limit: float, times: int) -> dict[str, Any]:
    """The run that took the least processor time of several, or {"error": ...} if one failed."""
    runs: list[dict[str, Any]] = []
    for _ in range(times):
        runs.append(run(peer, source, target, limit))
        if "error" in runs[-1]:
            return runs[-1]
    return min(runs, key=lambda found: found["cpu_seconds"])


def run(peer: str, source: str, target: str, limit: float) -> dict[str, Any]:
    """What one run of a peer gave, or {"error": ...}: it failed, took too long, or is not installed.

    Args:
        peer: A key of `benchmarks.peers.PEERS`.
        source: The model.
        target: Where to write the result.
        limit: Seconds after which it is stopped.
    """
    command = [sys.executable, "-m", "benchmarks.child", peer, source, target]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"error": f"stopped after {limit:g} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"seconds"')]
    if done.returncode or not lines:
        words = (done.stderr or done.stdout).strip().splitlines()
        return {"error": words[-1][:200] if words else f"exit status {done.returncode}"}
    return json.loads(lines[-1])
