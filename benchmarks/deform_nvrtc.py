"""The deformable convolution's kernels as NVRTC compiles them, beside those of nvcc: same numbers, same time.

Part of `python -m benchmarks deform-kernel --nvrtc`; needs a GPU, torch, cuda-core, NVRTC and CUDA's headers.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks.deform_kernel import SHAPES, WAYS, problem_of
from benchmarks.deform_timing import graphed, interleaved_ms


def launched(launcher: Any, problem: dict[str, Any], way: str) -> Any:
    """A function that queues one run through cuda-core, the output, and the seconds that compiling took."""
    import torch

    from onnx_rewrite.plugins.deform_conv import schedule

    x, weight, offset, bias, mask = (problem[name] for name in ("x", "weight", "offset", "bias", "mask"))
    n, c, h, w = x.shape
    m, _, kh, kw = weight.shape
    steps = *problem["strides"], *problem["pads"][:2], *problem["dilations"]
    sizes = schedule.Sizes(
        n, c, h, w, m, *offset.shape[2:], kh, kw, *steps, problem["groups"], problem["offset_groups"]
    )
    _, kind, math = WAYS[way]
    began = time.perf_counter()
    work = launcher.prepare(sizes, kind, math)
    seconds = time.perf_counter() - began
    workspace = torch.full((work.plan.bytes + 256,), 255, dtype=torch.uint8, device="cuda")
    y = torch.full((n, m, *offset.shape[2:]), float("nan"), dtype=x.dtype, device="cuda")
    pointers = [0 if one is None else one.data_ptr() for one in (x, weight, offset, bias, mask, y)]

    def run() -> None:
        stream = torch.cuda.current_stream().cuda_stream
        launcher.run(sizes, kind, math, schedule.AUTO, pointers, workspace.data_ptr(), stream)

    run.kept = (problem, workspace)  # type: ignore[attr-defined]
    return run, y, seconds


def compared(kernel: Any, ways: list[str], shapes: list[str], keep: Any) -> list[dict[str, Any]]:
    """Runs both on every shape, in turn, seven times each."""
    import torch
    from cuda.core import Device

    from onnx_rewrite.plugins.common.compiling import lack
    from onnx_rewrite.plugins.deform_conv.launching import Launcher

    reason = lack()
    if reason is not None:
        print(f"NVRTC: {reason}")
        keep([{"lack": reason}])
        return [{"lack": reason}]
    torch.zeros(1, device="cuda")  # makes the context that both use
    Device(0).set_current()
    launcher = Launcher()
    rows: list[dict[str, Any]] = []
    for name in shapes:
        for way in ways:
            problem = problem_of(SHAPES[name], getattr(torch, WAYS[way][0]))
            run, wanted = kernel.prepare(problem, way, -1)
            run()
            again, y, seconds = launched(launcher, problem, way)
            again()
            torch.cuda.synchronize()
            times = interleaved_ms({"nvcc": graphed(run), "nvrtc": graphed(again)})
            row = {
                "shape": name,
                "way": way,
                "same": bool(torch.equal(y, wanted)),
                "compiled_s": round(seconds, 2),
                **{f"{key}_ms": round(statistics.median(each), 4) for key, each in times.items()},
                **{f"{key}_range_ms": [round(min(each), 4), round(max(each), 4)] for key, each in times.items()},
            }
            rows.append(row)
            keep(rows)
            told = "same" if row["same"] else "DIFFERENT"
            told += f" {row['nvrtc_ms'] / row['nvcc_ms']:.3f}"
            ranges = f"{row['nvcc_range_ms']} {row['nvrtc_range_ms']}"
            print(
                f"{name:38} {way:5} nvcc {row['nvcc_ms']:.4f} NVRTC {row['nvrtc_ms']:.4f} {told} {ranges}", flush=True
            )
    return rows
