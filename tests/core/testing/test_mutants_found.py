"""The kit finds bugs: every wrong variant of our passes is found by the property that docs/testing.md names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from onnx_rewrite.testing import PROPERTIES, PassTestSuite

from .mutants import MUTANTS

DOCS = Path(__file__).resolve().parents[3] / "docs" / "testing.md"
EXAMPLES = 300


def table() -> dict[str, tuple[str, str]]:
    """The rows of the last table of the documentation: bug, class, property."""
    text = DOCS.read_text(encoding="utf-8").partition("| bug | class | found by |")[2]
    rows = re.findall(r"^\| ([^|-][^|]*) \| ([^|]*) \| `([^`]*)` \|$", text, flags=re.MULTILINE)
    return {bug: (kind, found_by) for bug, kind, found_by in rows}


def test_the_table_lists_every_mutant() -> None:
    assert {bug: kind for bug, (kind, _) in table().items()} == {bug: kind for bug, (kind, _) in MUTANTS.items()}
    assert len(MUTANTS) >= 25


@pytest.mark.parametrize("bug", MUTANTS)
def test_it_is_found(bug: str, tmp_path: Path) -> None:
    suite = type("Suite", (PassTestSuite,), {"pass_": MUTANTS[bug][1], "failures": tmp_path})
    ran = suite.run(table()[bug][1], examples=EXAMPLES, seed=0, shrink=False)
    assert ran.failure is not None, ran.counts
    assert ran.examples <= EXAMPLES


@pytest.mark.parametrize("name", PROPERTIES)
def test_what_is_right_passes(name: str, tmp_path: Path) -> None:
    """The twin of the tests above: with nothing wrong, nothing is found."""
    suite = type("Suite", (PassTestSuite,), {"pass_": "clip", "failures": tmp_path})
    ran = suite.run(name, examples=15, seed=0)
    assert ran.failure is None, ran.failure and ran.failure.text()
    assert ran.examples >= 15
