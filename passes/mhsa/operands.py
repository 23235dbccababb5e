"""Q, K, V and the result of an attention in the shapes that a replacement wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnx_rewrite.analysis.layout import Axis, Digit, Layout, Size
from onnx_rewrite.match import Match
from onnx_rewrite.passes.mhsa.arranging import Recipe, arranged, windows, within
from onnx_rewrite.passes.mhsa.attention import Attention, Sight, product
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
