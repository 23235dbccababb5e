"""The last look at an edited model before it is written: everything that is read is produced, and earlier."""

from __future__ import annotations

import onnx_ir as ir

from onnx_rewrite.errors import ModelError
from onnx_rewrite.model.origin import bodies_of
from onnx_rewrite.model.structure import cycle_error, describe


def make_sound(model: ir.Model, where: str) -> bool:
    """Checks that an edited model can be written, and sorts its nodes (stably) where edits left them out of order.

    Returns:
        Whether it sorted anything.

    Raises:
        ModelError: When a node or an output reads a value that nothing produces any more, a name is given twice in a
            graph, or the graph has a cycle.
    """
    sorted_any = False
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        if not _check(graph, set(), where):
            try:
                graph.sort()
                sorted_any = True
            except ValueError as error:
                raise cycle_error([graph], where) from error
    return sorted_any


def _check(graph: ir.Graph, visited: set[ir.Node], where: str) -> bool:
    """Whether the nodes of a graph, bodies included, are in topological order; raises when a value is lost."""
    in_order = True
    names: dict[str, ir.Value] = {}
    for value in (*graph.inputs, *graph.initializers.values()):
        _declare(value, names, None, where)
    for node in graph:
        for value in node.inputs:
            if value is None:
                continue
            producer = value.producer()
            if producer is None:
                if not (value.is_graph_input() or value.is_initializer()):
                    raise _lost(node, value, where)
            elif producer not in visited:
                if producer.graph is None:
                    raise _lost(node, value, where)
                in_order = False
        if node.attributes:
            for body in bodies_of(tuple(node.attributes.values())):
                in_order = _check(body, visited, where) and in_order
        visited.add(node)
        for value in node.outputs:
            name = value.name
            if name and names.setdefault(name, value) is not value:
                _declare(value, names, node, where)
    for value in graph.outputs:
        if names.get(value.name or "") is not value:
            raise ModelError(f"{where}: an edit left the output '{value.name}' without a producer")
    return in_order


def _declare(value: ir.Value, names: dict[str, ir.Value], node: ir.Node | None, where: str) -> None:
    other = names.setdefault(value.name or "", value)
    if other is not value:
        owner = "" if node is None else f" by {describe(node.name or '', node.op_type)}"
        raise ModelError(f"{where}: an edit gave the name '{value.name}' twice{owner}")


def _lost(node: ir.Node, value: ir.Value, where: str) -> ModelError:
    return ModelError(
        f"{where}: {describe(node.name or '', node.op_type)} reads '{value.name}', whose producer an edit removed"
    )
