"""What is added to the scores, in one tensor of rank 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_rewrite.analysis.layout import MOVERS, Size, sizes_of
from onnx_rewrite.match import Constant, Match, Refused
from onnx_rewrite.passes.mhsa.attention import Attention, Term, product
from onnx_rewrite.passes.mhsa.meaning import check_number, numpy_of
from onnx_rewrite.passes.mhsa.scores import HIDDEN
from onnx_rewrite.pattern import op


def parted(attention: Attention, term: Term) -> Attention:
    """The attention with one of its terms."""
    return replace(attention, terms=(term,))


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
            check_number(m, term.factor, numpy_of(m, attention.dtype), f"'{term.value.name}' is multiplied")
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
            if len(own) > 1 and any(size != 1 for size in own) and own != sizes[group]:
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


def nowhere(total: Any, dtype: np.dtype[Any]) -> Any:
    """Records where a row of a mask is minus infinity throughout, [..., queries, 1]."""
    # IsInf takes no 16-bit floats below opset 20.
    lowest = np.finfo(dtype).min if dtype != "bfloat16" else np.float32(-3.3895314e38)
    return op.Less(op.ReduceMax(total, axes=[-1], keepdims=1), np.asarray(lowest, dtype))


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
