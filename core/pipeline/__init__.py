"""The main job, one line: load, run the passes, verify, report, save."""

from __future__ import annotations

from onnx_rewrite.pipeline.checking import check
from onnx_rewrite.pipeline.comparing import Difference, diff
from onnx_rewrite.pipeline.explaining import explain
from onnx_rewrite.pipeline.extracting import Extracted, extract
from onnx_rewrite.pipeline.inspecting import Inspection, ValueInfo, inspect
from onnx_rewrite.pipeline.measuring import bench, measure
from onnx_rewrite.pipeline.minimising import minimise
from onnx_rewrite.pipeline.result import Result
from onnx_rewrite.pipeline.running import Progress, run
from onnx_rewrite.verify.measures import Checked

__all__ = [
    "Checked",
    "Difference",
    "Extracted",
    "Inspection",
    "Progress",
    "Result",
    "ValueInfo",
    "bench",
    "check",
    "diff",
    "explain",
    "extract",
    "inspect",
    "measure",
    "minimise",
    "run",
]
