"""The pieces that a pattern is made of.

A pattern describes the value that a piece of graph computes. It is built by tracing a function once, with one
`Var` for each of its parameters, and holds no reference to any graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir


class Pattern:
    """A pattern of one value."""


@dataclass(frozen=True)
class Predicate:
    """A condition on a value, with the words that say what it wants."""

    holds: Callable[[ir.Value], bool]
    wants: str


@dataclass(eq=False)
class Var(Pattern):
    """A named capture; its place says of what: an operand captures a value, a keyword captures a parameter.

    Every place where the same name stands must hold the same thing.
    """

    name: str
    predicates: tuple[Predicate, ...] = ()

    def having(
        self,
        *,
        dtype: ir.DataType | frozenset[ir.DataType] | None = None,
        rank: int | None = None,
        where: Callable[[ir.Value], bool] | None = None,
        wants: str = "another value",
    ) -> Var:
        """The same capture, for values of these dtypes, this rank, or that fulfil `where` (described by `wants`)."""
        added: list[Predicate] = []
        if dtype is not None:
            allowed = frozenset({dtype}) if isinstance(dtype, ir.DataType) else dtype
            names = " or ".join(sorted(d.name for d in allowed))
            added.append(Predicate(lambda v: v.dtype in allowed, f"dtype {names}"))
        if rank is not None:
            added.append(Predicate(lambda v: v.shape is not None and len(v.shape) == rank, f"rank {rank}"))
        if where is not None:
            added.append(Predicate(where, wants))
        return Var(self.name, (*self.predicates, *added))


@dataclass(eq=False)
class ConstantPattern(Pattern):
    """A value that is known before the model runs.

    Attributes:
        var: Captures it, or None.
        single: Whether it must have one element; the capture is then a Python number, else a `Constant`.
        equals: The number that it must be, or None.
        tolerance: Relative tolerance of `equals`.
    """

    var: Var | None = None
    single: bool = False
    equals: float | None = None
    tolerance: float = 1e-6


@dataclass(eq=False)
class Apply:
    """One node: an operator applied to operands.

    Attributes:
        op_types: Operator names, any of which will do.
        domain: Their domain; "" is the standard one.
        inputs: Patterns of the operands.
        params: Patterns of parameters: a number, text or tuple; a `Var`; or an `Optional` of one.
        outputs: How many outputs the pattern speaks of.
        capture: Name under which the node itself is captured, or None. A captured node may have any attributes;
            otherwise those that the pattern does not name must have their default.
    """

    op_types: frozenset[str]
    domain: str
    inputs: tuple[Pattern, ...]
    params: dict[str, Any]
    outputs: int = 1
    capture: str | None = None


@dataclass(eq=False)
class Output(Pattern):
    """Output number `index` of a node."""

    apply: Apply
    index: int = 0

    def named(self, name: str) -> Output:
        """Captures the node under `name`, so that the replacement may copy its attributes."""
        self.apply.capture = name
        return self

    def __iter__(self) -> Iterator[Output]:
        return iter([Output(self.apply, i) for i in range(self.apply.outputs)])


@dataclass(eq=False)
class Either(Pattern):
    """Alternatives, tried in order, with full backtracking."""

    branches: tuple[Pattern, ...]


@dataclass(eq=False)
class Optional(Pattern):
    """An operand or a parameter that may be absent; its captures are then None."""

    inner: Any


Operand = Pattern | float | int


def as_pattern(operand: Operand) -> Pattern:
    """A number in the place of an operand stands for a constant of that value."""
    if isinstance(operand, Pattern):
        return operand
    if not isinstance(operand, (int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"a pattern's operand is a pattern or a number, not {type(operand).__name__}")
    return const(operand)


def const(value: float, *, tolerance: float = 1e-6) -> ConstantPattern:
    """A constant of one element equal to `value` (relative `tolerance`), of any dtype and however it is spelt."""
    return ConstantPattern(single=True, equals=float(value), tolerance=tolerance)


def scalar(var: Var) -> ConstantPattern:
    """A constant of one element; `var` captures it as a Python number."""
    return ConstantPattern(var=var, single=True)


def constant(var: Var) -> ConstantPattern:
    """A constant of any size; `var` captures it as a `Constant`."""
    return ConstantPattern(var=var)


def either(*branches: Operand) -> Either:
    """Any of several patterns; the first that lets the whole match succeed."""
    return Either(tuple(as_pattern(b) for b in branches))


def maybe(wrap: Callable[[Pattern], Operand], inner: Operand) -> Either:
    """`wrap(inner)` where it matches and nothing forbids it, else `inner`; what only `wrap` captures is then None."""
    kept = as_pattern(inner)
    return Either((as_pattern(wrap(kept)), kept))


def optional(inner: Any) -> Optional:
    """A trailing operand, or a parameter, that may be absent."""
    return Optional(as_pattern(inner) if isinstance(inner, Pattern) else inner)


@dataclass(eq=False)
class Traced:
    """A traced pattern function: what it returned, and the names that it can capture."""

    roots: tuple[Output | Either, ...]
    names: frozenset[str]
    source: str = field(default="pattern")


def walk(pattern: Pattern, seen: set[int] | None = None) -> Iterator[Pattern]:
    """Every pattern below `pattern`, itself included, once each."""
    seen = set() if seen is None else seen
    if id(pattern) in seen:
        return
    seen.add(id(pattern))
    yield pattern
    children: Sequence[Any]
    if isinstance(pattern, Output):
        children = (*pattern.apply.inputs, *pattern.apply.params.values())
    elif isinstance(pattern, Either):
        children = pattern.branches
    elif isinstance(pattern, Optional):
        children = (pattern.inner,)
    elif isinstance(pattern, ConstantPattern):
        children = (pattern.var,)
    else:
        children = ()
    for child in children:
        if isinstance(child, Pattern):
            yield from walk(child, seen)
