"""`rewrite passes`: which passes there are."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from onnx_rewrite.cli import output
from onnx_rewrite.errors import OnnxRewriteError

if TYPE_CHECKING:
    from rich.console import Console

    from onnx_rewrite.registry import PassDescription


def passes(name: str | None = None, /, *, as_json: Annotated[bool, Parameter(name="--json")] = False) -> int:
    """Lists all passes, or describes one; `onnx_rewrite.cli.texts.PASSES` describes the options."""
    from onnx_rewrite import registry

    human = output.console()
    if name is not None:
        info = registry.describe(name)
        if as_json:
            _print_json(asdict(info))
        else:
            _describe(info, human)
        return 0
    found: list[PassDescription] = []
    broken: list[str] = []
    for each in registry.names():
        try:
            found.append(registry.describe(each))
        except OnnxRewriteError as error:  # of another package; the list goes on without it
            broken.append(f"{error} ({error.hint})" if error.hint else str(error))
    if as_json:
        _print_json([asdict(info) for info in found])
    else:
        _list(found, human)
    for message in broken:
        print(f"warning: {message}", file=sys.stderr)
    return 0


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def _list(found: list[PassDescription], human: Console) -> None:
    from rich.text import Text

    from onnx_rewrite.report import terminal

    rows = terminal.table("pass", "opset", "options", "what it does", right=("opset",), fold="what it does")
    for info in found:
        options = fill(", ".join(option.name for option in info.options), 14)
        rows.add_row(Text(info.name), _opset(info), Text(options or "-"), Text(info.summary))
    human.print(rows)
    human.print(
        Text(
            f"\nA model below a pass's opset is raised to it.  {output.program()} passes NAME tells more.", style="dim"
        )
    )


def _opset(info: PassDescription) -> str:
    return str(info.needs_opset) if info.needs_opset > 1 else "any"


def _describe(info: PassDescription, human: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    human.print(Text.assemble((info.name, "bold"), f"  {info.summary}"))
    body = info.doc.strip()
    body = body[len(info.summary) :].lstrip(" .\n") if body.startswith(info.summary) else body
    for paragraph in filter(None, body.split("\n\n")):
        lines = paragraph.split("\n")
        running_text = all(line[:1] not in ("", " ", "-", "*") for line in lines)
        human.print()
        human.print(Text(" ".join(lines) if running_text else paragraph))
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("opset", "any" if _opset(info) == "any" else f"{info.needs_opset} or newer; a model below is raised")
    facts.add_row("from", Text(f"{info.package}, {info.origin}" if info.package else info.origin))
    facts.add_row("use", Text(_usage(info)))
    human.print()
    human.print(facts)
    if info.options:
        human.print()
        human.print("[bold]options[/bold]")
    for option in info.options:
        default = "required" if option.required else f"default {option.default or repr('')}"
        human.print(Text(f"  {option.name}  {option.type}, {default}"))
        if option.help:
            human.print(Text(f"    {option.help}", style="dim"))


def _usage(info: PassDescription) -> str:
    wanted = [option for option in info.options if option.required] or list(info.options[:1])
    return f"--passes {info.name}" + "".join(f":{option.name}={option.default or 'VALUE'}" for option in wanted)
