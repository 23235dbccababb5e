"""What may stand where a pattern looks through moves of elements (`view`): ways to a shape, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onnx_rewrite.testing.tape import Tape

Shape = tuple[int, ...]
Move = tuple[str, dict[str, Any]]
"""An operator and its parameters; `at` of a Gather is the index, `to` of an Expand the shape."""

Way = tuple[Shape, list[Move]]


def way_to(shape: Shape, tape: Tape) -> Way:
    """A shape, and the moves that make this one of it."""
    if not shape:
        return shape, []
    return tape.one(_WAYS)(shape, tape)


def way_from(shape: Shape, ranks: Shape, tape: Tape) -> list[Move]:
    """Moves that lead to another shape of one of these ranks."""
    if len(shape) < 2:
        return []
    if len(shape) + 1 in ranks and tape.chance(30):
        axis = tape.below(len(shape))
        outer = next((n for n in (2, 3) if shape[axis] % n == 0), 1)
        return [("Reshape", {"shape": (*shape[:axis], outer, shape[axis] // outer, *shape[axis + 1 :])})]
    return [("Transpose", {"perm": tuple(tape.order(len(shape)))})]


def _transposed(shape: Shape, tape: Tape) -> Way:
    perm = tape.order(len(shape))
    before = [0] * len(shape)
    for place, axis in enumerate(perm):
        before[axis] = shape[place]
    return tuple(before), [("Transpose", {"perm": tuple(perm)})]


def _divided(shape: Shape, tape: Tape) -> Way:
    """Two neighbouring axes were one."""
    if len(shape) < 2:
        return shape, []
    axis = tape.below(len(shape) - 1)
    before = (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
    return before, [("Reshape", {"shape": shape})]


def _joined(shape: Shape, tape: Tape) -> Way:
    """An axis was two."""
    axis = tape.below(len(shape))
    outer = next((n for n in (2, 3, 5) if shape[axis] % n == 0), 1)
    before = (*shape[:axis], outer, shape[axis] // outer, *shape[axis + 1 :])
    return before, [("Reshape", {"shape": shape})]


def _split_heads(shape: Shape, tape: Tape) -> Way:
    """As heads are made: the last axis divided, its parts brought to the front."""
    if len(shape) < 3:
        return _divided(shape, tape)
    *batch, heads, rows, channels = shape
    between = (*batch, rows, heads, channels)
    rank = len(shape)
    perm = (*range(rank - 3), rank - 2, rank - 3, rank - 1)
    return (*batch, rows, heads * channels), [("Reshape", {"shape": between}), ("Transpose", {"perm": perm})]


def _chosen(shape: Shape, tape: Tape) -> Way:
    """One of a stack of several."""
    axis, count = tape.below(len(shape) + 1), 2 + tape.below(2)
    before = (*shape[:axis], count, *shape[axis:])
    index = tape.below(count)
    if tape.chance(50):
        return before, [("Gather", {"axis": axis, "at": index})]
    return before, [_sliced(axis, index, index + 1), ("Squeeze", {"axes": (axis,)})]


def _cut(shape: Shape, tape: Tape) -> Way:
    """A part of a longer axis."""
    axis, count = tape.below(len(shape)), 2 + tape.below(2)
    start = shape[axis] * tape.below(count)
    before = (*shape[:axis], shape[axis] * count, *shape[axis + 1 :])
    return before, [_sliced(axis, start, start + shape[axis])]


def _repeated(shape: Shape, tape: Tape) -> Way:
    """Heads that several others share: each repeated in its place (or, rarely, all of them in turn)."""
    if len(shape) < 3:
        return shape, []
    axis = tape.below(len(shape) - 2)
    times = next((n for n in (2, 3, 5) if shape[axis] % n == 0), 1)
    own, after = shape[axis] // times, shape[axis + 1 :]
    place = axis if tape.chance(25) else axis + 1
    wide = (*shape[:axis], times, own, *after) if place == axis else (*shape[:axis], own, times, *after)
    steps: list[Move] = [("Unsqueeze", {"axes": (place,)}), ("Expand", {"to": wide}), ("Reshape", {"shape": shape})]
    return (*shape[:axis], own, *after), steps


def _sliced(axis: int, start: int, end: int) -> Move:
    return "Slice", {"starts": (start,), "ends": (end,), "axes": (axis,)}


_WAYS: tuple[Callable[[Shape, Tape], Way], ...] = (
    _transposed,
    _split_heads,
    _divided,
    _repeated,
    _chosen,
    _joined,
    _cut,
)
