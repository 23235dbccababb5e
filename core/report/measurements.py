"""The measurements of engines for a person: before and after side by side, and what the difference is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from rich.console import Console
from rich.text import Text

from onnx_rewrite.report import wording
from onnx_rewrite.report.schema import BenchmarkReport
from onnx_rewrite.report.terminal import table

Pair = tuple[BenchmarkReport | None, BenchmarkReport | None]
Number = Callable[[BenchmarkReport], "float | int | None"]

_WARNINGS = 4

NEGLIGIBLE = 0.005
"""What building the same model twice changes easily: smaller differences are none, however sure one is of them."""

NO_DIFFERENCE = "no difference"
"""What is said of two latencies that differ by no more than chance."""


def pairs(rows: Sequence[BenchmarkReport]) -> dict[str, Pair]:
    """The rows before and after of each engine; one that was built in several precisions is told apart by them."""
    grouped: list[Pair] = []
    for row in rows:
        before, after = grouped[-1] if grouped else (None, None)
        last = after or before
        taken = before if row.model == "before" else after
        if last is not None and last.engine == row.engine and taken is None:
            grouped[-1] = (row, after) if row.model == "before" else (before, row)
        else:
            grouped.append((row, None) if row.model == "before" else (None, row))
    engines = [(after or before).engine for before, after in grouped]  # pyright: ignore[reportOptionalMemberAccess]
    found: dict[str, Pair] = {}
    for engine, pair in zip(engines, grouped, strict=True):
        row = pair[1] or pair[0]
        name = engine if engines.count(engine) == 1 or row is None else f"{engine} {row.precision}"
        while name in found:
            name += "'"
        found[name] = pair
    return found


def judged(before: BenchmarkReport | None, after: BenchmarkReport | None) -> Literal["faster", "slower", "same"] | None:
    """Whether the model after is faster; None if either was not run.

    "same" where the confidence interval of the ratio holds 1, or a number `NEGLIGIBLE` away from it; in a report
    without an interval, where the ranges between the quartiles overlap: then inferences of one model differ as much
    among themselves as those of the two models do.
    """
    if before is None or after is None:
        return None
    a, b = before.latency_ms, after.latency_ms
    if a.median is None or b.median is None:
        return None
    if after.ratio is not None:
        if after.ratio.low <= 1 + NEGLIGIBLE and after.ratio.high >= 1 - NEGLIGIBLE:
            return "same"
        return "faster" if after.ratio.value < 1 else "slower"
    if None not in (a.p25, a.p75, b.p25, b.p75) and a.p25 <= b.p75 and b.p25 <= a.p75:  # pyright: ignore[reportOperatorIssue]
        return "same"
    return "faster" if b.median < a.median else "slower"


def render(rows: Sequence[BenchmarkReport], console: Console, *, missing: Sequence[str] = ()) -> None:
    """Prints a table of all engines, and below it a few lines per engine: what it is, what was gained, what failed.

    Args:
        rows: What was measured.
        console: Where to print it.
        missing: Engines that "auto" passed over, one "name: reason" each.
    """
    found = pairs(rows)
    compared = any(before is not None for before, _ in found.values())
    heads = ("engine", "", "before", "after", "ratio") if compared else ("engine", "", "value")
    shown = table(*heads, right=heads[2:])
    for name, pair in found.items():
        if any(row is not None and row.built for row in pair):
            for i, cells in enumerate(_lines(pair)):
                shown.add_row(Text(name if i == 0 else ""), *(cells if compared else (cells[0], cells[2])))
    if shown.row_count:
        console.print(shown)
    for i, (name, pair) in enumerate(found.items()):
        if shown.row_count or i:
            console.print()
        _notes(name, pair, console)
    if missing:
        console.print(Text(f"\nnot on this machine: {'; '.join(missing)}"))


def _lines(pair: Pair) -> list[tuple[str, str, str, str]]:
    """What is measured, before, after, ratio; nothing that was measured nowhere."""
    same = judged(*pair) == "same"
    times: tuple[tuple[str, Number, Callable[[float], str], str | None], ...] = (
        ("latency, median", lambda row: row.latency_ms.median, _milliseconds, NO_DIFFERENCE if same else None),
        ("latency, p99", lambda row: row.latency_ms.p99, _milliseconds, "" if same else None),
        ("enqueue, median", _part("enqueue"), _milliseconds, ""),
        ("inputs to the GPU, median", _part("h2d"), _milliseconds, ""),
        ("outputs from the GPU, median", _part("d2h"), _milliseconds, ""),
        ("inferences per second", lambda row: row.throughput, _short, "" if same else None),
        ("layers", lambda row: row.layers or None, lambda n: f"{n:,.0f}", None),
        ("engine size", lambda row: row.engine_bytes or None, lambda n: wording.size(int(n)), None),
        ("build time", lambda row: row.build_seconds if row.built else None, wording.seconds, ""),
        ("error", lambda row: row.max_abs_error, wording.error, ""),
        ("error / largest output", lambda row: row.relative_error, wording.error, ""),
    )
    lines: list[tuple[str, str, str, str]] = []
    for what, number, words, ratio in times:
        before, after = (None if row is None else number(row) for row in pair)
        if before is None and after is None:
            continue
        texts = ["-" if value is None else words(float(value)) for value in (before, after)]
        lines.append((what, *texts, _ratio(before, after) if ratio is None else ratio))  # pyright: ignore[reportArgumentType]
    return lines


def _part(name: str) -> Number:
    """The median of a part of an inference; None where it took no time, as transfers do that were left out."""

    def found(row: BenchmarkReport) -> float | None:
        part = row.parts_ms.get(name)
        return None if part is None or not part.median else part.median

    return found


def _ratio(before: float | None, after: float | None) -> str:
    if before is None or after is None or not before:
        return ""
    return "equal" if before == after else f"{after / before:.2f}"


def _short(value: float) -> str:
    """Three digits at least: "0.0140", "1.30", "12.3", "4,321"."""
    decimals = next((n for n, limit in enumerate((100, 10, 1, 0.1)) if value >= limit), 4)
    return f"{value:,.{decimals}f}"


def _milliseconds(value: float) -> str:
    return f"{_short(value)} ms"


def _notes(name: str, pair: Pair, console: Console) -> None:
    rows = [row for row in pair if row is not None]
    built = next((row for row in rows if row.built), None)
    gained = judged(*pair)
    if built is not None:
        shapes = ", ".join(f"{x} {list(shape)}" for x, shape in built.shapes.items())
        of = f" of {shapes}" if shapes else ""
        console.print(Text.assemble((name, "bold"), f" {built.version}, {built.device}, {built.precision}{of}"))
        run = any(row.latency_ms.median is not None for row in rows)
        if not run and not any(row.error for row in rows):
            console.print("  built for a GPU that need not be here, and not run: no latency, no error")
    else:
        console.print(Text.assemble((name, "bold"), f" {rows[0].version}"))
    if gained == "same":
        interval = None if pair[1] is None else pair[1].ratio
        if interval is None:
            console.print("  no difference in latency: the quartiles of the two overlap")
        else:
            words = f"the 95 % interval of the ratio is {interval.low:.3f} to {interval.high:.3f}"
            console.print(f"  no difference in latency: {words}")
    elif gained is not None:
        before, after = (row.latency_ms.median or 0.0 for row in rows)
        quicker = gained == "faster"
        factor = max(before, after) / max(min(before, after), 1e-12)
        sure = ""
        if pair[1] is not None and pair[1].ratio is not None:
            ends = sorted(max(x, 1 / max(x, 1e-12)) for x in (pair[1].ratio.low, pair[1].ratio.high))
            sure = f"; 95 % interval {ends[0]:.3f} to {ends[1]:.3f}"
        shown = f"{factor:.2f}" if factor >= 1.05 else f"{factor:.3f}"
        console.print(Text(f"  {gained}: {shown} times as {'fast' if quicker else 'slow'} (medians{sure})"))
    if len(rows) == 2 and not rows[0].built and not rows[1].built and rows[0].error == rows[1].error:
        _failure("neither model could be built:", rows[0], console)
        return
    for row in rows:
        which = f"the model {row.model}" if len(rows) > 1 else "the model"
        for words in dict.fromkeys(row.warnings[:_WARNINGS]):
            console.print(Text.assemble("  ", ("warning:", "yellow"), f" {which}: {' '.join(words.split())}"))
        if len(row.warnings) > _WARNINGS:
            console.print(f"  and {len(row.warnings) - _WARNINGS} more warnings of {which}, in --json")
        _failure(f"{which} built, but" if row.built else f"{which} could not be built:", row, console)


def _failure(what: str, row: BenchmarkReport, console: Console) -> None:
    if row.error is not None:
        style = "yellow" if row.built else "red"
        console.print(Text.assemble("  ", (what, style), f" {row.error}".replace("\n", "\n  ")))
