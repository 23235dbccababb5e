"""A graph while it is being drawn: values of known shape, nodes, and constants that are not yet spelt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

Array = np.ndarray[Any, np.dtype[Any]]


class Unfit(Exception):
    """What was chosen does not go together; the next variant is tried."""


@dataclass(eq=False)
class Value:
    """A tensor.

    Attributes:
        name: Unique in the draft.
        dtype: ONNX element type.
        shape: Its shape under the binding with which the draft is built.
        array: Its elements where it is a constant.
        spelling: How the constant is written: one of `spelling.SPELLINGS`.
        terms: How many elements were summed into each of its own, for a reduction.
        axes: The axes of that reduction, counted from the front.
        origin: The shape before that reduction.
        given: Whether it is an input of the graph.
        channels: Whether its second axis counts channels.
    """

    name: str
    dtype: int
    shape: tuple[int, ...]
    array: Array | None = None
    spelling: str = "initializer"
    terms: int = 0
    axes: tuple[int, ...] = ()
    origin: tuple[int, ...] = ()
    given: bool = False
    channels: bool = False

    @property
    def constant(self) -> bool:
        """Whether it is known before the model runs."""
        return self.array is not None


@dataclass(eq=False)
class Node:
    """One node.

    Attributes:
        op_type: Its operator.
        domain: The operator's domain.
        inputs: Operands; None for one that is left out.
        outputs: What it gives.
        attributes: As `onnx.helper.make_node` takes them.
        part: Number of the instance that it belongs to, or None.
    """

    op_type: str
    domain: str
    inputs: list[Value | None]
    outputs: list[Value]
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])
    part: int | None = None


@dataclass(eq=False)
class Draft:
    """A graph while it is being drawn.

    Attributes:
        opset: Of the standard operators.
        nodes: In an order in which they can run.
        outputs: What the graph returns.
        symbolic: Sizes of leading dimensions that are declared as symbols: 0 none, 1 the first, 2 all.
        inferred: Whether interior shapes are stated.
        container: Where the nodes stand: one of `containers.CONTAINERS`.
        elsewhere: Another place where they may stand, for what must hold there, too.
        story: What is special about it, in words.
        versions: Opsets of other domains.
        captured: Outputs of nodes with bodies, and the values that the bodies read.
    """

    opset: int
    nodes: list[Node] = field(default_factory=list[Node])
    outputs: list[Value] = field(default_factory=list[Value])
    symbolic: int = 0
    inferred: bool = False
    container: str = "main"
    elsewhere: str = "If"
    story: list[str] = field(default_factory=list[str])
    versions: dict[str, int] = field(default_factory=dict[str, int])
    captured: list[tuple[Value, Value]] = field(default_factory=list[tuple[Value, Value]])
    _count: int = 0

    def name(self, hint: str = "v") -> str:
        """A new name."""
        self._count += 1
        return f"{hint}{self._count}"

    def input(self, dtype: int, shape: Sequence[int]) -> Value:
        """A new input."""
        return Value(self.name("x"), dtype, tuple(shape), given=True)

    def constant(self, array: Array, spelling: str = "initializer", dtype: int | None = None) -> Value:
        """A new constant."""
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype) if dtype is None else dtype
        return Value(self.name("c"), kind, tuple(array.shape), array, spelling)

    def node(
        self,
        op_type: str,
        inputs: Iterable[Value | None],
        *,
        outputs: int = 1,
        domain: str = "",
        part: int | None = None,
        **attributes: Any,
    ) -> list[Value]:
        """A new node, whose outputs have the types that onnx infers.

        Raises:
            Unfit: The operands do not go together, or there is no such operator at this opset.
        """
        from onnx_rewrite.testing.inference import infer

        node = Node(op_type, domain, list(inputs), [], dict(attributes), part)
        while node.inputs and node.inputs[-1] is None:
            node.inputs.pop()
        node.outputs = [Value(self.name("v"), kind, shape) for kind, shape in infer(self, node, outputs)]
        self.nodes.append(node)
        return node.outputs

    def reorder(self, rng: np.random.Generator) -> None:
        """Puts the nodes into another order in which they can run, and the outputs into any."""
        made = {id(v) for node in self.nodes for v in node.outputs}
        waiting, self.nodes = self.nodes, []
        while waiting:
            ready = [n for n in waiting if not any(id(v) in made for v in n.inputs if v is not None)]
            chosen = ready[int(rng.integers(len(ready)))]
            waiting.remove(chosen)
            made.difference_update(id(v) for v in chosen.outputs)
            self.nodes.append(chosen)
        self.outputs = [self.outputs[i] for i in rng.permutation(len(self.outputs))]

    def live(self) -> list[Node]:
        """The nodes on which an output depends."""
        wanted: set[int] = {id(v) for v in self.outputs}
        found: list[Node] = []
        for node in reversed(self.nodes):
            if any(id(v) in wanted for v in node.outputs):
                found.append(node)
                wanted.update(id(v) for v in node.inputs if v is not None)
                wanted.update(id(v) for made, v in self.captured if made is node.outputs[0])
        found.reverse()
        return found

    def read(self, live: Sequence[Node] | None = None) -> list[Value]:
        """Inputs and constants that live nodes read or that are outputs themselves, in order of first use.

        Args:
            live: What `live` gives, if that is known already.
        """
        found: dict[int, Value] = {}
        for node in self.live() if live is None else live:
            found.update({id(v): v for v in node.inputs if v is not None and (v.given or v.constant)})
        found.update({id(v): v for v in self.outputs if v.given or v.constant})
        return list(found.values())

    def consumers(self, value: Value) -> list[Node]:
        """The nodes that read a value."""
        return [node for node in self.nodes if any(v is value for v in node.inputs)]

    def producer(self, value: Value) -> Node | None:
        """The node that gives a value."""
        return next((node for node in self.nodes if any(v is value for v in node.outputs)), None)

    def interior(self) -> list[Value]:
        """Values of instances that others of their nodes read, and that are no outputs."""
        parts = [node for node in self.nodes if node.part is not None]
        return [
            value
            for node in parts
            for value in node.outputs
            if not any(value is o for o in self.outputs) and any(c.part is not None for c in self.consumers(value))
        ]

    def infer_again(self) -> None:
        """Infers all shapes anew, after something was changed.

        Raises:
            Unfit: The graph is not legal any more.
        """
        from onnx_rewrite.testing.inference import infer

        for node in self.nodes:
            if node.op_type == "If":
                read = next(v for made, v in self.captured if made is node.outputs[0])
                node.outputs[0].dtype, node.outputs[0].shape = read.dtype, read.shape
                continue
            for value, (kind, shape) in zip(node.outputs, infer(self, node, len(node.outputs)), strict=True):
                value.dtype, value.shape = kind, shape
