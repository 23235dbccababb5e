"""Notices passes that undo each other, or that never stop."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import onnx_ir as ir

from onnx_rewrite.errors import OnnxRewriteError
from onnx_rewrite.rewriter.edit import Edit, node_label
from onnx_rewrite.rewriter.site import Site

# A value that is rewritten this often is being rewritten in circles.
MAX_REWRITES_OF_ONE_VALUE = 30

# By how many nodes passes may let grow what passes made: a decomposition matches the model's nodes, not its own.
MAX_GROWTH = 10_000


class CircularRewriteError(OnnxRewriteError):
    """Two passes, or one, undo each other for ever."""

    exit_code = 1


class Circles:
    """Watches the edits of a run."""

    def __init__(self) -> None:
        self._rewrites: dict[str, list[tuple[str, str]]] = {}
        self._made: set[ir.Node] = set()
        self._growth = 0
        self._last = ""

    def note(self, site: Site, edit: Edit) -> None:
        """Remembers an edit.

        Raises:
            CircularRewriteError: The same value is replaced again and again, or new nodes beget new ones.
        """
        told = f"{site.id}: {_told(edit.removed)} -> {_told(edit.added)}"
        for value in edit.replaced.values():
            history = self._rewrites.setdefault(value.name or "", [])
            history.append((site.pass_name, told))
            if len(history) > MAX_REWRITES_OF_ONE_VALUE:
                names = sorted({name for name, _ in history[-4:]})
                whose = f"pass {names[0]} rewrites" if len(names) == 1 else f"passes {' and '.join(names)} rewrite"
                raise _error(whose, value.name or "", history[-2][1], told, names)
        if not self._made.isdisjoint(edit.removed):
            self._growth += len(edit.added) - len(edit.removed)
            if self._growth > MAX_GROWTH:
                name = site.pass_name
                raise _error(f"pass {name} rewrites", site.outputs[0], self._last, told, [name])
        self._made.difference_update(edit.removed)
        self._made.update(edit.added)
        self._last = told


def _error(whose: str, value: str, before: str, last: str, names: list[str]) -> CircularRewriteError:
    hint = f"run them apart: --passes {names[0]}"
    if len(names) == 1:
        hint = f"run without {names[0]}: its own result matches its pattern"
    return CircularRewriteError(
        f"the {whose} value '{value}' in circles; the last two edits:\n  {before}\n  {last}", hint=hint
    )


def _told(nodes: Iterable[ir.Node]) -> str:
    told = (f"{node.op_type} '{node_label(node)}'" for node in nodes if node.op_type != "Constant")
    labels = list(itertools.islice(told, 5))
    return ", ".join(labels[:4]) + (", ..." if len(labels) > 4 else "") if labels else "nothing"
