"""TensorRT: says what a machine lacks for it.

Its engines need a GPU to be built. `tensorrt-rtx` shows without one what TensorRT's parser and builder make of a model.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from onnx_rewrite.engines.protocol import Engine, Model, Profile, Unavailable, not_loaded
from onnx_rewrite.errors import UsageError

NAME = "tensorrt"


class TensorRT:
    """TensorRT 8.6, 10 and 11: this version of onnx-rewrite looks for them, and builds with `tensorrt-rtx` only."""

    name = NAME

    def unavailable(self) -> Unavailable:
        """Which of the library, the GPU and the support for both is missing."""
        try:
            trt = importlib.import_module("tensorrt")
            version = str(trt.__version__)
        except (ImportError, OSError, AttributeError) as error:
            return Unavailable(not_loaded("TensorRT", error), "pip install 'onnx-rewrite[tensorrt]'")
        if not _has_gpu(trt):
            return Unavailable(f"TensorRT {version} finds no NVIDIA GPU that it can use", "use tensorrt-rtx")
        return Unavailable(
            f"this version of onnx-rewrite builds no engines with TensorRT {version}", "use tensorrt-rtx"
        )

    def version(self) -> str:
        """Raises what `unavailable` says."""
        raise self._missing()

    def build(
        self, model: Model, *, precision: str | None = None, profiles: Mapping[str, Profile] | None = None
    ) -> Engine:
        """Raises what `unavailable` says; see `Backend.build`."""
        raise self._missing()

    def _missing(self) -> UsageError:
        lack = self.unavailable()
        return UsageError(lack.reason, hint=lack.hint)


def _has_gpu(trt: Any) -> bool:
    """Whether TensorRT can make a builder, which takes a driver and a GPU that it supports."""
    try:
        return trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR)) is not None
    except Exception:  # pybind11 raises TypeError for the null pointer that comes back
        return False
