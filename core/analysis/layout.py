"""How a chain of operators that only move elements rearranges a tensor.

An axis of a result is a product of *digits*, as in a mixed radix number: a digit is a stretch of one axis of the
source, with a stride and a size. Reshape regroups digits (and divides them), Transpose permutes axes, Slice, Split and
Gather restrict them, Expand adds digits that stand for nothing. Whatever spelling a chain has, equal digits mean equal
results.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Union

import onnx_ir as ir

from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.opset.view import ABSENT, UNKNOWN, read_parameter

MOVERS = frozenset(
    {"Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators that only move elements; Gather only by constant indices."""


@dataclass(frozen=True)
class Unknown:
    """A size that only shows when the model runs; equal objects are equal sizes.

    Attributes:
        name: A symbol of the model, or something that no other size has.
        over: By how much the size of that name is divided.
    """

    name: object
    over: int = 1


Size = Union[int, Unknown]  # noqa: UP007  (evaluated at run time by Python 3.10)


@dataclass(frozen=True)
class Digit:
    """A stretch of one axis of the source.

    Attributes:
        axis: Of the source; None: the digit repeats what stands there.
        stride: How many elements of that axis one step is.
        size: How many steps there are.
    """

    axis: int | None
    stride: int
    size: Size


Axis = tuple[Digit, ...]
"""The digits of one axis, the slowest first; none: a size of 1."""


@dataclass(frozen=True)
class Layout:
    """A tensor as an arrangement of the elements of another, the source.

    Attributes:
        source: Sizes of the source's axes.
        axes: The tensor's axes.
        starts: For each axis of the source, where the tensor begins in it.
    """

    source: tuple[Size, ...]
    axes: tuple[Axis, ...]
    starts: tuple[int, ...]

    @classmethod
    def of(cls, sizes: Sequence[Size]) -> Layout:
        """A tensor as it is."""
        axes = tuple(() if n == 1 else (Digit(i, 1, n),) for i, n in enumerate(sizes))
        return cls(tuple(sizes), axes, (0,) * len(sizes))

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Sizes of the tensor's axes; a product of several unknown sizes is a size of its own."""
        return tuple(size_of(axis) for axis in self.axes)

    def transposed(self, perm: Sequence[int]) -> Layout:
        """With its axes permuted."""
        return replace(self, axes=tuple(self.axes[i] for i in perm))

    def arranged(self, places: Sequence[int | None]) -> Layout:
        """With its axes in these places; None stands for a new one of size 1."""
        return replace(self, axes=tuple(() if i is None else self.axes[i] for i in places))

    def reshaped(self, sizes: Sequence[Size]) -> Layout | None:
        """With its digits regrouped; None where they do not fit or that is not known."""
        found = regrouped([digit for axis in self.axes for digit in axis], sizes)
        return None if found is None else replace(self, axes=tuple(map(merged, found)))

    def restricted(self, axis: int, start: int, size: int) -> Layout | None:
        """With `size` steps of an axis from `start` on; None where the axis does not divide so."""
        digits = self.axes[axis]
        if not digits:
            return self if (start, size) == (0, 1) else None
        whole = size_of(digits)
        if (start, size) == (0, whole):
            return self
        first, inner = digits[0], size_of(digits[1:])
        if not isinstance(inner, int) or first.axis is None or start % inner or size % inner:
            return None
        steps = size // inner
        kept = () if steps == 1 else (replace(first, size=steps),)
        starts = list(self.starts)
        starts[first.axis] += start // inner * first.stride
        axes = (*self.axes[:axis], merged((*kept, *digits[1:])), *self.axes[axis + 1 :])
        return replace(self, axes=axes, starts=tuple(starts))

    def picked(self, axis: int, index: int) -> Layout | None:
        """Without an axis, at one place of it."""
        size = size_of(self.axes[axis])
        index = index + size if index < 0 and isinstance(size, int) else index
        found = self.restricted(axis, index, 1) if index >= 0 else None
        return None if found is None else replace(found, axes=(*found.axes[:axis], *found.axes[axis + 1 :]))

    def expanded(self, sizes: Sequence[Size]) -> Layout | None:
        """Broadcast to `sizes`."""
        axes: list[Axis] = [()] * (len(sizes) - len(self.axes)) + list(self.axes)
        for i, size in enumerate(sizes):
            if size_of(axes[i]) == size:
                continue
            if axes[i]:
                return None
            axes[i] = (Digit(None, 0, size),)
        return replace(self, axes=tuple(axes))


def size_of(axis: Sequence[Digit]) -> Size:
    """How many steps an axis has."""
    unknown = [digit.size for digit in axis if not isinstance(digit.size, int)]
    known = math.prod(digit.size for digit in axis if isinstance(digit.size, int))
    if not unknown:
        return known
    if len(unknown) == 1:
        one = unknown[0]
        assert isinstance(one, Unknown)
        if known == 1:
            return one
        if one.over % known == 0:
            return replace(one, over=one.over // known)
    return Unknown(tuple(digit.size for digit in axis))


def _beside(outer: Digit, inner: Digit) -> bool:
    """Whether two digits, one after the other, are one."""
    if outer.axis != inner.axis or not isinstance(inner.size, int):
        return False
    return inner.axis is None or outer.stride == inner.stride * inner.size


def merged(axis: Sequence[Digit]) -> Axis:
    """The same axis with as few digits as will do."""
    found: list[Digit] = []
    for digit in axis:
        if digit.size == 1:
            continue
        if found and _beside(found[-1], digit):
            found[-1] = Digit(digit.axis, digit.stride, size_of((found[-1], digit)))
            continue
        found.append(digit)
    return tuple(found)


def divided(digit: Digit, inner: int) -> tuple[Digit, Digit] | None:
    """A digit as two, the inner one of size `inner`; None where it does not divide."""
    if isinstance(digit.size, int):
        if digit.size % inner:
            return None
        outer: Size = digit.size // inner
    else:
        outer = replace(digit.size, over=digit.size.over * inner)
    return Digit(digit.axis, digit.stride * inner, outer), Digit(digit.axis, digit.stride, inner)


def regrouped(digits: Sequence[Digit], sizes: Sequence[Size]) -> list[Axis] | None:
    """Digits put into axes of these sizes, from both ends; None where they do not fit.

    Where several sizes in the middle are not known, and as many digits are left, they are taken to stand for each
    other: a Reshape that kept the number of axes and moved elements between unknown ones would be odd, and the judge
    runs every replacement on unequal sizes.
    """
    left: list[Axis] = []
    right: list[Axis] = []
    rest, dims = list(digits), list(sizes)
    while dims:
        taken = _taken(rest, dims[0], last=False)
        if taken is None:
            break
        left.append(taken[0])
        rest, dims = taken[1], dims[1:]
    while dims:
        taken = _taken(rest, dims[-1], last=True)
        if taken is None:
            break
        right.insert(0, taken[0])
        rest, dims = taken[1], dims[:-1]
    if not dims:
        return [*left, *right] if not rest else None
    if len(dims) == 1:
        known, unknown = dims[0], [d for d in rest if not isinstance(d.size, int)]
        if isinstance(known, int) and not unknown and size_of(rest) != known:
            return None
        return [*left, tuple(rest), *right]
    # Of unknown sizes, some may be 1. Where all that is left are numbers, an unknown shape is fed from outside.
    fed = all(isinstance(digit.size, int) for digit in rest)
    if len(rest) == len(dims) and not fed and not any(isinstance(dim, int) for dim in dims):
        return [*left, *((digit,) for digit in rest), *right]
    return None


def _taken(digits: list[Digit], size: Size, *, last: bool) -> tuple[Axis, list[Digit]] | None:
    """Digits from one end that make up `size`, and what is left; None if that is not known."""
    if size == 1:
        return (), digits
    rest, found = list(digits), list[Digit]()
    if not isinstance(size, int):
        for count in range(1, len(rest) + 1):
            part = rest[-count:] if last else rest[:count]
            if size_of(part) == size:
                return tuple(part), rest[:-count] if last else rest[count:]
        return None
    while size > 1:
        if not rest:
            return None
        digit = rest.pop(-1 if last else 0)
        if isinstance(digit.size, int) and size % digit.size == 0:
            size //= digit.size
        elif isinstance(digit.size, int) or last:
            inner = size if last else (digit.size // size if isinstance(digit.size, int) else 0)
            if isinstance(digit.size, int) and digit.size % size:
                return None
            parts = divided(digit, inner)
            if parts is None:
                return None
            outer, digit_inner = parts
            if last:
                digit = digit_inner
                rest.append(outer)
            else:
                digit = outer
                rest.insert(0, digit_inner)
            size = 1
        else:
            return None
        found.insert(0, digit) if last else found.append(digit)
    return tuple(found), rest


# -- chains of nodes


def sizes_of(value: ir.Value) -> tuple[Size, ...] | None:
    """Sizes of a value's axes; None if not even their number is known, or nothing is in it."""
    if value.shape is None or 0 in value.shape:
        return None
    found: list[Size] = []
    for i, dim in enumerate(value.shape):
        if isinstance(dim, int):
            found.append(dim)
        else:
            found.append(Unknown((id(value), i) if dim.value is None else dim.value))
    return tuple(found)


def moves(value: ir.Value | None, constants: Constants) -> bool:
    """Whether a value is another one of the same graph with its elements moved."""
    node = None if value is None else value.producer()
    if node is None or node.op_type not in MOVERS or node.domain not in ("", "ai.onnx"):
        return False
    first = node.inputs[0] if node.inputs else None
    if first is None or constants.is_constant(first):
        return False
    if node.op_type == "Gather":
        indices = constants.array(node.inputs[1])
        return indices is not None and indices.ndim < 2
    return True


def through(
    chain: Sequence[ir.Value],
    source: ir.Value,
    version: int,
    constants: Constants,
    begin: Layout | None = None,
) -> Layout | None:
    """What a chain of nodes makes of `source`.

    Args:
        chain: The values on the way, each computed by one node from the one before.
        source: Where it begins.
        version: Opset of the standard operators.
        constants: Tells what is constant.
        begin: What `source` is itself an arrangement of; default: of nothing else.

    Returns:
        None where a node moves elements in no way that digits can tell, or sizes are not known.
    """
    sizes = sizes_of(source)
    layout = begin if begin is not None else None if sizes is None else Layout.of(sizes)
    for value in chain:
        if layout is None:
            return None
        layout = _step(layout, value, version, constants)
    return layout


def _step(layout: Layout, value: ir.Value, version: int, constants: Constants) -> Layout | None:
    node, rank = value.producer(), len(layout.axes)
    assert node is not None
    read = node.inputs[0]
    if read is not None and read.shape is not None and len(read.shape) != rank:
        return None  # what stands before it, such as a factor, gave the result another rank

    def parameter(name: str) -> tuple[int, ...] | None:
        found = read_parameter(node, name, version, constants)
        return None if found is ABSENT or found is UNKNOWN else tuple(found)

    if node.op_type == "Identity":
        return layout
    if node.op_type == "Transpose":
        perm = parameter("perm")
        return layout.transposed(perm if perm is not None else range(rank - 1, -1, -1))
    if node.op_type == "Squeeze":
        axes = parameter("axes")
        dropped = {a % rank for a in axes} if axes is not None else {i for i, a in enumerate(layout.axes) if not a}
        return replace(layout, axes=tuple(a for i, a in enumerate(layout.axes) if i not in dropped))
    if node.op_type == "Unsqueeze":
        axes = parameter("axes")
        if axes is None:
            return None
        total = rank + len(axes)
        new, old = {a % total for a in axes}, iter(layout.axes)
        return replace(layout, axes=tuple(() if i in new else next(old) for i in range(total)))
    if node.op_type == "Gather":
        return _gathered(layout, node, constants)
    if node.op_type in ("Slice", "Split"):
        return _restricted(layout, node, value, version, constants)
    sizes = sizes_of(value)
    if sizes is None:
        return None
    return layout.expanded(sizes) if node.op_type == "Expand" else layout.reshaped(sizes)


def _gathered(layout: Layout, node: ir.Node, constants: Constants) -> Layout | None:
    indices = constants.array(node.inputs[1])
    axis = node.attributes.get_int("axis", 0) or 0
    axis %= max(1, len(layout.axes))
    if indices is None or not layout.axes:
        return None
    if indices.ndim == 0:
        return layout.picked(axis, int(indices))
    wanted = [int(i) for i in indices]
    if not wanted or wanted[0] < 0 or wanted != list(range(wanted[0], wanted[0] + len(wanted))):
        return None
    return layout.restricted(axis, wanted[0], len(wanted))


def _restricted(layout: Layout, node: ir.Node, value: ir.Value, version: int, constants: Constants) -> Layout | None:
    if node.op_type == "Split":
        axis = int(read_parameter(node, "axis", version, constants)) % len(layout.axes)
        before = [_size(v, axis) for v in node.outputs[: value.index()]]
        own = _size(value, axis)
        if own is None or any(size is None for size in before):
            return None
        return layout.restricted(axis, sum(size for size in before if size is not None), own)
    read = [read_parameter(node, name, version, constants) for name in ("starts", "ends", "axes", "steps")]
    if any(one is UNKNOWN for one in read) or read[0] is ABSENT or read[1] is ABSENT:
        return None
    starts, ends, axes, steps = read
    axes = range(len(starts)) if axes is ABSENT else axes
    if steps is not ABSENT and any(step != 1 for step in steps):
        return None
    found: Layout | None = layout
    for axis, start, end in zip(axes, starts, ends, strict=True):
        if found is None:
            return None
        size = size_of(found.axes[axis % len(found.axes)])
        if not isinstance(size, int):
            if start == 0 and end >= 1 << 31:
                continue
            if start < 0 or end < 0 or end >= 1 << 31:
                return None
            size = end  # a larger end would be no restriction, and onnx's inference would say so
        first, last = (min(max(i + size if i < 0 else i, 0), size) for i in (start, end))
        if last <= first:
            return None
        found = found.restricted(axis % len(found.axes), first, last - first)
    return found


def _size(value: ir.Value, axis: int) -> int | None:
    dim = None if value.shape is None else value.shape[axis]
    return dim if isinstance(dim, int) else None
