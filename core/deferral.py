"""Lets a short command, or a process of many, start without libraries that it will not use."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

# onnx_ir imports sympy for arithmetic on symbolic dimensions, which takes as long as all its other imports together;
# no command needs it unless a pass computes with such dimensions.
SELDOM_USED = ("sympy", "onnx_ir._symbolic_shapes")


class Deferral(MetaPathFinder):
    """Finds some modules such that they are executed when something in them is first used."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of one of the modules, with a loader that waits; None for any other."""
        if fullname not in self._names:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec


class InNewProcess:
    """A function for another process, which finds it only after `defer`."""

    def __init__(self, module: str, name: str) -> None:
        self._where = module, name

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return _found, self._where

    def __call__(self, *arguments: Any) -> Any:
        """What the function gives, in this process."""
        return _found(*self._where)(*arguments)


def _found(module: str, name: str) -> Callable[..., Any]:
    defer()
    return getattr(importlib.import_module(module), name)


def defer(names: Sequence[str] = SELDOM_USED) -> None:
    """Makes later imports of these modules wait for their first use, in the whole process."""
    sys.meta_path.insert(0, Deferral(names))
