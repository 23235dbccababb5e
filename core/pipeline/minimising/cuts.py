"""Candidates that have fewer nodes of the main graph: each a new model, or None where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import onnx
from onnx import numpy_helper

from onnx_rewrite.verify.dtypes import Array

Values = dict[str, onnx.ValueInfoProto]
Numbers = Callable[[str], "Array | None"]


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made


def free_names(node: onnx.NodeProto) -> set[str]:
    """What a node reads: its inputs, and what its bodies take from outside."""
    found = {name for name in node.input if name}
    for graph in bodies(node):
        found |= captured(graph)
    return found


def captured(graph: onnx.GraphProto) -> set[str]:
    """What a body takes from outside."""
    inside = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    found: set[str] = set()
    for inner in graph.node:
        found |= free_names(inner) - inside
        inside.update(inner.output)
    return found | ({v.name for v in graph.output} - inside)


def bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs that a node has as attributes."""
    return [graph for a in node.attribute for graph in ([a.g] if a.type == onnx.AttributeProto.GRAPH else [*a.graphs])]


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes, and those of their bodies."""
    for node in nodes:
        yield node
        for graph in bodies(node):
            yield from all_nodes(graph.node)


def count_nodes(model: onnx.ModelProto) -> int:
    """Nodes of the main graph, of bodies and of functions."""
    return sum(1 for _ in all_nodes([*model.graph.node, *(n for f in model.functions for n in f.node)]))


def subgraph(
    model: onnx.ModelProto, kept: Sequence[int], values: Values, numbers: Numbers | None = None
) -> onnx.ModelProto | None:
    """The model of some of its nodes: what others read is an output, what they read and do not make an input.

    Args:
        model: The model.
        kept: The nodes, by number.
        values: The types that are known.
        numbers: If given, small integers that are read become constants instead: shapes, axes and the like.
    """
    graph = model.graph
    nodes = [graph.node[i] for i in kept]
    chosen = set(kept)
    made = {name for node in nodes for name in node.output if name}
    read: set[str] = set().union(*(free_names(node) for node in nodes))
    outside = {name for i, node in enumerate(graph.node) if i not in chosen for name in free_names(node)}
    weights = weight_names(graph)
    given = {v.name for v in graph.input}
    ends = {o.name for o in graph.output}
    wanted = [n for n in _made(nodes) if n in outside or n in ends] or [n for n in _made(nodes) if n not in read]
    frozen: list[onnx.TensorProto] = []
    inputs: list[str] = []
    for name in _ordered(graph, read):
        if name in made or (name in weights and name not in given):
            continue
        array = None if numbers is None or name in given else numbers(name)
        if array is None:
            inputs.append(name)
        else:
            frozen.append(numpy_helper.from_array(array, name))
    if numbers is not None and not frozen:
        return None
    return assembled(model, nodes, inputs, wanted, values, frozen)


def with_outputs(model: onnx.ModelProto, names: Sequence[str], values: Values) -> onnx.ModelProto | None:
    """The model with some of its outputs, and the nodes that they need."""
    needed, nodes = set(names), list[onnx.NodeProto]()
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed |= free_names(node)
    nodes.reverse()
    inputs = [v.name for v in model.graph.input if v.name in needed]
    return assembled(model, nodes, inputs, names, values) if nodes else None


def redirected(model: onnx.ModelProto, old: str, new: str, values: Values) -> onnx.ModelProto | None:
    """The model in which readers of one value read another."""
    made = copied(model)
    for node in made.graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new
    if any(o.name == old for o in made.graph.output) or any(old in free_names(n) for n in made.graph.node):
        return None
    return with_outputs(made, [o.name for o in made.graph.output], values)


def assembled(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[str],
    outputs: Sequence[str],
    values: Values,
    more: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto | None:
    """A model of these parts, with what the model has beside its graph; None where a type is not known."""
    if not outputs or any(name not in values for name in (*inputs, *outputs)):
        return None
    graph = model.graph
    made = onnx.ModelProto()
    made.CopyFrom(_around(model))
    read = {name for node in nodes for name in free_names(node)} | set(outputs)
    made.graph.node.extend(nodes)
    made.graph.initializer.extend(t for t in graph.initializer if t.name in read)
    made.graph.initializer.extend(more)
    made.graph.sparse_initializer.extend(t for t in graph.sparse_initializer if t.values.name in read)
    made.graph.input.extend(values[name] for name in inputs)
    made.graph.output.extend(values[name] for name in outputs)
    ends = {*inputs, *outputs}
    made.graph.value_info.extend(values[n] for n in _made(nodes) if n in values and n not in ends)
    there = read | set(_made(nodes))
    made.graph.quantization_annotation.extend(a for a in graph.quantization_annotation if a.tensor_name in there)
    _add_functions(model, made)
    return made


def _around(model: onnx.ModelProto) -> onnx.ModelProto:
    """All of a model but its functions and the parts of its graph."""
    made = onnx.ModelProto(
        ir_version=model.ir_version,
        opset_import=model.opset_import,
        metadata_props=model.metadata_props,
        training_info=model.training_info,
        doc_string=model.doc_string,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
    )
    made.graph.name, made.graph.doc_string = model.graph.name, model.graph.doc_string
    return made


def _add_functions(model: onnx.ModelProto, made: onnx.ModelProto) -> None:
    """The functions that are called, directly or by others."""
    known = {(f.domain, f.name): f for f in model.functions}
    called: set[tuple[str, str]] = set()
    left = list(made.graph.node)
    while left:
        for node in all_nodes([left.pop()]):
            key = node.domain, node.op_type
            if key in known and key not in called:
                called.add(key)
                left.extend(known[key].node)
    made.functions.extend(f for f in model.functions if (f.domain, f.name) in called)


def weight_names(graph: onnx.GraphProto) -> set[str]:
    """The names of initializers, sparse ones too."""
    return {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}


def _made(nodes: Iterable[onnx.NodeProto]) -> list[str]:
    return [name for node in nodes for name in node.output if name]


def _ordered(graph: onnx.GraphProto, names: set[str]) -> list[str]:
    """Names in the order of the graph: its inputs first."""
    order = [*(v.name for v in graph.input), *_made(graph.node)]
    return [name for name in dict.fromkeys(order) if name in names]
