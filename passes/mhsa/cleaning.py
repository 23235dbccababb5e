"""What a clean-up of NaN among the weights means for the result.

Softmax gives NaN for a whole row or for none of it. A row that is made 0 leaves the sum of 0 · V over all keys: 0, or
NaN where V is not finite. So the result is right where it is no number after this sum has been put in.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onnx_rewrite.match import Match, Refused
from onnx_rewrite.passes.mhsa.attention import Attention
from onnx_rewrite.passes.mhsa.meaning import numpy_of
from onnx_rewrite.passes.mhsa.terms import array_of, endless, low, tame
from onnx_rewrite.pattern import op


def told_apart(m: Match, attention: Attention) -> bool:
    """Whether rows that are minus infinity throughout must be told apart from rows of lowest numbers.

    onnxruntime's Attention takes both alike, so a mask that is computed must be kept above the latter.
    """
    return (
        attention.cleaned
        and any(t.fill is None and array_of(m, t) is None and not tame(m, t.value) for t in attention.terms)
        and any(endless(m, t) for t in attention.terms)
    )


def cleaned(m: Match, attention: Attention, result: Any, v: Any, heads: Any, empty: Any = None) -> Any:
    """Records what puts the sum of 0 · V where the weights were NaN.

    Args:
        m: The match.
        attention: What it means; returned as it is where nothing is cleaned.
        result: [batch, (heads,) queries, (heads by) channels].
        v: [batch, (heads,) keys, (heads by) channels].
        heads: Of V, where these are fewer than the result has; else None.
        empty: Where a row is minus infinity throughout although `result` does not show it, or None.

    Raises:
        Refused: V's heads cannot be repeated with one size that is not known.
    """
    if not attention.cleaned:
        return result
    nothing = op.ReduceSum(op.Mul(v, np.asarray(0, numpy_of(m, attention.dtype))), axes=[-2], keepdims=1)
    if heads not in (None, 1):
        nothing = _repeated(m, attention, nothing, heads)
    void = op.IsNaN(result)
    return op.Where(void if empty is None else op.Or(void, empty), nothing, result)


def _repeated(m: Match, attention: Attention, nothing: Any, heads: Any) -> Any:
    check_repeated(m, attention, heads)
    times = attention.heads // heads
    nothing = op.Expand(op.Unsqueeze(nothing, axes=[2]), np.asarray([1, 1, times, 1, 1], np.int64))
    return op.Reshape(nothing, shape=[0, -1, 1, attention.channels])


def check_repeated(m: Match, attention: Attention, heads: Any) -> None:
    """Raises Refused where sizes that a repetition takes are not known."""
    if heads != 1 and not all(isinstance(size, int) for size in (heads, attention.heads, attention.channels)):
        raise Refused("NaN among the weights is made 0, and how often the values are repeated is not known", m.context)


def above(m: Match, attention: Attention, total: Any) -> Any:
    """Records a mask that is nowhere below what hides a score."""
    dtype = numpy_of(m, attention.dtype)
    lowest = np.asarray(low(dtype), dtype)
    return np.maximum(total, lowest) if isinstance(total, np.ndarray) else op.Max(total, lowest)
