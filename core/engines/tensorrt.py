"""TensorRT 8.6, 10 and 11: engines are built for this machine's GPU, run on it and timed as trtexec does."""

from __future__ import annotations

import contextlib
import importlib
import weakref
from collections.abc import Mapping
from dataclasses import replace
from functools import cache as cache_of_functions
from pathlib import Path
from typing import Any

from onnx_rewrite.engines import cache, plugin_supply, trt_build
from onnx_rewrite.engines.cuda import Cuda, CudaError
from onnx_rewrite.engines.options import BuildOptions
from onnx_rewrite.engines.protocol import Layer, Model, Profile, Timing, Unavailable, not_loaded
from onnx_rewrite.engines.trt_run import Runner, medians
from onnx_rewrite.errors import OnnxRewriteError, UsageError
from onnx_rewrite.verify.dtypes import Array

NAME = "tensorrt"


class TensorRT:
    """Builds and runs engines with the installed TensorRT.

    Args:
        options: How they are built and run.
        log: A file that the library's verbose messages are added to, or None.
    """

    name = NAME

    def __init__(self, options: BuildOptions | None = None, *, log: str | None = None) -> None:
        self.options = options or BuildOptions()
        self.log = log

    def unavailable(self) -> Unavailable | None:
        """Which of the library, the driver and the GPU is missing, or None."""
        try:
            trt = importlib.import_module("tensorrt")
            version = str(trt.__version__)
        except (ImportError, OSError, AttributeError, RuntimeError) as error:
            return Unavailable(not_loaded("TensorRT", error), "pip install 'onnx-rewrite[tensorrt]'")
        try:
            gpu = Cuda()
        except CudaError as error:
            return Unavailable(f"TensorRT {version} needs an NVIDIA GPU: {error}", "use tensorrt-rtx")
        if not _works(trt, f"TensorRT {version}", gpu.name, str(gpu.compute_capability), gpu.driver):
            return Unavailable(f"TensorRT {version} finds no NVIDIA GPU that it can use", "use tensorrt-rtx")
        return None

    def version(self) -> str:
        """Of TensorRT."""
        return str(self._library().__version__)

    def build(
        self, model: Model, *, precision: str | None = None, profiles: Mapping[str, Profile] | None = None
    ) -> GpuEngine:
        """Builds an engine, or takes it from the cache; see `Backend.build`."""
        trt = self._library()
        options = self.options if precision is None else replace(self.options, precision=precision)
        return made(trt, f"TensorRT {trt.__version__}", model, options, profiles or {}, log=self.log)

    def _library(self) -> Any:
        lack = self.unavailable()
        if lack is not None:
            raise UsageError(lack.reason, hint=lack.hint)
        return importlib.import_module("tensorrt")


class GpuEngine:
    """An engine on this machine's GPU.

    Attributes:
        version: Of the library.
        device: The GPU's name.
        precision: What it computes in.
        build_seconds: Of parsing and building, at the time when it was built.
        cached: Whether it was built before.
        data: The serialized engine.
        size: Bytes of `data`.
        layers: From the engine's inspector.
        obstacle: None.
        warnings: Of the builder.
        timings: One per run, and those of bursts.
        bursts: How many inferences each burst did, and in how many seconds.
    """

    obstacle: str | None = None

    def __init__(self, version: str, cuda: Cuda, built: trt_build.Built, runner: Runner, *, cached: bool) -> None:
        self.version, self.device, self.cached = version, cuda.name, cached
        self.precision, self.build_seconds = built.precision, built.seconds
        self.data, self.size = built.data, len(built.data)
        self.layers: tuple[Layer, ...] = runner.layers
        self.warnings = built.warnings
        self.timings: list[Timing] = []
        self.bursts: list[tuple[int, float]] = []
        self.raw_profile: list[tuple[str, list[float]]] = []
        self._runner = runner

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Any]:
        """See `Engine.run`."""
        outputs, timing = self._runner.run(feeds)
        self.timings.append(timing)
        return outputs

    def burst(self, feeds: Mapping[str, Array], seconds: float, iterations: int) -> None:
        """See `Bursting.burst`."""
        found, wall = self._runner.burst(feeds, seconds, iterations)
        self.timings += found
        self.bursts.append((len(found), wall))

    def profile(self, feeds: Mapping[str, Array]) -> tuple[Layer, ...]:
        """Runs with a profiler; the layers with their times, which `layers` has from then on.

        Raises:
            EngineError: The library fails.
        """
        self.raw_profile = self._runner.profile(feeds)
        times = medians(self.raw_profile)
        known = {layer.name for layer in self.layers}
        layers = [replace(layer, milliseconds=times.get(layer.name)) for layer in self.layers]
        layers += [Layer(name, "", (), milliseconds=ms) for name, ms in times.items() if name not in known]
        self.layers = tuple(layers)
        return self.layers

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of how it ran."""
        return tuple(self._runner.notes)

    @property
    def layers_known(self) -> bool:
        """Whether the inspector tells them: an engine on a GPU has some."""
        return bool(self.layers)

    @property
    def graphed(self) -> bool:
        """Whether inferences are launched as CUDA graphs."""
        return self._runner.graphed

    @property
    def information(self) -> str:
        """The inspector's JSON."""
        return self._runner.information

    @property
    def device_memory(self) -> int:
        """Bytes that one execution context takes on the GPU."""
        return self._runner.device_memory


def made(
    trt: Any,
    library: str,
    model: Model,
    options: BuildOptions,
    profiles: Mapping[str, Profile],
    *,
    log: str | None = None,
    compute_capabilities: tuple[str, ...] = (),
) -> GpuEngine:
    """An engine for this machine's GPU, from the cache or built.

    Raises:
        UsageError: An option does not fit.
        EngineError: The library refuses the model, or there is not enough memory.
    """
    own = plugin_supply.supply(trt, model.proto)
    options = replace(options, plugins=(*options.plugins, *own.libraries))
    cuda = Cuda()
    stack = contextlib.ExitStack()
    try:
        writer = stack.enter_context(trt_build.logging(trt, log))
        where = (library, cuda.name, str(cuda.compute_capability), cuda.driver, *own.names)
        name = cache.key(model, options.of_build(), profiles, *where)
        # A log or a file of timings that is asked for comes from building.
        kept = options.cache and log is None and (options.timing_cache is None or Path(options.timing_cache).is_file())
        found = cache.read(name) if kept else None
        if found is not None:
            data, notes = found
            trt_build.load_plugins(trt, writer.logger, options.plugins)
            own.register(trt, writer.logger)
            words = tuple(notes.get("warnings", ()))
            built = trt_build.Built(data, float(notes["seconds"]), str(notes["precision"]), warnings=words)
        else:
            built = trt_build.build(
                trt,
                writer,
                model,
                options,
                profiles,
                library=library,
                compute_capabilities=compute_capabilities,
                own=own,
            )
            if options.cache:
                noted = {"seconds": built.seconds, "precision": built.precision, "warnings": built.warnings}
                cache.write(name, built.data, {**noted, "library": library, "device": cuda.name})
        runner = Runner(trt, writer, built.data, model.proto, options, cuda)
    except OnnxRewriteError:
        stack.close()
        raise
    engine = GpuEngine(str(trt.__version__), cuda, built, runner, cached=found is not None)
    weakref.finalize(engine, _end, runner, stack)
    return engine


def _end(runner: Runner, stack: contextlib.ExitStack) -> None:
    with contextlib.suppress(CudaError):  # at the end of the process the driver may be gone
        runner.close()
    stack.close()


@cache_of_functions
def _works(trt: Any, *where: str) -> bool:
    """Whether TensorRT can make a builder, which takes a driver and a GPU that it supports.

    The first builder of a process reads a library of a gigabyte, so that it works is noted for those who find their
    engine in the cache. A runtime would be cheaper to ask, but on a driver that is too old for it the process crashes.
    """
    if cache.knows(*where):
        return True
    try:
        if trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR)) is None:
            return False
    except Exception:  # pybind11 raises TypeError for the null pointer that comes back
        return False
    cache.note(*where)
    return True
