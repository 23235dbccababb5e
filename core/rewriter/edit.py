"""Commits a replacement: the only place where a graph is changed."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_rewrite.analysis.order import noted_order
from onnx_rewrite.analysis.uses import is_used
from onnx_rewrite.match import Match
from onnx_rewrite.model.fidelity import KEEP_VALUE_INFO
from onnx_rewrite.rewriter.builder import Builder, merged_metadata
from onnx_rewrite.rewriter.names import Names
from onnx_rewrite.rewriter.placing import insert, last_node

PASS_KEY = "onnx_rewrite.pass"
SOURCES_KEY = "onnx_rewrite.sources"

_READS_SIZES = frozenset({"Attention"})
"""onnx's inference (1.23) takes a size of an operand that it does not know for 0 there: what is known is stated."""

_WHOLE = 2**53
"""Up to here every whole number is a 64-bit float."""


@dataclass(frozen=True)
class Edit:
    """What a committed replacement changed.

    Attributes:
        added: New nodes.
        removed: Nodes that went away, dead constants before them included.
        replaced: Old outputs and the values that took their places and names.
        touched: Nodes that stayed, but whose outputs have fewer uses than before, or that read other values.
    """

    added: tuple[ir.Node, ...]
    removed: tuple[ir.Node, ...]
    replaced: dict[ir.Value, ir.Value]
    touched: tuple[ir.Node, ...]


def node_label(node: ir.Node) -> str:
    """The node's name, or that of its first output where it has none."""
    return node.name or (node.outputs[0].name or "" if node.outputs else "")


def commit(
    match: Match,
    in_order: Sequence[ir.Node],
    builder: Builder,
    results: Sequence[ir.Value],
    pass_name: str,
    names: Names,
) -> Edit:
    """Puts the replacement in the place of the match.

    The new nodes stand before the match's last node, so that whatever they read is there and whatever reads them
    comes later. Outputs keep their names, types and metadata.

    Args:
        match: What is replaced.
        in_order: Its nodes in an order in which they can run.
        builder: The new nodes.
        results: The new outputs, one for each of the match's.
        pass_name: The pass, for names and metadata.
        names: All names of the model.
    """
    graph = match.scope.graph
    nodes = match.nodes
    place = last_node(match)
    metadata = merged_metadata(in_order)
    sources = ", ".join(node_label(n) for n in nodes)
    base = node_label(place)
    names.release_node(place.name)
    added = list(builder.nodes)
    for number, value in enumerate(builder.initializers):
        value.name = names.value(f"{base}_{pass_name}_{number}" if base else f"{pass_name}_{number}")
        if match.scope.is_function:
            added[:0] = _as_constant_nodes(value, builder.version)
        else:
            graph.register_initializer(value)
    produced = {v for node in added for v in node.outputs}
    replaced: dict[ir.Value, ir.Value] = {}
    for old, new in zip(match.outputs, results, strict=True):
        if new in replaced.values() or (new not in produced and old.is_graph_output()):
            identity = ir.Node("", "Identity", [new], num_outputs=1)
            added.append(identity)
            new = identity.outputs[0]
            produced.add(new)
        replaced[old] = new
    taking = set(replaced.values())
    for node in added:
        node.metadata_props.update(metadata)
        node.metadata_props[PASS_KEY] = pass_name
        node.metadata_props[SOURCES_KEY] = sources
        kept = any(v in taking for v in node.outputs)
        node.name = names.node(base if kept and base else f"{base}_{node.op_type}")
        for value in node.outputs:
            if value.name is None and value not in taking:
                value.name = names.value(f"{node.name}_out")
        if node.op_type in _READS_SIZES:
            for value in node.inputs:
                if value is not None:
                    value.meta[KEEP_VALUE_INFO] = True
    for old, new in replaced.items():
        if new in produced:
            _take_over(old, new)
    moved = insert(match, added)
    for old, new in replaced.items():
        if new not in produced:  # whoever read the old value reads one with a past of its own now
            moved += [use.node for use in old.uses()]
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    removed, touched = _remove_dead(nodes)
    for node in removed:
        names.release_node(node.name)
    order = noted_order(graph)
    if order is not None:
        order.removed(removed)
    return Edit(tuple(added), tuple(removed), replaced, (*touched, *dict.fromkeys(moved)))


def _as_constant_nodes(value: ir.Value, version: int) -> list[ir.Node]:
    """A function has no initializers: the constant becomes a node.

    Below opset 9 Constant gives floats only (ONNX, Constant-1): whole numbers come from 64-bit ones by a Cast.
    """
    tensor = value.const_value
    assert tensor is not None
    array = tensor.numpy()
    wide = array.astype(np.float64) if version < 9 and array.dtype.kind in "biu" else array
    cast = wide is not array and bool(np.all(np.abs(wide) <= _WHOLE))
    held = ir.tensor(wide) if cast else tensor
    nodes = [ir.Node("", "Constant", [], [ir.AttrTensor("value", held)], num_outputs=1)]
    if cast:
        nodes[0].outputs[0].name = f"{value.name}_float"
        nodes.append(ir.Node("", "Cast", [nodes[0].outputs[0]], [ir.AttrInt64("to", tensor.dtype)], num_outputs=1))
    value.replace_all_uses_with(nodes[-1].outputs[0])
    nodes[-1].outputs[0].name = value.name
    return nodes


def _take_over(old: ir.Value, new: ir.Value) -> None:
    new.name = old.name
    if old.type is not None:
        new.type = old.type
    if old.shape is not None:
        new.shape = old.shape
    new.doc_string = old.doc_string
    new.metadata_props.update(old.metadata_props)
    for key, value in old.meta.items():
        new.meta[key] = value


def _remove_dead(nodes: Sequence[ir.Node]) -> tuple[list[ir.Node], list[ir.Node]]:
    """Removes nodes that nothing needs any more, and what fed only them; returns those, and what is left before."""
    removed: dict[ir.Node, ir.Graph] = {}
    survivors: dict[ir.Node, None] = {}
    waiting = deque(nodes)
    while waiting:
        node = waiting.popleft()
        graph = node.graph
        if graph is None or node in removed:
            continue
        if any(is_used(v) or v.is_graph_output() for v in node.outputs) or has_body(node):
            survivors[node] = None
            continue
        removed[node] = graph
        survivors.pop(node, None)
        for index, value in enumerate(node.inputs):
            if value is None:
                continue
            node.replace_input_with(index, None)
            producer = value.producer()
            if producer is not None:
                if is_used(value):
                    survivors[producer] = None
                else:
                    waiting.append(producer)
            elif (
                not is_used(value)
                and value.is_initializer()
                and not value.is_graph_input()
                and not value.is_graph_output()
            ):
                owner = value.graph
                if owner is not None and value.name is not None:
                    owner.initializers.pop(value.name, None)
    # All at once: onnx_ir's checks per call cost more than the removal.
    for graph in dict.fromkeys(removed.values()):
        graph.remove([node for node, owner in removed.items() if owner is graph])
    return list(removed), list(survivors)


def has_body(node: ir.Node) -> bool:
    """Whether the node is an If, a Loop, a Scan or another operator with a graph inside."""
    attributes = node.attributes
    return bool(attributes) and any(a.type in _BODIES for a in attributes.values())


_BODIES = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
