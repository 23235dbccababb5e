"""New names that collide with nothing, in any scope of the model."""

from __future__ import annotations

import onnx_ir as ir

from onnx_rewrite.analysis.skeleton import bodies


def all_graphs(model: ir.Model) -> list[ir.Graph]:
    """Every graph of a model, outer before inner: the main one, bodies, functions and their bodies."""
    found: dict[ir.Graph, None] = {}
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        _add_with_bodies(graph, found)
    return list(found)


def all_graphs_of(graph: ir.Graph) -> list[ir.Graph]:
    """A graph and all bodies inside it, outer before inner."""
    found: dict[ir.Graph, None] = {}
    _add_with_bodies(graph, found)
    return list(found)


def _add_with_bodies(graph: ir.Graph, found: dict[ir.Graph, None]) -> None:
    found[graph] = None
    for node in graph:
        if node.attributes:
            for body in bodies(node):
                _add_with_bodies(body, found)


class Names:
    """All names of a model's nodes and values; scopes share one space, so that nothing is captured by accident."""

    def __init__(self, model: ir.Model) -> None:
        self._values: set[str] = set()
        self._nodes: set[str] = set()
        for graph in all_graphs(model):
            self._values.update(v.name for v in graph.inputs if v.name)
            self._values.update(graph.initializers)
            for node in graph:
                if node.name:
                    self._nodes.add(node.name)
                self._values.update(v.name for v in node.outputs if v.name)

    def value(self, wish: str) -> str:
        """`wish`, or `wish_1`, `wish_2`, ... where it is taken."""
        return _free(wish, self._values)

    def node(self, wish: str) -> str:
        """The same for a node."""
        return _free(wish, self._nodes)

    def release_node(self, name: str | None) -> None:
        """Makes the name of a removed node available to the one that replaces it."""
        if name:
            self._nodes.discard(name)


def _free(wish: str, taken: set[str]) -> str:
    name, number = wish, 0
    while name in taken:
        number += 1
        name = f"{wish}_{number}"
    taken.add(name)
    return name
