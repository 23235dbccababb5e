"""Runs a pattern function once and checks what it describes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from onnx_rewrite.errors import OnnxRewriteError
from onnx_rewrite.pattern.language import Either, Optional, Output, Pattern, Traced, Var, walk


class PatternError(OnnxRewriteError):
    """A pattern that cannot be meant: a mistake of the pass's author, found when the pass is loaded."""


def trace(function: Callable[..., Any], source: str) -> Traced:
    """Calls `function` with one `Var` per parameter.

    Args:
        function: A bound method or a function that returns a pattern or a tuple of patterns, one per output.
        source: What to call the pattern in errors.

    Raises:
        PatternError: The result is no pattern, a parameter is used nowhere, or an output is a bare capture.
    """
    parameters = [
        p for p in inspect.signature(function).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    result = function(*[Var(p.name) for p in parameters])
    outputs: tuple[Any, ...] = result if isinstance(result, tuple) else (result,)
    roots: list[Output | Either] = []
    for root in outputs:
        if not isinstance(root, (Output, Either)) or any(not isinstance(leaf, Output) for leaf in leaves(root)):
            raise PatternError(f"{source}: every output of a pattern must be the result of an operator, not {root!r}")
        roots.append(root)
    if len(set(map(id, roots))) < len(roots) or len({_end(root) for root in roots}) < len(roots):
        raise PatternError(f"{source}: two outputs of the pattern are one and the same")
    used: set[str] = set()
    seen: set[int] = set()
    for root in roots:
        for part in walk(root, seen):
            if isinstance(part, Var):
                used.add(part.name)
            elif isinstance(part, Output) and part.apply.capture:
                used.add(part.apply.capture)
    unused = [p.name for p in parameters if p.name not in used]
    if unused:
        raise PatternError(f"{source}: the pattern never uses {', '.join(unused)}")
    return Traced(tuple(roots), frozenset(used), source)


def _end(root: Output | Either) -> object:
    """What tells one output from another: a node of the pattern and which of its outputs."""
    return (id(root.apply), root.index) if isinstance(root, Output) else id(root)


def leaves(pattern: Pattern) -> list[Pattern]:
    """What a pattern may be once its alternatives are chosen."""
    if isinstance(pattern, Either):
        return [leaf for branch in pattern.branches for leaf in leaves(branch)]
    if isinstance(pattern, Optional):
        return leaves(pattern.inner)
    return [pattern]
