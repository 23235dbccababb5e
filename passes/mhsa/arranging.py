"""Writes a layout with as few nodes as it takes: Slice, Reshape, Gather, Transpose, Reshape, in this order."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnx_rewrite.analysis.layout import Axis, Digit, Layout, Size, merged, size_of
from onnx_rewrite.pattern import op


@dataclass(frozen=True)
class Recipe:
    """The nodes that make a tensor from its source.

    Attributes:
        slices: Axis, start and end of what is kept.
        divided: Shape in which every token has an axis, or None: it has that already.
        picks: Axis and index, of axes that are dropped.
        perm: Permutation, or None.
        joined: Shape at last, or None.
    """

    slices: tuple[tuple[int, int, int], ...] = ()
    divided: tuple[int, ...] | None = None
    picks: tuple[tuple[int, int], ...] = ()
    perm: tuple[int, ...] | None = None
    joined: tuple[int, ...] | None = None

    @property
    def cost(self) -> int:
        """How many nodes it takes."""
        return (
            bool(self.slices)
            + len(self.picks)
            + sum(step is not None for step in (self.divided, self.perm, self.joined))
        )

    def applied(self, value: Any) -> Any:
        """Records the nodes."""
        if self.slices:
            axes, starts, ends = (list(column) for column in zip(*self.slices, strict=True))
            value = op.Slice(value, starts=starts, ends=ends, axes=axes)
        if self.divided is not None:
            value = op.Reshape(value, shape=self.divided)
        for axis, index in self.picks:
            value = op.Gather(value, np.asarray(index, np.int64), axis=axis)
        if self.perm is not None:
            value = op.Transpose(value, perm=self.perm)
        if self.joined is not None:
            value = op.Reshape(value, shape=self.joined)
        return value


def arranged(layout: Layout, groups: Sequence[Axis]) -> Recipe | None:
    """How to make a tensor whose axes are these groups of the source's digits; None where Reshape cannot say it.

    A Reshape copies the sizes that are not known by their place, and may infer one more.
    """
    flat = [digit for group in groups for digit in merged(group)]
    if any(digit.axis is None for digit in flat):
        return None
    slices: list[tuple[int, int, int]] = []
    pieces: list[list[Digit | tuple[int, int]]] = []  # a tuple: size and index of what is picked
    sizes: list[Size] = []
    for axis, size in enumerate(layout.source):
        found = _pieces(sorted((d for d in flat if d.axis == axis), key=lambda d: -d.stride), size, layout.starts[axis])
        if found is None:
            return None
        kept, window = found
        if window is not None:
            slices.append((axis, *window))
            size = window[1] - window[0]
        pieces.append(kept)
        sizes.append(size)
    beside = {pair for group in groups for pair in itertools.pairwise(merged(group))}
    tokens, one = _tokens(pieces, beside)
    shape1 = [_token_size(t) for t in tokens]
    divided = None
    if shape1 != sizes:
        spec = _spec(shape1, sizes)
        if spec is None:
            return None
        divided = spec
    picks: list[tuple[int, int]] = []
    left: list[Any] = []
    for token in tokens:
        if isinstance(token, tuple):
            picks.append((len(left), token[1]))
        else:
            left.append(token)
    order: list[int] = []
    spare = [i for i, token in enumerate(left) if token is one]
    ends: list[int] = []
    for group in groups:
        wanted = merged(group)
        runs = _runs(wanted, left)
        if not wanted and spare:
            runs = [spare.pop(0)]
        order += runs
        ends.append(len(runs))
    order += spare
    perm = None if order == list(range(len(order))) else tuple(order)
    joined = None
    if spare or any(count != 1 for count in ends):
        before = [_token_size(left[i]) for i in order]
        joined = _spec([size_of(group) for group in groups], before)
        if joined is None:
            return None
    if perm is not None and _only_ones_move(perm, left):
        # What moves is an axis of size 1: one Reshape does it.
        target = _spec([size_of(group) for group in groups], [_token_size(t) for t in left])
        if target is not None:
            perm, joined = None, target
    if divided is not None and joined is not None and perm is None and not picks:
        both = _spec([size_of(group) for group in groups], sizes)
        if both is not None:
            divided, joined = None, both
    if perm is None and not picks and [size_of(group) for group in groups] == sizes:
        divided = joined = None
    return Recipe(tuple(slices), divided, tuple(picks), perm, joined)


def _pieces(
    digits: list[Digit], size: Size, start: int
) -> tuple[list[Digit | tuple[int, int]], tuple[int, int] | None] | None:
    """An axis of the source divided, the slowest first, and the window of it that is needed (None: all)."""
    if not isinstance(size, int):
        whole = size_of(digits)
        good = whole == size and start == 0 and _dense(digits)
        return (list(digits), None) if good else None
    if not digits:
        return ([], None) if size == 1 else ([], (start, start + 1))
    if any(not isinstance(digit.size, int) for digit in digits):
        return None
    if _dense(digits):
        total = size_of(digits)
        assert isinstance(total, int)
        return list(digits), None if total == size else (start, start + total)
    found: list[Digit | tuple[int, int]] = []
    place = 1
    for digit in reversed(digits):
        if digit.stride % place:
            return None
        gap = digit.stride // place
        if gap > 1:
            found.insert(0, (gap, start // place % gap))
        found.insert(0, digit)
        assert isinstance(digit.size, int)
        place = digit.stride * digit.size
    if size % place:
        return None
    if size // place > 1:
        found.insert(0, (size // place, start // place))
    return found, None


def _dense(digits: Sequence[Digit]) -> bool:
    place = 1
    for number, digit in enumerate(reversed(digits)):
        if digit.stride != place:
            return False
        if not isinstance(digit.size, int):
            return number == len(digits) - 1
        place *= digit.size
    return True


_ONE = Digit(None, 0, 1)


def _tokens(
    pieces: Sequence[Sequence[Digit | tuple[int, int]]], pairs: set[tuple[Digit, Digit]]
) -> tuple[list[Any], Digit]:
    """Axes of the source, divided no further than the result needs; an axis of size 1 stands for itself."""
    tokens: list[Any] = []
    for axis in pieces:
        if not axis:
            tokens.append(_ONE)
        run: list[Digit] = []
        for piece in axis:
            if isinstance(piece, tuple):
                if run:
                    tokens.append(run)
                run = []
                tokens.append(piece)
                continue
            if run and (run[-1], piece) not in pairs:
                tokens.append(run)
                run = []
            run.append(piece)
        if run:
            tokens.append(run)
    return tokens, _ONE


def _token_size(token: Any) -> Size:
    if isinstance(token, Digit):
        return 1
    if isinstance(token, tuple):
        return token[0]
    return size_of(token)


def _runs(wanted: Axis, tokens: Sequence[Any]) -> list[int]:
    places: list[int] = []
    for digit in wanted:
        place = next(i for i, t in enumerate(tokens) if isinstance(t, list) and digit in t)
        if place not in places:
            places.append(place)
    return places


def _only_ones_move(perm: Sequence[int], tokens: Sequence[Any]) -> bool:
    moving = [i for i in perm if _token_size(tokens[i]) != 1]
    return moving == sorted(moving)


def _spec(sizes: Sequence[Size], before: Sequence[Size]) -> tuple[int, ...] | None:
    """The shape that a Reshape is given; 0 copies a size from its place."""
    found: list[int] = []
    for place, size in enumerate(sizes):
        if isinstance(size, int):
            found.append(size)
        elif place < len(before) and before[place] == size:
            found.append(0)
        elif -1 in found:
            return None
        else:
            found.append(-1)
    return tuple(found)


def windows(operands: Sequence[tuple[Any, Layout]]) -> tuple[int, list[int]] | None:
    """Where several tensors are adjacent parts of one axis of one value, in this order: the axis and their sizes."""
    first = operands[0][0]
    if len(operands) < 2 or any(value is not first for value, _ in operands):
        return None
    source = operands[0][1].source
    for axis, size in enumerate(source):
        parts: list[int] = []
        place = 0
        for _, layout in operands:
            digits = sorted((d for a in layout.axes for d in a if d.axis == axis), key=lambda d: -d.stride)
            part = size_of(digits)
            if not isinstance(part, int) or not _dense(digits) or layout.starts[axis] != place:
                break
            parts.append(part)
            place += part
        else:
            if place == size and len(parts) == len(operands):
                return axis, parts
    return None


def within(layout: Layout, axis: int, size: int) -> Layout:
    """The layout, for a source that was cut down to the part of an axis that it needs."""
    source = (*layout.source[:axis], size, *layout.source[axis + 1 :])
    starts = (*layout.starts[:axis], 0, *layout.starts[axis + 1 :])
    return replace(layout, source=source, starts=starts)
