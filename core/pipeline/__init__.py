"""The main job, one line: load, run the passes, verify, report, save."""

from __future__ import annotations

from onnx_rewrite.pipeline.checking import check
from onnx_rewrite.pipeline.inspecting import Inspection, ValueInfo, inspect
from onnx_rewrite.pipeline.result import Result
from onnx_rewrite.pipeline.running import Progress, run

__all__ = ["Inspection", "Progress", "Result", "ValueInfo", "check", "inspect", "run"]
