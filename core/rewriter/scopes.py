"""The graphs of a model as the matcher sees them: each with its opsets, constants shared by all."""

from __future__ import annotations

import sys

import onnx_ir as ir

from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.match import Scope
from onnx_rewrite.rewriter.functions import is_ours
from onnx_rewrite.rewriter.names import all_graphs, all_graphs_of


def find_scopes(model: ir.Model, constants: Constants, target: str, highest: int = sys.maxsize) -> list[Scope]:
    """A scope for every graph that has nodes: the main one, bodies, functions and their bodies.

    A function reads operators by its own opset imports. Functions that say what a known custom operator means are left
    out: a definition is not to be rewritten.
    """
    functions = {f.graph: f for f in model.functions.values()}
    ours = {graph for f in model.functions.values() if is_ours(f) for graph in all_graphs_of(f.graph)}
    imports: dict[str, int] = model.graph.opset_imports
    scopes: list[Scope] = []
    for graph in all_graphs(model):
        if graph in functions:
            imports = functions[graph].opset_imports
        if len(graph) and graph not in ours:
            opsets = {"" if domain == "ai.onnx" else domain: version for domain, version in imports.items()}
            scopes.append(Scope(graph, opsets, constants, target, graph in functions, imports, highest))
    return scopes
