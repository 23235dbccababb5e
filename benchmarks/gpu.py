"""The GPU that a benchmark runs on, for its results."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def told(cuda: Any) -> dict[str, Any]:
    """Name, compute capability, CUDA and driver of an open `onnx_rewrite.engines.cuda.Cuda`."""
    kernel = Path("/sys/module/nvidia/version")
    version = kernel.read_text().strip() if kernel.is_file() else None
    capability = ".".join(map(str, cuda.compute_capability))
    return {"gpu": cuda.name, "compute_capability": capability, "cuda": cuda.driver, "driver": version}


def gpu() -> dict[str, Any]:
    """The same of this process's GPU, or the reason why there is none."""
    from onnx_rewrite.engines.cuda import Cuda, CudaError

    try:
        return told(Cuda())
    except CudaError as error:
        return {"gpu": None, "reason": str(error)}
