"""Engines by name. A library is imported when it is asked for, not before."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from onnx_rewrite.engines.options import BuildOptions, parse
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


def get(name: str, options: BuildOptions | None = None, *, log: str | None = None) -> Backend:
    """The engine of that name, whether or not this machine has it.

    Args:
        name: One of `NAMES`.
        options: How engines are built; onnxruntime has none of these.
        log: A file that the library's verbose messages are added to, or None.

    Raises:
        UsageError: There is none of that name, or it has no such option.
    """
    if name not in _HOMES:
        near = difflib.get_close_matches(name, _HOMES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"one of: {', '.join((*NAMES, AUTO))}"
        raise UsageError(f"unknown engine '{name}'", hint=hint)
    module, attribute = _HOMES[name]
    kind = getattr(importlib.import_module(module), attribute)
    if name == "onnxruntime":
        return kind(precision=None if options is None else options.precision)
    return kind(options=options, log=log)


def choose(
    wanted: str | Sequence[str],
    options: BuildOptions | None = None,
    *,
    precisions: Sequence[str] = (),
    log: str | None = None,
) -> Choice:
    """The engines of a list like "onnxruntime,tensorrt:fp16"; "auto" means those that this machine has.

    Args:
        wanted: Names, each with options of its own after colons, as `onnx_rewrite.engines.options.parse` has them.
        options: For all of them.
        precisions: Each engine is built in each of these; none: in what its options say.
        log: A file that verbose messages are added to, or None.

    Raises:
        UsageError: One is unknown, or named and not available; the message says what is missing and how to get it.
    """
    items = wanted.split(",") if isinstance(wanted, str) else wanted
    names = list(dict.fromkeys(item.strip() for item in items))
    base = options or BuildOptions()
    found: dict[tuple[str, BuildOptions], Backend] = {}
    missing: list[str] = []
    for item in names:
        if item == AUTO:
            continue
        name, *more = item.split(":")
        if name == AUTO:
            raise UsageError("'auto' takes no options", hint="name the engine")
        own = parse(more, base)
        lack = get(name, own).unavailable()
        if lack is not None:
            raise UsageError(f"{name} is not available: {lack.reason}", hint=lack.hint)
        for each in _variants(own, precisions):
            found[name, each] = get(name, each, log=log)
    if AUTO in names:
        have = {name for name, _ in found}
        for name in NAMES:
            if name in have:
                continue
            lack = get(name, base).unavailable()
            if lack is not None:
                missing.append(f"{name}: {lack.reason}")
                continue
            for each in _variants(base, precisions):
                found[name, each] = get(name, each, log=log)
    return Choice(tuple(found.values()), tuple(missing))


def _variants(options: BuildOptions, precisions: Sequence[str]) -> list[BuildOptions]:
    if options.precision is not None or not precisions:
        return [options]
    return [replace(options, precision=one) for one in precisions]
