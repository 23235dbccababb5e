"""`rewrite test PASS`: draws graphs and looks for one on which a pass is wrong."""

from __future__ import annotations

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
    suite = type("Suite", (testing.PassTestSuite,), {"pass_": pass_, "failures": save})
    suite.subject()  # an unknown pass is said before anything runs
    return _report(
        suite,
        [only] if only else list(testing.PROPERTIES),
        examples,
        seed,
        jobs or (processors() if examples >= MANY else 1),
    )


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
