"""Steps: the parts of a pattern that match any number of times, in `repeat` and in `rest`.

All ways in which one step can match are found before the next step is tried, and a loop searches among them, not a
recursion: a chain may be longer than Python's stack is deep. A finished step's nodes and captures are moved out of
the way, so that the next one binds the same names and pattern nodes anew.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import onnx_ir as ir

from onnx_rewrite.match.state import Constant, Goal, State, ValueGoal, label
from onnx_rewrite.match.twins import same_computation
from onnx_rewrite.pattern.language import Repeat, Rest, Step, key_in, own_names, shown_name

# Ways that are tried at one place; alternatives that all match would otherwise be multiplied along a chain.
MAX_TRIED = 200_000

Enter = Callable[[State, ir.Node, Goal], bool]
RestGoal = Callable[[State, ir.Node, Sequence["ir.Value | None"], Goal], bool]
_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass
class Way:
    """One way in which a step matches: what it adds to the state.

    Attributes:
        hole: What its operand captured, or None.
        own: What its own names captured.
        bound: Captures from outside of it that it was the first to bind.
        nodes: Nodes of the pattern outside of it, likewise.
        owned: All nodes that are now taken, and by what.
        extra: Duplicates and Identities.
        steps: Its own nodes.
    """

    hole: Any
    own: dict[str, Any]
    bound: list[tuple[str, Any]]
    nodes: list[tuple[int, ir.Node]]
    owned: list[tuple[ir.Node, int]]
    extra: list[ir.Node]
    steps: list[ir.Node]

    def take(self, state: State) -> None:
        """Adds it to the state."""
        state.bound.update(self.bound)
        state.nodes.update(self.nodes)
        state.owned.update(self.owned)
        state.extra += self.extra
        state.steps += self.steps

    def undo(self, state: State) -> None:
        """Takes it away again; it must be what was added last."""
        for added, things in ((self.bound, state.bound), (self.nodes, state.nodes), (self.owned, state.owned)):
            for key, _ in added:
                del things[key]  # type: ignore[arg-type]
        if self.extra:
            del state.extra[-len(self.extra) :]
        if self.steps:
            del state.steps[-len(self.steps) :]

    def token(self) -> object:
        """What tells it from other ways."""
        captured = (self.hole, *self.own.items(), *self.bound)
        return _token(captured), frozenset((*self.steps, *self.extra)), tuple(self.nodes)


def _token(thing: Any) -> Any:
    if isinstance(thing, tuple):
        return tuple(map(_token, thing))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return thing.value if isinstance(thing, Constant) else thing


class CompiledStep:
    """A step whose body is compiled.

    Args:
        step: The step.
        body: The goal of its body.
        numbers: Numbers of the pattern nodes that are its own.
        archive: Owner of the nodes of finished steps.
    """

    def __init__(self, step: Step, body: ValueGoal, numbers: frozenset[int], archive: int) -> None:
        # Each name, under which key one run binds it, and under which key the tuple of all runs is bound.
        self.names = [(key_in(step, name), key_in(step.home, name)) for name in sorted(own_names(step))]
        self._hole = step.hole.name
        self._body = body
        self._numbers = numbers
        self._archive = archive

    def ways(self, state: State, value: ir.Value | None) -> list[Way]:
        """All ways in which the step matches `value`, the preferred first; the state is as it was before."""
        found: list[Way] = []
        bound, nodes, owned = len(state.bound), len(state.nodes), len(state.owned)
        extra, steps = len(state.extra), len(state.steps)

        def note(s: State) -> bool:
            things = dict(_tail(s.bound, bound))
            own = {key: things.pop(key, None) for key, _ in self.names}
            hole = things.pop(self._hole, None)
            added = _tail(s.nodes, nodes)
            found.append(
                Way(
                    hole,
                    own,
                    list(things.items()),
                    [(number, node) for number, node in added if number not in self._numbers],
                    [(n, self._archive if by in self._numbers else by) for n, by in _tail(s.owned, owned)],
                    s.extra[extra:],
                    [*(node for number, node in added if number in self._numbers), *s.steps[steps:]],
                )
            )
            return False

        self._body(state, value, note)
        if len(found) < 2:
            return found
        distinct: dict[object, Way] = {}
        for way in found:
            distinct.setdefault(way.token(), way)
        return list(distinct.values())


def _tail(things: dict[_K, _V], start: int) -> list[tuple[_K, _V]]:
    """What was added to a dictionary since it had `start` entries, without a look at those."""
    return list(itertools.islice(reversed(things.items()), len(things) - start))[::-1]


def bind_step(archive: int) -> Callable[[State, int, ir.Node, Enter, Goal], bool]:
    """How a pattern node of a step matches a graph node: as any other, but finished steps may share their nodes."""

    def bind(state: State, number: int, node: ir.Node, enter: Enter, then: Goal) -> bool:
        taken = state.owned
        owner = taken.get(node)
        if owner == archive:
            taken = state.again
            owner = taken.get(node)
        if owner == number:
            return then(state)
        if owner is not None:
            return state.fail(node, lambda: f"{label(node)} matched another part of the pattern already")
        first = state.nodes.get(number)
        taken[node] = number
        if first is None:
            state.nodes[number] = node
            if enter(state, node, then):
                return True
            del state.nodes[number]
        elif same_computation(first, node, state.scope.constants):
            state.extra.append(node)
            if then(state):
                return True
            state.extra.pop()
        else:
            state.fail(node, lambda: f"{label(node)} does not compute the same as {label(first)}")
        del taken[node]
        return False

    return bind


def repeat_goal(pattern: Repeat, step: CompiledStep, inner: ValueGoal) -> ValueGoal:
    """The goal of a chain of steps: the longest first."""
    least, most = pattern.least, pattern.most

    def match(state: State, value: ir.Value | None, then: Goal) -> bool:
        taken: list[Way] = []

        def finish(s: State) -> bool:
            return _bind_all(
                s, [(key, tuple(way.own[one] for way in reversed(taken))) for one, key in step.names], then
            )

        def ways(s: State, at: ir.Value | None) -> Iterator[Way]:
            journal, depth = s.journal, len(s.nodes) + len(s.steps)
            before = 0 if journal is None else len(journal)
            found = step.ways(s, at)
            if journal is not None and not found and len(taken) >= least:
                # That a chain ends is no failure; that a further step was begun and failed is one.
                journal[before:] = [failure for failure in journal[before:] if failure.depth > depth]
            return iter(found)

        tried = 0
        waiting = [(value, ways(state, value))]
        while waiting:
            at, further = waiting[-1]
            way = next(further, None)
            if way is not None:
                way.take(state)
                taken.append(way)
                tried += 1
                more = (most is None or len(taken) < most) and tried < MAX_TRIED
                waiting.append((way.hole, ways(state, way.hole) if more else iter(())))
                continue
            if len(taken) >= least:
                if inner(state, at, finish):
                    return True
            else:
                done = len(taken)
                state.fail(at, lambda: f"the pattern repeats at least {least} times, and here {done} times")  # noqa: B023
            waiting.pop()
            if taken:
                taken.pop().undo(state)
        return False

    return match


def rest_goal(pattern: Rest, step: CompiledStep | None) -> RestGoal:
    """The goal of all operands that no other pattern stands for."""
    name, least, most = pattern.var.name, pattern.least, pattern.most
    shown = shown_name(name)

    def counted(state: State, node: ir.Node, values: Sequence[ir.Value | None]) -> bool:
        if len(values) < least or (most is not None and len(values) > most):
            wanted = f"at least {least}" if len(values) < least else f"at most {most}"
            return state.fail(
                node, lambda: f"{label(node)} has {len(values)} operands for '{shown}', which needs {wanted}"
            )
        if any(value is None for value in values):
            return state.fail(node, lambda: f"{label(node)} leaves out an operand that '{shown}' stands for")
        return True

    def plain(state: State, node: ir.Node, values: Sequence[ir.Value | None], then: Goal) -> bool:
        return counted(state, node, values) and _bind_all(state, [(name, tuple(values))], then)

    if step is None:
        return plain

    def each(state: State, node: ir.Node, values: Sequence[ir.Value | None], then: Goal) -> bool:
        if not counted(state, node, values):
            return False
        taken: list[Way] = []

        def ways() -> Any:
            return iter(step.ways(state, values[len(taken)]) if len(taken) < len(values) else ())

        def finish(s: State) -> bool:
            own = [(key, tuple(way.own[one] for way in taken)) for one, key in step.names]
            return _bind_all(s, [(name, tuple(way.hole for way in taken)), *own], then)

        tried = 0
        waiting = [ways()]
        while waiting:
            way = next(waiting[-1], None) if tried < MAX_TRIED else None
            if way is not None:
                way.take(state)
                taken.append(way)
                tried += 1
                waiting.append(ways())
                continue
            if len(taken) == len(values) and finish(state):
                return True
            waiting.pop()
            if taken:
                taken.pop().undo(state)
        return False

    return each


def _bind_all(state: State, things: list[tuple[str, Any]], then: Goal) -> bool:
    """Binds captures that are complete, and goes on."""
    added: list[str] = []
    for name, thing in things:
        bound = state.bound.get(name)
        if bound is None:
            state.bound[name] = thing
            added.append(name)
        elif not same_captured(state, bound, thing):
            state.fail(None, lambda: f"'{shown_name(name)}' would be two different lists")  # noqa: B023
            break
    else:
        if then(state):
            return True
    for name in added:
        del state.bound[name]
    return False


def same_captured(state: State, a: Any, b: Any) -> bool:
    """Whether two captures are the same: the same value or node, or equal constants, numbers or tuples."""
    if a is b:
        return True
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(same_captured(state, x, y) for x, y in zip(a, b, strict=True))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if isinstance(a, Constant) and isinstance(b, Constant):
        return a.same(b)
    if isinstance(a, ir.Value) and isinstance(b, ir.Value):
        constants = state.scope.constants
        both = constants.is_constant(a) and constants.is_constant(b)
        return both and Constant(a, constants).same(Constant(b, constants))
    return not isinstance(a, (ir.Value, ir.Node)) and bool(a == b)
