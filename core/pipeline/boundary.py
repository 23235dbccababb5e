"""A model with another boundary: other outputs, other names, other input types. What is given is never changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import onnx


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node holds, those inside them not."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def uses(node: onnx.NodeProto) -> set[str]:
    """The values of the graph around it that a node needs: its inputs, and what its bodies capture.

    Names that are defined inside a body are among the result only if they are used outside it as well.
    """
    found = {name for name in node.input if name}
    for body in bodies(node):
        inner: set[str] = {o.name for o in body.output}
        own = {v.name for v in body.input} | {t.name for t in body.initializer}
        own |= {t.values.name for t in body.sparse_initializer}
        for child in body.node:
            inner |= uses(child)
            own.update(child.output)
        found |= inner - own
    return found


def part(model: onnx.ModelProto, outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
    """A model with these outputs: the nodes and weights that they need, and all inputs."""
    graph = model.graph
    needed = {o.name for o in outputs}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed |= uses(node)
    kept.reverse()
    given = {t.name for t in graph.initializer}
    inputs = [v for v in graph.input if v.name in needed or v.name not in given]
    return cut(model, kept, inputs, outputs)


def cut(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    """A model of some nodes, in their order, with the weights that they need."""
    graph = model.graph
    needed = {o.name for o in outputs}.union(*(uses(node) for node in nodes))
    made = onnx.ModelProto(ir_version=model.ir_version)
    made.opset_import.extend(model.opset_import)
    made.functions.extend(model.functions)
    made.graph.name = graph.name
    made.graph.node.extend(nodes)
    made.graph.initializer.extend(t for t in graph.initializer if t.name in needed)
    made.graph.sparse_initializer.extend(t for t in graph.sparse_initializer if t.values.name in needed)
    made.graph.input.extend(inputs)
    made.graph.output.extend(outputs)
    ends = {v.name for v in (*inputs, *outputs)}
    made.graph.value_info.extend(v for v in graph.value_info if v.name in needed and v.name not in ends)
    return made


def names_of(model: onnx.ModelProto) -> set[str]:
    """All names of values in the graph and in its bodies."""
    found: set[str] = set()
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        found.update(v.name for group in (graph.input, graph.output, graph.initializer) for v in group)
        found.update(t.values.name for t in graph.sparse_initializer)
        for node in graph.node:
            found.update(node.output)
            graphs.extend(bodies(node))
    return found


def renamed(model: onnx.ModelProto, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> onnx.ModelProto:
    """A copy whose inputs and outputs have other names; a value that had one of these names gets a fresh one.

    Args:
        model: The model.
        inputs: New names by old ones.
        outputs: The same. A value that is an input too, or is to get two names, gets an Identity for each.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    taken = names_of(made) | set(inputs.values()) | set(outputs.values())
    names = dict(inputs)
    for value in made.graph.output:
        target = outputs.get(value.name, value.name)
        if names.setdefault(value.name, target) != target:
            end = fresh(value.name, taken)
            made.graph.node.add(op_type="Identity", input=[value.name], output=[end])
            names[end] = target
            value.name = end
    for target in list(names.values()):
        if target not in names:
            names[target] = fresh(target, taken)
    _rename(made.graph, names)
    return made


def fresh(name: str, taken: set[str]) -> str:
    """A name like `name` that is not taken; it is from now on."""
    number = 1
    while f"{name}_{number}" in taken:
        number += 1
    taken.add(f"{name}_{number}")
    return f"{name}_{number}"


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    # Names are unique over a graph and its bodies, so one table serves all of them.
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = names.get(sparse.values.name, sparse.values.name)
    for node in graph.node:
        for sequence in (node.input, node.output):
            for i, name in enumerate(sequence):
                if name in names:
                    sequence[i] = names[name]
        for body in bodies(node):
            _rename(body, names)


def casting(model: onnx.ModelProto, types: Mapping[str, int]) -> onnx.ModelProto:
    """A copy that takes inputs of other element types and casts them to its own."""
    taken = names_of(model)
    inner = {name: fresh(name, taken) for name in types}
    made = onnx.ModelProto()
    made.CopyFrom(model)
    _rename(made.graph, inner)
    casts: list[onnx.NodeProto] = []
    for value in made.graph.input:
        outer = next((name for name, new in inner.items() if new == value.name), None)
        if outer is not None:
            own = value.type.tensor_type.elem_type
            casts.append(onnx.helper.make_node("Cast", [outer], [value.name], to=own))
            value.name = outer
            value.type.tensor_type.elem_type = types[outer]
    nodes = list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend([*casts, *nodes])
    return made


def binding(model: onnx.ModelProto, sizes: Mapping[str, int]) -> onnx.ModelProto:
    """A copy whose symbolic dimensions, in its inputs, have these sizes; an unnamed one is called `input.axis`."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for value in made.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            size = sizes.get(dim.dim_param or f"{value.name}.{axis}")
            if size is not None and not dim.HasField("dim_value"):
                dim.dim_value = size
    return made


def described(names: Iterable[str]) -> str:
    """Names in quotes, the first few of many."""
    listed = list(names)
    shown = ", ".join(map(repr, listed[:6]))
    return f"{shown}, ... ({len(listed)} in all)" if len(listed) > 6 else shown or "none"
