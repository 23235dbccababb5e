"""Reduces a model to a part of itself, in place; what stays is object by object what was read.

`onnx_ir.convenience.extract` makes a new graph, which knows nothing of sparse initializers and quantization
annotations, and refuses a cut that leaves a graph input needed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedFunctionsPass

from onnx_rewrite.analysis.skeleton import bodies
from onnx_rewrite.errors import UsageError
from onnx_rewrite.model import KEEP_VALUE_INFO, LoadedModel
from onnx_rewrite.rewriter.names import Names


@dataclass
class Part:
    """What outputs need.

    Attributes:
        scopes: The graph that it stands in and those around it, the outermost first.
        nodes: In an order in which they can run.
        initializers: Those that are read, outer graphs' included.
        used: The chosen inputs that are read.
        reached: Graph inputs that are read although they were not chosen, those with a default aside.
        defaults: Graph inputs that are read and have an initializer as their default.
    """

    scopes: Sequence[ir.Graph]
    nodes: list[ir.Node] = field(default_factory=list[ir.Node])
    initializers: dict[ir.Value, None] = field(default_factory=dict[ir.Value, None])
    used: set[ir.Value] = field(default_factory=set[ir.Value])
    reached: dict[ir.Value, None] = field(default_factory=dict[ir.Value, None])
    defaults: dict[ir.Value, None] = field(default_factory=dict[ir.Value, None])


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """What a node and the bodies inside it read, values of the bodies' own included."""
    yield from (value for value in node.inputs if value is not None)
    for body in bodies(node):
        for inner in body:
            yield from reads(inner)
        yield from body.outputs


def enclosing(graph: ir.Graph, model: ir.Model) -> list[ir.Graph]:
    """The graph and those around it, the outermost first."""
    for owner in (model.graph, *(function.graph for function in model.functions.values())):
        path = _path(owner, graph)
        if path:
            return path
    raise ValueError("the graph is not one of the model")


def _path(outer: ir.Graph, graph: ir.Graph) -> list[ir.Graph]:
    if outer is graph:
        return [graph]
    for node in outer:
        for body in bodies(node):
            found = _path(body, graph)
            if found:
                return [outer, *found]
    return []


def needed(outputs: Sequence[ir.Value], inputs: Collection[ir.Value], scopes: Sequence[ir.Graph]) -> Part:
    """What `outputs` need, up to `inputs`; all of them are values of one graph or of graphs around it (`enclosing`)."""
    part = Part(scopes)
    found: set[ir.Node] = set()
    seen: set[ir.Value] = set()
    waiting = list(outputs)
    while waiting:
        value = waiting.pop()
        if value in seen or value.graph not in scopes:  # of a body inside: it comes with its node
            continue
        seen.add(value)
        producer = value.producer()
        if value in inputs:
            part.used.add(value)
        elif producer is not None:
            if producer not in found:
                found.add(producer)
                waiting.extend(reads(producer))
        elif value.is_initializer():
            part.initializers[value] = None
            if value.is_graph_input():
                part.defaults[value] = None
        else:
            part.reached[value] = None
    part.nodes = [node for scope in scopes for node in scope if node in found]
    return part


def depending(inputs: Collection[ir.Value], graph: ir.Graph) -> set[ir.Value]:
    """The values of a sorted graph that depend on `inputs`, those aside."""
    found = set(inputs)
    for node in graph:
        if any(value in found for value in reads(node)):
            found.update(node.outputs)
    return found.difference(inputs)


def carve(loaded: LoadedModel, part: Part, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> list[str]:
    """Leaves nothing in a model but a part.

    Args:
        loaded: The model; nobody else may hold it.
        part: What `needed` found for `outputs` up to `inputs`.
        inputs: The new inputs, in order, `part.reached` and `part.defaults` included.
        outputs: The new outputs, in order.

    Returns:
        What could not be taken along, in words.

    Raises:
        UsageError: The part stands in a function and refers to an attribute of its call.
    """
    main = loaded.ir.graph
    graphs = dict.fromkeys((main, *part.scopes))
    function = next((f for f in loaded.ir.functions.values() if f.graph is part.scopes[0]), None)
    if function is not None:
        _refuse_references(part, function)
    names = Names(loaded.ir)
    interface_before = {value.name for value in (*main.inputs, *main.outputs)}
    for scope in graphs:
        scope.outputs.clear()
    fresh = [_freed(value, main, part, names) for value in inputs]
    for scope in graphs:
        scope.inputs.clear()
    if len(graphs) > 1:
        _move_up(part, main)
    if function is not None:
        main.opset_imports.clear()
        main.opset_imports.update(function.opset_imports)
    kept = set(part.nodes)
    dead = [node for node in main if node not in kept]
    for node in dead:
        _detach(node)
    main.remove(dead)
    main.inputs.extend(fresh)
    main.outputs.extend(outputs)
    notes = _prune_messages(loaded, part, interface_before)
    for value in list(main.initializers.values()):
        if value not in part.initializers:
            main.initializers.pop(value.name or "")
    RemoveUnusedFunctionsPass()(loaded.ir)
    return notes


def _freed(value: ir.Value, main: ir.Graph, part: Part, names: Names) -> ir.Value:
    """The value that becomes an input of the main graph: this one, or one that takes its name and its readers."""
    if value.graph is main and value.is_graph_input():
        if value.is_initializer() and value not in part.initializers:  # chosen: it must be fed from now on
            main.initializers.pop(value.name or "")
            value.const_value = None
        return value
    if value.is_initializer() and isinstance(value.graph, ir.Graph):
        value.graph.initializers.pop(value.name or "")
    shape = None if value.shape is None else value.shape.copy()
    new = ir.Value(None, name=value.name, type=value.type, shape=shape, doc_string=value.doc_string)
    new.metadata_props.update(value.metadata_props)
    value.replace_all_uses_with(new)
    value.name = names.value(f"{value.name}_before")  # its node may be needed for another output
    return new


def _move_up(part: Part, main: ir.Graph) -> None:
    """Moves nodes and initializers of a body, or of a function, into the main graph.

    Names of nested scopes never collide, and nothing else of the main graph stays.
    """
    for node in part.nodes:
        if node.graph is not main:
            assert node.graph is not None
            node.graph.remove(node)
            main.append(node)
            for value in node.outputs:
                value.meta[KEEP_VALUE_INFO] = True
        else:  # behind nothing that it reads, in front of all that reads it
            main.remove(node)
            main.append(node)
    for value in part.initializers:
        owner = value.graph
        if owner is not main and isinstance(owner, ir.Graph):
            owner.initializers.pop(value.name or "")
            main.initializers.pop(value.name or "", None)
            main.register_initializer(value)


def _detach(node: ir.Node) -> None:
    """Makes a node that goes away, and the bodies inside it, no users of what stays."""
    for index in range(len(node.inputs)):
        node.replace_input_with(index, None)
    for body in bodies(node):
        for inner in body:
            _detach(inner)


def _refuse_references(part: Part, function: ir.Function) -> None:
    waiting = list(part.nodes)
    while waiting:
        node = waiting.pop()
        for attribute in node.attributes.values():
            if attribute.is_ref():
                raise UsageError(
                    f"{node.op_type} '{node.name or node.outputs[0].name}' of the function {function.domain}::"
                    f"{function.name} takes its attribute '{attribute.name}' from the call: the part cannot stand on "
                    "its own",
                    hint="inline the functions first, with onnx.inliner.inline_local_functions",
                )
        for body in bodies(node):
            waiting.extend(body)


def _prune_messages(loaded: LoadedModel, part: Part, interface_before: set[str | None]) -> list[str]:
    """Takes out of the file's record what does not hold for the part; returns what that is worth telling.

    An input or output needs no value_info beside it; training_info speaks of the whole model; the scale and the zero
    point of a quantization annotation come along with the tensor.
    """
    main, proto = loaded.ir.graph, loaded.origin.proto
    interface = {value.name for value in (*main.inputs, *main.outputs)} - interface_before
    infos = [info for info in proto.graph.value_info if info.name not in interface]
    if len(infos) < len(proto.graph.value_info):
        del proto.graph.value_info[:]
        proto.graph.value_info.extend(infos)
    notes: list[str] = []
    if proto.training_info:
        del proto.training_info[:]
        notes.append("training_info is left out: it speaks of the whole model")
    values = {value.name for node in main for value in node.outputs}
    values |= {value.name for value in (*main.inputs, *part.initializers)}
    annotations = [a for a in proto.graph.quantization_annotation if a.tensor_name in values]
    for annotation in list(annotations):
        for entry in annotation.quant_parameter_tensor_names:
            parameter = main.initializers.get(entry.value)
            if parameter is not None:
                part.initializers[parameter] = None
            elif entry.value not in values:
                annotations.remove(annotation)
                notes.append(f"the quantization annotation of '{annotation.tensor_name}' is left out: it refers to ")
                notes[-1] += f"'{entry.value}', which something else computes"
                break
    del proto.graph.quantization_annotation[:]
    proto.graph.quantization_annotation.extend(annotations)
    return notes
