"""DeformConv in standard operators, in several spellings.

For an output position p, a tap k of the kernel and an offset group o, x is read at p · stride - pad + k · dilation +
offset, between pixels by bilinear interpolation, as zero outside; times the mask, that is the column matrix of a
convolution, which a 1x1 convolution multiplies by the weights. See DeformConv in the ONNX operator specification, and
Dai et al., "Deformable Convolutional Networks", 2017; Zhu et al., "Deformable ConvNets v2", 2019 (the mask).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_rewrite.pattern import op
from onnx_rewrite.plugins.deform_conv import sizes
from onnx_rewrite.plugins.deform_conv.sizes import Size

Array = np.ndarray[Any, np.dtype[Any]]

MARGIN = 2
"""Zeros around x: a position outside reads two of them, whatever lies between."""

FARTHEST = 2.0**22
"""Offsets from here on, in pixels, and NaN count as this one: outside of any image. Whole numbers below stay exact in
float32 when a position is added."""


@dataclass
class Parts:
    """A deformable convolution that is to be written.

    Attributes:
        x: [N, C, H, W].
        weight: [M, C / group, kh, kw]: a value, or an array where it is constant.
        offset: [N, offset_group · kh · kw · 2, oh, ow]; per tap y, then x.
        bias: [M], or None.
        mask: [N, offset_group · kh · kw, oh, ow], or None.
        kernel: kh and kw.
        strides: Along y and x.
        pads: Begin along y and x; the ends follow from the output's size.
        dilations: Along y and x.
        group: A number, or a reference to an attribute.
        offset_group: Groups of channels that are moved together.
        version: Opset of the operators.
        dtype: Of x, or None where it is not known.
    """

    x: ir.Value
    weight: Any
    offset: ir.Value
    bias: Any
    mask: ir.Value | None
    kernel: tuple[Size, Size]
    strides: tuple[Size, Size]
    pads: tuple[Size, Size]
    dilations: tuple[Size, Size]
    group: Any
    offset_group: Size
    version: int
    dtype: ir.DataType | None

    def __post_init__(self) -> None:
        self.batch, self.channels, self.height, self.width = sizes.dims(self.x, 4)
        _, _, self.rows, self.columns = sizes.dims(self.offset, 4)
        self.taps = sizes.times(*self.kernel)
        self.moved = sizes.times(self.batch, self.offset_group)
        self.per_offset_group = sizes.over(self.channels, self.offset_group)

    def number(self, value: Any) -> Any:
        """A constant of x's dtype; where that is not known it is taken from x when the model runs."""
        if self.dtype is not None:
            return np.asarray(value).astype(self.dtype.numpy())
        plain = np.asarray(value, np.float32)
        return op.CastLike(plain, self.x) if self.version >= 15 else plain

    def floats(self, value: Any) -> Any:
        """Integers of the graph, or an array, in x's dtype."""
        if isinstance(value, np.ndarray):
            return self.number(value)
        if self.dtype is not None:
            return op.Cast(value, to=int(self.dtype))
        return op.CastLike(value, self.x) if self.version >= 15 else op.Cast(value, to=int(ir.DataType.FLOAT))

    def places(self, axis: int) -> Any:
        """Where the taps lie along one axis without offsets, int64: [taps, rows, 1] along y, [taps, 1, columns] along
        x.
        """
        count = (self.rows, self.columns)[axis]
        spots = sizes.steps(count, self.strides[axis], _negative(self.pads[axis]))
        taps = sizes.steps(self.kernel[axis], self.dilations[axis], 0)
        taps = sizes.reshaped(taps, *((self.kernel[0], 1, 1, 1) if axis == 0 else (1, self.kernel[1], 1, 1)))
        spots = sizes.reshaped(spots, *((1, 1, count, 1) if axis == 0 else (1, 1, 1, count)))
        both = sizes.added(taps, spots)
        other = (self.kernel[1], 1) if axis == 0 else (self.kernel[0], 0)
        wanted = (1, other[0], 1, 1) if axis == 0 else (other[0], 1, 1, 1)
        known = sizes.shape(*wanted)
        if isinstance(both, np.ndarray) and isinstance(known, tuple):
            both = both + np.zeros(known, np.int64)  # pyright: ignore[reportUnknownArgumentType]
        else:
            both = op.Add(both, _zeros(wanted))
        return sizes.reshaped(both, self.taps, *((count, 1) if axis == 0 else (1, count)))

    def filters(self) -> Any:
        """The weights of the 1x1 convolution: [M, C / group · taps, 1, 1]."""
        if isinstance(self.weight, np.ndarray):
            return self.weight.reshape(len(self.weight), -1, 1, 1)
        return op.Reshape(self.weight, shape=_filter_shape(self.weight))

    def convolved(self, columns: Any) -> Any:
        """The result for columns [N, C · taps, oh, ow], the taps of a channel side by side."""
        narrow = self.dtype == ir.DataType.BFLOAT16 and self.version < 22  # Conv takes it from there on
        if narrow or self.dtype in (None, ir.DataType.DOUBLE):
            return self._multiplied(columns)
        operands = [columns, self.filters()] + ([] if self.bias is None else [self.bias])
        return op.Conv(*operands, group=self.group, kernel_shape=[1, 1])

    def _multiplied(self, columns: Any) -> Any:
        """The same as a matrix product per group: onnxruntime has no convolution of doubles."""
        group: Any = self.group
        if not isinstance(group, int):
            group = op.Reshape(op.Constant(value_int=group), shape=(1,))
        inner = sizes.over(sizes.times(self.channels, self.taps), group)
        area = sizes.times(self.rows, self.columns)
        if isinstance(self.weight, np.ndarray) and isinstance(group, int):
            filters: Any = self.weight.reshape(group, len(self.weight) // group, -1)
        else:
            weight = op.Identity(self.weight) if isinstance(self.weight, np.ndarray) else self.weight
            many = sizes.dims(weight, 4)[0]
            filters = op.Reshape(weight, shape=sizes.shape(group, sizes.over(many, group), inner))
        apart = op.Reshape(columns, shape=sizes.shape(self.batch, group, inner, area))
        found = op.Reshape(
            op.MatMul(filters, apart), shape=sizes.shape(self.batch, self._filters(), self.rows, self.columns)
        )
        if self.bias is None:
            return found
        return op.Add(found, op.Reshape(self.bias, shape=(1, -1, 1, 1)))

    def _filters(self) -> Size:
        if isinstance(self.weight, np.ndarray):
            return len(self.weight)
        return sizes.dims(self.weight, 4)[0]


def _negative(size: Size) -> Size:
    return -size if isinstance(size, int) else op.Neg(size)


def _zeros(wanted: tuple[Size, ...]) -> Any:
    return op.ConstantOfShape(op.Concat(*[sizes.vector(s) for s in wanted], axis=0), value=np.zeros(1, np.int64))


def _filter_shape(weight: ir.Value) -> Any:
    if weight.shape is not None and isinstance(weight.shape[0], int):
        return (weight.shape[0], -1, 1, 1)
    return op.Concat(sizes.item(op.Shape(weight), 0), np.array([-1, 1, 1], np.int64), axis=0)


# -- by gathers


def by_gathers(parts: Parts) -> ir.Value:
    """Reads the four pixels around a position as rows of channels; all that numbers decide is exact.

    The whole part of an offset is added to a position as an integer and the fraction is kept apart, so that halves
    lose nothing of a position. Opset 11.
    """
    index, weights = _corners(parts)
    row = sizes.plus(parts.width, 2 * MARGIN)
    data = _rows_of_channels(parts)
    columns: Any = None
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        away = sizes.plus(sizes.times(down, row) if down else 0, right)
        place = index if away == 0 else op.Add(index, sizes.vector(away))
        read = op.Gather(data, place, axis=0)
        part = op.Mul(read, op.Unsqueeze(weights[down][right], axes=[5]))
        columns = part if columns is None else op.Add(columns, part)
    if parts.mask is not None:  # not into the weights: zeros outside times an infinite mask would be NaN
        grouped = sizes.shape(parts.batch, parts.offset_group, parts.taps, parts.rows, parts.columns, 1)
        columns = op.Mul(columns, op.Reshape(parts.mask, shape=grouped))
    # [N, offset groups, taps, oh, ow, channels] to [N, C · taps, oh, ow]
    channels_first = op.Transpose(columns, perm=[0, 1, 5, 2, 3, 4])
    joined = sizes.shape(parts.batch, sizes.times(parts.channels, parts.taps), parts.rows, parts.columns)
    return parts.convolved(op.Reshape(channels_first, shape=joined))


def _rows_of_channels(parts: Parts) -> Any:
    """X with a margin of zeros, one row per pixel and offset group: [N · og · (H + 4) · (W + 4), C / og]."""
    m = MARGIN
    padded = op.Pad(parts.x, pads=[0, 0, m, m, 0, 0, m, m])
    height, width = sizes.plus(parts.height, 2 * m), sizes.plus(parts.width, 2 * m)
    grouped = sizes.shape(parts.moved, parts.per_offset_group, height, width)
    last = op.Transpose(op.Reshape(padded, shape=grouped), perm=[0, 2, 3, 1])
    rows = sizes.times(parts.moved, sizes.times(height, width))
    return op.Reshape(last, shape=sizes.shape(rows, parts.per_offset_group))


def _corners(parts: Parts) -> tuple[Any, list[list[Any]]]:
    """The row of the pixel up and left of each position, [N, og, taps, oh, ow] of int64, and the four weights."""
    offset = op.Reshape(
        parts.offset,
        shape=sizes.shape(parts.batch, parts.offset_group, parts.taps, 2, parts.rows, parts.columns),
    )
    whole: list[Any] = []
    fractions: list[Any] = []
    offset = _finite(parts, offset)
    for axis, size in enumerate((parts.height, parts.width)):
        moved = op.Gather(offset, np.array(axis, np.int64), axis=3)
        below = op.Floor(moved)
        fractions.append(op.Sub(moved, below))
        place = op.Add(below, parts.floats(parts.places(axis)))
        # Two margins away, the position reads nothing but zeros.
        first, last = parts.number(-MARGIN), _as_number(parts, size)
        inside = op.Clip(place, first, last)
        whole.append(op.Cast(inside, to=int(ir.DataType.INT64)))
    height, width = (sizes.plus(s, 2 * MARGIN) for s in (parts.height, parts.width))
    start = sizes.plus(sizes.times(MARGIN, width), MARGIN)
    begins = sizes.steps(parts.moved, sizes.times(height, width), start)
    begins = sizes.reshaped(begins, parts.batch, parts.offset_group, 1, 1, 1)
    index = op.Add(op.Add(op.Mul(whole[0], sizes.vector(width)), whole[1]), begins)
    one = parts.number(1.0)
    (y, x), (up, left) = fractions, [op.Sub(one, f) for f in fractions]
    return index, [[op.Mul(up, left), op.Mul(up, x)], [op.Mul(y, left), op.Mul(y, x)]]


def _finite(parts: Parts, offset: Any) -> Any:
    """Offsets without infinities and NaN, which lead out of the image."""
    far = parts.number(FARTHEST if parts.dtype != ir.DataType.FLOAT16 else 2.0**14)
    return op.Where(op.Less(op.Abs(offset), far), offset, far)


def _as_number(parts: Parts, size: Size) -> Any:
    """A size as a scalar of x's dtype."""
    return parts.number(size) if isinstance(size, int) else parts.floats(sizes.scalar(size))


# -- by GridSample


def by_grid(parts: Parts) -> ir.Value:
    """One GridSample for all taps, which stand below each other in its output. Opset 16.

    Positions are fractions of x's size there, so they lose log2(size) bits; halves are sampled in float32.
    """
    wide = parts.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    x, offset, kept = parts.x, parts.offset, parts.dtype
    if wide:
        x, offset = (op.Cast(v, to=int(ir.DataType.FLOAT)) for v in (x, offset))
        parts.dtype = ir.DataType.FLOAT
    samples = _sampled(parts, x, offset)
    parts.dtype = kept
    if wide:
        samples = op.Cast(samples, to=int(kept))  # type: ignore[arg-type]
    if parts.mask is not None:
        below = sizes.times(parts.taps, parts.rows)
        mask = op.Reshape(parts.mask, shape=sizes.shape(parts.moved, 1, below, parts.columns))
        samples = op.Mul(samples, mask)
    joined = sizes.shape(parts.batch, sizes.times(parts.channels, parts.taps), parts.rows, parts.columns)
    return parts.convolved(op.Reshape(samples, shape=joined))


def _sampled(parts: Parts, x: Any, offset: Any) -> Any:
    """[N · og, C / og, taps · oh, ow]."""
    offset = _finite(parts, offset)
    apart = sizes.shape(parts.moved, parts.taps, 2, parts.rows, parts.columns)
    # GridSample wants x before y, and both last.
    last = op.Transpose(op.Reshape(offset, shape=apart), perm=[0, 1, 3, 4, 2])
    turned = op.Gather(last, np.array([1, 0], np.int64), axis=4)
    grid = op.Mul(turned, _pair(parts, *(_share(parts, s, 2.0) for s in (parts.width, parts.height)), rank=1))
    for axis, size in ((1, parts.width), (0, parts.height)):
        grid = op.Add(grid, _base(parts, axis, size))
    below = sizes.times(parts.taps, parts.rows)
    grid = op.Reshape(grid, shape=sizes.shape(parts.moved, below, parts.columns, 2))
    grouped = sizes.shape(parts.moved, parts.per_offset_group, parts.height, parts.width)
    mode = "linear" if parts.version >= 20 else "bilinear"
    return op.GridSample(op.Reshape(x, shape=grouped), grid, mode=mode, padding_mode="zeros", align_corners=0)


def _share(parts: Parts, size: Size, factor: float) -> Any:
    """Factor / size, as a vector of one element; an image without pixels counts as one, and reads as zeros."""
    if isinstance(size, int):
        return parts.number([factor / max(size, 1)])
    return op.Div(parts.number([factor]), op.Max(parts.floats(sizes.vector(size)), parts.number([1.0])))


def _base(parts: Parts, axis: int, size: Size) -> Any:
    """What a position without offset is in GridSample's terms, (2 p + 1) / size - 1, beside a zero for the other axis:
    [taps, rows, 1, 2] or [taps, 1, columns, 2].
    """
    places = parts.places(axis)
    if isinstance(places, np.ndarray) and isinstance(size, int):
        found = (2.0 * places + 1.0) / max(size, 1) - 1.0
        both = (np.zeros_like(found), found) if axis == 0 else (found, np.zeros_like(found))
        return parts.number(np.stack(both, axis=-1))
    twice = op.Add(op.Mul(parts.floats(places), parts.number(2.0)), parts.number(1.0))
    found = op.Sub(op.Mul(twice, _share(parts, size, 1.0)), parts.number(1.0))
    found = op.Unsqueeze(found, axes=[3])
    return op.Mul(found, parts.number([0.0, 1.0] if axis == 0 else [1.0, 0.0]))


def _pair(parts: Parts, a: Any, b: Any, *, rank: int) -> Any:
    del parts, rank
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.concatenate([a, b])
    return op.Concat(a, b, axis=0)
