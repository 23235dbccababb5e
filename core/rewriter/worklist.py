"""Which nodes are still to be looked at, after an edit and at the start."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from onnx_rewrite.rewriter.edit import Edit


class Worklist:
    """The nodes around which something changed since a rule was last tried."""

    def __init__(self) -> None:
        self._seeds: dict[ir.Node, None] = {}

    def __bool__(self) -> bool:
        return bool(self._seeds)

    def note(self, edit: Edit) -> None:
        """Remembers the neighbourhood of an edit."""
        for node in (*edit.added, *edit.touched):
            self._seeds[node] = None

    def take(self, depth: int) -> set[ir.Node]:
        """The nodes whose matches may have changed, and forgets them.

        Args:
            depth: How many nodes a pattern is deep. A match changes only if a node of it changes, so the anchors
                concerned lie at most this many nodes after a changed one.
        """
        found = {node for node in self._seeds if node.graph is not None}
        self._seeds.clear()
        level: Iterable[ir.Node] = list(found)
        for _ in range(depth):
            further = {use.node for node in level for value in node.outputs for use in value.uses()} - found
            if not further:
                break
            found |= further
            level = further
        return found
