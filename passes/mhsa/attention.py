"""What an attention is: its operands with their layouts, the scale, and what is added to the scores."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnx_rewrite.analysis.layout import Axis, Digit, Layout, Size, size_of


@dataclass(frozen=True)
class Sight:
    """An operand, seen from one of the values on the way to it.

    Attributes:
        value: Where it is seen from.
        layout: Of the operand: the batch's axes, the sequence, the channels.
        batch: The digits of each part of the batch; none where the operand is the same for all of it.
        absorbed: By what number the value must be multiplied.
        steps: The nodes between the value and the operand.
        partial: Whether the value has been multiplied by a number already, which then stays.
    """

    value: Any
    layout: Layout
    batch: tuple[Axis, ...]
    absorbed: float
    steps: tuple[ir.Node, ...]
    partial: bool = False

    @property
    def sequence(self) -> Axis:
        """Its digits."""
        return self.layout.axes[-2]

    @property
    def channels(self) -> Axis:
        """Its digits."""
        return self.layout.axes[-1]


@dataclass(frozen=True)
class Term:
    """What is added to the scores.

    Attributes:
        value: A value or a `Constant`; with `fill` a condition.
        factor: By what it is multiplied first.
        fill: What is written where the condition is true (`shown`: false), or None.
        shown: Whether the condition is true where the scores stay.
        shape: For each part of the axes of the scores its size, 1 where it is the same for all.
        given: The value that the graph adds, where `value` is a condition that was seen behind it.
        steps: Nodes that were looked through to see the condition.
    """

    value: Any
    factor: float
    fill: float | None
    shown: bool
    shape: tuple[Size, ...]
    given: Any = None
    steps: tuple[ir.Node, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether the scores are replaced by `fill`, not added to it: what is hidden may then be anything."""
        return self.fill is not None and self.given is None


@dataclass(frozen=True)
class Attention:
    """One attention.

    Attributes:
        dtype: Of Q, K and V.
        softmax_dtype: In which Softmax is computed.
        parts: Sizes of the parts that the batch's axes consist of, heads included.
        split: How many of the parts are the batch; the others are heads.
        queries, keys: Lengths.
        rows, columns: Sizes of the parts that the queries' and the keys' axis of the scores consist of where terms are
            added; mostly one each.
        q, k, v: The sights of each, the nearest first.
        scale: Of the scores.
        softcap: To what tanh bounds the scaled scores, before anything is added; 0: they are not bounded.
        terms: What is added.
        gains: Other factors of the scores than numbers; each is the same for all keys.
        cleaned: Whether NaN among the weights becomes 0.
        merged: The layout of the result, on (parts of the batch..., queries, channels of V).
        channels: Of V.
    """

    dtype: ir.DataType
    softmax_dtype: ir.DataType
    parts: tuple[Size, ...]
    split: int
    queries: Size
    keys: Size
    rows: tuple[Size, ...]
    columns: tuple[Size, ...]
    q: tuple[Sight, ...]
    k: tuple[Sight, ...]
    v: tuple[Sight, ...]
    scale: float
    softcap: float
    terms: tuple[Term, ...]
    gains: tuple[Term, ...]
    cleaned: bool
    merged: tuple[Axis, ...]
    channels: Size

    @property
    def groups(self) -> tuple[slice, slice, slice, slice]:
        """Where in the shape of a term batch, heads, queries and keys stand."""
        batch, rows, columns = len(self.parts), len(self.rows), len(self.columns)
        places = (0, self.split, batch, batch + rows, batch + rows + columns)
        first, second, third, fourth = (slice(a, b) for a, b in itertools.pairwise(places))
        return first, second, third, fourth

    @property
    def heads(self) -> Size:
        """How many heads the query has."""
        return product(self.parts[self.split :])


def product(sizes: Sequence[Size]) -> Size:
    """Of sizes, at most one of them unknown, or a size of its own."""
    return size_of([Digit(0, 0, size) for size in sizes])
