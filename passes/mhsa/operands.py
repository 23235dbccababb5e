"""Q, K, V, the mask and the result of an attention in the shapes that a replacement wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_rewrite.analysis.layout import MOVERS, Axis, Digit, Layout, Size, sizes_of
from onnx_rewrite.match import Constant, Match, Refused
from onnx_rewrite.passes.mhsa.arranging import Recipe, arranged, windows, within
from onnx_rewrite.passes.mhsa.meaning import HIDDEN, Attention, Sight, Term, numpy_of, product, refined
from onnx_rewrite.pattern import op

Groups = Callable[[Attention, Sight], "list[Axis] | None"]
"""The axes that an operand is to have; None where it cannot."""


@dataclass(frozen=True)
class Operand:
    """A sight and how to make an operand of it."""

    sight: Sight
    recipe: Recipe


def axes4(attention: Attention, sight: Sight) -> list[Axis]:
    """Batch, heads, sequence, channels."""
    batch, heads = sight.batch[: attention.split], sight.batch[attention.split :]
    return [_joined(batch), _joined(heads), sight.sequence, sight.channels]


def axes3(attention: Attention, sight: Sight) -> list[Axis]:
    """Batch, sequence, heads by channels."""
    batch, heads, sequence, channels = axes4(attention, sight)
    return [batch, sequence, (*heads, *channels)]


def keys_across(attention: Attention, sight: Sight) -> list[Axis]:
    """Batch, heads, channels, sequence."""
    batch, heads, sequence, channels = axes4(attention, sight)
    return [batch, heads, channels, sequence]


def _joined(axes: Sequence[Axis]) -> Axis:
    return tuple(digit for axis in axes for digit in axis)


def shared(axis: Axis) -> Axis:
    """Digits without those at the end that only repeat: heads of keys that several heads of queries share."""
    while axis and axis[-1].axis is None:
        axis = axis[:-1]
    return axis


def seen(attention: Attention, sights: Sequence[Sight], groups: Groups, *, far: bool) -> Operand | None:
    """The operand, seen from as far or as near as its arrangement can be said from; None if it cannot.

    Args:
        attention: What it is for.
        sights: The nearest first.
        groups: The axes that it must have.
        far: Whether from far; all that lies between goes then.
    """
    ordered = list(reversed(sights) if far else sights)
    for sight in sorted(ordered, key=lambda sight: sight.partial):
        axes = groups(attention, sight)
        recipe = None if axes is None else arranged(sight.layout, axes)
        if recipe is not None:
            return Operand(sight, recipe)
    return None


def see(m: Match, attention: Attention, operands: Sequence[Operand]) -> None:
    """Takes into the match the nodes between the operands and where they are seen from."""
    m.look_through(seen_nodes(attention, operands))


def seen_nodes(attention: Attention, operands: Sequence[Operand]) -> list[ir.Node]:
    """The nodes between what a replacement reads and the products of the attention."""
    steps = [node for operand in operands for node in operand.sight.steps]
    return [*steps, *(node for term in attention.terms for node in term.steps)]


def made(
    operands: Sequence[Operand], ways: Groups | Sequence[Groups], attention: Attention, *, stacked: bool = False
) -> list[ir.Value]:
    """Records the nodes of several operands; adjacent parts of one value come from one Split.

    Args:
        operands: Q, K and V.
        ways: The axes of all of them, or of each.
        attention: What they are for.
        stacked: Whether parts of one value are cut out of a stack: one Reshape and one Transpose for all, then a
            Gather for each.
    """
    each = list(ways) if isinstance(ways, Sequence) else [ways] * len(operands)
    parts = windows([(o.sight.value, o.sight.layout) for o in operands])
    if parts is None or any(not o.recipe.slices for o in operands):
        return [o.recipe.applied(o.sight.value) for o in operands]
    axis, sizes = parts
    found = _stacked(operands, each, attention, axis, sizes) if stacked else None
    return found or _split(operands, each, attention, axis, sizes)


def _split(
    operands: Sequence[Operand], ways: Sequence[Groups], attention: Attention, axis: int, sizes: list[int]
) -> list[ir.Value]:
    recipes: list[Recipe] = []
    for operand, way, size in zip(operands, ways, sizes, strict=True):
        sight = replace(operand.sight, layout=within(operand.sight.layout, axis, size))
        axes = way(attention, sight)
        recipe = None if axes is None else arranged(sight.layout, axes)
        if recipe is None:
            return [o.recipe.applied(o.sight.value) for o in operands]
        recipes.append(recipe)
    pieces = op.Split(operands[0].sight.value, axis=axis, split=sizes, outputs=len(sizes))
    return [recipe.applied(piece) for recipe, piece in zip(recipes, pieces, strict=True)]


def _stacked(
    operands: Sequence[Operand], ways: Sequence[Groups], attention: Attention, axis: int, sizes: list[int]
) -> list[ir.Value] | None:
    first = operands[0]
    if len(set(sizes)) != 1 or any(o.sight.sequence != first.sight.sequence for o in operands):
        return None
    # The digits of the whole stack: a new one, of as many steps as there are operands, before those of the first.
    stack: Axis = (Digit(axis, sizes[0], len(sizes)),)
    axes = ways[0](attention, first.sight)
    if axes is None or any(way(attention, first.sight) != axes for way in ways[2:]):
        return None
    recipe = arranged(replace(first.sight.layout, starts=(0,) * len(first.sight.layout.starts)), [stack, *axes])
    if recipe is None or recipe.slices:
        return None
    whole = recipe.applied(first.sight.value)
    found: list[ir.Value] = []
    for number, way in enumerate(ways):
        value = op.Gather(whole, np.asarray(number, np.int64), axis=0)
        own = way(attention, first.sight)
        if own != axes:  # Kᵀ
            order = [axes.index(group) for group in own or []]
            value = op.Transpose(value, perm=order)
        found.append(value)
    return found


def parted(attention: Attention, term: Term) -> Attention:
    """The attention with one of its terms."""
    return replace(attention, terms=(term,))


# -- what is added to the scores


def check_terms(m: Match, attention: Attention) -> None:
    """Terms must be of a kind that can be added up in one tensor.

    Raises:
        Refused: One is not.
    """
    for term in (*attention.terms, *attention.gains):
        if term.fill is None and term.value.dtype is None:
            raise Refused(f"the element type of value '{term.value.name}' is not known", term.value)
    attention = coarse(attention)
    for term in (*attention.terms, *attention.gains):
        if array_of(m, term) is None:
            _shape_of(m, term)
    shape = mask_shape(attention)
    if shape is not None:
        grouped(attention, _spread(attention, shape))


def coarse(attention: Attention) -> Attention:
    """The attention with terms of four axes, where no term varies along a part of one of these only."""
    sizes = (*attention.parts, *attention.rows, *attention.columns)
    for term in (*attention.terms, *attention.gains):
        for group in attention.groups:
            own = term.shape[group]
            if any(size != 1 for size in own) and own != sizes[group]:
                return attention
    if len(sizes) == 4 and all(sizes[group] for group in attention.groups):
        return attention
    terms, gains = (
        tuple(replace(term, shape=grouped(attention, term.shape)) for term in given)
        for given in (attention.terms, attention.gains)
    )
    parts = (product(attention.parts[: attention.split]), product(attention.parts[attention.split :]))
    rows, columns = (attention.queries,), (attention.keys,)
    return replace(attention, parts=parts, split=1, rows=rows, columns=columns, terms=terms, gains=gains)


def mask_shape(attention: Attention) -> tuple[Size, ...] | None:
    """The shape of the sum of all terms on the parts of the scores, or None if there are none."""
    return _common(attention.terms)


def _common(terms: Sequence[Term]) -> tuple[Size, ...] | None:
    if not terms:
        return None
    return tuple(
        next((size for size in column if size != 1), 1) for column in zip(*(t.shape for t in terms), strict=True)
    )


def grouped(attention: Attention, shape: tuple[Size, ...]) -> tuple[Size, Size, Size, Size]:
    """A shape on batch, heads, queries and keys."""
    batch, heads, queries, keys = (product(shape[group]) for group in attention.groups)
    return batch, heads, queries, keys


def last_axes(attention: Attention) -> tuple[Size, Size] | None:
    """The sizes of a mask for queries and keys."""
    shape = mask_shape(attention)
    return None if shape is None else grouped(attention, _spread(attention, shape))[2:]


LOW = -1e30
"""What hides a score where it is added: far below every score, and far above the lowest number, which onnxruntime's
Attention takes for minus infinity even where a whole row has it."""

LOW_IN_HALF = -65504.0


def plainly(attention: Attention) -> Attention:
    """The same attention, its terms as the graph has them: conditions that were seen behind them are left alone."""
    terms = (
        term if term.given is None else replace(term, value=term.given, fill=None, given=None, steps=())
        for term in attention.terms
    )
    return replace(attention, terms=tuple(terms))


def mask(m: Match, attention: Attention, dtype: ir.DataType, *, clamped: bool = True) -> Any:
    """All terms added up, of rank 4; None if there are none.

    Args:
        m: The match.
        attention: What it means.
        dtype: Of the result.
        clamped: Whether nothing in it may be lower than `LOW`, minus infinity apart.
    """
    attention = coarse(attention)
    shape = mask_shape(attention)
    if shape is None:
        return None
    constants = [t for t in attention.terms if array_of(m, t) is not None]
    others = [t for t in attention.terms if array_of(m, t) is None]
    target = numpy_of(m, dtype)
    total: Any = None
    if constants:
        with np.errstate(all="ignore"):
            added = np.asarray(sum((_as_array(m, t, target) for t in constants), np.zeros((), np.float64)))
        limit = -low(target) if clamped else float(np.finfo(np.float64).max)
        added = np.where(np.isinf(added), added, np.clip(added, -limit, limit))
        total = added.astype(target)
        if not others:
            full = _spread(attention, tuple(int(n) for n in total.shape))
            return np.ascontiguousarray(np.broadcast_to(total, _ints(full)).reshape(_ints(grouped(attention, full))))
    value: Any = None
    for term in others:
        one = _as_value(m, term, dtype, target)
        value = one if value is None else op.Add(value, one)
    if total is not None:
        value = op.Add(value, total)
    if clamped and any(t.fill is None and not tame(m, t.value) for t in others):
        value = op.Max(value, np.asarray(low(target), target))
    return _regrouped(attention, value, shape)


def low(dtype: np.dtype[Any]) -> float:
    """The number that hides a score."""
    return LOW_IN_HALF if dtype == np.float16 else LOW


def tame(m: Match, value: ir.Value | None) -> bool:
    """Whether a value is no mask: a table of numbers, looked up, that are not very low."""
    while value is not None:
        array = m.constant(value)
        if array is not None:
            return bool(array.size < 1 << 20 and np.all(array > HIDDEN))
        node = value.producer()
        if node is not None and node.op_type in ("Add", "Max", "Where"):
            return _bounded(m, node)
        if node is None or node.op_type not in (*MOVERS, "Gather", "Mul"):
            return False
        if node.op_type == "Mul":
            return all(tame(m, v) for v in node.inputs)
        value = node.inputs[0]
    return False


def _bounded(m: Match, node: ir.Node) -> bool:
    """Whether what a node gives is kept above `LOW`, as this pass itself leaves a mask."""
    least = 1.01 * LOW
    if node.op_type == "Max":
        numbers = [m.scope.constants.scalar(value) for value in node.inputs]
        return any(number is not None and number >= least for number in numbers)
    if node.op_type == "Where":
        numbers = [m.scope.constants.scalar(value) for value in node.inputs[1:]]
        return all(number is not None and number >= least for number in numbers)
    return all(tame(m, value) for value in node.inputs)


def finite(m: Match, term: Term) -> bool:
    """Whether what a term adds is a constant, or a table that is looked up: never very low by computation."""
    return array_of(m, term) is not None or tame(m, term.value)


def endless(m: Match, term: Term) -> bool:
    """Whether minus infinity may be among what a term adds."""
    if term.fill is not None:
        return bool(np.isinf(term.fill))
    array = array_of(m, term)
    node = None if array is not None else term.value.producer()
    if node is not None and node.op_type == "Where":
        numbers = [m.scope.constants.scalar(value) for value in node.inputs[1:]]
        if all(number is not None and np.isfinite(number) for number in numbers):
            return False
    return not tame(m, term.value) if array is None else bool(np.isinf(array).any())


def _ints(sizes: Sequence[Size]) -> tuple[int, ...]:
    return tuple(size for size in sizes if isinstance(size, int))


def array_of(m: Match, term: Term) -> np.ndarray[Any, np.dtype[Any]] | None:
    """The elements of a term that is constant."""
    value = term.value.value if isinstance(term.value, Constant) else term.value
    return m.constant(value)


def _spread(attention: Attention, shape: tuple[Size, ...]) -> tuple[Size, ...]:
    """A shape in which parts that become one axis are all there, or none of them."""
    sizes = (*attention.parts, *attention.rows, *attention.columns)
    full: list[Size] = []
    for group in attention.groups:
        own = shape[group]
        full += sizes[group] if any(size != 1 for size in own) and len(own) > 1 else own
    return tuple(full)


def _as_array(m: Match, term: Term, dtype: np.dtype[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    array = array_of(m, term)
    assert array is not None
    shape = tuple(int(s) if isinstance(s, int) else -1 for s in term.shape)
    array = array.reshape(shape)
    if term.fill is None:
        return array.astype(np.float64) * term.factor
    hidden = ~array.astype(bool) if term.shown else array.astype(bool)
    return np.where(hidden, filling(term, dtype), 0.0)


def filling(term: Term, dtype: np.dtype[Any]) -> float:
    """The number that stands for "hidden" where it is added: so low that all hidden ones are equal."""
    assert term.fill is not None
    return term.fill if np.isinf(term.fill) else low(dtype)


def _as_value(m: Match, term: Term, dtype: ir.DataType, target: np.dtype[Any]) -> Any:
    value = term.value
    if term.fill is not None:
        low, zero = np.asarray(filling(term, target), target), np.asarray(0, target)
        value = op.Where(value, *((zero, low) if term.shown else (low, zero)))
    elif value.dtype != dtype:
        value = op.Cast(value, to=dtype)
    if term.factor != 1.0:
        value = op.Mul(value, np.asarray(term.factor, target))
    return _axes_of(m, term, value)


def _axes_of(m: Match, term: Term, value: Any) -> Any:
    """With one axis for each part of the scores."""
    have, wanted = _sizes_of(term), term.shape
    missing = len(wanted) - len(have)
    if missing > 0 and wanted == (1,) * missing + have:
        return op.Unsqueeze(value, axes=list(range(missing)))
    shape = _shape_of(m, term)
    return value if shape is None else op.Reshape(value, shape=shape)


def _sizes_of(term: Term) -> tuple[Size, ...]:
    return sizes_of(term.value.value if isinstance(term.value, Constant) else term.value) or ()


def _shape_of(m: Match, term: Term) -> list[int] | None:
    """The shape that a Reshape gives a term, None if it has it; a 0 copies a size from its place.

    Raises:
        Refused: More than one size is not known.
    """
    have, wanted = _sizes_of(term), term.shape
    if wanted[len(wanted) - len(have) :] == have and all(size == 1 for size in wanted[: len(wanted) - len(have)]):
        return None
    if len(have) == len(wanted) and all(a == b or not isinstance(b, int) for a, b in zip(have, wanted, strict=True)):
        return None
    spelt: list[int] = []
    for place, size in enumerate(wanted):
        if isinstance(size, int):
            spelt.append(size)
        elif place < len(have) and have[place] == size:
            spelt.append(0)
        else:
            spelt.append(-1)
    if spelt.count(-1) > 1:
        raise Refused("a term has more than one size that is not known", m.softmax)
    return spelt


def _regrouped(attention: Attention, value: Any, shape: tuple[Size, ...]) -> Any:
    """A sum of terms with an axis each for batch, heads, queries and keys."""
    full = _spread(attention, shape)
    if full != shape:
        if any(not isinstance(size, int) for size in full):
            raise Refused("a mask of sizes that are not known would be repeated")
        value = op.Expand(value, np.asarray(full, np.int64))
    target = grouped(attention, full)
    if full == target:
        return value
    missing = [i for i, group in enumerate(attention.groups) if len(full[group]) == 0]
    if len(full) + len(missing) == 4:
        return op.Unsqueeze(value, axes=missing)
    spelt = [size if isinstance(size, int) else -1 for size in target]
    if spelt.count(-1) > 1:
        raise Refused("a mask has more than one size that is not known")
    return op.Reshape(value, shape=spelt)


def gained(m: Match, attention: Attention, q: Any) -> Any:
    """Q of rank 4, multiplied by what the scores are multiplied by other than by a number."""
    for gain in attention.gains:
        one = replace(attention, terms=(gain,))
        q = op.Mul(q, mask(m, one, attention.dtype, clamped=False))
    return q


# -- the result


def merge(attention: Attention, sizes: Sequence[Size], places: Sequence[Sequence[int]]) -> Recipe | None:
    """How the result is made of a tensor.

    Args:
        attention: Says what the result is.
        sizes: Of the tensor's axes.
        places: For each of the tensor's axes the dimensions that it consists of, the slowest first; dimensions count
            the parts of the batch, then the queries, then V's channels.
    """
    dims = (*attention.parts, attention.queries, attention.channels)
    where: dict[int, tuple[int, Size]] = {}
    for axis, dimensions in enumerate(places):
        inner: Size = 1
        for dimension in reversed(dimensions):
            where[dimension] = (axis, inner)
            inner = product([dims[dimension], inner])
    axes: list[Axis] = []
    for group in attention.merged:
        digits: list[Digit] = []
        for digit in group:
            assert digit.axis is not None
            axis, inner = where[digit.axis]
            if not isinstance(inner, int):
                return None
            digits.append(Digit(axis, digit.stride * inner, digit.size))
        axes.append(tuple(digits))
    return arranged(Layout(tuple(sizes), tuple(axes), (0,) * len(sizes)), axes)


__all__ = [
    "Operand",
    "axes3",
    "axes4",
    "check_terms",
    "grouped",
    "keys_across",
    "last_axes",
    "made",
    "mask",
    "merge",
    "parted",
    "plainly",
    "refined",
    "see",
    "seen",
    "seen_nodes",
    "shared",
]
