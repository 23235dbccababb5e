"""`python -m benchmarks mutants`: which properties find which wrong passes and engines, after how many examples.

`--write` puts the table into docs/testing.md.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import results

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "testing.md"
HEAD = "| bug | in | hard case | found by, after so many examples |"
RULE = "|---|---|---|---|"


def mutants() -> dict[str, Any]:
    """The mutants of the tests."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    return importlib.import_module("tests.core.testing.mutants").MUTANTS


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks mutants", description=__doc__)
    parser.add_argument("--bugs", nargs="+", default=None, metavar="BUG")
    parser.add_argument("--all", action="store_true", help="asks every property, not only those that must find it")
    parser.add_argument("--write", action="store_true", help="the table into docs/testing.md, JSON into results")
    options = parser.parse_args(arguments)
    from onnx_rewrite.testing import PROPERTIES

    rows: list[dict[str, Any]] = []
    for bug, mutant in mutants().items():
        if options.bugs and bug not in options.bugs:
            continue
        began = time.perf_counter()
        found = {
            name: count
            for name in (PROPERTIES if options.all else mutant.by)
            if (count := _found(mutant, name)) is not None
        }
        row = {"bug": bug, "in": mutant.part, "hard case": mutant.case, "found by": found}
        rows.append(row)
        print(line(row), f"{time.perf_counter() - began:.0f} s", flush=True)
    missed = [row["bug"] for row in rows if not row["found by"]]
    print(f"{len(rows) - len(missed)} of {len(rows)} found" + (f"; not: {', '.join(missed)}" if missed else ""))
    if options.write:
        print(results.save("mutants", rows))
        write(rows)
    return 1 if missed else 0


def _found(mutant: Any, name: str) -> int | None:
    """After how many examples a property finds a mutant; None if it does not."""
    import tempfile

    from onnx_rewrite.testing import Violation

    with tempfile.TemporaryDirectory() as folder:
        try:
            ran = mutant.run(name, Path(folder))
        except Violation:  # too few of all examples are replaced
            return 300
    return ran.examples if ran.failure is not None else None


def line(row: dict[str, Any]) -> str:
    """One row of the table: the properties that need the fewest examples first."""
    found = sorted(row["found by"].items(), key=lambda item: item[1])
    told = ", ".join(f"`{name}` {count}" for name, count in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"| {row['bug']} | {row['in']} | {row['hard case']} | {told}{more} |"


def write(rows: Sequence[dict[str, Any]]) -> None:
    """Puts the table in the place of the one that is there."""
    text = DOCS.read_text(encoding="utf-8")
    table = "\n".join([HEAD, RULE, *map(line, rows)])
    text = re.sub(re.escape(HEAD) + r"\n(\|.*\n)*", lambda _: table + "\n", text)
    DOCS.write_text(text, encoding="utf-8")
