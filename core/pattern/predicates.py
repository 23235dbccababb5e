"""Conditions that a pattern puts on what it captures, with the words in which a failure is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import onnx_ir as ir

from onnx_rewrite.pattern.errors import PatternError

Dims = tuple["int | str | EllipsisType | None", ...]
"""A shape as a pattern writes it: a number, a symbol, None for any dimension, `...` for any number of them."""


@dataclass(frozen=True)
class Predicate:
    """A condition on one thing.

    Attributes:
        fails: Told the thing, says what is wrong in words that follow its name ("has rank 3, not 4"), or None.
        typed: Whether it looks at dtype and shape, of a value or a `Constant`; otherwise it is told what the
            replacement will see: a value, a `Constant`, a number, or a parameter's Python value.
    """

    fails: Callable[[Any], str | None]
    typed: bool = True


def of_dtype(dtype: ir.DataType | frozenset[ir.DataType]) -> Predicate:
    """One of some element types."""
    allowed = frozenset({dtype}) if isinstance(dtype, ir.DataType) else frozenset(dtype)
    names = " or ".join(sorted(d.name for d in allowed))

    def fails(thing: Any) -> str | None:
        if thing.dtype in allowed:
            return None
        found = "an element type that is not known" if thing.dtype is None else f"element type {thing.dtype.name}"
        return f"has {found}; the pattern needs {names}"

    return Predicate(fails)


def of_rank(rank: int) -> Predicate:
    """A number of dimensions."""

    def fails(thing: Any) -> str | None:
        if thing.shape is None:
            return f"has a rank that is not known; the pattern needs {rank}"
        return None if len(thing.shape) == rank else f"has rank {len(thing.shape)}; the pattern needs {rank}"

    return Predicate(fails)


def fulfilling(function: Callable[[Any], bool], wants: str, *, typed: bool = False) -> Predicate:
    """Anything else, in the author's words."""
    return Predicate(lambda thing: None if function(thing) else f"is not {wants}", typed)


def checked_dims(dims: tuple[Any, ...]) -> Dims:
    """The arguments of `shaped`, if they can be meant.

    Raises:
        PatternError: They are not numbers, names, None and at most one `...`.
    """
    for dim in dims:
        good = dim is None or dim is ... or (isinstance(dim, str) and dim.isidentifier())
        if not good and not (isinstance(dim, int) and not isinstance(dim, bool) and dim >= 0):
            raise PatternError(f"a dimension is a number, a name, None or ..., not {dim!r}")
    if dims.count(...) > 1:
        raise PatternError("a shape has at most one ...")
    return dims


def spelt(dims: Dims) -> str:
    """A shape of a pattern as messages show it."""
    return "[" + ", ".join("?" if d is None else "..." if d is ... else str(d) for d in dims) + "]"
