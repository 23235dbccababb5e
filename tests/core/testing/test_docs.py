"""Every code block of docs/testing.md runs, and its tables are true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from onnx_rewrite.testing import MUTATIONS, PROPERTIES

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "testing.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


def outcome_of(block: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "test_block.py").write_text(block, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", "test_block.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_first_pass_fails_as_told(tmp_path: Path) -> None:
    done = outcome_of(BLOCKS[0], tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "root: equivalent_by_the_judge: the result is not equivalent" in done.stdout
    assert "[n_v2] v2 = Mul (x1, x1)" in done.stdout
    assert (tmp_path / ".onnx_rewrite/failures/root-equivalent_by_the_judge/model.onnx").exists()


@pytest.mark.parametrize("number", range(1, len(BLOCKS)))
def test_the_other_blocks_pass(number: int, tmp_path: Path) -> None:
    done = outcome_of(BLOCKS[number], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_the_tables_list_what_there_is() -> None:
    for name, one in PROPERTIES.items():
        assert f"| `{name}` | {one.of} | {one.about} |" in TEXT
    listed = TEXT.partition("The mutations:")[2].partition(".\n")[0]
    assert " ".join(listed.split()) == ", ".join(MUTATIONS)
