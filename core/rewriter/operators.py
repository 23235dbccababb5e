"""Which operators stand in a graph and where, so that a pattern looks only at nodes that it may be anchored at."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import onnx_ir as ir

from onnx_rewrite.match import key_of
from onnx_rewrite.match.matcher import OperatorKey


class Operators:
    """The nodes of graphs by operator, read off once between two edits."""

    def __init__(self) -> None:
        self._present: dict[ir.Graph, set[OperatorKey]] = {}
        self._places: dict[ir.Graph, dict[str, list[tuple[int, ir.Node]]]] = {}

    def present(self, graph: ir.Graph) -> set[OperatorKey]:
        """The operators in a graph, and perhaps some that were in it: enough to tell what cannot match."""
        known = self._present.get(graph)
        if known is None:
            known = self._present[graph] = {key_of(node) for node in graph}
        return known

    def backwards(self, graph: ir.Graph, op_types: Collection[str]) -> Iterable[ir.Node]:
        """The nodes of these types (of any domain), the last one first."""
        places = self._places.get(graph)
        if places is None:
            places = self._places[graph] = {}
            for entry in enumerate(graph):
                places.setdefault(entry[1].op_type, []).append(entry)
        # Places differ, so that nodes are never compared.
        found = sorted([entry for op_type in op_types for entry in places.get(op_type, ())], reverse=True)
        return [node for _, node in found]

    def note(self, added: Iterable[ir.Node]) -> None:
        """An edit was made, and these are its new nodes."""
        self._places.clear()
        for node in added:
            if node.graph in self._present:
                self._present[node.graph].add(key_of(node))

    def forget(self) -> None:
        """Nodes may have changed in any way."""
        self._places.clear()
        self._present.clear()
