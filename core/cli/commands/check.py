"""`rewrite check A B`: do two models compute the same, and how far apart are they?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from onnx_rewrite.cli import arguments, output
from onnx_rewrite.errors import UsageError


def check(
    before: arguments.PathOrStdio,
    after: arguments.PathOrStdio,
    /,
    *,
    inputs: str | None = None,
    shape: tuple[str, ...] = (),
    seed: int = 0,
    feeds: int | None = None,
    by_position: bool = False,
    outputs: tuple[str, ...] = (),
    metric: tuple[str, ...] = (),
    threshold: tuple[str, ...] = (),
    layerwise: bool = False,
    adapters: tuple[str, ...] = (),
    report: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Judges two models; `onnx_rewrite.cli.texts.CHECK` describes the options. Returns 1 unless equivalent."""
    if before == after == "-":
        raise UsageError("only one of the two models can come from standard input")
    shapes = arguments.parse_shapes(shape)
    limits = parse_thresholds(threshold)
    destination = arguments.report_path(report)
    from onnx_rewrite import pipeline

    with output.tracked() as progress:
        found = pipeline.check(
            before,
            after,
            inputs=inputs,
            shapes=shapes or None,
            seed=seed,
            feeds=feeds,
            by_position=by_position,
            outputs=_listed(outputs) if outputs else None,
            metrics=",".join(metric) or None,
            thresholds=limits,
            layerwise=layerwise,
            adapters=adapters or None,
            progress=progress,
        )
    text = ""
    if as_json or (destination is not None and destination.suffix.lower() == ".json"):
        from onnx_rewrite.report.codec import encode
        from onnx_rewrite.report.schema import SCHEMA_VERSION

        content = {"schema": SCHEMA_VERSION, "a": before, "b": after, **encode(found)}
        text = json.dumps(content, indent=2, ensure_ascii=False)
    if destination is not None:
        if destination.suffix.lower() == ".json":
            output.write_text(destination, text + "\n")
        else:
            from onnx_rewrite.report.checked_page import render as render_page

            output.write_text(destination, render_page(found, before, after))
    if as_json:
        print(text)
    else:
        from onnx_rewrite.report.checked import render

        render(found, before, after, output.console())
    return 0 if found.equivalent else 1


def parse_thresholds(items: Sequence[str]) -> dict[str, float]:
    """Numbers by metric from items like "abs=1e-3"; several may be joined by commas.

    Raises:
        UsageError: An item has another form, or names a metric a second time.
    """
    found: dict[str, float] = {}
    for item in _listed(items):
        name, equals, number = item.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if not equals or value != value:
            raise UsageError(
                f"--threshold {item}: not of the form METRIC=NUMBER", hint="for example --threshold rel=1e-3"
            )
        if name.strip() in found:
            raise UsageError(f"--threshold gives a number for {name.strip()} twice")
        found[name.strip()] = value
    return found


def _listed(items: Sequence[str]) -> list[str]:
    return [part.strip() for item in items for part in item.split(",") if part.strip()]
