"""Timing engines side by side, and what is reported of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from onnx_rewrite.engines.nsight import span
from onnx_rewrite.engines.protocol import Bursting, Engine, Phases
from onnx_rewrite.report.schema import Latency, Ratio
from onnx_rewrite.verify.dtypes import Array

ROUNDS = 20
"""How often engines that repeat inferences by themselves take turns."""

_RESAMPLES = 2000
_ENQUEUE_BOUND = 0.8  # trtexec's thresholds for its warnings
_UNSTABLE = 0.025


@dataclass(frozen=True)
class Effort:
    """How long each engine is run.

    Attributes:
        warmup_seconds: Runs that begin before this are not counted; at least one is not. trtexec's default.
        seconds: Of counted runs; None: trtexec's 3 seconds on a GPU, 1 second elsewhere.
        iterations: At least this many counted runs, however long they take. trtexec's default.
    """

    warmup_seconds: float = 0.2
    seconds: float | None = None
    iterations: int = 10


def take_turns(
    engines: Sequence[Engine], feeds: Mapping[str, Array], effort: Effort, *, names: Sequence[str] = ()
) -> None:
    """Runs engines in turn, so that a machine that slows down slows all of them; their `timings` hold what counts.

    Engines that repeat inferences by themselves are given the machine for a while each, again and again.

    Raises:
        EngineError: One of them fails.
    """
    bursting = [engine for engine in engines if isinstance(engine, Bursting)]
    if engines and len(bursting) == len(engines):
        _bursts(bursting, feeds, effort, dict(zip(map(id, bursting), names, strict=False)))
        return
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


def _bursts(engines: Sequence[Bursting], feeds: Mapping[str, Array], effort: Effort, names: Mapping[int, str]) -> None:
    seconds = 3.0 if effort.seconds is None else effort.seconds
    for engine in engines:
        engine.burst(feeds, effort.warmup_seconds, 1)
        engine.timings.clear()
        engine.bursts.clear()
    for turn in range(ROUNDS):
        for engine in engines if turn % 2 == 0 else reversed(engines):
            if len(engines) > 1:  # the first inferences after the other's find its data in the caches
                counted = len(engine.timings), len(engine.bursts)
                engine.burst(feeds, 0.0, 3)
                del engine.timings[counted[0] :], engine.bursts[counted[1] :]
            with span(f"time {names.get(id(engine), '')}"):
                engine.burst(feeds, seconds / ROUNDS, math.ceil(effort.iterations / ROUNDS))


def _enough(engine: Engine, effort: Effort) -> bool:
    done = engine.timings
    seconds = 1.0 if effort.seconds is None else effort.seconds
    return len(done) >= effort.iterations and sum(one.seconds for one in done) >= seconds


def percentile(ordered: Sequence[float], p: int) -> float:
    """The `p`-th percentile of sorted numbers as trtexec defines it: sorted[max(n - 1 - int((1 - p/100) n), 0)]."""
    n = len(ordered)
    return ordered[max(n - 1 - (100 - p) * n // 100, 0)]


def latency(seconds: Sequence[float]) -> Latency:
    """The distribution of some durations, in milliseconds."""
    ordered = sorted(1e3 * one for one in seconds)
    mean = statistics.fmean(ordered)
    return Latency(
        median=statistics.median(ordered),
        p90=percentile(ordered, 90),
        p99=percentile(ordered, 99),
        p25=percentile(ordered, 25),
        p75=percentile(ordered, 75),
        p95=percentile(ordered, 95),
        min=ordered[0],
        max=ordered[-1],
        mean=mean,
        cv=statistics.pstdev(ordered, mean) / mean if mean else 0.0,
    )


def spans(phases: Sequence[Phases]) -> dict[str, Latency]:
    """The distribution of each part of some inferences, by name: "compute", "enqueue", "h2d", "d2h"."""
    parts: dict[str, Callable[[Phases], tuple[float, float]]] = {
        "compute": lambda one: one.compute,
        "enqueue": lambda one: one.enqueue,
        "h2d": lambda one: one.h2d,
        "d2h": lambda one: one.d2h,
    }
    found: dict[str, Latency] = {}
    for name, part in parts.items():
        found[name] = latency([(end - start) / 1e3 for start, end in map(part, phases)])
    return found


def warnings(parts: Mapping[str, Latency], *, graph: bool) -> list[str]:
    """What trtexec warns of: the host or transfers bound the throughput, or the times are unstable."""
    compute = parts["compute"].median or 0.0
    found: list[str] = []
    if (parts["enqueue"].median or 0.0) > _ENQUEUE_BOUND * compute:
        remedy = "" if graph else "; a CUDA graph may help"
        found.append(f"the host's enqueue time may bound the throughput rather than the GPU{remedy}")
    for name, words in (("h2d", "host-to-device transfers of the inputs"), ("d2h", "device-to-host transfers")):
        if (parts[name].median or 0.0) >= compute > 0:
            found.append(f"{words} may bound the throughput rather than the GPU")
    spread = parts["compute"].cv or 0.0
    if spread > _UNSTABLE:
        found.append(
            f"GPU compute time is unstable: coefficient of variation {100 * spread:.1f} % (locked clocks help)"
        )
    return found


def ratio(before: Sequence[float], after: Sequence[float], *, seed: int = 0) -> Ratio | None:
    """The ratio of the medians, after to before, with a 95 % confidence interval; None with too few durations.

    A block bootstrap: durations are cut into as many stretches as there are turns, and the stretches, not the
    durations, are drawn anew, the same for both. Neighbouring inferences are alike (clocks, caches), which drawing
    single ones would take for certainty.
    """
    if min(len(before), len(after)) < 10:
        return None
    blocks = min(ROUNDS, len(before) // 2, len(after) // 2)
    cut_before, cut_after = (np.array_split(np.asarray(one, np.float64), blocks) for one in (before, after))
    # The median of a stretch stands for it: the median of their medians is quick, and robust to a single outlier.
    first = np.array([np.median(block) for block in cut_before])
    second = np.array([np.median(block) for block in cut_after])
    drawn = np.random.default_rng(seed).integers(0, blocks, (_RESAMPLES, blocks))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.median(second[drawn], axis=1) / np.median(first[drawn], axis=1)
    middle = float(np.median(after)) / float(np.median(before)) if np.median(before) else math.nan
    low, high = (float(x) for x in np.percentile(found, (2.5, 97.5)))
    return Ratio(middle, min(low, middle), max(high, middle))
