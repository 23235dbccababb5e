"""Every rewritten model becomes a TensorRT-RTX engine for SM86, SM89 and SM120, of no more kernels than the original's.

What comes out is what docs/kernels.md says: `python -m benchmarks kernels` writes that page anew.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

from onnx_rewrite.engines import registry

pytestmark = pytest.mark.usefixtures("rtx")

# benchmarks is a folder of the repository and of no package.
sys.path.append(str(Path(__file__).resolve().parents[3]))
kernels = importlib.import_module("benchmarks.kernels")
PAGE: str = kernels.PAGE.read_text(encoding="utf-8")
BUILT, REFUSED = (part.splitlines(keepends=True) for part in PAGE.split("## What it cannot build"))


def told(lines: list[str], name: str) -> str | None:
    return next((line for line in lines if line.startswith(f"| {name} |")), None)


@pytest.mark.parametrize("path", kernels.models(), ids=lambda path: path.stem)
def test_a_rewritten_model_is_built(path: Path) -> None:
    row = kernels.measure(path)
    refused = told(REFUSED, path.stem)
    if row.refused or refused:
        assert refused is not None, f"{row.refused}: {row.reason}"
        node = re.split(r", and \d+ more", refused.split(" | ")[1])[0]
        assert node in row.refused
        return
    assert row.after <= row.before
    # What becomes a constant has no kernel; every other model has one.
    assert row.after > 0 or path.stem == "output_is_input_identity"
    if f"TensorRT-RTX {registry.get('tensorrt-rtx').version()} " in PAGE:
        assert told(BUILT, path.stem) == (kernels.line(row) if row.applied else None)


def test_the_page_names_models() -> None:
    named = set(re.findall(r"^\| (\w+) \|", PAGE, re.M)) - {"model"}
    assert named <= {path.stem for path in kernels.models()}
    assert kernels.TARGETS.split("+") == ["SM86", "SM89", "SM120"]
