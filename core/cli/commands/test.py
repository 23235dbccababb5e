"""`rewrite test PASS`: draws graphs and looks for one on which a pass is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from onnx_rewrite.cli import output
from onnx_rewrite.errors import UsageError

if TYPE_CHECKING:
    from onnx_rewrite.testing import Run


MANY = 50
"""From so many examples on several processes are worth their start."""


def test(
    pass_: Annotated[str, Parameter(name="PASS")],
    /,
    *,
    examples: int = 100,  # noqa: PT028
    seed: int = 0,  # noqa: PT028
    only: Annotated[str | None, Parameter(name="--property")] = None,  # noqa: PT028
    jobs: int | None = None,  # noqa: PT028
    declare: tuple[str, ...] = (),  # noqa: PT028
    save: Annotated[Path | None, Parameter(name="--save")] = None,  # noqa: PT028
) -> int:
    """Runs every property of a pass; `onnx_rewrite.cli.texts.TEST` describes the options."""
    try:
        from onnx_rewrite import testing
        from onnx_rewrite.testing.sharing import processors
    except ImportError as error:
        raise UsageError(f"the test kit needs {error.name}", hint="pip install 'onnx-rewrite[testing]'") from error
    if examples < 1:
        raise UsageError(f"{examples} examples show nothing", hint="at least 1")
    if jobs is not None and jobs < 1:
        raise UsageError(f"{jobs} processes run nothing", hint="--jobs 1 or more")
    if only is not None and only not in testing.PROPERTIES:
        raise UsageError(f"there is no property '{only}'", hint=f"one of: {', '.join(testing.PROPERTIES)}")
    suite = type("Suite", (testing.PassTestSuite,), {"pass_": pass_, "failures": save, **declared(declare)})
    suite.subject()  # an unknown pass is said before anything runs
    for name, why in {**suite.relaxed, **suite.still_legal, **({"nan": suite.nan} if suite.nan else {})}.items():
        output.console().print(f"[yellow]relaxed [/]{name}: {why}", highlight=False)
    names = [only] if only else [name for name in testing.PROPERTIES if name not in suite.relaxed]
    return _report(suite, names, examples, seed, jobs or (processors() if examples >= MANY else 1))


def declared(entries: Sequence[str]) -> dict[str, Any]:
    """What a suite declares: `NAME=REASON` of a property, of a mutation or `nan`, and `fires_at_least=SHARE`."""
    from onnx_rewrite.testing import MUTATIONS, PROPERTIES

    found: dict[str, Any] = {"relaxed": {}, "still_legal": {}}
    for entry in entries:
        name, _, why = (part.strip() for part in entry.partition("="))
        if name == "fires_at_least":
            found[name] = _share(why)
        elif not why:
            raise UsageError(f"'{entry}' gives no reason", hint="--declare 'NAME=REASON'")
        elif name == "nan":
            found[name] = why
        elif name in PROPERTIES or name in MUTATIONS:
            found["relaxed" if name in PROPERTIES else "still_legal"][name] = why
        else:
            known = ", ".join(("nan", "fires_at_least", *PROPERTIES, *MUTATIONS))
            raise UsageError(f"nothing is called '{name}' that could be declared", hint=f"one of: {known}")
    return found


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"'{text}' is no share of the instances", hint="fires_at_least=0.3")
    return share


def _report(suite: Any, names: list[str], examples: int, seed: int, jobs: int) -> int:
    from rich.text import Text

    human = output.console()
    failed: list[str] = []
    ran: Run
    for ran in suite.run_all(names, examples=examples, seed=seed, jobs=jobs):
        if ran.failure is None and not ran.rare:
            counts = ", ".join(f"{told} {count}" for told, count in sorted(ran.counts.items()))
            line = f"{ran.property}  {ran.examples} examples  "
            human.print(Text.assemble(("ok      ", "green"), line, (counts, "dim")))
            continue
        failed.append(ran.property)
        human.print(Text.assemble(("failed  ", "red"), f"{ran.property}", f": {ran.rare}" if ran.rare else ""))
        if ran.failure is not None:
            human.print(Text(ran.failure.text()))
        if ran.folder is not None:
            from onnx_rewrite.testing import where

            human.print(Text(f"{where(ran.folder)}\n", style="dim"))
    human.print(f"{len(names) - len(failed)} of {len(names)} properties hold")
    return 1 if failed else 0
