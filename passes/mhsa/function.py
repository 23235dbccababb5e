"""The replacement by this project's own MultiHeadAttention, a function in standard operators of the model's opset."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnx_rewrite.match import Match, Refused
from onnx_rewrite.passes.mhsa.meaning import numpy_of
from onnx_rewrite.passes.mhsa.plain import Plain, Style
from onnx_rewrite.pattern import op
from onnx_rewrite.plugins.multi_head_attention.op import MultiHeadAttention

STYLE = Style(keys="twice")
"""Operands of rank 4, keys as they come, one mask."""


def check_function(m: Match, level: str) -> None:
    """Raises Refused where the node cannot be had."""
    if m.target.startswith("tensorrt"):
        raise Refused(f"{MultiHeadAttention().title} has no plugin for TensorRT: leave form=auto", m.context)
    Plain(m, STYLE, level)


def multi_head_function(m: Match, level: str) -> Any:
    """Records the node and what arranges its operands and its result."""
    plain = Plain(m, STYLE, level)
    q, k, v = plain.made(m)
    dtype, wide = (numpy_of(m, d) for d in (plain.attention.dtype, plain.attention.softmax_dtype))
    total = plain.masked(m)
    mask = total[0] if total else np.zeros((1, 1, 1, 1), wide)
    # No plugin_version and the like: no TensorRT gets it.
    context = op.domain(MultiHeadAttention.domain).MultiHeadAttention(q, k, v, mask, np.asarray(plain.scale, dtype))
    return plain.finished(m, context, v)
