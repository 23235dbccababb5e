"""`python -m benchmarks scaling`: seconds, growth and memory on synthetic graphs, beside the peers."""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import onnx
from rich.console import Console
from rich.table import Table

from benchmarks import results
from benchmarks.graphs import NODES_PER_BLOCK, blocks
from benchmarks.measure import best
from benchmarks.peers import PEERS

SIZES = (1_000, 5_000, 20_000, 50_000)
OURS_ONLY = 200_000
OURS = ("onnx-rewrite", "onnx-rewrite, verified")
TIMED_OUT = "stopped after"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks scaling", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="numbers of nodes")
    parser.add_argument("--opsets", type=int, nargs="+", default=[17], choices=[12, 17, 18])
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--limit", type=float, default=120, help="seconds per run")
    parser.add_argument("--best-of", type=int, default=1, help="runs of which the one with the least CPU time counts")
    parser.add_argument("--large", action="store_true", help=f"{OURS_ONLY:,} nodes too, this project alone")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for opset in options.opsets:
            rows += measure(Path(folder), opset, options)
    show(rows)
    print(results.save("scaling", rows))
    # Out of time is a result of a peer; whatever else ended a run, a package that is missing included, is a failure.
    failed = [r for r in rows if "error" in r and (r["peer"] in OURS or not r["error"].startswith(TIMED_OUT))]
    for row in failed:
        print(f"failed: {row['peer']} at {row['nodes']:,} nodes: {row['error']}")
    return 1 if failed else 0


def measure(folder: Path, opset: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per peer and size; a peer that failed, or ran out of time, is not tried on larger graphs."""
    rows: list[dict[str, Any]] = []
    given_up: dict[str, str] = {}
    for size in sorted(options.sizes) + ([OURS_ONLY] if options.large else []):
        source = folder / f"{size}_{opset}.onnx"
        onnx.save(blocks(math.ceil(size / NODES_PER_BLOCK), opset), source)
        for peer in options.peers:
            if size == OURS_ONLY and peer not in OURS:
                continue
            if peer in given_up:
                rows.append({"peer": peer, "opset": opset, "nodes": size, "error": given_up[peer]})
                continue
            found = best(peer, str(source), str(folder / "out.onnx"), options.limit, options.best_of)
            if "error" in found:
                given_up[peer] = f"{found['error']} (at {size:,} nodes)"
            rows.append({"peer": peer, "opset": opset, "nodes": size, **found})
            print(rows[-1], flush=True)
    return rows


def growth(rows: list[dict[str, Any]], peer: str, opset: int) -> float | None:
    """The exponent of processor time between 5,000 nodes, or the smallest size, and the largest that ended."""
    ended = [r for r in rows if r["peer"] == peer and r["opset"] == opset and "seconds" in r]
    ended = [r for r in ended if r["nodes"] >= 5_000] if len(ended) > 2 else ended
    if len(ended) < 2:
        return None
    first, last = ended[0], ended[-1]
    return math.log(last["cpu_seconds"] / first["cpu_seconds"]) / math.log(last["nodes"] / first["nodes"])


def show(rows: list[dict[str, Any]]) -> None:
    """The largest size of each peer, with its ratio to ours in the same run."""
    table = Table(box=None)
    for name in (
        "peer",
        "opset",
        "nodes",
        "seconds",
        "CPU",
        "of it rewriting",
        "nodes/s",
        "× our CPU",
        "growth",
        "peak MB",
        "in the result",
    ):
        table.add_column(name, justify="left" if name in ("peer", "in the result") else "right")
    base = {(r["opset"], r["nodes"]): r["cpu_seconds"] for r in rows if r["peer"] == "onnx-rewrite" and "seconds" in r}
    last = {(r["peer"], r["opset"]): r for r in rows}
    for (peer, opset), row in last.items():
        if "error" in row:
            table.add_row(peer, str(opset), f"{row['nodes']:,}", row["error"])
            continue
        exponent, ours = growth(rows, peer, opset), base.get((opset, row["nodes"]))
        table.add_row(
            peer,
            str(opset),
            f"{row['nodes']:,}",
            f"{row['seconds']:.2f}",
            f"{row['cpu_seconds']:.2f}",
            f"{row['stages'].get('rewrite', 0):.2f}",
            f"{row['nodes'] / row['seconds']:,.0f}",
            "" if not ours else f"{row['cpu_seconds'] / ours:.1f}",
            "" if exponent is None else f"n^{exponent:.2f}",
            f"{row['peak_rss_mb']:,.0f}",
            ", ".join(f"{n:,} {op}" for op, n in row["found"].items()),
        )
    Console(width=150).print(table)
