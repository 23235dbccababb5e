"""Engines by name. A library is imported when it is asked for, not before."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from onnx_rewrite.engines.protocol import Backend
from onnx_rewrite.errors import UsageError

AUTO = "auto"
"""Stands for every engine that this machine has."""

_HOMES = {
    "onnxruntime": ("onnx_rewrite.engines.onnxruntime", "OnnxRuntime"),
    "tensorrt": ("onnx_rewrite.engines.tensorrt", "TensorRT"),
    "tensorrt-rtx": ("onnx_rewrite.engines.tensorrt_rtx", "TensorRTRTX"),
}

NAMES = tuple(_HOMES)
"""What engines are called on the command line."""


@dataclass(frozen=True)
class Choice:
    """The engines that will be used.

    Attributes:
        backends: In the order asked for.
        missing: What "auto" passed over, one "name: reason" each.
    """

    backends: tuple[Backend, ...] = ()
    missing: tuple[str, ...] = field(default=())


def get(name: str) -> Backend:
    """The engine of that name, whether or not this machine has it.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in _HOMES:
        near = difflib.get_close_matches(name, _HOMES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"one of: {', '.join((*NAMES, AUTO))}"
        raise UsageError(f"unknown engine '{name}'", hint=hint)
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)()


def choose(wanted: str | Sequence[str]) -> Choice:
    """The engines of a list like "onnxruntime,tensorrt-rtx"; "auto" means those that this machine has.

    Raises:
        UsageError: One is unknown, or named and not available; the message says what is missing and how to get it.
    """
    items = wanted.split(",") if isinstance(wanted, str) else wanted
    names = list(dict.fromkeys(item.strip() for item in items))
    found: dict[str, Backend] = {}
    missing: list[str] = []
    for name in names:
        if name == AUTO:
            continue
        backend = get(name)
        lack = backend.unavailable()
        if lack is not None:
            raise UsageError(f"{name} is not available: {lack.reason}", hint=lack.hint)
        found[name] = backend
    if AUTO in names:
        for backend in map(get, NAMES):
            lack = None if backend.name in found else backend.unavailable()
            if lack is None:
                found.setdefault(backend.name, backend)
            else:
                missing.append(f"{backend.name}: {lack.reason}")
    return Choice(tuple(found.values()), tuple(missing))
