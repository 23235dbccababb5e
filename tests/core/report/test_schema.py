from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_rewrite.report.schema import (
    BenchmarkReport,
    Latency,
    ModelInfo,
    ModelVerification,
    OutputInfo,
    PassReport,
    PassSeconds,
    Report,
    SiteReport,
    SiteVerification,
    TotalSeconds,
)

VERDICTS = st.sampled_from(["equivalent", "different", "inconclusive", "not verified"])
NUMBERS = st.floats()  # NaN and infinities included
COUNTS = st.integers(0, 2**40)
TEXTS = st.text(max_size=8)
NAMES = st.lists(TEXTS, max_size=3)
OPSETS = st.dictionaries(TEXTS, st.integers(1, 30), max_size=2)

SITES = st.builds(
    SiteReport,
    id=TEXTS,
    nodes=NAMES,
    inputs=NAMES,
    outputs=NAMES,
    status=st.sampled_from(["applied", "refused", "rolled_back"]),
    reason=st.none() | TEXTS,
    verification=st.none() | st.builds(SiteVerification, VERDICTS, NUMBERS, NUMBERS, NUMBERS, COUNTS),
    note=st.none() | TEXTS,
)
PASSES = st.builds(
    PassReport,
    name=TEXTS,
    applied=COUNTS,
    refused=COUNTS,
    rolled_back=COUNTS,
    sites=st.lists(SITES, max_size=2),
    seconds=st.builds(PassSeconds, NUMBERS, NUMBERS, NUMBERS),
)
ENGINES = st.builds(
    BenchmarkReport,
    engine=TEXTS,
    model=st.sampled_from(["before", "after"]),
    built=st.booleans(),
    error=st.none() | TEXTS,
    latency_ms=st.builds(Latency, st.none() | NUMBERS, st.none() | NUMBERS, st.none() | NUMBERS),
    throughput=st.none() | NUMBERS,
)
REPORTS = st.builds(
    Report,
    model=st.builds(ModelInfo, st.none() | TEXTS, TEXTS, OPSETS, COUNTS),
    output=st.builds(OutputInfo, st.none() | TEXTS, OPSETS, COUNTS),
    passes=st.lists(PASSES, max_size=2),
    verification=st.none() | st.builds(ModelVerification, VERDICTS, COUNTS, st.none() | TEXTS, NUMBERS),
    benchmark=st.lists(ENGINES, max_size=1),
    warnings=NAMES,
    seconds=st.builds(TotalSeconds, NUMBERS),
    peak_rss_mb=NUMBERS,
)


def _no_constant(name: str) -> Any:
    raise AssertionError(f"{name} is not JSON")


@given(REPORTS)
def test_json_and_back(report: Report) -> None:
    text = report.to_json()
    json.loads(text, parse_constant=_no_constant)
    again = Report.from_json(text)
    assert repr(again) == repr(report)  # NaN equals itself here
    assert again.to_json() == text


# The schema as users were promised it; changing it takes a new SCHEMA_VERSION.
PROMISED = {
    "": "schema model output passes verification benchmark warnings seconds peak_rss_mb",
    "model": "path sha256 opset nodes",
    "output": "path opset nodes",
    "passes": "name applied refused rolled_back sites seconds",
    "sites": "id nodes inputs outputs status reason verification note",
    "site": "verdict error_before error_after bound feeds",
    "pass seconds": "match apply verify",
    "verification": "verdict feeds worst_output max_abs_error",
    "benchmark": "engine version device precision model built error build_seconds engine_bytes layers latency_ms "
    "throughput max_abs_error relative_error shapes parts_ms ratio profile warnings cached",
    "latency": "median p90 p99 p25 p75 p95 min max mean cv",
}


def test_keys_and_their_order(report: Report) -> None:
    report.benchmark.append(BenchmarkReport("tensorrt-rtx"))
    data = json.loads(report.to_json())
    first = data["passes"][0]
    found = {
        "": data,
        "model": data["model"],
        "output": data["output"],
        "passes": first,
        "sites": first["sites"][0],
        "site": first["sites"][0]["verification"],
        "pass seconds": first["seconds"],
        "verification": data["verification"],
        "benchmark": data["benchmark"][0],
        "latency": data["benchmark"][0]["latency_ms"],
    }
    assert {name: " ".join(part) for name, part in found.items()} == PROMISED


def test_numpy_numbers_become_plain_ones() -> None:
    np = pytest.importorskip("numpy")
    report = Report(verification=ModelVerification("equivalent", np.int64(3), "y", np.float32("inf")))
    data = report.to_dict()["verification"]
    assert data == {"verdict": "equivalent", "feeds": 3, "worst_output": "y", "max_abs_error": "Infinity"}
    assert type(data["feeds"]) is int


def test_unknown_keys_are_ignored_and_missing_ones_take_their_default() -> None:
    report = Report.from_dict({"schema": 1, "of a later version": 1, "passes": [{"name": "ln", "extra": []}]})
    assert report == Report(passes=[PassReport("ln")])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "schema 1"),
        ({}, "'schema' is None"),
        ({"schema": 2}, "'schema' is 2"),
        ({"schema": 1, "passes": [{"applied": 1}]}, r"report.passes\[0\] lacks a key: .*'name'"),
        ({"schema": 1, "passes": [{"name": 7}]}, r"report.passes\[0\].name must be of type str, not int"),
        ({"schema": 1, "passes": {}}, "report.passes must be a list, not dict"),
        ({"schema": 1, "model": {"nodes": True}}, "report.model.nodes must be of type int, not bool"),
        ({"schema": 1, "model": {"opset": [1]}}, "report.model.opset must be an object, not list"),
        ({"schema": 1, "model": None}, "report.model must be an object, not null"),
        ({"schema": 1, "verification": {"verdict": "fine"}}, "report.verification.verdict must be one of 'equivalent'"),
        ({"schema": 1, "peak_rss_mb": "much"}, "report.peak_rss_mb must be of type float, not str"),
    ],
)
def test_what_is_no_report_is_refused(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Report.from_dict(data)


def test_totals(report: Report) -> None:
    assert (report.applied, report.refused, report.rolled_back) == (14, 1, 1)
