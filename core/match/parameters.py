"""What computes the parameters of nodes (the shape of a Reshape) from the shapes of other values."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from onnx_rewrite.analysis.constants import Constants

# An exporter spells a shape in a few dozen nodes; whatever is longer is no shape.
MOST_NODES = 96

_COUNTS = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL})


def computed_parameters(nodes: Iterable[ir.Node], graph: ir.Graph, constants: Constants) -> list[ir.Node]:
    """The nodes that compute whole numbers for `nodes`, up to and with those that ask for a shape.

    With them a cut-out says what it takes from where: a Reshape to a shape that was computed from another value's has
    a meaning only beside that value.

    Args:
        nodes: What has parameters.
        graph: Nodes of other graphs stay outside.
        constants: What is constant is not computed.
    """
    given = list(nodes)
    inside = set(given)
    found: dict[ir.Node, None] = {}
    waiting = [value for node in given for value in node.inputs]
    while waiting:
        value = waiting.pop()
        node = None if value is None else value.producer()
        if value is None or node is None or node in inside or node in found or node.graph is not graph:
            continue
        if value.dtype not in _COUNTS or constants.is_constant(value) or len(found) == MOST_NODES:
            continue
        found[node] = None
        if node.op_type != "Shape":
            waiting += node.inputs
    return list(found)
