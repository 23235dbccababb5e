"""Which nodes are still to be looked at, after an edit and at the start."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from onnx_rewrite.rewriter.edit import Edit


class Worklist:
    """The nodes around which something changed: one log of edits that every pass reads at its own pace.

    Args:
        passes: How many passes read it; they go by their numbers.
    """

    def __init__(self, passes: int) -> None:
        self._changed: list[ir.Node] = []
        self._read = [0] * passes

    def pending(self, index: int) -> bool:
        """Whether anything changed that a pass has not taken yet."""
        return self._read[index] < len(self._changed)

    def note(self, edit: Edit) -> None:
        """Remembers the neighbourhood of an edit."""
        self._changed += edit.added
        self._changed += edit.touched

    def skip(self, index: int) -> None:
        """A pass need not look at what changed so far."""
        self._read[index] = len(self._changed)

    def take(self, index: int, depth: int, *, beside: bool = False) -> set[ir.Node]:
        """The nodes whose matches may have changed since a pass last asked.

        Args:
            index: The pass.
            depth: How many nodes a pattern is deep, Identities aside. A match changes only if a node of it changes,
                so the anchors concerned lie at most this many nodes after a changed one.
            beside: Whether a pattern has several outputs: its anchor may lie after anything that lies before a
                changed node.
        """
        found = {node for node in self._changed[self._read[index] :] if node.graph is not None}
        self.skip(index)
        if beside:
            found |= _readers(_before(found, depth))
        level: Iterable[ir.Node] = list(found)
        for _ in range(depth):
            further = _readers(value for node in level for value in node.outputs) - found
            if not further:
                break
            found |= further
            level = further
        return found


def _readers(values: Iterable[ir.Value]) -> set[ir.Node]:
    """The nodes that read any of `values`, be it through Identities."""
    found: set[ir.Node] = set()
    waiting = list(values)
    while waiting:
        for use in waiting.pop().uses():
            if use.node not in found:
                found.add(use.node)
                if use.node.op_type == "Identity":
                    waiting += use.node.outputs
    return found


def _before(nodes: Iterable[ir.Node], depth: int) -> set[ir.Value]:
    """The values at most `depth` nodes before any of `nodes`, Identities aside."""
    found: set[ir.Value] = set()
    level = [v for node in nodes for v in node.inputs if v is not None]
    for _ in range(depth):
        if not level:
            break
        further: list[ir.Value] = []
        for value in level:
            if value in found:
                continue
            found.add(value)
            producer = value.producer()
            if producer is not None:
                inputs = [v for v in producer.inputs if v is not None]
                (level if producer.op_type == "Identity" else further).extend(inputs)
        level = further
    return found
