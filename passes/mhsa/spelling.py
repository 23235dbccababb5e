"""How scaled dot-product attention is spelt: softmax(Q Kᵀ · scale + terms) V, and what may stand around each part."""

from __future__ import annotations

from typing import Any

from onnx_rewrite.pattern import constant, either, op, product, repeat, scalar, view, where

# Steps between Softmax and the nearest MatMuls; a pattern needs a bound.
MOST_STEPS = 12
MOST_MOVES = 6


def attention(
    q: Any,
    k: Any,
    v: Any,
    q_above: Any,
    q_below: Any,
    q_factor: Any,
    q_divisor: Any,
    k_above: Any,
    k_below: Any,
    k_factor: Any,
    k_divisor: Any,
    v_steps: Any,
    turn: Any,
) -> Any:
    """The pattern. The nodes are called scores, logits, softmax, weights, context and merge, in this order."""
    query = scaled(q, q_above, q_below, q_factor, q_divisor)
    key = scaled(k, k_above, k_below, k_factor, k_divisor)
    logits = repeat(logit_step, product(query, key).named("scores"), most=MOST_STEPS)
    weights = repeat(weight_step, op.Softmax(logits, axis=-1).named("softmax"), most=MOST_STEPS)
    across = op.Transpose(weights, perm=where(turn, exchanges_ends, "an exchange of the last two axes"))
    values = view(v, v_steps)
    context = either(
        product(weights, values).named("context"),
        product(values, across.named("turned")).named("context"),
    )
    return repeat(moved, context, most=MOST_MOVES)


def exchanges_ends(perm: Any) -> bool:
    """Whether a permutation exchanges the last two axes and no others."""
    count = len(perm)
    return count > 1 and tuple(perm) == (*range(count - 2), count - 1, count - 2)


def scaled(x: Any, above: Any, below: Any, factor: Any, divisor: Any) -> Any:
    """X, multiplied by a number before, between or after whatever moves its elements; or not at all."""
    return view(
        either(op.Mul(view(x, above), scalar(factor)), op.Div(view(x, above), scalar(divisor)), x),
        below,
    )


def logit_step(
    s: Any,
    factor: Any,
    divisor: Any,
    gain: Any,
    term: Any,
    less: Any,
    hidden: Any,
    shown: Any,
    fill: Any,
    wider: Any,
    floor: Any,
) -> Any:
    """What may happen to the scores before Softmax."""
    low = where(scalar(floor), lambda f: f <= -1e30, "the lowest number, or nearly")
    return either(
        op.Mul(s, scalar(factor)).named("logits"),
        op.Div(s, scalar(divisor)).named("logits"),
        op.Mul(s, gain).named("logits"),
        op.Add(s, term).named("logits"),
        op.Sub(s, less).named("logits"),
        op.Where(hidden, constant(fill), s).named("logits"),
        op.Where(shown, s, constant(fill)).named("logits"),
        op.Cast(s, to=wider).named("logits"),
        op.Max(s, low).named("logits"),
        op.Tanh(s).named("logits"),
        op.one_of("Flatten", "Reshape", "Squeeze", "Unsqueeze")(s).named("logits"),
    )


def weight_step(w: Any, narrower: Any) -> Any:
    """What may happen to the weights after Softmax."""
    return either(
        op.Where(op.IsNaN(w).named("clean"), 0, w).named("weights"),
        op.Cast(w, to=narrower).named("weights"),
        op.Dropout(w).named("weights"),
        op.one_of("Flatten", "Reshape", "Squeeze", "Unsqueeze")(w).named("weights"),
    )


def moved(c: Any) -> Any:
    """How the heads are put together again."""
    return op.one_of("Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze")(c).named("merge")
