"""Device time of short work on a GPU, without the host's: for `python -m benchmarks deform-kernel`."""

from __future__ import annotations

import statistics
import time
from typing import Any


def median_ms(run: Any, seconds: float = 0.02, most: int = 200) -> float:
    """Median of device times between events: at least 9, about `seconds` in all. L2 is as the last run left it.

    The device waits until everything is queued: otherwise it ends a run of 20 microseconds before the host has queued
    the next, and what is measured between two events is the host.

    Args:
        run: Queues the work on the current stream.
        seconds: Of device time.
        most: Times that it runs; a stream takes about a thousand kernels, events and graphs before the host must wait.
    """
    import torch

    def once() -> Any:
        pair = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        pair[0].record()
        run()
        pair[1].record()
        return pair

    for _ in range(3):
        run()
    torch.cuda.synchronize()
    began = time.perf_counter()
    first = [once() for _ in range(5)]
    host = (time.perf_counter() - began) / 5
    torch.cuda.synchronize()
    about = min(begin.elapsed_time(end) for begin, end in first)
    count = int(min(most, max(9, seconds * 1e3 / max(about, 1e-3))))
    pause(2.0 * host * count + 5e-4)
    events = [once() for _ in range(count)]
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in events)


def pause(seconds: float) -> None:
    """Keeps the device busy for about so long (at 1.755 GHz), at most 0.2 seconds."""
    import torch

    torch.cuda._sleep(int(min(seconds, 0.2) * 1.755e9))


def graphed(run: Any) -> Any:
    """The run as a CUDA graph, so that the time between its two launches is the device's own."""
    import torch

    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def interleaved_ms(runs: dict[str, Any], rounds: int = 7, seconds: float = 0.004) -> dict[str, list[float]]:
    """Medians of each run, in turn, `rounds` times: what differs between them but not between rounds is real."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(median_ms(run, seconds))
    return found
