"""Where a replacement can stand: after all that it reads, and before all that reads it."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnx_rewrite.analysis.order import dependents, noted_order, order_of
from onnx_rewrite.match import Match, Refused, entangled
from onnx_rewrite.rewriter.cutout import ordered


class MisplacedError(Exception):
    """A replacement reads a value that is not computed before it: a mistake of the pass."""


def refuse_entangled(match: Match) -> None:
    """Raises `Refused` if one node in the place of the match would have to run before itself."""
    own = match.captured(match.outputs)
    if own is not None:
        raise Refused(f"'{own[0]}' would be value '{own[1].name}', which the match itself gives", own[1])
    obstacle = entangled(match.scope.graph, match.nodes, match.outputs)
    if obstacle is not None:
        raise Refused(str(obstacle), obstacle.value, consumer=obstacle.consumer)


def refuse_misplaced(match: Match, nodes: Sequence[ir.Node], results: Sequence[ir.Value]) -> None:
    """Checks that whatever a replacement reads or hands through is there when the match's last node runs.

    Raises:
        MisplacedError: It is not.
    """
    fine = {v for node in match.nodes for v in (*node.inputs, *node.outputs)}
    fine.difference_update(match.outputs)
    fine.update(v for node in nodes for v in node.outputs)
    for value in (*(v for node in nodes for v in node.inputs), *results):
        if value is None or value in fine:
            continue
        if value in match.outputs:
            raise MisplacedError(f"the replacement uses value '{value.name}', which it replaces")
        producer = value.producer()
        if producer is None:  # an input or an initializer: of this graph, of an outer one, or new
            continue
        _refuse_late(match, value, producer)
        fine.add(value)


def _refuse_late(match: Match, value: ir.Value, producer: ir.Node) -> None:
    graph = match.scope.graph
    late = MisplacedError(f"the replacement uses value '{value.name}', which is not computed before it")
    if producer.graph is None:
        raise MisplacedError(f"the replacement uses value '{value.name}', which belongs to no graph")
    order = order_of(producer.graph)
    here = order.of(last_node(match))
    if here is None or (producer.graph is graph and producer in match.nodes):
        raise late
    place = order.of(producer)
    if place is None or place >= here:
        raise late
    if producer.graph is graph and producer in dependents(graph, match.outputs, match.nodes):
        raise late


def last_node(match: Match) -> ir.Node:
    """Of the nodes that produce the outputs, the one that stands last."""
    if len(match.outputs) == 1:
        return match.anchor
    producers = list(dict.fromkeys(node for v in match.outputs if (node := v.producer()) is not None))
    if len(producers) == 1:
        return producers[0]
    order = order_of(match.scope.graph)
    return max(producers, key=lambda node: order.of(node) or ())


def insert(match: Match, nodes: Sequence[ir.Node]) -> list[ir.Node]:
    """Puts nodes into the graph before the match's last node, and what needs an output but stands earlier behind them.

    Returns:
        The nodes that were moved.
    """
    graph, place = match.scope.graph, last_node(match)
    moved: list[ir.Node] = []
    if any(v.producer() is not place for v in match.outputs):
        after = dependents(graph, match.outputs, match.nodes)
        moved = ordered(list(after))
        graph.remove(moved)
    graph.insert_before(place, [*nodes, *moved])
    order = noted_order(graph)
    if order is not None:
        order.inserted([*nodes, *moved], place)
    return moved
