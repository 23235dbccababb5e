"""Which custom operators are known, and how they are spelt: installed ones, declared ones, and tables of the user."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import ParamSpec, TypeVar

from onnx_rewrite.custom.operator import CustomOp
from onnx_rewrite.custom.spelling import Spelling, own_spelling
from onnx_rewrite.custom.table import read_table
from onnx_rewrite.errors import OnnxRewriteError, UsageError

GROUP = "onnx_rewrite.ops"
"""Entry points of this group are operators: an instance of `CustomOp`, or a class that makes one."""

VARIABLE = "ONNX_REWRITE_ADAPTERS"
"""Environment variable: files of adapters for every command, separated as in PATH."""

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")

Files = Iterable[str | os.PathLike[str]] | str | os.PathLike[str]
"""One file or several."""

Table = dict[tuple[str, str], Spelling]

_declared: dict[str, CustomOp] = {}
_given: ContextVar[tuple[Path, ...]] = ContextVar("onnx_rewrite_adapters", default=())


def register_op(op: CustomOp) -> CustomOp:
    """Makes an operator known in this process.

    Raises:
        UsageError: Another one has the name.
    """
    known = _ops().get(op.title)
    if known is not None and type(known) is not type(op):
        raise UsageError(f"two operators are called {op.title}: {type(known).__qualname__} and {type(op).__qualname__}")
    _declared[op.title] = op
    _tables.cache_clear()
    return op


@contextmanager
def using(files: Files | None) -> Generator[None, None, None]:
    """Within, the adapters of these files are known too; they precede those that ship with the operators.

    Raises:
        UsageError: A file cannot be read, or says something that is not known.
    """
    if files is None:
        yield
        return
    paths = (files,) if isinstance(files, (str, os.PathLike)) else tuple(files)
    token = _given.set((*_given.get(), *(Path(path).absolute() for path in paths)))
    try:
        _table()
        yield
    finally:
        _given.reset(token)


def knowing_adapters(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """Decorator of a function with a keyword `adapters`: while it runs, the adapters of those files are known."""

    @functools.wraps(function)
    def knowing(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
        with using(kwargs.get("adapters")):  # pyright: ignore[reportArgumentType]
            return function(*args, **kwargs)

    return knowing


def find(domain: str, op_type: str) -> Spelling | None:
    """How a node of this type is read, or None: it is nothing that is known."""
    return _table().get(("" if domain == "ai.onnx" else domain, op_type))


def spellings(op: CustomOp) -> list[Spelling]:
    """All ways in which an operator is known to be written, its own first."""
    found = [one for one in _table().values() if one.operator.title == op.title]
    return sorted(found, key=lambda one: not one.own)


def op_named(title: str) -> CustomOp:
    """The operator of a name, "onnx_rewrite::DeformConv2d".

    Raises:
        UsageError: There is none.
    """
    found = _ops().get(title)
    if found is None:
        raise UsageError(f"there is no operator '{title}'", hint=f"there are: {', '.join(sorted(_ops()))}")
    return found


def known_types() -> frozenset[str]:
    """The types of all nodes that `find` may know, for those who ask of many nodes."""
    return frozenset(op_type for _, op_type in _table())


def _table() -> Table:
    return _tables(os.environ.get(VARIABLE, ""), _given.get())


@cache
def _tables(listed: str, given: Sequence[Path]) -> Table:
    files = (*(Path(part) for part in listed.split(os.pathsep) if part), *given)
    ops = _ops()
    found: Table = {}
    shipped = [table for op in ops.values() if (table := op.adapters()) is not None]
    for path in (*shipped, *files):
        for one in read_table(path, ops):
            found[one.domain, one.op_type] = one
    for op in ops.values():
        own = own_spelling(op)
        found[own.domain, own.op_type] = own
    return found


def _ops() -> dict[str, CustomOp]:
    return {**_installed(), **_declared}


@cache
def _installed() -> dict[str, CustomOp]:
    found: dict[str, CustomOp] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda p: (p.name, p.value)):
        try:
            made = point.load()
            op: object = made() if isinstance(made, type) else made
        except OnnxRewriteError:
            raise
        except Exception as error:  # a broken package must not look like an error of ours
            raise UsageError(
                f"operator '{point.name}' cannot be loaded from {point.value}: {type(error).__name__}: {error}",
                hint="mend or uninstall that package",
            ) from error
        if not isinstance(op, CustomOp):
            raise UsageError(f"operator '{point.name}' is none: {point.value} is a {type(op).__name__}")
        found[op.title] = op
    return found
