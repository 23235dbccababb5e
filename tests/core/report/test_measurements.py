from __future__ import annotations

import io

import pytest
from rich.console import Console

from onnx_rewrite.report import measurements, page, terminal
from onnx_rewrite.report.schema import BenchmarkReport, Latency, Report


def latency(median: float, spread: float = 0.1) -> Latency:
    return Latency(median, median * 1.2, median * 1.5, median * (1 - spread), median * (1 + spread))


def row(model: str, median: float | None, **other: object) -> BenchmarkReport:
    made = BenchmarkReport("onnxruntime", "1.31.0", "CPU (2 cores)", model=model, built=True, shapes={"x": [1, 3]})
    made.build_seconds, made.engine_bytes, made.layers = 0.25, 2_000_000, 1_200
    if median is not None:
        made.latency_ms, made.throughput, made.max_abs_error = latency(median), 1e3 / median, 1.5e-7
    for name, value in other.items():
        setattr(made, name, value)
    return made


def text_of(*rows: BenchmarkReport, width: int = 80, missing: tuple[str, ...] = ()) -> str:
    stream = io.StringIO()
    measurements.render(rows, Console(file=stream, width=width), missing=missing)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (latency(10), latency(5), "faster"),
        (latency(5), latency(10), "slower"),
        (latency(10), latency(9), "same"),
        (latency(10, 0.5), latency(5, 0.5), "same"),
        (latency(10), latency(10), "same"),
        (Latency(10), Latency(9), "faster"),  # of a report without quartiles
        (latency(10), Latency(), None),
    ],
)
def test_a_difference_is_one_only_if_the_quartiles_are_apart(
    before: Latency, after: Latency, verdict: str | None
) -> None:
    rows = [row("before", None, latency_ms=before), row("after", None, latency_ms=after)]
    assert measurements.judged(*rows) == verdict
    assert measurements.judged(None, rows[1]) is None


def test_side_by_side() -> None:
    text = text_of(row("before", 10.0), row("after", 5.0, layers=600, engine_bytes=2_000_000))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "engine before after ratio"
    for line in (
        "onnxruntime latency, median 10.0 ms 5.00 ms 0.50",
        "latency, p99 15.0 ms 7.50 ms 0.50",
        "inferences per second 100 200 2.00",
        "layers 1,200 600 0.50",
        "engine size 2.0 MB 2.0 MB equal",
        "build time 250 ms 250 ms",
        "error 1.5e-07 1.5e-07",
        "onnxruntime 1.31.0, CPU (2 cores), fp32 of x [1, 3]",
        "faster: 2.00 times as fast (medians)",
    ):
        assert line in lines


def test_no_difference_is_said_and_no_ratio_suggests_one() -> None:
    text = text_of(row("before", 10.0), row("after", 9.5))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "onnxruntime latency, median 10.0 ms 9.50 ms no difference" in lines
    assert "latency, p99 15.0 ms 14.2 ms" in lines
    assert "0.95" not in text
    assert "no difference in latency" in text


def test_slower_is_said() -> None:
    assert "slower: 1.50 times as slow" in text_of(row("before", 10.0), row("after", 15.0))


def test_what_was_not_run_has_no_latency() -> None:
    text = text_of(row("before", None), row("after", None))
    assert "median" not in text
    assert "not run: no latency, no error" in text


def test_failures_are_told_in_full() -> None:
    failed = BenchmarkReport(
        "onnxruntime", "1.31.0", model="before", error="cannot parse:\n  node [a]: no\n  node b: no"
    )
    text = text_of(failed, row("after", 5.0))
    assert "the model before could not be built: cannot parse:\n    node [a]: no\n    node b: no\n" in text
    assert "times as" not in text
    text = text_of(row("after", None, error="not run: no memory"))
    assert "the model built, but not run: no memory" in text
    text = text_of(failed, BenchmarkReport("onnxruntime", model="after", error="neither"))
    assert "ratio" not in text
    assert "the model after could not be built: neither" in text
    text = text_of(*(BenchmarkReport("e", "1", model=side, error="no") for side in ("before", "after")))
    assert text == "e 1\n  neither model could be built: no\n"


def test_one_model_alone_has_one_column() -> None:
    lines = [" ".join(line.split()) for line in text_of(row("after", 5.0)).splitlines()]
    assert lines[0] == "engine value"
    assert "onnxruntime latency, median 5.00 ms" in lines


def test_what_is_missing() -> None:
    assert text_of(row("after", 5.0), missing=("a: gone", "b: lost")).endswith(
        "\nnot on this machine: a: gone; b: lost\n"
    )


@pytest.mark.parametrize("width", [80, 120])
def test_fits_the_width(width: int) -> None:
    rows = [row("before", 12345.6), row("after", 12300.0)]
    rows += [row(side, None, engine="tensorrt-rtx", device="SM89 (ahead of time)") for side in ("before", "after")]
    assert max(map(len, text_of(*rows, width=width).splitlines())) <= width


def test_it_is_part_of_the_whole_report_in_every_form() -> None:
    failed = BenchmarkReport("tensorrt-rtx", error="node <b>: no")
    report = Report(benchmark=[row("before", 10.0), row("after", 5.0), failed])
    stream = io.StringIO()
    terminal.render(report, Console(file=stream, width=100), missing_engines=["tensorrt: gone"])
    assert "2.00 times as fast" in stream.getvalue()
    assert "not on this machine: tensorrt: gone" in stream.getvalue()
    html = page.render(report)
    for fact in ("10.000", "1,200", "2.0 MB", "1.5e-07", "node &lt;b&gt;: no"):
        assert fact in html
    assert Report.from_json(report.to_json()) == report
