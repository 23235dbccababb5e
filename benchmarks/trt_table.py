"""The table of `python -m benchmarks tensorrt`: a row per model, passes, engine and precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

HEAD = (
    "model", "passes", "n", "engine", "ms", "ms after", "verdict", "95 % of ratio", "build s", "MB", "layers", "error",
)  # fmt: skip


def verdict(pair: dict[str, Any]) -> str:
    """In words what the passes gained in latency."""
    before, after = pair["before"], pair["after"]
    unbuilt = [side for side in ("before", "after") if not pair[side]["built"]]
    if unbuilt:
        return f"not built: {' and '.join(unbuilt)}"
    if pair["judged"] is None:
        return "not run"
    if pair["judged"] == "same":
        return "no gain"
    factor = before["latency_ms"]["median"] / after["latency_ms"]["median"]
    return f"{factor:.3f} times as fast" if factor >= 1 else f"slower, {1 / factor:.3f} times the time"


def line(row: dict[str, Any]) -> tuple[str, ...]:
    """The row's cells."""
    engine = ":".join(filter(None, (row["engine"].partition(":")[0], row.get("precision") or row["asked"])))
    head = (row["model"].removesuffix(".onnx"), row["passes"], str(row.get("applied", "")), engine)
    if "before" not in row:
        words = row.get("error") or row.get("verdict") or ""
        return (*head, "", "", " ".join(words.split())[:60], *[""] * 5)
    before, after = row["before"], row["after"]

    def two(make: Callable[[dict[str, Any]], str]) -> str:
        return " > ".join(make(side) if side["built"] else "-" for side in (before, after))

    def ms(side: dict[str, Any]) -> str:
        value = side["latency_ms"]["median"]
        return "-" if value is None else f"{value:.4f}"

    ratio = row["ratio"]
    return (
        *head,
        ms(before),
        ms(after),
        row["verdict"],
        f"{ratio['low']:.3f}-{ratio['high']:.3f}" if ratio else "",
        two(lambda side: f"{side['build_seconds']:.0f}"),
        two(lambda side: f"{side['engine_bytes'] / 1e6:.0f}"),
        two(lambda side: str(side["layers"] or "?")),
        two(error),
    )


def error(side: dict[str, Any]) -> str:
    """Relative to the largest output; where that is not known, as it is."""
    if side.get("relative_error") is not None:
        return f"{100 * float(side['relative_error']):.2g} %"
    return "-" if side["max_abs_error"] is None else f"{float(side['max_abs_error']):.1e}"


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the table, and what it does not say by itself: failures, and passes that gain nothing."""
    lines = [HEAD, *map(line, rows)]
    widths = [max(len(one[i]) for one in lines) for i in range(len(HEAD))]
    for one in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(one, widths, strict=True)).rstrip())
    for row in rows:
        errors = [row.get("error"), *(row.get(side, {}).get("error") for side in ("before", "after"))]
        for error in filter(None, errors):
            print(f"{row['model']} {row['passes']} {row['asked']}: {error[:300]}")
    for word, words in (("no gain", "no gain in latency"), ("the passes find nothing", "nothing to rewrite")):
        these = [
            f"{row['passes']} on {row['model'].removesuffix('.onnx')}" for row in rows if row.get("verdict") == word
        ]
        if these:
            print(f"{words}: {'; '.join(dict.fromkeys(these))}")
