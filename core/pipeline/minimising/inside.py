"""Candidates that have less in a body or a function, or that have the body instead of the node around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import onnx

from onnx_rewrite.pipeline.minimising.cuts import Values, all_nodes, assembled, bodies, captured, copied

Holder = Any  # a GraphProto or a FunctionProto


@dataclass(frozen=True)
class Place:
    """A graph inside a model, found again in a copy of it.

    Attributes:
        function: Number of the function that it is in, or None for the main graph.
        path: From there on: number of the node, and number among its bodies.
    """

    function: int | None = None
    path: tuple[tuple[int, int], ...] = ()

    def of(self, model: onnx.ModelProto) -> Holder:
        """The graph, or the function."""
        holder: Any = model.graph if self.function is None else model.functions[self.function]
        for node, body in self.path:
            holder = bodies(holder.node[node])[body]
        return holder


def places(model: onnx.ModelProto) -> list[Place]:
    """All bodies and functions, the outer ones first."""
    found: list[Place] = []
    left = [Place(), *(Place(i) for i in range(len(model.functions)))]
    while left:
        place = left.pop(0)
        found.append(place)
        for i, node in enumerate(place.of(model).node):
            left += [Place(place.function, (*place.path, (i, k))) for k in range(len(bodies(node)))]
    return found[1:]


def bypassed(model: onnx.ModelProto, place: Place, index: int, operand: int) -> onnx.ModelProto | None:
    """Without one node: what reads its first output reads one of its operands."""
    made = copied(model)
    holder = place.of(made)
    node = holder.node[index]
    source, target = node.input[operand], node.output[0] if node.output else ""
    others = set(node.output[1:]) - {""}
    if not source or not target or others & _read(holder, but=index):
        return None
    ends = _ends(holder)
    if target not in ends:
        _rename(holder, target, source)
        del holder.node[index]
        return made
    maker = next((n for n in holder.node if source in n.output), None)
    if maker is not None and source not in ends:  # what made the operand makes the output
        maker.output[:] = [target if name == source else name for name in maker.output]
        _rename(holder, source, target)
        del holder.node[index]
        return made
    if node.op_type == "Identity" and not node.domain:
        return None
    _rename(holder, target, source)
    node.CopyFrom(onnx.helper.make_node("Identity", [source], [target], name=node.name))
    return made


def unused_removed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without what nothing reads: nodes and constants in bodies, inputs and outputs of functions."""
    made = copied(model)
    for place in places(made):
        holder = place.of(made)
        while True:
            read = _read(holder) | set(_ends(holder))
            dead = [n for n in holder.node if not read & set(n.output)]
            if not dead:
                break
            for node in dead:
                holder.node.remove(node)
        if isinstance(holder, onnx.GraphProto):
            kept = [t for t in holder.initializer if t.name in read]
            del holder.initializer[:]
            holder.initializer.extend(kept)
    for function in made.functions:
        _trim(made, function)
    return made


def _trim(model: onnx.ModelProto, function: onnx.FunctionProto) -> None:
    calls = [n for n in _everywhere(model) if (n.domain, n.op_type) == (function.domain, function.name)]
    read = _read(function) | set(function.output)
    for i in reversed(range(len(function.input))):
        if function.input[i] not in read:
            del function.input[i]
            for call in calls:
                if i < len(call.input):
                    del call.input[i]
    used = {name for n in _everywhere(model) for name in n.input} | {o.name for o in model.graph.output}
    used |= {name for p in places(model) for name in _ends(p.of(model))}
    for i in reversed(range(1, len(function.output))):
        if all(i >= len(call.output) or call.output[i] not in used for call in calls):
            del function.output[i]
            for call in calls:
                if i < len(call.output):
                    del call.output[i]


def branch_instead(model: onnx.ModelProto, index: int, branch: int) -> onnx.ModelProto | None:
    """The nodes of one branch of an If of the main graph in its place."""
    node = model.graph.node[index]
    if node.op_type != "If" or node.domain:
        return None
    body = bodies(node)[branch]
    taken = {name for n in model.graph.node for name in n.output} | {v.name for v in model.graph.input}
    taken |= {t.name for t in model.graph.initializer}
    inside = [n for inner in body.node for n in inner.output if n] + [t.name for t in body.initializer]
    names = {name: _free(name, taken) for name in inside}
    made = copied(model)
    nodes: list[onnx.NodeProto] = []
    for inner in body.node:
        new = onnx.NodeProto()
        new.CopyFrom(inner)
        for old, name in names.items():
            _rename_in(new, old, name)
        new.output[:] = [names.get(n, n) for n in new.output]
        nodes.append(new)
    for tensor in body.initializer:
        held = made.graph.initializer.add()
        held.CopyFrom(tensor)
        held.name = names[tensor.name]
    for given, name in zip(body.output, node.output, strict=True):
        if name:
            nodes.append(onnx.helper.make_node("Identity", [names.get(given.name, given.name)], [name]))
    before, behind = list(made.graph.node[:index]), list(made.graph.node[index + 1 :])
    del made.graph.node[:]
    made.graph.node.extend([*before, *nodes, *behind])
    return made


def body_alone(model: onnx.ModelProto, index: int, body: int, values: Values) -> onnx.ModelProto | None:
    """A body as the main graph; its inputs and what it takes from outside become inputs, or weights if they are."""
    graph = bodies(model.graph.node[index])[body]
    known = dict(values)
    known.update({v.name: v for v in (*graph.value_info, *graph.input, *graph.output) if _typed(v)})
    outer = copied(model)
    del outer.graph.node[:]
    outer.graph.node.extend(graph.node)
    outer.graph.initializer.extend(graph.initializer)
    weights = {t.name for t in model.graph.initializer}
    own = {v.name for v in graph.input}
    reads = captured(graph)
    if own & weights or {t.name for t in graph.initializer} & weights:
        return None
    made = {name for node in graph.node for name in node.output}
    inputs = [v.name for v in graph.input] + sorted(n for n in reads if n not in weights)
    outputs = [v.name for v in graph.output if v.name in made]
    if any(v.name not in known for v in graph.input):
        return None
    return assembled(outer, list(graph.node), inputs, outputs, known)


def _typed(value: onnx.ValueInfoProto) -> bool:
    if not value.type.HasField("tensor_type"):
        return value.type.WhichOneof("value") is not None
    return bool(value.type.tensor_type.elem_type)


def _free(name: str, taken: set[str]) -> str:
    found, number = name, 0
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    taken.add(found)
    return found


def _everywhere(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from all_nodes(model.graph.node)
    for function in model.functions:
        yield from all_nodes(function.node)


def _ends(holder: Holder) -> list[str]:
    return [o if isinstance(o, str) else o.name for o in holder.output]


def _read(holder: Holder, but: int | None = None) -> set[str]:
    """What the nodes of a graph read, those of their bodies too."""
    found: set[str] = set()
    for i, node in enumerate(holder.node):
        if i != but:
            for inner in all_nodes([node]):
                found.update(inner.input)
                found.update(name for graph in bodies(inner) for name in _ends(graph))
    return found - {""}


def _rename(holder: Holder, old: str, new: str) -> None:
    """Readers of one value read another; outputs of the graph itself keep their names."""
    for node in holder.node:
        _rename_in(node, old, new)


def _rename_in(node: onnx.NodeProto, old: str, new: str) -> None:
    node.input[:] = [new if name == old else name for name in node.input]
    for graph in bodies(node):
        inside = {v.name for v in graph.input} | {t.name for t in graph.initializer}
        inside |= {name for inner in graph.node for name in inner.output}
        if old in inside:
            continue
        for inner in graph.node:
            _rename_in(inner, old, new)
        for value in graph.output:
            if value.name == old:
                value.name = new
