"""How many examples a second the testing kit examines.

An *example* is one property checked on one drawn model: the model drawn by hypothesis (further variants of the draw
where the first does not go together), its shapes inferred, rewritten by the pass, and whatever else the property does
with it: rewriting it again, in a body, in copies, under other names; for three properties, running it in onnxruntime
before and after on several feeds. A drawn model is shown to all properties of its strategy, as `rewrite test` does.

"without onnxruntime" are the properties that run no model, "with onnxruntime" is the whole suite, "onnxruntime alone"
the three properties that run models and nothing else. "drawn" counts models that are drawn and rewritten, without a
property.

"a CPU second" is what one core does, all of it in this process. "on all processors" runs as many processes as there are
processors, as `rewrite test` does, and counts seconds of the clock, their start included; "cores had" says how much of
the processors they got, which is less where the machine has other work.
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
from benchmarks.kit_holds import cpu_seconds
from onnx_rewrite.testing.sharing import processors

PASSES = ("clip", "bn", "ln")
WITH_ONNXRUNTIME = ("equivalent_by_the_judge", "equivalent_by_rounding", "near_misses_are_right")
ON_ALL = ", on all processors"
WANTED = {"without onnxruntime" + ON_ALL: 300, "with onnxruntime" + ON_ALL: 150}


def timed(work: Callable[[], int]) -> dict[str, Any]:
    """Runs work that returns how many examples it examined; seconds of processor time and of wall clock."""
    began, clock = cpu_seconds(), time.perf_counter()
    count = work()
    cpu, wall = cpu_seconds() - began, time.perf_counter() - clock
    return {
        "examples": count,
        "cpu_seconds": round(cpu, 3),
        "wall_seconds": round(wall, 3),
        "per_cpu_second": round(count / cpu, 1),
        "per_wall_second": round(count / wall, 1),
        "cores": round(cpu / wall, 2),
    }


def examined(suite: Any, names: Sequence[str], examples: int, seed: int, jobs: int = 1) -> int:
    """Runs properties; returns how many examples they examined.

    Raises:
        SystemExit: A property does not hold, so that the figures would mean nothing.
    """
    count = 0
    for ran in suite.run_all(names, examples=examples, seed=seed, jobs=jobs):
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


def measure(name: str, examples: int, seed: int, best_of: int, only: str = "") -> list[dict[str, Any]]:
    """The rows of one pass."""
    from onnx_rewrite.testing import PROPERTIES, PassTestSuite

    suite = type("Suite", (PassTestSuite,), {"pass_": name, "fires_at_least": 0.0})
    examined(suite, list(PROPERTIES), 10, seed + 1)  # imports, schemas, compiled patterns
    without = [p for p in PROPERTIES if p not in WITH_ONNXRUNTIME]
    work: dict[str, tuple[int, Callable[[int], int]]] = {}
    for of in ("instances", "embed", "near_miss"):
        work[f"drawn: {of}"] = 0, lambda turn, of=of: drawn(suite, of, examples, seed + 100 + turn)
    for number, (what, names) in enumerate(
        (
            ("without onnxruntime", without),
            ("with onnxruntime", list(PROPERTIES)),
            ("onnxruntime alone", list(WITH_ONNXRUNTIME)),
            ("without onnxruntime" + ON_ALL, without),
            ("with onnxruntime" + ON_ALL, list(PROPERTIES)),
        )
    ):
        own = seed + 1000 * number  # the kit remembers what it drew last
        jobs = processors() if what.endswith(ON_ALL) else 1
        work[what] = (
            len(names),
            lambda turn, names=names, own=own, jobs=jobs: examined(suite, names, examples, own + turn, jobs),
        )
    rows: list[dict[str, Any]] = []
    for what, (count, one) in ((w, work[w]) for w in work if only in w):
        turns = [timed(lambda one=one, turn=turn: one(turn)) for turn in range(best_of)]
        seconds = "wall_seconds" if what.endswith(ON_ALL) else "cpu_seconds"
        best = min(turns, key=lambda row, seconds=seconds: row[seconds] / row["examples"])
        rows.append({"pass": name, "what": what, "properties": count, **best})
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """A table of all rows."""
    table = Table(box=None)
    for name in ("pass", "what", "examples", "a CPU second", "a second", "cores had", "wanted"):
        table.add_column(name, justify="left" if name in ("pass", "what") else "right")
    for row in rows:
        wanted = WANTED.get(row["what"])
        figures = (
            f"{row['examples']:,}",
            f"{row['per_cpu_second']:.0f}",
            f"{row['per_wall_second']:.0f}",
            str(row["cores"]),
        )
        table.add_row(row["pass"], row["what"], *figures, "" if wanted is None else f"{wanted}")
    Console(width=110).print(table)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks kit", description=__doc__)
    parser.add_argument("passes", nargs="*", default=list(PASSES))
    parser.add_argument("--examples", type=int, default=1000, help="per property")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--best-of", type=int, default=1, help="on a machine that others use; other seeds each time")
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name holds this")
    parser.add_argument("--no-save", action="store_true", help="write no JSON")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in options.passes:
            rows += measure(name, options.examples, options.seed, options.best_of, options.only)
    show(rows)
    if not options.no_save:
        print(
            results.save(
                "kit", rows, examples=options.examples, seed=options.seed, best_of=options.best_of, wanted=WANTED
            )
        )
    slow = [r for r in rows if r["what"] in WANTED and r["per_wall_second"] < WANTED[r["what"]]]
    return 1 if slow else 0
