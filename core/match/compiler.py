"""Compiles a traced pattern into goals: functions that match a value and then go on with what remains.

Matching in continuation-passing style makes backtracking complete without copying any state: a goal binds, calls
what remains, and undoes its binding if that fails. What remains ends in the caller's `accept`, so that a refusal
there (a condition of the pass, an interior value that is used elsewhere) also backtracks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from onnx_rewrite.match.params import ParamGoal, compile_params
from onnx_rewrite.match.state import Constant, Goal, State
from onnx_rewrite.match.twins import same_computation
from onnx_rewrite.opset.forms import COMMUTATIVE
from onnx_rewrite.opset.view import is_onnx, operands
from onnx_rewrite.pattern.language import Apply, ConstantPattern, Either, Optional, Output, Pattern, Traced, Var

ValueGoal = Callable[[State, "ir.Value | None", Goal], bool]

# Wide commutative operators are not permuted beyond this many operands.
MAX_PERMUTED = 4


def label(thing: ir.Node | ir.Value | None) -> str:
    """How messages call a node or a value."""
    if thing is None:
        return "nothing"
    if isinstance(thing, ir.Value):
        return f"value '{thing.name}'"
    name = thing.name or (thing.outputs[0].name if thing.outputs else "")
    return f"{thing.op_type} '{name}'"


class Compiler:
    """Compiles the patterns of one traced function; shared sub-patterns are compiled once."""

    def __init__(self) -> None:
        self._values: dict[int, ValueGoal] = {}
        self._numbers: dict[int, int] = {}
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
            return self._output(pattern)
        if isinstance(pattern, Either):
            return self._either(pattern)
        if isinstance(pattern, Optional):
            return self._optional(pattern)
        raise TypeError(f"not a pattern: {pattern!r}")

    def _either(self, pattern: Either) -> ValueGoal:
        branches = [self.value(b) for b in pattern.branches]

        def match(state: State, value: ir.Value | None, then: Goal) -> bool:
            return any(branch(state, value, then) for branch in branches)

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
        enter = self._apply(apply)

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
                if _bind(state, number, node, enter, then):
                    return True
            else:
                state.fail(node or value, lambda: _expected(types, node, value))
            if passed:
                del state.extra[-passed:]
            return False

        return match

    def _apply(self, apply: Apply) -> Callable[[State, ir.Node, Goal], bool]:
        """Matches parameters and operands of a node whose operator is right."""
        patterns = apply.inputs
        goals = [self.value(p) for p in patterns]
        least = len(patterns)
        while least and isinstance(patterns[least - 1], Optional):
            least -= 1
        most = len(patterns)
        plain, orders = _plain_order(apply), _orders(apply)
        params: ParamGoal | None = compile_params(apply)
        capture = apply.capture

        def enter(state: State, node: ir.Node, then: Goal) -> bool:
            values = operands(node, state.scope.version_of(node))
            if not least <= len(values) <= most:
                return state.fail(node, lambda: f"{label(node)} has {len(values)} operands; the pattern has {most}")

            def after_params(s: State) -> bool:
                if len(values) < most:  # an absent optional operand fixes the order of the others
                    return _sequence(s, goals, values, plain, 0, then)
                for order in orders:
                    if _sequence(s, goals, values, order, 0, then):
                        return True
                    if len(values) == 2 and values[0] is values[1]:
                        return False
                return False

            if capture is not None:
                state.bound[capture] = node
            if after_params(state) if params is None else params(state, node, after_params):
                return True
            if capture is not None:
                state.bound.pop(capture, None)
            return False

        return enter


def _expected(types: frozenset[str], node: ir.Node | None, value: ir.Value | None) -> str:
    wanted = " or ".join(sorted(types))
    return f"{label(value) if node is None else label(node)} stands where the pattern needs {wanted}"


def _bind(state: State, number: int, node: ir.Node, enter: Callable[[State, ir.Node, Goal], bool], then: Goal) -> bool:
    """One pattern node matches one graph node, or several that compute the same."""
    bound = state.nodes.get(number)
    if bound is node:
        return then(state)
    if bound is not None:
        if not same_computation(bound, node, state.scope.constants):
            return state.fail(node, lambda: f"{label(node)} does not compute the same as {label(bound)}")
        state.extra.append(node)
        if then(state):
            return True
        state.extra.pop()
        return False
    if node in state.owned:
        return state.fail(node, lambda: f"{label(node)} matched another part of the pattern already")
    state.nodes[number] = node
    state.owned.add(node)
    if enter(state, node, then):
        return True
    del state.nodes[number]
    state.owned.discard(node)
    return False


Order = Sequence[tuple[int, int]]
"""Which pattern to match next, and against which operand."""


def _sequence(
    state: State, goals: Sequence[ValueGoal], values: Sequence[ir.Value | None], order: Order, at: int, then: Goal
) -> bool:
    """Matches operands one after the other."""
    if at == len(order):
        return then(state)
    goal, position = order[at]
    value = values[position] if position < len(values) else None
    return goals[goal](state, value, lambda s: _sequence(s, goals, values, order, at + 1, then))


def _specificity(pattern: Pattern) -> int:
    if isinstance(pattern, Output):
        return 0
    if isinstance(pattern, ConstantPattern):
        return 1
    return 2 if isinstance(pattern, Either) else 3


def _plain_order(apply: Apply) -> Order:
    """Operands in place, the most telling pattern first: a wrong operator is seen before anything is bound."""
    return sorted(((i, i) for i in range(len(apply.inputs))), key=lambda pair: _specificity(apply.inputs[pair[0]]))


def _orders(apply: Apply) -> list[Order]:
    """All orders of the operands that mean the same."""
    plain, count = _plain_order(apply), len(apply.inputs)
    if not is_onnx(apply.domain) or not apply.op_types <= COMMUTATIVE or count < 2 or count > MAX_PERMUTED:
        return [plain]
    return [[(goal, places[goal]) for goal, _ in plain] for places in itertools.permutations(range(count))]


def _capture(pattern: Var) -> ValueGoal:
    name, predicates = pattern.name, pattern.predicates

    def match(state: State, value: ir.Value | None, then: Goal) -> bool:
        if value is None:
            return state.fail(None, lambda: f"the operand '{name}' is not given")
        for predicate in predicates:
            if not predicate.holds(value):
                return state.fail(value, lambda: f"{label(value)} is not of {predicate.wants}")  # noqa: B023
        bound = state.bound.get(name)
        if bound is not None:
            if bound is value or _same_constant(state, bound, value):
                return then(state)
            return state.fail(value, lambda: f"{label(value)} is not {label(bound)}, which '{name}' stands for")
        state.bound[name] = value
        if then(state):
            return True
        del state.bound[name]
        return False

    return match


def _same_constant(state: State, a: Any, b: ir.Value) -> bool:
    constants = state.scope.constants
    if not (isinstance(a, ir.Value) and constants.is_constant(a) and constants.is_constant(b)):
        return False
    return Constant(a, constants).same(Constant(b, constants))


def _constant(pattern: ConstantPattern) -> ValueGoal:
    name = None if pattern.var is None else pattern.var.name
    equals, tolerance, single = pattern.equals, pattern.tolerance, pattern.single

    def match(state: State, value: ir.Value | None, then: Goal) -> bool:
        constants = state.scope.constants
        captured: Any
        if single:
            captured = constants.scalar(value)
            if captured is None:
                return state.fail(value, lambda: f"{label(value)} is not a constant of one element")
            if equals is not None and not abs(captured - equals) <= tolerance * abs(equals):
                return state.fail(value, lambda: f"{label(value)} is {captured}; the pattern needs {equals}")
        else:
            if not constants.is_constant(value):
                return state.fail(value, lambda: f"{label(value)} is not a constant")
            assert value is not None
            captured = Constant(value, constants)
        if name is None:
            return then(state)
        bound = state.bound.get(name)
        if bound is not None:
            same = bound.same(captured) if isinstance(bound, Constant) else bound == captured
            return then(state) if same else state.fail(value, lambda: f"{label(value)} differs from the first '{name}'")
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
