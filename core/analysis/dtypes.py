"""Data types: numpy's view of ONNX's, and the classes of types that passes ask for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})
SIGNED_INTEGERS = frozenset({ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64})
INTEGERS = SIGNED_INTEGERS | {ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64}
NUMBERS = FLOATS | INTEGERS


def numpy_dtype(dtype: ir.DataType) -> np.dtype[Any] | None:
    """The numpy (or ml_dtypes) equivalent, or None where there is none (strings, undefined)."""
    try:
        return np.dtype(dtype.numpy())
    except (TypeError, KeyError):
        return None
