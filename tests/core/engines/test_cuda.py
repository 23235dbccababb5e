"""The calls to the driver, against a library of the same signatures that a C compiler makes."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onnx_rewrite.engines.cuda import Cuda, CudaError, obstacle

COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = pytest.mark.skipif(sys.platform != "linux" or COMPILER is None, reason="needs a C compiler on Linux")


@pytest.fixture
def cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cuda:
    library = tmp_path / "libcuda.so.1"
    source = Path(__file__).with_name("stub_cuda.c")
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    loaded = ctypes.CDLL(str(library))
    monkeypatch.setattr("ctypes.CDLL", lambda name: loaded)
    return Cuda()


def test_what_the_gpu_is(cuda: Cuda) -> None:
    assert (cuda.name, cuda.compute_capability, cuda.driver) == ("Stub GPU", (9, 0), "13.0")
    assert cuda.memory() == (3 << 30, 4 << 30)
    assert obstacle() is None


def test_copies(cuda: Cuda) -> None:
    source, device, target, stream = cuda.allocate_host(16), cuda.allocate(16), cuda.allocate_host(16), cuda.stream()
    ctypes.memmove(source, b"0123456789abcdef", 16)
    cuda.to_device(device, source, 16, stream)
    cuda.to_host(target, device, 16, stream)
    cuda.wait_stream(stream)
    assert ctypes.string_at(target, 16) == b"0123456789abcdef"
    cuda.free(device)
    cuda.free_host(source)
    cuda.free_host(target)
    cuda.close_stream(stream)


def test_events_and_graphs(cuda: Cuda) -> None:
    stream, start, end = cuda.stream(), cuda.event(), cuda.event()
    cuda.record(start, stream)
    cuda.begin_capture(stream)
    graph = cuda.end_capture(stream)
    cuda.launch(graph, stream)
    cuda.record(end, stream)
    cuda.wait_event(end)
    assert cuda.milliseconds(start, end) >= 0
    assert cuda.milliseconds(end, start) <= 0
    cuda.close_graph(graph)
    cuda.close_event(start)
    cuda.close_event(end)
    cuda.close_stream(stream)


def test_a_call_that_is_refused(cuda: Cuda) -> None:
    with pytest.raises(CudaError, match="not enough GPU memory"):
        cuda.allocate(1 << 40)


def test_a_driver_that_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old.c").write_text("int cuInit(unsigned flags) { return 0; }")
    library = tmp_path / "old.so"
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-o", str(library), str(tmp_path / "old.c")], check=True)
    loaded = ctypes.CDLL(str(library))
    monkeypatch.setattr("ctypes.CDLL", lambda name: loaded)
    assert "too old" in str(obstacle())
