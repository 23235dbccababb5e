"""What a match in progress has bound so far."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_rewrite.analysis.constants import Constants

# How many nodes of steps a failure names: a chain may be long, and fail at each of its nodes.
MAX_TOLD = 32


@dataclass(frozen=True)
class Scope:
    """The graph that is being matched, and how its operators are to be read.

    Attributes:
        graph: The graph; a body of If, Loop or Scan or a function's body is a scope of its own.
        opsets: Opset version per domain.
        constants: Resolver shared by the whole model.
        target: For whom the model is rewritten ("onnx", "tensorrt-8.6", ...).
        is_function: Whether the graph is a function's own: such a graph has no initializers.
        imports: The opset imports that the graph goes by, where a new domain is added.
        highest: The highest opset that the run allows the model to be raised to.
    """

    graph: ir.Graph
    opsets: dict[str, int]
    constants: Constants
    target: str = "onnx"
    is_function: bool = False
    imports: dict[str, int] = field(default_factory=dict[str, int])
    highest: int = sys.maxsize

    @property
    def version(self) -> int:
        """Opset of the standard operators."""
        return self.opsets.get("", 1)

    def version_of(self, node: ir.Node) -> int:
        """Opset of the domain of a node."""
        return self.opsets.get(node.domain, 1)

    def import_domain(self, domain: str) -> None:
        """Imports the domain of a new node at its first version, if it is not imported yet."""
        if domain not in ("", "ai.onnx"):
            self.imports.setdefault(domain, 1)
            self.opsets.setdefault(domain, 1)


class Constant:
    """A captured constant: its value in the graph, and its elements, read when asked for."""

    __slots__ = ("_constants", "_shape", "value")

    def __init__(self, value: ir.Value, constants: Constants) -> None:
        self.value = value
        self._constants = constants
        self._shape: tuple[int, ...] | None = None

    @property
    def array(self) -> np.ndarray[Any, np.dtype[Any]]:
        """The elements, in the graph's dtype."""
        array = self._constants.array(self.value)
        assert array is not None
        return array

    @property
    def dtype(self) -> ir.DataType:
        """The element type."""
        if self.value.dtype is not None:
            return self.value.dtype
        return ir.DataType.from_numpy(self.array.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, without reading a weight."""
        if self._shape is None:
            tensor = self.value.const_value if self.value.producer() is None else None
            self._shape = tuple(self.array.shape) if tensor is None else tuple(int(d) for d in tensor.shape.numpy())
        return self._shape

    def same(self, other: Constant) -> bool:
        """Whether both have the same dtype, shape and elements."""
        if self.value is other.value:
            return True
        if self.shape != other.shape:
            return False
        a, b = self.array, other.array
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()


@dataclass(frozen=True)
class Dim:
    """What a symbol of a pattern stands for: a dimension, and the graph in which its name has a meaning."""

    size: int | ir.SymbolicDim
    graph: ir.Graph | None


Goal = Callable[["State"], bool]
"""What remains to be matched: returns True once the whole match is accepted."""

ValueGoal = Callable[["State", "ir.Value | None", Goal], bool]
"""What remains to be matched, once a value is matched."""


def label(thing: ir.Node | ir.Value | None) -> str:
    """How messages call a node or a value."""
    if thing is None:
        return "nothing"
    if isinstance(thing, ir.Value):
        return f"value '{thing.name}'"
    name = thing.name or (thing.outputs[0].name if thing.outputs else "")
    return f"{thing.op_type} '{name}'"


class State:
    """Bindings of a match in progress; every goal undoes what it bound when it fails."""

    __slots__ = ("again", "bound", "extra", "journal", "nodes", "owned", "scope", "seen", "steps")

    def __init__(self, scope: Scope, journal: list[Failure] | None = None) -> None:
        self.scope = scope
        self.bound: dict[str, Any] = {}
        self.nodes: dict[int, ir.Node] = {}  # by the pattern node's number
        self.owned: dict[ir.Node, int] = {}  # which pattern node each one belongs to
        self.extra: list[ir.Node] = []  # duplicates and Identities on the way
        self.steps: list[ir.Node] = []  # nodes of finished steps
        self.seen: list[ir.Node] = []  # nodes that views look through
        self.again: dict[ir.Node, int] = {}  # nodes of finished steps that the present one uses too
        self.journal = journal

    def fail(self, where: ir.Node | ir.Value | None, reason: Callable[[], str], attribute: str | None = None) -> bool:
        """Notes why, if anybody asked, and returns False."""
        if self.journal is not None:
            nodes = (*self.nodes.values(), *self.steps[:MAX_TOLD])
            depth = len(self.nodes) + len(self.steps)
            self.journal.append(Failure(depth, where, reason(), attribute, None, nodes))
        return False


@dataclass(frozen=True)
class Failure:
    """One reason for which an attempt ended.

    Attributes:
        depth: How many nodes had matched.
        where: The node or value at which it ended; None: an operand that is absent.
        reason: Why, in the user's words.
        attribute: The parameter of the node that is the reason, if one is.
        consumer: Who needs `where` outside the match, if that is the reason.
        nodes: The nodes that had matched, the anchor first; of a long chain of steps only some.
    """

    depth: int
    where: ir.Node | ir.Value | None
    reason: str
    attribute: str | None = None
    consumer: ir.Node | None = None
    nodes: tuple[ir.Node, ...] = ()
