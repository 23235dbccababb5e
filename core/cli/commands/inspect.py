"""`rewrite inspect MODEL`: what a model is made of."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from onnx_rewrite.cli import arguments, output

if TYPE_CHECKING:
    from onnx_rewrite.pipeline import Inspection


def inspect(
    model: arguments.PathOrStdio,
    /,
    *,
    passes: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Shows what a model holds; `onnx_rewrite.cli.texts.INSPECT` describes the options."""
    from onnx_rewrite import pipeline

    with output.tracked():
        found = pipeline.inspect(model, passes)
    if as_json:
        print(json.dumps(asdict(found), indent=2, default=str, ensure_ascii=False))
    else:
        _show(model, found)
    return 0


def _show(model: str, found: Inspection) -> None:
    from rich.columns import Columns
    from rich.table import Table
    from rich.text import Text

    from onnx_rewrite.report import terminal, wording

    human = output.console()
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("model", Text(model))
    if found.producer:
        facts.add_row("made by", Text(found.producer))
    facts.add_row("opset", Text(f"{wording.opsets(found.opsets)} (IR {found.ir_version})"))
    total = sum(found.histogram.values())
    constants = found.histogram.get("Constant", 0)
    aside = f" and {wording.count(constants, 'Constant')}" if constants else ""
    facts.add_row("nodes", f"{total - constants:,}{aside}")
    facts.add_row("parameters", f"{found.parameters:,} ({wording.size(found.parameter_bytes)})")
    human.print(facts)

    values = terminal.table("", "name", "dtype", "shape", fold="name")
    for kind, group in (("input", found.inputs), ("output", found.outputs)):
        for value in group:
            values.add_row(kind, Text(value.name), Text(value.dtype), Text(value.shape))
    human.print()
    human.print(values)

    by_count = sorted(found.histogram.items(), key=lambda item: (-item[1], item[0]))
    human.print()
    human.print("[bold]operators[/bold]")
    human.print(Columns([Text(f"{n:>6,} {name}") for name, n in by_count], column_first=True, padding=(0, 3)))

    rows = terminal.table("pass", "would apply", "would refuse", right=("would apply", "would refuse"))
    for name, sites in found.sites.items():
        rows.add_row(Text(name), f"{sites['applied']:,}", f"{sites['refused']:,}")
    human.print()
    human.print(rows)
