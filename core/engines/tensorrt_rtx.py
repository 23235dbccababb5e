"""TensorRT-RTX engines, built ahead of time: no GPU and no driver are needed, so any x86-64 machine can do it.

`tensorrt_rtx` is imported only where an engine is built; without it every function says how to install it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx_rewrite.errors import ModelError, UsageError

COMPUTE_CAPABILITIES = ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")
"""What TensorRT-RTX 1.7 builds for ahead of time."""

_LAYER = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*),.*?(?:Metadata: (?P<metadata>.*))?$")
_ONNX_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=[\x1f\[]|$)")


@dataclass(frozen=True)
class Layer:
    """One layer (a kernel) of an engine.

    Attributes:
        name: TensorRT's name for it.
        kind: TensorRT's type of it, for example "kgen" or "gemm".
        nodes: Names of the ONNX nodes that it computes.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Engine:
    """A serialized engine and what is known of it without a GPU.

    Attributes:
        data: The serialized engine.
        layers: In the order of execution.
        version: Of TensorRT-RTX.
        device: What it was built for, for example "SM89 (ahead of time)".
    """

    data: bytes
    layers: tuple[Layer, ...]
    version: str
    device: str


def available() -> bool:
    """Whether the library is installed and loads."""
    try:
        _library()
    except UsageError:
        return False
    return True


def build(
    model: bytes, *, shapes: Mapping[str, Sequence[int]] | None = None, compute_capability: str = "SM89"
) -> Engine:
    """Builds an engine of an ONNX model.

    Args:
        model: A serialized ModelProto whose tensors are all inside. The engine is strongly typed: it computes in
            the dtypes that the model names.
        shapes: Shape by input name, for inputs with dynamic dimensions.
        compute_capability: One of `COMPUTE_CAPABILITIES`.

    Raises:
        UsageError: The library is not installed, the compute capability is unknown, or a dynamic input has no shape.
        ModelError: TensorRT refuses the model; the message names the nodes that it refuses.
    """
    trt = _library()
    if compute_capability not in COMPUTE_CAPABILITIES:
        known = ", ".join(COMPUTE_CAPABILITIES)
        raise UsageError(f"TensorRT-RTX builds nothing for {compute_capability!r}", hint=f"one of {known}")
    log = _logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        raise ModelError("TensorRT-RTX cannot parse the model:\n" + "\n".join(_parser_errors(parser)))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, compute_capability), 0)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    _fix_shapes(builder, network, config, shapes or {})
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise ModelError("TensorRT-RTX cannot build the model:\n" + "\n".join(log.errors or ["it gave no reason"]))
    return Engine(
        data=bytes(serialized),
        layers=parse_layers(log.layers),
        version=str(trt.__version__),
        device=f"{compute_capability} (ahead of time)",
    )


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
        hint = "pip install 'onnx-rewrite[tensorrt-rtx]' (Linux x86-64 and Windows)"
        raise UsageError(f"TensorRT-RTX is not installed ({error})", hint=hint) from error


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
        lines.append(f"  node {name} ({error.node_operator()}){stack}: {error.desc()}")
    return lines or ["  it gave no reason"]


def _fix_shapes(builder: Any, network: Any, config: Any, shapes: Mapping[str, Sequence[int]]) -> None:
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    dynamic = [tensor for tensor in inputs if any(dim < 0 for dim in tensor.shape)]
    if not dynamic:
        return
    profile = builder.create_optimization_profile()
    for tensor in dynamic:
        shape = shapes.get(tensor.name)
        if shape is None:
            dims = ",".join("N" if dim < 0 else str(dim) for dim in tensor.shape)
            raise UsageError(
                f"input {tensor.name} has dynamic dimensions and no shape was given",
                hint=f"shapes={{'{tensor.name}': ({dims})}}, with numbers for N",
            )
        profile.set_shape(tensor.name, *[tuple(shape)] * 3)
    config.add_optimization_profile(profile)
