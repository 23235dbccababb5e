"""The GPU through its driver: memory, streams, events and graphs.

The driver's own library is all that is needed, and it is there wherever an engine can run: no CUDA toolkit, no
version of a runtime library to agree on with TensorRT's. The context is the device's primary one, which TensorRT uses.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_float, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from typing import Any

from onnx_rewrite.engines.protocol import EngineError

_MAJOR, _MINOR = 75, 76  # attributes of a device
_NON_BLOCKING = 1
_RELAXED = 2
_OUT_OF_MEMORY = 2

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (c_void_p,),
    "cuDeviceGet": (c_void_p, c_int),
    "cuDeviceGetName": (c_void_p, c_int, c_int),
    "cuDeviceGetAttribute": (c_void_p, c_int, c_int),
    "cuDevicePrimaryCtxRetain": (c_void_p, c_int),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemGetInfo_v2": (c_void_p, c_void_p),
    "cuMemAlloc_v2": (c_void_p, c_size_t),
    "cuMemFree_v2": (c_ulonglong,),
    "cuMemAllocHost_v2": (c_void_p, c_size_t),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_ulonglong, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_ulonglong, c_size_t, c_void_p),
    "cuStreamCreate": (c_void_p, c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_uint),
    "cuStreamEndCapture": (c_void_p, c_void_p),
    "cuGraphInstantiateWithFlags": (c_void_p, c_void_p, c_ulonglong),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphExecDestroy": (c_void_p,),
    "cuGraphDestroy": (c_void_p,),
    "cuEventCreate": (c_void_p, c_uint),
    "cuEventDestroy_v2": (c_void_p,),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventSynchronize": (c_void_p,),
    "cuEventElapsedTime": (c_void_p, c_void_p, c_void_p),
}


class CudaError(EngineError):
    """The driver refuses a call; the message is its own."""


class Cuda:
    """The first GPU that CUDA_VISIBLE_DEVICES leaves visible.

    Attributes:
        name: For example "NVIDIA H100 80GB HBM3".
        compute_capability: For example (9, 0).
        driver: The newest CUDA that the driver supports, "13.0".

    Raises:
        CudaError: There is no driver, or no GPU.
    """

    def __init__(self) -> None:
        self._library = _load()
        self._call("cuInit", 0)
        device = c_int()
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        text = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", text, len(text), device)
        self.name = text.value.decode()
        self.compute_capability = self._attribute(_MAJOR, device), self._attribute(_MINOR, device)
        version = c_int()
        self._call("cuDriverGetVersion", ctypes.byref(version))
        self.driver = f"{version.value // 1000}.{version.value % 1000 // 10}"
        self._context = c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self._call("cuCtxSetCurrent", self._context)

    def memory(self) -> tuple[int, int]:
        """Free and total bytes."""
        free, total = c_size_t(), c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def allocate(self, size: int) -> int:
        """Device memory of at least one byte."""
        return self._made("cuMemAlloc_v2", max(size, 1), kind=c_ulonglong)

    def free(self, pointer: int) -> None:
        """Gives device memory back."""
        self._call("cuMemFree_v2", pointer)

    def allocate_host(self, size: int) -> int:
        """Pinned memory of the host."""
        return self._made("cuMemAllocHost_v2", max(size, 1))

    def free_host(self, pointer: int) -> None:
        """Gives pinned memory back."""
        self._call("cuMemFreeHost", pointer)

    def to_device(self, target: int, source: int, size: int, stream: int) -> None:
        """Copies pinned memory to the device, in turn on the stream."""
        self._call("cuMemcpyHtoDAsync_v2", target, source, size, stream)

    def to_host(self, target: int, source: int, size: int, stream: int) -> None:
        """Copies device memory to pinned memory, in turn on the stream."""
        self._call("cuMemcpyDtoHAsync_v2", target, source, size, stream)

    def stream(self) -> int:
        """A new stream, which does not wait for the default one."""
        return self._made("cuStreamCreate", _NON_BLOCKING)

    def wait_stream(self, stream: int) -> None:
        """Waits until everything on the stream is done."""
        self._call("cuStreamSynchronize", stream)

    def close_stream(self, stream: int) -> None:
        """Ends a stream."""
        self._call("cuStreamDestroy_v2", stream)

    def event(self) -> int:
        """A new event with a time; whoever waits for it spins."""
        return self._made("cuEventCreate", 0)

    def close_event(self, event: int) -> None:
        """Ends an event."""
        self._call("cuEventDestroy_v2", event)

    def record(self, event: int, stream: int) -> None:
        """The event happens when the stream comes to it."""
        self._call("cuEventRecord", event, stream)

    def wait_event(self, event: int) -> None:
        """Waits until it has happened."""
        self._call("cuEventSynchronize", event)

    def milliseconds(self, start: int, end: int) -> float:
        """Between two events that have happened."""
        found = c_float()
        self._call("cuEventElapsedTime", ctypes.byref(found), start, end)
        return float(found.value)

    def begin_capture(self, stream: int) -> None:
        """From now on the stream's work is noted and not done."""
        self._call("cuStreamBeginCapture_v2", stream, _RELAXED)

    def end_capture(self, stream: int) -> int:
        """The work that was noted, ready to be launched.

        Raises:
            CudaError: Something in it cannot be captured.
        """
        graph = c_void_p()
        self._call("cuStreamEndCapture", stream, ctypes.byref(graph))
        if not graph.value:
            raise CudaError("CUDA: the capture gave no graph")
        try:
            return self._made("cuGraphInstantiateWithFlags", graph, 0)
        finally:
            self._call("cuGraphDestroy", graph)

    def launch(self, graph: int, stream: int) -> None:
        """Does the work of a graph."""
        self._call("cuGraphLaunch", graph, stream)

    def close_graph(self, graph: int) -> None:
        """Ends a graph."""
        self._call("cuGraphExecDestroy", graph)

    def _attribute(self, which: int, device: c_int) -> int:
        value = c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), which, device)
        return value.value

    def _made(self, name: str, *arguments: Any, kind: Any = c_void_p) -> int:
        found = kind()
        self._call(name, ctypes.byref(found), *arguments)
        return int(found.value or 0)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status == 0:
            return
        text = c_char_p()
        self._library.cuGetErrorString(status, ctypes.byref(text))
        words = (text.value or b"").decode() or f"error {status}"
        if status == _OUT_OF_MEMORY:
            words = "not enough GPU memory"
        raise CudaError(f"CUDA: {words} ({name})")


def obstacle() -> str | None:
    """Why this machine's GPU cannot be used, in one line, or None."""
    try:
        Cuda()
    except CudaError as error:
        return str(error)
    return None


def _load() -> Any:
    name = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        raise CudaError("there is no NVIDIA driver") from error
    try:
        for function, arguments in _SIGNATURES.items():
            getattr(library, function).argtypes = list(arguments)
        library.cuGetErrorString.argtypes = [c_int, c_void_p]
    except AttributeError as error:
        raise CudaError(f"the NVIDIA driver is too old: {error}") from error
    return library
