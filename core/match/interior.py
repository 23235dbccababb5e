"""Whether anything outside a match needs what the replacement would take away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.match.compiler import label


@dataclass(frozen=True)
class Blocked:
    """An interior value that is needed outside, and by whom (None: it is a graph output)."""

    value: ir.Value
    consumer: ir.Node | None

    def __str__(self) -> str:
        if self.consumer is None:
            return f"{label(self.value)} is an output of the graph"
        return f"{label(self.value)} is also used by {label(self.consumer)}"


def blocked(nodes: Sequence[ir.Node], outputs: Sequence[ir.Value], constants: Constants) -> Blocked | None:
    """The first value of `nodes`, `outputs` aside, that something else needs; None if there is none.

    A use inside a body of If, Loop or Scan counts. A node that asks a value only for its shape or type, for the
    sake of a constant that feeds the match, goes away with it and does not count.
    """
    inside = set(nodes)
    kept = set(outputs)
    for node in nodes:
        for value in node.outputs:
            if value in kept:
                continue
            if value.is_graph_output():
                return Blocked(value, None)
            for use in value.uses():
                if use.node not in inside and not _only_asks(use.node, inside, constants):
                    return Blocked(value, use.node)
    return None


def _only_asks(node: ir.Node, inside: set[ir.Node], constants: Constants) -> bool:
    for value in node.outputs:
        if value.is_graph_output() or not constants.is_constant(value):
            return False
        if not all(use.node in inside or _only_asks(use.node, inside, constants) for use in value.uses()):
            return False
    return True
