"""`onnx_rewrite::MultiHeadAttention`: what it takes, what it means, and what its result looks like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnx_rewrite.custom import Alike, Call, CustomOp
from onnx_rewrite.pattern import op

CASTS_SINCE = 15
"""The first opset with CastLike, by which a body without types of its own takes Softmax in another type."""


class MultiHeadAttention(CustomOp):
    """softmax(Q Kᵀ · scale + mask) V for each head (Vaswani et al., "Attention Is All You Need", 2017).

    Inputs: q [N, heads, L, E], k [N, heads, S, E], v [N, heads, S, D], of one float type; N and heads may be 1 where
    all share one. mask, added to the scores, broadcasts to [N, heads, L, S]; Softmax is computed in its type, which is
    q's below opset 15. scale is one number of q's type. The result is [N, heads, L, D].

    The scale is no attribute: that would be a 32-bit float, and a function knows it from opset 12 on only, as a number
    of q's type from opset 15 on. There is no plugin, and no TensorRT is given the node: TensorRT-RTX 1.7 takes it for
    com.microsoft's of the same name, whatever the domain and the function say.
    """

    name = "MultiHeadAttention"
    inputs = ("q", "k", "v", "mask", "scale")
    required = 3
    since = 7

    def body(self, operands: Mapping[str, Any], parameters: Mapping[str, Any], opset: int) -> Any:
        mask, scale = operands["mask"], operands["scale"]
        scores = op.MatMul(operands["q"], op.Transpose(operands["k"], perm=[0, 1, 3, 2]))
        if scale is not None:
            scores = op.Mul(scores, scale)
        if mask is not None:
            if opset >= CASTS_SINCE:
                scores = op.CastLike(scores, mask)
            scores = op.Add(scores, mask)
        weights = op.Softmax(scores, axis=3)  # the last of four: -1 is known from opset 11 on only
        if mask is not None and opset >= CASTS_SINCE:
            weights = op.CastLike(weights, operands["v"])
        return op.MatMul(weights, operands["v"])

    def alike(self, call: Call) -> Alike:
        return Alike("Einsum", ("q", "k", "v"), {"equation": "...le,...se,...sd->...ld"})
