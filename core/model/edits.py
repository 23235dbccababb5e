"""Finding what was edited: the IR as it is now against the record of how it was read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
import onnx_ir as ir

from onnx_rewrite.model.nodes import INFERRED_KEY
from onnx_rewrite.model.origin import MODEL_FIELDS, GraphOrigin, ModelOrigin, bodies_of


class Edits:
    """The differences between a model as it is and its file, found once.

    A node is as it was when its operator, name, notes, inputs, outputs and the names of these are what they were, its
    attributes are the objects that were read, and nothing inside its bodies changed.

    Attributes:
        any: Whether anything at all changed.
        touched: For each graph of the file that was looked at, its nodes that are not as they were.
        changed_values: The values that have another name, type, shape, doc string or property than they had.
    """

    def __init__(self, origin: ModelOrigin, model: ir.Model) -> None:
        self.origin = origin
        self.model = model
        self.touched: dict[ir.Graph, set[ir.Node]] = {}
        self.changed_values: set[ir.Value] = set()
        self._renamed_in: set[ir.Node] = set()
        self._same: dict[ir.Graph, bool] = {}
        origin.restore_names()
        for found in origin.graphs.values():
            self._find_changed_values(found)
        self.any = not self._model_is_same()

    def graph_is_same(self, graph: ir.Graph) -> bool:
        """Whether a graph, bodies included, is exactly as the file has it; False for a new graph."""
        known = self._same.get(graph)
        if known is not None:
            return known
        origin = self.origin.graphs.get(graph)
        if origin is None:
            return False
        self.touched[graph] = touched = set()
        devices, notes = origin.devices, origin.node_notes
        for node, state in zip(origin.nodes, origin.states, strict=True):
            if node.graph is not graph:
                continue
            op_type, domain, overload, name, doc_string, inputs, outputs, attributes = state
            if (
                node.op_type != op_type
                or node.inputs != inputs
                or node.outputs != outputs
                or node.name != name
                or node.domain != domain
                or node.overload != overload
                or node.doc_string != doc_string
                or node.metadata_props != notes.get(node, _NONE)
                or getattr(node, "device_configurations", ()) is not devices.get(node, _NO_DEVICES)
                or ((attributes or node.attributes) and not self._attributes_are_same(node, attributes))
            ):
                touched.add(node)
        touched.update(node for node in self._renamed_in if node.graph is graph)
        same = not touched and identical(list(graph), origin.order) and self._shell_is_same(origin)
        self._same[graph] = same
        return same

    def _attributes_are_same(self, node: ir.Node, before: tuple[ir.Attr, ...]) -> bool:
        if not identical(tuple(node.attributes.values()), before):
            return False
        return all(self.graph_is_same(body) for body in bodies_of(before))

    def _find_changed_values(self, origin: GraphOrigin) -> None:
        changed, notes = self.changed_values, origin.notes
        for value, name in origin.values:
            if value.name != name:
                changed.add(value)
                self._renamed_in.update(use.node for use in value.uses())
                producer = value.producer()
                if producer is not None:
                    self._renamed_in.add(producer)
        for value, (type_, dtype, shape) in origin.types.items():
            if INFERRED_KEY in value.meta:
                pass  # the file's entry, or its absence, stands
            elif value.type is not type_ or value.shape is not shape or value.dtype != dtype:
                changed.add(value)
                continue
            # Notes come from several entries of one name, which the IR merged when it read.
            noted = value.metadata_props or value.doc_string is not None or value in notes
            if noted and (value.metadata_props, value.doc_string) != notes.get(value, NO_NOTES):
                changed.add(value)

    def _model_is_same(self) -> bool:
        model, origin = self.model, self.origin
        same = self.graph_is_same(model.graph)
        for function in model.functions.values():
            if function in origin.functions:
                found, attributes = origin.functions[function]
                proto = found.proto
                assert isinstance(proto, onnx.FunctionProto)
                same = self.graph_is_same(found.graph) and same
                same = same and identical(tuple(function.attributes.values()), attributes)
                same = same and (proto.name, proto.domain) == (function.name, function.domain)
        same = same and list(model.functions.values()) == list(origin.functions)
        same = same and all(getattr(model, name) == origin.fields[name] for name in MODEL_FIELDS)
        return same and {entry.key: entry.value for entry in origin.proto.metadata_props} == model.metadata_props

    def _shell_is_same(self, origin: GraphOrigin) -> bool:
        graph, proto = origin.graph, origin.proto
        before = (origin.name, origin.doc_string, origin.opset_imports)
        if (graph.name, graph.doc_string, graph.opset_imports) != before:
            return False
        if {entry.key: entry.value for entry in proto.metadata_props} != graph.metadata_props:
            return False
        if not (identical(list(graph.inputs), origin.inputs) and identical(list(graph.outputs), origin.outputs)):
            return False
        if len(graph.initializers) != len(origin.initializers) + len(origin.sparse):
            return False
        for name, value, tensor in origin.initializers:
            if graph.initializers.get(name) is not value or value.const_value is not tensor:
                return False
        for name in origin.sparse:
            if name not in graph.initializers or graph.initializers[name].const_value is not None:
                return False
        changed = self.changed_values
        return not changed or not any(value in changed for value, _ in (*origin.values, *origin.types.items()))


_NONE: dict[str, str] = {}
_NO_DEVICES: tuple[()] = ()
NO_NOTES: tuple[dict[str, str], None] = ({}, None)


def identical(first: Sequence[Any], second: Sequence[Any]) -> bool:
    """Whether two sequences hold the same objects (not merely equal ones) in the same order."""
    return len(first) == len(second) and all(a is b for a, b in zip(first, second, strict=True))
