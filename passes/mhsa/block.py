"""The projections before an attention: x Wq + bq, x Wk + bk, x Wv + bv, with one x."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_rewrite.analysis.layout import Axis, Digit, Layout, merged, regrouped
from onnx_rewrite.match import Match, Refused
from onnx_rewrite.passes.mhsa.attention import Attention, Sight
from onnx_rewrite.passes.mhsa.operands import axes3
from onnx_rewrite.pattern import op

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Projections:
    """What Q, K and V are made of.

    Attributes:
        x: [batch, sequence, channels].
        weights: Of each, [channels, heads by channels of a head], its columns in the order of the heads.
        biases: Of each, or None.
        nodes: The products and sums.
    """

    x: ir.Value
    weights: tuple[Array, Array, Array]
    biases: tuple[Array | None, Array | None, Array | None]
    nodes: tuple[ir.Node, ...]

    @property
    def weight(self) -> Array:
        """All weights side by side."""
        return np.concatenate(self.weights, axis=1)

    @property
    def bias(self) -> Array | None:
        """All biases one after the other; None if there are none."""
        if all(bias is None for bias in self.biases):
            return None
        zeros = [np.zeros(w.shape[1], w.dtype) for w in self.weights]
        return np.concatenate([z if b is None else b for b, z in zip(self.biases, zeros, strict=True)])

    def applied(self) -> Any:
        """Records them, as one product, and a sum where there are biases."""
        both = op.MatMul(self.x, self.weight)
        return both if self.bias is None else op.Add(both, self.bias)

    @property
    def columns(self) -> list[int]:
        """How many columns each has."""
        return [int(w.shape[1]) for w in self.weights]


def projections(m: Match, attention: Attention, sights: Sequence[Sight]) -> Projections:
    """The projections of Q, K and V.

    Raises:
        Refused: They are not products of one value with constant weights.
    """
    found = [_one(m, attention, sight) for sight in sights]
    sources = {id(x): x for x, _, _, _ in found}
    if len(sources) != 1:
        raise Refused("queries, keys and values are projections of different values", m.scores)
    (x,) = sources.values()
    if len({w.shape[0] for _, w, _, _ in found}) != 1 or len({w.dtype for _, w, _, _ in found}) != 1:
        raise Refused("the weights of the projections have different rows", m.scores)
    q, k, v = found
    nodes = tuple(dict.fromkeys(node for one in found for node in one[3]))
    return Projections(x, (q[1], k[1], v[1]), (q[2], k[2], v[2]), nodes)


def _one(m: Match, attention: Attention, sight: Sight) -> tuple[ir.Value, Array, Array | None, list[ir.Node]]:
    value: ir.Value = sight.value
    batch, sequence, channels = axes3(attention, sight)
    apart = Refused(f"value '{value.name}' is no projection of batch, sequence and channels", value)
    if len(sight.layout.source) != 3 or not _whole(batch, sight, 0) or not _whole(sequence, sight, 1):
        raise apart
    if any(digit.axis != 2 or not isinstance(digit.size, int) for digit in channels):
        raise apart
    columns = np.asarray(sight.layout.starts[2])
    for digit in channels:
        assert isinstance(digit.size, int)
        columns = np.add.outer(columns, digit.stride * np.arange(digit.size))
    columns = columns.reshape(-1)
    nodes: list[ir.Node] = []
    bias: Array | None = None
    node = value.producer()
    if node is not None and node.op_type == "Add":
        for i, operand in enumerate(node.inputs):
            array = m.constant(operand)
            if array is not None and array.ndim == 1:
                bias = array
                nodes.append(node)
                other = node.inputs[1 - i]
                node = None if other is None else other.producer()
                break
    if node is None or node.op_type != "MatMul" or node.graph is not m.scope.graph:
        raise apart
    weight = m.constant(node.inputs[1])
    x = node.inputs[0]
    if weight is None or weight.ndim != 2 or x is None or (bias is not None and bias.shape != weight.shape[1:]):
        raise apart
    nodes.append(node)
    return x, weight[:, columns], None if bias is None else bias[columns], nodes


def _whole(axis: Axis, sight: Sight, place: int) -> bool:
    size = sight.layout.source[place]
    return axis == (() if size == 1 else (Digit(place, 1, size),))


def packed_sights(attention: Attention, packed: Projections, near: Sight) -> list[Sight]:
    """Q, K and V as parts of what `packed` gives; their values are not there yet.

    Args:
        attention: What they are for.
        packed: The projections.
        near: One of the sights that `packed` was found by.

    Raises:
        Refused: The batch does not divide as it must.
    """
    batch, length, _ = near.layout.source
    heads = attention.parts[attention.split :]
    source = (batch, length, sum(packed.columns))
    found: list[Sight] = []
    start = 0
    for width in packed.columns:
        channels = width // math.prod(size for size in heads if isinstance(size, int))
        outer = regrouped(Layout.of(source).axes[0], attention.parts[: attention.split])
        inner = regrouped((Digit(2, 1, width),), [*heads, channels])
        if outer is None or inner is None:
            raise Refused("how the projections are divided into heads is not known")
        axes = (*outer, *inner[:-1])
        layout = Layout(source, (*axes, Layout.of(source).axes[1], inner[-1]), (0, 0, start))
        found.append(Sight(None, layout, tuple(merged(axis) for axis in axes), 1.0, ()))
        start += width
    return found
