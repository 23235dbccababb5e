from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_rewrite.engines.timing import Effort, latency, percentile, take_turns

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
