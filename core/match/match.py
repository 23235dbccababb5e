"""A finished match: what a pass's conditions and replacement see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_rewrite.analysis.foreign import read
from onnx_rewrite.custom import Call, Unreadable
from onnx_rewrite.match.parameters import computed_parameters
from onnx_rewrite.match.state import Constant, Dim, Scope


class Refused(Exception):
    """Raised by a pass where its pattern stands but the replacement would be wrong.

    Args:
        reason: In the user's words ("the scale spans axis 1, the mean axis 2").
        blame: The node, value or capture that is the reason.
        attribute: The parameter of that node that is the reason, if one is.
        consumer: The node that needs that value outside the match, if that is the reason.
    """

    def __init__(
        self, reason: str, blame: Any = None, *, attribute: str | None = None, consumer: ir.Node | None = None
    ) -> None:
        super().__init__(reason)
        self.attribute = attribute
        self.consumer = consumer
        self.reason = reason
        self.blame: ir.Node | ir.Value | None = blame.value if isinstance(blame, Constant) else blame


class Settled(Refused):
    """Raised by a pass where what stands there is what it would make of it: nothing to report."""


class Match:
    """The captures of one match as attributes, and questions about the graph around it.

    A value capture is an `onnx_ir.Value`; `scalar` captures a Python number, `constant` a `Constant` (`.array`,
    `.shape`, `.dtype`), a parameter its Python value, `.named` the `onnx_ir.Node`, `rest` a tuple, and whatever is
    captured in each step of `repeat` a tuple too. A symbol of `shaped` is an int or an `onnx_ir.SymbolicDim`. A
    capture in a part that is absent is None.
    """

    def __init__(
        self,
        scope: Scope,
        names: frozenset[str],
        bound: dict[str, Any],
        nodes: Sequence[ir.Node],
        outputs: Sequence[ir.Value],
        seen: Sequence[ir.Node] = (),
    ) -> None:
        self._names = names
        self._bound = bound
        self._own = tuple(nodes)
        self.scope = scope
        self.viewed_nodes = tuple(seen)
        self.outputs = tuple(outputs)

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """All nodes of the match, the anchor first; last those that views look through."""
        return (*self._own, *self.viewed_nodes)

    @property
    def private_nodes(self) -> tuple[ir.Node, ...]:
        """The nodes that no other match may have."""
        return self._own

    def look_through(self, nodes: Iterable[ir.Node]) -> None:
        """Says which nodes before the match the replacement makes do without, in place of those that views pass.

        They belong to the site, and so does what computes their parameters, but what something else needs of them
        stays.
        """
        own = set(self._own)
        through = [node for node in dict.fromkeys(nodes) if node not in own]
        through += computed_parameters((*self._own, *through), self.scope.graph, self.scope.constants)
        self.viewed_nodes = tuple(through)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._names:
            raise AttributeError(f"the pattern captures nothing called '{name}'")
        thing = self._bound.get(name)
        return thing.size if isinstance(thing, Dim) else thing

    @property
    def anchor(self) -> ir.Node:
        """The node that produces the first output."""
        node = self.outputs[0].producer()
        assert node is not None
        return node

    @property
    def output(self) -> ir.Value:
        """The first output."""
        return self.outputs[0]

    @property
    def version(self) -> int:
        """Opset of the standard operators where the match stands."""
        return self.scope.version

    @property
    def target(self) -> str:
        """For whom the model is rewritten."""
        return self.scope.target

    def constant(self, value: ir.Value | None) -> np.ndarray[Any, np.dtype[Any]] | None:
        """Elements of a value that is known before the model runs, else None."""
        return self.scope.constants.array(value)

    def read(self, node: ir.Node) -> Call:
        """What a captured node of a custom operator says, whoever wrote it.

        Raises:
            Refused: It does not say all that is needed.
        """
        try:
            return read(node, self.scope.constants.array)
        except Unreadable as error:
            raise Refused(str(error), node) from error

    def may_have(self, opset: int) -> bool:
        """Whether the model has this opset, or the run allows to raise it so far."""
        return opset <= max(self.scope.version, self.scope.highest)

    def rank(self, value: ir.Value | Constant) -> int | None:
        """Number of dimensions, or None where it is not known."""
        if isinstance(value, Constant):
            return len(value.shape)
        return None if value.shape is None else len(value.shape)

    def dim(self, value: ir.Value | Constant, axis: int) -> int | ir.SymbolicDim | None:
        """One dimension: a number, a symbol, or None where nothing is known."""
        if isinstance(value, Constant):
            return value.shape[axis]
        if value.shape is None or not -len(value.shape) <= axis < len(value.shape):
            return None
        dim = value.shape[axis]
        return None if isinstance(dim, ir.SymbolicDim) and dim.value is None else dim

    def captured(self, values: Sequence[ir.Value]) -> tuple[str, ir.Value] | None:
        """The first capture that is one of `values`, and which; None if none is."""
        for name, thing in self._bound.items():
            for value in values_in(thing):
                if value in values:
                    return name, value
        return None

    def rebound(self, replaced: dict[ir.Value, ir.Value]) -> None:
        """Follows values that an earlier edit replaced."""
        for name, thing in self._bound.items():
            self._bound[name] = self._rebound(thing, replaced)

    def _rebound(self, thing: Any, replaced: dict[ir.Value, ir.Value]) -> Any:
        if isinstance(thing, ir.Value):
            return _followed(thing, replaced)
        if isinstance(thing, Constant) and thing.value in replaced:
            return Constant(_followed(thing.value, replaced), self.scope.constants)
        if isinstance(thing, tuple):
            return tuple(self._rebound(one, replaced) for one in thing)  # pyright: ignore[reportUnknownVariableType]
        return thing


def values_in(thing: Any) -> Iterator[ir.Value]:
    """The values in a capture that are no constants."""
    if isinstance(thing, ir.Value):
        yield thing
    elif isinstance(thing, tuple):
        for one in thing:  # pyright: ignore[reportUnknownVariableType]
            yield from values_in(one)


def _followed(value: ir.Value, replaced: dict[ir.Value, ir.Value]) -> ir.Value:
    while value in replaced:
        value = replaced[value]
    return value
