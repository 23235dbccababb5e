"""LayerNormalization.

y = (x - E[x]) / sqrt(Var[x] + epsilon) * scale + bias over the trailing axes; see LayerNormalization in the ONNX
operator specification (since opset 17).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_rewrite.analysis.dtypes import FLOATS, numpy_dtype
from onnx_rewrite.match import Constant, Match, Refused
from onnx_rewrite.pattern import const, constant, either, maybe, op, scalar
from onnx_rewrite.registry import Pass, RuleSet


def standard_deviation(squares: Any, eps: Any) -> Any:
    """sqrt(mean of squares + epsilon)."""
    shifted = op.Add(squares, scalar(eps))
    return either(op.Sqrt(shifted), op.Pow(shifted, const(0.5)))


def reciprocal_deviation(squares: Any, eps: Any) -> Any:
    """1 / sqrt(mean of squares + epsilon)."""
    shifted = op.Add(squares, scalar(eps))
    deviation = standard_deviation(squares, eps)
    return either(op.Reciprocal(deviation), op.Div(const(1), deviation), op.Pow(shifted, const(-0.5)))


def square(x: Any) -> Any:
    """x², spelt as a power or as a product."""
    return either(op.Pow(x, const(2)), op.Mul(x, x))


class _Normalization(Pass):
    """What all spellings share: the conditions and the replacement."""

    needs_opset = 17

    def check(self, m: Match) -> None:
        if m.x.dtype is not None and m.x.dtype not in FLOATS:
            raise Refused(f"LayerNormalization has no type {m.x.dtype.name}", m.x)
        if not 0 <= m.eps < 1:
            raise Refused(f"epsilon is {m.eps}", m.x)
        axis = normalized_axis(m)
        if m.scale is None:
            normalized_lengths(m, axis)
        for parameter in (m.scale, m.bias):
            if parameter is not None:
                check_parameter(m, parameter, axis)

    def replace(self, m: Match) -> Any:
        axis = normalized_axis(m)
        scale: Any = m.scale
        if scale is None:
            dtype = numpy_dtype(m.x.dtype or ir.DataType.FLOAT)
            scale = np.ones(normalized_lengths(m, axis), dtype)
        else:
            scale = parameter_like(m, scale, axis)
        inputs = [m.x, scale] + ([] if m.bias is None else [parameter_like(m, m.bias, axis)])
        return op.LayerNormalization(*inputs, axis=axis, epsilon=float(m.eps))


class TwoPass(_Normalization):
    """The mean is subtracted first, then the squares of what is left are averaged."""

    def pattern(self, x: Any, scale: Any, bias: Any, eps: Any, axes: Any) -> Any:
        mean = op.ReduceMean(x, axes=axes, keepdims=1)
        centred = op.Sub(x, mean)
        variance = op.ReduceMean(square(centred), axes=axes, keepdims=1)
        normed = either(
            op.Div(centred, standard_deviation(variance, eps)),
            op.Mul(centred, reciprocal_deviation(variance, eps)),
        )
        scaled = maybe(lambda n: op.Mul(n, constant(scale)), normed)
        return maybe(lambda n: op.Add(n, constant(bias)), scaled)


class ScaleFirst(_Normalization):
    """The scale is multiplied into the reciprocal deviation before it meets x: TensorFlow and Keras, Flax."""

    def pattern(self, x: Any, scale: Any, bias: Any, eps: Any, axes: Any) -> Any:
        mean = op.ReduceMean(x, axes=axes, keepdims=1)
        centred = op.Sub(x, mean)
        variance = either(
            op.ReduceMean(square(centred), axes=axes, keepdims=1),
            op.Sub(op.ReduceMean(square(x), axes=axes, keepdims=1), square(mean)),
        )
        factor = op.Mul(reciprocal_deviation(variance, eps), constant(scale))
        return either(
            op.Add(op.Mul(x, factor), op.Sub(constant(bias), op.Mul(mean, factor))),
            maybe(lambda n: op.Add(n, constant(bias)), op.Mul(centred, factor)),
        )


def normalized_axis(m: Match) -> int:
    """The first of the normalized axes, counted from the end where the rank is not known.

    Raises:
        Refused: The axes are not the trailing ones.
    """
    axes: tuple[int, ...] = m.axes
    rank = m.rank(m.x)
    if not axes:
        raise Refused("the mean is taken over no axis", m.x)
    end = 0 if rank is None or axes[0] < 0 else rank
    if axes != tuple(range(end - len(axes), end)):
        spelt = ", ".join(map(str, axes))
        raise Refused(f"the mean is taken over axes {spelt}; LayerNormalization needs the last ones", m.x)
    return axes[0] if rank is None else axes[0] - rank


def normalized_lengths(m: Match, axis: int) -> list[int]:
    """Lengths of the normalized axes: the shape of a scale that is missing.

    Raises:
        Refused: One of them is not known.
    """
    lengths = [m.dim(m.x, i) for i in range(axis, 0)]
    if not all(isinstance(length, int) for length in lengths):
        raise Refused("there is no scale, and the length of the normalized axes is not known", m.x)
    return [int(length) for length in lengths]  # type: ignore[arg-type]


def check_parameter(m: Match, parameter: Constant, axis: int) -> None:
    """A scale or bias must vary along the normalized axes only, and must not enlarge the result.

    Raises:
        Refused: It does not fit.
    """
    shape, count = parameter.shape, -axis
    leading, trailing = shape[:-count], shape[-count:]
    if any(d != 1 for d in leading):
        raise Refused(f"a factor of shape {list(shape)} spans more than the {count} normalized axes", parameter)
    rank = m.rank(m.x)
    if leading and (rank is None or len(shape) > rank):
        raise Refused(f"a factor of shape {list(shape)} may have more dimensions than the input", parameter)
    for offset, length in enumerate(reversed(trailing), start=1):
        known = m.dim(m.x, -offset)
        if not isinstance(known, int):
            raise Refused(f"the length of axis {-offset} is not known: a factor of {length} may enlarge it", parameter)
        if length not in (1, known):
            raise Refused(f"a factor of shape {list(shape)} enlarges the input", parameter)


def parameter_like(m: Match, parameter: Constant, axis: int) -> Any:
    """The scale or bias in the shape of the normalized axes; the graph's own value where it has it already."""
    shape, count = parameter.shape, -axis
    lengths = [m.dim(m.x, i) for i in range(axis, 0)]
    if len(shape) == count and (list(shape) == lengths or 1 not in shape):
        return parameter
    if len(shape) > count and 1 not in shape[-count:]:
        return parameter.array.reshape(shape[-count:])
    return np.broadcast_to(parameter.array.reshape(shape[-count:]), normalized_lengths(m, axis))


@dataclass(frozen=True)
class FuseLayerNorm(RuleSet):
    """Fuses a decomposed layer normalization into LayerNormalization.

    With or without scale and bias, over any trailing axes, squares as Pow or Mul, division as Div, Reciprocal or
    Pow(-0.5), a shared or repeated subtraction, the forms of PyTorch, TensorFlow and Flax.
    """

    name = "ln"

    def rules(self) -> tuple[Pass, ...]:
        return (TwoPass(), ScaleFirst())
