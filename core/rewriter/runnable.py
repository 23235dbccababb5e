"""Whether nodes that stay as they are can still be run once their model is raised.

An operator may mean the same at a newer opset and yet have no kernel there: onnxruntime registers kernels by version,
and expands the function that defines an operator at the version of that function alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx
import onnx_ir as ir

from onnx_rewrite.match import Scope
from onnx_rewrite.opset.view import is_onnx
from onnx_rewrite.rewriter.cutout import CannotCut, cut_out

Opens = Callable[[onnx.ModelProto], "str | None"]
"""Why a model cannot be opened for lack of a kernel; None where it can."""


def stranded(
    scopes: Iterable[Scope], target: int, staying: Callable[[ir.Node], bool], opens: Opens
) -> tuple[ir.Node, str] | None:
    """The first node that runs at its graph's opset and not at `target`, and why.

    Nodes that differ in nothing that chooses a kernel, the operator and the types of what it reads, are tried once.

    Args:
        scopes: The graphs.
        target: The opset to which they are to be raised.
        staying: Tells the nodes that keep their form.
        opens: Tries a model of one node.
    """
    known: set[object] = set()
    for scope in scopes:
        opsets = {**scope.opsets, "": target}
        for node in scope.graph:
            if not is_onnx(node.domain) or not staying(node):
                continue
            key = scope.version, node.op_type, tuple(None if v is None else v.dtype for v in node.inputs)
            if key in known:
                continue
            known.add(key)
            try:
                after = _alone(node, scope, opsets)
                reason = opens(after)
                if reason is not None and opens(_alone(node, scope, scope.opsets)) is None:
                    return node, reason
            except CannotCut:
                continue
    return None


def _alone(node: ir.Node, scope: Scope, opsets: dict[str, int]) -> onnx.ModelProto:
    if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
        raise CannotCut(f"{node.op_type} '{node.name}' has a body")
    read = list(dict.fromkeys(v for v in node.inputs if v is not None))
    return cut_out([node], [v for v in node.outputs if v.name != ""], read, scope, opsets, ())
