"""`rewrite check A B`: do two models compute the same?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from onnx_rewrite.cli import arguments, output
from onnx_rewrite.errors import UsageError

if TYPE_CHECKING:
    from onnx_rewrite.verdict import Verification


def check(
    before: arguments.PathOrStdio,
    after: arguments.PathOrStdio,
    /,
    *,
    inputs: str | None = None,
    shape: tuple[str, ...] = (),
    seed: int = 0,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Judges two models; `onnx_rewrite.cli.texts.CHECK` describes the options. Returns 1 unless equivalent."""
    if before == after == "-":
        raise UsageError("only one of the two models can come from standard input")
    shapes = arguments.parse_shapes(shape)
    from onnx_rewrite import pipeline

    with output.tracked():
        verdict = pipeline.check(before, after, inputs=inputs, shapes=shapes or None, seed=seed)
    if as_json:
        from onnx_rewrite.report.codec import encode

        print(json.dumps(encode(verdict), indent=2, ensure_ascii=False))
    else:
        _show(before, after, verdict)
    return 0 if verdict.equivalent else 1


def _show(before: str, after: str, verdict: Verification) -> None:
    from rich.table import Table
    from rich.text import Text

    from onnx_rewrite.report import terminal, wording

    human = output.console()
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("A", Text(before))
    facts.add_row("B", Text(after))
    facts.add_row("verdict", Text(verdict.verdict, style=terminal.STYLES.get(verdict.verdict, "yellow")))
    if verdict.reason:
        facts.add_row("reason", Text(verdict.reason))
    if verdict.feeds:
        facts.add_row("feeds", f"{verdict.feeds:,}")
        facts.add_row("error of A", f"{wording.error(verdict.error_before)} (against A in float64)")
        bound = f"(against A in float64; at most {wording.error(verdict.bound)} is accepted)"
        facts.add_row("error of B", f"{wording.error(verdict.error_after)} {bound}")
    if verdict.output:
        index = f" at {list(verdict.index)}" if verdict.index is not None else ""
        regime = f", feed: {verdict.regime}" if verdict.regime else ""
        facts.add_row("worst", Text(f"{verdict.output}{index}{regime}"))
    human.print(facts)
