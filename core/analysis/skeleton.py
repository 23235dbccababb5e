"""A graph as onnx's shape inference needs it: every value with a name of its own, and no weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnx_rewrite.analysis.foreign import alike
from onnx_rewrite.custom import known_types
from onnx_rewrite.model.messages import write_attribute
from onnx_rewrite.model.nodes import tensor_in

# Shapes, axes and pads decide shapes; so do the scales of a Resize. Larger tensors are weights.
MAX_INTEGERS = 1024
MAX_OTHERS = 16

# onnx propagates the values of computed shapes well from opset 15 on only (Squeeze-13, Unsqueeze-13, Shape-15). So the
# skeleton of an older model is written in opset 17, the last before reductions changed: the attributes that became
# inputs by then, and which inputs they became (None: of no importance to types).
MODERN = 17
OLDEST_MODERNISED = 9  # below, Scan is another operator
_MOVED: dict[str, dict[str, int | None]] = {
    "Clip": {"min": None, "max": None},
    "Dropout": {"ratio": None},
    "Pad": {"pads": 1, "value": None},
    "ReduceSum": {"axes": 1},
    "Slice": {"starts": 1, "ends": 2, "axes": 3},
    "Split": {"split": 1},
    "Squeeze": {"axes": 1},
    "TopK": {"k": 1},
    "Unsqueeze": {"axes": 1},
    "Upsample": {"scales": 1},
}

_INTEGERS = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL})


def bodies(node: ir.Node) -> list[ir.Graph]:
    """The graphs among a node's attributes."""
    found: list[ir.Graph] = []
    if not node.attributes:
        return found
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            found.extend(attribute.as_graphs())
    return found


class Skeleton:
    """A graph as onnx's inference needs it: unique names, no weights; captured values are inputs."""

    def __init__(self, graph: ir.Graph, attributes: Mapping[str, ir.Attr], opsets: Mapping[str, int]) -> None:
        self._foreign = known_types()
        self.values: dict[str, ir.Value] = {}
        self.symbols: set[str] = set()
        self._names: dict[ir.Value, str] = {}
        self._held: dict[str, onnx.TensorProto] = {}  # constants by name, of which inference sees the elements
        self._attributes = attributes
        self.opsets = {"" if domain == "ai.onnx" else domain: version for domain, version in opsets.items()}
        self._version = self.opsets.get("", 0)
        self._parameters = 0
        self._moved: dict[str, dict[str, int | None]] = {}
        if OLDEST_MODERNISED <= self._version < MODERN:
            self._moved = _MOVED
            self.opsets[""] = MODERN
        self.proto = onnx.GraphProto(name="g")
        self._write(graph, self.proto)

    def _name(self, value: ir.Value | None) -> str:
        if value is None or value.name == "":
            return ""
        name = self._names.get(value)
        if name is None:
            # Nothing in this skeleton has produced it: it flows in, or it is constant.
            name = self._new(value)
            tensor = _constant_outside(value)
            if tensor is None:
                self._describe(self.proto.input, name, value)
            else:
                self._constant(name, tensor)
        return name

    def _new(self, value: ir.Value) -> str:
        name = self._names[value] = f"v{len(self._names)}"
        self.values[name] = value
        return name

    def _constant(self, name: str, tensor: ir.TensorProtocol) -> None:
        limit = MAX_INTEGERS if tensor.dtype in _INTEGERS else MAX_OTHERS
        dims = [int(d) for d in tensor.shape.numpy()]
        if tensor.size <= limit and tensor.dtype != ir.DataType.STRING:
            held = onnx.TensorProto(name=name, data_type=tensor.dtype.value, dims=dims, raw_data=tensor.tobytes())
            self._held[name] = held
            self.proto.initializer.append(held)
        kind = self.proto.input.add(name=name).type.tensor_type
        kind.elem_type = tensor.dtype.value
        shape = kind.shape
        shape.SetInParent()  # a scalar has a shape, too
        for dim in dims:
            shape.dim.add(dim_value=dim)

    def _write(self, graph: ir.Graph, proto: onnx.GraphProto) -> None:
        for value in graph.inputs:
            self._describe(proto.input, self._new(value), value)
        for node in graph:
            self._node(node, proto)
        for value in graph.outputs:
            self._describe(proto.output, self._name(value), value)

    def _node(self, node: ir.Node, graph: onnx.GraphProto) -> None:
        tensor = _tensor_of(node)
        # What a graph returns stays what a node gives: its stated shape may be another, and inference bears with it.
        if tensor is not None and not (node.op_type == "Identity" and node.outputs[0].is_graph_output()):
            self._constant(self._new(node.outputs[0]), tensor)
            return
        stand_in = alike(node, self._attributes) if node.op_type in self._foreign else None
        if stand_in is not None:
            self._stand_in(node, *stand_in, graph)
            return
        proto = onnx.NodeProto(op_type=node.op_type, domain=node.domain, overload=node.overload)
        names = [self._name(v) for v in node.inputs]
        proto.input.extend(names)
        if graph is not self.proto and not self._held.keys().isdisjoint(names):
            # Inference looks for elements in the graph in which a node stands, and not around it.
            own = {tensor.name for tensor in graph.initializer}
            graph.initializer.extend(self._held[n] for n in dict.fromkeys(names) if n in self._held and n not in own)
        opaque = False
        for attribute in node.attributes.values():
            if attribute.is_ref():
                given = self._attributes.get(attribute.ref_attr_name or "")
                # Without its attribute the node would be taken for one with the default.
                if given is None:
                    opaque = True
                    continue
                copy = proto.attribute.add()
                write_attribute(copy, given)
                copy.name = attribute.name
            elif attribute.type == ir.AttributeType.GRAPH:
                body = proto.attribute.add(name=attribute.name, type=onnx.AttributeProto.GRAPH)
                body.g.name = "b"
                self._write(attribute.as_graph(), body.g)
            elif attribute.type == ir.AttributeType.GRAPHS:
                many = proto.attribute.add(name=attribute.name, type=onnx.AttributeProto.GRAPHS)
                for inner in attribute.as_graphs():
                    self._write(inner, many.graphs.add(name="b"))
            else:
                write_attribute(proto.attribute.add(), attribute)
        for value in node.outputs:
            name = "" if value.name == "" else self._new(value)
            proto.output.append(name)
            if name and value.type is not None:
                self._describe(graph.value_info, name, value)
        if not opaque:
            if self._moved and not node.domain:
                self._modernise(proto, graph)
            graph.node.append(proto)

    def _stand_in(
        self,
        node: ir.Node,
        op_type: str,
        operands: list[ir.Value],
        attributes: Mapping[str, Any],
        graph: onnx.GraphProto,
    ) -> None:
        """Writes a standard operator in the place of a custom one whose result has the same dtype and shape."""
        inputs = [self._name(v) for v in operands]
        output = self._new(node.outputs[0])
        if node.outputs[0].type is not None:
            self._describe(graph.value_info, output, node.outputs[0])
        graph.node.append(onnx.helper.make_node(op_type, inputs, [output], **attributes))

    def _modernise(self, node: onnx.NodeProto, graph: onnx.GraphProto) -> None:
        moved = self._moved.get(node.op_type, {})
        for attribute in [a for a in node.attribute if a.name in moved]:
            index = moved[attribute.name]
            if index is not None:
                value = onnx.helper.get_attribute_value(attribute)
                array = np.atleast_1d(np.asarray(value, np.float32 if attribute.name == "scales" else np.int64))
                node.input.extend([""] * (index + 1 - len(node.input)))
                node.input[index] = f"p{self._parameters}"
                self._parameters += 1
                # In the graph in which the node stands, for inference looks nowhere else.
                graph.initializer.append(onnx.numpy_helper.from_array(array, node.input[index]))
            node.attribute.remove(attribute)
        if node.op_type == "Upsample" or (node.op_type == "Resize" and self._version == 10):
            node.op_type = "Resize"
            node.input.insert(1, "")  # the region of interest
        elif node.op_type == "BatchNormalization":
            del node.output[1:]  # statistics of training, which are others now

    def _describe(self, where: Any, name: str, value: ir.Value) -> None:
        info = where.add(name=name)
        if value.type is not None:
            ir.serde.serialize_type_into(info.type, value.type)
            if value.shape is not None:
                ir.serde.serialize_shape_into(info.type, value.shape)
                self.symbols.update(d.value for d in value.shape if isinstance(d, ir.SymbolicDim) and d.value)


def _tensor_of(node: ir.Node) -> ir.TensorProtocol | None:
    """What a Constant node gives, however it is written, or an Identity of one or of an initializer.

    onnx's inference sees the elements of a Constant only where they are written as a tensor, and none behind Identity:
    a reduction whose axes are spelt so would have no known rank.
    """
    if node.op_type not in ("Constant", "Identity") or node.domain or len(node.outputs) != 1:
        return None
    if node.op_type == "Identity":
        value = node.inputs[0] if node.inputs else None
        return None if value is None else _constant_outside(value)
    if len(node.attributes) != 1:
        return None
    (attribute,) = node.attributes.values()
    if attribute.is_ref():
        return None
    if attribute.name == "value":
        return tensor_in(attribute) if attribute.type == ir.AttributeType.TENSOR else None
    dtype = _WRITTEN_AS.get(attribute.name)
    return None if dtype is None else ir.Tensor(np.asarray(attribute.value, dtype))


_WRITTEN_AS = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}


def _constant_outside(value: ir.Value) -> ir.TensorProtocol | None:
    """What a value holds that no node of this skeleton gives: an initializer, or what `_tensor_of` tells of a node."""
    node = value.producer()
    while node is not None and node.op_type == "Identity" and not node.domain and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    if node is not None:
        return _tensor_of(node)
    return None if value.is_graph_input() else value.const_value
