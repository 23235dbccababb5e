"""What a match means."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_rewrite.analysis.dtypes import FLOATS, numpy_dtype
from onnx_rewrite.analysis.layout import (
    MOVERS,
    Axis,
    Digit,
    Layout,
    Size,
    merged,
    regrouped,
    size_of,
    sizes_of,
    through,
)
from onnx_rewrite.analysis.product import Places, Product, product_of
from onnx_rewrite.match import Match, Refused
from onnx_rewrite.passes.mhsa.attention import Attention, Sight
from onnx_rewrite.passes.mhsa.scores import MOVES, Divided, Runs, logits_of, number_of, refined
from onnx_rewrite.passes.mhsa.spelling import MOST_MOVES


def meaning(m: Match) -> Attention:
    """What the match means.

    Raises:
        Refused: It is no attention, or too little is known of it.
    """
    dtype, softmax_dtype = _dtypes(m)
    scores, context = m.scores.outputs[0], m.context.outputs[0]
    first = _product(m.scores)
    sizes = first.stacked(_sizes(scores))
    if len(sizes) < 2 or any(m.rank(value) in (None, 0, 1) for value in m.context.inputs):
        raise Refused("the scores, the weights or the values are no matrices", scores)
    for operand, called in ((m.k, "keys"), (m.v, "values")):
        if m.constant(operand) is not None:
            raise Refused(f"the {called} are constant: this is a classifier or a table, not an attention", operand)
    for operand in (first.left, first.right, *m.context.inputs):
        _refuse_poisoned(m, operand)
    factors = number_of(m.q_factor, m.q_divisor), number_of(m.k_factor, m.k_divisor)
    q = _sights(m, "q", first.left, m.q_above, m.q_below, factors[0], first.left_axes)
    k = _sights(m, "k", first.right, m.k_above, m.k_below, factors[1], first.right_axes, transposed=True)
    stages = _stages(m, first.result(sizes))
    divided, split = _parts(sizes, stages, q)
    runs = _runs(divided)
    parts = tuple(size for axis in divided[:-2] for size in axis)
    logits = logits_of(m, first.result(sizes), divided, runs)
    second, layout = _weighted(m, logits.layout)
    v = _sights(m, "v", second.right, m.v_steps, (), 1.0, second.right_axes)
    context_sizes = second.stacked(_sizes(context))
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
        scale=logits.scale,
        softcap=logits.softcap,
        terms=logits.terms,
        gains=logits.gains,
        cleaned=any(node is not None for node in m.clean),
        merged=_merged(m, second.result(context_sizes), parts, there, sizes[-2]),
        channels=context_sizes[-1],
    )


def _product(node: ir.Node, row: int | None = None) -> Product:
    found = product_of(node, row)
    assert found is not None  # the pattern says so
    return found


def _weighted(m: Match, layout: Layout) -> tuple[Product, Layout]:
    """The product of weights and values, and the layout of its stack of weights; `layout` is that of the weights."""
    if m.turned is None:
        queries = [i for i, axis in enumerate(layout.axes) if axis and axis[0].axis == len(layout.source) - 2]
        found = _product(m.context, queries[-1] if queries else None)
        rank = m.rank(found.left)
    else:
        flipped = _product(m.context).flipped()
        if flipped is None:
            raise Refused("the rank of the weights or of the values is not known", m.context)
        found, rank = flipped, len(m.turn)
    if rank != len(layout.axes):
        raise Refused("what the scores are combined with gives them another rank, or theirs is not known", m.context)
    if m.turned is not None:
        layout = layout.transposed(m.turn)
    return found, layout if found.left_axes is None else layout.arranged(found.left_axes)


ROOM = 100
"""Numbers of usual size, multiplied by more than this part of the largest number of their type, pass it."""


def _refuse_poisoned(m: Match, value: ir.Value) -> None:
    """Raises Refused where a value is infinite or NaN by its making, or nearly: what comes of it is nobody's wish."""
    node = value.producer()
    for _ in range(MOST_MOVES):
        if node is None or node.op_type not in MOVERS or not node.inputs or node.inputs[0] is None:
            break
        node = node.inputs[0].producer()
    if node is not None and node.op_type in ("Div", "Mul"):
        most = float(np.finfo(np.float16 if value.dtype == ir.DataType.FLOAT16 else np.float32).max) / ROOM
        most = float(np.finfo(np.float64).max) / ROOM if value.dtype == ir.DataType.DOUBLE else most
        for place, number in enumerate(map(m.scope.constants.scalar, node.inputs)):
            if number is None:
                continue
            divides = node.op_type == "Div" and place == 1
            factor = abs(1.0 / number if divides and number else np.inf if divides else number)
            if not factor <= most:
                raise Refused(f"{node.op_type} '{node.name}' leaves numbers no room in their type", node)


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
    m: Match,
    name: str,
    operand: ir.Value,
    above: Any,
    below: Any,
    number: float,
    places: Places | None,
    *,
    transposed: bool = False,
) -> list[Sight]:
    """From where an operand of a product, whose axes stand in `places`, can be seen, the nearest first."""
    source: ir.Value = getattr(m, name)
    scaled = above is not None
    if not np.isfinite(number) or number == 0:
        raise Refused(f"value '{source.name}' is multiplied by {number}", source)
    far = [source, *(above or ())] if scaled else [source, *below]
    tail = list(below) if scaled else []
    ways: list[tuple[ir.Value, list[ir.Value], float, bool]] = []
    for i, value in enumerate(far):
        ways.append((value, far[i + 1 :] + tail, number, False))
    if scaled:  # the product itself, where what it is made of cannot be told
        near = below[0].producer().inputs[0] if below else operand
        ways += [(value, list(below[i:]), 1.0, True) for i, value in enumerate([near, *below])]
    found: list[Sight] = []
    for value, chain, absorbed, partial in reversed(ways):
        layout = through(chain, value, m.version, m.scope.constants)
        if layout is None or len(layout.axes) < 2:
            continue
        if m.rank(operand) not in (None, len(layout.axes)):  # what it is scaled by gives it another rank
            continue
        if places is not None:
            layout = layout.arranged(places)
        if transposed:
            layout = replace(layout, axes=(*layout.axes[:-2], layout.axes[-1], layout.axes[-2]))
        steps = tuple(node for step in chain if (node := step.producer()) is not None)
        found.append(Sight(value, layout, (), absorbed, steps, partial))
    return found


def _stages(m: Match, begin: Layout) -> list[Layout]:
    """The layouts that the scores have on the way to the values; layouts that are not known are left out."""
    layout: Layout | None = begin
    found: list[Layout] = []
    for node in (*m.logits, *m.weights):
        if node.op_type in MOVES and layout is not None:
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


# -- the result


def _merged(
    m: Match, begin: Layout, parts: tuple[Size, ...], runs: Sequence[Sequence[int]], queries: Size
) -> tuple[Axis, ...]:
    """The axes of the result, in digits whose `axis` counts the parts, then the queries, then V's channels."""
    layout = through([n.outputs[0] for n in m.merge], m.context.outputs[0], m.version, m.scope.constants, begin)
    if layout is None or (m.merge and m.rank(m.merge[-1].outputs[0]) is None):
        raise Refused("how the result is put together is not known", m.context)
    found: list[Axis] = []
    for axis in layout.axes:
        digits: list[Digit] = []
        for digit in axis:
            assert digit.axis is not None
            if digit.axis >= len(begin.source) - 2:
                place = digit.axis - (len(begin.source) - 2)
                # The scores may call the number of queries by another name.
                size = queries if place == 0 and digit.size == begin.source[-2] else digit.size
                digits.append(replace(digit, axis=len(parts) + place, size=size))
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


def check_number(m: Match, number: float, dtype: np.dtype[Any], role: str) -> None:
    """Raises Refused where a number that is made of several of the graph's is none of `dtype` with all its digits."""
    if dtype.kind != "f":  # bfloat16 has the range of float32, and numpy's limits do not know it
        dtype = np.dtype(np.float32)
    limits = np.finfo(dtype)
    if not float(limits.tiny) <= abs(number) <= float(limits.max):
        raise Refused(f"{role} by {number:g}, which is out of the range of {dtype.name}", m.scores)
