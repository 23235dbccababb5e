"""Elementwise operators, with numpy's broadcasting (which is ONNX's from opset 7 on)."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import numpy as np

from onnx_rewrite.verify.dtypes import Array
from onnx_rewrite.verify.kernels import IllegalFeed, Node, kernel


def _unary(name: str, function: Any) -> None:
    kernel(name)(lambda node, x: function(x))


def _binary(name: str, function: Any) -> None:
    kernel(name)(lambda node, a, b: function(a, b))


def erf(x: Array) -> Array:
    """The error function in float64, element by element (numpy has none; math.erf is exact to the last bit or two)."""
    flat = np.asarray(x, dtype=np.float64).ravel()
    return np.fromiter(map(math.erf, flat.tolist()), dtype=np.float64, count=flat.size).reshape(np.shape(x))


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def softplus(x: Array) -> Array:
    return np.logaddexp(0.0, x)


for _name, _function in {
    "Abs": np.abs, "Neg": np.negative, "Sign": np.sign, "Ceil": np.ceil, "Floor": np.floor,
    "Round": np.rint, "Exp": np.exp, "Log": np.log, "Sqrt": np.sqrt, "Sin": np.sin, "Cos": np.cos,
    "Tan": np.tan, "Asin": np.arcsin, "Acos": np.arccos, "Atan": np.arctan, "Sinh": np.sinh, "Cosh": np.cosh,
    "Tanh": np.tanh, "Asinh": np.arcsinh, "Acosh": np.arccosh, "Atanh": np.arctanh, "Erf": erf, "IsNaN": np.isnan,
    "Not": np.logical_not, "Sigmoid": sigmoid, "Softplus": softplus, "Identity": lambda x: x,
    "Reciprocal": lambda x: 1.0 / x, "Relu": lambda x: np.maximum(x, x.dtype.type(0)),
    "Softsign": lambda x: x / (1.0 + np.abs(x)), "BitwiseNot": np.bitwise_not,
    "HardSwish": lambda x: x * np.clip(x / 6.0 + 0.5, 0.0, 1.0), "Mish": lambda x: x * np.tanh(softplus(x)),
}.items():  # fmt: skip
    _unary(_name, _function)

for _name, _function in {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "And": np.logical_and, "Or": np.logical_or,
    "Xor": np.logical_xor, "Equal": np.equal, "Greater": np.greater, "GreaterOrEqual": np.greater_equal,
    "Less": np.less, "LessOrEqual": np.less_equal, "BitwiseAnd": np.bitwise_and, "BitwiseOr": np.bitwise_or,
    "BitwiseXor": np.bitwise_xor, "PRelu": lambda x, s: np.where(x < 0, x * s, x),
}.items():  # fmt: skip
    _binary(_name, _function)


def _refuse_zero(node: Node, divisor: Array) -> None:
    # An integer division by zero ends the process in onnxruntime; the reference is asked first and stops it here.
    if divisor.dtype.kind in "iu" and np.any(divisor == 0):
        raise IllegalFeed(node.proto, "integer division by zero")


@kernel("Div")
def div(node: Node, a: Array, b: Array) -> Array:
    """Division; of integers, truncated towards zero."""
    if a.dtype.kind not in "iu":
        return a / b
    _refuse_zero(node, b)
    quotient, remainder = np.divmod(a, b)
    return np.asarray(quotient + ((remainder != 0) & ((a < 0) != (b < 0))), dtype=a.dtype)


@kernel("Mod")
def mod(node: Node, a: Array, b: Array) -> Array:
    _refuse_zero(node, b)
    return np.fmod(a, b) if node.get("fmod", 0) else np.mod(a, b)


@kernel("Pow")
def power(node: Node, a: Array, b: Array) -> Array:
    """Power in the type of the base."""
    if a.dtype.kind in "iu":
        return (
            np.power(a.astype(np.float64), b).astype(a.dtype)
            if b.dtype.kind == "f" or np.any(b < 0)
            else np.power(a, b).astype(a.dtype)
        )
    return np.power(a, b.astype(a.dtype))


@kernel("Min")
def minimum(node: Node, *values: Array) -> Array:
    return reduce(np.minimum, values)


@kernel("Max")
def maximum(node: Node, *values: Array) -> Array:
    return reduce(np.maximum, values)


@kernel("Sum")
def total(node: Node, *values: Array) -> Array:
    return reduce(np.add, values)


@kernel("Mean")
def mean(node: Node, *values: Array) -> Array:
    return reduce(np.add, values) / len(values)


@kernel("Clip")
def clip(node: Node, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    """Min(Max(x, low), high): the upper bound wins where they cross; NaN stays NaN."""
    if node.version < 11:
        low, high = node.get("min"), node.get("max")
    if low is not None:
        x = np.maximum(x, np.asarray(low, dtype=x.dtype))
    if high is not None:
        x = np.minimum(x, np.asarray(high, dtype=x.dtype))
    return x


@kernel("Where")
def where(node: Node, condition: Array, a: Array, b: Array) -> Array:
    return np.where(condition, a, b)


@kernel("IsInf")
def is_inf(node: Node, x: Array) -> Array:
    negative = np.isneginf(x) if node.get("detect_negative", 1) else np.zeros(x.shape, bool)
    positive = np.isposinf(x) if node.get("detect_positive", 1) else np.zeros(x.shape, bool)
    return negative | positive


@kernel("BitShift")
def bit_shift(node: Node, a: Array, b: Array) -> Array:
    return np.left_shift(a, b) if node.get("direction") == "LEFT" else np.right_shift(a, b)


@kernel("LeakyRelu")
def leaky_relu(node: Node, x: Array) -> Array:
    return np.where(x < 0, x * node.get("alpha", float(np.float32(0.01))), x)


@kernel("Elu")
def elu(node: Node, x: Array) -> Array:
    return np.where(x < 0, node.get("alpha", 1.0) * np.expm1(np.minimum(x, 0)), x)


@kernel("Celu")
def celu(node: Node, x: Array) -> Array:
    alpha = node.get("alpha", 1.0)
    return np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(x / alpha))


@kernel("Selu")
def selu(node: Node, x: Array) -> Array:
    """Defaults from the operator's schema (they are float32 numbers)."""
    alpha = node.get("alpha", float(np.float32(1.67326319217681884765625)))
    gamma = node.get("gamma", float(np.float32(1.05070102214813232421875)))
    return gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


@kernel("ThresholdedRelu")
def thresholded_relu(node: Node, x: Array) -> Array:
    return np.where(x > node.get("alpha", 1.0), x, 0.0)


@kernel("HardSigmoid")
def hard_sigmoid(node: Node, x: Array) -> Array:
    return np.clip(node.get("alpha", float(np.float32(0.2))) * x + node.get("beta", 0.5), 0.0, 1.0)


@kernel("Shrink")
def shrink(node: Node, x: Array) -> Array:
    lambd, bias = node.get("lambd", 0.5), node.get("bias", 0.0)
    return np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0)).astype(x.dtype)


@kernel("Swish")
def swish(node: Node, x: Array) -> Array:
    return x * sigmoid(node.get("alpha", 1.0) * x)


@kernel("Gelu")
def gelu(node: Node, x: Array) -> Array:
    """X * Phi(x), or its tanh form (Hendrycks and Gimpel 2016, section 2)."""
    if node.get("approximate", "none") == "tanh":
        return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))


@kernel("Dropout")
def dropout(node: Node, x: Array, ratio: Array | None = None, training: Array | None = None) -> tuple[Array, Array]:
    """The identity, as in inference."""
    if training is not None and bool(training) and (ratio is None or float(ratio) > 0):
        raise node.fail("it draws random numbers (training_mode is true)")
    return x, np.ones(x.shape, dtype=bool)
