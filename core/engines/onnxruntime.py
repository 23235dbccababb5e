"""onnxruntime as an engine: its optimisations on, on the GPU if the installed package has a provider for it."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import onnx

from onnx_rewrite.engines.precision import as_stated
from onnx_rewrite.engines.protocol import EngineError, Layer, Model, Profile, Timing, Unavailable, not_loaded
from onnx_rewrite.errors import UsageError
from onnx_rewrite.rewriter.standing_in import resolved
from onnx_rewrite.verify.dtypes import Array
from onnx_rewrite.verify.session import first_line, limits, obstacle

NAME = "onnxruntime"

# Weights above this size are written beside the optimised model, so that reading its structure back costs nothing.
_EXTERNAL_FROM_BYTES = "1024"


class OnnxRuntime:
    """Sessions of onnxruntime. There is nothing to serialize: what counts as the engine is the optimised model.

    Args:
        precision: What the model must be in; None: whatever it is in.
    """

    name = NAME

    def __init__(self, precision: str | None = None) -> None:
        self.precision = precision

    def unavailable(self) -> Unavailable | None:
        """Why the library does not load, or None."""
        try:
            _library()
        except UsageError as error:
            return Unavailable(str(error), error.hint)
        return None

    def version(self) -> str:
        """Of onnxruntime."""
        return str(_library().__version__)

    def build(
        self, model: Model, *, precision: str | None = None, profiles: Mapping[str, Profile] | None = None
    ) -> OnnxRuntimeEngine:
        """Opens a session; see `Backend.build`. Profiles are not needed: shapes are free.

        Precisions that only a builder could give are refused in a row of their own: the session computes in the types
        that the model names.
        """
        _library()
        stated = as_stated(model.proto, precision or self.precision, NAME)
        model = replace(model, proto=resolved(model.proto))  # custom operators by what they mean
        reason = obstacle(model.proto)
        if reason is not None:
            raise EngineError(reason)
        data = _serialized(model.proto)
        began = perf_counter()
        try:
            session = _open(data, model.folder)
        except Exception as error:
            raise EngineError(first_line(error)) from error
        return OnnxRuntimeEngine(session, model, stated, perf_counter() - began)


class OnnxRuntimeEngine:
    """A session, ready to run.

    Attributes:
        version: Of onnxruntime.
        device: "CPU (2 cores)" or "CUDA".
        precision: What the model says.
        build_seconds: Of opening the session.
        obstacle: None.
        timings: One per run.
    """

    obstacle: str | None = None

    def __init__(self, session: Any, model: Model, precision: str, build_seconds: float) -> None:
        self.version = str(_library().__version__)
        self.device = "CUDA" if "CUDAExecutionProvider" in session.get_providers() else f"CPU ({_cores()})"
        self.precision = precision
        self.build_seconds = build_seconds
        self.timings: list[Timing] = []
        self._session = session
        self._model = model
        self._outputs: list[str] = [value.name for value in session.get_outputs()]

    @property
    def size(self) -> int:
        """Bytes of the optimised model, weights included."""
        return self._optimised[0]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The nodes of the optimised model; one that an optimisation made does not tell what it replaced."""
        return self._optimised[1]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Any]:
        """See `Engine.run`."""
        values = dict(feeds)
        start = perf_counter()
        try:
            found = self._session.run(self._outputs, values)
        except Exception as error:
            raise EngineError(first_line(error)) from error
        self.timings.append(Timing(start, perf_counter() - start))
        return dict(zip(self._outputs, found, strict=True))

    @cached_property
    def _optimised(self) -> tuple[int, tuple[Layer, ...]]:
        # A session of its own, so that writing the model counts neither as building nor as running.
        with tempfile.TemporaryDirectory(prefix="onnx-rewrite-") as scratch:
            file = Path(scratch) / "optimised.onnx"
            try:
                _open(_serialized(self._model.proto), self._model.folder, optimised=file)
                model = onnx.load(file, load_external_data=False)
            except Exception:  # some providers compile nodes to what has no ONNX form
                return 0, ()
            size = sum(entry.stat().st_size for entry in Path(scratch).iterdir())
        known = {node.name for node in self._model.proto.graph.node if node.name}
        made = (node for node in model.graph.node if node.op_type != "Constant")
        return size, tuple(Layer(n.name, n.op_type, (n.name,) if n.name in known else ()) for n in made)


def _library() -> Any:
    try:
        return importlib.import_module("onnxruntime")
    except (ImportError, OSError) as error:
        raise UsageError(not_loaded(NAME, error), hint="pip install onnxruntime") from error


def _open(data: bytes, folder: Path | None, *, optimised: Path | None = None) -> Any:
    ort = _library()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    # Two sessions are timed in turn: the threads of one must not spin while the other runs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
        weights = "session.optimized_model_external_initializers_"
        options.add_session_config_entry(f"{weights}file_name", "weights.bin")
        options.add_session_config_entry(f"{weights}min_size_in_bytes", _EXTERNAL_FROM_BYTES)
    here = ort.get_available_providers()
    return ort.InferenceSession(
        data, options, providers=[p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in here]
    )


def _serialized(model: onnx.ModelProto) -> bytes:
    """The model's bytes, its IR version lowered to the newest that this onnxruntime reads."""
    newest = limits()[1]
    if model.ir_version > newest:
        lowered = onnx.ModelProto()
        lowered.CopyFrom(model)
        lowered.ir_version = newest
        model = lowered
    return model.SerializeToString()


def _cores() -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{usable} core" if usable == 1 else f"{usable} cores"
