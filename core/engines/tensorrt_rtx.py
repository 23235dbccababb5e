"""TensorRT-RTX engines: on a GPU that it supports they are run; elsewhere they are built ahead of time.

Building ahead of time takes neither a GPU nor a driver, so any x86-64 machine can do it.
`tensorrt_rtx` is imported only where an engine is built; where it is missing, that is said with how to install it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from onnx_rewrite.engines import plugin_supply, trt_build
from onnx_rewrite.engines.cuda import Cuda, CudaError
from onnx_rewrite.engines.options import BuildOptions
from onnx_rewrite.engines.precision import as_stated, stated
from onnx_rewrite.engines.protocol import EngineError, Layer, Model, Profile, Timing, Unavailable, not_loaded
from onnx_rewrite.engines.tensorrt import GpuEngine, made
from onnx_rewrite.engines.trt_layers import listed
from onnx_rewrite.errors import UsageError
from onnx_rewrite.verify.dtypes import Array

NAME = "tensorrt-rtx"

COMPUTE_CAPABILITIES = ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")
"""What TensorRT-RTX 1.7 builds for ahead of time."""

DEFAULT = "SM89"
"""What is built for where this machine has no GPU that TensorRT-RTX runs on."""


class TensorRTRTX:
    """Builds engines for compute capabilities that need not be that of this machine.

    Args:
        compute_capability: One of `COMPUTE_CAPABILITIES`, to build ahead of time, or several with "+" between, for one
            engine that runs on each; None: this machine's GPU, or SM89.
        options: How engines are built and run; its `compute_capability` counts where the first argument is None.
        log: A file that the library's verbose messages are added to, or None.
    """

    name = NAME

    def __init__(
        self, compute_capability: str | None = None, options: BuildOptions | None = None, *, log: str | None = None
    ) -> None:
        self.options = options or BuildOptions()
        self.log = log
        wanted = compute_capability or self.options.compute_capability
        for one in () if wanted is None else wanted.split("+"):
            if one not in COMPUTE_CAPABILITIES:
                known = ", ".join(COMPUTE_CAPABILITIES)
                raise UsageError(f"TensorRT-RTX builds nothing for {one!r}", hint=f"one of {known}")
        self.compute_capability = wanted

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
    ) -> AheadOfTimeEngine | GpuEngine:
        """Builds a strongly typed engine; see `Backend.build`."""
        trt = _library()
        options = self.options if precision is None else replace(self.options, precision=precision)
        # Strongly typed, so the precision is the model's: a wish for another one is refused.
        wanted = options.precision if options.precision != "tf32" or stated(model.proto) != "fp32" else None
        said = as_stated(model.proto, wanted, NAME)
        library = f"TensorRT-RTX {trt.__version__}"
        here = _here() if self.compute_capability is None else None
        if here is not None:
            return made(trt, library, model, options, profiles or {}, log=self.log, compute_capabilities=(here,))
        target = self.compute_capability or DEFAULT
        own = plugin_supply.supply(trt, model.proto)
        options = replace(options, plugins=(*options.plugins, *own.libraries))
        with trt_build.logging(trt, self.log) as log:
            built = trt_build.build(
                trt,
                log,
                model,
                options,
                profiles or {},
                library="TensorRT-RTX",
                compute_capabilities=tuple(target.split("+")),
                own=own,
            )
        return AheadOfTimeEngine(
            data=built.data,
            layers=listed(built.layers),
            version=str(trt.__version__),
            device=f"{target} (ahead of time)",
            precision=said,
            build_seconds=built.seconds,
            warnings=built.warnings,
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
        warnings: Of the builder.
        timings: Empty.
    """

    data: bytes
    layers: tuple[Layer, ...]
    version: str
    device: str
    precision: str
    build_seconds: float
    warnings: tuple[str, ...] = ()
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


parse_layers = listed


def _library() -> Any:
    try:
        return importlib.import_module("tensorrt_rtx")
    except (ImportError, OSError) as error:
        hint = "pip install 'onnx-rewrite[tensorrt-rtx]' (Linux on x86-64, and Windows)"
        raise UsageError(not_loaded("TensorRT-RTX", error), hint=hint) from error


def _here() -> str | None:
    """The compute capability of this machine's GPU if TensorRT-RTX runs on it."""
    try:
        major, minor = Cuda().compute_capability
    except CudaError:
        return None
    name = f"SM{major}{minor}"
    return name if name in COMPUTE_CAPABILITIES else None
