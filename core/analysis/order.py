"""Where nodes stand in their graph: onnx_ir's node lists are linked and know no positions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import onnx_ir as ir

Place = tuple[int, ...]

_KEY = "onnx_rewrite.order"


class Order:
    """Positions of the nodes of one graph that stay comparable while nodes are inserted.

    The node number i of the graph has the place (i,). What is inserted before a node with the place (..., p) gets
    (..., p - 1, c) with a rising c: after whatever stood before that node, and before the node itself.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self._places: dict[ir.Node, Place] = {}
        self._owners: dict[ir.Graph, ir.Node] = {}
        self._next = itertools.count()
        for number, node in enumerate(graph):
            self._places[node] = (number,)
            for body in _bodies(node):
                self._owners[body] = node

    def of(self, node: ir.Node) -> Place | None:
        """The place of a node of this graph, or of the one in whose bodies it stands; None for any other."""
        holder = self.holder(node)
        return None if holder is None else self._places[holder]

    def holder(self, node: ir.Node) -> ir.Node | None:
        """The node of this graph that is `node`, or holds it in a body."""
        if node in self._places:
            return node
        return None if node.graph is None else self._owners.get(node.graph)

    def inserted(self, nodes: Iterable[ir.Node], before: ir.Node) -> None:
        """Notes that `nodes` stand directly before another node now."""
        *outer, last = self._places[before]
        for node in nodes:
            self._places[node] = (*outer, last - 1, next(self._next))
            for body in _bodies(node):
                self._owners[body] = node

    def removed(self, nodes: Iterable[ir.Node]) -> None:
        """Forgets nodes."""
        for node in nodes:
            self._places.pop(node, None)


def order_of(graph: ir.Graph) -> Order:
    """The order of a graph, read off at the first question; whoever edits the graph keeps it up (`noted_order`)."""
    known = noted_order(graph)
    if known is None:
        known = graph.meta[_KEY] = Order(graph)
    return known


def noted_order(graph: ir.Graph) -> Order | None:
    """The order of a graph if anybody asked for it before."""
    return graph.meta.get(_KEY)


def dependents(
    graph: ir.Graph, outputs: Sequence[ir.Value], inside: Iterable[ir.Node]
) -> dict[ir.Node, tuple[ir.Value, ir.Value]]:
    """Nodes of `graph`, `inside` aside, that need one of `outputs` and stand before the last of their producers.

    Returns:
        Each of them with a value that it reads and the output behind that value, in the graph's order. A node of
        `inside` that reads from one of these is in it too: `inside` is not convex then.
    """
    order = order_of(graph)
    matched = set(inside)
    last = max(place for v in outputs if (node := v.producer()) is not None and (place := order.of(node)) is not None)
    found: dict[ir.Node, tuple[ir.Value, ir.Value]] = {}
    waiting = [(value, value) for value in outputs]
    while waiting:
        value, origin = waiting.pop()
        for use in value.uses():
            node = order.holder(use.node)
            if node is None or node in found or (node in matched and value is origin):
                continue
            place = order.of(node)
            if place is not None and place <= last:
                found[node] = value, origin
                if node not in matched:
                    waiting += [(v, origin) for v in node.outputs]
    return dict(sorted(found.items(), key=lambda item: order.of(item[0]) or ()))


def _bodies(node: ir.Node) -> Iterable[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            direct = [attribute.as_graph()]
        elif attribute.type == ir.AttributeType.GRAPHS:
            direct = list(attribute.as_graphs())
        else:
            continue
        for body in direct:
            yield body
            yield from body.subgraphs()


def forget_order(graph: ir.Graph) -> None:
    """Makes the next question read the order anew: for edits that do not keep it up."""
    graph.meta.pop(_KEY, None)
