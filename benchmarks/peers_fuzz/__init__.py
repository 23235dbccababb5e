"""`python -m benchmarks peers-fuzz`: drawn graphs through other rewriters, and which properties each of them breaks.

Every peer lives in a process of its own, which answers one graph after the other and is started again when it crashes
or hangs. A property that breaks is shown on the smallest model that still breaks it. See docs/peers.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import results
from benchmarks.peers_fuzz import findings, growth, page, properties, stars
from benchmarks.peers_fuzz.adapters import ADAPTERS, PACKAGES, RULES
from benchmarks.peers_fuzz.drawing import Graphs
from benchmarks.peers_fuzz.findings import Failure, Tally
from benchmarks.peers_fuzz.workers import Missing, Worker
from onnx_rewrite import minimise

FURTHER_EVERY = 4
"""Of so many graphs one is also looked at for what needs further answers of the peer."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks peers-fuzz", description=__doc__)
    parser.add_argument("--graphs", type=int, default=300, help="per peer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peers", nargs="+", default=list(ADAPTERS), choices=list(ADAPTERS), metavar="PEER")
    parser.add_argument("--limit", type=float, default=20, help="seconds for one answer")
    parser.add_argument("--minutes", type=float, default=None, help="per peer: draws no more graphs after that")
    parser.add_argument("--shrink-seconds", type=float, default=15, help="for one minimal model")
    parser.add_argument("--growth", type=int, default=0, metavar="N", help="measures growth on so many graphs per peer")
    parser.add_argument("--failures", type=Path, default=Path("build/peers-fuzz"), help="a folder for minimal models")
    parser.add_argument("--add", action="store_true", help="to what is kept of the same version, with another seed")
    parser.add_argument("--write", action="store_true", help="the tables of docs/peers.md from the kept results, alone")
    options = parser.parse_args(arguments)
    if options.write:
        page.write()
        return 0
    tallies: list[Tally] = []
    for peer in options.peers:
        tally = fuzz(
            peer,
            options.graphs,
            options.seed,
            limit=options.limit,
            seconds=None if options.minutes is None else options.minutes * 60,
            shrink_seconds=options.shrink_seconds,
            repeated=options.growth,
        )
        findings.save(tally.findings, options.failures)
        tallies.append(tally)
        print(_line(tally), flush=True)
        # Kept at once, beside the rows of peers that this run does not look at.
        rows = merged([t.row() for t in tallies], add=options.add and tally is tallies[-1])
        path = results.save("peers-fuzz", rows, properties=properties.PROPERTIES)
    show(rows)
    print(path)
    ours = [t for t in tallies if t.peer == "onnx-rewrite" and t.broken]
    return 1 if ours else 0


def merged(rows: list[dict[str, Any]], *, add: bool = False) -> list[dict[str, Any]]:
    """The rows of this run and those that were kept of others, in the order of the peers.

    With `add`, the last row is counted together with what was kept of the same peer and version.
    """
    path = results.FOLDER / "peers-fuzz.json"
    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    found = {(row["peer"], row["version"]): row for row in kept}
    for row in rows[-1:]:
        key = row["peer"], row["version"]
        found[key] = together(found[key], row) if add and key in found else row
    order = list(ADAPTERS)
    return sorted(found.values(), key=lambda r: (order.index(r["peer"]) if r["peer"] in order else 99, r["version"]))


def together(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two runs of one peer as one row."""
    added = {name: one[name] + other[name] for name in ("graphs", "seconds", "crashes", "seeds", "findings")}
    broken = Counter(one["broken"]) + Counter(other["broken"])
    return {**other, **added, "broken": dict(sorted(broken.items()))}


def fuzz(
    peer: str,
    graphs: int,
    seed: int,
    *,
    limit: float = 20.0,
    seconds: float | None = None,
    shrink_seconds: float = 15.0,
    repeated: int = 0,
) -> Tally:
    """Gives one peer some graphs.

    Args:
        peer: Its name, or a module and a function, as `child.handler_of` takes it.
        graphs: How many.
        seed: Of the graphs.
        limit: Seconds for one answer.
        seconds: After so many, no more graphs are drawn; None: all are.
        shrink_seconds: For one minimal model.
        repeated: On how many graphs growth is measured.
    """
    tally = Tally(peer, _version(peer), seed=seed)
    drawn = Graphs(seed)
    failures: list[Failure] = []
    with Worker(peer, limit) as worker, Worker("judge", 60.0) as judge:
        try:
            worker.start()
        except Missing as missing:
            tally.missing = str(missing)
            return tally
        judge.start()
        began = time.monotonic()
        for number in range(graphs):
            if seconds is not None and time.monotonic() - began > seconds:
                break
            one = drawn.rule(number) if peer in RULES else drawn.draw(number)
            found, answer = properties.examine(worker, judge, one, further=number % FURTHER_EVERY == 0)
            tally.graphs += 1
            tally.broken.update(found.keys())
            after = answer.models[0] if answer.models else None
            failures += [Failure(name, reason, one, after) for name, reason in found.items()]
        tally.crashes = worker.crashes
        tally.seconds = time.monotonic() - began
        if repeated and peer not in RULES:
            grown = growth.measure(peer, drawn, repeated)
            tally.broken.update(f.property for f in grown)
            tally.findings = [
                findings.Finding(peer, f, f.drawn.told, 1, stars.of(peer, f.property, f.reason, f.drawn, None))
                for f in grown[:1]
            ]

        def shrink(failure: Failure) -> Failure:
            return findings.smallest(failure, worker, judge, shrink_seconds, minimise)

        tally.findings += findings.gather(peer, failures, shrink)
    return tally


def _version(peer: str) -> str:
    try:
        return importlib.metadata.version(PACKAGES.get(peer, peer))
    except importlib.metadata.PackageNotFoundError:
        return ""


def _line(tally: Tally) -> str:
    if tally.missing:
        return f"{tally.peer}: not installed ({tally.missing}); uv sync --group peers"
    broken = ", ".join(f"{n} {c}" for n, c in tally.broken.most_common()) or "nothing broken"
    return f"{tally.peer} {tally.version}: {tally.graphs} graphs in {tally.seconds:.0f} s: {broken}"


def show(rows: Sequence[dict[str, Any]]) -> None:
    """A table of peers and properties, and one of the hard cases."""
    there = [r for r in rows if "missing" not in r]
    names = [n for n in properties.PROPERTIES if any(n in r["broken"] for r in there)]
    table = Table(box=None, title="graphs for which a property does not hold")
    table.add_column("peer")
    for name in ("graphs", *names):
        table.add_column(name, justify="right")
    for row in there:
        told = (str(row["broken"].get(n, "")) for n in names)
        table.add_row(f"{row['peer']} {row['version']}", str(row["graphs"]), *told)
    console = Console(width=170)
    console.print(table)
    cases = Table(box=None, title="hard cases, found again by drawn graphs")
    for name in ("case", "found in", "nodes of the minimal model"):
        cases.add_column(name)
    for star in stars.STARS:
        of = [(r["peer"], f) for r in there for f in r["findings"] if f["star"] == star.name]
        peers = ", ".join(dict.fromkeys(peer.partition(",")[0] for peer, _ in of))
        cases.add_row(star.name, peers or "not found", str(min((len(f["operators"]) for _, f in of), default="")))
    console.print(cases)
