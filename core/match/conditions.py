"""Conditions on what is captured: dtype, rank, shape, symbols, broadcasting, and whatever a pass asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import onnx_ir as ir

from onnx_rewrite.match.state import Constant, Dim, Goal, State, ValueGoal, label
from onnx_rewrite.pattern.language import Conditional, Traced, Var, shown_name, step_of, walk
from onnx_rewrite.pattern.predicates import Dims, spelt

Shape = ir.Shape | tuple[int, ...]


def unfulfilled(pattern: Conditional, typed: ir.Value | Constant | None, captured: Any) -> str | None:
    """What is wrong, in words that follow the thing's name, by the conditions that look at one thing; or None.

    Args:
        pattern: Has the conditions.
        typed: What has dtype and shape.
        captured: What the replacement would see.
    """
    for predicate in pattern.predicates:
        wrong = predicate.fails(typed if predicate.typed else captured)
        if wrong is not None:
            return wrong
    return None


def conditional(pattern: Conditional, goal: ValueGoal) -> ValueGoal:
    """A goal that also asks for the pattern's conditions, once the value has matched."""

    def match(state: State, value: ir.Value | None, then: Goal) -> bool:
        def fulfilled(s: State) -> bool:
            wrong = unfulfilled(pattern, value, value)
            if wrong is not None:
                return s.fail(value, lambda: f"{label(value)} {wrong}")
            return with_shapes(s, pattern.shapes, value, value, then)

        return goal(state, value, fulfilled)

    return match


def with_shapes(
    state: State, shapes: Sequence[Dims], value: ir.Value | None, typed: ir.Value | Constant | None, then: Goal
) -> bool:
    """Goes on if the value has all these shapes, with their symbols bound."""
    if not shapes or value is None or typed is None:
        return then(state)
    added: list[str] = []
    for dims in shapes:
        wrong = _unify(state, value, typed.shape, dims, added)
        if wrong is not None:
            break
    else:
        if then(state):
            return True
        wrong = None
    for name in reversed(added):
        del state.bound[name]
    return False if wrong is None else state.fail(value, lambda: f"{label(value)} {wrong}")


def _unify(state: State, value: ir.Value, shape: Shape | None, dims: Dims, added: list[str]) -> str | None:
    """Binds the symbols of one shape; what is wrong, or None."""
    if shape is None:
        return f"has a shape that is not known; the pattern needs {spelt(dims)}"
    wanted: list[Any] = list(dims)
    if ... in wanted:
        at = wanted.index(...)
        wanted[at : at + 1] = [None] * (len(shape) - len(wanted) + 1)
    if len(wanted) != len(shape):
        return f"has shape {shown(shape)}; the pattern needs {spelt(dims)}"
    for axis, (want, have) in enumerate(zip(wanted, shape, strict=True)):
        if want is None:
            continue
        if not isinstance(have, int) and have.value is None:
            return f"has a dimension {axis} that is not known; the pattern needs {spelt(dims)}"
        if isinstance(want, int):
            if have != want:
                return f"has shape {shown(shape)}; the pattern needs {spelt(dims)}"
            continue
        here = Dim(have, None if isinstance(have, int) else value.graph)
        bound: Dim | None = state.bound.get(want)
        if bound is None:
            state.bound[want] = here
            added.append(want)
        elif not equal_dims(bound, here):
            return f"has shape {shown(shape)}; the pattern needs {spelt(dims)}, where {want} is {shown_dim(bound.size)}"
    return None


def equal_dims(a: Dim, b: Dim) -> bool:
    """Whether two dimensions are known to be equal: the same number, or the same symbol of the same graph."""
    if isinstance(a.size, int) or isinstance(b.size, int):
        return a.size == b.size
    return a.size.value is not None and a.size.value == b.size.value and a.graph is b.graph


def shown(shape: Shape | None) -> str:
    """A shape as messages show it."""
    return "that is not known" if shape is None else "[" + ", ".join(map(shown_dim, shape)) + "]"


def shown_dim(dim: int | ir.SymbolicDim) -> str:
    """A dimension as messages show it."""
    return str(dim) if isinstance(dim, int) else dim.value or "?"


# -- relations between captures, looked at when everything is bound

Relation = tuple[str, str]
"""A capture, and one to whose shape it must broadcast."""


def relations_of(traced: Traced) -> tuple[Relation, ...]:
    """The relations that a pattern asks for."""
    seen: set[int] = set()
    parts = [part for root in traced.roots for part in walk(root, seen)]
    holes = {step.hole.name: getattr(part, "var", step.hole).name for part in parts if (step := step_of(part))}
    return tuple(
        (shown_name(holes.get(part.name, part.name)), shown_name(holes.get(target.name, target.name)))
        for part in parts
        if isinstance(part, Var)
        for target in part.targets
    )


def related(state: State, relations: Sequence[Relation]) -> bool:
    """Whether all relations hold of what is bound."""
    for name, other in relations:
        small, large = list(_values(state.bound.get(name))), list(_values(state.bound.get(other)))
        pairs = zip(small, large) if len(small) == len(large) else ((a, b) for a in small for b in large)  # noqa: B905
        for a, b in pairs:
            wrong = _cannot_broadcast(a, b)
            if wrong is not None:
                value = a.value if isinstance(a, Constant) else a
                return state.fail(value, lambda: f"{label(value)} {wrong}")  # noqa: B023
    return True


def _values(thing: Any) -> Iterator[ir.Value | Constant]:
    if isinstance(thing, tuple):
        for one in thing:  # pyright: ignore[reportUnknownVariableType]
            yield from _values(one)
    elif isinstance(thing, (ir.Value, Constant)):
        yield thing


def _cannot_broadcast(a: ir.Value | Constant, b: ir.Value | Constant) -> str | None:
    """Why `a` does not broadcast to the shape of `b` without changing it, or None."""
    small, large = a.shape, b.shape
    target = label(b.value if isinstance(b, Constant) else b)
    if small is None or (large is None and len(small) > 0):
        return f"has shape {shown(small)} and {target} has shape {shown(large)}: whether it broadcasts is not known"
    aligned: list[Any] = [] if large is None else list(large)
    graphs = tuple(None if isinstance(v, Constant) else v.graph for v in (a, b))
    fits = len(small) <= len(aligned)
    for one, other in zip(reversed(list(small)), reversed(aligned)):  # noqa: B905
        fits = fits and (one == 1 or equal_dims(Dim(one, graphs[0]), Dim(other, graphs[1])))
    return None if fits else f"of shape {shown(small)} does not broadcast to {target} of shape {shown(large)}"
