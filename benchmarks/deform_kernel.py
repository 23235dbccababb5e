"""The deformable convolution's kernel on a GPU: right over random problems, and how fast, beside torchvision's.

`python -m benchmarks deform-kernel` compiles the kernel (or takes `--library`), and needs torch and torchvision.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.deform_peer import timed, torchvision
from benchmarks.deform_timing import graphed, median_ms

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "plugins" / "deform_conv"
DIRECT, SIMT, TENSOR, WIDE, PARTS = 0, 1, 2, 64, 128
TILES = ["256x128", "128x128", "128x64", "128x64k2", "64x128", "64x64", "64x64k2"]

# name: n, c, h, w, m, groups, offset groups; 3x3, stride 1, pad 1, with mask
SHAPES = {
    "BEVFormer-like 6x512x58x100": (6, 512, 58, 100, 512, 1, 1),
    "1x256x64x64": (1, 256, 64, 64, 256, 1, 1),
    "CenterNet 1x128x128x128": (1, 128, 128, 128, 128, 1, 1),
    "8x64x56x56": (8, 64, 56, 56, 64, 1, 1),
    "CenterNet 1x512x16x16": (1, 512, 16, 16, 512, 1, 1),
    "YOLACT++ 1x128x69x69": (1, 128, 69, 69, 128, 1, 1),
    "YOLACT++ 1x256x35x35": (1, 256, 35, 35, 256, 1, 1),
    "YOLACT++ 1x512x18x18": (1, 512, 18, 18, 512, 1, 1),
    "BEVFormer 6x256x58x100": (6, 256, 58, 100, 256, 1, 1),
    "BEVFormer 6x512x29x50": (6, 512, 29, 50, 512, 1, 1),
    "offset groups 1x256x64x64 og4": (1, 256, 64, 64, 256, 1, 4),
    "InternImage-like 8x64x56x56 g4": (8, 64, 56, 56, 64, 4, 4),
    "InternImage-like 8x64x56x56 depthwise": (8, 64, 56, 56, 64, 64, 4),
}
# torch's type, and the numbers of Type and Math in kernel.h.
WAYS = {
    "fp16": ("float16", 1, 0),
    "bf16": ("bfloat16", 2, 0),
    "tf32": ("float32", 0, 1),
    "fp32": ("float32", 0, 0),
}
UNIT = {"fp16": 2.0**-11, "bf16": 2.0**-8, "tf32": 2.0**-11, "fp32": 2.0**-24}


def compiled(library: str | None) -> Path:
    if library:
        return Path(library).resolve()
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    target = Path(tempfile.mkdtemp()) / "deform_conv.so"
    command = [nvcc, "-std=c++17", "-O3", "-gencode=arch=compute_90a,code=sm_90a", "-shared", "-Xcompiler", "-fPIC"]
    subprocess.run([*command, str(SOURCE / "kernel.cu"), "-o", str(target)], check=True)
    return target


class Kernel:
    """The library, called with torch's tensors."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.library.onnx_rewrite_deform_conv_workspace.restype = ctypes.c_size_t

    def prepare(self, problem: dict[str, Any], way: str, tactic: int) -> Any:
        """A function that queues one run, and the output; None if the tactic cannot run this."""
        import torch

        x, weight, offset, bias, mask = (problem[name] for name in ("x", "weight", "offset", "bias", "mask"))
        n, c, h, w = x.shape
        m, _, kh, kw = weight.shape
        sizes = [n, c, h, w, m, *offset.shape[2:], kh, kw, *problem["strides"], *problem["pads"][:2]]
        sizes += [*problem["dilations"], problem["groups"], problem["offset_groups"]]
        packed = (ctypes.c_int * len(sizes))(*sizes)
        _, kind, math = WAYS[way]
        bytes_ = self.library.onnx_rewrite_deform_conv_workspace(packed, kind, math, tactic)
        if not bytes_ and tactic > DIRECT and offset.shape[0]:
            return None
        workspace = torch.full((bytes_ + 256,), 255, dtype=torch.uint8, device="cuda")
        y = torch.full((n, m, *offset.shape[2:]), float("nan"), dtype=x.dtype, device="cuda")
        pointers = [
            ctypes.c_void_p(None if t is None else t.data_ptr()) for t in (x, weight, offset, bias, mask, y, workspace)
        ]

        def run() -> None:
            stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            status = self.library.onnx_rewrite_deform_conv(packed, kind, math, tactic, *pointers, stream)
            if status:
                raise RuntimeError(f"CUDA error {status} from tactic {tactic} on {sizes}")

        run.kept = (x, weight, offset, bias, mask, workspace)  # type: ignore[attr-defined]
        return run, y


def reference(problem: dict[str, Any]) -> Any:
    """The result in float64, by torchvision, with any pads.

    Pads become part of the image, and the image is framed by one zero pixel more, so that all points move by one. A
    point that misses the image (at -1 or before, at the size or behind) is moved far away: otherwise NaN in the first
    row would come in with weight zero, which neither onnxruntime nor torchvision without a frame does.
    """
    import torch
    import torch.nn.functional as F
    from torchvision.ops import deform_conv2d

    names = ("x", "offset", "weight", "bias", "mask")
    wide = {name: None if problem[name] is None else problem[name].double() for name in names}
    pads, kernel = problem["pads"], wide["weight"].shape[2:]
    top, left, bottom, right = pads
    x = F.pad(wide["x"], (left + 1, right + 1, top + 1, bottom + 1))
    rows, columns = wide["offset"].shape[2:]
    # Offsets as [n, group, tap row, tap column, axis, row, column], to which each point's place is added.
    offset = wide["offset"].unflatten(1, (problem["offset_groups"], *kernel, 2))
    missed = torch.zeros_like(offset[:, :, :, :, 0], dtype=torch.bool)
    for axis in range(2):
        stride, dilation = problem["strides"][axis], problem["dilations"][axis]
        place = torch.arange((rows, columns)[axis], device=x.device) * stride - pads[axis]
        taps = torch.arange(kernel[axis], device=x.device) * dilation
        place = place.view(-1, 1) if axis == 0 else place.view(1, -1)
        taps = taps.view(-1, 1, 1, 1) if axis == 0 else taps.view(1, -1, 1, 1)
        at = offset[:, :, :, :, axis] + (place + taps)
        missed |= ~((at > -1) & (at < problem["x"].shape[2 + axis]))
    offset = torch.where(missed[:, :, :, :, None], -1e7, offset + 1.0).flatten(1, 4)
    # The wider image has room for more points than there are: they are added, and their results cut off.
    room = [
        (size - dilation * (taps - 1) - 1) // stride + 1
        for size, dilation, taps, stride in zip(
            x.shape[2:], problem["dilations"], kernel, problem["strides"], strict=True
        )
    ]
    more = (0, room[1] - columns, 0, room[0] - rows)
    mask = None if wide["mask"] is None else F.pad(wide["mask"], more)
    found = deform_conv2d(
        x, F.pad(offset, more), wide["weight"], wide["bias"], problem["strides"], (0, 0), problem["dilations"], mask
    )
    return found[:, :, :rows, :columns]


def drawn(rng: Any, dtype: Any) -> dict[str, Any]:
    """A random problem on the GPU."""
    import torch

    def pick(*of: int) -> int:
        return int(rng.choice(of))

    groups = pick(1, 1, 1, 2, 3)
    offset_groups = pick(1, 1, 2, 3, 4) if groups == 1 else pick(1, groups)
    each = pick(1, 3, 8, 16, 17, 32, 40, 64, 65, 100)
    import math

    c = math.lcm(groups, offset_groups) * each
    m = groups * pick(1, 3, 8, 20, 64, 65, 130, 260)
    while c * m > 60000:
        m = max(groups, m // 2 // groups * groups)
    kh, kw = pick(1, 2, 3, 3, 5), pick(1, 2, 3, 3, 5)
    strides, dilations = (pick(1, 1, 2, 3), pick(1, 1, 2)), (pick(1, 1, 2), pick(1, 1, 3))
    pads = tuple(pick(0, 1, 2, 3) for _ in range(4))
    n = pick(0, 1, 1, 1, 2, 3)
    h = int(rng.integers(1, 24)) + dilations[0] * (kh - 1)
    w = int(rng.integers(1, 40)) + dilations[1] * (kw - 1)
    oh = (h + pads[0] + pads[2] - dilations[0] * (kh - 1) - 1) // strides[0] + 1
    ow = (w + pads[1] + pads[3] - dilations[1] * (kw - 1) - 1) // strides[1] + 1
    seed = int(rng.integers(1 << 31))
    generator = torch.Generator(device="cuda").manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> Any:
        return (torch.randn(*shape, device="cuda", generator=generator) * scale).to(dtype)

    x = normal(n, c, h, w)
    offset = normal(n, offset_groups * kh * kw * 2, oh, ow, scale=float(rng.choice([0.0, 0.5, 2.0, 2.0, 10.0, 1000.0])))
    if rng.random() < 0.2:
        offset = offset.round()
    with_nan = bool(rng.random() < 0.2)
    if with_nan and x.numel():
        # onnxruntime reads the first pixel, times zero, for every corner outside: NaN stays away from there.
        x.flatten(2)[:, :, 1:].view(n, c, -1)[..., :: max(1, h * w // 3)] = float("nan")
    return {
        "x": x,
        "weight": normal(m, c // groups, kh, kw, scale=(c // groups * kh * kw) ** -0.5),
        "offset": offset,
        "bias": normal(m) if rng.random() < 0.6 else None,
        "mask": torch.rand(n, offset_groups * kh * kw, oh, ow, device="cuda", generator=generator).to(dtype)
        if rng.random() < 0.6
        else None,
        "strides": strides,
        "pads": pads,
        "dilations": dilations,
        "groups": groups,
        "offset_groups": offset_groups,
        "seed": seed,
    }


def bound(problem: dict[str, Any], way: str, tactic: int, wanted: Any) -> Any:
    """How far rounding may take each output: sums of absolute values, times units in the last place.

    fp16, bf16: the samples are rounded once (five times where they are interpolated in fp16), the output once, the
    corners' weights once; TF32 rounds weights and samples. In fp32 sums of K products grow by about sqrt(K) units; a
    point's coordinates are exact to one unit of the image's size in all of them.

    fp32 on tensor cores: a factor v is high + low + rest, |low| <= 2^-11 |v|, |rest| <= 2^-11 |low|, so that of a
    product 3 * 2^-22 are lost at most (two rests, and low times low). A stage is 12 steps, each of which cuts its sum
    to 24 bits, 2^-23 at most; the stages are added in fp32. In units of 2^-24: 12 + 24.
    """
    absolute = {
        name: None if value is None else value.double().abs().nan_to_num(1.0)
        for name, value in problem.items()
        if name in ("x", "weight", "bias", "mask")
    }
    size = reference({**problem, **absolute})
    weight = problem["weight"]
    products = weight[0].numel()
    unit32 = 2.0**-24
    rounding = {
        "fp16": 2.0 if tactic in (DIRECT, SIMT) or tactic & WIDE else 7.0,
        "bf16": 2.0,
        "tf32": 3.0,
        "fp32": 0.0 if tactic in (DIRECT, SIMT) else 36.0,
    }[way] * UNIT[way]
    # A coordinate that is off by d moves a sample by d times the largest difference of neighbours.
    coordinate = 4.0 * (max(problem["x"].shape[2:]) + 8) * unit32
    largest = float(absolute["x"].max()) if absolute["x"].numel() else 0.0
    mass = weight.double().abs().flatten(1).sum(1)[None, :, None, None] * largest
    sums = (8.0 + 4.0 * products**0.5) * unit32
    return (rounding + sums) * (size + wanted.abs()) + coordinate * mass + 1e-7


def correctness(
    kernel: Kernel, count: int, tactics: list[int], with_onnxruntime: bool, keep: Callable[[list[dict[str, Any]]], None]
) -> list[dict[str, Any]]:
    import numpy as np
    import torch

    rows: list[dict[str, Any]] = []
    for way, (dtype, _, _) in WAYS.items():
        rng = np.random.default_rng(11)
        row: dict[str, Any] = {
            "way": way,
            "problems": 0,
            "runs": 0,
            "failed": 0,
            "empty": 0,
            "with_nan": 0,
            "worst_of_bound": 0.0,
        }
        failures: list[str] = []
        for _ in range(count):
            problem = drawn(rng, getattr(torch, dtype))
            row["problems"] += 1
            if not problem["offset"].numel():
                row["empty"] += 1
                found = kernel.prepare(problem, way, -1)
                found[0]()
                continue
            wanted = reference(problem)
            row["with_nan"] += bool(problem["x"].isnan().any())
            extra = int(rng.choice(tactics))
            for tactic in {-1, DIRECT, SIMT, extra, TENSOR + int(rng.integers(len(TILES)))}:
                found = kernel.prepare(problem, way, tactic)
                if found is None:
                    continue
                run, y = found
                run()
                limit = bound(problem, way, tactic, wanted)
                error = (y.double() - wanted).abs() / limit
                same_nan = bool((y.isnan() == wanted.isnan()).all())
                share = float(error.nan_to_num(0.0).max())
                row["runs"] += 1
                row["worst_of_bound"] = max(row["worst_of_bound"], share)
                if not same_nan or not share <= 1.0:
                    row["failed"] += 1
                    shape = f"x{tuple(problem['x'].shape)} w{tuple(problem['weight'].shape)}"
                    groups = f"g{problem['groups']} og{problem['offset_groups']}"
                    told = f"{share:.3g} of the bound, nan {'same' if same_nan else 'DIFFER'}"
                    failures.append(f"{way} tactic {tactic} {shape} {groups}: {told}")
        if with_onnxruntime:
            row["onnxruntime"] = beside_onnxruntime(kernel, way, dtype, count)
        row["failures"] = failures[:8]
        rows.append(row)
        keep(rows)
        print(json.dumps(row), flush=True)
    return rows


def beside_onnxruntime(kernel: Kernel, way: str, dtype: str, count: int) -> dict[str, Any]:
    """The chosen tactic beside onnxruntime's DeformConv in fp32 on the CPU."""
    import numpy as np
    import onnx
    import onnxruntime
    import torch

    rng = np.random.default_rng(23)
    done, failed, worst = 0, 0, 0.0
    while done < count:
        problem = drawn(rng, getattr(torch, dtype))
        if not problem["offset"].numel():
            continue
        feeds = {
            name: problem[name].float().cpu().numpy()
            for name in ("x", "weight", "offset", "bias", "mask")
            if problem[name] is not None
        }
        order = [
            "x",
            "weight",
            "offset",
            "bias" if problem["bias"] is not None else "",
            "mask" if problem["mask"] is not None else "",
        ]
        while not order[-1]:
            order.pop()
        node = onnx.helper.make_node(
            "DeformConv",
            order,
            ["y"],
            strides=problem["strides"],
            pads=problem["pads"],
            dilations=problem["dilations"],
            group=problem["groups"],
            offset_group=problem["offset_groups"],
            kernel_shape=problem["weight"].shape[2:],
        )
        inputs = [onnx.helper.make_tensor_value_info(name, 1, list(value.shape)) for name, value in feeds.items()]
        graph = onnx.helper.make_graph([node], "g", inputs, [onnx.helper.make_tensor_value_info("y", 1, None)])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=9)
        try:
            session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        except Exception as error:
            return {"skipped": " ".join(str(error).split())[:200]}
        wanted = torch.from_numpy(session.run(None, feeds)[0]).cuda().double()
        run, y = kernel.prepare(problem, way, -1)
        run()
        limit = bound(problem, way, 2, wanted)
        limit = limit + (8 + 4 * problem["weight"][0].numel() ** 0.5) * 2.0**-24 * (
            limit / UNIT[way]
        )  # onnxruntime's own rounding
        share = float(((y.double() - wanted).abs() / limit).nan_to_num(0.0).max())
        same = bool((y.isnan() == wanted.isnan()).all())
        failed += not same or not share <= 1.0
        worst = max(worst, share)
        done += 1
    return {"version": onnxruntime.__version__, "problems": done, "failed": failed, "worst_of_bound": round(worst, 3)}


def problem_of(shape: tuple[int, ...], dtype: Any) -> dict[str, Any]:
    import torch

    n, c, h, w, m, groups, offset_groups = shape
    generator = torch.Generator(device="cuda").manual_seed(3)

    def normal(*sizes: int, scale: float = 1.0) -> Any:
        return (torch.randn(*sizes, device="cuda", generator=generator) * scale).to(dtype)

    return {
        "x": normal(n, c, h, w),
        "weight": normal(m, c // groups, 3, 3, scale=(c // groups * 9) ** -0.5),
        "offset": normal(n, offset_groups * 18, h, w),
        "bias": normal(m),
        "mask": torch.rand(n, offset_groups * 9, h, w, device="cuda", generator=generator).to(dtype),
        "strides": (1, 1),
        "pads": (1, 1, 1, 1),
        "dilations": (1, 1),
        "groups": groups,
        "offset_groups": offset_groups,
    }


def speed(
    kernel: Kernel,
    ways: list[str],
    shapes: list[str],
    every: bool,
    budget: float,
    keep: Callable[[list[dict[str, Any]]], None],
) -> list[dict[str, Any]]:
    import torch

    rows: list[dict[str, Any]] = []
    until = time.perf_counter() + budget
    for name in shapes:
        shape = SHAPES[name]
        for way in ways:
            if time.perf_counter() > until:
                print("out of time", flush=True)
                return rows
            dtype, _, _ = WAYS[way]
            problem = problem_of(shape, getattr(torch, dtype))
            n, c, h, w, m, groups, _ = shape
            flops = 2.0 * n * h * w * m * c // groups * 9
            row: dict[str, Any] = {"shape": name, "way": way, "gflop": round(flops / 1e9, 2), "tactics": {}}
            torch.backends.cuda.matmul.allow_tf32 = way == "tf32"
            if way != "bf16":  # which torchvision has not
                row.update(timed(problem))
            wanted = reference(problem) if way == "fp32" or flops < 1.2e10 else None

            def distance(y: Any, wanted: Any = wanted) -> float:
                return float((y.double() - wanted).norm() / wanted.norm())

            if way == "fp32":
                row["torchvision_error"] = distance(torchvision(problem))
            candidates = [-1, DIRECT] if flops < 1e9 else [-1]
            if way == "fp32":
                candidates.append(SIMT)
            if way != "bf16" and every:
                candidates += [TENSOR + i for i in range(len(TILES))]
            if way == "fp16" and every:
                candidates += [TENSOR + WIDE + i for i in (0, 3)]
            if way != "bf16" and every and flops < 5e9:
                candidates += [TENSOR + PARTS * parts + i for i in (1, 3, 6) for parts in (2, 4, 8)]
            for tactic in candidates:
                found = kernel.prepare(problem, way, tactic)
                if found is not None:
                    run, y = found
                    row["tactics"][label(tactic)] = round(median_ms(graphed(run)), 4)
                    if wanted is not None and tactic == -1:
                        row["error"] = distance(y)
                    if wanted is not None and tactic == SIMT:
                        row["ffma_error"] = distance(y)
            row["chosen_ms"] = row["tactics"].pop("auto")
            rows.append(row)
            keep(rows)
            tried = " ".join(f"{k}={v:.3f}" for k, v in row["tactics"].items())
            both = f"torchvision {row.get('torchvision_ms', 0):.3f} ours {row['chosen_ms']:.3f}"
            print(f"{name:36} {way} {both} | {tried} err {row.get('error', 0):.2g}", flush=True)
    return rows


def label(tactic: int) -> str:
    if tactic < TENSOR:
        return {-1: "auto", DIRECT: "direct", SIMT: "simt"}[tactic]
    parts = f" /{tactic // PARTS}" if tactic > PARTS else ""
    return ("wide " if tactic & WIDE else "") + TILES[tactic % WIDE - TENSOR] + parts


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks deform-kernel", description=__doc__)
    parser.add_argument("--library", help="compiled kernel.cu; else nvcc compiles it")
    parser.add_argument("--out", default=str(HERE / "results" / "deform_kernel.json"))
    parser.add_argument("--problems", type=int, default=200, help="random problems per dtype")
    parser.add_argument("--ways", default="fp16,tf32,bf16,fp32")
    parser.add_argument("--shapes", help="parts of names, separated by commas")
    parser.add_argument("--every", action="store_true", help="times every tile shape")
    parser.add_argument("--onnxruntime", action="store_true", help="compares with onnxruntime's DeformConv too")
    parser.add_argument("--nvrtc", action="store_true", help="compares with the kernels as NVRTC compiles them")
    parser.add_argument("--profile", action="store_true", help="lists the kernels of two shapes with their times")
    parser.add_argument("--budget", type=float, default=300, help="seconds for timing")
    args = parser.parse_args(arguments)
    try:
        import torch
        import torchvision as vision
    except ImportError as error:
        print(f"deform-kernel needs torch and torchvision: {error}", file=sys.stderr)
        return 2
    if not torch.cuda.is_available():
        print("deform-kernel needs a GPU", file=sys.stderr)
        return 2
    kernel = Kernel(compiled(args.library))
    began = time.perf_counter()
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "torchvision": vision.__version__,
        "method": "median of CUDA event times, ours of a replayed graph, torchvision's of a call, "
        "queued while the device waits; L2 not flushed; "
        "3x3, pad 1, mask, offsets and x normal(0, 1)",
    }

    def keep(part: str) -> Callable[[Any], None]:
        def write(rows: Any) -> None:
            result[part] = rows
            result["seconds"] = round(time.perf_counter() - began, 1)
            Path(args.out).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

        return write

    if args.problems:
        every = [TENSOR + i for i in range(len(TILES))] + [TENSOR + WIDE]
        every += [TENSOR + PARTS * parts + i for i in range(len(TILES)) for parts in (2, 3, 8)]
        correctness(kernel, args.problems, every, args.onnxruntime, keep("correctness"))
        print(f"correctness: {time.perf_counter() - began:.1f} s", flush=True)
    wanted = [name for name in SHAPES if not args.shapes or any(part in name for part in args.shapes.split(","))]
    if args.nvrtc:
        from benchmarks.deform_nvrtc import compared

        compared(kernel, args.ways.split(","), wanted, keep("nvrtc"))
    rows = speed(kernel, args.ways.split(","), wanted, args.every, args.budget, keep("speed"))
    if args.profile:
        keep("kernels")(profiled(kernel))
    summary(rows)
    print(f"{time.perf_counter() - began:.1f} s; wrote {args.out}")
    return 1 if any(row["failed"] for row in result.get("correctness", ())) else 0


def summary(rows: list[dict[str, Any]]) -> None:
    """Ours beside torchvision's call, and where ours is slower."""
    print(f"\n{'shape':38} {'way':5} {'torchvision':>11} {'ours':>8}")
    for row in rows:
        theirs = row.get("torchvision_ms")
        slower = "  SLOWER" if theirs is not None and row["chosen_ms"] > theirs else ""
        print(f"{row['shape']:38} {row['way']:5} {theirs or 0:11.4f} {row['chosen_ms']:8.4f}{slower}")


def profiled(kernel: Kernel) -> list[dict[str, Any]]:
    import torch
    from torch.profiler import ProfilerActivity, profile

    found: list[dict[str, Any]] = []
    for name in list(SHAPES)[:2]:
        for way in ("fp16", "tf32"):
            problem = problem_of(SHAPES[name], getattr(torch, WAYS[way][0]))
            run, _ = kernel.prepare(problem, way, -1)
            run()
            torch.cuda.synchronize()
            with profile(activities=[ProfilerActivity.CUDA]) as recorded:
                for _ in range(10):
                    run()
                torch.cuda.synchronize()
            for event in recorded.key_averages():
                if "kernel" not in event.key:
                    continue
                short = "prepare" if "prepare" in event.key else "main"
                row = {
                    "shape": name,
                    "way": way,
                    "kernel": short,
                    "us": round(event.self_device_time_total / max(event.count, 1), 2),
                }
                found.append(row)
                print(row, flush=True)
    return found
