"""The same model with other names, its nodes in another order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx

NOTE = "origin"
"""The key of a note on every node."""


def disguised(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model with other names for all values, its nodes in another order in which they can run.

    Every node has the metadata `NOTE`, as a tool may have left it there.
    Functions stay as they are.
    """
    other = onnx.ModelProto()
    other.CopyFrom(model)
    names = list(dict.fromkeys(_names(other.graph)))
    _rename(other.graph, {name: f"{'zyxw'[number % 4]}{len(names) - number}" for number, name in enumerate(names)})
    for node in _all_nodes(other):
        node.metadata_props.add(key=NOTE, value="drawn")
    nodes = _reversed(list(other.graph.node))
    del other.graph.node[:]
    other.graph.node.extend(nodes)
    return other


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    graphs: list[Any] = [model.graph, *model.functions]
    while graphs:
        for node in graphs.pop().node:
            yield node
            graphs += _bodies(node)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    for body in _bodies(node):
        yield from _names(body)


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    """All names of values that a graph mentions."""
    for value in (*graph.input, *graph.initializer, *graph.output):
        yield value.name
    for node in graph.node:
        yield from (name for name in (*_reads(node), *node.output) if name)


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    fields: list[Any] = [graph.input, graph.initializer, graph.output, graph.value_info]
    for value in (v for field in fields for v in field):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for field in (node.input, node.output):
            field[:] = [names.get(name, name) for name in field]
        node.name = f"n_{node.output[0]}"
        for body in _bodies(node):
            _rename(body, names)


def _reversed(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Another order in which the nodes can run: always the last that is ready."""
    reads = {id(node): set(_reads(node)) for node in nodes}
    missing = {name for node in nodes for name in node.output if name}
    left, found = list(nodes), list[onnx.NodeProto]()
    while left:
        node = next(n for n in reversed(left) if missing.isdisjoint(reads[id(n)]))
        left.remove(node)
        found.append(node)
        missing.difference_update(node.output)
    return found
