"""`python -m benchmarks kernels`: kernels of TensorRT-RTX engines before and after, for every model of the tests.

Built on the CPU, as one engine for three generations of GPUs; writes docs/kernels.md, which a test compares with what
it builds.
"""

from __future__ import annotations

import argparse
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "tests" / "models"
PAGE = ROOT / "docs" / "kernels.md"
TARGETS = "SM86+SM89+SM120"
PASSES = ("bn", "clip", "ln")

INTRODUCTION = """# Kernels before and after

What TensorRT-RTX {version} makes of the models of the tests, as they are and rewritten by `{passes}`: the number of
kernels of one engine for SM86, SM89 and SM120 (Ampere, Ada and Blackwell), built without a GPU. CI builds all of them
and compares. Models in which the passes find nothing are built too, and not listed. Kernels are no measure of time.

**In most models nothing changes**: the compiler fuses the spelled-out forms as well as ours.

| model | replaced | before | after |
|---|---:|---:|---:|
"""

REFUSED = """
## What it cannot build

Nodes that TensorRT-RTX {version} refuses, before and after alike, in its own words:

| model | node | reason |
|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        name: Of its file.
        applied: How many sites were replaced.
        before: Kernels of the original; None: it is refused.
        after: Kernels of the rewritten model.
        refused: The nodes that are refused, "NAME (OPERATOR)", and the reason of the first.
    """

    name: str
    applied: int
    before: int | None = None
    after: int | None = None
    refused: tuple[str, ...] = ()
    reason: str = ""


def measure(path: Path) -> Row:
    """Rewrites and builds one model, and the original if the passes find something."""
    import onnx_rewrite as rw
    from onnx_rewrite.engines.protocol import EngineError, Model, Profile
    from onnx_rewrite.engines.tensorrt_rtx import TensorRTRTX
    from onnx_rewrite.engines.trials import trials

    result = rw.rewrite(path, list(PASSES), verify="off")
    loaded = result.loaded
    before, after = Model(loaded.proto, loaded.base_dir), Model(result.to_proto(), loaded.base_dir)
    shapes = trials([before], shapes=None, inputs=None, seed=0, expect=False).shapes
    profiles = {name: Profile.fixed(*shape) for name, shape in shapes.items()}
    applied = result.report.applied
    try:
        second = len(TensorRTRTX(TARGETS).build(after, profiles=profiles).layers)
        first = len(TensorRTRTX(TARGETS).build(before, profiles=profiles).layers) if applied else second
    except EngineError as error:
        named = re.findall(r"^  node (.+? \(.+?\))(?: in function .*?)?: (.*)", str(error), re.M)
        return Row(path.stem, applied, refused=tuple(name for name, _ in named), reason=named[0][1] if named else "")
    return Row(path.stem, applied, first, second)


def models() -> list[Path]:
    return sorted(MODELS.rglob("*.onnx"), key=lambda path: path.stem)


def page(rows: list[Row], version: str) -> str:
    """The page of documentation."""
    text = INTRODUCTION.format(version=version, passes=",".join(PASSES))
    for row in rows:
        if row.applied and not row.refused:
            text += line(row)
    text += REFUSED.format(version=version)
    for row in rows:
        if row.refused:
            text += refusal(row)
    return text


def line(row: Row) -> str:
    return f"| {row.name} | {row.applied} | {row.before} | {row.after} |\n"


def refusal(row: Row) -> str:
    more = f", and {len(row.refused) - 1} more" if len(row.refused) > 1 else ""
    return f"| {row.name} | {row.refused[0]}{more} | {' '.join(row.reason.replace('|', ' ').split())} |\n"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks kernels", description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    import tensorrt_rtx

    with ProcessPoolExecutor(options.processes) as pool:
        rows = list(pool.map(measure, models()))
    text = page(rows, tensorrt_rtx.__version__)
    PAGE.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
