"""What a body of If or Loop takes from an outer graph: operands and constants, but no nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

import onnx_rewrite as rw
from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.match import Match, Matcher, Scope, key_of
from onnx_rewrite.pattern import constant, op, repeat, rest, scalar, trace

from .finding import names

TEXT = """
<ir_version: 8, opset_import: ["": 18]>
g (float[N, 3] x, bool c, int64 n) => (float[N, 3] y, float[N, 3] w)
<float two = {2.0}, float[3] bias = {1.0, 2.0, 3.0}>
{
    also = Identity(two)
    outer = Relu(x)
    y = If (c) <
        then_branch = t () => (float[N, 3] a) { s = Relu(outer) m = Mul(also, s) a = Sum(bias, m, outer) },
        else_branch = e () => (float[N, 3] b) { b = Identity(outer) }
    >
    w = Loop (n, , x) <
        body = l (int64 i, bool go, float[N, 3] v) => (bool stay, float[N, 3] o)
            { stay = Identity(go) r = Relu(outer) k = Mul(r, two) o = Sum(v, k, bias) }
    >
}"""


def bodies() -> dict[str, ir.Graph]:
    model = ir.from_proto(onnx.parser.parse_model(TEXT))
    return {graph.name or "": graph for graph in model.graph.subgraphs()}


def find(pattern: Any, graph: ir.Graph) -> Match | None:
    matcher = Matcher(trace(pattern, "pattern"))
    found: list[Match] = []
    scope = Scope(graph, {"": 18}, Constants())
    for node in graph:
        if key_of(node) in matcher.anchors:
            matcher.match(scope, node, lambda m: not found.append(m))
    return found[0] if found else None


@pytest.mark.parametrize("body", ["t", "l"])
def test_operands_and_constants(body: str) -> None:
    def pattern(x: Any, factor: Any, term: Any, others: Any) -> Any:
        return op.Sum(op.Mul(op.Relu(x), scalar(factor)), constant(term.shaped("C")), rest(others))

    found = find(pattern, bodies()[body])
    assert found is not None
    assert (found.x.name, found.factor, found.C) == ("outer", 2.0, 3)
    assert found.term.array.tolist() == [1, 2, 3]
    assert names(found.others) == [{"t": "outer", "l": "v"}[body]]
    assert len(found.nodes) == 3


@pytest.mark.parametrize("body", ["t", "l"])
def test_nodes_of_an_outer_graph_are_no_part_of_a_match(body: str) -> None:
    assert find(lambda x: op.Mul(op.Relu(x), 2), bodies()[body]) is not None
    assert find(lambda x: op.Mul(op.Relu(op.Relu(x)), 2), bodies()[body]) is None
    found = find(lambda x: op.Mul(repeat(lambda v: op.Relu(v).named("steps"), x), 2), bodies()[body])
    assert found is not None
    assert (len(found.steps), found.x.name) == (1, "outer")


def test_a_symbol_has_its_meaning_in_its_own_graph() -> None:
    graph = bodies()["l"]
    inner, outer = graph.inputs[2], next(n for n in graph if n.op_type == "Relu").inputs[0]
    outer.shape = ir.Shape(["N", 3])

    def sums(x: Any, v: Any, term: Any) -> Any:
        return op.Sum(op.Mul(op.Relu(x.shaped("A", 3)), 2), v.shaped("A", 3), constant(term))

    def unrelated(x: Any, v: Any, term: Any) -> Any:
        return op.Sum(op.Mul(op.Relu(x.shaped("A", 3)), 2), v.shaped("B", 3), constant(term))

    assert str(inner.shape) == str(outer.shape)
    assert find(sums, graph) is None
    assert find(unrelated, graph) is not None


class Shifted(rw.Pass):
    """Rewrites a product with a constant of an outer graph and a chain."""

    name = "shifted"

    def pattern(self, x: Any, factor: Any) -> Any:
        return op.Mul(repeat(op.Relu, x, least=1), scalar(factor))

    def replace(self, m: Match) -> Any:
        return op.Relu(op.Mul(m.x, np.float32(m.factor)))


def test_a_pass_rewrites_the_bodies() -> None:
    result = rw.rewrite(onnx.parser.parse_model(TEXT), Shifted())
    assert result.report.passes[0].applied == 2
    assert {site.verification.verdict for site in result.report.passes[0].sites} == {"equivalent"}
