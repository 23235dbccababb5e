"""Nodes by operator are the graph's own, whatever was edited in between."""

from __future__ import annotations

import onnx_ir as ir
from hypothesis import given
from hypothesis import strategies as st

from onnx_rewrite.match import key_of
from onnx_rewrite.rewriter.operators import Operators

TYPES = ("Relu", "Neg", "Abs", "Exp")
edits = st.lists(st.tuples(st.sampled_from(["append", "remove"]), st.sampled_from(TYPES), st.integers(0, 20)))


def node(op_type: str) -> ir.Node:
    return ir.Node("", op_type, [None], num_outputs=1)


@given(types=st.lists(st.sampled_from(TYPES), max_size=12), edits=edits, wanted=st.sets(st.sampled_from(TYPES)))
def test_nodes_come_backwards_and_no_operator_is_missed(
    types: list[str], edits: list[tuple[str, str, int]], wanted: set[str]
) -> None:
    graph = ir.Graph([], [], nodes=[node(t) for t in types])
    operators = Operators()
    for kind, op_type, place in [("look", "", 0), *edits]:
        if kind == "append":
            new = node(op_type)
            graph.append(new)
            operators.note([new])
        elif kind == "remove" and len(graph):
            graph.remove(graph[place % len(graph)])
            operators.note([])
        assert list(operators.backwards(graph, wanted)) == [n for n in reversed(graph) if n.op_type in wanted]
        assert operators.present(graph) >= {key_of(n) for n in graph}


def test_what_is_not_noted_is_seen_after_forgetting() -> None:
    graph, operators = ir.Graph([], [], nodes=[node("Relu")]), Operators()
    assert not list(operators.backwards(graph, {"Neg"}))
    graph.append(node("Neg"))
    assert not list(operators.backwards(graph, {"Neg"}))
    operators.forget()
    assert len(list(operators.backwards(graph, {"Neg"}))) == 1
    assert ("", "Neg") in operators.present(graph)
