"""The replacement by this project's own MultiHeadAttention, a function in standard operators of the model's opset."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnx_rewrite.match import Match, Refused, Settled
from onnx_rewrite.passes.mhsa.meaning import numpy_of
from onnx_rewrite.passes.mhsa.operator import Form
from onnx_rewrite.passes.mhsa.plain import Plain, Style
from onnx_rewrite.plugins.multi_head_attention.op import MultiHeadAttention

STYLE = Style(keys="twice")
"""Operands of rank 4, keys as they come, one mask."""


def check_function(m: Match, *, asked: bool) -> None:
    """Raises Refused where the node cannot be had.

    Args:
        m: The match.
        asked: Whether the options ask for the node; else it stands in for Attention where that may not be had.
    """
    if m.target == "tensorrt-8.6":
        raise Refused("TensorRT 8.6 knows no functions, and has no plugin for MultiHeadAttention", m.context)
    if not asked and m.may_have(23):
        raise Settled("Attention may be had", m.context)
    Plain(m, STYLE)


def multi_head_function(m: Match) -> Any:
    """Records the node and what arranges its operands and its result."""
    plain = Plain(m, STYLE)
    q, k, v = plain.made(m)
    dtype, wide = (numpy_of(m, d) for d in (plain.attention.dtype, plain.attention.softmax_dtype))
    total, nowhere = plain.masked(m)
    mask = total[0] if total else np.zeros((1, 1, 1, 1), wide)
    context = MultiHeadAttention().node(q, k, v, mask, np.asarray(plain.scale, dtype))
    return plain.finished(context, nowhere)
