"""Operators that read an image between its pixels."""

from __future__ import annotations

import numpy as np

from onnx_rewrite.verify.dtypes import Array
from onnx_rewrite.verify.kernels import Node, kernel
from onnx_rewrite.verify.kernels.conv import positions, window


def bilinear(x: Array, at_y: Array, at_x: Array) -> Array:
    """X [N, C, H, W] at positions [N, ...] in pixels, zero outside -> [N, C, ...].

    A pixel outside is never read: what is not finite in x does not come in from there.
    """
    n, c, height, width = x.shape
    shape = at_y.shape[1:]
    y, z = at_y.reshape(n, -1), at_x.reshape(n, -1)
    with np.errstate(invalid="ignore"):
        inside = (y >= -1) & (y < height) & (z >= -1) & (z < width)
    y, z = np.where(inside, y, 0.0), np.where(inside, z, 0.0)
    top, left = np.floor(y).astype(np.int64), np.floor(z).astype(np.int64)
    flat = x.reshape(n, c, height * width)
    out = np.zeros((n, c, y.shape[1]))
    for row, weight_y in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, weight_x in ((left, 1 - (z - left)), (left + 1, z - left)):
            there = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            place = np.where(there, row * width + column, 0)
            if flat.shape[2]:
                read = np.take_along_axis(flat, place[:, None, :], axis=2)
                out += np.where(there[:, None, :], read * (weight_y * weight_x)[:, None, :], 0.0)
    return out.reshape(n, c, *shape)


@kernel("DeformConv")
def deform_conv(node: Node, x: Array, w: Array, offset: Array, b: Array | None = None, mask: Array | None = None
                ) -> Array:  # fmt: skip
    """X [N, C, H, W], w [M, C/group, kh, kw], offset [N, og·kh·kw·2, oh, ow] -> [N, M, oh, ow]."""
    if x.ndim != 4:
        return NotImplemented
    group, moved = node.get("group", 1), node.get("offset_group", 1)
    kernel_shape = w.shape[2:]
    strides, dilations, pads, _ = window(node, x.shape[2:], kernel_shape)
    n, c = x.shape[:2]
    rows, columns = offset.shape[2:]
    taps = len(list(positions(kernel_shape)))
    apart = offset.reshape(n, moved, taps, 2, rows, columns)
    base_y = (np.arange(rows) * strides[0] - pads[0][0])[:, None]
    base_x = np.arange(columns) * strides[1] - pads[1][0]
    factors = None if mask is None else mask.reshape(n, moved, taps, rows, columns)
    images = x.reshape(n * moved, c // moved, *x.shape[2:])
    m = w.shape[0]
    out = np.zeros((n, m, rows, columns))
    for tap, (i, j) in enumerate(positions(kernel_shape)):
        at_y = apart[:, :, tap, 0] + base_y + i * dilations[0]
        at_x = apart[:, :, tap, 1] + base_x + j * dilations[1]
        read = bilinear(images, at_y.reshape(n * moved, rows, columns), at_x.reshape(n * moved, rows, columns))
        if factors is not None:
            read = read * factors[:, :, tap].reshape(n * moved, 1, rows, columns)
        per_group = read.reshape(n, group, c // group, rows * columns)
        weights = w[:, :, i, j].reshape(group, m // group, c // group)
        out += np.matmul(weights, per_group).reshape(n, m, rows, columns)
    return out if b is None else out + b.reshape(-1, 1, 1)


@kernel("GridSample")
def grid_sample(node: Node, x: Array, grid: Array) -> Array:
    """X [N, C, H, W], grid [N, oh, ow, 2] with x before y in [-1, 1] -> [N, C, oh, ow]."""
    mode, padding = node.get("mode", "linear"), node.get("padding_mode", "zeros")
    if x.ndim != 4 or mode not in ("bilinear", "linear") or padding != "zeros":
        return NotImplemented
    height, width = x.shape[2:]
    if node.get("align_corners", 0):
        at_x, at_y = ((grid[..., axis] + 1) / 2 * (size - 1) for axis, size in enumerate((width, height)))
    else:
        at_x, at_y = (((grid[..., axis] + 1) * size - 1) / 2 for axis, size in enumerate((width, height)))
    return bilinear(x, at_y, at_x)
