from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnx_rewrite.errors import UsageError
from onnx_rewrite.verify import metrics
from onnx_rewrite.verify.histogram import Counting
from onnx_rewrite.verify.measures import Measuring

ALL = tuple(metrics.METRICS)
FINITE = st.floats(-(2.0**99), 2.0**99, width=32)


def measured(a: np.ndarray, b: np.ndarray, reference: np.ndarray | None = None) -> dict[str, float]:
    measuring = Measuring("y", "y", ALL)
    measuring.add("feed", a, b, reference)
    return measuring.result().metrics


@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, min_side=0), elements=st.floats(width=32)))
def test_equal_arrays_are_perfect(a: np.ndarray) -> None:
    for name, value in measured(a, a.copy()).items():
        assert value == metrics.METRICS[name].perfect, name


@given(hnp.arrays(np.float32, (2, 7), elements=FINITE), hnp.arrays(np.float32, (2, 7), elements=FINITE))
def test_distances_are_symmetric_and_in_their_range(a: np.ndarray, b: np.ndarray) -> None:
    there, back = measured(a, b), measured(b, a)
    for name in ("abs", "mean", "rel", "ulp", "cosine"):
        assert there[name] == pytest.approx(back[name], rel=1e-12), name
    assert 0 <= there["mean"] <= there["abs"] * (1 + 1e-12)
    assert 0 <= there["rel"] <= 2
    assert -1 <= there["cosine"] <= 1
    assert 0 <= there["top-1"] <= 1
    assert there["abs"] == float(np.max(np.abs(a.astype(np.float64) - b)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("start", [0.0, 1.0, -1.0, 0.999, 1e-7, -2.0])
def test_ulps_count_representable_numbers(dtype: type, start: float) -> None:
    a = np.array([start]).astype(dtype)
    b, steps = a, 0
    while steps < 5:
        b, steps = np.nextafter(b, np.array([np.inf]).astype(dtype)), steps + 1
        assert metrics.ulps(a, b, metrics.gaps(a, b)) == steps


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_ulps_across_zero(dtype: type) -> None:
    tiny = np.nextafter(np.array([0.0]).astype(dtype), np.array([1.0]).astype(dtype))
    assert metrics.ulps(-tiny, tiny, metrics.gaps(-tiny, tiny)) == 2


def test_ulps_of_two_types_are_those_of_the_coarser() -> None:
    half = np.array([1.0], np.float16)
    within = np.array([1 + 2.0**-12], np.float32)  # rounds to 1 in float16
    next_one = np.array([1 + 2.0**-10], np.float32)
    assert metrics.ulps(half, within, metrics.gaps(half, within)) == 0
    assert metrics.ulps(next_one, half, metrics.gaps(half, next_one)) == 1


def test_zeros_of_both_signs_are_equal() -> None:
    found = measured(np.array([0.0], np.float32), np.array([-0.0], np.float32))
    assert found["ulp"] == found["abs"] == 0


@pytest.mark.parametrize("b", [np.nan, np.inf, -np.inf])
def test_what_is_finite_in_one_alone_is_infinitely_far(b: float) -> None:
    one = np.array([1.0, 2.0], np.float32)
    found = measured(one, np.array([1.0, b], np.float32))
    assert found["abs"] == found["mean"] == found["rel"] == found["ulp"] == math.inf
    assert found["psnr"] == -math.inf
    assert math.isnan(found["cosine"])
    for name, limit in (("abs", 1e300), ("cosine", -1.0), ("psnr", -1e300)):
        assert metrics.refused(found, {name: limit}) is not None
    same = measured(np.array([1.0, b], np.float32), np.array([1.0, b], np.float32))
    assert metrics.refused(same, {"abs": 0, "cosine": 1}) is None


def test_large_integers_whose_doubles_are_equal_differ() -> None:
    assert measured(np.array([2**53]), np.array([2**53 + 1]))["abs"] == 1


def test_top_1_takes_any_of_several_equal_ones() -> None:
    a = np.array([[1, 3, 3], [0, 1, 2]], np.float32)
    assert measured(a, np.array([[0, 0, 9], [0, 0, 9]], np.float32))["top-1"] == 1
    assert measured(a, np.array([[9, 0, 0], [0, 0, 9]], np.float32))["top-1"] == 0.5


def test_psnr_by_hand() -> None:
    assert measured(np.array([10.0, 0.0]), np.array([10.0, 1.0]))["psnr"] == pytest.approx(20 * math.log10(10 * 2**0.5))


@pytest.mark.parametrize("name", [*ALL])
def test_a_threshold_accepts_its_own_value_and_not_the_next(name: str) -> None:
    found = {name: 0.5}
    other = np.nextafter(0.5, 1 if metrics.METRICS[name].at_least else 0)
    assert metrics.refused(found, {name: 0.5}) is None
    assert metrics.refused(found, {name: float(other)}) is not None


def test_names() -> None:
    assert metrics.choose("cosine, abs", {"ulp": 1}) == ("abs", "ulp", "cosine")
    assert metrics.choose(None, {}) == metrics.DEFAULT
    with pytest.raises(UsageError, match="unknown metric 'cosin'") as caught:
        metrics.choose("cosin", {})
    assert "cosine" in str(caught.value.hint)


@given(hnp.arrays(np.float64, 20, elements=st.floats(0, 1e6)))
def test_a_histogram_counts_every_element_once(gaps: np.ndarray) -> None:
    counting = Counting()
    counting.add(gaps[:7])
    counting.add(gaps[7:])
    found = counting.result()
    assert found.total == 20
    assert found.zero == int(np.sum(gaps == 0))
    assert sum(found.per_decade().values()) == sum(found.counts)
    for decade, n in found.per_decade().items():
        near = np.sum((gaps >= 10.0**decade * (1 - 1e-9)) & (gaps < 10.0 ** (decade + 1) * (1 + 1e-9)))
        assert n <= near


def test_errors_against_a_reference_beyond_the_range_count_as_infinite() -> None:
    half = Measuring("y", "y", ("abs",), (1, 10))
    a, b = np.array([1e6], np.float32), np.array([np.inf], np.float16)
    half.add("feed", a, b, np.array([1e6]))
    assert half.result().error_b == 0
    full = Measuring("y", "y", ("abs",), (1, 1))
    full.add("feed", a, b.astype(np.float32), np.array([1e6]))
    assert full.result().error_b == math.inf
