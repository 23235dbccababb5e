"""The graphs of a model as the matcher sees them: each with its opsets, constants shared by all."""

from __future__ import annotations

import onnx_ir as ir

from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.match import Scope
from onnx_rewrite.rewriter.names import all_graphs


def find_scopes(model: ir.Model, constants: Constants, target: str) -> list[Scope]:
    """A scope for every graph that has nodes: the main one, bodies, functions and their bodies.

    A function reads operators by its own opset imports.
    """
    functions = {f.graph: f for f in model.functions.values()}
    imports: dict[str, int] = model.graph.opset_imports
    scopes: list[Scope] = []
    for graph in all_graphs(model):
        if graph in functions:
            imports = functions[graph].opset_imports
        if len(graph):
            opsets = {"" if domain == "ai.onnx" else domain: version for domain, version in imports.items()}
            scopes.append(Scope(graph, opsets, constants, target, graph in functions, imports))
    return scopes
