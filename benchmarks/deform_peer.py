"""torchvision's deformable convolution as a peer: what it takes, and whether a CUDA graph of it does the work.

torchvision launches `deformable_im2col_kernel` without a stream, on the default one. While another stream is captured,
such a kernel runs at once and is not in the graph: what is replayed multiplies columns of zeros. So its time is that of
calls, queued while the device is kept busy, and a graph's only where its output follows the inputs.
"""

from __future__ import annotations

from typing import Any

from benchmarks.deform_timing import median_ms

# As many calls as leave room for their kernels in a stream's queue.
MOST = 40


def torchvision(problem: dict[str, Any]) -> Any:
    """torchvision's result, as its users get it; pads must be symmetric."""
    from torchvision.ops import deform_conv2d

    x, offset, weight, bias, mask = (problem[name] for name in ("x", "offset", "weight", "bias", "mask"))
    return deform_conv2d(x, offset, weight, bias, problem["strides"], problem["pads"][:2], problem["dilations"], mask)


def timed(problem: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds of torchvision's call, and what a graph of it is worth.

    Returns:
        torchvision_ms: Device time of a call; gaps between its kernels count, the host does not.
        torchvision_called_ms: The same with the host, as a program that waits for each result has it.
        torchvision_graph: What is wrong with a graph of the call, or its milliseconds.
    """
    found: dict[str, Any] = {
        "torchvision_ms": round(median_ms(lambda: torchvision(problem), most=MOST), 4),
        "torchvision_called_ms": round(_called_ms(lambda: torchvision(problem)), 4),
    }
    found["torchvision_graph"] = _graph(problem)
    return found


def _called_ms(run: Any) -> float:
    import statistics

    import torch

    times: list[float] = []
    for _ in range(12):
        torch.cuda.synchronize()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times[2:])


def _graph(problem: dict[str, Any]) -> Any:
    """Captures the call, changes the inputs, and compares what the graph gives with a call."""
    import torch

    own = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in problem.items()}
    torchvision(own)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            y = torchvision(own)
    except RuntimeError as error:
        return f"cannot be captured: {' '.join(str(error).split())[:120]}"
    for name in ("x", "offset"):
        own[name].copy_(own[name].flip(0, 1) * 0.75)
    graph.replay()
    torch.cuda.synchronize()
    wanted = torchvision(own)
    distance = float((y.double() - wanted.double()).norm() / wanted.double().norm())
    if distance < 1e-3:
        return round(median_ms(graph.replay), 4)
    bias = own["bias"].view(1, -1, 1, 1)
    what = "the bias alone" if torch.equal(y, bias.expand_as(y)) else f"relative error {distance:.2g}"
    return f"wrong: {what}, in {median_ms(graph.replay):.4f} ms"


def kernels(problem: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Microseconds of each kernel, in a call and in the replay of a graph, as the profiler sees them."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    def listed(run: Any) -> dict[str, float]:
        run()
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as recorded:
            for _ in range(5):
                run()
            torch.cuda.synchronize()
        return {
            f"{event.count // 5} x {event.key[:70]}": round(event.self_device_time_total / 5, 2)
            for event in recorded.key_averages()
            if event.self_device_time_total
        }

    found = {"call": listed(lambda: torchvision(problem))}
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        torchvision(problem)
    found["graph"] = listed(graph.replay)
    return found
