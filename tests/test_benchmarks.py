"""Benchmarks run by hand, long after the code that they call was changed: what they import must be there."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))  # benchmarks is a folder of the repository and of no package
OURS = ("benchmarks", "onnx_rewrite")


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda path: path.stem)
def test_what_a_benchmark_imports_of_ours_is_there(path: Path) -> None:
    """Imports within functions, too: they are reached when a machine with a GPU has already been paid for."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.module or node.module.partition(".")[0] not in OURS:
            continue
        if node.module.startswith("benchmarks.export_models"):
            continue  # it runs under another Python, with torch
        module = importlib.import_module(node.module)
        for name in node.names:
            if not hasattr(module, name.name):
                importlib.import_module(f"{node.module}.{name.name}")


def test_three_products_in_stages_keep_what_fp32_keeps() -> None:
    """Why the kernel adds stages in fp32: in one chain, sums that tensor cores cut would lose an order of magnitude."""
    split = importlib.import_module("benchmarks.deform_split")
    found = split.errors(1152, rows=500)
    assert found["stages"] < found["ffma"] < found["one chain"] / 5
