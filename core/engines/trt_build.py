"""From an ONNX model to a serialized engine, for TensorRT 8.6, 10 and 11 and TensorRT-RTX by what each of them has."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import os
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO

import onnx

from onnx_rewrite.engines import plugins
from onnx_rewrite.engines.options import BuildOptions
from onnx_rewrite.engines.plugin_supply import Supply
from onnx_rewrite.engines.precision import stated
from onnx_rewrite.engines.protocol import EngineError, Model, Profile
from onnx_rewrite.engines.trt_legacy import spelled_for_8
from onnx_rewrite.engines.trt_warnings import condensed
from onnx_rewrite.errors import UsageError

REMEDIES: dict[str, str] = dict.fromkeys(
    ("DeformConv", "deform_conv2d", "MMCVDeformConv2d", "MMCVModulatedDeformConv2d"), "deform-conv"
)
"""Passes that replace an operator that some parsers refuse."""

TAKES_CUBLAS = frozenset({"ModulatedDeformConv2d"})
"""Built-in plugins of TensorRT 8.6 that compute by cuBLAS."""

_SHOWN = 12
_DECOMPOSABLE = "TRT_decomposable"


@dataclass(frozen=True)
class Precision:
    """How a builder is told what to compute in.

    Attributes:
        name: What is reported.
        on: Builder flags to set.
        off: Builder flags to clear.
    """

    name: str
    on: tuple[str, ...] = ()
    off: tuple[str, ...] = ()


def precision(flags: Any, model: str, wanted: str | None, library: str) -> Precision:
    """The builder flags for a precision.

    Args:
        flags: The library's `BuilderFlag`.
        model: The precision that the model states.
        wanted: The precision that is asked for, or None.
        library: Its name and version, for messages.

    Raises:
        UsageError: The library cannot give it.
    """
    weak = hasattr(flags, "FP16")
    parts = () if wanted is None else tuple(wanted.split("+"))
    # The types that a weakly typed network holds must be allowed, or the parser's layers have no implementation.
    needed = {"fp16": "FP16", "bf16": "BF16", "int8": "INT8"}.get(model) if weak else None
    if needed is not None and not hasattr(flags, needed):
        raise UsageError(f"{library} has no {model}, which this model is in")
    on = [needed] if needed else []
    tf32 = hasattr(flags, "TF32")
    if wanted is None:
        return Precision("tf32" if model == "fp32" and tf32 else model, tuple(on))
    for part in parts:
        if part in ("fp32", "tf32"):
            if model != "fp32" and len(parts) == 1:
                raise UsageError(f"this model is {model}, and {library} does not compute it in {part}")
            if part == "tf32" and not tf32:
                raise UsageError(f"{library} has no flag for tf32")
        elif part == model:
            continue
        elif not weak:
            raise UsageError(
                f"{library} computes in the types that the ONNX model names: this one is {model}, not {part}",
                hint=f"convert the model to {part} first",
            )
        elif part == "int8":
            raise UsageError(
                f"{library} needs scales for int8, and this model has none",
                hint="quantize it first, with QuantizeLinear and DequantizeLinear",
            )
        elif not hasattr(flags, part.upper()):
            raise UsageError(f"{library} has no flag for {part}")
        else:
            on.append(part.upper())
    off = ["TF32"] if tf32 and "tf32" not in parts and ("fp32" in parts or not on) else []
    return Precision("+".join(parts), (*dict.fromkeys(on), *(["TF32"] if "tf32" in parts else [])), tuple(off))


@dataclass
class Log:
    """What a library said.

    Attributes:
        errors: Its errors.
        warnings: Its warnings.
        layers: The message of TensorRT-RTX that lists the layers.
        file: Where everything is written, in trtexec's format; or None.
    """

    errors: list[str]
    warnings: list[str]
    layers: str = ""
    file: TextIO | None = None
    logger: Any = None

    def words(self) -> str:
        """The errors, indented, or that there are none."""
        lines = dict.fromkeys(line.strip() for line in self.errors)
        return "\n".join(f"  {line}" for line in lines) or "  it gave no reason"


@contextlib.contextmanager
def logging(trt: Any, path: str | None = None) -> Generator[Log]:
    """A log whose `logger` a library writes to; the library must not outlive it."""
    found = Log([], [])
    lock = threading.Lock()
    letters = {"VERBOSE": "V", "INFO": "I", "WARNING": "W", "ERROR": "E", "INTERNAL_ERROR": "F"}
    severities = {getattr(trt.ILogger, name): name for name in letters}

    class Logger(trt.ILogger):
        def log(self, severity: Any, msg: str) -> None:
            name = severities.get(severity, "INFO")
            with lock:  # some builders log from several threads
                if name in ("ERROR", "INTERNAL_ERROR"):
                    found.errors.append(msg)
                elif name == "WARNING":
                    found.warnings.append(msg)
                elif msg.startswith("Layers:"):
                    found.layers = msg
                if found.file is not None:
                    now = datetime.datetime.now().strftime("%m/%d/%Y-%H:%M:%S")
                    found.file.write(f"[{now}] [{letters[name]}] [TRT] {msg}\n")

        def __init__(self) -> None:
            super().__init__()

    found.logger = Logger()
    if path is None:
        yield found
        return
    with open(path, "a", encoding="utf-8") as file:
        found.file = file
        try:
            yield found
        finally:
            found.file = None


def load_plugins(trt: Any, logger: Any, libraries: tuple[str, ...]) -> None:
    """Registers the built-in plugins and those of some libraries.

    Raises:
        UsageError: A library does not load.
    """
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(logger, "")
    for library in libraries:
        try:
            ctypes.CDLL(os.path.abspath(library), mode=getattr(ctypes, "RTLD_GLOBAL", 0))
        except OSError as error:
            raise UsageError(f"--plugin {library} does not load: {' '.join(str(error).split())}") from error


def parsable(
    model: Model,
    *,
    functions: bool,
    decomposable: bool = False,
    legacy: bool = False,
    is_plugin: Callable[[onnx.NodeProto], bool] | None = None,
) -> onnx.ModelProto:
    """The model as a parser can read it.

    Args:
        model: The model, which is not changed.
        functions: Whether the parser knows model-local functions; else they are inlined.
        is_plugin: Whether a node will find a plugin; then a function of its name is not put in its place.
        decomposable: Whether Attention nodes must allow being built from simpler layers, as TensorRT-RTX asks where it
            has no kernel for one, in fp32 above all.
        legacy: Whether the parser is that of TensorRT 8.6, which reads some of opset 18 and above wrongly.

    Raises:
        EngineError: The parser would read a node wrongly.
    """
    proto = model.proto
    if proto.functions and not functions:
        from onnx import inliner

        kept = {(node.domain, node.op_type) for node in proto.graph.node if is_plugin is not None and is_plugin(node)}
        if kept:
            proto = onnx.ModelProto()
            proto.CopyFrom(model.proto)
            left = [one for one in proto.functions if (one.domain, one.name) not in kept]
            del proto.functions[:]
            proto.functions.extend(left)
        proto = inliner.inline_local_functions(proto)
    if decomposable and any(map(_is_attention, proto.graph.node)):
        if proto is model.proto:
            proto = onnx.ModelProto()
            proto.CopyFrom(model.proto)
        for node in filter(_is_attention, proto.graph.node):
            if all(attribute.name != _DECOMPOSABLE for attribute in node.attribute):
                node.attribute.append(onnx.helper.make_attribute(_DECOMPOSABLE, 1))
    return spelled_for_8(proto) if legacy else proto


def finds_plugin(trt: Any, node: onnx.NodeProto) -> bool:
    """Whether a node asks for a plugin, by `plugin_version` or `plugin_namespace`, and one is registered."""
    told = {one.name: one.s.decode() for one in node.attribute if one.name in ("plugin_version", "plugin_namespace")}
    if not told:
        return False
    registry = trt.get_plugin_registry()
    get = getattr(registry, "get_creator", None) or registry.get_plugin_creator
    return get(node.op_type, told.get("plugin_version", "1"), told.get("plugin_namespace", "")) is not None


def _is_attention(node: onnx.NodeProto) -> bool:
    return node.op_type == "Attention" and node.domain in ("", "ai.onnx")


def knows_functions(trt: Any) -> bool:
    """Whether the parser reads model-local functions: then its errors can name one."""
    return hasattr(trt.ParserError, "local_function_stack")


@dataclass(frozen=True)
class Built:
    """A serialized engine.

    Attributes:
        data: Its bytes.
        seconds: Of parsing and building.
        precision: What it computes in.
        layers: The library's list of layers in words, where it gives one while it builds.
        warnings: Of the library.
    """

    data: bytes
    seconds: float
    precision: str
    layers: str = ""
    warnings: tuple[str, ...] = ()


def build(
    trt: Any,
    log: Log,
    model: Model,
    options: BuildOptions,
    profiles: Mapping[str, Profile],
    *,
    library: str,
    compute_capabilities: tuple[str, ...] = (),
    own: Supply | None = None,
) -> Built:
    """Parses and builds.

    Args:
        trt: The module.
        log: Where the library writes.
        model: What to build.
        options: How.
        profiles: By input name; every dynamic input needs one.
        library: Its name and version, for messages.
        compute_capabilities: What to build ahead of time for; nothing: this machine's GPU.
        own: The plugins of this package that the model uses; its libraries are among the options' already.

    Raises:
        UsageError: An option or a profile does not fit.
        EngineError: The parser or the builder refuses the model; in their words.
    """
    how = precision(trt.BuilderFlag, stated(model.proto), options.precision, library)
    load_plugins(trt, log.logger, options.plugins)
    own = own or Supply()
    own.register(trt, log.logger)
    proto = parsable(
        model,
        functions=knows_functions(trt),
        decomposable=library.startswith("TensorRT-RTX"),
        legacy=library.startswith("TensorRT 8"),
        is_plugin=lambda node: finds_plugin(trt, node),
    )
    data = proto.SerializeToString()
    builder = trt.Builder(log.logger)  # the first one of a process loads the library, which is not the model's time
    began = perf_counter()
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, log.logger)
    # The parser looks for external data beside the path; there need not be a model there.
    beside = None if model.folder is None else str(Path(model.folder) / "model.onnx")
    _check_handles(trt, proto, options)
    if not parser.parse(data, beside):
        lines = _refused(parser, proto) + [f"  {operator}: {reason}" for operator, reason in own.lacking]
        # What a plugin of ours has to say stands in the log, not in the parser's errors.
        names = tuple(f"{plugin.op}: " for plugin in plugins.used(proto))
        lines += dict.fromkeys(f"  {words}" for words in log.errors if names and words.startswith(names))
        raise EngineError(f"{library} cannot parse the model:\n" + "\n".join(lines))
    config = builder.create_builder_config()
    _configure(trt, config, options, how, library)
    if compute_capabilities:
        config.num_compute_capabilities = len(compute_capabilities)
        for i, name in enumerate(compute_capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), i)
    _set_profiles(builder, network, config, profiles)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise EngineError(f"{library} cannot build the model:\n{log.words()}")
    _keep_timings(config, options)
    made = bytes(serialized)
    return Built(made, perf_counter() - began, how.name, log.layers, condensed(log.warnings))


def _network_flags(trt: Any) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    if hasattr(trt.BuilderFlag, "FP16"):  # weakly typed, until version 10
        return 1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0
    return 0  # of later versions every network is strongly typed


def _check_handles(trt: Any, proto: onnx.ModelProto, options: BuildOptions) -> None:
    """A plugin of 8.6 that takes a cuBLAS handle gets none unless cuBLAS is a tactic source, as it is by default.

    Raises:
        UsageError: It was left out, and a node would leave its output unwritten without a word.
    """
    if options.tactic_sources is None or int(str(trt.__version__).split(".")[0]) >= 10:
        return
    if "cublas" in (name.lower().replace("-", "_") for name in options.tactic_sources):
        return
    for node in proto.graph.node:
        if node.op_type in TAKES_CUBLAS and not node.domain:
            raise UsageError(
                f"{node.op_type} '{node.name}' writes nothing unless cublas is among the tactic sources",
                hint=f"tactic-sources={'+'.join((*options.tactic_sources, 'cublas'))}, or another form of the node",
            )


def _configure(trt: Any, config: Any, options: BuildOptions, how: Precision, library: str) -> None:
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    for flag in how.on:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    for flag in how.off:
        config.clear_flag(getattr(trt.BuilderFlag, flag))
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace << 20)
    if options.tactic_sources is not None:
        mask = 0
        for name in options.tactic_sources:
            source = getattr(trt.TacticSource, name.upper().replace("-", "_"), None)
            if source is None:
                known = ", ".join(one.lower() for one in dir(trt.TacticSource) if one.isupper())
                raise UsageError(f"{library} has no tactic source '{name}'", hint=f"one of: {known}")
            mask |= 1 << int(source)
        if not config.set_tactic_sources(mask):
            raise UsageError(f"{library} does not accept the tactic sources {', '.join(options.tactic_sources)}")
    if options.level is not None:
        if not hasattr(config, "builder_optimization_level"):
            raise UsageError(f"{library} has no optimization level")
        config.builder_optimization_level = options.level
    if options.hardware_compatibility not in (None, "none"):
        name = {"ampere+": "AMPERE_PLUS", "same": "SAME_COMPUTE_CAPABILITY"}[str(options.hardware_compatibility)]
        level = getattr(getattr(trt, "HardwareCompatibilityLevel", None), name, None)
        if level is None:
            raise UsageError(f"{library} has no hardware compatibility '{options.hardware_compatibility}'")
        config.hardware_compatibility_level = level
    shared = getattr(getattr(trt, "PreviewFeature", None), "PROFILE_SHARING_0806", None)
    if shared is not None and int(str(trt.__version__).partition(".")[0]) < 10:
        # Version 8.6 gives a profile to one execution context alone unless told otherwise, and the second crashes: for
        # streams side by side, and for the profiler. Later versions share always.
        config.set_preview_feature(shared, True)
    if options.timing_cache is not None:
        path = Path(options.timing_cache)
        config.set_timing_cache(config.create_timing_cache(path.read_bytes() if path.is_file() else b""), False)


def _keep_timings(config: Any, options: BuildOptions) -> None:
    if options.timing_cache is not None:
        cache = config.get_timing_cache()
        if cache is not None:
            Path(options.timing_cache).write_bytes(bytes(cache.serialize()))


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
        try:
            made.set_shape(tensor.name, profile.min, profile.opt, profile.max)
        except ValueError as error:
            raise UsageError(f"input {tensor.name} does not take these shapes: {error}") from error
    config.add_optimization_profile(made)


def _refused(parser: Any, model: onnx.ModelProto) -> list[str]:
    """One line per refused node: its name, operator, the parser's reason, and the pass that replaces it."""
    lines: list[str] = []
    named: set[str] = set()
    for i in range(parser.num_errors):
        error = parser.get_error(i)
        if hasattr(error, "node_name"):
            name, operator = error.node_name() or f"number {error.node()}", error.node_operator()
            stack = error.local_function_stack()
            where = " in function " + " / ".join(stack) if stack else ""
        else:
            name, operator, where = *_by_number(model, error.node()), ""
        named.add(name)
        lines.append(f"  node {name} ({operator}){where}: {error.desc().strip()}{_remedy(operator)}")
    # The parser of 8.6 stops at the first node that it refuses.
    more = [node for node in model.graph.node if node.name not in named and not _supported(parser, node.op_type)]
    for node in more[:_SHOWN]:
        name = node.name or (node.output[0] if node.output else "?")
        lines.append(f"  node {name} ({node.op_type}): the parser does not know this operator{_remedy(node.op_type)}")
    if len(more) > _SHOWN:
        lines.append(f"  and {len(more) - _SHOWN} more of such operators")
    return lines or ["  it gave no reason"]


def _by_number(model: onnx.ModelProto, number: int) -> tuple[str, str]:
    if 0 <= number < len(model.graph.node):
        node = model.graph.node[number]
        return node.name or f"number {number}", node.op_type
    return f"number {number}", "?"


def _supported(parser: Any, operator: str) -> bool:
    # An operator of a plugin or of a function is not among the importers, and need not be refused.
    return operator == "Constant" or operator not in _standard() or bool(parser.supports_operator(operator))


def _standard() -> frozenset[str]:
    return frozenset(schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain)


def _remedy(operator: str) -> str:
    name = REMEDIES.get(operator)
    installed = {point.name for point in entry_points(group="onnx_rewrite.passes")}
    return f" (the pass '{name}' replaces it)" if name in installed else ""
