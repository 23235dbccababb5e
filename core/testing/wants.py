"""What an operand of an operator must look like, given those that are known already."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from onnx_rewrite.testing.draft import Unfit, Value
from onnx_rewrite.testing.tape import Tape

Shape = tuple[int, ...]
STYLES = ("trailing", "channel", "scalar", "one", "whole", "mixed")
"""How the constants of one instance are laid out that are broadcast onto another value."""

SIZES = (2, 3, 4, 1, 5, 6)

BOUNDING = ("Min", "Max")
"""What these read beside data is one number more often than not."""


class Want(NamedTuple):
    """What a value must look like.

    Attributes:
        ranks: The ranks that will do, the simplest first.
        shape: Its shape, where that is settled.
        onto: The shape that it must broadcast to, where that is settled.
        least: The smallest size of dimensions after the second.
        numbers: What a constant holds: "normal", "positive", "shape" or "index".
        limit: Indices are below this.
        beside: A value that the operator combines it with.
        span: How many trailing axes a constant usually spans.
        op_type: The operator that reads it.
        groups: The second dimension is a multiple of this.
        channels: Whether it usually holds one number per channel.
    """

    ranks: Shape = (2, 3, 4, 1)
    shape: Shape | None = None
    onto: Shape | None = None
    least: int = 1
    numbers: str = "normal"
    limit: int = 0
    beside: Value | None = None
    span: int = 0
    op_type: str = ""
    groups: int = 1
    channels: bool = False

    def drawn(self, tape: Tape, style: str) -> Shape:
        """A shape that will do."""
        if self.shape is not None:
            return self.shape
        if self.onto is not None:
            if self.channels and tape.chance(70):
                style = "channel"
            elif self.op_type in BOUNDING and tape.chance(50):
                style = tape.one(("scalar", "one"))
            return broadcast_onto(self.onto, tape, style, self.span)
        rank = tape.one(self.ranks)
        sizes = [tape.one(SIZES) for _ in range(rank)]
        if rank > 1:
            sizes[1] *= self.groups if sizes[1] % self.groups else 1
        return tuple(max(size, self.least) if axis > 1 else size for axis, size in enumerate(sizes))

    def fits(self, shape: Shape) -> bool:
        """Whether a shape will do."""
        if self.shape is not None:
            return shape == self.shape
        if self.onto is not None:
            return broadcasts(shape, self.onto)
        return len(shape) in self.ranks and all(size >= self.least for size in shape[2:])


def broadcasts(shape: Shape, onto: Shape) -> bool:
    """Whether a shape broadcasts to another without changing it."""
    tail = onto[len(onto) - len(shape) :]
    return len(shape) <= len(onto) and all(d in (1, o) for d, o in zip(shape, tail, strict=True))


def broadcast_onto(shape: Shape, tape: Tape, style: str, span: int) -> Shape:
    """A shape that broadcasts to `shape`."""
    rank = len(shape)
    if tape.tame and style in ("scalar", "one", "mixed"):
        style = "trailing"
    if style == "mixed":
        style = tape.one(STYLES[:-1])
    if style == "scalar" or not rank:
        return ()
    if style == "one":
        return (1,) * (
            1 + tape.below(3 if not tape.tame else min(3, rank))
        )  # beyond `rank`, too: the result has it then
    if style == "channel" and rank >= 2:
        channel = (shape[1],) + (1,) * (rank - 2)
        return (1, *channel) if tape.chance(50) else channel
    if style == "whole":
        return shape if tape.chance(50) else shape[-1:]
    width = min(span, rank) if span and not tape.rarely(10) else 1 + tape.more(30, rank - 1)
    trailing = shape[rank - width :]
    if tape.rarely(15):
        return tuple(1 if tape.chance(50) else size for size in trailing)
    return (1,) * (rank - width) + trailing if tape.rarely(20) else trailing


Known = Sequence["Value | None"]
Rule = Callable[[int, Known, Mapping[str, Any], Tape, Want], Want]
ANY = Want()


def _first(known: Known) -> Value | None:
    return next((v for v in known if v is not None), None)


def _elementwise(at: int, known: Known, params: Mapping[str, Any], tape: Tape, outer: Want) -> Want:
    others = [v for v in known if v is not None]
    if not others:
        return outer
    shape = max((v.shape for v in others), key=len)
    span = max(len(v.axes) for v in others)
    return Want(onto=shape, beside=others[0], span=span or outer.span, channels=any(v.channels for v in others))


def _like_first(at: int, known: Known, params: Mapping[str, Any], tape: Tape, outer: Want) -> Want:
    first = _first(known)
    return outer if first is None else Want(shape=first.shape, beside=first)


def _convolution(at: int, known: Known, params: Mapping[str, Any], tape: Tape, outer: Want) -> Want:
    x = known[0]
    groups = int(params.get("group", 1))
    if at == 0 or x is None:
        return Want(ranks=(4, 3), least=2, groups=groups)
    if len(x.shape) < 3 or x.shape[1] % groups:
        raise Unfit("no such groups")
    outputs = groups * tape.one((2, 1, 3))
    weight = known[1] if len(known) > 1 else None
    if at == 1:
        kernel = tuple(min(size, tape.one((1, 2, 3))) for size in x.shape[2:])
        if params.get("transposed"):
            return Want(shape=(x.shape[1], outputs // groups, *kernel), beside=x)
        return Want(shape=(outputs, x.shape[1] // groups, *kernel), beside=x)
    assert weight is not None
    channels = weight.shape[1] * groups if params.get("transposed") else weight.shape[0]
    return Want(shape=(channels,), beside=x)


def _transposed_convolution(at: int, known: Known, params: Mapping[str, Any], tape: Tape, outer: Want) -> Want:
    return _convolution(at, known, {**params, "transposed": True}, tape, outer)


def _deformable(at: int, known: Known, params: Mapping[str, Any], tape: Tape, outer: Want) -> Want:
    """DeformConv without strides, pads and dilations: what one operand leaves open, another settles."""
    x, weight, offset, _, mask = (*known, *[None] * 5)[:5]
    if at == 0 or x is None:
        return Want(ranks=(4,), least=2)
    if len(x.shape) != 4:
        raise Unfit("no image")
    kernel = (min(x.shape[2], tape.one((2, 1, 3))), min(x.shape[3], tape.one((2, 1, 3))))
    known_size = offset or mask
    if weight is not None:
        kernel = weight.shape[2:]
    elif known_size is not None:
        kernel = (x.shape[2] - known_size.shape[2] + 1, x.shape[3] - known_size.shape[3] + 1)
    size = tuple(length - k + 1 for length, k in zip(x.shape[2:], kernel, strict=True))
    taps = math.prod(kernel)
    if min(*size, *kernel) < 1:
        raise Unfit("the kernel does not fit")
    if at == 1:
        return Want(shape=(tape.one((2, 1, 3)), x.shape[1], *kernel), beside=x)
    if at == 3:
        if weight is None:
            raise Unfit("the number of filters is not known yet")
        return Want(shape=(weight.shape[0],), beside=x)
    return Want(shape=(x.shape[0], taps * (2 if at == 2 else 1), *size), beside=x)


def _gemm(at: int, known: Known, params: Mapping[str, Any], tape: Tape, outer: Want) -> Want:
    a, b = known[0], known[1] if len(known) > 1 else None
    if at == 0 and b is None:
        return Want(ranks=(2,))
    if at == 1 and a is not None:
        inner = a.shape[0 if params.get("transA") else -1]
        width = tape.one(SIZES)
        return Want(shape=(width, inner) if params.get("transB") else (inner, width), beside=a)
    if at == 0 and b is not None:
        inner = b.shape[-1 if params.get("transB") else 0]
        rows = tape.one(SIZES)
        return Want(shape=(inner, rows) if params.get("transA") else (rows, inner), beside=b)
    assert a is not None
    assert b is not None
    rows, width = a.shape[-1 if params.get("transA") else 0], b.shape[0 if params.get("transB") else -1]
    return Want(onto=(rows, width), beside=a, span=1)


def _matmul(at: int, known: Known, params: Mapping[str, Any], tape: Tape, outer: Want) -> Want:
    other = _first(known)
    if other is None:
        return Want(ranks=(2, 3, 4) if outer is ANY else outer.ranks, least=1)
    if not other.shape:
        raise Unfit("MatMul of a scalar")
    inner = other.shape[-1] if at else other.shape[-2 if len(other.shape) > 1 else 0]
    mine = (inner, tape.one(SIZES)) if at else (tape.one(SIZES), inner)
    batch = other.shape[:-2] if tape.chance(30) else ()
    return Want(shape=batch + mine, beside=other)


def _per_channel(at: int, known: Known, params: Mapping[str, Any], tape: Tape, outer: Want) -> Want:
    x = known[0]
    if at == 0 or x is None:
        ranks = tuple(r for r in (4, 3, 2) if r in outer.ranks) or (4, 3, 2)
        return Want(ranks=ranks, least=outer.least, groups=outer.groups)
    if len(x.shape) < 2:
        raise Unfit("no channels")
    return Want(shape=(x.shape[1],), beside=x, numbers="positive" if at == 4 else "normal")


def _normalized(at: int, known: Known, params: Mapping[str, Any], tape: Tape, outer: Want) -> Want:
    x = known[0]
    if at == 0 or x is None:
        return outer._replace(ranks=tuple(r for r in outer.ranks if r) or (2,))
    return Want(shape=x.shape[int(params.get("axis", -1)) :], beside=x)


def _concat(at: int, known: Known, params: Mapping[str, Any], tape: Tape, outer: Want) -> Want:
    first = _first(known)
    if first is None:
        return outer
    axis = int(params.get("axis", 0))
    if not -len(first.shape) <= axis < len(first.shape):
        raise Unfit("no such axis")
    shape = list(first.shape)
    shape[axis] = tape.one(SIZES)
    return Want(shape=tuple(shape), beside=first)


def _expand(at: int, known: Known, params: Mapping[str, Any], tape: Tape, outer: Want) -> Want:
    first = known[0]
    if at == 0 or first is None:
        return outer
    return Want(shape=(max(len(first.shape), 1),), numbers="shape", beside=first)


def _gather(at: int, known: Known, params: Mapping[str, Any], tape: Tape, outer: Want) -> Want:
    first = known[0]
    if at == 0 or first is None:
        return outer
    axis = int(params.get("axis", 0))
    if not -len(first.shape) <= axis < len(first.shape):
        raise Unfit("no such axis")
    return Want(ranks=(1, 0, 2), numbers="index", limit=first.shape[axis], beside=first)


ELEMENTWISE = frozenset(
    {
        "Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Sum", "Mean", "And", "Or", "Xor", "Equal", "Less", "Greater",
        "LessOrEqual", "GreaterOrEqual", "Where", "Mod", "PRelu", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift",
    }
)  # fmt: skip

RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "DeformConv": _deformable,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _per_channel,
    "InstanceNormalization": _per_channel,
    "LayerNormalization": _normalized,
    "RMSNormalization": _normalized,
    "Concat": _concat,
    "Expand": _expand,
    "Gather": _gather,
}


CHANNELS = frozenset({"Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization"})
"""Operators whose results have channels on the second axis."""

SPATIAL = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Resize", "DepthToSpace"})


def wanted(op_type: str, at: int, known: Known, params: Mapping[str, Any], tape: Tape, outer: Want) -> Want:
    """What operand `at` must look like.

    Args:
        op_type: The operator.
        at: Which operand.
        known: Those that are settled; None for the others.
        params: Parameters that are settled.
        tape: Where choices come from.
        outer: What the operator's own result must look like.

    Raises:
        Unfit: Nothing goes together with what is known.
    """
    rule = RULES.get(op_type)
    if rule is not None:
        return rule(at, known, params, tape, outer)._replace(op_type=op_type)
    if at == 0 and op_type in SPATIAL:
        return Want(ranks=(4, 3), least=2, op_type=op_type)
    if at == 0 and (op_type in ("Reshape", "Unsqueeze", "Squeeze", "Transpose", "Flatten") or "Reduce" in op_type):
        ranks = tuple(r for r in (*outer.ranks, 2, 3) if r)
        if outer.shape is not None or outer.onto is not None:
            ranks = (max(1, len(outer.shape or outer.onto or ())), 2, 3)
        return Want(ranks=ranks, op_type=op_type)
    return _like_first(at, known, params, tape, outer)._replace(op_type=op_type)


def settle_ranks(want: Want, params: Mapping[str, Any]) -> Want:
    """Leaves the ranks for which axes that a pattern names are legal."""
    if not ("axes" in params or "axis" in params or "perm" in params):
        return want
    least = 0
    for name in ("axes", "axis", "perm"):
        value = params.get(name)
        numbers: Sequence[Any] = value if isinstance(value, (tuple, list)) else () if value is None else (value,)
        numbers = [n for n in numbers if isinstance(n, int)]
        least = max([least, *(n + 1 if n >= 0 else -n for n in numbers)])
        if name == "perm" and numbers:
            return want._replace(ranks=(len(numbers),))
    if not least:
        return want
    ranks = tuple(r for r in (*want.ranks, least) if r >= least)
    return want._replace(ranks=ranks or want.ranks)


def size(shape: Shape) -> int:
    """How many elements."""
    return math.prod(shape)
