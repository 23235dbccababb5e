"""Every code block of docs/testing.md runs, prints what the page says, and its tables are true."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from onnx_rewrite.testing import MUTATIONS, PROPERTIES

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
FIRST = TEXT.partition("## Five minutes")[2].partition("\n## ")[0]
STEPS = re.findall(r"^```(\w+)\n(.*?)^```$", FIRST, flags=re.MULTILINE | re.DOTALL)


def outcome_of(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    program, *rest = command
    if program == "pytest":
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *rest]
    elif program == "rewrite":
        command = [sys.executable, "-m", "onnx_rewrite", *rest]
    elif program == "python":
        command = [sys.executable, *rest]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_five_minutes_line_by_line(tmp_path: Path) -> None:
    """From pip install to a failing pass and a mended one: the blocks in their order, in one folder."""
    kinds = [kind for kind, _ in STEPS]
    assert kinds == ["sh", "python", "sh", "text", "sh", "python", "sh", "sh"]
    install, wrong, run, printed, replay, right, rerun, installed = (block for _, block in STEPS)
    assert install == "pip install 'onnx-rewrite[testing]'\n"
    assert re.search(r"^testing = \[", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    file = tmp_path / "test_root.py"

    file.write_text(wrong, encoding="utf-8")
    done = outcome_of(run.split(), tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "3 failed, 12 passed" in done.stdout
    assert sorted(p.name for p in (tmp_path / ".onnx_rewrite/failures").iterdir()) == [
        "root-equivalent_by_rounding",
        "root-equivalent_by_the_judge",
        "root-near_misses_are_right",
    ]
    for line in printed.splitlines():
        # Which numbers show it may differ from one version of hypothesis to the next.
        wanted = re.escape(line) if not re.search(r"\d\.\d|differ by", line) else re.sub(r"[-\d.]+", "X", line)
        wanted = re.sub("X", r"[-+\\d.e]+", re.escape(wanted)) if "X" in wanted else wanted
        assert re.search(wanted.replace("large", r"\w+"), done.stdout), (line, done.stdout)
    assert "self.relaxed" not in done.stdout  # no line of the suite's own

    done = outcome_of(replay.split(), tmp_path)
    assert done.returncode == 1
    assert "it still fails: output 'v3'" in done.stderr
    assert "Traceback" not in done.stderr

    file.write_text(right, encoding="utf-8")
    done = outcome_of(rerun.split(), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "15 passed" in done.stdout
    assert "it holds now" in outcome_of(replay.split(), tmp_path).stdout

    done = outcome_of(installed.split(), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "14 of 14 properties hold" in done.stdout


@pytest.mark.parametrize("number", range(2, len(BLOCKS)))
def test_the_other_blocks_pass(number: int, tmp_path: Path) -> None:
    (tmp_path / "test_block.py").write_text(BLOCKS[number], encoding="utf-8")
    done = outcome_of(["pytest", "-q", "test_block.py"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_what_is_declared_on_the_command_line(tmp_path: Path) -> None:
    (command,) = re.findall(r"^rewrite test .* --declare .*$", TEXT, flags=re.MULTILINE)
    done = outcome_of(shlex.split(command), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "origin_is_recorded: shown here as an example" in done.stdout
    assert "13 of 13 properties hold" in done.stdout


def test_the_tables_list_what_there_is() -> None:
    for name, one in PROPERTIES.items():
        assert f"| `{name}` | {one.of} | {one.about} |" in TEXT
    listed = TEXT.partition("The mutations:")[2].partition(".\n")[0]
    assert " ".join(listed.split()) == ", ".join(MUTATIONS)


def test_the_page_shows_the_examples_that_were_kept() -> None:
    kit_holds = importlib.import_module("benchmarks.kit_holds")
    rows = kit_holds.kept()
    assert f"<!-- holds -->\n{kit_holds.page(rows)}\n<!-- end of holds -->" in TEXT
    assert {row["pass"] for row in rows if row["examples"] >= 10_000} >= set(kit_holds.PASSES)
    for row in rows:
        assert row["holds"], row["broken"]
        assert row["properties"].keys() == PROPERTIES.keys() - row["declared"].keys()
        assert all(counted["examples"] == row["examples"] for counted in row["properties"].values())
