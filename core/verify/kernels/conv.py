"""Convolutions of any rank, as matrix products over a few kernel positions at a time, so memory stays small."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from onnx_rewrite.verify.dtypes import Array
from onnx_rewrite.verify.kernels import Node, kernel

# Rows of the right-hand side of one product, and how many numbers it may have (64 MiB of float64).
_DEPTH, _ROOM = 512, 1 << 23


def window(node: Node, spatial: Sequence[int], kernel_shape: Sequence[int], *, ceil: bool = False
           ) -> tuple[list[int], list[int], list[tuple[int, int]], list[int]]:  # fmt: skip
    """Strides, dilations, (begin, end) padding and output sizes of a sliding window, auto_pad resolved.

    Raises:
        CannotEvaluate: auto_pad is none of the four of the specification.
    """
    rank = len(spatial)
    strides = list(node.get("strides") or [1] * rank)
    dilations = list(node.get("dilations") or [1] * rank)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel_shape, dilations, strict=True)]
    auto = node.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        sizes = [-(-n // s) for n, s in zip(spatial, strides, strict=True)]
        pads: list[tuple[int, int]] = []
        for n, s, r, out in zip(spatial, strides, reach, sizes, strict=True):
            whole = max(0, (out - 1) * s + r - n)
            small = whole // 2
            pads.append((small, whole - small) if auto == "SAME_UPPER" else (whole - small, small))
        return strides, dilations, pads, sizes
    if auto not in ("NOTSET", "VALID", ""):
        raise node.fail(f"auto_pad is {auto!r}")
    given = [0] * (2 * rank) if auto == "VALID" else list(node.get("pads") or [0] * (2 * rank))
    pads = [(given[i], given[i + rank]) for i in range(rank)]
    sizes = []
    for n, s, r, (begin, end) in zip(spatial, strides, reach, pads, strict=True):
        room = n + begin + end - r
        out = (-(-room // s) if ceil else room // s) + 1
        # A window that ceil_mode adds must begin inside the input or its left padding.
        sizes.append(out - 1 if ceil and (out - 1) * s >= n + begin else out)
    return strides, dilations, pads, sizes


def positions(kernel_shape: Sequence[int]) -> itertools.product[tuple[int, ...]]:
    """Every offset of a kernel."""
    return itertools.product(*(range(k) for k in kernel_shape))


def strided(
    offset: Sequence[int], strides: Sequence[int], dilations: Sequence[int], sizes: Sequence[int]
) -> tuple[slice, ...]:
    """The elements of the padded input that a kernel offset sees, two leading axes kept."""
    spans = (
        slice(o * d, o * d + (n - 1) * s + 1, s) for o, d, s, n in zip(offset, dilations, strides, sizes, strict=True)
    )
    return (slice(None), slice(None), *spans)


def _taps(w: Array) -> Array:
    """[group, out, in, kernel...] -> [kernel..., group, out, in], contiguous: a product of strided matrices misses
    BLAS.
    """
    return np.ascontiguousarray(np.moveaxis(w, (0, 1, 2), (-3, -2, -1)))


@kernel("Conv")
def conv(node: Node, x: Array, w: Array, b: Array | None = None) -> Array:
    """X [N, C, spatial...], w [M, C/group, kernel...], b [M] -> [N, M, out...]."""
    group, shape = node.get("group", 1), w.shape[2:]
    strides, dilations, pads, sizes = window(node, x.shape[2:], shape)
    x = np.pad(x, [(0, 0), (0, 0), *pads])
    n, m, per = x.shape[0], w.shape[0], w.shape[1]
    out = np.zeros((n, group, m // group, int(np.prod(sizes))))
    if per == 1 and m == group:
        taps = _taps(w.reshape(group, 1, 1, *shape))
        for offset in positions(shape):
            out += x[strided(offset, strides, dilations, sizes)].reshape(n, group, 1, -1) * taps[offset]
    else:
        area = max(1, out.shape[-1])
        # So many kernel positions at once that a product is worth its call, but never more than the room given.
        step = max(1, min(-(-_DEPTH // per), _ROOM // (n * group * per * area)))
        spots = list(positions(shape))
        taps = np.moveaxis(w.reshape(group, m // group, per, -1), -1, 2)
        for first in range(0, len(spots), step):
            part = [
                x[strided(spot, strides, dilations, sizes)].reshape(n, group, per, area)
                for spot in spots[first : first + step]
            ]
            tap = np.ascontiguousarray(taps[:, :, first : first + step]).reshape(group, m // group, -1)
            out += np.matmul(tap, part[0] if len(part) == 1 else np.concatenate(part, axis=2))
    out = out.reshape(n, m, *sizes)
    return out if b is None else out + b.reshape(-1, *[1] * len(sizes))


@kernel("ConvTranspose")
def conv_transpose(node: Node, x: Array, w: Array, b: Array | None = None) -> Array:
    """X [N, C, spatial...], w [C, M/group, kernel...], b [M] -> [N, M, out...]."""
    spatial, shape, group = x.shape[2:], w.shape[2:], node.get("group", 1)
    rank = len(spatial)
    strides = list(node.get("strides") or [1] * rank)
    dilations = list(node.get("dilations") or [1] * rank)
    extra = list(node.get("output_padding") or [0] * rank)
    full = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(spatial, strides, shape, dilations, strict=True)]
    auto, wanted = node.get("auto_pad", "NOTSET"), node.get("output_shape")
    given = list(node.get("pads") or [0] * (2 * rank))
    pads = [(given[i], given[i + rank]) for i in range(rank)]
    if wanted is not None or auto in ("SAME_UPPER", "SAME_LOWER"):
        sizes = list(wanted)[-rank:] if wanted is not None else [n * s for n, s in zip(spatial, strides, strict=True)]
        pads = []
        for i in range(rank):
            whole = full[i] + extra[i] - sizes[i]
            # The specification gives the odd element to the end for SAME_UPPER and to the beginning otherwise.
            small = whole // 2
            pads.append((small, whole - small) if auto == "SAME_UPPER" else (whole - small, small))
    sizes = [f + e - begin - end for f, e, (begin, end) in zip(full, extra, pads, strict=True)]
    n, c = x.shape[:2]
    per = w.shape[1]
    grown = [f + e + max(0, -begin) + max(0, -end) for f, e, (begin, end) in zip(full, extra, pads, strict=True)]
    canvas = np.zeros((n, group * per, *grown))
    flat = x.reshape(n, group, c // group, -1)
    taps = _taps(np.swapaxes(w.reshape(group, c // group, per, *shape), 1, 2))
    for offset in positions(shape):
        canvas[strided(offset, strides, dilations, spatial)] += np.matmul(taps[offset], flat).reshape(
            n, group * per, *spatial
        )
    crop = tuple(slice(max(0, begin), max(0, begin) + s) for (begin, _), s in zip(pads, sizes, strict=True))
    out = canvas[(slice(None), slice(None), *crop)]
    return out if b is None else out + b.reshape(-1, *[1] * rank)
