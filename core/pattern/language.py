"""The pieces that a pattern is made of.

A pattern describes the value that a piece of graph computes. It is built by tracing a function once, with one
`Var` for each of its parameters, and holds no reference to any graph.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

import onnx_ir as ir

from onnx_rewrite.analysis.product import CONTRACTIONS
from onnx_rewrite.pattern.errors import PatternError
from onnx_rewrite.pattern.predicates import Dims, Predicate, checked_dims, fulfilling, of_dtype, of_rank

Self = TypeVar("Self", bound="Conditional")


class Pattern:
    """A pattern of one value."""


@dataclass(eq=False)
class Conditional(Pattern):
    """A pattern that may ask more of its value.

    Attributes:
        predicates: Conditions on the value alone.
        shapes: Shapes that it must have; a symbol in them is the same dimension wherever it stands.
    """

    predicates: tuple[Predicate, ...] = field(default=(), kw_only=True)
    shapes: tuple[Dims, ...] = field(default=(), kw_only=True)

    def having(
        self: Self,
        *,
        dtype: ir.DataType | frozenset[ir.DataType] | None = None,
        rank: int | None = None,
        where: Callable[[Any], bool] | None = None,
        wants: str = "what the pattern needs",
    ) -> Self:
        """The same, for values of these dtypes, this rank, or that fulfil `where` (described by `wants`)."""
        added: list[Predicate] = []
        if dtype is not None:
            added.append(of_dtype(dtype))
        if rank is not None:
            added.append(of_rank(rank))
        if where is not None:
            added.append(fulfilling(where, wants, typed=True))
        return dataclasses.replace(self, predicates=(*self.predicates, *added))

    def shaped(self: Self, *dims: Any) -> Self:
        """The same, for values of this shape.

        Args:
            dims: For each dimension a number, None for any, or a name: dimensions of one name must be equal, as
                numbers or as symbols of one graph, and the match has the first as an attribute. One `...` stands
                for any number of dimensions. What is not known is equal to nothing.

        Raises:
            PatternError: A dimension is none of these.
        """
        return dataclasses.replace(self, shapes=(*self.shapes, checked_dims(dims)))


@dataclass(eq=False)
class Var(Conditional):
    """A named capture; its place says of what: an operand captures a value, a keyword captures a parameter.

    Every place where the same name stands must hold the same thing.

    Attributes:
        name: The name; what follows an "@" says of which step it is, and is not shown.
        targets: Captures to whose shape this one must broadcast.
    """

    name: str
    targets: tuple[Var, ...] = ()

    def broadcasts_to(self, other: Var) -> Var:
        """The same capture, for values that broadcast to the shape of `other` without changing it.

        Both shapes must be known as far as that takes. It holds where either is absent.
        """
        if not isinstance(other, Var):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise PatternError(f"a capture broadcasts to another capture, not to {type(other).__name__}")
        return dataclasses.replace(self, targets=(*self.targets, other))


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
        opsets: First and last version of the domain for which it is meant; None: no bound.
        home: The step that it is a part of, or None: it is made anew each time.
        contracts: Whether it is a product of matrices, however that is spelt; `inputs` are then its two operands.
    """

    op_types: frozenset[str]
    domain: str
    inputs: tuple[Pattern, ...]
    params: dict[str, Any]
    outputs: int = 1
    capture: str | None = None
    opsets: tuple[int | None, int | None] = (None, None)
    home: Step | None = None
    contracts: bool = False

    def __post_init__(self) -> None:
        rests = [i for i in self.inputs if isinstance(i, Rest)]
        called = "/".join(sorted(self.op_types))
        if len(rests) > 1:
            raise PatternError(f"{called} has one rest of operands, not {len(rests)}")
        if rests and any(isinstance(i, Optional) for i in self.inputs):
            raise PatternError(f"{called} has optional operands and a rest: which operand is which?")


@dataclass(eq=False)
class Output(Conditional):
    """Output number `index` of a node."""

    apply: Apply
    index: int = 0

    def named(self, name: str) -> Output:
        """Captures the node under `name`, so that the replacement may copy its attributes."""
        self.apply.capture = name
        return self

    def opset(self, *, since: int | None = None, until: int | None = None) -> Output:
        """The same, only where the opset of the operator's domain is at least `since` and at most `until`."""
        if since is not None and until is not None and since > until:
            raise PatternError(f"no opset is at least {since} and at most {until}")
        self.apply.opsets = (since, until)
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


@dataclass(eq=False)
class Step:
    """A part of a pattern that matches any number of times, each time with captures and nodes of its own.

    Attributes:
        number: Tells it from other steps.
        hole: Its operand: the value from which it goes on, or what an element captures.
        names: Captures of its own; the match has a tuple of each.
        home: The step that it is a part of itself, or None.
        body: What it matches.
    """

    number: int
    hole: Var
    names: tuple[str, ...]
    home: Step | None
    body: Pattern = field(default_factory=Pattern)

    @property
    def outermost(self) -> Step:
        """The step that is a part of no other and has this one as a part, or is it."""
        return self if self.home is None else self.home.outermost


@dataclass(eq=False)
class Repeat(Pattern):
    """A chain of equal steps that ends in `inner`; as many steps as there are, at least and at most so many."""

    step: Step
    inner: Pattern
    least: int
    most: int | None


@dataclass(eq=False)
class Rest(Pattern):
    """All operands that no other pattern stands for; `var` captures a tuple."""

    var: Var
    each: Step | None
    least: int
    most: int | None


@dataclass(eq=False)
class View(Pattern):
    """A value seen through operators that only move elements; `var` captures what lies on the way."""

    inner: Pattern
    var: Var


Operand = Pattern | float | int

making: ContextVar[Step | None] = ContextVar("onnx_rewrite_making", default=None)
_serial = itertools.count()


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
    return ConstantPattern(var=_captured(var, "scalar"), single=True)


def constant(var: Var) -> ConstantPattern:
    """A constant of any size; `var` captures it as a `Constant`."""
    return ConstantPattern(var=_captured(var, "constant"))


def _captured(var: Any, called: str) -> Var:
    if not isinstance(var, Var):
        raise PatternError(f"{called}(...) takes a capture, a parameter of the pattern, not {type(var).__name__}")
    return var


def either(*branches: Operand) -> Either:
    """Any of several patterns; the first that lets the whole match succeed."""
    if not branches:
        raise PatternError("either(...) needs a pattern")
    return Either(tuple(as_pattern(b) for b in branches))


def maybe(wrap: Callable[[Pattern], Operand], inner: Operand) -> Either:
    """`wrap(inner)` where it matches and nothing forbids it, else `inner`; what only `wrap` captures is then None."""
    kept = as_pattern(inner)
    return Either((as_pattern(wrap(kept)), kept))


def optional(inner: Any) -> Optional:
    """A trailing operand, or a parameter, that may be absent."""
    return Optional(as_pattern(inner) if isinstance(inner, Pattern) else inner)


def rest(var: Var, each: Callable[..., Operand] | None = None, *, least: int = 0, most: int | None = None) -> Rest:
    """All operands that no other pattern of the operator stands for, in their order; any number of them.

    `op.Concat(first, rest(others), axis=1)`; in a commutative operator the named operands may stand anywhere.

    Args:
        var: Captures a tuple, with one element per operand.
        each: What each of them must be: a function of a capture, such as `constant`, or
            `lambda v: op.Relu(v)`; `var` is then a tuple of what that captures. Its further parameters are
            captures of their own, and the match has a tuple of each.
        least: How many there are at least.
        most: How many there are at most, or None.

    Raises:
        PatternError: `var` is no capture, or the numbers make no sense.
    """
    _check_range("rest", least, most)
    _captured(var, "rest")
    return Rest(var, None if each is None else _step(each, "rest", var.name), least, most)


def repeat(step: Callable[..., Operand], inner: Operand, *, least: int = 0, most: int | None = None) -> Repeat:
    """A chain of equal steps on top of `inner`: the longest that lets the whole match succeed.

    `repeat(lambda v: op.Relu(v).named("relus"), x)`. The match has a tuple, in the order in which they compute, of
    whatever a step captures: the nodes that it names, and the function's parameters after the first
    (`lambda v, bound: op.Max(v, constant(bound))`). Captures from outside must be the same in every step.

    Args:
        step: One step: a function of the value that it goes on from.
        inner: What the first step goes on from.
        least: The smallest number of steps.
        most: The largest, or None.

    Raises:
        PatternError: A step is no operator, does not use its value, or the numbers make no sense.
    """
    _check_range("repeat", least, most)
    made = _step(step, "repeat")
    if not all(isinstance(leaf, Output) for leaf in leaves(made.body)):
        raise PatternError("a step of repeat(...) must be the result of an operator")
    if not _always_reads(made.body, made.hole.name):
        raise PatternError("a step of repeat(...) must use the value that it goes on from, in every alternative")
    return Repeat(made, as_pattern(inner), least, most)


def view(inner: Operand, steps: Var) -> View:
    """`inner`, seen through as many operators as stand there that only move elements.

    These are Reshape, Transpose, Squeeze, Unsqueeze, Flatten, Identity, Expand, Slice, Split, and Gather by constant
    indices. Several views may share them, and so may the rest of the graph: what something else needs stays.

    Args:
        inner: What is seen: the first value on the way that no such operator gives.
        steps: Captures the values on the way, a tuple, in the order in which they are computed; empty if there are
            none. `onnx_rewrite.analysis.layout.through` tells what they amount to.
    """
    return View(as_pattern(inner), _captured(steps, "view"))


def product(left: Operand, right: Operand) -> Output:
    """The product of two stacks of matrices: MatMul, or an Einsum that is one but for the order of axes.

    `onnx_rewrite.analysis.product.product_of` tells, of the node that `.named` captures, how the axes of its operands
    and of its result are those of the stacks. An Einsum's operands are told by what they give the result, whichever
    stands first: the right one gives the last of the indices that one operand alone has.

    Args:
        left: [batch..., rows, inner].
        right: [batch..., inner, columns].
    """
    operands = as_pattern(left), as_pattern(right)
    return Output(Apply(CONTRACTIONS, "", operands, {}, home=making.get(), contracts=True))


def where(pattern: Any, function: Callable[[Any], bool], wants: str) -> Any:
    """The same pattern, if `function` holds of what it captures.

    Args:
        pattern: A capture, also within `scalar`, `constant` or `optional`, or the result of an operator.
        function: Told what the replacement would see: a value, a `Constant`, a number, or a parameter's value.
        wants: What is needed, in words that follow "is not": "a power of two".

    Raises:
        PatternError: The pattern captures nothing.
    """
    if isinstance(pattern, ConstantPattern) and pattern.var is not None:
        return dataclasses.replace(pattern, var=where(pattern.var, function, wants))
    if isinstance(pattern, Optional):
        return Optional(where(pattern.inner, function, wants))
    if not isinstance(pattern, Conditional):
        raise PatternError(f"where(...) takes a capture or the result of an operator, not {type(pattern).__name__}")
    return dataclasses.replace(pattern, predicates=(*pattern.predicates, fulfilling(function, wants)))


def _check_range(called: str, least: int, most: int | None) -> None:
    if least < 0 or (most is not None and most < max(least, 1)):
        raise PatternError(f"{called}(...): no number is at least {least} and at most {most}")


def _step(function: Callable[..., Operand], called: str, shown: str = "") -> Step:
    """Calls the function of a step with a capture of its own for each parameter; `shown` names the first."""
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.kind in plain and p.default is p.empty]
    if not names:  # such as an operator of `op`, which takes any number of operands
        names = [p.name for p in parameters if p.kind is p.VAR_POSITIONAL]
    if not names:
        raise PatternError(f"the function in {called}(...) needs a parameter")
    number = next(_serial)
    step = Step(number, Var(f"{shown or names[0]}@{number}."), tuple(names[1:]), making.get())
    token = making.set(step)
    try:
        step.body = as_pattern(function(step.hole, *(Var(key_in(step, name)) for name in names[1:])))
    finally:
        making.reset(token)
    return step


def _always_reads(pattern: Any, name: str) -> bool:
    """Whether a value is captured by this name, whichever alternative is chosen."""
    if isinstance(pattern, Var):
        return pattern.name == name
    if isinstance(pattern, Output):
        return any(_always_reads(i, name) for i in pattern.apply.inputs)
    if isinstance(pattern, Either):
        return all(_always_reads(b, name) for b in pattern.branches)
    return isinstance(pattern, (Repeat, View)) and _always_reads(pattern.inner, name)


@dataclass(eq=False)
class Traced:
    """A traced pattern function: what it returned, and the names that it can capture."""

    roots: tuple[Output | Either | Repeat, ...]
    names: frozenset[str]
    source: str = field(default="pattern")


def leaves(pattern: Pattern) -> list[Pattern]:
    """What a pattern may be once its alternatives are chosen."""
    if isinstance(pattern, Either):
        return [leaf for branch in pattern.branches for leaf in leaves(branch)]
    if isinstance(pattern, Optional):
        return leaves(pattern.inner)
    if isinstance(pattern, Repeat):
        return [*leaves(pattern.step.body), *([] if pattern.least else leaves(pattern.inner))]
    return [pattern]


def children(pattern: Any) -> Sequence[Any]:
    """The parts of which a pattern consists directly, values and parameters alike."""
    if isinstance(pattern, Output):
        return (*pattern.apply.inputs, *pattern.apply.params.values())
    if isinstance(pattern, Either):
        return pattern.branches
    if isinstance(pattern, Optional):
        return (pattern.inner,)
    if isinstance(pattern, ConstantPattern):
        return (pattern.var,)
    if isinstance(pattern, Repeat):
        return (pattern.step.body, pattern.inner)
    if isinstance(pattern, Rest):
        return (pattern.var,) if pattern.each is None else (pattern.var, pattern.each.body)
    if isinstance(pattern, View):
        return (pattern.inner, pattern.var)
    return ()


def walk(pattern: Pattern, seen: set[int] | None = None) -> Iterator[Pattern]:
    """Every pattern below `pattern`, itself included, once each."""
    seen = set() if seen is None else seen
    if id(pattern) in seen:
        return
    seen.add(id(pattern))
    yield pattern
    for child in children(pattern):
        if isinstance(child, Pattern):
            yield from walk(child, seen)


def step_of(pattern: Any) -> Step | None:
    """The step of a repeat, or of a rest whose elements have a pattern."""
    return pattern.step if isinstance(pattern, Repeat) else pattern.each if isinstance(pattern, Rest) else None


def key_in(step: Step | None, name: str) -> str:
    """Under which key a name is bound: what a step captures is not what a match has, a tuple of all."""
    return name if step is None else f"{name}@{step.number}"


def shown_name(key: str) -> str:
    """The name as its author wrote it."""
    return key.partition("@")[0]


def own_names(step: Step) -> frozenset[str]:
    """Names that each run of a step captures anew: its parameters, its nodes, and those of steps within it."""
    found = set(step.names)
    for part in walk(step.body):
        inner = step_of(part)
        if inner is not None and inner.home is step:
            found |= own_names(inner)
        if isinstance(part, Output) and part.apply.home is step and part.apply.capture is not None:
            found.add(part.apply.capture)
    return frozenset(found)
