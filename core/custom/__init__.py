"""Custom operators: what they are called in the wild, and what they mean."""

from onnx_rewrite.custom.operator import Alike, Call, CustomOp, Unreadable
from onnx_rewrite.custom.registry import (
    Files,
    find,
    knowing_adapters,
    known_types,
    op_named,
    register_op,
    spellings,
    using,
)
from onnx_rewrite.custom.spelling import Spelling

__all__ = [
    "Alike",
    "Call",
    "CustomOp",
    "Files",
    "Spelling",
    "Unreadable",
    "find",
    "knowing_adapters",
    "known_types",
    "op_named",
    "register_op",
    "spellings",
    "using",
]
