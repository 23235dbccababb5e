"""LayerNormalization.

y = (x - E[x]) / sqrt(Var[x] + epsilon) * scale + bias over the trailing axes; see LayerNormalization in the ONNX
operator specification (since opset 17).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_rewrite.analysis.dtypes import FLOATS, numpy_dtype
from onnx_rewrite.match import Constant, Match, Refused
from onnx_rewrite.pattern import const, constant, either, maybe, op, optional, scalar
from onnx_rewrite.registry import Pass, RuleSet


@dataclass(frozen=True)
class Averages:
    """The ways to average over some axes: ReduceMean, or a sum that is multiplied by 1/N or divided by N.

    Attributes:
        axes: Captures the axes.
        nth: Captures 1/N.
        count: Captures N.
        noop: Captures what a sum over no axes would mean, which is of no importance.
    """

    axes: Any
    nth: Any
    count: Any
    noop: Any

    def mean(self, x: Any, keepdims: int) -> Any:
        """E[x]."""
        total = op.ReduceSum(x, axes=self.axes, keepdims=keepdims, noop_with_empty_axes=optional(self.noop))
        return either(op.ReduceMean(x, axes=self.axes, keepdims=keepdims), *self._shares(total))

    def mean_of_squares(self, x: Any, keepdims: int) -> Any:
        """E[x²]."""
        total = op.ReduceSumSquare(x, axes=self.axes, keepdims=keepdims)
        return either(self.mean(square(x), keepdims), *self._shares(total))

    def _shares(self, total: Any) -> tuple[Any, Any]:
        return op.Mul(total, scalar(self.nth)), op.Div(total, scalar(self.count))


def square(x: Any) -> Any:
    """x², spelt as a power or as a product."""
    return either(op.Pow(x, const(2)), op.Mul(x, x))


def standard_deviation(variance: Any, eps: Any) -> Any:
    """sqrt(variance + epsilon)."""
    shifted = op.Add(variance, scalar(eps))
    return either(op.Sqrt(shifted), op.Pow(shifted, const(0.5)))


def reciprocal_deviation(variance: Any, eps: Any) -> Any:
    """1 / sqrt(variance + epsilon)."""
    shifted = op.Add(variance, scalar(eps))
    deviation = standard_deviation(variance, eps)
    return either(
        op.Reciprocal(deviation),
        op.Div(const(1), deviation),
        op.Pow(shifted, const(-0.5)),
        op.Sqrt(op.Reciprocal(shifted)),
    )


class _Normalization(Pass):
    """What all spellings share: the conditions and the replacement."""

    needs_opset = 17

    def check(self, m: Match) -> None:
        check_dtypes(m)
        axis = normalized_axis(m)
        check_average(m, axis)
        if m.rank(m.x) != m.rank(m.output):
            raise Refused("a constant gives the result another rank than the input's", m.output)
        if m.scale is None or not m.scale.shape:
            normalized_lengths(m, axis)
        for parameter in (m.scale, m.bias):
            if parameter is not None:
                check_parameter(m, parameter, axis)

    def replace(self, m: Match) -> Any:
        axis = normalized_axis(m)
        x = m.x if widened(m) is None else op.Cast(m.x, to=widened(m))
        scale: Any = m.scale
        if scale is None:
            scale = np.ones(normalized_lengths(m, axis), numpy_dtype(computed_in(m)))
        else:
            scale = parameter_like(m, scale, axis)
        inputs = [x, scale] + ([] if m.bias is None else [parameter_like(m, m.bias, axis)])
        return op.LayerNormalization(*inputs, axis=axis, epsilon=float(m.eps))


class TwoPass(_Normalization):
    """The mean is subtracted first, then the squares of what is left are averaged."""

    def pattern(
        self, x: Any, scale: Any, bias: Any, eps: Any, axes: Any, nth: Any, count: Any, noop: Any, wider: Any
    ) -> Any:
        averages = Averages(axes, nth, count, noop)
        difference = op.Sub(x, averages.mean(x, keepdims=1))
        # Mixed precision widens the difference before it is squared.
        centred = either(difference, op.Cast(difference, to=wider))
        variance = averages.mean_of_squares(centred, keepdims=1)
        normed = either(
            op.Div(centred, standard_deviation(variance, eps)),
            op.Mul(centred, reciprocal_deviation(variance, eps)),
        )
        scaled = maybe(lambda n: op.Mul(n, constant(scale)), normed)
        return maybe(lambda n: op.Add(n, constant(bias)), scaled)


class ScaleFirst(_Normalization):
    """The reciprocal deviation is multiplied by the scale before it meets x, or x and its mean are scaled apart.

    TensorFlow and Keras: x * f + (bias - mean * f), in any association; Flax: (x - mean) * f + bias, the variance as
    E[x²] - E[x]², never below zero, and means whose axes are dropped and brought back.
    """

    def pattern(
        self, x: Any, scale: Any, bias: Any, eps: Any, axes: Any, nth: Any, count: Any, noop: Any, shape: Any
    ) -> Any:
        averages = Averages(axes, nth, count, noop)
        kept, dropped = averages.mean(x, keepdims=1), averages.mean(x, keepdims=0)
        mean = either(kept, restored(dropped, "mean_back", shape))
        centred = op.Sub(x, mean)
        variance = either(
            averages.mean_of_squares(centred, keepdims=1),
            restored(averages.mean_of_squares(centred, keepdims=0), "variance_back", shape),
            not_below_zero(op.Sub(averages.mean_of_squares(x, keepdims=1), square(kept))),
            restored(
                not_below_zero(op.Sub(averages.mean_of_squares(x, keepdims=0), square(dropped))),
                "variance_back",
                shape,
            ),
        )
        reciprocal = reciprocal_deviation(variance, eps)
        factor = op.Mul(reciprocal, constant(scale))

        def scaled(v: Any) -> Any:
            return either(
                op.Mul(v, factor),
                op.Mul(op.Mul(v, reciprocal), constant(scale)),
                op.Mul(op.Mul(v, constant(scale)), reciprocal),
            )

        def unscaled(v: Any) -> Any:
            return op.Mul(v, reciprocal)

        def apart(times: Callable[[Any], Any]) -> Any:
            return difference_and_bias(times(x), times(mean), constant(bias))

        return either(
            apart(scaled),
            maybe(lambda n: op.Add(n, constant(bias)), scaled(centred)),
            apart(unscaled),
            maybe(lambda n: op.Add(n, constant(bias)), unscaled(centred)),
        )


def difference_and_bias(a: Any, b: Any, bias: Any) -> Any:
    """A - b + bias in any association; the bias may be absent."""
    return either(
        op.Add(a, either(op.Sub(bias, b), op.Add(op.Neg(b), bias), op.Neg(b))),
        op.Sub(a, either(op.Sub(b, bias), b)),
        op.Add(op.Sub(a, b), bias),
    )


def not_below_zero(variance: Any) -> Any:
    """max(variance, 0), which guards against cancellation, or the variance itself."""
    return maybe(lambda v: op.Max(v, const(0)), variance)


def restored(mean: Any, name: str, shape: Any) -> Any:
    """A mean without its axes, which come back as ones; `name` captures the node that brings them back."""
    back = op.one_of("Reshape", "Unsqueeze")(mean).named(name)
    return either(op.Expand(back, shape), back)


def widened(m: Match) -> ir.DataType | None:
    """The dtype to which the difference is cast, or None."""
    to: int | None = getattr(m, "wider", None)
    return None if to is None else ir.DataType(to)


def computed_in(m: Match) -> ir.DataType:
    """The dtype in which the normalization is computed.

    Raises:
        Refused: It is not known.
    """
    dtype = widened(m) or m.x.dtype
    if dtype is None:
        raise Refused(f"the dtype of value '{m.x.name}' is not known", m.x)
    return dtype


def check_dtypes(m: Match) -> None:
    """The dtype must be one of LayerNormalization's, and epsilon must fit into its attribute.

    Raises:
        Refused: They do not.
    """
    dtype = computed_in(m)
    if dtype not in FLOATS:
        raise Refused(f"LayerNormalization has no type {dtype.name}", m.x)
    if widened(m) is not None and (m.x.dtype not in FLOATS or dtype.itemsize < m.x.dtype.itemsize):
        raise Refused(f"the difference is cast to {dtype.name} before it is squared", m.x)
    if not 0 <= m.eps < np.finfo(np.float32).max:
        raise Refused(f"epsilon is {m.eps}", m.x)
    if m.eps == 0 and dtype.itemsize < 4:
        # 1e-12 of a float32 model: what rounding leaves of a variance of 0 decides between numbers and 0/0.
        raise Refused(f"epsilon is 0 in {dtype.name}: equal elements give 0/0, or what their rounding makes of it", m.x)
    if dtype == ir.DataType.DOUBLE and float(np.float32(m.eps)) != m.eps:
        raise Refused(f"epsilon {m.eps} is no 32-bit float, and LayerNormalization's attribute is one", m.x)


def check_average(m: Match, axis: int) -> None:
    """A sum must be divided by the number of its terms, and axes that were dropped must come back where they were.

    Raises:
        Refused: They are not.
    """
    if m.nth is not None or m.count is not None:
        terms = int(np.prod(normalized_lengths(m, axis, "a sum is divided, and")))
        # 1/N is rounded to the type of x, and may have come there through another operation or two.
        rounding = 4 * float(computed_in(m).eps if m.x.dtype is None else m.x.dtype.eps)
        for found in (m.count, None if m.nth is None else 1 / m.nth if m.nth else math.inf):
            if found is not None and not abs(found - terms) <= rounding * terms:
                shown = f"{found:g}" if f"{found:g}" != f"{terms:g}" else f"{found:.9g}"
                raise Refused(f"a sum of {terms} terms is divided by {shown}", m.x)
    for name in ("mean_back", "variance_back"):
        back: ir.Node | None = getattr(m, name, None)
        if back is not None:
            check_restored(m, back, axis)


def check_restored(m: Match, back: ir.Node, axis: int) -> None:
    """What Reshape or Unsqueeze gives must have the shape of x with ones on the normalized axes.

    One length may be unknown: a Reshape keeps the number of elements.

    Raises:
        Refused: It has another shape, or it is not known.
    """
    value, rank = back.outputs[0], m.rank(m.x)
    message = f"whether {back.op_type} '{back.name}' brings the normalized axes back is not known"
    if rank is None or m.rank(value) != rank:
        raise Refused(message, back)
    others = [i for i in range(rank) if m.dim(value, i) is None or m.dim(value, i) != m.dim(m.x, i)]
    if any(m.dim(value, i) != 1 for i in range(axis, 0)) or sum(i < rank + axis for i in others) > 1:
        raise Refused(message, back)
    if m.shape is not None and m.shape not in back.inputs and not keeps_shape(m, m.shape, value):
        raise Refused(f"Expand behind {back.op_type} '{back.name}' may enlarge the mean", back)


def keeps_shape(m: Match, shape: ir.Value, value: ir.Value) -> bool:
    """Whether Expand to a constant shape leaves a value as it is."""
    lengths = m.constant(shape)
    if lengths is None or lengths.ndim != 1 or lengths.size > (m.rank(value) or 0):
        return False
    return all(length in (1, m.dim(value, -i)) for i, length in enumerate(reversed(lengths.tolist()), start=1))


def normalized_axis(m: Match) -> int:
    """The first of the normalized axes, counted from the end.

    Raises:
        Refused: The axes are not the trailing ones.
    """
    axes: tuple[int, ...] = m.axes
    rank = m.rank(m.x)
    spelt = f"ax{'is' if len(axes) == 1 else 'es'} {', '.join(map(str, axes))}"
    if not axes:
        raise Refused("the mean is taken over no axis", m.x)
    if rank is None and axes[-1] >= 0:
        raise Refused(f"the mean is taken over {spelt} of a value of unknown rank", m.x)
    end = 0 if rank is None else rank
    if axes != tuple(range(end - len(axes), end)):
        raise Refused(f"the mean is taken over {spelt}; LayerNormalization needs the last ones", m.x)
    return -len(axes)


def normalized_lengths(m: Match, axis: int, why: str = "there is no scale of known length, and") -> list[int]:
    """Lengths of the normalized axes.

    Raises:
        Refused: One of them is not known.
    """
    lengths = [m.dim(m.x, i) for i in range(axis, 0)]
    if not all(isinstance(length, int) for length in lengths):
        raise Refused(f"{why} the length of the normalized axes is not known", m.x)
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
