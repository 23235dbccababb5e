"""The way of the scores to Softmax: what they are multiplied by, what is added, how they are rearranged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnx_rewrite.analysis.layout import Digit, Layout, Size, sizes_of
from onnx_rewrite.match import Match, Refused
from onnx_rewrite.passes.mhsa.attention import Term

Divided = tuple[tuple[Size, ...], ...]
"""For each axis of the scores the sizes of the parts that it consists of; none for an axis of size 1."""

Runs = tuple[tuple[int, ...], ...]
"""For each axis of the scores which parts make it up, counted through all axes."""

MOVES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")


def number_of(factor: float | None, divisor: float | None) -> float:
    """The number by which a step multiplies; 1 where it does not."""
    if factor is not None:
        return float(factor)
    return 1.0 if divisor is None else 1.0 / divisor if divisor else float("nan")


@dataclass(frozen=True)
class Logits:
    """What Softmax is given, in terms of the products of queries and keys.

    Attributes:
        scale: Of the products.
        softcap: The scaled products are bounded to softcap · tanh(products · scale / softcap); 0: they are not.
        terms: What is added after that.
        gains: Other factors of the products than numbers.
        layout: In which the weights meet the values, on [batch..., queries, keys].
    """

    scale: float
    softcap: float
    terms: tuple[Term, ...]
    gains: tuple[Term, ...]
    layout: Layout


def logits_of(m: Match, begin: Layout, divided: Divided, runs: Runs) -> Logits:
    """The way of the scores to Softmax; `begin` is their layout, on [batch..., queries, keys].

    Raises:
        Refused: It is none that Attention goes, or too little is known of it.
    """
    scale, bounded, terms, gains = 1.0, False, list[Term](), list[Term]()
    beyond = 1.0  # what the scores are multiplied by after Tanh
    layout = begin
    own = {node.outputs[0] for node in (m.scores, *m.logits)}
    cleaned = any(node is not None for node in m.clean)
    for i, node in enumerate(m.logits):
        if node.op_type == "Tanh":
            if bounded or terms:
                raise Refused("Tanh bounds the scores after a term is added; Attention adds it after", node)
            bounded = True
            continue
        if node.op_type in MOVES:
            layout = _moved(layout, node)
            continue
        number = number_of(m.factor[i], m.divisor[i])
        if number != 1.0:
            if not np.isfinite(number) or number == 0:
                raise Refused(f"the scores are multiplied by {number}", node)
            if bounded:
                beyond *= number
            else:
                scale *= number
            terms = [replace(t, factor=t.factor * number) if t.fill is None else t for t in terms]
        if m.gain[i] is not None:
            if m.scope.constants.scalar(m.gain[i]) is not None:
                raise Refused(f"{node.op_type} '{node.name}' multiplies the scores by a number", node)
            shape = _aligned(node, m.gain[i], layout, divided, runs)
            if any(size != 1 for size in shape[-len(divided[-1]) :] if divided[-1]) or terms or bounded:
                raise Refused(f"{node.op_type} '{node.name}' weights the keys", node)
            gains.append(Term(m.gain[i], 1.0, None, False, shape))
        value = m.term[i] if m.term[i] is not None else m.less[i]
        if value in own or m.gain[i] in own:
            raise Refused(f"{node.op_type} '{node.name}' combines the scores with themselves", node)
        if value is not None:
            shape = _aligned(node, value, layout, divided, runs)
            sign = 1.0 if m.less[i] is None else -1.0
            given, steps = _before_own_shape(m, value)
            chosen = _chosen(m, value) if sign == 1.0 and number == 1.0 else None
            if chosen is not None and (cleaned or np.isfinite(chosen[1])) and m.rank(chosen[0]) == m.rank(value):
                condition, fill, shown, seen = chosen
                terms.append(Term(condition, 1.0, fill, shown, shape, value, (seen,)))
            else:
                terms.append(Term(given, sign, None, False, shape, None, steps))
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
    if [d.axis for d in layout.axes[-1]] != [d.axis for d in Layout.of(begin.source).axes[-1]]:
        raise Refused("Softmax is not over all keys of a query", m.softmax)
    for node in m.weights:
        if node.op_type in MOVES:
            layout = _moved(layout, node)
    if bounded and not (beyond > 0 and math.isfinite(beyond)):
        raise Refused(f"what Tanh bounds is multiplied by {beyond:g}", m.softmax)
    return Logits(scale * beyond, beyond if bounded else 0.0, tuple(terms), tuple(gains), layout)


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


MOST_ASKED = 32
"""So many nodes compute a shape at most."""

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


def _before_own_shape(m: Match, value: ir.Value) -> tuple[ir.Value, tuple[ir.Node, ...]]:
    """A term before it is brought to the shape of the scores, which are gone afterwards; and the node that does it."""
    node = value.producer()
    if node is None or node.op_type != "Reshape" or node.graph is not m.scope.graph or node.inputs[0] is None:
        return value, ()
    own = {v for one in m.private_nodes for v in one.outputs}
    waiting, seen = list(node.inputs[1:]), set[ir.Node]()
    while waiting:
        part = waiting.pop()
        asked = None if part is None else part.producer()
        if asked is None or asked in seen or len(seen) == MOST_ASKED:
            continue
        seen.add(asked)
        if asked.op_type != "Shape":
            waiting += asked.inputs
        elif asked.inputs[0] in own:
            return node.inputs[0], (node,)
    return value, ()


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
