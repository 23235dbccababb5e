"""Sizes that are numbers where a shape is known, and scalars of the graph where it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_rewrite.pattern import op

Size = int | ir.Value
"""A number, or a vector of one int64 element that the graph computes."""


def dims(value: ir.Value, rank: int) -> list[Size]:
    """The dimensions of a value, those that are not known read off when the model runs."""
    known = list(value.shape) if value.shape is not None else [None] * rank
    if all(isinstance(dim, int) for dim in known):
        return [int(dim) for dim in known]  # type: ignore[arg-type]
    shape = op.Shape(value)
    return [dim if isinstance(dim, int) else item(shape, axis) for axis, dim in enumerate(known)]


def item(vector: ir.Value, index: int) -> ir.Value:
    """One element of a vector, as a vector."""
    return op.Gather(vector, np.array([index], np.int64), axis=0)


def vector(size: Size) -> Any:
    """A size as an operand: int64, one element."""
    return np.array([size], np.int64) if isinstance(size, int) else size


def scalar(size: Size) -> Any:
    """A size as an operand of rank 0."""
    return np.array(size, np.int64) if isinstance(size, int) else op.Reshape(size, shape=())


def shape(*sizes: Size) -> Any:
    """What Reshape takes: numbers, or a vector of the graph."""
    if all(isinstance(size, int) for size in sizes):
        return tuple(sizes)
    return op.Concat(*[vector(size) for size in sizes], axis=0)


def times(a: Size, b: Size) -> Size:
    """A · b."""
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    if a == 1 or b == 1:
        return b if a == 1 else a
    return op.Mul(vector(a), vector(b))


def plus(a: Size, b: Size) -> Size:
    """A + b."""
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    if a == 0 or b == 0:
        return b if a == 0 else a
    return op.Add(vector(a), vector(b))


def over(a: Size, b: Size) -> Size:
    """A / b, for a multiple a of b."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    return a if b == 1 else op.Div(vector(a), vector(b))


def minus(a: Size, b: Size) -> Size:
    """A - b."""
    if isinstance(a, int) and isinstance(b, int):
        return a - b
    return op.Sub(vector(a), vector(b))


def steps(count: Size, step: Size, start: Size) -> Any:
    """start, start + step, ... : `count` int64 numbers."""
    if isinstance(count, int) and isinstance(step, int) and isinstance(start, int):
        return start + step * np.arange(count, dtype=np.int64)
    counted = op.Range(np.array(0, np.int64), scalar(count), np.array(1, np.int64))
    return op.Add(op.Mul(counted, vector(step)), vector(start))


def reshaped(value: Any, *sizes: Size) -> Any:
    """An array or a value in another shape; an array stays one where the shape is known."""
    wanted = shape(*sizes)
    if isinstance(value, np.ndarray) and isinstance(wanted, tuple):
        return value.reshape(wanted)
    if isinstance(value, np.ndarray):
        value = op.Identity(value)
    return op.Reshape(value, shape=wanted)


def added(a: Any, b: Any) -> Any:
    """The sum of two integer arrays or values that broadcast."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a + b
    return op.Add(a, b)


def scaled(a: Any, size: Size) -> Any:
    """An integer array or value times a size."""
    if isinstance(a, np.ndarray) and isinstance(size, int):
        return a * size
    return op.Mul(a, vector(size))
