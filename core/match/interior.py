"""Whether anything outside a match needs what the replacement would take away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import onnx_ir as ir

from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.analysis.order import dependents
from onnx_rewrite.match.compiler import label
from onnx_rewrite.match.match import Refused


@dataclass(frozen=True)
class Blocked:
    """An interior value that is needed outside, and by whom (None: it is a graph output).

    With `entangled` it is an output, and the consumer is something that the match in turn depends on.
    """

    value: ir.Value
    consumer: ir.Node | None
    entangled: bool = False

    @property
    def asks(self) -> bool:
        """Whether the consumer only asks for the value's shape: the pass may take in what it does so for."""
        return self.consumer is not None and self.consumer.op_type == "Shape" and not self.entangled

    def __str__(self) -> str:
        if self.consumer is None:
            return f"{label(self.value)} is an output of the graph"
        if self.entangled:
            return f"the match needs {label(self.consumer)}, which needs the match's own {label(self.value)}"
        return f"{label(self.value)} is also used by {label(self.consumer)}"


def raise_blocked(obstacle: Blocked) -> NoReturn:
    """Raises `Refused` with what it says."""
    raise Refused(str(obstacle), obstacle.value, consumer=obstacle.consumer)


def blocked(
    nodes: Sequence[ir.Node], outputs: Sequence[ir.Value], constants: Constants, seen: Sequence[ir.Node] = ()
) -> Blocked | None:
    """The first value of `nodes`, `outputs` aside, that something else needs; None if there is none.

    Of those in `seen` the values may be needed elsewhere: such nodes stay. A use inside a body of If, Loop or Scan
    counts. A node that asks a value only for its shape or type, for the sake of a constant that feeds the match, goes
    away with it and does not count.
    """
    inside = set(nodes)
    kept = set(outputs)
    for node in [n for n in nodes if n not in seen] if seen else nodes:
        for value in node.outputs:
            if value in kept:
                continue
            if value.is_graph_output():
                return Blocked(value, None)
            for use in value.uses():
                if (
                    use.node not in inside
                    and use.node.graph is not None
                    and not _only_asks(use.node, inside, constants)
                ):
                    return Blocked(value, use.node)
    return _held(seen, inside.difference(seen), inside, constants) if seen else None


def _held(seen: Sequence[ir.Node], own: set[ir.Node], inside: set[ir.Node], constants: Constants) -> Blocked | None:
    """A value of the match itself that something outside needs by way of nodes that may stay."""
    for node in seen:
        consumer = _needed_by(node, inside, constants)
        if consumer is None:
            continue
        waiting, known = [node], {node}
        while waiting:
            for value in waiting.pop().inputs:
                producer = None if value is None else value.producer()
                if producer in own:
                    assert value is not None
                    return Blocked(value, None if consumer is node else consumer)
                if producer is not None and producer in inside and producer not in known:
                    known.add(producer)
                    waiting.append(producer)
    return None


def _needed_by(node: ir.Node, inside: set[ir.Node], constants: Constants) -> ir.Node | None:
    """Who outside needs what a node gives: a node, the node itself for the graph's outputs, or None."""
    for value in node.outputs:
        if value.is_graph_output():
            return node
        for use in value.uses():
            if use.node not in inside and use.node.graph is not None and not _only_asks(use.node, inside, constants):
                return use.node
    return None


def entangled(graph: ir.Graph, nodes: Sequence[ir.Node], outputs: Sequence[ir.Value]) -> Blocked | None:
    """An output that the match itself needs by way of a node outside it; None if the match is convex.

    A match of one output is: nothing after its last node comes before it.
    """
    if len({value.producer() for value in outputs}) < 2:
        return None
    inside = set(nodes)
    after = dependents(graph, outputs, inside)
    for node, (value, output) in after.items():
        outside = value.producer()
        if node in inside and outside is not None:
            return Blocked(output, outside, entangled=True)
    return None


def _only_asks(node: ir.Node, inside: set[ir.Node], constants: Constants) -> bool:
    for value in node.outputs:
        if value.is_graph_output() or not constants.is_constant(value):
            return False
        if not all(use.node in inside or _only_asks(use.node, inside, constants) for use in value.uses()):
            return False
    return True
