from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_rewrite.engines.protocol import Phases, Timing
from onnx_rewrite.engines.timing import ROUNDS, Effort, latency, percentile, ratio, spans, take_turns, warnings
from onnx_rewrite.report.schema import Latency

from .models import FakeEngine

FEEDS = {"x": np.zeros((2, 4), np.float32)}
SHORT = Effort(warmup_seconds=0.0, seconds=0.0, iterations=10)


@pytest.mark.parametrize(
    ("n", "p", "index"),
    [(100, 99, 98), (100, 90, 89), (100, 50, 49), (10, 90, 8), (10, 99, 9), (1, 50, 0), (3, 50, 1), (4, 50, 1)],
)
def test_percentiles_are_those_of_trtexec(n: int, p: int, index: int) -> None:
    assert percentile([float(i) for i in range(n)], p) == index


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=200))
def test_a_latency_is_ordered(seconds: list[float]) -> None:
    found = latency(seconds)
    ordered = [found.p25, found.median, found.p75, found.p90, found.p99]
    assert None not in ordered
    # The median of an even number lies between two of them, the percentiles are always one of them.
    assert ordered[0] <= ordered[2] <= ordered[3] <= ordered[4]
    assert 1e3 * min(seconds) <= found.median <= 1e3 * max(seconds)
    assert math.isclose(sorted(1e3 * s for s in seconds)[len(seconds) // 2], found.median) or len(seconds) % 2 == 0


def test_engines_take_turns_and_neither_is_always_first() -> None:
    log: list[str] = []
    take_turns([FakeEngine("a", 1.0, log), FakeEngine("b", 1.0, log)], FEEDS, SHORT)
    warm, rounds = log[:2], ["".join(log[i : i + 2]) for i in range(2, len(log), 2)]
    assert warm == ["a", "b"]
    assert rounds == ["ab", "ba"] * 5


def test_warming_up_does_not_count() -> None:
    engine = FakeEngine("a", 1.0, [])
    take_turns([engine], FEEDS, Effort(warmup_seconds=0.01, seconds=0.0, iterations=10))
    assert len(engine.timings) == 10
    assert len(engine.log) > 10


def test_both_conditions_hold_for_both_engines() -> None:
    quick, slow = FakeEngine("quick", 0.1, []), FakeEngine("slow", 0.5, [])
    take_turns([quick, slow], FEEDS, Effort(warmup_seconds=0.0, seconds=5.0, iterations=10))
    assert len(quick.timings) == len(slow.timings)
    assert sum(one.seconds for one in quick.timings) == pytest.approx(5.0, abs=0.11)


def test_nothing_to_run() -> None:
    take_turns([], {}, Effort())


@dataclass
class Burster:
    """Repeats pretended inferences: each takes what a list says, over and over."""

    name: str
    durations: list[float]
    log: list[str]
    timings: list[Timing] = field(default_factory=list)
    bursts: list[tuple[int, float]] = field(default_factory=list)
    clock: float = 0.0

    def burst(self, feeds: object, seconds: float, iterations: int) -> None:
        self.log.append(self.name)
        began, count = self.clock, 0
        while self.clock - began < seconds or count < iterations:
            one = self.durations[count % len(self.durations)]
            start = 1e3 * self.clock
            phases = Phases((start, start), (start, start), (start, start + 1e3 * one), (start + 1e3 * one,) * 2)
            self.timings.append(Timing(self.clock, one, phases))
            self.clock += one
            count += 1
        self.bursts.append((count, self.clock - began))


def test_bursts_take_turns_and_what_warms_up_does_not_count() -> None:
    log: list[str] = []
    a, b = Burster("a", [0.01], log), Burster("b", [0.01], log)
    take_turns([a, b], FEEDS, Effort(warmup_seconds=0.2, seconds=2.0, iterations=10))  # type: ignore[list-item]
    assert log[:6] == ["a", "b", "a", "a", "b", "b"]
    assert log[6:10] == ["b", "b", "a", "a"]
    assert len(a.bursts) == len(b.bursts) == ROUNDS
    assert sum(wall for _, wall in a.bursts) == pytest.approx(2.0, abs=0.3)
    assert len(a.timings) == sum(count for count, _ in a.bursts)


@given(st.lists(st.floats(0.5, 2.0), min_size=20, max_size=300), st.floats(0.2, 5.0))
def test_the_ratio_of_scaled_durations_is_the_scale(durations: list[float], scale: float) -> None:
    found = ratio(durations, [scale * one for one in durations])
    assert found is not None
    assert found.value == pytest.approx(scale)
    assert found.low <= found.value <= found.high
    same = ratio(durations, durations)
    assert same is not None
    assert same.low <= 1 <= same.high


def test_the_interval_covers_no_difference_about_as_often_as_it_says() -> None:
    """Durations drift slowly, as clocks do: the interval must not be as narrow as single inferences would make it."""
    rng = np.random.default_rng(1)
    held = 0
    for trial in range(100):
        drift = np.repeat(rng.normal(0, 0.01, (2, ROUNDS)), 50, axis=1)
        before, after = 1 + drift + rng.normal(0, 0.002, drift.shape)
        found = ratio(before.tolist(), after.tolist(), seed=trial)
        assert found is not None
        held += found.low <= 1 <= found.high
    assert held >= 85


def test_a_real_difference_is_seen() -> None:
    rng = np.random.default_rng(2)
    found = ratio(rng.normal(1, 0.01, 1000).tolist(), rng.normal(0.97, 0.01, 1000).tolist())
    assert found is not None
    assert 0.96 < found.low < found.value < found.high < 0.98
    assert ratio([1.0] * 5, [1.0] * 100) is None


def parts(compute: list[float], enqueue: float = 0.0, h2d: float = 0.0, d2h: float = 0.0) -> dict[str, Latency]:
    phases = [Phases((0.0, enqueue), (0.0, h2d), (h2d, h2d + one), (9.0, 9.0 + d2h)) for one in compute]
    return spans(phases)


def test_spans() -> None:
    found = parts([1.0, 2.0, 3.0, 4.0], 0.5, 0.25, 0.125)
    compute = found["compute"]
    assert (compute.median, compute.mean, compute.min, compute.max) == (2.5, 2.5, 1, 4)
    assert compute.cv == pytest.approx(np.std([1, 2, 3, 4]) / 2.5)
    assert [found[name].median for name in ("enqueue", "h2d", "d2h")] == pytest.approx([0.5, 0.25, 0.125])


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (parts([1.0] * 9, enqueue=0.81), ["enqueue time may bound"]),
        (parts([1.0] * 9, enqueue=0.79), []),
        (parts([1.0] * 9, h2d=1.01), ["host-to-device"]),
        (parts([1.0] * 9, d2h=1.01), ["device-to-host"]),
        (parts([1.0] * 9 + [1.1]), ["coefficient of variation"]),
        (parts([1.0] * 9 + [1.05]), []),
    ],
)
def test_warnings_are_those_of_trtexec(found: dict[str, Latency], words: list[str]) -> None:
    said = warnings(found, graph=False)
    assert len(said) == len(words)
    assert all(word in one for word, one in zip(words, said, strict=True))
