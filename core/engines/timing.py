"""Timing engines side by side, and what is reported of it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

from onnx_rewrite.engines.protocol import Engine
from onnx_rewrite.report.schema import Latency
from onnx_rewrite.verify.dtypes import Array


@dataclass(frozen=True)
class Effort:
    """How long each engine is run.

    Attributes:
        warmup_seconds: Runs that begin before this are not counted; at least one is not. trtexec's default.
        seconds: Of counted runs.
        iterations: At least this many counted runs, however long they take. trtexec's default.
    """

    warmup_seconds: float = 0.2
    seconds: float = 1.0
    iterations: int = 10


def take_turns(engines: Sequence[Engine], feeds: Mapping[str, Array], effort: Effort) -> None:
    """Runs engines in turn, so that a machine that slows down slows all of them; their `timings` hold what counts.

    Raises:
        EngineError: One of them fails.
    """
    for engine in engines:
        began = perf_counter()
        engine.run(feeds)
        while perf_counter() - began < effort.warmup_seconds:
            engine.run(feeds)
        engine.timings.clear()
    turn = 0
    while any(not _enough(engine, effort) for engine in engines):
        # Whoever runs second finds the caches as the first left them: each is second every other time.
        for engine in engines if turn % 2 == 0 else reversed(engines):
            engine.run(feeds)
        turn += 1


def _enough(engine: Engine, effort: Effort) -> bool:
    done = engine.timings
    return len(done) >= effort.iterations and sum(one.seconds for one in done) >= effort.seconds


def percentile(ordered: Sequence[float], p: int) -> float:
    """The `p`-th percentile of sorted numbers as trtexec defines it: sorted[max(n - 1 - int((1 - p/100) n), 0)]."""
    n = len(ordered)
    return ordered[max(n - 1 - (100 - p) * n // 100, 0)]


def latency(seconds: Sequence[float]) -> Latency:
    """The distribution of some durations, in milliseconds."""
    ordered = sorted(1e3 * one for one in seconds)
    return Latency(
        median=statistics.median(ordered),
        p90=percentile(ordered, 90),
        p99=percentile(ordered, 99),
        p25=percentile(ordered, 25),
        p75=percentile(ordered, 75),
    )
