"""Compiles a traced pattern into goals: functions that match a value and then go on with what remains.

Matching in continuation-passing style makes backtracking complete without copying any state: a goal binds, calls
what remains, and undoes its binding if that fails. What remains ends in the caller's `accept`, so that a refusal
there (a condition of the pass, an interior value that is used elsewhere) also backtracks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from onnx_rewrite.analysis.layout import moves
from onnx_rewrite.analysis.product import product_of
from onnx_rewrite.match.conditions import conditional, unfulfilled, with_shapes
from onnx_rewrite.match.params import ParamGoal, compile_params, is_bare
from onnx_rewrite.match.state import Constant, Goal, State, ValueGoal, label
from onnx_rewrite.match.steps import CompiledStep, Enter, RestGoal, bind_step, repeat_goal, rest_goal
from onnx_rewrite.match.twins import same_computation
from onnx_rewrite.opset.forms import COMMUTATIVE, PARAMETERS
from onnx_rewrite.opset.view import is_onnx, operands
from onnx_rewrite.pattern.language import (
    Apply,
    ConstantPattern,
    Either,
    Optional,
    Output,
    Pattern,
    Repeat,
    Rest,
    Step,
    Traced,
    Var,
    View,
    key_in,
    shown_name,
)

# Steps that one view looks through.
MAX_VIEW = 24

__all__ = ["Compiler", "compile_roots", "label"]


class Compiler:
    """Compiles the patterns of one traced function; shared sub-patterns are compiled once."""

    def __init__(self) -> None:
        self._values: dict[int, ValueGoal] = {}
        self._numbers: dict[int, int] = {}
        self._archives: dict[int, int] = {}
        self.applies: list[Apply] = []

    def number(self, apply: Apply) -> int:
        """The pattern node's number, given at its first mention."""
        number = self._numbers.get(id(apply))
        if number is None:
            number = self._numbers[id(apply)] = len(self.applies)
            self.applies.append(apply)
        return number

    def value(self, pattern: Pattern) -> ValueGoal:
        """The goal of a pattern, compiled at its first mention."""
        known = self._values.get(id(pattern))
        if known is None:
            known = self._values[id(pattern)] = self._compile(pattern)
        return known

    def _compile(self, pattern: Pattern) -> ValueGoal:
        if isinstance(pattern, Var):
            return _capture(pattern)
        if isinstance(pattern, ConstantPattern):
            return _constant(pattern)
        if isinstance(pattern, Output):
            goal = self._output(pattern)
            return conditional(pattern, goal) if pattern.predicates or pattern.shapes else goal
        if isinstance(pattern, Either):
            return self._either(pattern)
        if isinstance(pattern, Repeat):
            return repeat_goal(pattern, self._step(pattern.step), self.value(pattern.inner))
        if isinstance(pattern, Optional):
            return self._optional(pattern)
        if isinstance(pattern, View):
            return _view(pattern, self.value(pattern.inner))
        raise TypeError(f"not a pattern: {pattern!r}")

    def _step(self, step: Step) -> CompiledStep:
        body = self.value(step.body)
        own = frozenset(number for number, apply in enumerate(self.applies) if apply.home is step)
        return CompiledStep(step, body, own, self._archive(step))

    def _archive(self, step: Step) -> int:
        """What owns the nodes of finished steps: a number that no node of the pattern has."""
        return self._archives.setdefault(id(step.outermost), -1 - len(self._archives))

    def _either(self, pattern: Either) -> ValueGoal:
        branches = [(_heads(b), self.value(b)) for b in pattern.branches]

        def match(state: State, value: ir.Value | None, then: Goal) -> bool:
            node = None if value is None else value.producer()
            operator = None if node is None else node.op_type
            for heads, branch in branches:
                # Most branches fail at the first operator: that is seen here without entering them.
                possible = heads is None or operator in heads or state.journal is not None
                if possible and branch(state, value, then):
                    return True
            return False

        return match

    def _optional(self, pattern: Optional) -> ValueGoal:
        inner = self.value(pattern.inner)

        def match(state: State, value: ir.Value | None, then: Goal) -> bool:
            return then(state) if value is None else inner(state, value, then)

        return match

    def _output(self, pattern: Output) -> ValueGoal:
        apply, index = pattern.apply, pattern.index
        number, types, domain = self.number(apply), apply.op_types, apply.domain
        standard = is_onnx(domain)
        enter = self._apply(apply) if apply.opsets == (None, None) else _between(apply, self._apply(apply))
        bind = _bind if apply.home is None else bind_step(self._archive(apply.home))

        def match(state: State, value: ir.Value | None, then: Goal) -> bool:
            node = value.producer() if value is not None else None
            passed = 0
            while node is not None and node.op_type == "Identity" and "Identity" not in types and is_onnx(node.domain):
                value = node.inputs[0]
                state.extra.append(node)
                passed += 1
                node = value.producer() if value is not None else None
            if (
                node is not None
                and node.op_type in types
                and (node.domain == domain or (standard and is_onnx(node.domain)))
                and value is not None
                and value.index() == index
                and node.graph is state.scope.graph
            ):
                if bind(state, number, node, enter, then):
                    return True
            else:
                state.fail(node or value, lambda: _expected(types, node, value))
            if passed:
                del state.extra[-passed:]
            return False

        return match

    def _apply(self, apply: Apply) -> Enter:
        """Matches parameters and operands of a node whose operator is right."""
        patterns = apply.inputs
        spread = self._spread(apply) if any(isinstance(p, Rest) for p in patterns) else None
        goals = [] if spread is not None else [self.value(p) for p in patterns]
        least, most = sum(not isinstance(p, Optional) for p in patterns), len(patterns)
        order = _plain_order(apply)
        commutative = apply.op_types & COMMUTATIVE if is_onnx(apply.domain) and most > 1 else frozenset[str]()
        params: ParamGoal = compile_params(apply)
        capture = None if apply.capture is None else key_in(apply.home, apply.capture)
        bare = is_bare(apply)
        # Most operators have only data as inputs: then there is nothing to count.
        data_only = not any(name in PARAMETERS for name in apply.op_types)
        heads = [_heads(p) for p in patterns]
        contracts = apply.contracts

        def contract(state: State, node: ir.Node, then: Goal) -> bool:
            found = product_of(node)
            if found is None:
                return state.fail(node, lambda: f"{label(node)} is no product of two matrices")
            values = (found.left, found.right)
            if capture is None:
                return _in_place(state, goals, values, order, 0, then)
            if capture in state.bound:
                return state.fail(node, lambda: f"{label(node)} is not what '{apply.capture}' stands for")
            state.bound[capture] = node
            if _in_place(state, goals, values, order, 0, then):
                return True
            del state.bound[capture]
            return False

        def enter(state: State, node: ir.Node, then: Goal) -> bool:
            values: Sequence[ir.Value | None] = node.inputs
            if contracts and node.op_type != "MatMul":
                return contract(state, node, then)
            if not data_only or (values and values[-1] is None):
                values = operands(node, state.scope.version_of(node))
            if not least <= len(values) <= most and spread is None:
                return state.fail(node, lambda: f"{label(node)} has {len(values)} operands; the pattern has {most}")

            def after_params(s: State) -> bool:
                if spread is not None:
                    return spread(s, node, values, then)
                if node.op_type in commutative:
                    if most == 2 and len(values) == 2:
                        return _either_way(s, goals, heads, values, order[0], then)
                    return _in_any_order(s, goals, values, order, frozenset(), then)
                return _in_place(s, goals, values, order, 0, then)

            if capture is not None:
                if capture in state.bound:
                    return state.fail(node, lambda: f"{label(node)} is not what '{apply.capture}' stands for")
                state.bound[capture] = node
            if after_params(state) if bare and not node.attributes else params(state, node, after_params):
                return True
            if capture is not None:
                del state.bound[capture]
            return False

        return enter

    def _spread(self, apply: Apply) -> RestGoal:
        """Matches the operands of a pattern with a rest: those that are named first, then the rest."""
        patterns = apply.inputs
        at = next(i for i, p in enumerate(patterns) if isinstance(p, Rest))
        pattern = patterns[at]
        assert isinstance(pattern, Rest)
        finish = rest_goal(pattern, None if pattern.each is None else self._step(pattern.each))
        # A named operand after the rest is counted from the end.
        named = [(i if i < at else i - len(patterns), self.value(patterns[i])) for i in _plain_order(apply) if i != at]
        commutative = apply.op_types & COMMUTATIVE if is_onnx(apply.domain) else frozenset[str]()

        def match(state: State, node: ir.Node, values: Sequence[ir.Value | None], then: Goal) -> bool:
            if len(values) < len(named):
                return state.fail(node, lambda: f"{label(node)} has {len(values)} operands; the pattern {len(named)}")
            anywhere = node.op_type in commutative
            return _spread_out(state, node, named, values, frozenset(), anywhere, finish, then)

        return match


def _spread_out(
    state: State,
    node: ir.Node,
    named: Sequence[tuple[int, ValueGoal]],
    values: Sequence[ir.Value | None],
    used: frozenset[int],
    anywhere: bool,
    finish: RestGoal,
    then: Goal,
) -> bool:
    """Matches named operands one after the other, each in its own place or anywhere, and then the rest."""
    if len(used) == len(named):
        return finish(state, node, [value for i, value in enumerate(values) if i not in used], then)
    place, goal = named[len(used)]
    place %= len(values)
    tried: set[ir.Value | None] = set()
    for i in (place, *range(len(values))) if anywhere else (place,):
        if i in used or values[i] in tried:
            continue
        tried.add(values[i])
        if goal(
            state,
            values[i],
            lambda s: _spread_out(s, node, named, values, used | {i}, anywhere, finish, then),  # noqa: B023
        ):
            return True
    return False


def _between(apply: Apply, enter: Enter) -> Enter:
    """The same for opsets within bounds only."""
    since, until = apply.opsets
    wanted = " and ".join(
        [*([] if since is None else [f"at least {since}"]), *([] if until is None else [f"at most {until}"])]
    )

    def entered(state: State, node: ir.Node, then: Goal) -> bool:
        version = state.scope.version_of(node)
        if (since is None or since <= version) and (until is None or version <= until):
            return enter(state, node, then)
        return state.fail(node, lambda: f"{label(node)} is of opset {version}; the pattern is for {wanted}")

    return entered


def _expected(types: frozenset[str], node: ir.Node | None, value: ir.Value | None) -> str:
    wanted = " or ".join(sorted(types))
    return f"{label(value) if node is None else label(node)} stands where the pattern needs {wanted}"


def _bind(state: State, number: int, node: ir.Node, enter: Callable[[State, ir.Node, Goal], bool], then: Goal) -> bool:
    """One pattern node matches one graph node, or several that compute the same."""
    owner = state.owned.get(node)
    if owner == number:
        return then(state)
    if owner is not None:
        return state.fail(node, lambda: f"{label(node)} matched another part of the pattern already")
    bound = state.nodes.get(number)
    state.owned[node] = number
    if bound is None:
        state.nodes[number] = node
        if enter(state, node, then):
            return True
        del state.nodes[number]
    elif same_computation(bound, node, state.scope.constants):
        state.extra.append(node)
        if then(state):
            return True
        state.extra.pop()
    else:
        state.fail(node, lambda: f"{label(node)} does not compute the same as {label(bound)}")
    del state.owned[node]
    return False


def _view(pattern: View, inner: ValueGoal) -> ValueGoal:
    """Goes up to the first value that no operator merely moves; what lies between belongs to nobody."""
    name = pattern.var.name

    def match(state: State, value: ir.Value | None, then: Goal) -> bool:
        steps: list[ir.Value] = []
        while value is not None and len(steps) < MAX_VIEW and moves(value, state.scope.constants):
            node = value.producer()
            if node is None or node.graph is not state.scope.graph or node in state.owned:
                break
            steps.insert(0, value)
            value = node.inputs[0]
        captured = tuple(steps)
        if name in state.bound:
            return state.fail(value, lambda: f"'{shown_name(name)}' stands for another view already")
        state.bound[name] = captured
        seen = [node for step in steps if (node := step.producer()) is not None]
        state.seen.extend(seen)
        if inner(state, value, then):
            return True
        if seen:
            del state.seen[-len(seen) :]
        del state.bound[name]
        return False

    return match


def _in_place(
    state: State,
    goals: Sequence[ValueGoal],
    values: Sequence[ir.Value | None],
    order: Sequence[int],
    at: int,
    then: Goal,
) -> bool:
    """Matches operands one after the other, each pattern against the operand in its place."""
    if not order:
        return then(state)
    place = order[at]
    value = values[place] if place < len(values) else None
    if at + 1 == len(order):
        return goals[place](state, value, then)
    return goals[place](state, value, lambda s: _in_place(s, goals, values, order, at + 1, then))


def _in_any_order(
    state: State,
    goals: Sequence[ValueGoal],
    values: Sequence[ir.Value | None],
    order: Sequence[int],
    used: frozenset[int],
    then: Goal,
) -> bool:
    """The same for a commutative operator: a pattern tries its own place first, then the other free ones."""
    if len(used) == len(order):
        return then(state)
    own = order[len(used)]
    tried: list[ir.Value | None] = []
    for place in (own, *range(len(goals))):
        value = values[place] if place < len(values) else None
        if place in used or value in tried:
            continue
        tried.append(value)
        if goals[own](state, value, lambda s: _in_any_order(s, goals, values, order, used | {place}, then)):  # noqa: B023
            return True
    return False


def _either_way(
    state: State,
    goals: Sequence[ValueGoal],
    heads: Sequence[frozenset[str] | None],
    values: Sequence[ir.Value | None],
    first: int,
    then: Goal,
) -> bool:
    """`_in_any_order` for two operands: `goals[first]` tries its own place, then the other.

    Where the operators that stand there cannot be what the patterns need, no goal is entered.
    """
    one, other = goals[first], goals[1 - first]
    for place in (first,) if values[0] is values[1] else (first, 1 - first):
        mine, rest = values[place], values[1 - place]
        if state.journal is None and not (_may_be(heads[first], mine) and _may_be(heads[1 - first], rest)):
            continue
        if one(state, mine, lambda s: other(s, rest, then)):  # noqa: B023
            return True
    return False


def _may_be(heads: frozenset[str] | None, value: ir.Value | None) -> bool:
    """Whether a value may match a pattern with these heads, as far as the operator that gives it tells."""
    if heads is None:
        return True
    node = None if value is None else value.producer()
    return node is not None and node.op_type in heads


def _heads(pattern: Pattern) -> frozenset[str] | None:
    """Operators that can produce what the pattern matches, Identity included; None: any, or no node at all."""
    if isinstance(pattern, Output):
        return pattern.apply.op_types | {"Identity"}
    if isinstance(pattern, Either):
        return _any_of(pattern.branches)
    if isinstance(pattern, Repeat):
        return _any_of([pattern.step.body] if pattern.least else [pattern.step.body, pattern.inner])
    return None


def _any_of(patterns: Sequence[Pattern]) -> frozenset[str] | None:
    parts = [_heads(pattern) for pattern in patterns]
    return None if any(part is None for part in parts) else frozenset().union(*(part for part in parts if part))


def _specificity(pattern: Pattern) -> int:
    if isinstance(pattern, Output):
        return 0
    if isinstance(pattern, ConstantPattern):
        return 1
    return 2 if isinstance(pattern, (Either, Repeat)) else 3


def _plain_order(apply: Apply) -> list[int]:
    """The most telling pattern first: a wrong operator is seen before anything is bound."""
    return sorted(range(len(apply.inputs)), key=lambda i: _specificity(apply.inputs[i]))


def _capture(pattern: Var) -> ValueGoal:
    name, shown = pattern.name, shown_name(pattern.name)

    def match(state: State, value: ir.Value | None, then: Goal) -> bool:
        if value is None:
            return state.fail(None, lambda: f"the operand '{shown}' is not given")
        bound = state.bound.get(name)
        if bound is not None:
            if bound is value or _same_constant(state, bound, value):
                return then(state)
            return state.fail(value, lambda: f"{label(value)} is not {label(bound)}, which '{shown}' stands for")
        state.bound[name] = value
        if then(state):
            return True
        del state.bound[name]
        return False

    if not (pattern.predicates or pattern.shapes):
        return match

    def match_some(state: State, value: ir.Value | None, then: Goal) -> bool:
        wrong = None if value is None else unfulfilled(pattern, value, value)
        if wrong is not None:
            return state.fail(value, lambda: f"{label(value)} {wrong}")
        return with_shapes(state, pattern.shapes, value, value, lambda s: match(s, value, then))

    return match_some


def _same_constant(state: State, a: Any, b: ir.Value) -> bool:
    constants = state.scope.constants
    if not (isinstance(a, ir.Value) and constants.is_constant(a) and constants.is_constant(b)):
        return False
    return Constant(a, constants).same(Constant(b, constants))


def _constant(pattern: ConstantPattern) -> ValueGoal:
    var = pattern.var
    name = None if var is None else var.name
    asks = var is not None and bool(var.predicates or var.shapes)
    shown = "" if name is None else shown_name(name)
    equals, tolerance, single = pattern.equals, pattern.tolerance, pattern.single

    def match(state: State, value: ir.Value | None, then: Goal) -> bool:
        constants = state.scope.constants
        captured: Any
        if single:
            captured = constants.scalar(value)
            if captured is None:
                return state.fail(value, lambda: f"{label(value)} is not a constant of one element")
            if equals is not None and not math.isclose(captured, equals, rel_tol=tolerance):
                return state.fail(value, lambda: f"{label(value)} is {captured}; the pattern needs {equals}")
        else:
            if not constants.is_constant(value):
                return state.fail(value, lambda: f"{label(value)} is not a constant")
            assert value is not None
            captured = Constant(value, constants)
        if name is None:
            return then(state)
        if not asks:
            return bind(state, value, captured, then)
        assert value is not None
        assert var is not None
        typed = Constant(value, constants)
        wrong = unfulfilled(var, typed, captured)
        if wrong is not None:
            return state.fail(value, lambda: f"{label(value)} {wrong}")
        return with_shapes(state, var.shapes, value, typed, lambda s: bind(s, value, captured, then))

    def bind(state: State, value: ir.Value | None, captured: Any, then: Goal) -> bool:
        assert name is not None
        bound = state.bound.get(name)
        if bound is not None:
            same = bound.same(captured) if isinstance(bound, Constant) else bound == captured
            return (
                then(state) if same else state.fail(value, lambda: f"{label(value)} differs from the first '{shown}'")
            )
        state.bound[name] = captured
        if then(state):
            return True
        del state.bound[name]
        return False

    return match


def compile_roots(traced: Traced) -> tuple[list[ValueGoal], list[Apply]]:
    """Goals for each output of the pattern, and the pattern's nodes by number."""
    compiler = Compiler()
    return [compiler.value(root) for root in traced.roots], compiler.applies
