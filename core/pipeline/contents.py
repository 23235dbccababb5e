"""Types, tensors and attributes of two models: are they the same, and if not, what to call them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

_WIDEST = 60
"""Characters of an attribute's value that are shown."""

_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def type_text(value: ir.Value) -> str:
    """A value's dtype and shape, "float[1, n, ?]"; "?" for a type that is not stated."""
    if value.type is None:
        return "?"
    kind = value.type
    name = _dtype(kind.dtype) if isinstance(kind, ir.TensorType) else str(kind)
    return name if value.shape is None else name + _shape(value.shape)


def tensor_text(tensor: ir.TensorProtocol | None) -> str:
    """A tensor's dtype and shape, "float[24]"; "sparse" for None."""
    return "sparse" if tensor is None else _dtype(tensor.dtype) + _shape(tensor.shape)


def _dtype(dtype: ir.DataType) -> str:
    return dtype.name.lower()


def _shape(shape: Any) -> str:
    return f"[{', '.join(str(d) if isinstance(d, int) else str(d.value or '?') for d in shape)}]"


def same_tensor(a: ir.TensorProtocol, b: ir.TensorProtocol) -> bool:
    """Whether two tensors have the same dtype, shape and bytes.

    Two tensors at the same place of the same file are not read.
    """
    if a.dtype != b.dtype or list(a.shape) != list(b.shape):
        return False
    if isinstance(a, ir.ExternalTensor) and isinstance(b, ir.ExternalTensor) and _place(a) == _place(b):
        return True
    try:
        if a.dtype == ir.DataType.STRING:
            return bool(np.array_equal(a.numpy(), b.numpy()))
        return a.tobytes() == b.tobytes()
    finally:
        for tensor in (a, b):
            if isinstance(tensor, ir.ExternalTensor):
                tensor.release()


def _place(tensor: ir.ExternalTensor) -> tuple[str, int, int]:
    path = os.path.realpath(os.path.join(tensor.base_dir, tensor.location))
    return path, tensor.offset or 0, tensor.nbytes if tensor.length is None else tensor.length


def values_text(a: ir.TensorProtocol, b: ir.TensorProtocol) -> str:
    """How far two different tensors of one dtype and shape are apart: "3 of 24 values, by at most 0.01"."""
    try:
        before, after = a.numpy(), b.numpy()
        other = before != after
        if np.issubdtype(before.dtype, np.inexact):
            other &= ~(np.isnan(before) & np.isnan(after))
        total = f"{int(np.count_nonzero(other)):,} of {before.size:,} values"
        if a.dtype in (ir.DataType.STRING, ir.DataType.BOOL) or not other.any():
            return total if other.any() else "in their bits alone"  # NaN, or the sign of zero
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.abs(after[other].astype(np.float64) - before[other].astype(np.float64))
        return f"{total}, by at most {float(np.max(apart)):.2g}"
    except (TypeError, ValueError):  # a dtype that numpy cannot compare
        return "values"


def same_attribute(a: ir.Attr, b: ir.Attr) -> bool:
    """Whether two attributes say the same; graphs in them are not looked at."""
    if a.type != b.type or a.ref_attr_name != b.ref_attr_name:
        return False
    if a.is_ref() or a.type in _GRAPHS:
        return True
    if a.type == ir.AttributeType.TENSOR:
        return same_tensor(a.as_tensor(), b.as_tensor())
    if a.type == ir.AttributeType.TENSORS:
        first, second = a.as_tensors(), b.as_tensors()
        return len(first) == len(second) and all(same_tensor(x, y) for x, y in zip(first, second, strict=True))
    if a.type in (ir.AttributeType.FLOAT, ir.AttributeType.FLOATS):
        return np.array(a.value).tobytes() == np.array(b.value).tobytes()  # NaN is the same as NaN
    return bool(a.value == b.value)


def attribute_text(attribute: ir.Attr | None) -> str | None:
    """The value of an attribute in a few words; None for None."""
    if attribute is None:
        return None
    if attribute.is_ref():
        return f"@{attribute.ref_attr_name}"
    value: Any = attribute.value
    if attribute.type == ir.AttributeType.TENSOR:
        text = _small(attribute.as_tensor())
    elif attribute.type == ir.AttributeType.TENSORS:
        text = ", ".join(_small(tensor) for tensor in attribute.as_tensors())
    elif attribute.type in _GRAPHS:
        text = "a graph"
    elif isinstance(value, float):
        text = f"{value:g}"
    elif isinstance(value, (list, tuple)):
        items: Sequence[Any] = value
        text = f"[{', '.join(f'{item:g}' if isinstance(item, float) else str(item) for item in items)}]"
    else:
        text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."


def _small(tensor: ir.TensorProtocol) -> str:
    kind = tensor_text(tensor)
    if tensor.size > 8:
        return kind
    value = str(tensor.numpy().tolist())
    return f"{kind} {value}" if len(kind) + len(value) < _WIDEST else kind
