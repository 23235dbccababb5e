"""How far the deformable convolution is from what an H100 could do, shape by shape, from a kept result.

`python -m benchmarks deform-roofline` prints a table in Markdown; it needs neither torch nor a GPU.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.deform_kernel import HERE, SHAPES

# Of an H100 SXM: products of matrices as cuBLAS reaches them (one of 8192 cubed in bf16: 790 TFLOP/s), half in TF32;
# copies in its memory, bytes read and written; multiprocessors, bytes a cycle of the port that L1 and shared memory
# have in common, and the clock under load.
FLOPS = {"fp16": 790e12, "bf16": 790e12, "tf32": 395e12, "fp32": 395e12 / 3}
MEMORY = 3.0e12
PROCESSORS, PORT, CLOCK = 132, 128, 1.755e9


def planned(shape: tuple[int, ...], way: str) -> Any:
    """The kernels and blocks that are chosen on an H100."""
    from onnx_rewrite.plugins.deform_conv import schedule

    n, c, h, w, m, groups, offset_groups = shape
    kind = {"fp16": schedule.HALF, "bf16": schedule.BFLOAT16}.get(way, schedule.FLOAT)
    sizes = schedule.Sizes(n, c, h, w, m, h, w, 3, 3, 1, 1, 1, 1, 1, 1, groups, offset_groups)
    math = schedule.TF32 if way == "tf32" else schedule.EXACT
    device = schedule.Device(9, 0, PROCESSORS, 232448)
    return schedule.work_of(sizes, kind, math, schedule.AUTO, device, aligned=True)


def floors(shape: tuple[int, ...], way: str) -> dict[str, float]:
    """Milliseconds below which no kernel of this design comes, by what they are for.

    arithmetic: two operations per product at the matrix units' speed; fp32 takes three products for each.
    memory: x, weights, offsets, mask, bias and y once through the GPU's memory.
    port: what passes L1 and shared memory: four corners of each sample, once for each tile of filters; the weights'
    tile, written once for each tile of positions and read once by each 64 of them. All multiprocessors at 100 %.
    """
    from onnx_rewrite.plugins.deform_conv import schedule

    n, c, h, w, m, groups, offset_groups = shape
    work, element, positions = planned(shape, way), 2 if way in ("fp16", "bf16") else 4, n * h * w
    numbers = n * c * h * w + m * c // groups * 9 + positions * offset_groups * 27 + m + positions * m
    found = {
        "arithmetic": 2.0 * positions * m * c // groups * 9 / FLOPS[way],
        "memory": numbers * element / MEMORY,
    }
    tiles = [one for one in work.launches if one.kind == "tensor"]
    if tiles:
        tile, plan = schedule.SHAPES[tiles[0].shape], work.plan
        depth = plan.stages * schedule.ROW_BYTES * groups  # bytes of channels and taps, padding included
        samples = 4.0 * positions * depth * plan.filter_tiles
        weights = depth * plan.filter_tiles * plan.filter_tile * plan.copies
        found["port"] = (samples + weights * positions * (1 / tile.positions + 1 / 64)) / (PROCESSORS * PORT * CLOCK)
    return {name: 1e3 * seconds for name, seconds in found.items()}


def filled(shape: tuple[int, ...], way: str) -> float:
    """Share of the multiprocessors' time, in waves of thread blocks, that has a block to run."""
    launches = planned(shape, way).launches
    blocks = [one.blocks * one.parts for one in launches if one.kind in ("tensor", "direct")]
    return sum(blocks) / (sum(-(-count // PROCESSORS) for count in blocks) * PROCESSORS)


def table(rows: list[dict[str, Any]], way: str) -> str:
    """The rows of a way: floors, the time, and their share."""
    text = f"| {way} | arithmetic | memory | port | bound | measured | share | filled |\n"
    text += "|---|---|---|---|---|---|---|---|\n"
    for row in rows:
        if row["way"] != way:
            continue
        shape = SHAPES[row["shape"]]
        found = floors(shape, way)
        bound = max(found.values())
        numbers = [f"{found[name]:.4f}" if name in found else "-" for name in ("arithmetic", "memory", "port")]
        numbers += [f"{bound:.4f}", f"{row['chosen_ms']:.3f}", f"{100 * bound / row['chosen_ms']:.0f} %"]
        text += f"| {row['shape'].replace('x', '×')} | {' | '.join(numbers)} | {100 * filled(shape, way):.0f} % |\n"
    return text


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks deform-roofline", description=__doc__)
    parser.add_argument("--result", type=Path, default=HERE / "results" / "deform_kernel.json")
    parser.add_argument("--ways", default="fp16,tf32,fp32")
    args = parser.parse_args(arguments)
    rows = json.loads(args.result.read_text(encoding="utf-8"))["speed"]
    print("\n".join(table(rows, way) for way in args.ways.split(",")))
    return 0
