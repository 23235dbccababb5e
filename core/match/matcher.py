"""One compiled pattern: where it may be anchored, and its matches there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import onnx_ir as ir

from onnx_rewrite.match.compiler import MAX_VIEW, compile_roots, label
from onnx_rewrite.match.conditions import related, relations_of
from onnx_rewrite.match.match import Match, values_in
from onnx_rewrite.match.state import Failure, Scope, State
from onnx_rewrite.opset.view import is_onnx
from onnx_rewrite.pattern.language import Apply, Either, Optional, Output, Pattern, Repeat, Rest, Traced, View, leaves

OperatorKey = tuple[str, str]
"""Domain ("" for the standard one) and operator name."""

Accept = Callable[[Match], bool]


def key_of(node: ir.Node) -> OperatorKey:
    """The key under which patterns are indexed."""
    return ("" if is_onnx(node.domain) else node.domain, node.op_type)


class Matcher:
    """A pattern, compiled once, that can be matched against any number of graphs.

    Attributes:
        anchors: Operators that can produce the first output; only nodes of these are ever tried.
        required: Operators without which no match is possible.
        depth: How many nodes lie between the first output and the deepest operand: an edit further away than
            this cannot change whether an anchor matches. `sys.maxsize - 1` where a part repeats without bound.
        outputs: How many outputs the pattern has.
        least: How many nodes a match has at least.
    """

    def __init__(self, traced: Traced) -> None:
        self._traced = traced
        self._goals, self._applies = compile_roots(traced)
        self._relations = relations_of(traced)
        self.outputs = len(traced.roots)
        self.anchors = frozenset(
            ("" if is_onnx(leaf.apply.domain) else leaf.apply.domain, name)
            for leaf in leaves(traced.roots[0])
            if isinstance(leaf, Output)
            for name in leaf.apply.op_types
        )
        self.required: frozenset[OperatorKey] = frozenset().union(*(_required(root, {}) for root in traced.roots))
        self.least = len(frozenset[object]().union(*(_smallest(root, {}) for root in traced.roots)))
        self.depth = min(sys.maxsize - 1, max(_depth(root, {}) for root in traced.roots))

    def match(self, scope: Scope, anchor: ir.Node, accept: Accept, journal: list[Failure] | None = None) -> bool:
        """Tries all matches at `anchor`, the preferred ones first, until `accept` takes one.

        Args:
            scope: The graph that holds `anchor`.
            anchor: The node that would produce the first output.
            accept: Told each complete match; True ends the search.
            journal: Collects the reasons why attempts ended, if given.

        Returns:
            Whether a match was accepted.
        """
        state = State(scope, journal)

        def first(value: ir.Value) -> bool:
            return self._goals[0](state, value, lambda s: self._others(s, [value], accept))

        return any(first(value) for value in anchor.outputs)

    def _others(self, state: State, outputs: list[ir.Value], accept: Accept) -> bool:
        """Matches the outputs after the first, each found through a node that is bound already."""
        if len(outputs) == len(self._goals):
            if self._relations and not related(state, self._relations):
                return False
            nodes = list(dict.fromkeys([*state.nodes.values(), *state.steps, *state.extra]))
            own = set(nodes)
            seen = [node for node in dict.fromkeys(state.seen) if node not in own]
            return accept(Match(state.scope, self._traced.names, dict(state.bound), nodes, outputs, seen))
        goal, root = self._goals[len(outputs)], self._traced.roots[len(outputs)]
        for value in _candidates(state, root, self.depth):
            if value not in outputs and goal(state, value, lambda s: self._others(s, [*outputs, value], accept)):  # noqa: B023
                return True
        return state.fail(
            outputs[0], lambda: f"output {len(outputs) + 1} of the pattern does not stand beside {label(outputs[0])}"
        )


def _candidates(state: State, root: Pattern, depth: int) -> Iterator[ir.Value]:
    """Values near the bound nodes that may be another output: consumers of what is bound, level by level."""
    ends = {(name, leaf.index) for leaf in leaves(root) if isinstance(leaf, Output) for name in leaf.apply.op_types}
    seen: set[ir.Value] = set()
    bound = [value for thing in state.bound.values() for value in values_in(thing)]
    nodes = (*state.nodes.values(), *state.steps)
    level = list(dict.fromkeys([*(v for n in nodes for v in n.outputs), *bound]))
    for _ in range(depth + 1):
        if not level:
            return
        further: list[ir.Value] = []
        for value in level:
            if value in seen:
                continue
            seen.add(value)
            producer = value.producer()
            if producer is not None and (producer.op_type, value.index()) in ends:
                yield value
            for use in value.uses():
                if use.node.graph is state.scope.graph:
                    # An Identity stands for what it hands on: it takes no level of its own.
                    (level if use.node.op_type == "Identity" else further).extend(use.node.outputs)
        level = further


def _required(pattern: Pattern, known: dict[int, frozenset[OperatorKey]]) -> frozenset[OperatorKey]:
    if id(pattern) not in known:  # a shared sub-pattern is looked at once
        if isinstance(pattern, Output):
            apply: Apply = pattern.apply
            domain = "" if is_onnx(apply.domain) else apply.domain
            own = frozenset({(domain, next(iter(apply.op_types)))}) if len(apply.op_types) == 1 else frozenset()
            known[id(pattern)] = own.union(*(_required(p, known) for p in apply.inputs))
        elif isinstance(pattern, Either):
            first, *others = (_required(b, known) for b in pattern.branches)
            known[id(pattern)] = first.intersection(*others)
        else:
            known[id(pattern)] = frozenset[OperatorKey]().union(*(_required(p, known) for p in _sure(pattern)))
    return known[id(pattern)]


def _sure(pattern: Pattern) -> list[Pattern]:
    """The parts of a repeat, a rest or a view that are in every match."""
    if isinstance(pattern, View):
        return [pattern.inner]
    if isinstance(pattern, Repeat):
        return [pattern.inner, pattern.step.body] if pattern.least else [pattern.inner]
    return [pattern.each.body] if isinstance(pattern, Rest) and pattern.each is not None and pattern.least else []


def _smallest(pattern: Pattern, known: dict[int, frozenset[object]]) -> frozenset[object]:
    """The nodes of the pattern where every alternative is the smallest, by their identity."""
    if id(pattern) not in known:
        if isinstance(pattern, Output):
            own = frozenset[object]({id(pattern.apply)})
            known[id(pattern)] = own.union(*(_smallest(p, known) for p in pattern.apply.inputs))
        elif isinstance(pattern, Either):
            known[id(pattern)] = min((_smallest(b, known) for b in pattern.branches), key=len)
        else:
            more = pattern.least - 1 if isinstance(pattern, Repeat) else 0  # each step has one node of its own
            own = frozenset[object]((id(pattern), number) for number in range(more))
            known[id(pattern)] = own.union(*(_smallest(p, known) for p in _sure(pattern)))
    return known[id(pattern)]


def _depth(pattern: Pattern, known: dict[int, int]) -> int:
    if id(pattern) not in known:
        if isinstance(pattern, Output):
            known[id(pattern)] = 1 + max((_depth(p, known) for p in pattern.apply.inputs), default=0)
        elif isinstance(pattern, Either):
            known[id(pattern)] = max(_depth(b, known) for b in pattern.branches)
        elif isinstance(pattern, Optional) and isinstance(pattern.inner, Pattern):
            known[id(pattern)] = _depth(pattern.inner, known)
        elif isinstance(pattern, Repeat):
            times = sys.maxsize if pattern.most is None else pattern.most
            known[id(pattern)] = times * _depth(pattern.step.body, known) + _depth(pattern.inner, known)
        elif isinstance(pattern, Rest) and pattern.each is not None:
            known[id(pattern)] = _depth(pattern.each.body, known)
        elif isinstance(pattern, View):
            known[id(pattern)] = MAX_VIEW + _depth(pattern.inner, known)
        else:
            known[id(pattern)] = 0
    return known[id(pattern)]
