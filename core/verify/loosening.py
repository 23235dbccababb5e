"""Large sites with sizes of their own choice: what is true of 3 x 5 x 7 pixels is true of 8 x 224 x 224.

An axis along which every operator of the original and of the replacement computes each place like any other (the batch
of a convolution, its height and width, the rows that a normalization leaves alone) may have any size. Such an axis gets
a symbol in place of its size, and so is bound like one that the model left open: to small primes, to 1, to 0. The check
takes milliseconds in place of seconds, and sees more sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx
from onnx import numpy_helper

SMALL = 1 << 15
"""Sites whose inputs have at most so many elements stay as they are."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_UNARY = _names(
    """
    Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid
    HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh
    Softplus Softsign Sqrt Tan Tanh ThresholdedRelu
    """
)
_BROADCAST = _names(
    """
    Add And Clip Div Equal Greater Less Max Mean Min Mod Mul Or PRelu Pow Sub Sum Where Xor
    """
)
_REDUCTIONS = _names(
    """
    ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
    """
)


def loosened(before: onnx.ModelProto, after: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto] | None:
    """The two models with symbols for the sizes that do not matter to either; None where there is nothing to gain.

    Args:
        before: A cut-out with the sizes of its inputs.
        after: What replaces it: the same names of inputs.
    """
    inputs = _inputs(before)
    if inputs is None or max(map(math.prod, inputs.values()), default=0) <= SMALL:
        return None
    axes = _Axes(inputs)
    if not axes.read(before) or not axes.read(after):
        return None
    symbols = axes.symbols()
    if not symbols:
        return None
    return _with(before, symbols), _with(after, symbols)


def _inputs(model: onnx.ModelProto) -> dict[str, tuple[int, ...]] | None:
    """Sizes by name of the inputs that are fed; None if one is not known."""
    given = {tensor.name for tensor in model.graph.initializer}
    found: dict[str, tuple[int, ...]] = {}
    for value in model.graph.input:
        shape = value.type.tensor_type.shape
        if value.name in given:
            continue
        if not value.type.tensor_type.HasField("shape") or any(not dim.HasField("dim_value") for dim in shape.dim):
            return None
        found[value.name] = tuple(dim.dim_value for dim in shape.dim)
    return found


class _Axes:
    """Which axes of the inputs are free; an axis is known by its number in `_sizes`."""

    def __init__(self, inputs: dict[str, tuple[int, ...]]) -> None:
        self._sizes: list[int] = []
        self._same: list[int] = []  # union-find
        self._fixed: set[int] = set()
        self._made: dict[int, int] = {}  # axes of a size that an operator computes from that of another axis
        self.inputs = {name: [self._new(size) for size in shape] for name, shape in inputs.items()}

    def read(self, model: onnx.ModelProto) -> bool:
        """Fixes what the model's operators need; False if one of them is not understood at all."""
        graph = model.graph
        versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
        self._opset = max(versions, default=1)
        self._constants: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self._values: dict[str, list[int]] = dict(self.inputs)
        if model.functions:
            return False
        for node in graph.node:
            if node.domain not in ("", "ai.onnx"):
                return False
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self._constants[node.output[0]] = node.attribute[0].t
                continue
            given = [name for name in node.input if name and name not in self._constants]
            if not given or any(name not in self._values for name in given):
                return False
            made = self._step(node)
            if made is None:
                return False
            self._values[node.output[0]] = made
        return True

    def symbols(self) -> dict[str, list[str | None]]:
        """A symbol for each free axis of each input; axes that must be of one size share theirs."""
        fixed = {self._root(axis) for axis in self._fixed}
        found: dict[str, list[str | None]] = {}
        for name, axes in self.inputs.items():
            free = [self._root(axis) not in fixed and self._sizes[axis] > 1 for axis in axes]
            found[name] = [f"any_{self._root(axis)}" if ok else None for axis, ok in zip(axes, free, strict=True)]
        return found if any(symbol for names in found.values() for symbol in names) else {}

    def _new(self, size: int) -> int:
        self._sizes.append(size)
        self._same.append(len(self._same))
        return len(self._sizes) - 1

    def _root(self, axis: int) -> int:
        while self._same[axis] != axis:
            axis = self._same[axis]
        return axis

    def _fix(self, *axes: int) -> None:
        for axis in axes:
            self._fixed.add(self._root(axis))
            if axis in self._made:
                self._fix(self._made[axis])

    def _join(self, a: int, b: int) -> int:
        """One axis of two that an operator takes place by place."""
        first, second = self._root(a), self._root(b)
        if first == second:
            return a
        if first in self._made or second in self._made or self._sizes[a] == self._sizes[b] == 1:
            self._fix(a, b)
        elif self._sizes[a] == self._sizes[b]:
            self._same[second] = first
            if second in self._fixed:
                self._fixed.add(first)
        else:  # one of them is 1, and stays so
            a, b = (a, b) if self._sizes[b] == 1 else (b, a)
            self._fix(b)
        return a

    def _constant(self, name: str) -> onnx.TensorProto | None:
        return self._constants.get(name)

    def _step(self, node: onnx.NodeProto) -> list[int] | None:
        """The axes of the first output; None where the operator is not understood."""
        kind = node.op_type
        if kind in _BROADCAST:
            return self._broadcast(node)
        x = self._values.get(node.input[0])
        # Of the operators below, the first operand alone is not a constant.
        if x is None or any(name and name not in self._constants for name in node.input[1:]):
            return None
        if kind in _UNARY:
            return x
        attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        if kind == "BatchNormalization" and not attributes.get("training_mode") and len(node.output) == 1:
            self._fix(*x[1:2])
            return x
        if kind in ("Conv", "ConvTranspose"):
            return self._window(node, x, attributes)
        if kind == "LayerNormalization" and len([name for name in node.output if name]) == 1:
            self._fix(*x[attributes.get("axis", -1) :])
            return x
        if kind in ("Softmax", "LogSoftmax"):
            axis = attributes.get("axis", -1 if self._opset >= 13 else 1)
            self._fix(*(x[axis:] if self._opset < 13 else [x[axis]]))
            return x
        if kind in _REDUCTIONS:
            return self._reduced(node, x, attributes)
        if kind == "MatMul":
            weight = self._constant(node.input[1])
            if weight is None or len(weight.dims) != 2 or len(x) < 2:
                return None
            self._fix(x[-1])
            return [*x[:-1], self._pinned(weight.dims[1])]
        if kind == "Transpose":
            return [x[axis] for axis in attributes.get("perm", list(reversed(range(len(x)))))]
        return None

    def _pinned(self, size: int) -> int:
        axis = self._new(size)
        self._fix(axis)
        return axis

    def _broadcast(self, node: onnx.NodeProto) -> list[int] | None:
        operands: list[list[int]] = []
        constants: list[onnx.TensorProto] = []
        for name in filter(None, node.input):
            tensor = self._constant(name)
            if tensor is None:
                operands.append(self._values[name])
            else:
                constants.append(tensor)
        rank = max(map(len, operands))
        if any(len(tensor.dims) > rank for tensor in constants):
            return None
        made: list[int] = []
        for back in range(rank, 0, -1):
            here = [axes[-back] for axes in operands if len(axes) >= back]
            axis = here[0]
            for other in here[1:]:
                axis = self._join(axis, other)
            if any(len(tensor.dims) >= back and tensor.dims[-back] != 1 for tensor in constants):
                # A constant spans the axis; where it widens one of size 1, the result has the constant's size.
                self._fix(axis)
                widest = max(tensor.dims[-back] for tensor in constants if len(tensor.dims) >= back)
                axis = axis if self._sizes[axis] >= widest else self._pinned(widest)
            made.append(axis)
        return made

    def _window(self, node: onnx.NodeProto, x: list[int], attributes: dict[str, object]) -> list[int] | None:
        weight = self._constant(node.input[1])
        if weight is None or len(x) < 3 or attributes.get("output_shape"):
            return None
        self._fix(x[1])
        group = attributes.get("group", 1)
        channels = weight.dims[0] if node.op_type == "Conv" else weight.dims[1] * int(str(group))
        plain = node.op_type == "Conv" and attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
        spatial: list[int] = []
        for i, axis in enumerate(x[2:]):
            if plain and self._keeps(attributes, weight.dims[2 + i], i, len(x) - 2):
                spatial.append(axis)
                continue
            made = self._new(0)
            self._made[made] = axis
            spatial.append(made)
        return [x[0], self._pinned(channels), *spatial]

    @staticmethod
    def _keeps(attributes: dict[str, object], kernel: int, i: int, rank: int) -> bool:
        """Whether a convolution's output is as large as its input along a spatial axis, whatever that size."""

        def number(name: str, default: int, at: int) -> int:
            values = attributes.get(name)
            return int(values[at]) if isinstance(values, Sequence) and len(values) > at else default

        pads = number("pads", 0, i) + number("pads", 0, i + rank)
        return number("strides", 1, i) == 1 and pads == (kernel - 1) * number("dilations", 1, i)

    def _reduced(self, node: onnx.NodeProto, x: list[int], attributes: dict[str, object]) -> list[int] | None:
        axes = attributes.get("axes")
        if len(node.input) > 1 and node.input[1]:
            tensor = self._constant(node.input[1])
            axes = None if tensor is None else numpy_helper.to_array(tensor).ravel().tolist()
        if not isinstance(axes, Sequence) or not axes:
            return None
        gone = {int(axis) % len(x) for axis in axes}
        self._fix(*(x[axis] for axis in gone))
        if attributes.get("keepdims", 1):
            return [self._pinned(1) if i in gone else axis for i, axis in enumerate(x)]
        return [axis for i, axis in enumerate(x) if i not in gone]


def _with(model: onnx.ModelProto, symbols: dict[str, list[str | None]]) -> onnx.ModelProto:
    """The model with symbols in its inputs' shapes; its other shapes are left out, for they may be of fixed sizes."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    for value in found.graph.input:
        for dim, symbol in zip(value.type.tensor_type.shape.dim, symbols.get(value.name, ()), strict=False):
            if symbol is not None:
                dim.dim_param = symbol
    for value in found.graph.output:
        for i, dim in enumerate(value.type.tensor_type.shape.dim):
            dim.dim_param = f"{value.name}_{i}"
    del found.graph.value_info[:]
    return found
