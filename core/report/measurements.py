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

NO_DIFFERENCE = "no difference"
"""What is said of two latencies whose quartiles overlap."""


def pairs(rows: Sequence[BenchmarkReport]) -> dict[str, Pair]:
    """The rows before and after of each engine."""
    found: dict[str, Pair] = {}
    for row in rows:
        before, after = found.get(row.engine, (None, None))
        found[row.engine] = (row, after) if row.model == "before" else (before, row)
    return found


def judged(before: BenchmarkReport | None, after: BenchmarkReport | None) -> Literal["faster", "slower", "same"] | None:
    """Whether the model after is faster; None if either was not run.

    "same" where the ranges between the quartiles overlap: then inferences of one model differ as much among themselves
    as those of the two models do.
    """
    if before is None or after is None:
        return None
    a, b = before.latency_ms, after.latency_ms
    if a.median is None or b.median is None:
        return None
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
        ("inferences per second", lambda row: row.throughput, _short, "" if same else None),
        ("layers", lambda row: row.layers or None, lambda n: f"{n:,.0f}", None),
        ("engine size", lambda row: row.engine_bytes or None, lambda n: wording.size(int(n)), None),
        ("build time", lambda row: row.build_seconds if row.built else None, wording.seconds, ""),
        ("error", lambda row: row.max_abs_error, wording.error, ""),
    )
    lines: list[tuple[str, str, str, str]] = []
    for what, number, words, ratio in times:
        before, after = (None if row is None else number(row) for row in pair)
        if before is None and after is None:
            continue
        texts = ["-" if value is None else words(float(value)) for value in (before, after)]
        lines.append((what, *texts, _ratio(before, after) if ratio is None else ratio))  # pyright: ignore[reportArgumentType]
    return lines


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
        console.print("  no difference in latency: the quartiles of the two overlap")
    elif gained is not None:
        before, after = (row.latency_ms.median or 0.0 for row in rows)
        quicker = gained == "faster"
        factor = max(before, after) / max(min(before, after), 1e-12)
        console.print(Text(f"  {gained}: {factor:.2f} times as {'fast' if quicker else 'slow'} (medians)"))
    if len(rows) == 2 and not rows[0].built and not rows[1].built and rows[0].error == rows[1].error:
        _failure("neither model could be built:", rows[0], console)
        return
    for row in rows:
        which = f"the model {row.model}" if len(rows) > 1 else "the model"
        _failure(f"{which} built, but" if row.built else f"{which} could not be built:", row, console)


def _failure(what: str, row: BenchmarkReport, console: Console) -> None:
    if row.error is not None:
        style = "yellow" if row.built else "red"
        console.print(Text.assemble("  ", (what, style), f" {row.error}".replace("\n", "\n  ")))
