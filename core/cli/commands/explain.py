"""`rewrite explain MODEL PASS`: why a pass did not fire."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from onnx_rewrite.cli import arguments, output

if TYPE_CHECKING:
    from rich.console import Console

    from onnx_rewrite.rewriter.explaining import Explanation, NearMiss

SHOWN = 12
"""How many near misses are shown unless --all asks for more."""


def explain(
    model: arguments.PathOrStdio,
    pass_: Annotated[str, Parameter(name="PASS")],
    /,
    *,
    node: str | None = None,
    target: arguments.Target = "onnx",
    adapters: tuple[str, ...] = (),
    show_all: Annotated[bool, Parameter(name="--all")] = False,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Tells near misses; `onnx_rewrite.cli.texts.EXPLAIN` describes the options."""
    from onnx_rewrite import pipeline

    with output.tracked():
        found = pipeline.explain(model, pass_, node=node, target=target, adapters=adapters or None)
    if as_json:
        near = [{**asdict(miss), "share": round(miss.share, 3)} for miss in found.near]
        print(json.dumps({**asdict(found), "near": near}, indent=2, ensure_ascii=False))
    else:
        _show(found, model, node, SHOWN if not show_all else len(found.near))
    return 0


def _show(found: Explanation, model: str, node: str | None, most: int) -> None:
    from rich.text import Text

    from onnx_rewrite.report import wording

    human = output.console()
    about = f" about '{node}'" if node else ""
    sites, misses = wording.count(len(found.found), "site"), len(found.near)
    nearly = f"{misses:,} near miss{'es' if misses != 1 else ''}"
    human.print(Text.assemble((found.pass_name, "bold"), f" in {model}{about}: {sites} found, {nearly}"))
    for nodes in found.found if node else ():
        human.print(Text(f"\nfound: {wording.where(nodes)}"))
    if found.absent:
        names = ", ".join(found.absent)
        human.print(Text(f"\nThe pattern needs {names}, of which the model has none."))
    if found.near and found.near[0].about is not None:
        human.print()
    for number, miss in enumerate(found.near[:most], 1):
        _show_miss(number, miss, human)
    if len(found.near) > most:
        human.print(Text(f"\n{len(found.near) - most:,} more; --all shows them", style="dim"))
    if not (found.near or found.found or found.absent):
        human.print("\nNothing in it resembles the pattern.")


def _show_miss(number: int, miss: NearMiss, human: Console) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from onnx_rewrite.report import wording

    if miss.about is not None:
        human.print(Text.assemble(f"{number}. ", (miss.about, "bold"), f": {miss.reason}"), soft_wrap=True)
        return
    matched = f"all {len(miss.nodes)} nodes stand, but"
    if not miss.complete:
        matched = f"{wording.count(len(miss.nodes), 'node')} matched; the pattern has at least {miss.wanted}"
    human.print(Text.assemble(f"\n{number}. ", (miss.anchor, "bold"), f"  {matched}"))
    human.print(Padding(Text(miss.reason), (0, 0, 0, 3), expand=False))
    if miss.hint:
        human.print(Padding(Text(f"what would help: {miss.hint}", style="dim"), (0, 0, 0, 3), expand=False))
