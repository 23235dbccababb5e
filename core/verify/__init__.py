"""Numerical equivalence of two models, judged against the original in float64.

:class:`LocalJudge` for one replacement, :func:`judge_models` for two whole models, :class:`Reference` for the float64
evaluation itself. Nothing here knows of patterns or passes.
"""

from __future__ import annotations

from onnx_rewrite.verify.dtypes import Tolerance
from onnx_rewrite.verify.inputs import check_feeds, load_inputs
from onnx_rewrite.verify.local import LocalJudge
from onnx_rewrite.verify.reference import CannotEvaluate, Reference
from onnx_rewrite.verify.session import loads_everywhere
from onnx_rewrite.verify.whole import judge_models

__all__ = [
    "CannotEvaluate",
    "LocalJudge",
    "Reference",
    "Tolerance",
    "check_feeds",
    "judge_models",
    "load_inputs",
    "loads_everywhere",
]
