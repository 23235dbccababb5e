"""TensorRT-RTX engines, built ahead of time: no GPU and no driver are needed, so any x86-64 machine can do it.

`tensorrt_rtx` is imported only where an engine is built; where it is missing, that is said with how to install it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from onnx_rewrite.engines.precision import as_stated
from onnx_rewrite.engines.protocol import EngineError, Layer, Model, Profile, Timing, Unavailable, not_loaded
from onnx_rewrite.errors import UsageError
from onnx_rewrite.verify.dtypes import Array

NAME = "tensorrt-rtx"

COMPUTE_CAPABILITIES = ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")
"""What TensorRT-RTX 1.7 builds for ahead of time."""

_LAYER = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*),.*?(?:Metadata: (?P<metadata>.*))?$")
_ONNX_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=[\x1f\[]|$)")


class TensorRTRTX:
    """Builds engines for one compute capability, which need not be that of this machine.

    Args:
        compute_capability: One of `COMPUTE_CAPABILITIES`.
    """

    name = NAME

    def __init__(self, compute_capability: str = "SM89") -> None:
        if compute_capability not in COMPUTE_CAPABILITIES:
            known = ", ".join(COMPUTE_CAPABILITIES)
            raise UsageError(f"TensorRT-RTX builds nothing for {compute_capability!r}", hint=f"one of {known}")
        self.compute_capability = compute_capability

    def unavailable(self) -> Unavailable | None:
        """Why the library does not load, or None."""
        try:
            _library()
        except UsageError as error:
            return Unavailable(str(error), error.hint)
        return None

    def version(self) -> str:
        """Of TensorRT-RTX."""
        return str(_library().__version__)

    def build(
        self, model: Model, *, precision: str | None = None, profiles: Mapping[str, Profile] | None = None
    ) -> AheadOfTimeEngine:
        """Builds a strongly typed engine; see `Backend.build`."""
        trt = _library()
        stated = as_stated(model.proto, precision, NAME)
        data = model.proto.SerializeToString()
        log = _logger(trt)
        builder = trt.Builder(log)  # the first one of a process loads the library, which is not the model's time
        began = perf_counter()
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, log)
        # The parser looks for external data beside the path; there need not be a model there.
        beside = None if model.folder is None else str(model.folder / "model.onnx")
        if not parser.parse(data, beside):
            raise EngineError("TensorRT-RTX cannot parse the model:\n" + "\n".join(_parser_errors(parser)))
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, self.compute_capability), 0)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        _set_profiles(builder, network, config, profiles or {})
        serialized = builder.build_serialized_network(network, config)
        if serialized is None:
            reason = "\n".join(f"  {line.strip()}" for line in log.errors or ["it gave no reason"])
            raise EngineError("TensorRT-RTX cannot build the model:\n" + reason)
        return AheadOfTimeEngine(
            data=bytes(serialized),
            layers=parse_layers(log.layers),
            version=str(trt.__version__),
            device=f"{self.compute_capability} (ahead of time)",
            precision=stated,
            build_seconds=perf_counter() - began,
        )


@dataclass(frozen=True)
class AheadOfTimeEngine:
    """A serialized engine and what is known of it without a GPU.

    Attributes:
        data: The serialized engine.
        layers: In the order of execution.
        version: Of TensorRT-RTX.
        device: What it was built for, for example "SM89 (ahead of time)".
        precision: What the model says.
        build_seconds: Wall-clock seconds of parsing and building.
        timings: Empty.
    """

    data: bytes
    layers: tuple[Layer, ...]
    version: str
    device: str
    precision: str
    build_seconds: float
    timings: list[Timing] = field(default_factory=list[Timing])

    @property
    def size(self) -> int:
        """Bytes of `data`."""
        return len(self.data)

    @property
    def obstacle(self) -> str | None:
        """Always: it is built for a GPU that need not be here."""
        return f"built ahead of time for {self.device.partition(' ')[0]}, not run"

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Any]:
        """Raises EngineError; see `obstacle`."""
        raise EngineError(f"{NAME}: {self.obstacle}")


def parse_layers(text: str) -> tuple[Layer, ...]:
    """The layers in the message of a verbose build that begins with "Layers:"."""
    body = text.partition("Layers:\n")[2].partition("\nI/O Tensors:")[0]
    layers: list[Layer] = []
    for line in body.split("\n"):
        match = _LAYER.match(line)
        if match:
            nodes = _ONNX_NODE.findall(match["metadata"] or "")
            layers.append(Layer(match["name"], match["kind"], tuple(dict.fromkeys(nodes))))
    return tuple(layers)


def _library() -> Any:
    try:
        return importlib.import_module("tensorrt_rtx")
    except (ImportError, OSError) as error:
        hint = "pip install 'onnx-rewrite[tensorrt-rtx]' (Linux on x86-64, and Windows)"
        raise UsageError(not_loaded("TensorRT-RTX", error), hint=hint) from error


def _logger(trt: Any) -> Any:
    """A logger that keeps the errors and the list of layers, and prints nothing."""

    class Log(trt.ILogger):
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []
            self.layers = ""

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(msg)
            elif msg.startswith("Layers:"):
                self.layers = msg

    return Log()


def _parser_errors(parser: Any) -> list[str]:
    lines: list[str] = []
    for i in range(parser.num_errors):
        error = parser.get_error(i)
        name = error.node_name() or f"number {error.node()}"
        stack = " in function " + " / ".join(error.local_function_stack()) if error.local_function_stack() else ""
        lines.append(f"  node {name} ({error.node_operator()}){stack}: {error.desc().strip()}")
    return lines or ["  it gave no reason"]


def _set_profiles(builder: Any, network: Any, config: Any, profiles: Mapping[str, Profile]) -> None:
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    dynamic = [tensor for tensor in inputs if any(dim < 0 for dim in tensor.shape)]
    if not dynamic:
        return
    made = builder.create_optimization_profile()
    for tensor in dynamic:
        profile = profiles.get(tensor.name)
        if profile is None:
            dims = ", ".join("N" if dim < 0 else str(dim) for dim in tensor.shape)
            raise UsageError(
                f"input {tensor.name} has dynamic dimensions and no shape was given",
                hint=f"profiles={{'{tensor.name}': Profile.fixed({dims})}}, with numbers for N",
            )
        made.set_shape(tensor.name, profile.min, profile.opt, profile.max)
    config.add_optimization_profile(made)
