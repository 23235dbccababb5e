"""`rewrite extract MODEL`: a part of a model as a model of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from onnx_rewrite.cli import arguments, output
from onnx_rewrite.errors import UsageError

if TYPE_CHECKING:
    import onnx_ir as ir
    from rich.console import Console

    from onnx_rewrite.pipeline import Extracted


def extract(
    model: arguments.PathOrStdio,
    /,
    *,
    from_: Annotated[tuple[str, ...], Parameter(name="--from")] = (),
    to: tuple[str, ...] = (),
    match: str | None = None,
    passes: str | None = None,
    out: Annotated[arguments.PathOrStdio | None, Parameter(name=("--output", "-o"))] = None,
) -> int:
    """Extracts a part of a model; `onnx_rewrite.cli.texts.EXTRACT` describes the options."""
    if match is not None and (from_ or to):
        raise UsageError("--match excludes --from and --to")
    if passes is not None and match is None:
        raise UsageError("--passes needs --match")
    destination = arguments.output_path(model, out, in_place=False, suffix=".extracted.onnx")
    from onnx_rewrite import pipeline

    with output.tracked():
        part = pipeline.extract(model, from_=from_ or None, to=to or None, match=match, passes=passes)
    part.save(destination)
    _show(part, destination, output.console(stderr=destination == "-"))
    return 0


def _show(part: Extracted, destination: str, human: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    from onnx_rewrite.report import terminal, wording

    graph = part.model.graph
    values = terminal.table("", "name", "type", fold="name")
    for kind, group in (("input", graph.inputs), ("output", graph.outputs)):
        for value in group:
            if kind == "output" or not value.is_initializer():
                values.add_row(kind, Text(value.name or ""), Text(_type(value)))
    human.print(values)
    human.print()
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    if part.site is not None:
        facts.add_row("site", Text(f"{part.site.id}: {wording.where(part.site.nodes)}"))
    facts.add_row("nodes", f"{part.nodes:,} of {part.nodes_before:,} (Constants aside)")
    facts.add_row("written", Text("to standard output" if destination == "-" else destination))
    human.print(facts)
    for note in part.notes:
        human.print(Text.assemble(("note: ", "bold yellow"), note))


def _type(value: ir.Value) -> str:
    from onnx_rewrite.pipeline.contents import type_text

    return type_text(value)
