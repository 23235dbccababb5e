"""A `tensorrt` module with the Python API of 8.6 and no GPU: engines are ONNX models that onnxruntime runs.

Names, signatures and enumerations are those of the wheel tensorrt 8.6.0. What 8.6 has not is not here either, so that
code which needs a newer version fails. "Device" memory is the host's.
"""

from __future__ import annotations

import ctypes
import enum
import json
import sys
import types
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from onnx_rewrite.engines.cuda import CudaError, Handle

MAGIC = b"fake engine "


class FakeCuda:
    """Memory, streams and events that are done at once."""

    name = "NVIDIA Fake 1"
    compute_capability = (9, 0)
    driver = "13.0"
    last: FakeCuda | None = None
    capturable = True
    capturing: list[Any] | None = None  # of the stream that is captured, of whichever object

    def __init__(self) -> None:
        self.held: dict[int, Any] = {}
        self.events: dict[int, float] = {}
        self.graphs: dict[int, list[Any]] = {}
        self.streams: set[int] = set()
        self.launches = 0
        self.copies = 0
        self.numbers = iter(range(1, 10**9))
        FakeCuda.last = self

    def memory(self) -> tuple[int, int]:
        return 3 << 30, 4 << 30

    def allocate(self, size: int) -> Handle:
        buffer = ctypes.create_string_buffer(max(size, 1))
        self.held[ctypes.addressof(buffer)] = buffer
        return Handle(ctypes.addressof(buffer), buffer)

    allocate_host = allocate

    def free(self, memory: Handle) -> None:
        del self.held[memory.address]

    def copy(self, target: Handle, source: Handle, stream: Handle) -> None:
        assert len(target.native) == len(source.native)
        assert stream.address in self.streams
        self.copies += 1
        ctypes.memmove(target.address, source.address, len(source.native))

    def stream(self) -> Handle:
        number = next(self.numbers)
        self.streams.add(number)
        return Handle(number, None)

    def wait_stream(self, stream: Handle) -> None:
        assert stream.address in self.streams

    def event(self) -> int:
        number = next(self.numbers)
        self.events[number] = 0.0
        return number

    def record(self, event: int, stream: Handle) -> None:
        assert stream.address in self.streams
        self.events[event] = perf_counter()

    def wait_event(self, event: int) -> None:
        assert self.events[event], "an event that was never recorded"

    def milliseconds(self, start: int, end: int) -> float:
        return 1e3 * (self.events[end] - self.events[start])

    def capture(self, stream: Handle, work: Any) -> int:
        FakeCuda.capturing = []
        put = work()
        noted, FakeCuda.capturing = FakeCuda.capturing, None
        if not self.capturable:
            raise CudaError("CUDA: operation not permitted when stream is capturing")
        assert put
        number = next(self.numbers)
        self.graphs[number] = noted or []
        return number

    def launch(self, graph: int, stream: Handle) -> None:
        self.launches += 1
        for work in self.graphs[graph]:
            work()

    def close(self, thing: Any) -> None:
        if isinstance(thing, Handle):
            self.streams.remove(thing.address)
        elif thing in self.graphs:
            del self.graphs[thing]
        else:
            del self.events[thing]


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    Severity = Severity
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def __init__(self) -> None:
        pass

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class Logger(ILogger):
    def __init__(self, min_severity: Severity = Severity.WARNING) -> None:
        super().__init__()

    def log(self, severity: Severity, msg: str) -> None:
        pass


DataType = enum.Enum("DataType", "FLOAT HALF INT8 INT32 BOOL UINT8 FP8")
TensorIOMode = enum.Enum("TensorIOMode", "NONE INPUT OUTPUT")
TensorLocation = enum.Enum("TensorLocation", "DEVICE HOST")
BuilderFlag = enum.Enum(
    "BuilderFlag",
    "FP16 INT8 DEBUG GPU_FALLBACK STRICT_TYPES REFIT DISABLE_TIMING_CACHE TF32 SPARSE_WEIGHTS SAFETY_SCOPE "
    "OBEY_PRECISION_CONSTRAINTS PREFER_PRECISION_CONSTRAINTS DIRECT_IO REJECT_EMPTY_ALGORITHMS ENABLE_TACTIC_HEURISTIC "
    "VERSION_COMPATIBLE EXCLUDE_LEAN_RUNTIME FP8",
)
TacticSource = enum.IntEnum("TacticSource", "CUBLAS CUBLAS_LT CUDNN EDGE_MASK_CONVOLUTIONS JIT_CONVOLUTIONS", start=0)
HardwareCompatibilityLevel = enum.Enum("HardwareCompatibilityLevel", "NONE AMPERE_PLUS")
PreviewFeature = enum.Enum(
    "PreviewFeature", "FASTER_DYNAMIC_SHAPES_0805 DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805 PROFILE_SHARING_0806"
)
MemoryPoolType = enum.Enum("MemoryPoolType", "WORKSPACE DLA_MANAGED_SRAM DLA_LOCAL_DRAM DLA_GLOBAL_DRAM TACTIC_DRAM")
ProfilingVerbosity = enum.Enum("ProfilingVerbosity", "LAYER_NAMES_ONLY NONE DETAILED")
LayerInformationFormat = enum.Enum("LayerInformationFormat", "ONELINE JSON")
NetworkDefinitionCreationFlag = enum.IntEnum(
    "NetworkDefinitionCreationFlag", "EXPLICIT_BATCH EXPLICIT_PRECISION", start=0
)

_TYPES = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT32",  # 8.6 has no other
    TensorProto.BOOL: "BOOL",
}
_NUMPY = {"FLOAT": "float32", "HALF": "float16", "INT32": "int32", "BOOL": "bool"}
UNKNOWN = ("Gelu", "DeformConv")


class _Tensor:
    def __init__(self, value: onnx.ValueInfoProto) -> None:
        self.name = value.name
        self.shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim)


class INetworkDefinition:
    def __init__(self) -> None:
        self.model: onnx.ModelProto | None = None

    @property
    def num_inputs(self) -> int:
        return len(self.model.graph.input) if self.model else 0

    def get_input(self, index: int) -> _Tensor:
        assert self.model is not None
        return _Tensor(self.model.graph.input[index])


class ParserError:
    def __init__(self, index: int, text: str) -> None:
        self._index, self._text = index, text

    def node(self) -> int:
        return self._index

    def desc(self) -> str:
        return self._text


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._logger, self._errors = network, logger, []

    def parse(self, model: bytes, path: str | None = None) -> bool:
        proto = onnx.ModelProto.FromString(model)
        for i, node in enumerate(proto.graph.node):
            if node.op_type in UNKNOWN or node.domain not in ("", "ai.onnx"):
                text = f"In node {i} (parseGraph): UNSUPPORTED_NODE: No importer registered for op: {node.op_type}"
                self._errors = [ParserError(i, text)]
                return False
            self._logger.log(Severity.VERBOSE, f"Parsing node: {node.name} [{node.op_type}]")
        self._network.model = proto
        return True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def supports_operator(self, op_name: str) -> bool:
        return op_name not in UNKNOWN


class ITimingCache:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def serialize(self) -> bytes:
        return self._data + b"!"


class IBuilderConfig:
    def __init__(self) -> None:
        self.flags = {BuilderFlag.TF32}
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.builder_optimization_level = 3
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.pools: dict[MemoryPoolType, int] = {}
        self.sources: int | None = None
        self.profiles: list[Any] = []
        self.preview: set[PreviewFeature] = set()
        self._cache: ITimingCache | None = None

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self.pools[pool] = pool_size

    def set_tactic_sources(self, tactic_sources: int) -> bool:
        self.sources = tactic_sources
        return True

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache

    def set_preview_feature(self, feature: PreviewFeature, enable: bool) -> None:
        (self.preview.add if enable else self.preview.discard)(feature)

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile)
        return 0


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        if not len(min) == len(opt) == len(max):
            raise ValueError("inconsistent")
        self.shapes[input] = (min, opt, max)


class IHostMemory(bytearray):
    pass


class Builder:
    last: Builder | None = None
    builds = 0

    def __init__(self, logger: ILogger) -> None:
        self.logger = logger
        self.config: IBuilderConfig | None = None
        self.network_flags: int | None = None
        Builder.last = self

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        self.network_flags = flags
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        self.config = IBuilderConfig()
        return self.config

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        assert network.model is not None
        Builder.builds += 1
        if network.model.graph.name == "unbuildable":
            text = "10: [optimizer.cpp::computeCosts::3869] Could not find any implementation for node sum."
            self.logger.log(Severity.ERROR, text)
            return None
        self.logger.log(Severity.WARNING, "a warning of the builder")
        assert config.profiling_verbosity is ProfilingVerbosity.DETAILED
        shared = PreviewFeature.PROFILE_SHARING_0806 in config.preview
        return IHostMemory(MAGIC + (b"+" if shared else b"-") + network.model.SerializeToString())


class EngineInspector:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        assert format is LayerInformationFormat.JSON
        return json.dumps({"Layers": self._engine.layer_entries(), "Bindings": []})


class ICudaEngine:
    def __init__(self, data: bytes) -> None:
        self.shared = data[len(MAGIC) :][:1] == b"+"
        self.contexts = 0
        data = data[len(MAGIC) + 1 :]
        self.model = onnx.ModelProto.FromString(data)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self.session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        graph = self.model.graph
        self.values = {v.name: v for v in [*graph.input, *graph.output]}
        self.names = list(self.values)
        self.device_memory_size = 1024

    @property
    def num_io_tensors(self) -> int:
        return len(self.names)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if any(v.name == name for v in self.model.graph.input) else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[_TYPES[self.values[name].type.tensor_type.elem_type]]

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.DEVICE

    def create_execution_context(self) -> IExecutionContext:
        self.contexts += 1
        return IExecutionContext(self)

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)

    def layer_entries(self) -> list[dict[str, Any]]:
        """The first node alone, the others as one region without metadata, a reformat between them."""
        names = [node.name for node in self.model.graph.node]
        tensor = {"Name": "t", "Location": "Device", "Dimensions": [2, 3], "Format/Datatype": "Row major linear FP32"}
        first = {
            "Name": names[0],
            "LayerType": "CaskGemmConvolution",
            "Inputs": [tensor],
            "Outputs": [tensor],
            "ParameterType": "Convolution",
            "TacticName": "ampere_sgemm_64x32",
            "StreamId": 0,
            "Metadata": f"[ONNX Layer: {names[0]}]",
        }
        copy = {"Name": "Reformatting CopyNode for Input Tensor 0 to x", "LayerType": "Reformat", "Metadata": ""}
        if len(names) == 1:
            return [first]
        rest = {
            "Name": f"{{ForeignNode[{names[1]}...{names[-1]}]}}",
            "LayerType": "Myelin",
            "Inputs": [],
            "Outputs": [],
        }
        return [first, copy, rest]


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self.engine = engine
        # Without sharing, the first context has taken the only profile.
        self.has_profile = engine.shared or engine.contexts == 1
        self.profiler: IProfiler | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, IOutputAllocator] = {}

    def set_input_shape(self, name: str, shape: Any) -> bool:
        declared = _Tensor(self.engine.values[name]).shape
        assert -1 not in declared or self.has_profile, "the library would crash here"
        if len(declared) != len(shape) or any(a not in (-1, b) for a, b in zip(declared, shape, strict=True)):
            return False
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def infer_shapes(self) -> list[str]:
        return []

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._shapes:
            return self._shapes[name]
        if any(node.op_type == "NonZero" and name in node.output for node in self.engine.model.graph.node):
            return (2, -1)
        return tuple(np.shape(self._run()[name]))

    def get_max_output_size(self, name: str) -> int:
        return 4096

    def set_output_allocator(self, name: str, output_allocator: IOutputAllocator) -> bool:
        self._allocators[name] = output_allocator
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        if FakeCuda.capturing is not None:
            FakeCuda.capturing.append(self._execute)
            return True
        self._execute()
        if self.profiler is not None:
            for i, entry in enumerate(self.engine.layer_entries()):
                self.profiler.report_layer_time(entry["Name"], 0.25 * (i + 1))
        return True

    def _execute(self) -> None:
        for name, value in self._run().items():
            kind = _NUMPY[self.engine.get_tensor_dtype(name).name]
            made = np.ascontiguousarray(value, kind)
            address = self._addresses[name]
            if name in self._allocators:
                address = self._allocators[name].reallocate_output(name, address, made.nbytes, 256)
                self._allocators[name].notify_shape(name, made.shape)
            ctypes.memmove(address, made.ctypes.data, made.nbytes)

    def _run(self) -> dict[str, Any]:
        feeds: dict[str, Any] = {}
        for value in self.engine.model.graph.input:
            kind = _NUMPY[self.engine.get_tensor_dtype(value.name).name]
            array = np.empty(self._shapes[value.name], kind)
            ctypes.memmove(array.ctypes.data, self._addresses[value.name], array.nbytes)
            feeds[value.name] = array.astype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        names = [value.name for value in self.engine.model.graph.output]
        return dict(zip(names, self.engine.session.run(names, feeds), strict=True))


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        if not serialized_engine.startswith(MAGIC):
            self._logger.log(Severity.ERROR, "1: [stdArchiveReader.cpp] Serialization assertion failed.")
            return None
        return ICudaEngine(bytes(serialized_engine))


class IProfiler:
    def __init__(self) -> None:
        pass

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        raise NotImplementedError


class IOutputAllocator:
    def __init__(self) -> None:
        pass


def init_libnvinfer_plugins(logger: Any, namespace: str) -> bool:
    return True


def module() -> types.ModuleType:
    """The module under the name `tensorrt`."""
    made = types.ModuleType("tensorrt")
    made.__dict__.update({k: v for k, v in globals().items() if not k.startswith("_")})
    made.__dict__["__version__"] = "8.6.0"
    return made


def install(monkeypatch: Any) -> types.ModuleType:
    """Puts the module and the GPU in place."""
    from onnx_rewrite.engines import cuda, tensorrt

    made = module()
    monkeypatch.setitem(sys.modules, "tensorrt", made)
    monkeypatch.setattr(cuda, "Cuda", FakeCuda)
    monkeypatch.setattr(tensorrt, "Cuda", FakeCuda)
    return made
