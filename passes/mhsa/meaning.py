"""What a match means: the operands with their layouts, the scale, and what is added to the scores."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_rewrite.analysis.dtypes import FLOATS, numpy_dtype
from onnx_rewrite.analysis.layout import (
    Axis,
    Digit,
    Layout,
    Size,
    Unknown,
    merged,
    regrouped,
    size_of,
    sizes_of,
    through,
)
from onnx_rewrite.match import Match, Refused


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


def meaning(m: Match) -> Attention:
    """What the match means.

    Raises:
        Refused: It is no attention, or too little is known of it.
    """
    dtype, softmax_dtype = _dtypes(m)
    scores = m.scores.outputs[0]
    sizes = _sizes(scores)
    if len(sizes) < 2 or any(m.rank(value) in (None, 0, 1) for value in m.context.inputs):
        raise Refused("the scores, the weights or the values are no matrices", scores)
    for operand, called in ((m.k, "keys"), (m.v, "values")):
        if m.constant(operand) is not None:
            raise Refused(f"the {called} are constant: this is a classifier or a table, not an attention", operand)
    for operand in (*m.scores.inputs, m.context.inputs[1]):
        _refuse_poisoned(m, operand)
    q = _sights(m, "q", m.scores.inputs[0], m.q_above, m.q_below, _number(m.q_factor, m.q_divisor), transposed=False)
    k = _sights(m, "k", m.scores.inputs[1], m.k_above, m.k_below, _number(m.k_factor, m.k_divisor), transposed=True)
    v = _sights(m, "v", m.context.inputs[1], m.v_steps, (), 1.0, transposed=False)
    stages = _stages(m, sizes)
    divided, split = _parts(sizes, stages, q)
    runs = _runs(divided)
    parts = tuple(size for axis in divided[:-2] for size in axis)
    scale, terms, gains, layout = _terms(m, sizes, divided, runs)
    context = m.context.outputs[0]
    context_sizes = _sizes(context)
    there = _runs_there(m, layout, divided, runs, len(context_sizes))
    q, k = (tuple(s for one in sights if (s := _with_parts(one, parts, runs[:-2]))) for sights in (q, k))
    v = tuple(s for one in v if (s := _with_parts(one, parts, there)))
    for sights, operand in ((q, m.q), (k, m.k), (v, m.v)):
        if not sights:
            raise Refused(f"how value '{operand.name}' is divided into heads is not known", operand)
    return Attention(
        dtype=dtype,
        softmax_dtype=softmax_dtype,
        parts=parts,
        split=split,
        queries=sizes[-2],
        keys=sizes[-1],
        rows=divided[-2],
        columns=divided[-1],
        q=q,
        k=k,
        v=v,
        scale=scale,
        terms=terms,
        gains=gains,
        cleaned=any(node is not None for node in m.clean),
        merged=_merged(m, context_sizes, parts, there),
        channels=context_sizes[-1],
    )


def _number(factor: float | None, divisor: float | None) -> float:
    if factor is not None:
        return float(factor)
    return 1.0 if divisor is None else 1.0 / divisor if divisor else float("nan")


def _refuse_poisoned(m: Match, value: ir.Value) -> None:
    """Raises Refused where a value is infinite or NaN by its making: what was made of it is nobody's wish."""
    node = value.producer()
    if node is not None and node.op_type in ("Div", "Mul"):
        number = m.scope.constants.scalar(node.inputs[1])
        if number is not None and (not np.isfinite(number) or (number == 0 and node.op_type == "Div")):
            raise Refused(f"{node.op_type} '{node.name}' gives no finite numbers", node)


def _sizes(value: ir.Value) -> tuple[Size, ...]:
    found = sizes_of(value)
    if found is None:
        raise Refused(f"the rank of value '{value.name}' is not known", value)
    return found


def _dtypes(m: Match) -> tuple[ir.DataType, ir.DataType]:
    value = m.scores.inputs[0]
    dtype, softmax = value.dtype, m.softmax.inputs[0].dtype
    if dtype not in FLOATS or softmax not in FLOATS:
        raise Refused(f"the element type of value '{value.name}' is not known, or no float", value)
    assert dtype is not None
    assert softmax is not None
    for node in (*m.logits, *m.weights):
        if node.op_type == "Cast" and node.outputs[0].dtype not in FLOATS:
            raise Refused(f"Cast '{node.name}' rounds to a type that is no float", node)
    if m.context.inputs[0].dtype != dtype:
        raise Refused("the weights have another element type than the queries", m.context)
    return dtype, softmax


# -- operands


def _sights(
    m: Match, name: str, operand: ir.Value, above: Any, below: Any, number: float, *, transposed: bool
) -> list[Sight]:
    """From where an operand of MatMul can be seen, the nearest first."""
    source: ir.Value = getattr(m, name)
    scaled = above is not None
    if not np.isfinite(number) or number == 0:
        raise Refused(f"value '{source.name}' is multiplied by {number}", source)
    far = [source, *(above or ())] if scaled else [source, *below]
    tail = list(below) if scaled else []
    places: list[tuple[ir.Value, list[ir.Value], float, bool]] = []
    for i, value in enumerate(far):
        places.append((value, far[i + 1 :] + tail, number, False))
    if scaled:  # the product itself, where what it is made of cannot be told
        near = below[0].producer().inputs[0] if below else operand
        places += [(value, list(below[i:]), 1.0, True) for i, value in enumerate([near, *below])]
    found: list[Sight] = []
    for value, chain, absorbed, partial in reversed(places):
        layout = through(chain, value, m.version, m.scope.constants)
        if layout is None or len(layout.axes) < 2:
            continue
        if transposed:
            layout = replace(layout, axes=(*layout.axes[:-2], layout.axes[-1], layout.axes[-2]))
        steps = tuple(node for step in chain if (node := step.producer()) is not None)
        found.append(Sight(value, layout, (), absorbed, steps, partial))
    return found


Divided = tuple[tuple[Size, ...], ...]
"""For each axis of the scores the sizes of the parts that it consists of; none for an axis of size 1."""

Runs = tuple[tuple[int, ...], ...]
"""For each axis of the scores which parts make it up, counted through all axes."""

_MOVES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")


def _stages(m: Match, sizes: tuple[Size, ...]) -> list[Layout]:
    """The layouts that the scores have on the way to the values; layouts that are not known are left out."""
    layout: Layout | None = Layout.of(sizes)
    found: list[Layout] = []
    for node in (*m.logits, *m.weights):
        if node.op_type in _MOVES and layout is not None:
            shape = sizes_of(node.outputs[0])
            layout = None if shape is None else layout.reshaped(shape)
            if layout is not None:
                found.append(layout)
    return found


def _parts(sizes: tuple[Size, ...], stages: Sequence[Layout], q: Sequence[Sight]) -> tuple[Divided, int]:
    """What the axes of the scores consist of, so that no stage divides a part; and how many parts are no heads."""
    divided = [
        _cut(size, [d for one in stages for a in one.axes for d in a if d.axis == i]) for i, size in enumerate(sizes)
    ]
    batch = len(sizes) - 2
    if batch != 1:
        return tuple(divided), len(divided[0]) and 1 if batch else 0
    # Batch and heads are folded: by a stage in which they are not, or by what the query is made of.
    if any(len(stage.axes) == 4 for stage in stages):
        alone = any(len(stage.axes) == 4 and not stage.axes[0] for stage in stages)
        return tuple(divided), 0 if alone else min(1, len(divided[0]))
    for sight in q:
        axis, channels = sight.layout.axes[0], sight.layout.axes[-1]
        if axis and channels and axis[-1].axis == channels[0].axis and axis[-1].axis is not None:
            outer = size_of(axis[:-1])
            divided[0] = tuple(size for size in (outer, axis[-1].size) if size != 1)
            return tuple(divided), len(divided[0]) - 1
    return tuple(divided), min(1, len(divided[0]))


def _cut(size: Size, digits: Sequence[Digit]) -> tuple[Size, ...]:
    """Sizes of the parts of an axis, the slowest first, such that every digit consists of whole ones."""
    if size == 1:
        return ()
    cuts = {1}
    outer: Size | None = None
    for digit in digits:
        cuts.add(digit.stride)
        if isinstance(digit.size, int):
            cuts.add(digit.stride * digit.size)
    places = sorted(cuts)
    if isinstance(size, int):
        places = sorted({*places, size})
    else:
        outer = next((d.size for d in digits if d.stride == places[-1] and not isinstance(d.size, int)), size)
        if outer is size and places != [1]:
            return (size,)
    if any(b % a for a, b in itertools.pairwise(places)):
        return (size,)
    inner = tuple(b // a for a, b in itertools.pairwise(places))[::-1]
    return inner if outer is None else (outer, *inner)


def _runs(divided: Divided) -> Runs:
    found: list[tuple[int, ...]] = []
    for axis in divided:
        start = sum(map(len, found))
        found.append(tuple(range(start, start + len(axis))))
    return tuple(found)


def _runs_there(m: Match, layout: Layout, divided: Divided, runs: Runs, rank: int) -> Runs:
    """The parts of the batch's axes where the weights meet the values.

    Raises:
        Refused: Other axes were rearranged than those.
    """
    ends = len(divided) - 2
    if len(layout.axes) != rank or any(digit.axis != ends + i for i in (0, 1) for digit in layout.axes[i - 2]):
        raise Refused("the weights are rearranged before they meet the values", m.context)
    found: list[tuple[int, ...]] = []
    for axis in layout.axes[:-2]:
        parts: list[int] = []
        for digit in axis:
            assert digit.axis is not None
            pieces = refined(digit, divided[digit.axis]) if digit.axis < ends else None
            if pieces is None or any(p.stride != 1 or p.size != divided[digit.axis][n] for n, p in pieces):
                raise Refused("the weights are rearranged before they meet the values", m.context)
            parts += [runs[digit.axis][n] for n, _ in pieces]
        found.append(tuple(parts))
    return tuple(found)


def _with_parts(sight: Sight, parts: Sequence[Size], runs: Sequence[Sequence[int]]) -> Sight | None:
    """The sight with the digits of each part; None where they do not divide so."""
    axes = sight.layout.axes[:-2]
    if len(axes) > len(runs):
        if any(axes[: len(axes) - len(runs)]):
            return None
        axes = axes[len(axes) - len(runs) :]
    axes = ((),) * (len(runs) - len(axes)) + axes
    found: dict[int, Axis] = {}
    for axis, run in zip(axes, runs, strict=True):
        if not axis or len(run) == 1:
            found |= dict.fromkeys(run, axis)
            if len(run) == 0 and axis:
                return None
            continue
        divided = regrouped(axis, [parts[i] for i in run])
        if divided is None:
            return None
        found |= {part: merged(digits) for part, digits in zip(run, divided, strict=True)}
    return replace(sight, batch=tuple(found.get(i, ()) for i in range(len(parts))))


# -- the scores


def _terms(
    m: Match, sizes: tuple[Size, ...], divided: Divided, runs: Runs
) -> tuple[float, tuple[Term, ...], tuple[Term, ...], Layout]:
    """The scale, what is added, other factors, and the layout in which the weights meet the values."""
    scale, terms, gains = 1.0, list[Term](), list[Term]()
    layout = Layout.of(sizes)
    cleaned = any(node is not None for node in m.clean)
    for i, node in enumerate(m.logits):
        if node.op_type == "Tanh":
            raise Refused("the scores are bounded by Tanh before the mask is added; Attention bounds the sum", node)
        if node.op_type in _MOVES:
            layout = _moved(layout, node)
            continue
        number = _number(m.factor[i], m.divisor[i])
        if number != 1.0:
            if not np.isfinite(number) or number == 0:
                raise Refused(f"the scores are multiplied by {number}", node)
            scale *= number
            terms = [replace(t, factor=t.factor * number) if t.fill is None else t for t in terms]
        if m.gain[i] is not None:
            if m.scope.constants.scalar(m.gain[i]) is not None:
                raise Refused(f"{node.op_type} '{node.name}' multiplies the scores by a number", node)
            shape = _aligned(node, m.gain[i], layout, divided, runs)
            if any(size != 1 for size in shape[-len(divided[-1]) :] if divided[-1]) or terms:
                raise Refused(f"{node.op_type} '{node.name}' weights the keys", node)
            gains.append(Term(m.gain[i], 1.0, None, False, shape))
        value = m.term[i] if m.term[i] is not None else m.less[i]
        if value is not None:
            shape = _aligned(node, value, layout, divided, runs)
            sign = 1.0 if m.less[i] is None else -1.0
            chosen = _chosen(m, value) if sign == 1.0 and number == 1.0 else None
            if chosen is not None and (cleaned or np.isfinite(chosen[1])) and m.rank(chosen[0]) == m.rank(value):
                condition, fill, shown, seen = chosen
                terms.append(Term(condition, 1.0, fill, shown, shape, value, (seen,)))
            else:
                terms.append(Term(value, sign, None, False, shape))
        condition = m.hidden[i] if m.hidden[i] is not None else m.shown[i]
        if condition is not None:
            fills = np.unique(np.asarray(m.fill[i].array, np.float64))
            if fills.size != 1 or not fills[0] <= HIDDEN:
                raise Refused(f"{node.op_type} '{node.name}' writes other numbers than one that Softmax makes 0", node)
            if m.fill[i].array.size > 1:
                _aligned(node, m.fill[i].value, layout, divided, runs)
            shape = _aligned(node, condition, layout, divided, runs)
            terms.append(Term(condition, 1.0, float(fills[0]), m.hidden[i] is None, shape))
        if m.wider[i] is not None and ir.DataType(m.wider[i]).itemsize < _width(m):
            raise Refused(f"{node.op_type} '{node.name}' rounds the scores", node)
    if [d.axis for d in layout.axes[-1]] != [d.axis for d in Layout.of(sizes).axes[-1]]:
        raise Refused("Softmax is not over all keys of a query", m.softmax)
    for node in m.weights:
        if node.op_type in _MOVES:
            layout = _moved(layout, node)
    return scale, tuple(terms), tuple(gains), layout


def _width(m: Match) -> float:
    """Bytes of a score as the product gives it."""
    dtype = m.scores.outputs[0].dtype
    return 0 if dtype is None else dtype.itemsize


def _moved(layout: Layout, node: ir.Node) -> Layout:
    shape = sizes_of(node.outputs[0])
    moved = None if shape is None else layout.reshaped(shape)
    if moved is None:
        raise Refused(f"what {node.op_type} '{node.name}' makes of the scores is not known", node)
    return moved


HIDDEN = -1e4
"""What is added to scores, or stands in their place, so that Softmax makes it 0, is at most this."""


def _chosen(m: Match, value: ir.Value) -> tuple[ir.Value, float, bool, ir.Node] | None:
    """The condition of a term that is 0 where it is true (or false) and very low elsewhere, and its node."""
    node = value.producer()
    if node is None or node.op_type != "Where" or node.domain not in ("", "ai.onnx") or node.graph is not m.scope.graph:
        return None
    condition, *numbers = node.inputs
    a, b = (m.scope.constants.scalar(number) for number in numbers)
    if condition is None or a is None or b is None or m.constant(value) is not None:
        return None
    if a == 0 and b <= HIDDEN:
        return condition, float(b), True, node
    return (condition, float(a), False, node) if b == 0 and a <= HIDDEN else None


def _aligned(node: ir.Node, value: ir.Value, layout: Layout, divided: Divided, runs: Runs) -> tuple[Size, ...]:
    """The shape of a term on the parts of the axes of the scores.

    Raises:
        Refused: It does not go with them, or that is not known.
    """
    sizes = sizes_of(value)
    now = layout.sizes
    if sizes is None:
        raise Refused(f"the rank of value '{value.name}' is not known", value)
    if len(sizes) > len(now):
        if any(size != 1 for size in sizes[: len(sizes) - len(now)]):
            raise Refused(f"value '{value.name}' has more axes than the scores", value)
        sizes = sizes[len(sizes) - len(now) :]
    sizes = (1,) * (len(now) - len(sizes)) + sizes
    whole: dict[int, Size] = {}
    for axis, size in zip(layout.axes, sizes, strict=True):
        for digit in axis:
            assert digit.axis is not None
            pieces = refined(digit, divided[digit.axis])
            if pieces is None or any(p.stride != 1 for _, p in pieces):
                raise Refused("the scores are rearranged before a term is added", node)
            for number, piece in pieces:
                alone = len(pieces) == 1 and len(axis) == 1
                whole[runs[digit.axis][number]] = 1 if size == 1 else size if alone else piece.size
        if not axis and size != 1:
            raise Refused(f"value '{value.name}' enlarges the scores", value)
    return tuple(whole.get(i, 1) for i in range(sum(map(len, divided))))


def refined(digit: Digit, parts: Sequence[Size]) -> list[tuple[int, Digit]] | None:
    """A stretch of an axis in terms of the parts that the axis consists of: which part, and its digit in it."""
    found: list[tuple[int, Digit]] = []
    place = 1
    start, end = digit.stride, digit.stride * digit.size if isinstance(digit.size, int) else None
    for number in range(len(parts) - 1, -1, -1):
        size = parts[number]
        if size == 1:
            continue
        stop = place * size if isinstance(size, int) else None
        low = max(start, place)
        if end is None and stop is None:
            if low != place:
                return None
            found.insert(0, (number, Digit(number, 1, size)))
            return found
        high = min(x for x in (end, stop) if x is not None)
        if low < high:
            if low % place or high % low:
                return None
            found.insert(0, (number, Digit(number, low // place, high // low)))
        if stop is None or (end is not None and end <= stop):
            return found
        place = stop
    return found if end is None or end <= place else None


# -- the result


def _merged(
    m: Match, sizes: tuple[Size, ...], parts: tuple[Size, ...], runs: Sequence[Sequence[int]]
) -> tuple[Axis, ...]:
    """The axes of the result, in digits whose `axis` counts the parts, then the queries, then V's channels."""
    layout = through([n.outputs[0] for n in m.merge], m.context.outputs[0], m.version, m.scope.constants)
    if layout is None:
        raise Refused("how the result is put together is not known", m.context)
    found: list[Axis] = []
    for axis in layout.axes:
        digits: list[Digit] = []
        for digit in axis:
            assert digit.axis is not None
            if digit.axis >= len(sizes) - 2:
                digits.append(replace(digit, axis=len(parts) + digit.axis - (len(sizes) - 2)))
                continue
            run = runs[digit.axis]
            pieces = refined(digit, [parts[i] for i in run])
            if pieces is None:
                raise Refused("how the result is put together is not known", m.context)
            digits += [replace(piece, axis=run[number]) for number, piece in pieces]
        found.append(tuple(digits))
    return tuple(found)


def numpy_of(m: Match, dtype: ir.DataType) -> np.dtype[Any]:
    """The numpy dtype.

    Raises:
        Refused: There is none.
    """
    found = numpy_dtype(dtype)
    if found is None:
        raise Refused(f"numpy has no {dtype.name}", m.softmax)
    return found


__all__ = ["Attention", "Sight", "Term", "Unknown", "meaning", "numpy_of", "product", "refined"]
