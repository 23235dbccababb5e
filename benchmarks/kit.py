"""How many examples a second the testing kit examines.

An *example* is one property checked on one drawn model: the model drawn by hypothesis (several variants, where the
first does not go together), its shapes inferred, rewritten by the pass, and whatever else the property does to it:
rewriting it again, in a body, under other names; for the last three properties, running it in onnxruntime before and
after on several feeds. `rewrite test` shows a model to all properties of a strategy, and so does this; the row "drawn"
counts models that are drawn and rewritten, without any property.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import results

PASSES = ("clip", "bn", "ln")
WITH_ONNXRUNTIME = ("equivalent_by_the_judge", "equivalent_by_rounding", "near_misses_are_right")
WANTED = {"without onnxruntime": 300, "with onnxruntime": 150}


def timed(work: Callable[[], int]) -> dict[str, Any]:
    """Runs work that returns how many examples it examined; seconds of processor time and of wall clock."""
    began, clock = time.process_time(), time.perf_counter()
    count = work()
    cpu, wall = time.process_time() - began, time.perf_counter() - clock
    return {
        "examples": count,
        "cpu_seconds": round(cpu, 3),
        "wall_seconds": round(wall, 3),
        "per_cpu_second": round(count / cpu, 1),
        "per_wall_second": round(count / wall, 1),
    }


def examined(suite: Any, names: Sequence[str], examples: int, seed: int) -> int:
    """Runs properties; returns how many examples they examined.

    Raises:
        SystemExit: A property does not hold, so that the figures would mean nothing.
    """
    count = 0
    for ran in suite.run_all(names, examples=examples, seed=seed):
        if ran.failure is not None:
            raise SystemExit(ran.failure.text())
        count += ran.examples
    return count


def drawn(suite: Any, of: str, examples: int, seed: int) -> int:
    """Draws models and rewrites them; returns how many."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis import seed as seeded

    found: list[int] = []

    def body(example: Any) -> None:
        found.append(example.outcome.applied)

    checks: Any = list(HealthCheck)
    test: Any = settings(max_examples=examples, deadline=None, database=None, suppress_health_check=checks)(
        given(suite.strategy(of))(body)
    )
    seeded(seed)(test)()
    return len(found)


def measure(name: str, examples: int, seed: int) -> list[dict[str, Any]]:
    """The rows of one pass."""
    from onnx_rewrite.testing import PROPERTIES, PassTestSuite

    suite = type("Suite", (PassTestSuite,), {"pass_": name, "fires_at_least": 0.0})
    examined(suite, list(PROPERTIES), 10, seed + 1)  # imports, schemas, compiled patterns
    without = [p for p in PROPERTIES if p not in WITH_ONNXRUNTIME]
    rows: list[dict[str, Any]] = []
    for of in ("instances", "embed", "near_miss"):
        rows.append({"pass": name, "what": f"drawn: {of}", **timed(lambda of=of: drawn(suite, of, examples, seed + 2))})
    for what, names in (("without onnxruntime", without), ("with onnxruntime", list(WITH_ONNXRUNTIME))):
        count = {"properties": len(names)}
        rows.append({"pass": name, "what": what, **count, **timed(lambda n=names: examined(suite, n, examples, seed))})
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """A table of all rows."""
    table = Table(box=None)
    for name in ("pass", "what", "examples", "a CPU second", "a second", "wanted"):
        table.add_column(name, justify="left" if name in ("pass", "what") else "right")
    for row in rows:
        wanted = WANTED.get(row["what"])
        figures = (f"{row['examples']:,}", f"{row['per_cpu_second']:.0f}", f"{row['per_wall_second']:.0f}")
        table.add_row(row["pass"], row["what"], *figures, "" if wanted is None else f"{wanted}")
    Console(width=110).print(table)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks kit", description=__doc__)
    parser.add_argument("passes", nargs="*", default=list(PASSES))
    parser.add_argument("--examples", type=int, default=1000, help="per property")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-save", action="store_true", help="write no JSON")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in options.passes:
            rows += measure(name, options.examples, options.seed)
    show(rows)
    if not options.no_save:
        print(results.save("kit", rows, examples=options.examples, seed=options.seed, wanted=WANTED))
    slow = [r for r in rows if r["what"] in WANTED and r["per_cpu_second"] < WANTED[r["what"]]]
    return 1 if slow else 0
