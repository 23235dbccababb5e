"""The language in which a pass says what it looks for."""

from onnx_rewrite.pattern.language import const, constant, either, maybe, optional, scalar
from onnx_rewrite.pattern.ops import op
from onnx_rewrite.pattern.tracing import PatternError, trace

__all__ = ["PatternError", "const", "constant", "either", "maybe", "op", "optional", "scalar", "trace"]
