"""Runs a serialized TensorRT engine and times it as trtexec does."""

from __future__ import annotations

import ctypes
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import onnx

from onnx_rewrite.engines.cuda import Cuda, CudaError, Handle
from onnx_rewrite.engines.nsight import watched
from onnx_rewrite.engines.options import BuildOptions
from onnx_rewrite.engines.protocol import EngineError, Layer, Phases, Timing
from onnx_rewrite.engines.trt_layers import inspected, readable
from onnx_rewrite.verify.dtypes import Array

_DEPTH = 2
"""Inferences of one stream that are under way at once: the GPU does not wait for the host between two."""

_NUMPY = {
    "FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32", "INT64": "int64", "BOOL": "bool",
    "UINT8": "uint8", "BF16": "bfloat16", "FP8": "float8_e4m3fn",
}  # fmt: skip


_Events = tuple[Any, ...]
_Pending = tuple[_Events, float, float]


@dataclass
class _Tensor:
    """An input or output of the engine."""

    name: str
    is_input: bool
    dtype: np.dtype[Any]
    on_host: bool


@dataclass
class _Buffer:
    """Where one tensor of one stream lies."""

    shape: tuple[int, ...]
    size: int
    host: Handle
    device: Handle | None


@dataclass
class _Lane:
    """One stream: its context, its buffers, and the inferences under way."""

    context: Any
    stream: Handle
    buffers: dict[str, _Buffer] = field(default_factory=dict[str, _Buffer])
    graph: Any = None
    allocators: dict[str, Any] = field(default_factory=dict[str, Any])
    free: list[_Events] = field(default_factory=list[_Events])
    pending: deque[_Pending] = field(default_factory=deque[_Pending])


class Runner:
    """An engine in the GPU's memory.

    Args:
        trt: The module.
        logger: Of TensorRT; kept, for the engine writes to it.
        data: The serialized engine.
        model: What it was built from: it says the types of the outputs.
        options: Streams, CUDA graphs, transfers.
        cuda: The GPU.

    Attributes:
        layers: From the engine's inspector.
        information: The inspector's own JSON.
        notes: What a user should know of how it ran.

    Raises:
        EngineError: The engine does not load, above all for lack of memory.
    """

    def __init__(
        self, trt: Any, logger: Any, data: bytes, model: onnx.ModelProto, options: BuildOptions, cuda: Cuda
    ) -> None:
        self._trt, self._logger, self._cuda, self._options = trt, logger, cuda, options
        self._runtime: Any = trt.Runtime(logger.logger)
        logger.errors.clear()
        self._engine: Any = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise EngineError(f"the engine does not load:\n{logger.words()}{self._memory()}")
        self._tensors = [self._tensor(i) for i in range(int(self._engine.num_io_tensors))]
        self._wanted = {
            value.name: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            for value in model.graph.output
        }
        self._lanes = [self._lane() for _ in range(options.streams)]
        self._fed: dict[str, Array] | None = None
        self.notes: list[str] = []
        self.information = self._inspect()
        self.layers: tuple[Layer, ...] = inspected(self.information, model)
        if not self.layers:
            self.notes.append("the library does not tell the layers of this engine")

    def run(self, feeds: Mapping[str, Array]) -> tuple[dict[str, Any], Timing]:
        """The outputs for some inputs, and when what happened."""
        self._feed(feeds)
        lane = self._lanes[0]
        start = perf_counter()
        reference = self._events(1)[0]
        self._cuda.record(reference, lane.stream)
        self._enqueue(lane, start, transfers=True)
        phases = self._collect(lane, reference)
        self._cuda.wait_stream(lane.stream)
        self._cuda.close(reference)
        outputs = {t.name: self._read(lane, t) for t in self._tensors if not t.is_input}
        return outputs, Timing(start, phases.latency / 1e3, phases)

    def burst(self, feeds: Mapping[str, Array], seconds: float, iterations: int) -> tuple[list[Timing], float]:
        """Repeats inferences; returns them, and the seconds from the first start to the last end."""
        self._feed(feeds)
        found: list[Timing] = []
        reference = self._events(1)[0]
        begin = perf_counter()
        self._cuda.record(reference, self._lanes[0].stream)
        done = 0
        transfers = self._options.transfers
        while perf_counter() - begin < seconds or done < iterations:
            for lane in self._lanes:
                if len(lane.pending) >= _DEPTH:
                    found.append(self._timing(lane, reference, begin))
                self._enqueue(lane, begin, transfers=transfers)
                done += 1
        for lane in self._lanes:
            while lane.pending:
                found.append(self._timing(lane, reference, begin))
        self._cuda.close(reference)
        phases = [one.phases for one in found if one.phases is not None]
        first, last = min(one.h2d[0] for one in phases), max(one.d2h[1] for one in phases)
        return found, (last - first) / 1e3

    def profile(self, feeds: Mapping[str, Array], iterations: int = 50) -> list[tuple[str, list[float]]]:
        """Milliseconds of each layer in each of some inferences, in the order of execution."""
        self._feed(feeds)
        lane = self._lanes[0]
        found: dict[str, list[float]] = {}

        class Profiler(self._trt.IProfiler):
            def __init__(self) -> None:
                super().__init__()

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                found.setdefault(layer_name, []).append(float(ms))

        # A context of its own: one with a profiler synchronises after every layer for ever.
        context = self._engine.create_execution_context()
        if context is None:
            raise EngineError(f"no memory for a profile{self._memory()}")
        profiled = replace_context(lane, context)
        self._bind(profiled)
        profiler = Profiler()
        context.profiler = profiler
        for i in range(iterations + 3):
            if i == 3:
                found.clear()
            if not context.execute_async_v3(lane.stream.address):
                raise EngineError(f"the engine does not run:\n{self._logger.words()}")
            self._cuda.wait_stream(lane.stream)
        return list(found.items())

    def close(self) -> None:
        """Gives the GPU's memory back."""
        for lane in self._lanes:
            self._release(lane)
            for events in lane.free:
                for event in events:
                    self._cuda.close(event)
            self._cuda.close(lane.stream)
        # Contexts before their engine, the engine before its runtime.
        self._lanes = []
        self._engine = None
        self._runtime = None

    @property
    def graphed(self) -> bool:
        """Whether inferences are launched as CUDA graphs."""
        return all(lane.graph is not None for lane in self._lanes)

    @property
    def device_memory(self) -> int:
        """Bytes that one execution context takes."""
        name = "device_memory_size_v2" if hasattr(self._engine, "device_memory_size_v2") else "device_memory_size"
        return int(getattr(self._engine, name, 0))

    def _memory(self) -> str:
        try:
            free, total = self._cuda.memory()
        except CudaError:
            return ""
        return f" ({free / 2**30:.1f} of {total / 2**30:.1f} GiB of GPU memory are free)"

    def _tensor(self, i: int) -> _Tensor:
        engine, trt = self._engine, self._trt
        name = engine.get_tensor_name(i)
        kind = engine.get_tensor_dtype(name).name
        if kind not in _NUMPY:
            raise EngineError(f"{name} has the type {kind}, which numpy has not")
        dtype = _dtype(_NUMPY[kind])
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        return _Tensor(name, is_input, dtype, engine.get_tensor_location(name) == trt.TensorLocation.HOST)

    def _lane(self) -> _Lane:
        context = self._engine.create_execution_context()
        if context is None:
            raise EngineError(f"no execution context:\n{self._logger.words()}{self._memory()}")
        if watched() and hasattr(context, "nvtx_verbosity"):
            context.nvtx_verbosity = self._trt.ProfilingVerbosity.DETAILED
        return _Lane(context, self._cuda.stream())

    def _inspect(self) -> str:
        try:
            inspector = self._engine.create_engine_inspector()
        except (AttributeError, RuntimeError):
            return ""
        form = self._trt.LayerInformationFormat.JSON
        try:
            text = str(inspector.get_engine_information(form))
        except (RuntimeError, UnicodeDecodeError):  # names of layers need not be UTF-8
            text = ""
        count = int(getattr(self._engine, "num_layers", 0))
        return readable(text, lambda i: str(inspector.get_layer_information(i, form)), count)

    def _feed(self, feeds: Mapping[str, Array]) -> None:
        """Puts inputs where every stream finds them; new shapes get new buffers."""
        values: dict[str, Array] = {}
        for tensor in self._tensors:
            if tensor.is_input:
                if tensor.name not in feeds:
                    raise EngineError(f"input {tensor.name} is missing")
                values[tensor.name] = _as_type(np.asarray(feeds[tensor.name]), tensor)
        last = self._fed
        if last is not None and all(values[n] is last.get(n) or _same(values[n], last.get(n)) for n in values):
            return
        new = last is None or any(values[n].shape != last[n].shape for n in values)
        shape_inputs = any(t.is_input and t.on_host for t in self._tensors)
        self._fed = {name: value.copy() for name, value in values.items()}
        for lane in self._lanes:
            self._cuda.wait_stream(lane.stream)
            if new or shape_inputs:
                self._release(lane)
                self._shape(lane, values)
            for tensor in self._tensors:
                if tensor.is_input:
                    buffer = lane.buffers[tensor.name]
                    ctypes.memmove(buffer.host.address, values[tensor.name].ctypes.data, buffer.size)
                    if buffer.device is not None:
                        self._cuda.copy(buffer.device, buffer.host, lane.stream)
            self._cuda.wait_stream(lane.stream)
            if new or shape_inputs:
                self._first(lane)

    def _shape(self, lane: _Lane, values: Mapping[str, Array]) -> None:
        context = lane.context
        for tensor in self._tensors:
            if tensor.is_input:
                value = values[tensor.name]
                if not context.set_input_shape(tensor.name, value.shape):
                    shape = list(value.shape)
                    words = self._logger.words()
                    raise EngineError(f"input {tensor.name} of shape {shape} does not fit the engine:\n{words}")
                self._allocate(lane, tensor, value.shape)
                if tensor.on_host:
                    ctypes.memmove(
                        lane.buffers[tensor.name].host.address, value.ctypes.data, lane.buffers[tensor.name].size
                    )
        self._bind(lane, only_inputs=True)
        context.infer_shapes()
        for tensor in self._tensors:
            if not tensor.is_input:
                shape = tuple(int(dim) for dim in context.get_tensor_shape(tensor.name))
                if any(dim < 0 for dim in shape):
                    most = int(context.get_max_output_size(tensor.name))
                    self._allocate(lane, tensor, (most // tensor.dtype.itemsize,))
                    lane.allocators[tensor.name] = self._allocator(lane, tensor.name)
                else:
                    self._allocate(lane, tensor, shape)
        self._bind(lane)

    def _allocator(self, lane: _Lane, name: str) -> Any:
        """For an output whose shape depends on values: it takes the buffer for the largest one."""

        class Allocator(self._trt.IOutputAllocator):
            def __init__(self) -> None:
                super().__init__()
                self.shape: tuple[int, ...] = ()

            def reallocate_output(self, tensor_name: str, memory: Any, size: int, alignment: int) -> int:
                buffer = lane.buffers[name]
                return buffer.device.address if buffer.device is not None and size <= buffer.size else 0

            def reallocate_output_async(
                self, tensor_name: str, memory: Any, size: int, alignment: int, stream: Any
            ) -> int:
                return self.reallocate_output(tensor_name, memory, size, alignment)

            def notify_shape(self, tensor_name: str, shape: Any) -> None:
                self.shape = tuple(int(dim) for dim in shape)

        return Allocator()

    def _allocate(self, lane: _Lane, tensor: _Tensor, shape: tuple[int, ...]) -> None:
        size = math.prod(shape) * tensor.dtype.itemsize
        try:
            host = self._cuda.allocate_host(size)
            device = None if tensor.on_host else self._cuda.allocate(size)
        except CudaError as error:
            raise EngineError(f"{error}: {size} bytes for {tensor.name}{self._memory()}") from error
        lane.buffers[tensor.name] = _Buffer(tuple(shape), size, host, device)

    def _bind(self, lane: _Lane, *, only_inputs: bool = False) -> None:
        for tensor in self._tensors:
            if only_inputs and not tensor.is_input:
                continue
            buffer = lane.buffers[tensor.name]
            if lane.graph is None and tensor.is_input:
                lane.context.set_input_shape(tensor.name, buffer.shape)
            lane.context.set_tensor_address(tensor.name, (buffer.device or buffer.host).address)
            if tensor.name in lane.allocators:
                lane.context.set_output_allocator(tensor.name, lane.allocators[tensor.name])

    def _first(self, lane: _Lane) -> None:
        """One inference that loads kernels and sizes what is sized late; then the CUDA graph."""
        self._logger.errors.clear()
        if not lane.context.execute_async_v3(lane.stream.address):
            raise EngineError(f"the engine does not run:\n{self._logger.words()}{self._memory()}")
        self._cuda.wait_stream(lane.stream)
        if self._logger.errors:
            raise EngineError(f"the engine does not run:\n{self._logger.words()}")
        if not self._options.graph or lane.allocators:
            return
        try:
            lane.graph = self._cuda.capture(
                lane.stream, lambda: bool(lane.context.execute_async_v3(lane.stream.address))
            )
        except CudaError as error:
            lane.graph = None
            note = f"not run as a CUDA graph: {error}"
            if note not in self.notes:
                self.notes.append(note)
            self._logger.errors.clear()

    def _events(self, count: int) -> _Events:
        return tuple(self._cuda.event() for _ in range(count))

    def _enqueue(self, lane: _Lane, begin: float, *, transfers: bool) -> None:
        cuda, stream = self._cuda, lane.stream
        events = lane.free.pop() if lane.free else self._events(4)
        start, loaded, computed, end = events
        if transfers:
            cuda.record(start, stream)
            for tensor in self._tensors:
                buffer = lane.buffers[tensor.name]
                if tensor.is_input and buffer.device is not None:
                    cuda.copy(buffer.device, buffer.host, stream)
        cuda.record(loaded, stream)
        before = perf_counter()
        if lane.graph is not None:
            cuda.launch(lane.graph, stream)
        elif not lane.context.execute_async_v3(stream.address):
            raise EngineError(f"the engine does not run:\n{self._logger.words()}")
        after = perf_counter()
        cuda.record(computed, stream)
        if transfers:
            for tensor in self._tensors:
                buffer = lane.buffers[tensor.name]
                if not tensor.is_input and buffer.device is not None:
                    cuda.copy(buffer.host, buffer.device, stream)
            cuda.record(end, stream)
        used = events if transfers else (loaded, loaded, computed, computed)
        lane.pending.append(((*used, *events), 1e3 * (before - begin), 1e3 * (after - begin)))

    def _collect(self, lane: _Lane, reference: Any) -> Phases:
        cuda = self._cuda
        events, before, after = lane.pending.popleft()
        start, loaded, computed, end = events[:4]
        cuda.wait_event(end)
        times = [cuda.milliseconds(reference, event) for event in (start, loaded, computed, end)]
        # Differences of two times since a far start would lose digits in single precision: take each span by itself.
        spans = [
            cuda.milliseconds(a, b) if a is not b else 0.0
            for a, b in ((start, loaded), (loaded, computed), (computed, end))
        ]
        lane.free.append(events[4:])
        h2d = times[0], times[0] + spans[0]
        compute = times[1], times[1] + spans[1]
        return Phases((before, after), h2d, compute, (times[2], times[2] + spans[2]))

    def _timing(self, lane: _Lane, reference: Any, begin: float) -> Timing:
        phases = self._collect(lane, reference)
        return Timing(begin + phases.h2d[0] / 1e3, phases.latency / 1e3, phases)

    def _read(self, lane: _Lane, tensor: _Tensor) -> Array:
        buffer = lane.buffers[tensor.name]
        shape = lane.allocators[tensor.name].shape if tensor.name in lane.allocators else buffer.shape
        found = np.empty(shape, tensor.dtype)
        ctypes.memmove(found.ctypes.data, buffer.host.address, min(found.nbytes, buffer.size))
        wanted = self._wanted.get(tensor.name)
        return found if wanted is None or wanted == tensor.dtype else found.astype(wanted)

    def _release(self, lane: _Lane) -> None:
        if lane.graph is not None:
            self._cuda.close(lane.graph)
            lane.graph = None
        for buffer in lane.buffers.values():
            for memory in (buffer.host, buffer.device):
                if memory is not None:
                    self._cuda.free(memory)
        lane.buffers.clear()
        lane.allocators.clear()


def replace_context(lane: _Lane, context: Any) -> _Lane:
    """The lane with another context and no graph; the buffers are shared."""
    return replace(lane, context=context, graph=None, free=[], pending=deque())


def medians(profile: list[tuple[str, list[float]]]) -> dict[str, float]:
    """Median milliseconds by layer."""
    return {name: median(times) for name, times in profile if times}


def _dtype(name: str) -> np.dtype[Any]:
    if name in ("bfloat16", "float8_e4m3fn"):
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))
    return np.dtype(name)


def _as_type(value: Array, tensor: _Tensor) -> Array:
    """The value in the engine's type: 8.6 has no int64 and takes int32 for it."""
    if value.dtype.kind in "iu" and tensor.dtype.kind in "iu" and value.size:
        limits = np.iinfo(tensor.dtype)
        if int(value.min()) < limits.min or int(value.max()) > limits.max:
            raise EngineError(f"input {tensor.name} holds numbers that {tensor.dtype} has not")
    return np.ascontiguousarray(value, tensor.dtype).reshape(value.shape)


def _same(a: Array, b: Array | None) -> bool:
    return b is not None and a.shape == b.shape and a.tobytes() == b.tobytes()
