"""Ways of running the shapes where the deformable convolution is furthest from what it could be, side by side.

Part of `python -m benchmarks deform-kernel --variants`; needs a GPU.
"""

from __future__ import annotations

from typing import Any

from benchmarks.deform_peer import kernels, timed
from benchmarks.deform_timing import graphed, median_ms

# What torch's profiler raises where it may not read the device's counters.
_NO_PROFILER = (RuntimeError, AssertionError, AttributeError)

SLOW = {
    "CenterNet 1x512x16x16": ("fp16", "tf32", "fp32"),
    "YOLACT++ 1x512x18x18": ("fp16", "tf32", "fp32"),
    "YOLACT++ 1x256x35x35": ("fp16", "tf32"),
    "offset groups 1x256x64x64 og4": ("fp16", "tf32"),
    "InternImage-like 8x64x56x56 g4": ("fp16", "tf32", "fp32"),
    "1x256x64x64": ("fp16",),
}


def variants(kernel: Any, keep: Any) -> list[dict[str, Any]]:
    """Every tile, shared by how many blocks, with clusters and without, with blocks side by side and padded."""
    import torch

    from benchmarks.deform_kernel import (
        CLUSTER,
        PADDED,
        PARTS,
        SHAPES,
        TENSOR,
        TILES,
        WAYS,
        label,
        problem_of,
        reference,
    )

    rows: list[dict[str, Any]] = []
    for name, ways in SLOW.items():
        for way in ways:
            problem = problem_of(SHAPES[name], getattr(torch, WAYS[way][0]))
            torch.backends.cuda.matmul.allow_tf32 = way == "tf32"
            wanted = reference(problem)
            row: dict[str, Any] = {"shape": name, "way": way, **timed(problem), "variants": {}}
            for shape in range(len(TILES)):
                tactics = [TENSOR + shape, *([TENSOR + shape + PADDED] if "g4" in name else [])]
                tactics += [TENSOR + shape + PARTS * parts + CLUSTER for parts in (2, 3, 4, 6, 8)]
                if TILES[shape] in ("128x64k2", "64x64k2"):
                    tactics += [TENSOR + shape + PARTS * parts for parts in (2, 4, 8)]
                for tactic in tactics:
                    found = kernel.prepare(problem, way, tactic)
                    if found is None:
                        continue
                    run, y = found
                    run()
                    error = float((y.double() - wanted).norm() / wanted.norm())
                    ms = round(median_ms(graphed(run), 0.006, most=60), 4)
                    row["variants"][label(tactic)] = {"ms": ms, "error": float(f"{error:.2g}")}
            run, y = kernel.prepare(problem, way, -1)
            run()
            row["auto"] = kernel.chosen(problem, way)
            row["auto_ms"] = round(median_ms(graphed(run), 0.01), 4)
            row["error"] = float((y.double() - wanted).norm() / wanted.norm())
            try:
                row["kernels"] = traced(run)
            except _NO_PROFILER as error:
                row["kernels"] = [str(error)]
            rows.append(row)
            keep(rows)
            best = sorted(row["variants"].items(), key=lambda item: item[1]["ms"])[:6]
            worst = max(one["error"] for one in row["variants"].values())
            chosen = f"torchvision {row['torchvision_ms']:.4f} auto {row['auto_ms']:.4f} ({label(row['auto'])})"
            tried = "; ".join(f"{key} {one['ms']:.4f}" for key, one in best)
            print(f"{name:32} {way:5} {chosen} best {tried} | worst error {worst:.1e}", flush=True)
            print(f"    {row['kernels']}", flush=True)
    return rows


def traced(run: Any) -> list[str]:
    """When each kernel of a run begins and ends, in microseconds from the first's beginning: the median of ten runs."""
    import statistics

    import torch
    from torch.profiler import ProfilerActivity, profile

    run()
    torch.cuda.synchronize()
    runs: list[list[tuple[str, float, float]]] = []
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        for _ in range(10):
            run()
            torch.cuda.synchronize()
    events = sorted((e for e in recorded.events() if "kernel" in e.name), key=lambda e: e.time_range.start)
    for event in events:
        name = next((one for one in ("prepare", "tensor", "finish", "direct", "simt") if one in event.name), "other")
        if name in ("prepare", "direct"):
            runs.append([])
        if runs:
            runs[-1].append((name, event.time_range.start, event.time_range.end))
    told: list[str] = []
    for number in range(min((len(one) for one in runs), default=0)):
        begins = statistics.median(one[number][1] - one[0][1] for one in runs)
        ends = statistics.median(one[number][2] - one[0][1] for one in runs)
        told.append(f"{runs[0][number][0]} {begins:.1f} to {ends:.1f}")
    return told


def peer_kernels() -> dict[str, Any]:
    """torchvision's kernels at the largest shape and a small one."""
    import torch

    from benchmarks.deform_kernel import SHAPES, problem_of

    found: dict[str, Any] = {}
    for name in ("BEVFormer-like 6x512x58x100", "CenterNet 1x512x16x16"):
        try:
            found[name] = kernels(problem_of(SHAPES[name], torch.float16))
        except _NO_PROFILER as error:
            print(f"no profile: {error}")
            continue
        for how, listed in found[name].items():
            print(f"torchvision, {name}, {how}: {sum(listed.values()):.1f} us", flush=True)
            for key, us in listed.items():
                print(f"    {us:9.2f}  {key}", flush=True)
    return found
