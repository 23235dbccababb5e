"""Matches one pattern against one small model, written as text."""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir

from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.match import Failure, Match, Matcher, Scope, key_of
from onnx_rewrite.pattern import trace


def graph_of(text: str, opset: int = 18) -> ir.Graph:
    """The main graph of a model: `(float[2] x) => (float[2] y) { y = Relu(x) }`."""
    head = f'<ir_version: 8, opset_import: ["": {opset}, "local": 1]> g '
    return ir.from_proto(onnx.parser.parse_model(head + text)).graph


def attempt(pattern: Any, graph: ir.Graph, opset: int = 18) -> tuple[Match | None, list[Failure]]:
    """The first match, anchors from the outputs on, and why others failed."""
    matcher = Matcher(trace(pattern, "pattern"))
    scope = Scope(graph, {"": opset, "local": 1}, Constants())
    found: list[Match] = []
    journal: list[Failure] = []

    def accept(match: Match) -> bool:
        found.append(match)
        return True

    for node in reversed(list(graph)):
        if key_of(node) in matcher.anchors and matcher.match(scope, node, accept, journal):
            silent = Matcher(trace(pattern, "pattern"))
            assert silent.match(scope, node, lambda _: True)  # without a journal it is the same
            return found[0], journal
    return None, journal


def find(pattern: Any, text: str, opset: int = 18) -> Match | None:
    """The first match, or None."""
    return attempt(pattern, graph_of(text, opset), opset)[0]


def why_not(pattern: Any, text: str, opset: int = 18) -> list[str]:
    """All reasons that are given."""
    found, journal = attempt(pattern, graph_of(text, opset), opset)
    assert found is None
    return [failure.reason for failure in journal]


def names(values: Any) -> list[str]:
    """The names of values or nodes."""
    return [value.name if isinstance(value, ir.Value) else value.outputs[0].name for value in values]
