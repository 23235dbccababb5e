"""`rewrite bench MODEL`: what engines make of a model, or of two."""

from __future__ import annotations

import json
import sys
from typing import Annotated

from cyclopts import Parameter

from onnx_rewrite.cli import arguments, output
from onnx_rewrite.errors import UsageError

EXIT_NOT_BUILT = 1


def bench(
    model: arguments.PathOrStdio,
    /,
    *,
    compare: arguments.PathOrStdio | None = None,
    engines: str = "auto",
    inputs: str | None = None,
    shape: tuple[str, ...] = (),
    seed: int = 0,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Measures; `onnx_rewrite.cli.texts.BENCH` describes the options. Returns 1 if an engine could not be built."""
    if model == compare == "-":
        raise UsageError("only one of the two models can come from standard input")
    shapes = arguments.parse_shapes(shape)
    from onnx_rewrite import pipeline
    from onnx_rewrite.engines import registry

    missing = registry.choose(engines).missing
    with output.tracked() as progress:
        rows = pipeline.bench(
            model, compare, engines=engines, inputs=inputs, shapes=shapes or None, seed=seed, progress=progress
        )
    if as_json:
        from onnx_rewrite.report.codec import encode
        from onnx_rewrite.report.schema import SCHEMA_VERSION

        print(json.dumps({"schema": SCHEMA_VERSION, "benchmark": encode(rows)}, indent=2, ensure_ascii=False))
        for lack in missing:
            print(f"not on this machine: {lack}", file=sys.stderr)
    else:
        from onnx_rewrite.report import measurements

        measurements.render(rows, output.console(), missing=missing)
    return 0 if all(row.built for row in rows) else EXIT_NOT_BUILT
