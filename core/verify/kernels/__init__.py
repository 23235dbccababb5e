"""Numpy kernels of ONNX operators in float64, and the table that finds them.

A kernel gets the node and one array per input (None where an optional input is absent) and returns an array,
or a tuple with one entry per output. Floats are float64 in and out; integers, booleans and strings keep their type.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import onnx

Kernel = Callable[..., Any]
"""``kernel(node, *inputs) -> array | tuple[array, ...]``"""

TABLE: dict[str, Kernel] = {}
"""Kernels of the default domain by operator name."""

_MODULES = (
    "conv",
    "elementwise",
    "indexing",
    "layout",
    "linear",
    "norm",
    "pool",
    "quant",
    "reduce",
    "resize",
    "sampling",
)


class CannotEvaluate(Exception):
    """A node that has no float64 evaluation here.

    Attributes:
        node: The node.
        reason: Why, in words.
    """

    def __init__(self, node: onnx.NodeProto, reason: str) -> None:
        super().__init__(f"{node.op_type} {node.name!r} cannot be evaluated in float64: {reason}")
        self.node = node
        self.reason = reason


class IllegalFeed(CannotEvaluate):
    """Feeds on which the operator has no meaning and onnxruntime must not be tried: an integer division by zero ends
    the process.
    """


@dataclass
class Node:
    """A node as a kernel sees it.

    Attributes:
        proto: The node itself.
        version: The opset of the node's domain that the model imports.
        attrs: Attributes by name: numbers, strings, lists, float64 arrays for tensors, compiled bodies for graphs.
        outputs: How many outputs are wanted (up to the last one that has a name).
    """

    proto: onnx.NodeProto
    version: int
    attrs: dict[str, Any] = field(default_factory=dict[str, Any])
    outputs: int = 1

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or the default where it is not set."""
        return self.attrs.get(name, default)

    def fail(self, reason: str) -> CannotEvaluate:
        """The error to raise for this node."""
        return CannotEvaluate(self.proto, reason)


def kernel(*names: str) -> Callable[[Kernel], Kernel]:
    """Registers a function as the kernel of these operators of the default domain."""

    def register(function: Kernel) -> Kernel:
        for name in names:
            TABLE[name] = function
        return function

    return register


def load() -> dict[str, Kernel]:
    """The table with all kernels in it."""
    for module in _MODULES:
        importlib.import_module(f"{__name__}.{module}")
    return TABLE
