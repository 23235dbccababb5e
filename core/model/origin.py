"""What the file said, recorded beside the IR when it is read, so that writing can tell an edit from the rest.

The record is made of object identities (nodes, attributes, tensors, types, shapes) and of the protobuf messages
themselves; names are compared with the messages when the model is written. Keeping no copies keeps reading fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import onnx
import onnx_ir as ir

from onnx_rewrite.errors import ModelError
from onnx_rewrite.model.deserializing import is_opaque, opaque_attribute, sparse_names
from onnx_rewrite.model.nodes import tensor_in
from onnx_rewrite.model.structure import describe

_GRAPH = ir.AttributeType.GRAPH
_GRAPHS = ir.AttributeType.GRAPHS
_TENSOR = ir.AttributeType.TENSOR
_TENSORS = ir.AttributeType.TENSORS
_UNDEFINED = ir.AttributeType.UNDEFINED

# operator, domain, overload, name, doc string, inputs, outputs, attributes
NodeState = tuple[
    str, str, str, "str | None", "str | None", "Sequence[ir.Value | None]", "Sequence[ir.Value]", "tuple[ir.Attr, ...]"
]
TypeRecord = tuple["ir.TypeProtocol | None", "ir.DataType | None", "ir.Shape | None"]


class UnknownValueError(Exception):
    """A node reads, or a graph returns, a value that nothing known to onnx_ir produces."""


@dataclass(eq=False)
class GraphOrigin:
    """One graph (the main one, a body, or a function's) as it was in the file."""

    graph: ir.Graph
    proto: onnx.GraphProto | onnx.FunctionProto
    nodes: list[ir.Node] = field(default_factory=list)  # in the file's order
    states: list[NodeState] = field(default_factory=list)  # of each node
    node_notes: dict[ir.Node, dict[str, str]] = field(default_factory=dict)  # metadata_props, where there are any
    devices: dict[ir.Node, object] = field(default_factory=dict)
    # every value that the graph declares, with its name
    values: list[tuple[ir.Value, str | None]] = field(default_factory=list)
    inputs: list[ir.Value] = field(default_factory=list)
    outputs: list[ir.Value] = field(default_factory=list)
    # (name, value, tensor); a sparse initializer is not among them
    initializers: list[tuple[str, ir.Value, ir.TensorProtocol | None]] = field(default_factory=list)
    sparse: list[str] = field(default_factory=list)
    types: dict[ir.Value, TypeRecord] = field(default_factory=dict)
    # properties and doc string of the values that have any
    notes: dict[ir.Value, tuple[dict[str, str], str | None]] = field(default_factory=dict)
    order: list[ir.Node] = field(default_factory=list)  # as the engine got them: sorted
    name: str | None = None
    doc_string: str | None = None
    opset_imports: dict[str, int] = field(default_factory=dict)

    def names(self) -> set[str]:
        """The names of all values that the graph declared in the file."""
        if isinstance(self.proto, onnx.GraphProto):
            names = {info.name for info in self.proto.input}
            names.update(name for name, _, _ in self.initializers)
            names.update(sparse.values.name for sparse in self.proto.sparse_initializer)
        else:
            names = set(self.proto.input)
        for node in self.proto.node:
            names.update(node.output)
        names.discard("")
        return names


@dataclass(eq=False)
class ModelOrigin:
    """The whole model as it was in the file."""

    model: ir.Model
    proto: onnx.ModelProto
    graphs: dict[ir.Graph, GraphOrigin] = field(default_factory=dict)
    functions: dict[ir.Function, tuple[GraphOrigin, tuple[ir.Attr, ...]]] = field(default_factory=dict)
    externals: list[ir.ExternalTensor] = field(default_factory=list)
    fields: dict[str, object] = field(default_factory=dict)
    was_sorted: bool = True
    # onnx_ir renames a tensor through to the TensorProto that it wraps
    tensor_names: list[tuple[onnx.TensorProto, str | None]] = field(default_factory=list)

    def restore_names(self) -> None:
        """Gives every TensorProto of the file the name back that it had there."""
        for tensor, name in self.tensor_names:
            if name is None:
                tensor.ClearField("name")
            elif tensor.name != name:
                tensor.name = name


MODEL_FIELDS = ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string")


def record(model: ir.Model, proto: onnx.ModelProto, where: str, *, stand_in: bool) -> ModelOrigin:
    """Walks the IR and the protobuf side by side.

    Puts in place what a stand-in replaced, checks that every value that is read has a producer, and notes whether the
    nodes are in topological order.

    Raises:
        UnknownValueError: When a value has no producer.
        ModelError: When external data has no readable location.
    """
    origin = ModelOrigin(model, proto)
    walker = _Walker(origin, where, stand_in)
    for owner in (model.graph, *(function.graph for function in model.functions.values())):
        _normalize_default_domain(owner.opset_imports)
    walker.walk(model.graph, proto.graph)
    # Functions of equal identity would be one in the IR; then there are fewer of them than in the file.
    functions = list(model.functions.values())
    if len(functions) != len(proto.functions):
        raise UnknownValueError
    for function, function_proto in zip(functions, proto.functions, strict=True):
        walker.visited.clear()
        found = walker.walk(function.graph, function_proto)
        origin.functions[function] = (found, tuple(function.attributes.values()))
    origin.fields = {name: getattr(model, name) for name in MODEL_FIELDS}
    return origin


def _normalize_default_domain(imports: dict[str, int]) -> None:
    """``ai.onnx`` is the default domain's other name; onnx_ir changes it to ``""`` on nodes, but not here."""
    if "ai.onnx" in imports and "" not in imports:
        pairs = [("" if domain == "ai.onnx" else domain, version) for domain, version in imports.items()]
        imports.clear()
        imports.update(pairs)


class _Walker:
    def __init__(self, origin: ModelOrigin, where: str, stand_in: bool) -> None:
        self.origin = origin
        self.where = where
        self.stand_in = stand_in
        self.visited: set[ir.Node] = set()

    def walk(self, graph: ir.Graph, proto: onnx.GraphProto | onnx.FunctionProto) -> GraphOrigin:
        found = GraphOrigin(graph, proto)
        self.origin.graphs[graph] = found
        if isinstance(proto, onnx.GraphProto):
            if self.stand_in:
                self._take_back_sparse(graph, proto, found)
            self._initializers(graph, proto, found)
        found.inputs = list(graph.inputs)
        types, values, visited, node_notes = found.types, found.values, self.visited, found.node_notes
        for value in found.inputs:
            types[value] = (value.type, value.dtype, value.shape)
            values.append((value, value.name))
        if len({name for _, name in values}) < len({value for value, _ in values}):
            raise UnknownValueError  # two inputs of one name
        found.nodes = found.order = list(graph)
        if len(found.nodes) != len(proto.node):
            raise ModelError(f"{self.where} cannot be read: onnx-ir dropped nodes")
        for index, node in enumerate(found.nodes):
            inputs, outputs = node.inputs, node.outputs
            for value in inputs:
                if value is None:
                    continue
                producer = value.producer()
                if producer is None:
                    if not (value.is_graph_input() or value.is_initializer()):
                        raise UnknownValueError
                elif producer not in visited:
                    self.origin.was_sorted = False
            attributes = tuple(node.attributes.values())
            if attributes:
                attributes = self._attributes(node, attributes, proto, index)
            found.states.append(
                (node.op_type, node.domain, node.overload, node.name, node.doc_string, inputs, outputs, attributes)
            )
            if node.metadata_props:
                node_notes[node] = dict(node.metadata_props)
            devices = getattr(node, "device_configurations", ())
            if devices:
                found.devices[node] = devices
            visited.add(node)
            for value in outputs:
                values.append((value, value.name))
                if value.type is not None or value.shape is not None:
                    types[value] = (value.type, value.dtype, value.shape)
        found.outputs = list(graph.outputs)
        for value in found.outputs:
            if value.producer() is None and not (value.is_graph_input() or value.is_initializer()):
                raise UnknownValueError
            types.setdefault(value, (value.type, value.dtype, value.shape))
        for value in types:
            if value.doc_string is not None or value.metadata_props:
                found.notes[value] = (dict(value.metadata_props), value.doc_string)
        found.name, found.doc_string = graph.name, graph.doc_string
        found.opset_imports = dict(graph.opset_imports)
        return found

    def _initializers(self, graph: ir.Graph, proto: onnx.GraphProto, found: GraphOrigin) -> None:
        if len(graph.initializers) - len(found.sparse) != len(proto.initializer):
            raise UnknownValueError  # one without a name, or two of the same
        names = self.origin.tensor_names
        for tensor_proto in proto.initializer:
            name = tensor_proto.name
            value = graph.initializers[name]
            tensor = value.const_value
            found.initializers.append((name, value, tensor))
            names.append((tensor_proto, name))
            if type(tensor) is ir.ExternalTensor:  # isinstance is slow on onnx_ir's protocols
                self.origin.externals.append(tensor)
            found.types[value] = (value.type, value.dtype, value.shape)
            found.values.append((value, name))

    def _take_back_sparse(self, graph: ir.Graph, proto: onnx.GraphProto, found: GraphOrigin) -> None:
        found.sparse = sparse_names(proto)
        values = [graph.inputs.pop() for _ in found.sparse]
        for value in reversed(values):
            # Registered without data: the name is taken, the value has an owner, and nobody takes it for a constant.
            graph.initializers.add(value)
        for sparse in proto.sparse_initializer:
            for part in (sparse.values, sparse.indices):
                self._external_message(part)

    def _attributes(
        self,
        node: ir.Node,
        attributes: tuple[ir.Attr, ...],
        proto: onnx.GraphProto | onnx.FunctionProto,
        index: int,
    ) -> tuple[ir.Attr, ...]:
        replaced = False
        for attribute in attributes:
            kind = attribute.type
            if attribute.is_ref() or (attribute.value is None and kind != _UNDEFINED):
                continue
            if kind in (_TENSOR, _TENSORS):
                tensors = (tensor_in(attribute),) if kind == _TENSOR else attribute.as_tensors()
                for tensor in tensors:
                    if type(tensor) is ir.ExternalTensor:
                        self.origin.externals.append(tensor)
                    elif type(tensor) is ir.serde.TensorProtoTensor:
                        message = tensor.raw
                        name = message.name if message.HasField("name") else None
                        self.origin.tensor_names.append((message, name))
            elif kind in (_GRAPH, _GRAPHS):
                message = _attribute_message(proto.node[index], attribute.name)
                bodies = (attribute.as_graph(),) if kind == _GRAPH else attribute.as_graphs()
                messages = (message.g,) if kind == _GRAPH else message.graphs
                for body, body_message in zip(bodies, messages, strict=True):
                    self.walk(body, body_message)
            elif kind == _UNDEFINED and self.stand_in:
                message = _attribute_message(proto.node[index], attribute.name)
                if is_opaque(message):
                    node.attributes[attribute.name] = opaque_attribute(message)
                    replaced = True
                    for sparse in (message.sparse_tensor, *message.sparse_tensors):
                        self._external_message(sparse.values)
                        self._external_message(sparse.indices)
        return tuple(node.attributes.values()) if replaced else attributes

    def _external_message(self, tensor: onnx.TensorProto) -> None:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            found = ir.serde.deserialize_tensor(tensor)
            assert isinstance(found, ir.ExternalTensor)
            self.origin.externals.append(found)


def _attribute_message(node: onnx.NodeProto, name: str) -> onnx.AttributeProto:
    for attribute in node.attribute:
        if attribute.name == name:
            return attribute
    raise ModelError(f"{describe(node.name, node.op_type)} has no attribute '{name}'")


def bodies_of(attributes: tuple[ir.Attr, ...]) -> Iterator[ir.Graph]:
    """Yields the graphs that attributes hold."""
    for attribute in attributes:
        if attribute.type == _GRAPH and not attribute.is_ref():
            yield attribute.as_graph()
        elif attribute.type == _GRAPHS and not attribute.is_ref():
            yield from attribute.as_graphs()
