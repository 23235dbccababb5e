"""`rewrite diff A B`: what changed between two models?"""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter

from onnx_rewrite.cli import arguments, output
from onnx_rewrite.errors import UsageError


def diff(
    before: arguments.PathOrStdio,
    after: arguments.PathOrStdio,
    /,
    *,
    everything: Annotated[bool, Parameter(name="--all")] = False,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Compares two models; `onnx_rewrite.cli.texts.DIFF` describes the options. Returns 1 if they differ."""
    if before == after == "-":
        raise UsageError("only one of the two models can come from standard input")
    from onnx_rewrite import pipeline

    with output.tracked():
        found = pipeline.diff(before, after)
    if as_json:
        from onnx_rewrite.report.codec import encode

        print(json.dumps(encode(found), indent=2, ensure_ascii=False))
    else:
        from onnx_rewrite.report.difference import render

        render(found, before, after, output.console(), everything=everything)
    return 0 if found.same else 1
