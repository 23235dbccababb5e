"""From the IR back to protobuf so that nothing outside an edit changes.

Every object that is as it was read contributes its own message from the file, unknown fields and the presence of empty
ones included; only the rest is written anew. onnx_ir's own writer rebuilds everything and is faithful to less: it drops
sparse initializers and training_info, adds value_info for initializers, and forgets which empty fields were present.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from onnx_rewrite.errors import ModelError
from onnx_rewrite.model.carried import check_training, write_annotations
from onnx_rewrite.model.edits import NO_NOTES, Edits, identical
from onnx_rewrite.model.messages import (
    copy_shell,
    set_metadata,
    set_opsets,
    set_text,
    write_attribute,
    write_tensor,
    write_value_info,
)
from onnx_rewrite.model.nodes import INFERRED_KEY
from onnx_rewrite.model.origin import MODEL_FIELDS, GraphOrigin, bodies_of

# value.meta[KEEP_VALUE_INFO] = True asks for a value_info entry for a new value.
KEEP_VALUE_INFO = "onnx_rewrite.value_info"

# Functions have value_info of their own from this IR version on; before, exporters put it into the main graph's as
# DOMAIN::FUNCTION/VALUE.
_FUNCTION_VALUE_INFO_VERSION = 10

_REBUILT = (
    "node", "initializer", "sparse_initializer", "input", "output", "value_info", "quantization_annotation",
    "attribute", "attribute_proto",
)  # fmt: skip


class Rebuild:
    """One writing of a model.

    Args:
        edits: What changed since the model was read.
        base_dir: The folder of the model's external data.
        where: The model's name, for messages.
        shortcuts: Copy graphs without an edit as a whole (False only to test that the long way is as faithful).
    """

    def __init__(self, edits: Edits, base_dir: Path | None, where: str, *, shortcuts: bool = True) -> None:
        self.edits = edits
        self.origin = edits.origin
        self.base_dir = base_dir
        self.where = where
        self.shortcuts = shortcuts

    def model(self) -> onnx.ModelProto:
        """Returns the model with its edits.

        Raises:
            ModelError: When an edit broke something that is carried along, or left an initializer without data.
        """
        model, origin = self.edits.model, self.origin
        target = onnx.ModelProto()
        copy_shell(target, origin.proto, ("graph", "functions"))
        for name in MODEL_FIELDS:
            value = getattr(model, name)
            if value != origin.fields[name]:
                if value is None:
                    target.ClearField(name)  # type: ignore[arg-type]
                else:
                    setattr(target, name, value)
        set_metadata(target.metadata_props, model.metadata_props)
        before = origin.graphs.get(model.graph)
        set_opsets(target.opset_import, before.opset_imports if before else {}, model.graph.opset_imports)
        self.graph(target.graph, model.graph)
        for function in model.functions.values():
            self.function(target.functions.add(), function)
        if before is not None and self.edits.any and target.training_info:
            check_training(target, before.names(), _values_now(model.graph).keys(), self.where)
        return target

    def graph(self, target: onnx.GraphProto, graph: ir.Graph) -> None:
        """Writes a graph, its bodies included, into an empty message."""
        origin = self.origin.graphs.get(graph)
        if origin is None or not isinstance(origin.proto, onnx.GraphProto):
            set_text(target, "name", graph.name)
            set_text(target, "doc_string", graph.doc_string)
            set_metadata(target.metadata_props, graph.metadata_props)
            self._values(target, graph, None)
            self._initializers(target, graph, None)
            self._nodes(target, graph, None)
            self._value_infos(target.value_info, graph, None, set(), _values_now(graph))
            return
        proto = origin.proto
        if self.shortcuts and self._as_it_was(graph):
            target.CopyFrom(proto)
            return
        copy_shell(target, proto, _REBUILT)
        if graph.name != origin.name:
            set_text(target, "name", graph.name)
        if graph.doc_string != origin.doc_string:
            set_text(target, "doc_string", graph.doc_string)
        set_metadata(target.metadata_props, graph.metadata_props)
        self._values(target, graph, origin)
        self._initializers(target, graph, origin)
        self._nodes(target, graph, origin)
        before, now = origin.names(), _values_now(graph)
        self._value_infos(target.value_info, graph, origin, before, now)
        write_annotations(target, proto, before, now.keys(), self.where)

    def function(self, target: onnx.FunctionProto, function: ir.Function) -> None:
        """Writes a model-local function into an empty message."""
        graph = function.graph
        attributes = tuple(function.attributes.values())
        known = self.origin.functions.get(function)
        origin: GraphOrigin | None = None
        if known is not None:
            origin, attributes_before = known
            if self.shortcuts and self._as_it_was(graph) and identical(attributes, attributes_before):
                target.MergeFrom(_function_message(origin))
                return
            copy_shell(target, origin.proto, _REBUILT)
        for name in ("name", "domain", "overload"):
            set_text(target, name, getattr(function, name))
        if origin is None or graph.doc_string != origin.doc_string:
            set_text(target, "doc_string", function.doc_string)
        set_metadata(target.metadata_props, function.metadata_props)
        set_opsets(target.opset_import, origin.opset_imports if origin else {}, function.opset_imports)
        target.input.extend(value.name or "" for value in function.inputs)
        target.output.extend(value.name or "" for value in function.outputs)
        if known is not None and identical(attributes, known[1]):
            proto = _function_message(known[0])
            target.attribute.extend(proto.attribute)
            target.attribute_proto.extend(proto.attribute_proto)
        else:
            for attribute in attributes:
                if attribute.value is None and not attribute.is_ref():
                    target.attribute.append(attribute.name)
                else:
                    write_attribute(target.attribute_proto.add(), attribute)
        self._nodes(target, graph, origin)
        if origin is not None or self.edits.model.ir_version >= _FUNCTION_VALUE_INFO_VERSION:
            before = origin.names() if origin else set[str]()
            self._value_infos(target.value_info, graph, origin, before, _values_now(graph))

    def _as_it_was(self, graph: ir.Graph) -> bool:
        # Nodes that the file has unsorted are written sorted as soon as anything at all was edited.
        return self.edits.graph_is_same(graph) and (self.origin.was_sorted or not self.edits.any)

    # -- nodes --------------------------------------------------------------------------------------------------------

    def _nodes(self, target: Any, graph: ir.Graph, origin: GraphOrigin | None) -> None:
        if origin is None:
            for node in graph:
                self.node(target.node.add(), node, None, ())
            return
        in_file_order = not self.edits.any
        nodes = origin.nodes if in_file_order else graph
        index_of = {node: index for index, node in enumerate(origin.nodes)}
        self.edits.graph_is_same(graph)  # makes sure that its nodes have been looked at
        touched = self.edits.touched[graph]
        messages = origin.proto.node
        add = target.node.add
        for node in nodes:
            index = index_of.get(node)
            if index is None:
                self.node(add(), node, None, ())
            elif node in touched or (not self.origin.was_sorted and not in_file_order) or not self.shortcuts:
                self.node(add(), node, messages[index], origin.states[index][7])
            else:
                add().CopyFrom(messages[index])

    def node(
        self, target: onnx.NodeProto, node: ir.Node, original: onnx.NodeProto | None, before: tuple[ir.Attr, ...]
    ) -> None:
        """Writes a node, starting from its message in the file if it has one."""
        domain = node.domain
        if original is not None:
            copy_shell(target, original, ("attribute", "input", "output", "device_configurations"))
            if original.domain == "ai.onnx" and domain == "":
                domain = "ai.onnx"
        for name, value in (("op_type", node.op_type), ("domain", domain), ("overload", node.overload)):
            set_text(target, name, value)
        set_text(target, "name", node.name)
        set_text(target, "doc_string", node.doc_string)
        set_metadata(target.metadata_props, node.metadata_props)
        target.input.extend("" if value is None else value.name or "" for value in node.inputs)
        outputs = [value.name or "" for value in node.outputs]
        if original is None:
            while outputs and not outputs[-1]:
                outputs.pop()
        target.output.extend(outputs)
        messages = {} if original is None else {message.name: message for message in original.attribute}
        for attribute in node.attributes.values():
            kept = messages.get(attribute.name)
            if kept is None or not any(attribute is other for other in before):
                kept = None
            self._attribute(target.attribute.add(), attribute, kept)
        self._devices(target, node, original)

    def _attribute(self, target: onnx.AttributeProto, attribute: ir.Attr, kept: onnx.AttributeProto | None) -> None:
        is_one = attribute.type == ir.AttributeType.GRAPH
        if attribute.is_ref() or not (is_one or attribute.type == ir.AttributeType.GRAPHS):
            if kept is not None:
                target.CopyFrom(kept)
            else:
                write_attribute(target, attribute)
            return
        if kept is not None:
            copy_shell(target, kept, ("g", "graphs"))
        else:
            target.name = attribute.name
            target.type = attribute.type.value  # type: ignore[assignment]
            set_text(target, "doc_string", attribute.doc_string)
        for body in bodies_of((attribute,)):
            message = target.g if is_one else target.graphs.add()
            message.SetInParent()
            self.graph(message, body)

    def _devices(self, target: onnx.NodeProto, node: ir.Node, original: onnx.NodeProto | None) -> None:
        devices = getattr(node, "device_configurations", ())
        if original is not None:
            origin = self.origin.graphs.get(node.graph) if node.graph is not None else None  # type: ignore[arg-type]
            if (origin.devices.get(node, ()) if origin else ()) is devices or not (devices or origin):
                kept = getattr(original, "device_configurations", ())
                if kept:
                    target.device_configurations.extend(kept)
                return
        for device in devices:
            target.device_configurations.add().CopyFrom(ir.serde.serialize_node_device_configuration(device))

    # -- values -------------------------------------------------------------------------------------------------------

    def _values(self, target: onnx.GraphProto, graph: ir.Graph, origin: GraphOrigin | None) -> None:
        proto = origin.proto if origin is not None else None
        for field, values in (("input", graph.inputs), ("output", graph.outputs)):
            messages = list(getattr(proto, field)) if proto is not None else []
            by_name = {message.name: message for message in messages}
            known = getattr(origin, f"{field}s") if origin is not None else []
            for index, value in enumerate(values):
                message = messages[index] if index < len(messages) and known[index] is value else None
                if message is None and index < len(messages) and messages[index].name == value.name:
                    message = messages[index]
                message = message or by_name.get(value.name or "")
                before = origin.types.get(value) if origin is not None else None
                noted = origin.notes.get(value, NO_NOTES) if origin is not None else NO_NOTES
                if message is not None and INFERRED_KEY in value.meta and message.name == value.name:
                    getattr(target, field).add().CopyFrom(message)
                    continue
                write_value_info(getattr(target, field).add(), value, message, before, noted)

    def _value_infos(
        self, target: Any, graph: ir.Graph, origin: GraphOrigin | None, before: set[str], now: dict[str, ir.Value]
    ) -> None:
        add, changed = target.add, self.edits.changed_values
        interface = {value.name for value in (*graph.inputs, *graph.outputs)}
        written: set[str] = set()
        if origin is not None:
            types = origin.types
            for message in getattr(origin.proto, "value_info", ()):
                name = message.name
                value = now.get(name)
                written.add(name)
                if value is None:
                    if name not in before and not self._of_a_removed_function(name):
                        add().CopyFrom(message)
                    continue
                if self.shortcuts and value in types and value not in changed:
                    add().CopyFrom(message)
                else:
                    noted = origin.notes.get(value, NO_NOTES)
                    write_value_info(add(), value, message, types.get(value), noted)
        for name, value in now.items():
            if name in written or name in interface or value.type is None:
                continue
            wanted = value.meta.get(KEEP_VALUE_INFO) if origin is not None else not value.is_initializer()
            if wanted:
                write_value_info(add(), value, None, None)

    def _of_a_removed_function(self, name: str) -> bool:
        function, _, _ = name.partition("/")
        domain, separator, title = function.partition("::")
        if not separator:
            return False
        identifier = (domain, title, "")
        known = any(found.identifier() == identifier for found in self.origin.functions)
        return known and identifier not in self.edits.model.functions

    def _initializers(self, target: onnx.GraphProto, graph: ir.Graph, origin: GraphOrigin | None) -> None:
        done: set[ir.Value] = set()
        if origin is not None and isinstance(origin.proto, onnx.GraphProto):
            for (_, value, tensor), message in zip(origin.initializers, origin.proto.initializer, strict=True):
                name = value.name or ""
                if graph.initializers.get(name) is not value:
                    replacement = graph.initializers.get(message.name)
                    if replacement is None or replacement.const_value is not tensor:
                        continue
                    value, name = replacement, message.name
                done.add(value)
                added = target.initializer.add()
                if value.const_value is tensor:
                    added.CopyFrom(message)
                    if added.name != name:
                        added.name = name
                else:
                    self._tensor(added, value)
            for sparse in origin.proto.sparse_initializer:
                value = graph.initializers.get(sparse.values.name)
                is_input = any(each.name == sparse.values.name for each in graph.inputs)
                if (value is not None and value.const_value is None) or (value is None and is_input):
                    target.sparse_initializer.add().CopyFrom(sparse)
                    if value is not None:
                        done.add(value)
        for value in graph.initializers.values():
            if value not in done:
                self._tensor(target.initializer.add(), value)

    def _tensor(self, target: onnx.TensorProto, value: ir.Value) -> None:
        if value.const_value is None:
            raise ModelError(f"{self.where}: the initializer '{value.name}' has no data")
        write_tensor(target, value.const_value, value.name, self.base_dir)


def _function_message(origin: GraphOrigin) -> onnx.FunctionProto:
    assert isinstance(origin.proto, onnx.FunctionProto)
    return origin.proto


def _values_now(graph: ir.Graph) -> dict[str, ir.Value]:
    values = {value.name: value for value in (*graph.inputs, *graph.initializers.values())}
    for node in graph:
        for value in node.outputs:
            values[value.name] = value
    return {name: value for name, value in values.items() if name}
