"""The language in which a pass says what it looks for."""

from onnx_rewrite.analysis.dtypes import FLOATS, INTEGERS
from onnx_rewrite.pattern.errors import PatternError
from onnx_rewrite.pattern.language import (
    const,
    constant,
    either,
    maybe,
    optional,
    product,
    repeat,
    rest,
    scalar,
    view,
    where,
)
from onnx_rewrite.pattern.ops import op
from onnx_rewrite.pattern.spelling import misspelled, spelled
from onnx_rewrite.pattern.tracing import trace

__all__ = [
    "FLOATS",
    "INTEGERS",
    "PatternError",
    "const",
    "constant",
    "either",
    "maybe",
    "misspelled",
    "op",
    "optional",
    "product",
    "repeat",
    "rest",
    "scalar",
    "spelled",
    "trace",
    "view",
    "where",
]
