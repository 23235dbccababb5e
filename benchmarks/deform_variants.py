"""Other ways to write a deformable convolution in standard operators, to find the one that an engine runs fastest.

Each takes the `Parts` of a convolution of known sizes (one group) and returns its result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_rewrite.pattern import op
from onnx_rewrite.plugins.deform_conv import decompose
from onnx_rewrite.plugins.deform_conv.decompose import MARGIN, Parts

Variant = Callable[[Parts], Any]


def grid(parts: Parts) -> Any:
    """One GridSample for all taps, 1x1 convolution."""
    return decompose.by_grid(parts)


def gather(parts: Parts) -> Any:
    """Rows of channels by four gathers, back to channels first, 1x1 convolution."""
    return decompose.by_gathers(parts)


def grid_matmul(parts: Parts) -> Any:
    """One GridSample, and MatMul in the place of the convolution."""
    p = parts
    samples = _masked(p, decompose._sampled(p, p.x, p.offset))
    columns = op.Reshape(samples, shape=(p.batch, p.channels * p.taps, p.rows * p.columns))
    product = op.MatMul(p.weight.reshape(len(p.weight), -1), columns)
    product = product if p.bias is None else op.Add(product, _bias(p).reshape(-1, 1))
    return op.Reshape(product, shape=(p.batch, len(p.weight), p.rows, p.columns))


def grid_taps(parts: Parts) -> Any:
    """A GridSample and a 1x1 convolution for each tap, summed."""
    p = parts
    samples = _masked(
        p,
        decompose._sampled(
            p,
            p.x,
            p.offset,
        ),
        split=True,
    )
    total: Any = None
    for tap in range(p.taps):
        part = op.Conv(*_operands(p, samples[tap], tap), kernel_shape=[1, 1])
        total = part if total is None else op.Add(total, part)
    return total


def _operands(p: Parts, columns: Any, tap: int) -> list[Any]:
    weights = np.ascontiguousarray(p.weight.reshape(len(p.weight), p.channels, -1)[:, :, tap]).reshape(
        -1, p.channels, 1, 1
    )
    return [columns, weights] + ([p.bias] if tap == 0 and p.bias is not None else [])


def _masked(p: Parts, samples: Any, split: bool = False) -> Any:
    if p.mask is not None:
        mask = op.Reshape(p.mask, shape=(p.moved, 1, p.taps * p.rows, p.columns))
        samples = op.Mul(samples, mask)
    if not split:
        return samples
    apart = op.Reshape(samples, shape=(p.batch, p.channels, p.taps, p.rows, p.columns))
    return [op.Gather(apart, np.array(tap, np.int64), axis=2) for tap in range(p.taps)]


def grid_each(parts: Parts) -> Any:
    """Nine small GridSamples, each masked and convolved on its own, summed."""
    p = parts
    grid = _grid(p)  # [moved, taps, rows, columns, 2]
    x = op.Reshape(p.x, shape=(p.moved, p.per_offset_group, p.height, p.width))
    mask = None if p.mask is None else op.Reshape(p.mask, shape=(p.moved, p.taps, p.rows, p.columns))
    total: Any = None
    for tap in range(p.taps):
        here = op.Gather(grid, np.array(tap, np.int64), axis=1)
        read = op.GridSample(x, here, mode="bilinear", padding_mode="zeros", align_corners=0)
        if mask is not None:
            read = op.Mul(read, op.Gather(mask, np.array([tap], np.int64), axis=1))
        columns = op.Reshape(read, shape=(p.batch, p.channels, p.rows, p.columns))
        part = op.Conv(*_operands(p, columns, tap), kernel_shape=[1, 1])
        total = part if total is None else op.Add(total, part)
    return total


def _grid(p: Parts) -> Any:
    offset = decompose._finite(p, p.offset)
    apart = op.Reshape(offset, shape=(p.moved, p.taps, 2, p.rows, p.columns))
    last = op.Transpose(apart, perm=[0, 1, 3, 4, 2])
    turned = op.Gather(last, np.array([1, 0], np.int64), axis=4)
    grid = op.Mul(turned, p.number([2.0 / p.width, 2.0 / p.height]))
    for axis, size in ((1, p.width), (0, p.height)):
        grid = op.Add(grid, decompose._base(p, axis, size))
    return grid


# -- channels last


def gather_matmul(parts: Parts) -> Any:
    """Rows of channels by four gathers, and MatMul over rows; only the result is transposed."""
    index, weights = _corners_last(parts)
    return _multiplied(parts, _interpolated(parts, _data(parts), index, weights, _mask_last(parts)))


def gather_pairs(parts: Parts) -> Any:
    """The same with two gathers of rows that hold two neighbours each."""
    p = parts
    data = _data(p)
    row = p.width + 2 * MARGIN
    rows = p.batch * p.offset_group * (p.height + 2 * MARGIN) * row
    # Row r holds r and r + 1; the last one's neighbour is never read with a weight.
    shifted = op.Concat(
        op.Slice(data, starts=[p.offset_group], ends=[rows], axes=[0]),
        op.Slice(data, starts=[0], ends=[p.offset_group], axes=[0]),
        axis=0,
    )
    both = op.Concat(data, shifted, axis=1)  # [rows, 2 C / og]
    index, weights = _corners_last(p)
    columns: Any = None
    shape = (p.batch * p.rows * p.columns, p.taps * p.offset_group, 2, p.per_offset_group)
    for down in (0, 1):
        place = index if down == 0 else op.Add(index, np.array([row], np.int64))
        read = op.Reshape(op.Gather(both, place, axis=0), shape=shape)
        factors = op.Concat(*[op.Unsqueeze(w, axes=[2]) for w in weights[down]], axis=2)
        part = op.Mul(read, op.Unsqueeze(factors, axes=[3]))
        columns = part if columns is None else op.Add(columns, part)
    columns = op.ReduceSum(columns, axes=[2], keepdims=0)
    mask = _mask_last(p)
    columns = columns if mask is None else op.Mul(columns, mask)
    return _multiplied(p, columns)


def gather_taps(parts: Parts) -> Any:
    """Tap by tap: four gathers, and a MatMul whose result is added up."""
    p = parts
    data = _data(p)
    index, weights = _corners_last(p)
    index = op.Reshape(index, shape=(p.batch * p.rows * p.columns, p.taps, p.offset_group))
    weights = [
        [op.Reshape(w, shape=(p.batch * p.rows * p.columns, p.taps, p.offset_group)) for w in row] for row in weights
    ]
    mask = _mask_last(p)
    mask = None if mask is None else op.Reshape(mask, shape=(p.batch * p.rows * p.columns, p.taps, p.offset_group, 1))
    filters = _filters_last(p).reshape(p.taps, p.channels, -1)
    total: Any = None
    for tap in range(p.taps):
        here = np.array(tap, np.int64)
        factors = [[op.Gather(w, here, axis=1) for w in row] for row in weights]
        factor = None if mask is None else op.Gather(mask, here, axis=1)
        columns = _interpolated(p, data, op.Gather(index, here, axis=1), factors, factor)
        columns = op.Reshape(columns, shape=(p.batch * p.rows * p.columns, p.channels))
        part = op.MatMul(columns, np.ascontiguousarray(filters[tap]))
        total = part if total is None else op.Add(total, part)
    return _finished(p, total)


def gather_conv_last(parts: Parts) -> Any:
    """Rows of channels by four gathers, transposed as [N, rows, taps · C], 1x1 convolution."""
    p = parts
    index, weights = _corners_last(p)
    columns = _interpolated(p, _data(p), index, weights, _mask_last(p))
    columns = op.Reshape(columns, shape=(p.batch, p.rows, p.columns, p.taps * p.channels))
    columns = op.Transpose(columns, perm=[0, 3, 1, 2])
    filters = np.ascontiguousarray(_filters_last(p).T).reshape(-1, p.taps * p.channels, 1, 1)
    return op.Conv(*[columns, filters, *([] if p.bias is None else [p.bias])], kernel_shape=[1, 1])


def _data(p: Parts) -> Any:
    """[N · (H + 4) · (W + 4) · og, C / og]: channels last as they lie, offset groups side by side."""
    m = MARGIN
    padded = op.Pad(p.x, pads=[0, 0, m, m, 0, 0, m, m])
    last = op.Transpose(padded, perm=[0, 2, 3, 1])
    rows = p.batch * (p.height + 2 * m) * (p.width + 2 * m) * p.offset_group
    return op.Reshape(last, shape=(rows, p.per_offset_group))


def _corners_last(p: Parts) -> tuple[Any, list[list[Any]]]:
    """Rows and weights as [N · oh · ow, taps · og]."""
    apart = (p.batch, p.offset_group, p.taps, 2, p.rows, p.columns)
    offset = op.Transpose(op.Reshape(decompose._finite(p, p.offset), shape=apart), perm=[0, 4, 5, 2, 1, 3])
    whole, fractions = [], []
    for axis, size in enumerate((p.height, p.width)):
        moved = op.Gather(offset, np.array(axis, np.int64), axis=5)
        below = op.Floor(moved)
        fractions.append(op.Sub(moved, below))
        places = np.moveaxis(p.places(axis), 0, -1)[None, :, :, :, None]
        inside = op.Clip(op.Add(below, p.number(places)), p.number(-MARGIN), p.number(size))
        whole.append(op.Cast(inside, to=int(ir.DataType.INT64)))
    width = p.width + 2 * MARGIN
    area = (p.height + 2 * MARGIN) * width
    start = (np.arange(p.batch) * area + MARGIN * width + MARGIN).reshape(-1, 1, 1, 1, 1)
    index = op.Add(op.Add(op.Mul(whole[0], np.array([width], np.int64)), whole[1]), start)
    if p.offset_group > 1:
        index = op.Add(op.Mul(index, np.array([p.offset_group], np.int64)), np.arange(p.offset_group))
    flat = (p.batch * p.rows * p.columns, p.taps * p.offset_group)
    (y, x), (up, left) = fractions, [op.Sub(p.number(1.0), f) for f in fractions]
    weights = [[op.Mul(up, left), op.Mul(up, x)], [op.Mul(y, left), op.Mul(y, x)]]
    return op.Reshape(index, shape=flat), [[op.Reshape(w, shape=flat) for w in row] for row in weights]


def _mask_last(p: Parts) -> Any:
    """[N · oh · ow, taps · og, 1], or None."""
    if p.mask is None:
        return None
    mask = op.Reshape(p.mask, shape=(p.batch, p.offset_group, p.taps, p.rows, p.columns))
    mask = op.Transpose(mask, perm=[0, 3, 4, 2, 1])
    return op.Reshape(mask, shape=(p.batch * p.rows * p.columns, p.taps * p.offset_group, 1))


def _interpolated(p: Parts, data: Any, index: Any, weights: Any, mask: Any) -> Any:
    row = (p.width + 2 * MARGIN) * p.offset_group
    columns: Any = None
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        away = down * row + right * p.offset_group
        place = index if away == 0 else op.Add(index, np.array([away], np.int64))
        part = op.Mul(op.Gather(data, place, axis=0), op.Unsqueeze(weights[down][right], axes=[2]))
        columns = part if columns is None else op.Add(columns, part)
    return columns if mask is None else op.Mul(columns, mask)


def _filters_last(p: Parts) -> Any:
    """[taps · C, M]."""
    m = len(p.weight)
    return np.ascontiguousarray(p.weight.reshape(m, p.channels, p.taps).transpose(2, 1, 0).reshape(-1, m))


def _multiplied(p: Parts, columns: Any) -> Any:
    flat = op.Reshape(columns, shape=(p.batch * p.rows * p.columns, p.taps * p.channels))
    return _finished(p, op.MatMul(flat, _filters_last(p)))


def _finished(p: Parts, product: Any) -> Any:
    product = product if p.bias is None else op.Add(product, _bias(p))
    last = op.Reshape(product, shape=(p.batch, p.rows, p.columns, len(p.weight)))
    return op.Transpose(last, perm=[0, 3, 1, 2])


def _bias(p: Parts) -> Any:
    return p.bias if isinstance(p.bias, np.ndarray) else p.bias.const_value.numpy()


VARIANTS: dict[str, Variant] = {
    "grid": grid,
    "grid-matmul": grid_matmul,
    "grid-taps": grid_taps,
    "grid-each": grid_each,
    "gather": gather,
    "gather-matmul": gather_matmul,
    "gather-conv": gather_conv_last,
    "gather-pairs": gather_pairs,
    "gather-taps": gather_taps,
}
