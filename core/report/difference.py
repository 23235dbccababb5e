"""The difference of two models for a person at a terminal or in a log file."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from onnx_rewrite.pipeline.differing import Change, Difference, NodeChange, NodeEntry, Replacement, TensorChange
from onnx_rewrite.report import terminal, wording

SHOWN = 10
"""Lines of one list that are shown without `everything`."""

_Row = tuple[str, str, str]  # "+", "-" or "~", what, details
_STYLES = {"+": "green", "-": "red", "~": "yellow"}


def render(found: Difference, a: str, b: str, console: Console, *, everything: bool = False) -> None:
    """Prints what differs.

    Args:
        found: What to print.
        a: What the first model is called.
        b: What the second is called.
        console: Where to print it; its width, colours and encoding are taken from it.
        everything: No list is cut.
    """
    _Writer(console, everything).write(found, a, b)


class _Writer:
    def __init__(self, console: Console, everything: bool) -> None:
        self.console = console
        self.everything = everything
        self.glyphs = terminal.Glyphs(console)

    def write(self, found: Difference, a: str, b: str) -> None:
        facts = _grid()
        facts.add_row("A", Text(a))
        facts.add_row("B", Text(b))
        facts.add_row("verdict", _verdict(found))
        self.console.print(facts)
        if found.same:
            return
        counts = [
            Change("nodes", f"{found.nodes_before:,}", f"{found.nodes_after:,}"),
            Change("initializers", f"{found.initializers_before:,}", f"{found.initializers_after:,}"),
        ]
        header = [Change(f"opset {c.name}", c.before, c.after) for c in found.opsets]
        header += [*found.properties, *(c for c in counts if c.before != c.after)]
        self._section("model", [self._before_after(change) for change in header])
        for title, changes in (
            ("inputs", found.inputs),
            ("outputs", found.outputs),
            ("metadata", found.metadata),
            ("functions", found.functions),
        ):
            self._section(title, [self._before_after(change) for change in changes])
        self._replacements(found.replacements)
        self._nodes(found)
        self._section("initializers", [self._tensor(change) for change in found.initializers])
        self._section("types of values", [self._before_after(change) for change in found.value_types])
        self._operators(found)

    # -- lists

    def _section(self, title: str, rows: Sequence[_Row]) -> None:
        """A list of one-line facts, marked as in a diff, cut after `SHOWN`."""
        if not rows:
            return
        shown = self._capped(rows)
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold", ratio=2)
        table.add_column(overflow="fold", ratio=3)
        only_names = not any(details for _, _, details in shown)
        if only_names:
            table = Table.grid(padding=(0, 1, 0, 0))
            table.add_column(no_wrap=True)
            table.add_column(overflow="fold")
        for sign, name, details in shown:
            row: list[RenderableType] = [Text(f"  {sign}", style=_STYLES[sign]), Text(name)]
            table.add_row(*row, *([] if only_names else [Text(details)]))
        self._titled(title, rows, table, len(rows) - len(shown))

    def _capped(self, rows: Sequence[_Row]) -> Sequence[_Row]:
        """The first of each sign; one more costs no more than the line that would say that it is missing."""
        if self.everything or len(rows) <= SHOWN + 1:
            return rows
        of_sign = {sign: [i for i, row in enumerate(rows) if row[0] == sign] for sign in _STYLES}
        share = max(1, SHOWN // sum(bool(places) for places in of_sign.values()))
        kept = {i for places in of_sign.values() for i in places[:share]}
        return [row for i, row in enumerate(rows) if i in kept]

    def _titled(self, title: str, rows: Sequence[_Row], body: RenderableType, hidden: int) -> None:
        words = {"+": "added", "-": "removed", "~": "changed"}
        count = ((sign, sum(row[0] == sign for row in rows)) for sign in words)
        summary = ", ".join(f"{n:,} {words[sign]}" for sign, n in count if n)
        self.console.print()
        self.console.print(f"[bold]{title}[/bold]  [dim]{summary}[/dim]")
        self.console.print(body)
        self._hidden(hidden)

    def _hidden(self, count: int) -> None:
        if count:
            self.console.print(f"    [dim]{self.glyphs.ellipsis} and {count:,} more (--all lists them)[/dim]")

    def _before_after(self, change: Change) -> _Row:
        if change.before is None:
            return "+", change.name, change.after or ""
        if change.after is None:
            return "-", change.name, change.before
        return "~", change.name, f"{change.before} {self.glyphs.arrow} {change.after}"

    def _tensor(self, change: TensorChange) -> _Row:
        if change.values is not None:
            return "~", change.name, f"{change.before}: {change.values}"
        return self._before_after(Change(change.name, change.before, change.after))

    # -- nodes

    def _nodes(self, found: Difference) -> None:
        rows: list[_Row] = []
        rows += [("-", _title(node), "") for node in found.nodes_removed if node.replacement is None]
        rows += [("+", _title(node), "") for node in found.nodes_added if node.replacement is None]
        rows += [("~", _title(node), self._details(node)) for node in found.nodes_changed if node.replacement is None]
        self._section("other nodes" if found.replacements else "nodes", rows)

    def _details(self, node: NodeChange) -> str:
        arrow = self.glyphs.arrow
        texts = [f"{node.operator_before} {arrow} {node.operator}"] if node.operator_before != node.operator else []
        for change in node.details:
            before = "absent" if change.before is None else change.before or '""'
            after = "absent" if change.after is None else change.after or '""'
            texts.append(f"{change.name}: {before} {arrow} {after}")
        return "; ".join(texts)

    def _replacements(self, replacements: Sequence[Replacement]) -> None:
        if not replacements:
            return
        by_pass: dict[str, list[Replacement]] = {}
        for one in replacements:
            by_pass.setdefault(one.pass_name, []).append(one)
        self.console.print()
        self.console.print("[bold]replaced by passes[/bold]")
        for name, sites in by_pass.items():
            self.console.print(f"  [bold]{escape(name)}[/bold]  [dim]{wording.count(len(sites), 'replacement')}[/dim]")
            shown = sites if self.everything or len(sites) <= SHOWN + 1 else sites[:SHOWN]
            table = Table.grid(padding=(0, 1, 0, 0))
            table.add_column(no_wrap=True)
            table.add_column(no_wrap=True)
            table.add_column(overflow="fold")
            for site in shown:
                result = ", ".join(site.nodes)
                where = f" in {site.scope.rstrip('/')}" if site.scope else ""
                table.add_row(Text(f"    {_left(site)}"), Text(self.glyphs.arrow, style="dim"), Text(result + where))
            self.console.print(table)
            self._hidden(len(sites) - len(shown))

    def _operators(self, found: Difference) -> None:
        if not found.operators:
            return
        rows = terminal.table("operators", "A", "B", "", right=("A", "B", ""))
        limit = len(found.operators) if self.everything or len(found.operators) <= 2 * SHOWN + 1 else 2 * SHOWN
        largest = sorted(found.operators, key=lambda o: abs(o.after - o.before), reverse=True)[:limit]
        for one in (o for o in found.operators if o in largest):
            sign = "green" if one.after > one.before else "red"
            change = Text(f"{one.after - one.before:+,}", style=sign)
            rows.add_row(Text(f"  {one.operator}"), f"{one.before:,}", f"{one.after:,}", change)
        self.console.print()
        self.console.print(rows)
        self._hidden(len(found.operators) - limit)


def _grid() -> Table:
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    return facts


def _verdict(found: Difference) -> Text:
    if found.identical:
        return Text("identical: the same bytes", style="green")
    if found.same:
        return Text("the same, in other bytes", style="green")
    of = f"{found.nodes_unchanged:,} of A's {wording.count(found.nodes_before, 'node')} are as they were"
    return Text.assemble(("different", "yellow"), f": {of}")


def _title(node: NodeEntry | NodeChange) -> str:
    return f"{node.operator} '{node.scope}{node.name}'"


def _left(site: Replacement) -> str:
    """What a replacement took away: "9 nodes, 2 Constants"."""
    parts = [wording.count(len(site.sources), "node")] if site.sources else []
    parts += [f"{site.others:,} more"] if site.others else []
    parts += [wording.count(site.constants, "Constant")] if site.constants else []
    return ", ".join(parts) or "nothing"
