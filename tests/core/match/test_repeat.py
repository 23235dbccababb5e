"""`repeat`: chains of equal steps."""

from __future__ import annotations

import sys
from typing import Any

import onnx_ir as ir
import pytest

from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.match import Match, Matcher, Scope
from onnx_rewrite.pattern import constant, either, op, repeat, scalar, trace

from .finding import find, graph_of, names, why_not

CHAIN = "(float[2] x) => (float[2] y) {{ v0 = Neg(x) {} y = Abs({}) }}"


def chain(*operators: str) -> str:
    """Neg, then these, then Abs."""
    nodes = " ".join(f"v{i + 1} = {operator}(v{i})" for i, operator in enumerate(operators))
    return CHAIN.format(nodes, f"v{len(operators)}")


def relus(x: Any, least: int = 0, most: int | None = None) -> Any:
    return repeat(lambda v: op.Relu(v).named("relus"), x, least=least, most=most)


@pytest.mark.parametrize(
    ("least", "most", "length", "expected"),
    [(0, None, 0, 0), (0, None, 3, 3), (1, None, 0, None), (2, None, 1, None), (2, None, 2, 2), (0, 2, 2, 2),
     (0, 2, 3, None), (0, 1, 1, 1)],
)  # fmt: skip
def test_bounds(least: int, most: int | None, length: int, expected: int | None) -> None:
    found = find(lambda x: op.Abs(relus(op.Neg(x), least, most)), chain(*["Relu"] * length))
    assert (None if found is None else len(found.relus)) == expected


def test_steps_are_told_in_the_order_in_which_they_compute() -> None:
    found = find(lambda x: op.Abs(relus(x)), chain("Relu", "Relu", "Relu"))
    assert found is not None
    assert (names(found.relus), found.x.name) == (["v1", "v2", "v3"], "v0")
    assert names(found.nodes) == ["y", "v3", "v2", "v1"]


def test_a_chain_is_broken_by_anything_else() -> None:
    found = find(lambda x: op.Abs(relus(x)), chain("Relu", "Sqrt", "Relu", "Relu"))
    assert found is not None
    assert (names(found.relus), found.x.name) == (["v3", "v4"], "v2")


def test_identities_on_the_way() -> None:
    found = find(lambda x: op.Abs(relus(op.Neg(x))), chain("Relu", "Identity", "Relu", "Identity"))
    assert found is not None
    assert names(found.relus) == ["v1", "v3"]
    assert len(found.nodes) == 6


def test_shorter_chains_are_tried_too() -> None:
    """What the caller refuses is tried without the farthest steps."""
    graph = graph_of(chain("Relu", "Relu", "Relu"))
    matcher = Matcher(trace(lambda x: op.Abs(relus(x)), "pattern"))
    lengths: list[int] = []

    def accept(match: Match) -> bool:
        lengths.append(len(match.relus))
        return len(match.relus) == 1

    assert matcher.match(Scope(graph, {"": 18}, Constants()), graph[-1], accept)
    assert lengths == [3, 2, 1]


def test_a_value_inside_ends_it_if_it_is_what_comes_next() -> None:
    found = find(lambda x: op.Abs(relus(op.Relu(x))), chain("Relu", "Relu", "Relu"))
    assert found is not None
    assert (len(found.relus), found.x.name) == (2, "v0")


SIDE = """(float[2] x, float[2] z) => (float[2] y) <float[1] one = {1.0}, float[1] two = {2.0}>
{ a = Add(x, one) b = Add(two, a) c = Add(b, one) y = Abs(c) }"""


def test_captures_of_each_step() -> None:
    found = find(lambda x: op.Abs(repeat(lambda v, term: op.Add(v, scalar(term)), x)), SIDE)
    assert found is not None
    assert (found.term, found.x.name) == ((1.0, 2.0, 1.0), "x")


def test_a_capture_from_outside_is_the_same_in_every_step() -> None:
    found = find(lambda x, term: op.Abs(repeat(lambda v: op.Add(v, constant(term)).named("steps"), x)), SIDE)
    assert found is not None
    assert (names(found.steps), found.term.array.tolist()) == (["c"], [1.0])


def test_every_way_through_a_step_is_tried() -> None:
    """The first operand leads nowhere: the chain goes on from the second."""
    text = "(float[2] x, float[2] z) => (float[2] y) { n = Neg(x) a = Add(z, n) b = Add(z, a) y = Abs(b) }"
    found = find(lambda x, z: op.Abs(repeat(lambda v: op.Add(v, z), op.Neg(x), least=2)), text)
    assert found is not None
    assert (found.x.name, found.z.name) == ("x", "z")


def test_a_step_of_several_nodes() -> None:
    def residual(v: Any, weight: Any) -> Any:
        return op.Add(v, op.Relu(op.Mul(v, constant(weight)).named("scales")))

    text = """(float[2] x) => (float[2] y) <float[1] one = {1.0}, float[1] two = {2.0}>
    { a = Mul(x, one) b = Relu(a) c = Add(x, b) d = Mul(two, c) e = Relu(d) y = Add(e, c) }"""
    found = find(lambda x: repeat(residual, x, least=1), text)
    assert found is not None
    assert [c.array.item() for c in found.weight] == [1.0, 2.0]
    assert (names(found.scales), found.x.name, len(found.nodes)) == (["a", "d"], "x", 6)
    assert find(lambda x: repeat(residual, x, least=3), text) is None


def test_steps_may_share_a_node() -> None:
    text = "(float[2] x, float[2] z) => (float[2] y) { r = Relu(z) a = Sub(x, r) b = Sub(a, r) y = Abs(b) }"
    found = find(lambda x: op.Abs(repeat(lambda v, side: op.Sub(v, op.Relu(side)), x)), text)
    assert found is not None
    assert names(found.side) == ["z", "z"]


def test_alternatives_in_a_step() -> None:
    found = find(
        lambda x: op.Abs(repeat(op.one_of("Relu", "Sqrt"), op.Neg(x), least=4)), chain("Relu", "Sqrt", "Sqrt", "Relu")
    )
    assert found is not None
    found = find(
        lambda x: op.Abs(repeat(lambda v: either(op.Relu(v), op.Sqrt(v)), op.Neg(x), least=4)),
        chain("Relu", "Sqrt", "Sqrt", "Relu"),
    )
    assert found is not None


def test_repeats_within_repeats() -> None:
    """Groups of one Sqrt and some Relus."""

    def group(v: Any) -> Any:
        return repeat(lambda w: op.Relu(w).named("relus"), op.Sqrt(v).named("roots"))

    def pattern(x: Any) -> Any:
        return op.Abs(repeat(group, op.Neg(x)))

    found = find(pattern, chain("Sqrt", "Relu", "Relu", "Sqrt", "Sqrt", "Relu"))
    assert found is not None
    assert names(found.roots) == ["v1", "v4", "v5"]
    assert [names(some) for some in found.relus] == [["v2", "v3"], [], ["v6"]]


def test_a_chain_that_is_longer_than_the_stack_is_deep() -> None:
    length = 50_000
    assert length > sys.getrecursionlimit()
    x = ir.Value(name="x")
    value, nodes = x, []
    for operator in ("Neg", *["Relu"] * length, "Abs"):
        nodes.append(ir.Node("", operator, [value]))
        value = nodes[-1].outputs[0]
    graph = ir.Graph([x], [value], nodes=nodes, name="g")
    scope = Scope(graph, {"": 18}, Constants())
    found: list[Match] = []
    matcher = Matcher(trace(lambda x: op.Abs(relus(op.Neg(x))), "pattern"))
    assert matcher.match(scope, nodes[-1], lambda m: not found.append(m))
    assert list(found[0].relus) == nodes[1:-1]
    other = Matcher(trace(lambda x: op.Abs(relus(op.Exp(x))), "pattern"))
    assert not other.match(scope, nodes[-1], lambda _: True, [])


def test_why_not() -> None:
    assert "the pattern repeats at least 3 times, and here 2 times" in why_not(
        lambda x: op.Abs(relus(op.Neg(x), 3)), chain("Relu", "Relu")
    )
    reasons = why_not(lambda x: op.Abs(relus(op.Exp(x))), chain("Relu", "Relu"))
    assert reasons[0] == "Neg 'v0' stands where the pattern needs Exp"
