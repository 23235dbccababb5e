"""`explain`: where a pass would fire, where it nearly would, and why it does not."""

from __future__ import annotations

import difflib
from typing import Any

import onnx_ir as ir

from onnx_rewrite import registry
from onnx_rewrite.analysis.vague import is_vague
from onnx_rewrite.custom import Files, knowing_adapters
from onnx_rewrite.errors import UsageError
from onnx_rewrite.model import load
from onnx_rewrite.pipeline.probing import Probe
from onnx_rewrite.rewriter.edit import node_label
from onnx_rewrite.rewriter.explaining import Explanation, explain_pass
from onnx_rewrite.rewriter.names import all_graphs


@knowing_adapters
def explain(
    source: Any,
    pass_: Any,
    *,
    node: str | None = None,
    target: str = "onnx",
    adapters: Files | None = None,
) -> Explanation:
    """Tries a pass everywhere in a model, or around one node, and tells what stopped it. Nothing is changed.

    The model is run only where a shape that nobody knows stood in the way, as a rewrite would.

    Args:
        source: A path, bytes, a ModelProto, an onnx_ir.Model or a gs.Graph.
        pass_: One pass: its name, with options as on the command line, or a Pass or RuleSet.
        node: Name of a node, or of a value that it gives: only attempts that came as far as it are told.
        target: For whom the model would be rewritten.
        adapters: As for `rewrite`.

    Raises:
        ModelError: The model cannot be read.
        UsageError: The pass is unknown or there are several, or the model has no such node.
    """
    del adapters  # they are known while this runs
    chosen = registry.resolve(pass_)
    if len(chosen) != 1:
        raise UsageError("explain takes one pass at a time", hint="one of " + ", ".join(p.name for p in chosen))
    if isinstance(chosen[0], registry.FunctionPass):
        raise UsageError(f"pass '{chosen[0].name}' is a function: it has no pattern that could be explained")
    loaded = load(source)
    if node is not None:
        _must_exist(loaded.ir, node)
    name, rules = chosen[0].name, chosen[0].rules()
    found = explain_pass(loaded.ir, name, rules, node=node, target=target)
    vague = {v.name: node_label(n) for n in loaded.ir.graph for v in n.outputs if is_vague(v)}
    blurred = set(vague.values())
    stopped = any(
        "not known" in miss.reason or miss.value in vague or (miss.complete and not blurred.isdisjoint(miss.nodes))
        for miss in found.near
    )
    if stopped and Probe(loaded, loaded.ir, None, None, 0)():
        found = explain_pass(loaded.ir, name, rules, node=node, target=target)
    return found


def _must_exist(model: ir.Model, name: str) -> None:
    known = {
        label for graph in all_graphs(model) for n in graph for label in (node_label(n), *(v.name for v in n.outputs))
    }
    if name not in known:
        near = difflib.get_close_matches(name, [k for k in known if k], n=3)
        hint = f"the nearest: {', '.join(near)}" if near else None
        raise UsageError(f"the model has no node and no value called '{name}'", hint=hint)
