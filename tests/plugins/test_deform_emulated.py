"""The kernels on tensor cores, thread by thread on the CPU: where numbers lie, who waits for whom, what is summed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onnx_rewrite.engines import plugins

HERE = Path(__file__).resolve().parent / "emulation"
KERNELS = plugins.named(["deform_conv"])[0].folder


def emulated(folder: Path) -> None:
    """Copies the kernels, with the instructions that only a GPU has replaced."""
    for path in [*KERNELS.glob("*.cuh"), *KERNELS.glob("*.h"), *HERE.iterdir()]:
        shutil.copy(path, folder)

    def change(name: str, *changes: tuple[str, str]) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        for old, new in changes:
            text, count = re.subn(old, new, text, flags=re.DOTALL)
            assert count, f"{name} has no {old}"
        (folder / name).write_text(text, encoding="utf-8")

    # Of the instructions those stay that are made of others.
    change(
        "instructions.cuh",
        (r"^.*?(?=template <int N> __device__ __forceinline__ void keep\(float)", '#include "primitives.h"\n'),
        (r"#else\n.*#endif\n", ""),
        (r'asm volatile\(""[^;]*;', ";"),
        (r"ONNX_REWRITE_LOCAL_END", "}"),
    )
    change(
        "tensor.cuh",
        (r"#if __CUDA_ARCH__ >= 800\n", "#if 1\n"),
        (r'asm volatile\("bar.sync 1, %0;"[^;]*;', "consumers_wait<S::kConsumers>();"),
        (r"extern __shared__ char raw\[\];", "char* const raw = emulation::now->block->base;"),
        (r"#if ONNX_REWRITE_WGMMA\n.*?#endif\n", ""),
    )
    tile = "ImageTile<T>& tile = *reinterpret_cast<ImageTile<T>*>(emulation::now->block->base);"
    change("prepare.cuh", (r"__shared__ ImageTile<T> tile;", tile))


def test_emulated_kernels_compute_the_definition(tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None or sys.platform != "linux":
        pytest.skip("g++ is not installed, or fibers (ucontext) are not to be relied on")
    emulated(tmp_path)
    command = [compiler, "-std=c++17", "-O1", "-w", f"-I{tmp_path}", "check.cpp", "-o", "check"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"runs, worst", done.stdout)) == 4
