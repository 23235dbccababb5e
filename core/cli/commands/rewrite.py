"""`rewrite MODEL`: the program's main command."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from onnx_rewrite.cli import arguments, output
from onnx_rewrite.errors import ModelError, NotEquivalentError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from onnx_rewrite.pipeline import Result
    from onnx_rewrite.report.schema import Report


def rewrite(
    model: arguments.PathOrStdio,
    /,
    *,
    passes: str | None = None,
    out: Annotated[arguments.PathOrStdio | None, Parameter(name=("--output", "-o"))] = None,
    target: arguments.Target = "onnx",
    opset: str | None = None,
    adapters: tuple[str, ...] = (),
    inputs: str | None = None,
    shape: tuple[str, ...] = (),
    verify: Literal["full", "local", "off"] = "full",
    only: tuple[str, ...] = (),
    skip: tuple[str, ...] = (),
    accept: tuple[Literal["inconclusive"], ...] = (),
    in_place: bool = False,
    external_data: Literal["keep", "link", "copy"] = "keep",
    report: str | None = None,
    print_between_passes: str | None = None,
    time_passes: bool = False,
    dry_run: bool = False,
    strict: bool = False,
    seed: int = 0,
    feeds: int | None = None,
    bench: str | None = None,
    verbose: bool = False,
    quiet: bool = False,
) -> int:
    """Rewrites a model; `onnx_rewrite.cli.texts.REWRITE` describes the options. Returns the exit status."""
    if verbose and quiet:
        raise UsageError("--verbose and --quiet exclude each other")
    _missing(model)
    shapes = arguments.parse_shapes(shape)
    wanted_opset = arguments.parse_opset(opset)
    destination = None if dry_run else arguments.output_path(model, out, in_place=in_place)
    report_file = arguments.report_path(report)

    missing = _engines_missing(bench)

    from onnx_rewrite import pipeline

    human = output.console(stderr=destination == "-")
    try:
        with output.tracked(quiet=quiet) as progress:
            result = pipeline.run(
                model,
                arguments.default_passes() if passes is None else passes,
                target=target,
                opset=wanted_opset,
                inputs=inputs,
                shapes=shapes or None,
                verify=verify,
                only=only or None,
                skip=skip or None,
                accept=accept,
                strict=strict,
                seed=seed,
                feeds_per_site=feeds,
                print_between_passes=print_between_passes,
                adapters=adapters or None,
                progress=progress,
            )
    except NotEquivalentError as error:
        if error.report is not None:
            _tell(error.report, human, report_file, verbose=verbose, quiet=quiet)
        if error.result is not None:
            _keep_failures(error.result, destination, human)
        raise
    if destination is not None and not in_place:
        result.save(
            destination, external_data=external_data
        )  # before anything is measured: an engine that fails cannot take the model with it
    if bench is not None:
        with output.tracked(quiet=quiet) as progress:
            pipeline.measure(result, bench, inputs=inputs, shapes=shapes or None, seed=seed, progress=progress)
    if destination is not None and in_place:
        result.save(
            destination, overwrite_input=True, external_data=external_data
        )  # after: the original's weights may lie where it writes
    _tell(result.report, human, report_file, verbose=verbose, quiet=quiet, missing=missing)
    if time_passes:
        from onnx_rewrite.report import terminal

        terminal.times(result.report, human)
    _keep_failures(result, destination, human)
    return 0


def _engines_missing(bench: str | None) -> tuple[str, ...]:
    """What "auto" has to do without; an engine that is named and not available is an error before any work."""
    if bench is None:
        return ()
    from onnx_rewrite.engines import registry

    return registry.choose(bench).missing


def _keep_failures(result: Result, destination: str | None, human: Console) -> None:
    """Saves what was rolled back beside the output, so that it can be looked at."""
    if destination is None or destination == "-":
        return
    for script in result.save_failures(Path(destination).with_suffix(".failures")):
        human.print(f"failure  {script}", markup=False, soft_wrap=True)


def _missing(model: str) -> None:
    """Says so at once if there is no such model; a mistyped command looks like one."""
    if model == "-" or os.path.exists(model):
        return
    from onnx_rewrite.cli.app import COMMANDS

    near = difflib.get_close_matches(model, COMMANDS, n=1)
    hint = f"did you mean `rewrite {near[0]}`?" if near else None
    raise ModelError(f"{model}: no such file", hint=hint)


def _tell(
    report: Report,
    human: Console,
    file: Path | None,
    *,
    verbose: bool,
    quiet: bool,
    missing: tuple[str, ...] = (),
) -> None:
    if file is not None:
        output.write_report(report, file)
    from onnx_rewrite.report import terminal

    if quiet:
        terminal.warnings(report, output.console(stderr=True))
        return
    terminal.render(report, human, verbose=verbose, program=output.program(), missing_engines=missing)
    if file is not None:
        human.print(f"report   {file}", markup=False, soft_wrap=True)
