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
from onnx_rewrite.pattern.language import ConstantPattern, Either, Optional, Output, Pattern, Traced, Var

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
    if isinstance(thing, float):
        return float(np.float32(thing))  # as an attribute stores it
    return thing.value if isinstance(thing, Constant) else thing


class _Attempt:
    """One run of the match under fixed choices."""

    def __init__(self, graph: ir.Graph, choices: Choices) -> None:
        self.graph, self.choices = graph, choices
        self.bound: dict[str, Any] = {}
        self.arrays: dict[str, Any] = {}
        self.nodes: dict[int, list[ir.Node]] = {}  # by pattern node: the first, then those that compute the same
        self.passed: list[ir.Node] = []  # Identities on the way

    def matched(self) -> list[ir.Node]:
        return [node for nodes in self.nodes.values() for node in nodes] + self.passed

    def value(self, pattern: Pattern, value: ir.Value | None) -> None:
        if isinstance(pattern, Either):
            self.value(pattern.branches[self.choices.pick(len(pattern.branches))], value)
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

    def bind(self, name: str, thing: Any, array: Any = None) -> None:
        if name not in self.bound:
            self.bound[name], self.arrays[name] = thing, array
        elif self.bound[name] is not thing and not _same_array(self.arrays[name], array):
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
        if any(node in others for key, others in self.nodes.items() if key != id(apply)):
            raise NoMatch
        mine = self.nodes.setdefault(id(apply), [])
        if mine and node not in mine and not _same_computation(mine[0], node):
            raise NoMatch
        mine.append(node)
        if len(mine) > 1:
            return
        if apply.capture is not None:
            self.bind(apply.capture, node)
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


def _rank(pattern: Pattern) -> int:
    """What is told apart soonest comes first: operators, constants, alternatives, captures."""
    return (
        0
        if isinstance(pattern, Output)
        else 1
        if isinstance(pattern, ConstantPattern)
        else 2 + (not isinstance(pattern, Either))
    )


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
