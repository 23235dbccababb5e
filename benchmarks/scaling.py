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
from benchmarks.measure import run
from benchmarks.peers import PEERS, missing

SIZES = (1_000, 5_000, 20_000, 50_000)
OURS_ONLY = 200_000


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks scaling", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="numbers of nodes")
    parser.add_argument("--opsets", type=int, nargs="+", default=[17], choices=[12, 17, 18])
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--limit", type=float, default=120, help="seconds per run")
    parser.add_argument("--large", action="store_true", help=f"{OURS_ONLY:,} nodes too, this project alone")
    options = parser.parse_args(arguments)
    absent = missing()
    if absent and options.peers == list(PEERS):
        print(f"not installed: {', '.join(absent)} (pip install 'onnx-rewrite[bench]')")
        return 2
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for opset in options.opsets:
            rows += measure(Path(folder), opset, options)
    show(rows)
    print(results.save("scaling", rows))
    return 1 if any("error" in row and row["peer"].startswith("onnx-rewrite") for row in rows) else 0


def measure(folder: Path, opset: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per peer and size; a peer that ran out of time is not tried on larger graphs."""
    rows: list[dict[str, Any]] = []
    given_up: set[str] = set()
    for size in sorted(options.sizes) + ([OURS_ONLY] if options.large else []):
        source = folder / f"{size}_{opset}.onnx"
        onnx.save(blocks(math.ceil(size / NODES_PER_BLOCK), opset), source)
        for peer in options.peers:
            if peer in given_up or (size == OURS_ONLY and peer != "onnx-rewrite"):
                continue
            found = run(peer, str(source), str(folder / "out.onnx"), options.limit)
            if "error" in found:
                given_up.add(peer)
            rows.append({"peer": peer, "opset": opset, "nodes": size, **found})
            print(rows[-1], flush=True)
    return rows


def growth(rows: list[dict[str, Any]], peer: str, opset: int) -> float | None:
    """The exponent between 5,000 nodes and the largest size that ended."""
    ended = [r for r in rows if r["peer"] == peer and r["opset"] == opset and "seconds" in r and r["nodes"] >= 5_000]
    if len(ended) < 2:
        return None
    first, last = ended[0], ended[-1]
    return math.log(last["seconds"] / first["seconds"]) / math.log(last["nodes"] / first["nodes"])


def show(rows: list[dict[str, Any]]) -> None:
    """The largest size of each peer, with its ratio to ours in the same run."""
    table = Table(box=None)
    for name in (
        "peer",
        "opset",
        "nodes",
        "seconds",
        "of it rewriting",
        "× ours",
        "growth",
        "peak MB",
        "in the result",
    ):
        table.add_column(name, justify="left" if name in ("peer", "in the result") else "right")
    base = {(r["opset"], r["nodes"]): r["seconds"] for r in rows if r["peer"] == "onnx-rewrite" and "seconds" in r}
    last = {(r["peer"], r["opset"]): r for r in rows if r["nodes"] != OURS_ONLY or r["peer"] == "onnx-rewrite"}
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
            f"{row['stages'].get('rewrite', 0):.2f}",
            "" if not ours else f"{row['seconds'] / ours:.1f}",
            "" if exponent is None else f"n^{exponent:.2f}",
            f"{row['peak_rss_mb']:,.0f}",
            ", ".join(f"{n:,} {op}" for op, n in row["found"].items()),
        )
    Console(width=150).print(table)
