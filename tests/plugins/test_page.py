"""plugins/README.md runs as it stands, and its table is one that can be read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from onnx_rewrite.custom import find, using
from tests.test_readme import blocks

PAGE = "plugins/README.md"


def test_the_operator_shown_works() -> None:
    (program,) = blocks("python", PAGE)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "equivalent ['Bump']\n"


def test_the_table_shown_can_be_read(tmp_path: Path) -> None:
    (table,) = blocks("json", PAGE)
    file = tmp_path / "table.json"
    file.write_text(table)
    with using(file):
        spelling = find("shop", "dcn_v2")
    assert spelling is not None
    assert spelling.position("strides") == 5
    assert find("shop", "dcn_v2") is None
