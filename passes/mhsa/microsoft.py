"""The replacement by onnxruntime's own operators: MultiHeadAttention, and Attention with the projections inside.

Their rules: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onnx_rewrite.match import Match, Refused
from onnx_rewrite.passes.mhsa.block import Projections, projections
from onnx_rewrite.passes.mhsa.cleaning import cleaned
from onnx_rewrite.passes.mhsa.operands import seen_nodes
from onnx_rewrite.passes.mhsa.operator import UNBOUNDED, Form, widened
from onnx_rewrite.passes.mhsa.terms import last_axes, mask
from onnx_rewrite.pattern import op

microsoft = op.domain("com.microsoft")


def check_microsoft(m: Match, form: Form, level: str) -> Projections | None:
    """The projections where the replacement takes them in, else None.

    Raises:
        Refused: The operators' rules do not allow it.
    """
    attention = form.attention
    if form.rank != 3:
        raise Refused("MultiHeadAttention takes operands of batch, sequence and channels", m.scores)
    if attention.softcap:
        raise Refused(UNBOUNDED.format("com.microsoft's MultiHeadAttention"), m.softmax)
    if form.kv_heads(m) != attention.heads:
        raise Refused("MultiHeadAttention knows no keys that several heads share", m.scores)
    if attention.softmax_dtype != attention.dtype:
        raise Refused("MultiHeadAttention computes Softmax in the type of its operands", m.softmax)
    ends = last_axes(attention)
    full = (attention.queries, attention.keys)
    if ends is not None and ends != full and not all(isinstance(size, int) for size in full):
        raise Refused("MultiHeadAttention takes a mask with a row for each query, whose number is not known", m.softmax)
    if attention.cleaned and level == "block":
        raise Refused(
            "NaN among the weights is made 0, and the values are inside of com.microsoft's Attention", m.softmax
        )
    if level not in ("auto", "block") or attention.cleaned:
        return None
    try:
        found = projections(m, attention, [operand.sight for operand in form.operands])
    except Refused:
        if level == "block":
            raise
        return None
    m.look_through([*found.nodes, *seen_nodes(attention, form.operands)])
    return found


def multi_head_attention(m: Match, form: Form, packed: Projections | None) -> Any:
    """Records the operator and what arranges its operands and its result."""
    attention = form.attention
    total = mask(m, attention, attention.dtype)
    total = widened(attention, total, None, form.rank)
    params: dict[str, Any] = {"num_heads": attention.heads, "scale": form.scale}
    if packed is None:
        q, k, v = form.inputs(m)
        result = cleaned(m, attention, microsoft.MultiHeadAttention(q, k, v, None, None, total, **params), v, None)
    else:
        bias = packed.bias
        if bias is None:
            bias = np.zeros(sum(packed.columns), packed.weight.dtype)
        sizes = packed.columns
        if len(set(sizes)) > 1:
            params["qkv_hidden_sizes"] = sizes
        result = microsoft.Attention(packed.x, packed.weight, bias, None, None, total, **params)
    return form.merge.applied(result)
