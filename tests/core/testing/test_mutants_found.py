"""The kit finds bugs: every mutant is found by the properties that docs/testing.md names for it."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from onnx_rewrite.testing import PROPERTIES, PassTestSuite

from .mutants import MUTANTS
from .mutants.mutant import EXAMPLES

ROOT = Path(__file__).resolve().parents[3]
# benchmarks is a folder of the repository and of no package.
sys.path.append(str(ROOT))
benchmark: Any = importlib.import_module("benchmarks.mutants")


def table() -> dict[str, tuple[str, str, list[tuple[str, int]]]]:
    """The rows of the documentation: by bug, where it is, its hard case, and what finds it after how many examples."""
    text = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8").partition(benchmark.HEAD)[2]
    rows = re.findall(r"^\| ([^|-][^|]*) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$", text, flags=re.MULTILINE)
    return {
        bug: (part, case, [(name, int(count)) for name, count in re.findall(r"`(\w+)` (\d+)", found)])
        for bug, part, case, found in rows
    }


def test_the_table_is_the_mutants() -> None:
    listed = {bug: (part, case) for bug, (part, case, _) in table().items()}
    assert listed == {mutant.bug: (mutant.part, mutant.case) for mutant in MUTANTS.values()}
    for bug, (_, _, found) in table().items():
        assert found, bug
        assert {name for name, _ in found} <= set(MUTANTS[bug].by)
        assert all(count <= EXAMPLES for _, count in found)


def test_the_table_is_the_results() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "mutants.json").read_text())["rows"]
    text = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    assert [row["bug"] for row in rows] == list(table())
    assert all(benchmark.line(row) in text for row in rows)


def test_the_mutants_cover_passes_engine_and_cases() -> None:
    parts = {mutant.part for mutant in MUTANTS.values()}
    assert parts == {"ln", "clip", "bn", "mhsa", "an author's", "matcher", "driver"}
    assert len(MUTANTS) >= 55
    assert len({mutant.case for mutant in MUTANTS.values()}) >= 40
    assert {name for mutant in MUTANTS.values() for name in mutant.by} >= {
        "fires_or_says_why",
        "every_copy_is_found",
        "bodies_are_rewritten_too",
        "result_is_valid",
        "same_bytes_twice",
        "opset_is_raised_as_declared",
        "origin_is_recorded",
        "equivalent_by_the_judge",
        "near_misses_are_right",
    }


@pytest.mark.parametrize("bug", MUTANTS)
def test_it_is_found(bug: str, tmp_path: Path) -> None:
    """By the property that needs the fewest examples."""
    name, _ = min(table()[bug][2], key=lambda found: found[1])
    ran = MUTANTS[bug].run(name, tmp_path)
    assert ran.failure is not None, ran.counts
    assert ran.examples <= EXAMPLES


def test_the_engine_is_whole_again() -> None:
    """A mutant of the engine leaves nothing behind: the twin that shows that the others can fail."""
    from onnx_rewrite.match import compiler

    before = compiler.COMMUTATIVE
    with MUTANTS["operands in the written order only"].make():
        assert before != compiler.COMMUTATIVE
    assert compiler.COMMUTATIVE is before


@pytest.mark.parametrize("name", PROPERTIES)
def test_what_is_right_passes(name: str, tmp_path: Path) -> None:
    """The twin of the tests above: with nothing wrong, nothing is found."""
    suite = type("Suite", (PassTestSuite,), {"pass_": "clip", "failures": tmp_path})
    ran = suite.run(name, examples=15, seed=0)
    assert ran.failure is None, ran.failure and ran.failure.text()
    assert ran.examples >= 15
