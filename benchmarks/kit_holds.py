"""`python -m benchmarks kit-holds`: every property of our passes on many drawn examples.

As `rewrite test PASS --examples N --seed S` for several passes and seeds, with what the suites in tests/passes declare,
and with what was counted: how many examples were replaced, compared, explained by rounding, undetermined. Results of
passes and seeds that are not asked for stay in the file, and with each a fingerprint of what was drawn: the kit and the
patterns of passes change.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import re
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import results
from onnx_rewrite.testing import Example, PassTestSuite, Tape, Unfit
from onnx_rewrite.testing.drawing import VARIANTS, embedded, instance, missed
from onnx_rewrite.testing.sharing import processors
from onnx_rewrite.testing.subject import Subject, subject_of
from onnx_rewrite.testing.tape import LENGTH
from tests.passes import test_suites

DOCS = Path(__file__).parents[1] / "docs" / "testing.md"
PASSES = ("clip", "bn", "ln")
SEEDS = (11, 31)


def cpu_seconds() -> float:
    """Processor time so far, of this process and of those that it waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + used.ru_utime + used.ru_stime


def fingerprint(name: str) -> str:
    """Of what is drawn for a pass: the same as long as the same tapes give the same models."""
    subject, digest = subject_of(name), hashlib.sha256()
    for number in range(60):
        data = np.random.default_rng(number).bytes(LENGTH)
        found = varied(data, [instance, embedded, missed][number % 3], subject)
        digest.update(b"" if found is None else found.model.SerializeToString(deterministic=True))
    return digest.hexdigest()[:12]


def varied(data: bytes, draw: Callable[..., Example], subject: Subject) -> Example | None:
    """The first variant of a draw that goes together."""
    for variant in range(VARIANTS):
        try:
            return draw(subject, Tape(data, variant), variant)
        except Unfit:
            continue
    return None


def suite_of(name: str) -> type[PassTestSuite]:
    """The suite of a pass in tests/passes, with what it declares; else one that declares nothing."""
    for one in vars(test_suites).values():
        if isinstance(one, type) and issubclass(one, PassTestSuite) and one.pass_ == name:
            return one
    return type("Suite", (PassTestSuite,), {"pass_": name})


def held(name: str, seed: int, examples: int, jobs: int) -> dict[str, Any]:
    """The row of a pass and a seed."""
    suite = suite_of(name)
    began, clock = cpu_seconds(), time.perf_counter()
    counts: dict[str, dict[str, int]] = {}
    broken: dict[str, str] = {}
    for ran in suite.run_all(examples=examples, seed=seed, shrink=False, jobs=jobs):
        told = "holds" if ran.failure is None and not ran.rare else "fails"
        print(
            f"{time.perf_counter() - clock:7.0f} s  {name} {seed}: {ran.property} {told}", file=sys.stderr, flush=True
        )
        counts[ran.property] = {"examples": ran.examples, **dict(sorted(ran.counts.items()))}
        if ran.failure is not None:
            broken[ran.property] = ran.failure.text()
            print(broken[ran.property], file=sys.stderr, flush=True)  # at once: the next may take long
        elif ran.rare:
            broken[ran.property] = ran.rare
    return {
        "pass": name,
        "seed": seed,
        "examples": examples,
        "draws": fingerprint(name),
        "date": datetime.date.today().isoformat(),
        "holds": not broken,
        "broken": broken,
        "cpu_seconds": round(cpu_seconds() - began, 1),
        "wall_seconds": round(time.perf_counter() - clock, 1),
        "declared": {**suite.relaxed, **suite.still_legal, **({"nan": suite.nan} if suite.nan else {})},
        "properties": counts,
    }


def show(rows: list[dict[str, Any]]) -> None:
    """A table of all rows."""
    table = Table(box=None)
    for name in ("pass", "seed", "examples", "properties", "holds", "CPU s"):
        table.add_column(name, justify="left" if name in ("pass", "holds") else "right")
    for row in rows:
        told = "yes" if row["holds"] else ", ".join(row["broken"])
        figures = str(row["seed"]), f"{row['examples']:,}", str(len(row["properties"]))
        table.add_row(row["pass"], *figures, told, f"{row['cpu_seconds']:.0f}")
    Console(width=110).print(table)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks kit-holds", description=__doc__)
    parser.add_argument("passes", nargs="*", default=list(PASSES))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--examples", type=int, default=10_000, help="per property")
    parser.add_argument("--jobs", type=int, default=processors(), help="processes; default: one per processor")
    parser.add_argument("--no-save", action="store_true", help="write no JSON")
    parser.add_argument(
        "--write", action="store_true", help="the table of docs/testing.md from the kept results, alone"
    )
    options = parser.parse_args(arguments)
    if options.write:
        write()
        return 0
    rows: list[dict[str, Any]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in options.passes:
            for seed in options.seeds:
                row = held(name, seed, options.examples, options.jobs)
                rows.append(row)
                for text in row["broken"].values():
                    print(text)
                if not options.no_save:  # each at once: the next may take long
                    _save(row)
    show(rows)
    return 0 if all(row["holds"] for row in rows) else 1


def _save(row: dict[str, Any]) -> None:
    path = results.FOLDER / "kit-holds.json"
    known = json.loads(path.read_text())["rows"] if path.exists() else []
    others = [r for r in known if (r["pass"], r["seed"]) != (row["pass"], row["seed"])]
    results.save("kit-holds", sorted([*others, row], key=lambda r: (r["pass"], r["seed"])))


def kept() -> list[dict[str, Any]]:
    """The rows of the file."""
    return json.loads((results.FOLDER / "kit-holds.json").read_text())["rows"]


def page(rows: list[dict[str, Any]]) -> str:
    """The table of docs/testing.md."""
    lines = [
        "| pass | seed | examples of each property | date | holds | undetermined, explained, not run | a CPU second |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        counts = row["properties"]
        judge, rounding = (counts.get(f"equivalent_by_{name}", {}) for name in ("the_judge", "rounding"))
        replaced = sum(judge.values()) - judge.get("examples", 0)
        undetermined = judge.get("undetermined in part", 0), rounding.get("compared, undetermined in part", 0)
        told = f"{undetermined[0]} and {undetermined[1]}, {judge.get('explained by rounding', 0)}, "
        told += f"{rounding.get('does not run', 0)} of {replaced:,}"
        holds = f"all {len(counts)}" if row["holds"] else f"not: {', '.join(row['broken'])}"
        if row.get("declared"):
            holds += f"; declared: {', '.join(row['declared'])}"
        speed = sum(counted["examples"] for counted in counts.values()) / row["cpu_seconds"]
        figures = (
            f"{row['pass']} | {row['seed']} | {row['examples']:,} | {row['date']} | {holds} | {told} | {speed:.0f}"
        )
        lines.append(f"| {figures} |")
    return "\n".join(lines)


def write() -> None:
    """Puts the table where it stands in the page; says which rows are of other draws than today's."""
    for row in kept():
        if row.get("draws") != fingerprint(row["pass"]):
            print(f"{row['pass']} {row['seed']}: other draws than today's")
    text = DOCS.read_text(encoding="utf-8")
    table = f"<!-- holds -->\n{page(kept())}\n<!-- end of holds -->"
    text = re.sub(r"<!-- holds -->\n.*?<!-- end of holds -->", lambda _: table, text, flags=re.DOTALL)
    DOCS.write_text(text, encoding="utf-8")
