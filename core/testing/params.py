"""Values for parameters that a pattern captures, or leaves to the graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import onnx

from onnx_rewrite.opset.view import ABSENT, defaults
from onnx_rewrite.testing.draft import Unfit, Value
from onnx_rewrite.testing.inference import schema_of
from onnx_rewrite.testing.tape import Tape

NUMBERS = (0.5, 2.0, 1.0, -1.0, 3.0, 6.0, 0.0)
EPSILONS = (1e-5, 1e-3, 1e-6, 1e-12, 0.1)
BOUNDS = (0.0, 1.0, -1.0, 6.0, -2.0, 3.0)

FREE: Mapping[str, tuple[str, ...]] = {
    "Conv": ("strides", "pads", "dilations", "group"),
    "ConvTranspose": ("strides", "group", "pads"),
    "Gemm": ("alpha", "beta", "transA", "transB"),
    "BatchNormalization": ("epsilon", "momentum"),
    "Softmax": ("axis",),
    "LeakyRelu": ("alpha",),
    "Reshape": ("shape",),
    "Unsqueeze": ("axes",),
    "Squeeze": ("axes",),
    "Transpose": ("perm",),
    "Gather": ("axis",),
    "Flatten": ("axis",),
    "LayerNormalization": ("axis", "epsilon"),
    "Clip": ("min", "max"),
}
"""What a node that a pattern captures as a whole may have, too; the first ones of Reshape and Unsqueeze it must."""

REQUIRED: Mapping[str, tuple[str, ...]] = {
    "Reshape": ("shape",),
    "Unsqueeze": ("axes",),
    "Concat": ("axis",),
    "Cast": ("to",),
    "Pad": ("pads",),
    "Slice": ("starts", "ends"),
    "Tile": ("repeats",),
    "TopK": ("k",),
    "MaxPool": ("kernel_shape",),
    "AveragePool": ("kernel_shape",),
    "Dropout": (),
}

BEFORE_OPERANDS = frozenset({"transA", "transB", "group"})
"""Parameters on which the shapes of the operands depend."""


def propose(op_type: str, name: str, operands: list[Value | None], opset: int, domain: str, tape: Tape) -> Any:
    """A value for a parameter: a number, a tuple, text, or ABSENT.

    Raises:
        Unfit: Nothing is legal.
    """
    x = next((v for v in operands if v is not None), None)
    shape = x.shape if x is not None else (2, 2)
    rank = len(shape)
    if name == "axes":
        return _axes(op_type, x, shape, tape)
    if name == "axis":
        if not rank:
            raise Unfit("a scalar has no axes")
        return rank - 1 - tape.below(rank)
    if name == "perm":
        if rank > 1 and tape.chance(40):  # matrices are transposed more often than anything else
            return (*range(rank - 2), rank - 1, rank - 2)
        return tuple(tape.order(rank))
    if name == "shape":
        return _shape(x, shape, tape)
    if name in ("epsilon", "eps"):
        return tape.one(EPSILONS)
    if name == "to":
        wider = {10: (1, 11), 1: (11, 1)}.get(x.dtype if x is not None else 1, (11,))
        return tape.one((1, 11, 10)) if tape.rarely(20) else tape.one(wider)
    if name in ("min", "max"):
        return _bound(x, tape)
    if name == "group":
        return tape.one((1, 2, 2, 3))
    if name in ("strides", "dilations", "kernel_shape"):
        least = 1 if name != "kernel_shape" else min(2, *shape[2:]) if rank > 2 else 1
        return tuple(least if not tape.chance(40) else min(least + 1, 2) for _ in shape[2:])
    if name == "pads":
        count = 2 * (rank if op_type == "Pad" else max(rank - 2, 0))
        return tuple(int(tape.chance(40)) for _ in range(count))
    if name == "repeats":
        return tuple(1 + tape.below(2) for _ in shape)
    if name in ("starts", "ends"):
        return (0,) if name == "starts" else (max(1, shape[0] - 1) if rank else 1,)
    if name == "k":
        return 1
    if name == "split":
        raise Unfit("a split is not drawn")
    if name in ("alpha", "beta"):
        return tape.one((1.0, 0.5, 2.0, -1.0))
    if name == "approximate":
        return tape.one(("none", "tanh"))
    return _by_schema(op_type, name, opset, domain, tape)


def _axes(op_type: str, x: Value | None, shape: tuple[int, ...], tape: Tape) -> tuple[int, ...]:
    rank = len(shape)
    if op_type == "Unsqueeze":
        if x is not None and x.axes and len(x.origin) == rank + len(x.axes):
            return x.axes
        return (rank - tape.below(rank + 1),)
    if op_type == "Squeeze":
        ones = [axis for axis, length in enumerate(shape) if length == 1]
        if not ones:
            raise Unfit("nothing to squeeze")
        return (tape.one(ones),)
    if not rank:
        raise Unfit("a scalar has no axes")
    if tape.rarely(8):
        return (tape.below(rank),)
    return tuple(range(rank - 1 - tape.more(30, rank - 1), rank))


def _shape(x: Value | None, shape: tuple[int, ...], tape: Tape) -> tuple[int, ...]:
    total = math.prod(shape)
    if x is not None and x.axes and len(x.origin) == len(shape) + len(x.axes) and not tape.rarely(10):
        kept = tuple(1 if axis in x.axes else length for axis, length in enumerate(x.origin))
        return kept if tape.chance(70) else (-1, *kept[1:])
    choices: list[tuple[int, ...]] = [shape, (total,), (-1,), (1, *shape), (*shape, 1)]
    if len(shape) > 1:
        choices += [(shape[0], -1), (0, -1), shape[::-1], (0, *shape[1:])]
    return tape.one(choices)


def _bound(x: Value | None, tape: Tape) -> float:
    number = tape.one(BOUNDS)
    if x is not None and x.dtype not in (1, 10, 11, 16):
        unsigned = x.dtype in (2, 4, 12, 13)
        return int(abs(number)) if unsigned else int(number)
    return number


def _by_schema(op_type: str, name: str, opset: int, domain: str, tape: Tape) -> Any:
    usual = defaults(op_type, opset).get(name, ABSENT) if domain == "" else ABSENT
    try:
        attribute = schema_of(op_type, opset, domain).attributes.get(name)
    except Unfit:
        attribute = None
    kind = None if attribute is None else attribute.type
    kinds = onnx.defs.OpSchema.AttrType
    if kind == kinds.INT:
        return tape.one([usual, 0, 1] if isinstance(usual, int) else [0, 1])
    if kind == kinds.FLOAT:
        return tape.one([usual, 0.5, 2.0] if isinstance(usual, float) else [1.0, 0.5, 2.0])
    return usual
