"""A CUDA driver without a GPU, made by a C compiler, and a `tensorrt` whose engines onnxruntime runs on it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def make(folder: Path) -> Path:
    """Writes libcuda.so.1 and tensorrt.py to a folder; skips where that cannot be."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None or importlib.util.find_spec("cuda") is None:
        pytest.skip("needs a C compiler on Linux, and cuda-core")
    command = [compiler, "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(folder / "libcuda.so.1")]
    subprocess.run([*command, str(HERE / "core" / "engines" / "stub_cuda.c"), "-ldl"], check=True)
    (folder / "tensorrt.py").write_text(
        "import sys\nfrom tests.core.engines import fake_tensorrt\nsys.modules['tensorrt'] = fake_tensorrt.module()\n"
    )
    return folder


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Of a process that finds both."""
    return {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": f"{HERE.parent}:{folder}", **more}
