"""Pairs the nodes of two graphs, says what differs within a pair, and which pass the rest is due to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from onnx_rewrite.pipeline.contents import (
    attribute_text,
    same_attribute,
    same_tensor,
    tensor_text,
    type_text,
    values_text,
)
from onnx_rewrite.pipeline.differing import Change, Difference, NodeChange, NodeEntry, Replacement, TensorChange
from onnx_rewrite.rewriter.edit import PASS_KEY, SOURCES_KEY, node_label


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    """The entries of two mappings that are new, gone, or other; A's order, then B's."""
    return [
        Change(name, before.get(name), after.get(name))
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    ]


def operator(node: ir.Node) -> str:
    """The operator, with its domain outside the standard."""
    name = f"{node.op_type}:{node.overload}" if node.overload else node.op_type
    return name if node.domain in ("", "ai.onnx") else f"{node.domain}::{name}"


@dataclass
class _Pairs:
    both: list[tuple[ir.Node, ir.Node]] = field(default_factory=list[tuple[ir.Node, ir.Node]])
    removed: list[ir.Node] = field(default_factory=list[ir.Node])
    added: list[ir.Node] = field(default_factory=list[ir.Node])


def _paired(a: ir.Graph, b: ir.Graph) -> _Pairs:
    """Nodes that give a value of the same name, then nodes of the same name, where that is the only one."""
    by_output = {value.name: node for node in a for value in node.outputs if value.name}
    partner: dict[ir.Node, ir.Node] = {}
    taken: set[ir.Node] = set()
    for node in b:
        for value in node.outputs:
            found = by_output.get(value.name or "")
            if found is not None and found not in taken:
                partner[node] = found
                taken.add(found)
                break
    left_a = {name: node for name, node in _by_unique_name(a).items() if node not in taken}
    for name, node in _by_unique_name(b).items():
        if node not in partner and name in left_a:
            partner[node] = left_a[name]
            taken.add(left_a[name])
    return _Pairs(
        both=[(partner[node], node) for node in b if node in partner],
        removed=[node for node in a if node not in taken],
        added=[node for node in b if node not in partner],
    )


def _by_unique_name(graph: ir.Graph) -> dict[str, ir.Node]:
    count = Counter(node.name for node in graph)
    return {node.name: node for node in graph if node.name and count[node.name] == 1}


def compare_graphs(a: ir.Graph, b: ir.Graph, scope: str, found: Difference) -> bool:
    """Adds to `found` what differs in the nodes, initializers and stated types of two graphs, bodies included.

    Returns:
        Whether anything does.
    """
    pairs = _paired(a, b)
    changed: dict[ir.Node, list[Change]] = {}
    explained: dict[ir.Node, int] = {}
    inside_differs = False
    for one, other in pairs.both:
        details = list(_details(one, other))
        if details or operator(one) != operator(other):
            changed[other] = details
        else:
            found.nodes_unchanged += 1
        inside_differs |= _compare_bodies(one, other, scope, found)
    _attribute_to_passes(a, pairs, changed, scope, found, explained)
    for one, other in pairs.both:
        if other in changed:
            entry = NodeChange(scope, node_label(other), operator(one), operator(other), changed[other])
            entry.replacement = explained.get(other)
            found.nodes_changed.append(entry)
    found.nodes_removed += [_entry(node, scope, explained) for node in pairs.removed]
    found.nodes_added += [_entry(node, scope, explained) for node in pairs.added]
    tensors = list(_initializers(a, b, scope))
    found.initializers += tensors
    types = list(_value_types(a, b, pairs, scope))
    found.value_types += types
    return bool(changed or pairs.removed or pairs.added or tensors or types or inside_differs)


def _entry(node: ir.Node, scope: str, explained: Mapping[ir.Node, int]) -> NodeEntry:
    outputs = [value.name for value in node.outputs if value.name]
    return NodeEntry(scope, node_label(node), operator(node), outputs, explained.get(node))


# -- within a pair ----------------------------------------------------------------------------------------------------


def _details(a: ir.Node, b: ir.Node) -> Iterator[Change]:
    if a.name != b.name:
        yield Change("name", a.name or "", b.name or "")
    for kind, before, after in (("inputs", a.inputs, b.inputs), ("outputs", a.outputs, b.outputs)):
        old, new = _names(before), _names(after)
        if old != new:
            yield Change(kind, ", ".join(old), ", ".join(new))
    for name in dict.fromkeys((*a.attributes, *b.attributes)):
        old_one, new_one = a.attributes.get(name), b.attributes.get(name)
        if old_one is None or new_one is None or not same_attribute(old_one, new_one):
            yield Change(name, attribute_text(old_one), attribute_text(new_one))
    for change in changes(a.metadata_props, b.metadata_props):
        change.name = f"metadata {change.name}"
        yield change
    if (a.doc_string or "") != (b.doc_string or ""):
        yield Change("doc string", a.doc_string, b.doc_string)


def _names(values: object) -> list[str]:
    listed: tuple[ir.Value | None, ...] = tuple(values)  # type: ignore[arg-type]
    names = ["" if value is None else value.name or "" for value in listed]
    while names and not names[-1]:  # an optional one at the end may be left out
        names.pop()
    return [name or "-" for name in names]


def _compare_bodies(a: ir.Node, b: ir.Node, scope: str, found: Difference) -> bool:
    differs = False
    before, after = _bodies(a), _bodies(b)
    for name, body in before.items():
        other = after.get(name)
        if other is None:
            continue
        inner = f"{scope}{node_label(b)}.{name}/"
        interface = changes(_interface(body), _interface(other))
        for change in interface:
            change.name = f"{inner}{change.name}"
        found.properties += interface
        differs |= compare_graphs(body, other, inner, found) or bool(interface)
    return differs


def _interface(graph: ir.Graph) -> dict[str, str]:
    found = {"inputs": ", ".join(_names(graph.inputs)), "outputs": ", ".join(_names(graph.outputs))}
    return {name: text for name, text in found.items() if text}


def _bodies(node: ir.Node) -> dict[str, ir.Graph]:
    found: dict[str, ir.Graph] = {}
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            found[attribute.name] = attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            found.update((f"{attribute.name}[{i}]", graph) for i, graph in enumerate(attribute.as_graphs()))
    return found


# -- beside the nodes -------------------------------------------------------------------------------------------------


def _initializers(a: ir.Graph, b: ir.Graph, scope: str) -> Iterator[TensorChange]:
    for name in dict.fromkeys((*a.initializers, *b.initializers)):
        one, other = a.initializers.get(name), b.initializers.get(name)
        if one is None or other is None:
            before = None if one is None else tensor_text(one.const_value)
            after = None if other is None else tensor_text(other.const_value)
            yield TensorChange(scope + name, before, after)
            continue
        old, new = one.const_value, other.const_value
        if old is None or new is None:  # sparse: their messages are compared with the model's properties
            if old is not new:
                yield TensorChange(scope + name, tensor_text(old), tensor_text(new))
        elif not same_tensor(old, new):
            before, after = tensor_text(old), tensor_text(new)
            yield TensorChange(scope + name, before, after, values_text(old, new) if before == after else None)


def _value_types(a: ir.Graph, b: ir.Graph, pairs: _Pairs, scope: str) -> Iterator[Change]:
    interface = {value.name for graph in (a, b) for value in (*graph.inputs, *graph.outputs)}
    before = {value.name: value for one, _ in pairs.both for value in one.outputs if value.name}
    for _, node in pairs.both:
        for value in node.outputs:
            old = before.get(value.name or "")
            if old is not None and value.name not in interface:
                texts = type_text(old), type_text(value)
                if texts[0] != texts[1]:
                    yield Change(f"{scope}{value.name}", *texts)


# -- passes -----------------------------------------------------------------------------------------------------------


def _attribute_to_passes(
    a: ir.Graph,
    pairs: _Pairs,
    changed: Mapping[ir.Node, list[Change]],
    scope: str,
    found: Difference,
    explained: dict[ir.Node, int],
) -> None:
    """Finds what passes recorded on new nodes; `explained` gets the nodes of both graphs that this accounts for."""
    counterpart = {other: one for one, other in pairs.both}
    fresh = {node: counterpart.get(node) for node in (*changed, *pairs.added)}
    gone = [*pairs.removed, *(one for one in fresh.values() if one is not None)]
    by_label = {node_label(node): node for node in gone}
    groups: dict[tuple[str, str], Replacement] = {}
    numbers: dict[tuple[str, str], int] = {}
    for node, before in fresh.items():
        key = _record(node)
        if key is None or (before is not None and _record(before) == key):
            continue
        if key not in groups:
            numbers[key] = len(found.replacements)
            sources = [label for label in key[1].split(", ") if label]
            groups[key] = Replacement(key[0], scope, sources, 0, 0, [])
            found.replacements.append(groups[key])
            for label in sources:
                if label in by_label:
                    explained[by_label[label]] = numbers[key]
        groups[key].nodes.append(f"{operator(node)} '{node_label(node)}'")
        explained[node] = numbers[key]
        if before is not None:
            explained.setdefault(before, numbers[key])
    removed = set(pairs.removed)
    for node in reversed(list(a)):
        if node not in removed or node in explained:
            continue
        users = [use.node for value in node.outputs for use in value.uses()]
        if users and all(user in explained for user in users) and not any(v.is_graph_output() for v in node.outputs):
            number = min(explained[user] for user in users)
            explained[node] = number
            if operator(node) == "Constant":
                found.replacements[number].constants += 1
            else:
                found.replacements[number].others += 1


def _record(node: ir.Node) -> tuple[str, str] | None:
    name = node.metadata_props.get(PASS_KEY)
    return None if name is None else (name, node.metadata_props.get(SOURCES_KEY, ""))
