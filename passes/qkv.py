"""The projections of one attention, packed.

x Wq + bq, x Wk + bk and x Wv + bv are x [Wq Wk Wv] + [bq bk bv], split: one product of matrices in place of three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from onnx_rewrite.match import Constant, Match, Refused
from onnx_rewrite.pattern import constant, either, op
from onnx_rewrite.registry import Pass, RuleSet

# Nodes between a projection and the products of its attention: heads, scale, rotary embedding.
MOST_BETWEEN = 64

_ENDS = frozenset({"MatMul", "Attention", "MultiHeadAttention", "Gemm", "Einsum"})


def projection(x: Any, w: Any, b: Any) -> Any:
    """X times a weight, and a bias; the weight may stand transposed in a Gemm."""
    product = op.MatMul(x, constant(w))
    return either(op.Add(product, constant(b)), product)


class _Packing(Pass):
    """What both rules share."""

    names: ClassVar[tuple[str, ...]] = ()

    def check(self, m: Match) -> None:
        weights, biases = self._captured(m)
        for weight in weights:
            if len(weight.shape) != 2:
                raise Refused(f"a weight has shape {list(weight.shape)}, not rows and columns", weight)
        if len({w.dtype for w in weights}) > 1 or len({w.shape[0] for w in weights}) > 1:
            raise Refused("the weights have different element types or rows", weights[0])
        for weight, bias in zip(weights, biases, strict=True):
            if bias is not None and bias.shape != weight.shape[1:]:
                raise Refused(f"a bias has shape {list(bias.shape)}, the weight {weight.shape[1]} columns", bias)
        for value, bias in zip(m.outputs, biases, strict=True):
            uses = list(value.uses())
            if bias is None and len(uses) == 1 and uses[0].node.op_type == "Add":
                other = m.constant(uses[0].node.inputs[1 - uses[0].idx])
                if other is not None and other.ndim == 1:
                    raise Refused(f"the bias of value '{value.name}' would stay behind", value)
        roles(m)

    def replace(self, m: Match) -> Any:
        weights, biases = self._captured(m)
        order = roles(m)
        columns = [int(weights[i].shape[1]) for i in order]
        packed = op.MatMul(m.x, np.concatenate([weights[i].array for i in order], axis=1))
        if any(bias is not None for bias in biases):
            zeros = [np.zeros(w.shape[1], w.array.dtype) for w in weights]
            rows = [zero if bias is None else bias.array for bias, zero in zip(biases, zeros, strict=True)]
            packed = op.Add(packed, np.concatenate([rows[i] for i in order]))
        parts = op.Split(packed, axis=-1, split=columns, outputs=len(order))
        return tuple(parts[order.index(i)] for i in range(len(order)))

    def _captured(self, m: Match) -> tuple[list[Constant], list[Constant | None]]:
        return [getattr(m, f"w{n}") for n in self.names], [getattr(m, f"b{n}") for n in self.names]


class Three(_Packing):
    """Queries, keys and values of one value."""

    names = ("1", "2", "3")

    def pattern(self, x: Any, w1: Any, b1: Any, w2: Any, b2: Any, w3: Any, b3: Any) -> Any:
        return projection(x, w1, b1), projection(x, w2, b2), projection(x, w3, b3)


class Two(_Packing):
    """Keys and values of one value; the queries are of another."""

    names = ("1", "2")

    def pattern(self, x: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
        return projection(x, w1, b1), projection(x, w2, b2)


def roles(m: Match) -> list[int]:
    """The match's outputs in the order Q, K, V (or K, V).

    Raises:
        Refused: They do not belong to one attention.
    """
    apart = Refused("the projections do not belong to one attention", m.output)
    ends = [_ends(value) for value in m.outputs]
    for node in _all(ends):
        if node.op_type in ("Attention", "MultiHeadAttention") and all(node in end for end in ends):
            return sorted(range(len(ends)), key=lambda i: ends[i][node])
    for scores in _all(ends):
        for v, end in enumerate(ends):
            if scores in end or not any(_weighs(scores, context, place) for context, place in end.items()):
                continue
            others = [i for i in range(len(ends)) if i != v and scores in ends[i]]
            if len(others) == len(ends) - 1:
                return [*sorted(others, key=lambda i: ends[i][scores]), v]
    raise apart


def _all(ends: list[dict[ir.Node, int]]) -> list[ir.Node]:
    return list(dict.fromkeys(node for end in ends for node in end))


def _ends(value: ir.Value) -> dict[ir.Node, int]:
    """The products that a projection runs into, and as which operand."""
    found: dict[ir.Node, int] = {}
    waiting, seen = [value], {value}
    while waiting and len(seen) < MOST_BETWEEN:
        for use in waiting.pop(0).uses():
            if use.node.op_type in _ENDS:
                found.setdefault(use.node, use.idx)
            elif use.node.op_type not in ("Softmax", "LayerNormalization", "Shape"):
                new = [v for v in use.node.outputs if v not in seen]
                seen.update(new)
                waiting += new
    return found


def _weighs(scores: ir.Node, context: ir.Node, place: int) -> bool:
    """Whether a product's other operand comes from the scores by way of Softmax."""
    if context.op_type not in ("MatMul", "Einsum") or context is scores or len(context.inputs) != 2:
        return False
    value, past = context.inputs[1 - place], False
    for _ in range(MOST_BETWEEN):
        node = None if value is None else value.producer()
        if node is None or not node.inputs:
            return False
        if node is scores:
            return past
        past |= node.op_type == "Softmax"
        if node.op_type in _ENDS:
            return False
        lead = [v for v in node.inputs if v is not None and v.producer() is not None]
        value = next((v for v in lead if _from(v, scores, 16)), None)
    return False


def _from(value: ir.Value, scores: ir.Node, depth: int) -> bool:
    node = value.producer()
    if node is scores:
        return True
    if node is None or depth == 0 or node.op_type in _ENDS:
        return False
    return any(v is not None and _from(v, scores, depth - 1) for v in node.inputs)


@dataclass(frozen=True)
class PackProjections(RuleSet):
    """Packs the projections of an attention's queries, keys and values into one MatMul and a Split."""

    name: ClassVar[str] = "qkv"

    def rules(self) -> tuple[Pass, ...]:
        return (Three(), Two())
