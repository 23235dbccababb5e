"""Our use of cuda.core, on a driver that a C compiler makes: the calls are real, the GPU is the host's memory.

In processes of their own: a driver is loaded once, and no other test must find this one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from onnx_rewrite.engines import cuda
from tests import stub_driver


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stub_driver.make(tmp_path_factory.mktemp("driver"))


def run(driver: Path, code: str, **more: str) -> str:
    command, environment = [sys.executable, "-c", code], stub_driver.environment(driver, **more)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


CALLS = """
import ctypes
from onnx_rewrite.engines.cuda import Cuda, CudaError, obstacle

assert obstacle() is None
cuda = Cuda()
assert (cuda.name, cuda.compute_capability, cuda.driver) == ("Stub GPU", (9, 0), "13.0")
assert cuda.memory() == (3 << 30, 4 << 30)

source, device, target, stream = cuda.allocate_host(16), cuda.allocate(16), cuda.allocate_host(16), cuda.stream()
ctypes.memmove(source.address, b"0123456789abcdef", 16)
cuda.copy(device, source, stream)
cuda.copy(target, device, stream)
cuda.wait_stream(stream)
assert ctypes.string_at(target.address, 16) == b"0123456789abcdef"
empty = cuda.allocate(0), cuda.allocate_host(0)
cuda.copy(*empty, stream)
for memory in (source, device, target, *empty):
    cuda.free(memory)

start, end = cuda.event(), cuda.event()
cuda.record(start, stream)
graph = cuda.capture(stream, lambda: True)
cuda.launch(graph, stream)
cuda.record(end, stream)
cuda.wait_event(end)
assert cuda.milliseconds(start, end) > 0 > cuda.milliseconds(end, start)

def refused(call, *arguments):
    try:
        call(*arguments)
    except CudaError as error:
        return str(error)

stub = ctypes.CDLL("libcuda.so.1")
assert refused(cuda.capture, stream, lambda: False) == "it cannot be captured"
assert "invalidated" in refused(cuda.capture, stream, lambda: stub.stub_invalidate() or True)
cuda.launch(cuda.capture(stream, lambda: True), stream)  # the stream is as before
assert refused(cuda.allocate, 1 << 40) == "CUDA: not enough GPU memory"
for thing in (start, end, graph, stream):
    cuda.close(thing)
"""


def test_every_call(driver: Path) -> None:
    run(driver, CALLS)


ENGINE = """
import numpy as np
from tests.core.engines.models import linear

from onnx_rewrite.engines.bench import compare
from onnx_rewrite.engines.options import BuildOptions
from onnx_rewrite.engines.protocol import Model
from onnx_rewrite.engines.tensorrt import TensorRT
from onnx_rewrite.engines.timing import Effort

effort = Effort(warmup_seconds=0.0, seconds=0.02)
for options in (BuildOptions(graph=False, transfers=True, streams=2), BuildOptions()):
    rows = compare(Model(linear()), Model(linear()), [TensorRT(options)], effort=effort, profile=True)
    for row in rows:
        assert row.error is None and row.device == "Stub GPU", row
        assert row.max_abs_error < 1e-5 and row.latency_ms.median > 0 and row.throughput > 0, row
    print(rows[1].ratio is not None, len(rows[0].profile), bool(rows[0].profile[0].milliseconds))
"""


def test_an_engine_is_built_run_timed_and_profiled(driver: Path, tmp_path: Path) -> None:
    assert run(driver, ENGINE, ONNX_REWRITE_CACHE=str(tmp_path)).split() == ["True", "3", "True"] * 2


OBSTACLE = "from onnx_rewrite.engines.cuda import obstacle; print(obstacle())"


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"STUB_INIT": "100"}, "CUDA: no CUDA-capable device is detected"),
        ({"STUB_VERSION": "11080"}, "the NVIDIA driver is of CUDA 11, the package cuda-bindings of CUDA"),
    ],
)
def test_a_gpu_that_cannot_be_used(driver: Path, environment: dict[str, str], words: str) -> None:
    assert run(driver, OBSTACLE, **environment).startswith(words)


def test_a_machine_without_cuda_core(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cuda", "cuda.core"):
        monkeypatch.setitem(sys.modules, name, None)
    assert cuda.obstacle() == "cuda-core is not installed: pip install 'onnx-rewrite[cuda]'"


def test_a_machine_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    class DynamicLibNotFoundError(RuntimeError):
        """As cuda.pathfinder raises it."""

    def libraries() -> None:
        raise DynamicLibNotFoundError('"cuda" is an NVIDIA driver library and can only be found via system search.')

    monkeypatch.setattr(cuda, "_libraries", libraries)
    assert cuda.obstacle() == "there is no NVIDIA driver"
