"""Element types as the judge sees them: which are floats, how exact they are, and how they are widened to float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

Array = npt.NDArray[Any]

_T = onnx.TensorProto
# Distance from 1 to the next number above it, the smallest subnormal and the largest finite number: IEEE 754-2019
# table 3.5 (binary16, binary32, binary64); bfloat16 is binary32 with 7 explicit bits of significand.
_LIMITS: dict[int, tuple[float, float, float]] = {
    _T.FLOAT: (2.0**-23, 2.0**-149, (2 - 2.0**-23) * 2.0**127),
    _T.DOUBLE: (2.0**-52, 2.0**-1074, float(np.finfo(np.float64).max)),
    _T.FLOAT16: (2.0**-10, 2.0**-24, 65504.0),
    _T.BFLOAT16: (2.0**-7, 2.0**-133, (2 - 2.0**-7) * 2.0**127),
}
FLOATS = frozenset(_LIMITS)
"""ONNX element types that are judged by their error; all others are compared exactly."""

HALVES = frozenset({_T.FLOAT16, _T.BFLOAT16})
"""Types of which onnxruntime's CPU provider has few kernels, or none."""


@dataclass(frozen=True)
class Tolerance:
    """How far a replacement may be from the original in float64.

    ``error_after <= k * error_before + floor * eps * max|ref64|``, per output and per feed, where both errors are the
    largest absolute differences from the original evaluated in float64, and eps is that of the output's own type
    (fp64 2^-52, fp32 2^-23, fp16 2^-10, bf16 2^-7). The first term says that a replacement may lose a few bits more
    than the original lost on the same numbers (another order of summation, another root); the second that nobody is
    held to less than the rounding of the result's largest element, which the original may hit exactly by luck. A sum
    of n roundings of random sign grows like sqrt(n), hence 16 and 8 and not 1: nine correct and five wrong rewrites
    under five regimes of inputs are told apart by these values without one error. Where eps * max|ref64| is less than
    the type's smallest subnormal number, that takes its place: the spacing of numbers shrinks no further.

    Attributes:
        k: Factor on the error of the original (no unit).
        floor: Number of eps, relative to the largest element of the output, that is always accepted.
    """

    k: float = 16.0
    floor: float = 8.0

    def bound(self, elem_type: int, error_before: float, scale: float) -> float:
        """The largest error that is accepted, for an output of this ONNX type whose largest finite ``|ref64|`` is
        scale.
        """
        eps, tiny, _ = _LIMITS[elem_type]
        # Below the normal numbers the spacing is constant, so eps * scale would underestimate one rounding.
        return self.k * error_before + self.floor * max(eps * scale, tiny)


def eps(elem_type: int) -> float:
    """Distance from 1 to the next larger number of an ONNX float type."""
    return _LIMITS[elem_type][0]


def largest(elem_type: int) -> float:
    """Largest finite number of an ONNX float type."""
    return _LIMITS[elem_type][2]


def widen(array: Array) -> Array:
    """fp16, bf16 and fp32 as float64, exactly; everything else as it is (also the 8-bit floats and packed integers of
    ml_dtypes).
    """
    # By name: ml_dtypes' float8_e5m2 calls itself a float of numpy's kind.
    if array.dtype.name in ("float32", "float16", "bfloat16"):
        return array.astype(np.float64)
    return array


def numpy_dtype(elem_type: int) -> np.dtype[Any]:
    """The numpy dtype in which a value of an ONNX element type is fed to onnxruntime, or an object dtype for
    strings.
    """
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type))


def type_name(elem_type: int) -> str:
    """Lower-case name of an ONNX element type ("float16"), for messages."""
    return onnx.TensorProto.DataType.Name(elem_type).lower()
