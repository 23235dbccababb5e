"""The GPU through `cuda.core`, NVIDIA's own: memory, streams, events and graphs.

It is imported when a GPU is asked for. The context is the device's primary one, which TensorRT uses too. What is not
in `cuda.core` (how much memory is free, the driver's version) comes from `cuda.bindings`, on which it is built.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from onnx_rewrite.engines.protocol import EngineError

_Result = TypeVar("_Result")

INSTALL = "pip install 'onnx-rewrite[cuda]'"


class CudaError(EngineError):
    """CUDA refuses a call; the message is its own."""


@dataclass(frozen=True)
class Handle:
    """Memory or a stream.

    Attributes:
        address: What TensorRT is told: a pointer, or the stream's handle.
        native: The object of `cuda.core`, which frees it.
    """

    address: int
    native: Any


def _said(method: Callable[..., _Result]) -> Callable[..., _Result]:
    """The method, with every failure of CUDA's as a CudaError."""

    @functools.wraps(method)
    def speaking(*arguments: Any, **options: Any) -> _Result:
        try:
            return method(*arguments, **options)
        except CudaError:
            raise
        except Exception as error:  # cuda.core has several kinds, and none in common
            raise CudaError(_words(error)) from error

    return speaking


class Cuda:
    """The first GPU that CUDA_VISIBLE_DEVICES leaves visible.

    Attributes:
        name: For example "NVIDIA H100 80GB HBM3".
        compute_capability: For example (9, 0).
        driver: The newest CUDA that the driver supports, "13.0".

    Raises:
        CudaError: cuda-core is not installed, there is no driver, or no GPU.
    """

    @_said
    def __init__(self) -> None:
        core, self._driver = _libraries()
        version = int(self._value(self._driver.cuDriverGetVersion()))
        self.driver = f"{version // 1000}.{version % 1000 // 10}"
        _fits(version // 1000)
        self._device = core.Device(0)
        self._device.set_current()
        self.name = str(self._device.name)
        major, minor = self._device.compute_capability
        self.compute_capability = int(major), int(minor)
        self._timed = core.EventOptions(timing_enabled=True)
        self._nonblocking = core.StreamOptions(nonblocking=True)
        # Memory of the device comes from a pool, in turn on a stream: on this one, which is waited for at once.
        self._own: Any = self._device.create_stream(options=self._nonblocking)
        self._pinned: Any = core.LegacyPinnedMemoryResource()

    @_said
    def memory(self) -> tuple[int, int]:
        """Free and total bytes."""
        error, free, total = self._driver.cuMemGetInfo()
        self._value((error, None))
        return int(free), int(total)

    @_said
    def allocate(self, size: int) -> Handle:
        """Device memory of at least one byte."""
        buffer = self._device.allocate(max(size, 1), stream=self._own)
        self._own.sync()
        return Handle(int(buffer.handle), buffer)

    @_said
    def allocate_host(self, size: int) -> Handle:
        """Pinned memory of the host."""
        buffer = self._pinned.allocate(max(size, 1))
        return Handle(int(buffer.handle), buffer)

    @_said
    def free(self, memory: Handle) -> None:
        """Gives memory back, once nothing uses it."""
        memory.native.close(self._own)

    @_said
    def copy(self, target: Handle, source: Handle, stream: Handle) -> None:
        """Copies memory to memory of the same size, host or device, in turn on the stream."""
        source.native.copy_to(target.native, stream=stream.native)

    @_said
    def stream(self) -> Handle:
        """A new stream, which does not wait for the default one."""
        made = self._device.create_stream(options=self._nonblocking)
        return Handle(int(made.handle), made)

    @_said
    def wait_stream(self, stream: Handle) -> None:
        """Waits until everything on the stream is done."""
        stream.native.sync()

    @_said
    def event(self) -> Any:
        """A new event with a time; whoever waits for it spins."""
        return self._device.create_event(options=self._timed)

    @_said
    def record(self, event: Any, stream: Handle) -> None:
        """The event happens when the stream comes to it."""
        stream.native.record(event)

    @_said
    def wait_event(self, event: Any) -> None:
        """Waits until it has happened."""
        event.sync()

    @_said
    def milliseconds(self, start: Any, end: Any) -> float:
        """Between two events that have happened."""
        return float(end - start)

    @_said
    def capture(self, stream: Handle, work: Callable[[], bool]) -> Any:
        """The work as a graph that can be launched; it is not done.

        Args:
            stream: What the work is put on.
            work: Returns whether it could be put there.

        Raises:
            CudaError: Something in it cannot be captured.
        """
        builder = stream.native.create_graph_builder().begin_building(mode="relaxed")
        try:
            put = work()
            builder.end_building()
            if not put:
                raise CudaError("it cannot be captured")
            return builder.complete()
        finally:
            _close_quietly(builder)

    @_said
    def launch(self, graph: Any, stream: Handle) -> None:
        """Does the work of a graph."""
        graph.launch(stream.native)

    @_said
    def close(self, thing: Any) -> None:
        """Ends a stream, an event or a graph."""
        (thing.native if isinstance(thing, Handle) else thing).close()

    def _value(self, answer: tuple[Any, Any]) -> Any:
        status, value = answer
        if int(status) != 0:
            _, text = self._driver.cuGetErrorString(status)
            raise CudaError(f"CUDA: {bytes(text or b'').decode() or status}")
        return value


def obstacle() -> str | None:
    """Why this machine's GPU cannot be used, in one line, or None."""
    try:
        Cuda()
    except CudaError as error:
        return str(error)
    return None


def _libraries() -> tuple[Any, Any]:
    # Kernels are loaded when they are launched; all of a library's at once would take seconds.
    os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")
    try:
        core = importlib.import_module("cuda.core")
        driver = importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError):
            raise CudaError(f"cuda-core is not installed: {INSTALL}") from error
        raise CudaError(f"cuda-core does not load: {' '.join(str(error).split())}") from error
    if not hasattr(core, "Device"):  # before 0.5 everything was in cuda.core.experimental
        raise CudaError(f"cuda-core {core.__version__} is too old: {INSTALL}")
    return core, driver


def _fits(driver: int) -> None:
    """Raises CudaError where cuda-bindings is of a later CUDA than the driver."""
    major = int(str(importlib.import_module("cuda.bindings").__version__).partition(".")[0])
    if driver < major:
        way_out = f"pip install 'cuda-bindings<{driver + 1}'"
        raise CudaError(f"the NVIDIA driver is of CUDA {driver}, the package cuda-bindings of CUDA {major}: {way_out}")


def _close_quietly(builder: Any) -> None:
    # An invalid capture is ended by this, and says once more that it was invalid.
    try:
        builder.close()
    except Exception:
        return


def _words(error: Exception) -> str:
    text = " ".join(str(error).split())
    if type(error).__name__ == "DynamicLibNotFoundError":
        return "there is no NVIDIA driver"
    if "CUDA_ERROR_OUT_OF_MEMORY" in text:
        return "CUDA: not enough GPU memory"
    if "CUDA_ERROR_NO_DEVICE" in text:
        return "CUDA: no CUDA-capable device is detected"
    if "not found" in text and "cu" in text.lower() and isinstance(error, RuntimeError):
        return f"the NVIDIA driver is too old: {text}"
    first, stop, _ = text.partition(". ")
    return f"CUDA: {first}{stop.strip()}"
