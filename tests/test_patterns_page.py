"""Every example of docs/patterns.md runs as it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onnx_rewrite import pattern

from .test_readme import blocks

BLOCKS = blocks("python", "docs/patterns.md")
SETTING = next(block for block in BLOCKS if block.startswith("import") and "def after(" in block)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_example(number: int) -> None:
    names: dict[str, Any] = {}
    block = BLOCKS[number]
    if not block.startswith("import"):
        exec(SETTING, names)
    exec(compile(block, f"docs/patterns.md, example {number}", "exec"), names)


def test_the_table_names_every_construct() -> None:
    text = Path(__file__).parent.parent.joinpath("docs", "patterns.md").read_text(encoding="utf-8")
    table = text[text.index("| construct |") : text.index("## Captures")]
    for name in pattern.__all__:
        if name not in ("FLOATS", "INTEGERS", "PatternError", "trace"):
            assert name in table, name
