"""A matcher that is too simple to be wrong: it replays a match from the start for every way of choosing.

It knows nothing of opsets, attributes or constants: the graphs of `drawn.py` say of each node and value what they
mean, in `meta`. Where a choice is to be made (a branch, an operand's place, another output), it asks `Choices`, which
enumerates them like the digits of an odometer, the preferred ones first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_rewrite.match import Constant
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
    key_in,
    own_names,
)

COMMUTATIVE = {"Add", "Mul", "Max", "Sum"}


class NoMatch(Exception):
    """These choices lead nowhere."""


class Choices:
    """Digits of an odometer: those not yet set are 0."""

    def __init__(self) -> None:
        self.digits: list[int] = []
        self.sizes: list[int] = []

    def pick(self, size: int) -> int:
        """The next choice among `size`."""
        if not size:
            raise NoMatch
        at = len(self.sizes)
        self.sizes.append(size)
        if at == len(self.digits):
            self.digits.append(0)
        return self.digits[at]

    def advance(self) -> bool:
        """The next combination; False after the last."""
        while self.digits and self.digits[-1] + 1 >= self.sizes[len(self.digits) - 1]:
            self.digits.pop()
        self.sizes.clear()
        if self.digits:
            self.digits[-1] += 1
        return bool(self.digits)


def solutions(traced: Traced, graph: ir.Graph, anchor: ir.Node) -> Iterator[Any]:
    """All matches at `anchor`, the preferred first: captures, nodes and outputs, as something hashable."""
    everything = [value for node in graph for value in node.outputs]
    choices = Choices()
    while True:
        attempt = _Attempt(graph, choices)
        try:
            outputs = [anchor.outputs[choices.pick(len(anchor.outputs))]]
            attempt.value(traced.roots[0], outputs[0])
            for root in traced.roots[1:]:
                outputs.append(everything[choices.pick(len(everything))])
                if outputs[-1] in outputs[:-1]:
                    raise NoMatch
                attempt.value(root, outputs[-1])
        except NoMatch:
            pass
        else:
            if all(v.producer().op_type != "Identity" for v in outputs):
                yield seen(attempt.bound, attempt.matched(), outputs)
        if not choices.advance():
            return


def seen(bound: dict[str, Any], nodes: Any, outputs: Any) -> Any:
    """What two matches must agree in."""
    captures = frozenset((name, _plain(thing)) for name, thing in bound.items() if thing is not None)
    return captures, frozenset(nodes), tuple(outputs)


def _plain(thing: Any) -> Any:
    if isinstance(thing, tuple):
        return tuple(map(_plain, thing))
    if isinstance(thing, float):
        return float(np.float32(thing))  # as an attribute stores it
    return thing.value if isinstance(thing, Constant) else thing


class _Attempt:
    """One run of the match under fixed choices."""

    def __init__(self, graph: ir.Graph, choices: Choices) -> None:
        self.graph, self.choices = graph, choices
        self.bound: dict[str, Any] = {}
        self.arrays: dict[str, Any] = {}
        # By pattern node and run of the step that it is a part of: the first, then those that compute the same.
        self.nodes: dict[tuple[Apply, int], list[ir.Node]] = {}
        self.runs = 0
        self.running: dict[Step, int] = {}
        self.passed: list[ir.Node] = []  # Identities on the way

    def matched(self) -> list[ir.Node]:
        return [node for nodes in self.nodes.values() for node in nodes] + self.passed

    def value(self, pattern: Pattern, value: ir.Value | None) -> None:
        if isinstance(pattern, Either):
            self.value(pattern.branches[self.choices.pick(len(pattern.branches))], value)
        elif isinstance(pattern, Repeat):
            self.repeat(pattern, value)
        elif isinstance(pattern, Optional):
            if value is not None:
                self.value(pattern.inner, value)
        elif value is None:
            raise NoMatch
        elif isinstance(pattern, Var):
            self.bind(pattern.name, value, value.meta.get("array"))
        elif isinstance(pattern, ConstantPattern):
            self.constant(pattern, value)
        elif isinstance(pattern, Output):
            self.output(pattern, value)

    def repeat(self, pattern: Repeat, value: ir.Value | None) -> None:
        runs: list[dict[str, Any]] = []
        while True:
            go, stop = pattern.most is None or len(runs) < pattern.most, len(runs) >= pattern.least
            if self.choices.pick(go + stop) == go:
                break
            runs.insert(0, self.run(pattern.step, value))
            value = runs[0][pattern.step.hole.name]
        self.value(pattern.inner, value)
        self.collect(pattern.step, runs)

    def rest(self, pattern: Rest, values: list[ir.Value | None]) -> None:
        most = len(values) if pattern.most is None else pattern.most
        if None in values or not pattern.least <= len(values) <= most:
            raise NoMatch
        step = pattern.each
        if step is None:
            arrays = [v.meta.get("array") for v in values if v is not None]
            self.bind(pattern.var.name, tuple(values), arrays)
            return
        runs = [self.run(step, value) for value in values]
        hole = step.hole.name
        self.bind(pattern.var.name, *self.column(runs, hole))
        self.collect(step, runs)

    def run(self, step: Step, value: ir.Value | None) -> dict[str, Any]:
        """One step: what it captured, with the arrays under the names in brackets."""
        self.runs += 1
        outer, self.running[step] = self.running.get(step), self.runs
        self.value(step.body, value)
        del self.running[step]
        if outer is not None:
            self.running[step] = outer
        names = [*(key_in(step, name) for name in own_names(step)), step.hole.name]
        arrays = {f"[{name}]": self.arrays.pop(name, None) for name in names}
        return {**{name: self.bound.pop(name, None) for name in names}, **arrays}

    def collect(self, step: Step, runs: list[dict[str, Any]]) -> None:
        for name in own_names(step):
            self.bind(key_in(step.home, name), *self.column(runs, key_in(step, name)))

    def column(self, runs: list[dict[str, Any]], name: str) -> tuple[Any, Any]:
        return tuple(run[name] for run in runs), [run[f"[{name}]"] for run in runs]

    def taken(self, apply: Apply, run: int, node: ir.Node) -> bool:
        """Whether the node belongs to another part of the pattern; finished steps share theirs."""
        for (other, its_run), nodes in self.nodes.items():
            if node not in nodes or (other is apply and its_run == run):
                continue
            if apply.home is None or other.home is None or apply.home.outermost is not other.home.outermost:
                return True
            if its_run in self.running.values():
                return True
        return False

    def bind(self, name: str, thing: Any, array: Any = None) -> None:
        if name not in self.bound:
            self.bound[name], self.arrays[name] = thing, array
        elif not _same(self.bound[name], thing, self.arrays[name], array):
            raise NoMatch

    def constant(self, pattern: ConstantPattern, value: ir.Value) -> None:
        array = value.meta.get("array")
        if array is None or (pattern.single and array.size != 1):
            raise NoMatch
        if pattern.equals is not None and array.item() != pattern.equals:
            raise NoMatch
        if pattern.var is not None and pattern.single:
            self.bind(pattern.var.name, array.item(), np.asarray(array.item()))
        elif pattern.var is not None:
            self.bind(pattern.var.name, value, array)

    def output(self, pattern: Output, value: ir.Value) -> None:
        apply = pattern.apply
        node = value.producer()
        while node is not None and node.op_type == "Identity" and "Identity" not in apply.op_types:
            self.passed.append(node)
            inner = node.inputs[0]
            assert inner is not None
            value, node = inner, inner.producer()
        if (
            node is None
            or node.op_type not in apply.op_types
            or node.domain != apply.domain
            or value.index() != pattern.index
            or node.graph is not self.graph
        ):
            raise NoMatch
        run = 0 if apply.home is None else self.running[apply.home]
        if self.taken(apply, run, node):
            raise NoMatch
        mine = self.nodes.setdefault((apply, run), [])
        if mine and node not in mine and not _same_computation(mine[0], node):
            raise NoMatch
        mine.append(node)
        if len(mine) > 1:
            return
        if apply.capture is not None:
            self.bind(key_in(apply.home, apply.capture), node)
        self.params(apply.params, node, strict=apply.capture is None)
        self.operands(apply.inputs, node)

    def params(self, wanted: dict[str, Any], node: ir.Node, *, strict: bool) -> None:
        meaning, defaults = node.meta["params"], node.meta["defaults"]
        if strict and any(value != defaults[name] for name, value in meaning.items() if name not in wanted):
            raise NoMatch
        for name, pattern in wanted.items():
            value = meaning[name]
            if value == "unknown":
                raise NoMatch
            if isinstance(pattern, Optional):
                if value is None:
                    continue
                pattern = pattern.inner
            if isinstance(pattern, Var):
                if value is None:
                    raise NoMatch
                self.bind(pattern.name, value, np.asarray(value))
            elif value != pattern:
                raise NoMatch

    def operands(self, patterns: tuple[Pattern, ...], node: ir.Node) -> None:
        values: list[ir.Value | None] = list(node.meta["operands"])
        at = next((i for i, p in enumerate(patterns) if isinstance(p, Rest)), None)
        if at is not None:
            self.operands_and_rest(patterns, at, values, anywhere=node.op_type in COMMUTATIVE)
            return
        if len(values) > len(patterns):
            raise NoMatch
        values += [None] * (len(patterns) - len(values))
        free = list(range(len(patterns)))
        for at in sorted(free, key=lambda i: _rank(patterns[i])):
            places = [at, *(p for p in free if p != at)] if at in free else list(free)
            if node.op_type not in COMMUTATIVE:
                places = [at]
            place = places[self.choices.pick(len(places))]
            free.remove(place)
            self.value(patterns[at], values[place])

    def operands_and_rest(
        self, patterns: tuple[Pattern, ...], at: int, values: list[ir.Value | None], *, anywhere: bool
    ) -> None:
        if len(values) < len(patterns) - 1:
            raise NoMatch
        free = list(range(len(values)))
        for i in sorted(range(len(patterns)), key=lambda i: _rank(patterns[i])):
            if i == at:
                continue
            own = i if i < at else len(values) - len(patterns) + i
            places = [own, *(p for p in free if p != own)] if own in free else list(free)
            # Of equal operands the first will do: the order of the others means nothing here.
            firsts = [p for n, p in enumerate(places) if values[p] not in [values[q] for q in places[:n]]]
            places = firsts if anywhere else [own]
            place = places[self.choices.pick(len(places))]
            free.remove(place)
            self.value(patterns[i], values[place])
        pattern = patterns[at]
        assert isinstance(pattern, Rest)
        self.rest(pattern, [values[i] for i in free])


def _rank(pattern: Pattern) -> int:
    """What is told apart soonest comes first: operators, constants, alternatives, captures."""
    order = (Output, ConstantPattern, (Either, Repeat))
    return next((rank for rank, kind in enumerate(order) if isinstance(pattern, kind)), len(order))


def _same(a: Any, b: Any, array: Any, other: Any) -> bool:
    """Whether two captures are the same, or constants that are equal."""
    if isinstance(array, list) and isinstance(other, list):  # of tuples
        return len(a) == len(b) and all(map(_same, a, b, array, other))
    return a is b or _same_array(array, other)


def _same_array(a: Any, b: Any) -> bool:
    return a is not None and b is not None and a.shape == b.shape and a.tolist() == b.tolist()


def _same_computation(a: ir.Node, b: ir.Node) -> bool:
    def same(x: ir.Value | None, y: ir.Value | None) -> bool:
        if x is y:
            return True
        if x is None or y is None:
            return False
        if "array" in x.meta or "array" in y.meta:
            return _same_array(x.meta.get("array"), y.meta.get("array"))
        m, n = x.producer(), y.producer()
        return m is not None and n is not None and x.index() == y.index() and _same_computation(m, n)

    def spelt(node: ir.Node) -> Any:  # duplicates are spelt alike
        return node.op_type, node.domain, len(node.inputs), {name: a.value for name, a in node.attributes.items()}

    return spelt(a) == spelt(b) and all(same(x, y) for x, y in zip(a.inputs, b.inputs, strict=True))
