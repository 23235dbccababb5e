"""Rewrites ONNX graphs with passes that answer for themselves.

    import onnx_rewrite as rw

    result = rw.rewrite("model.onnx", "ln,clip,bn")
    result.save("model.rewritten.onnx")

Everything here is loaded when it is first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx_rewrite import passes, torch
    from onnx_rewrite.errors import ModelError, NotEquivalentError, OnnxRewriteError, UsageError
    from onnx_rewrite.match import Constant, Match, Refused
    from onnx_rewrite.pattern import (
        FLOATS,
        INTEGERS,
        PatternError,
        const,
        constant,
        either,
        maybe,
        op,
        optional,
        product,
        repeat,
        rest,
        scalar,
        spelled,
        view,
        where,
    )
    from onnx_rewrite.pipeline import (
        Difference,
        Extracted,
        Result,
        bench,
        check,
        diff,
        explain,
        extract,
        inspect,
        minimise,
    )
    from onnx_rewrite.pipeline import run as rewrite
    from onnx_rewrite.registry import Pass, RuleSet, graphsurgeon_pass, register
    from onnx_rewrite.verdict import Verification

__version__ = "0.1.0"

_HOMES = {
    "onnx_rewrite.errors": ("ModelError", "NotEquivalentError", "OnnxRewriteError", "UsageError"),
    "onnx_rewrite.match": ("Constant", "Match", "Refused"),
    "onnx_rewrite.pattern": (
        "FLOATS",
        "INTEGERS",
        "PatternError",
        "const",
        "constant",
        "either",
        "maybe",
        "op",
        "optional",
        "product",
        "repeat",
        "rest",
        "scalar",
        "spelled",
        "view",
        "where",
    ),
    "onnx_rewrite.pipeline": (
        "Difference",
        "Extracted",
        "Result",
        "bench",
        "check",
        "diff",
        "explain",
        "extract",
        "inspect",
        "minimise",
    ),
    "onnx_rewrite.registry": ("Pass", "RuleSet", "graphsurgeon_pass", "register"),
    "onnx_rewrite.verdict": ("Verification",),
}
_MODULES = ("passes", "torch")
_LAZY = {name: (module, name) for module, names in _HOMES.items() for name in names}
_LAZY["rewrite"] = ("onnx_rewrite.pipeline", "run")

__all__ = [
    "FLOATS",
    "INTEGERS",
    "Constant",
    "Difference",
    "Extracted",
    "Match",
    "ModelError",
    "NotEquivalentError",
    "OnnxRewriteError",
    "Pass",
    "PatternError",
    "Refused",
    "Result",
    "RuleSet",
    "UsageError",
    "Verification",
    "bench",
    "check",
    "const",
    "constant",
    "diff",
    "either",
    "explain",
    "extract",
    "graphsurgeon_pass",
    "inspect",
    "maybe",
    "minimise",
    "op",
    "optional",
    "passes",
    "product",
    "register",
    "repeat",
    "rest",
    "rewrite",
    "scalar",
    "spelled",
    "torch",
    "view",
    "where",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"onnx_rewrite.{name}")
    home = _LAZY.get(name)
    if home is None:
        raise AttributeError(f"module 'onnx_rewrite' has no attribute '{name}'")
    value = getattr(importlib.import_module(home[0]), home[1])
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
