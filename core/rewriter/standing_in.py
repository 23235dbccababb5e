"""Gives custom operators a meaning where a model is run: a function of standard operators in each one's place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from onnx_rewrite.custom import Call, Spelling, Unreadable, find
from onnx_rewrite.rewriter.functions import IR_OF_FUNCTIONS, NoBody, make_function

DOMAIN = "onnx_rewrite.meaning"
"""Of the functions that stand in for nodes of other domains, or of fewer inputs."""


def resolved(model: onnx.ModelProto, *, exact: bool = False) -> onnx.ModelProto:
    """A copy in which every known custom operator without a function is a call of one; the model itself if none is.

    Args:
        model: The model.
        exact: Put the standard operator in its place that is the same, whatever the model's opset, where there is one:
            for an evaluator that knows operators by name.

    Nodes that do not say enough, or whose meaning needs a newer opset, stay.
    """
    if not any(_stands_for(node, model) for node in _nodes(model.graph)):
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    work = _Work(made, exact)
    work.graph(made.graph, {})
    return made


def unreadable(node: onnx.NodeProto) -> str | None:
    """Why a node of a known operator has no meaning that could be run, as far as the node alone tells."""
    spelling = find(node.domain, node.op_type)
    if spelling is None:
        return None
    try:
        _read(node, spelling, {}, {})
    except Unreadable as error:
        return str(error)
    return None


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g)
            for body in attribute.graphs:
                yield from _nodes(body)


def _stands_for(node: onnx.NodeProto, model: onnx.ModelProto) -> Spelling | None:
    """The spelling of a node that needs a stand-in."""
    spelling = find(node.domain, node.op_type)
    if spelling is None:
        return None
    if any((f.domain, f.name) == (node.domain, node.op_type) for f in model.functions):
        return None
    return None if spelling.standard and _runs(node.op_type, _opset(model)) else spelling


@lru_cache(maxsize=64)
def _runs(op_type: str, opset: int) -> bool:
    """Whether this onnxruntime has a kernel for a standard operator: old ones have none for DeformConv."""
    import onnxruntime as ort

    try:
        schema = onnx.defs.get_schema(op_type, min(opset, onnx.defs.onnx_opset_version()), "")
    except onnx.defs.SchemaError:
        return False
    names = [f"i{k}" for k in range(schema.min_input)]
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names]
    node = onnx.helper.make_node(op_type, names, ["o"])
    graph = onnx.helper.make_graph([node], "probe", inputs, [onnx.ValueInfoProto(name="o")])
    imports = [onnx.helper.make_opsetid("", opset)]
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:
        return False
    return True


def _opset(model: onnx.ModelProto) -> int:
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)


class _Work:
    def __init__(self, model: onnx.ModelProto, exact: bool) -> None:
        self._model = model
        self._exact = exact
        self._opset = _opset(model)
        self._made: dict[object, str] = {}

    def graph(self, graph: onnx.GraphProto, outer: Mapping[str, onnx.TensorProto]) -> None:
        tensors = {**outer, **{t.name: t for t in graph.initializer}}
        for node in graph.node:
            if node.op_type == "Constant" and not node.domain and node.attribute and node.attribute[0].name == "value":
                tensors[node.output[0]] = node.attribute[0].t
        shapes = _shapes(graph)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    self.graph(attribute.g, tensors)
            spelling = _stands_for(node, self._model)
            if spelling is None:
                continue
            try:
                self._replace(node, _read(node, spelling, tensors, shapes))
            except (Unreadable, NoBody):  # it stays, and whoever runs the model says that it cannot
                continue

    def _replace(self, node: onnx.NodeProto, call: Call) -> None:
        exact = call.operator.exact(call) if self._exact else None
        if exact is not None:
            inputs = [call.operands.get(role, "") for role in exact.operands]
            self._write(node, exact.op_type, "", inputs, exact.attributes)
            return
        present = [role for role in call.operator.inputs if role in call.operands]
        key = (call.operator.title, tuple(present), tuple(sorted(call.parameters.items())))
        name = self._made.get(key)
        if name is None:
            name = f"{call.operator.name}_{len(self._made)}"
            function = make_function(call.operator, self._opset, call, domain=DOMAIN, name=name)
            self._model.functions.add().CopyFrom(ir.serde.serialize_function(function))
            self._made[key] = name
            self._import(DOMAIN)
            self._model.ir_version = max(self._model.ir_version, IR_OF_FUNCTIONS)
        self._write(node, name, DOMAIN, [call.operands[role] for role in present], {})

    def _import(self, domain: str) -> None:
        if all(o.domain != domain for o in self._model.opset_import):
            self._model.opset_import.append(onnx.helper.make_opsetid(domain, 1))

    @staticmethod
    def _write(
        node: onnx.NodeProto, op_type: str, domain: str, inputs: list[str], attributes: Mapping[str, Any]
    ) -> None:
        while inputs and not inputs[-1]:
            inputs.pop()
        made = onnx.helper.make_node(op_type, inputs, list(node.output), name=node.name, domain=domain)
        made.attribute.extend(onnx.helper.make_attribute(k, v) for k, v in attributes.items())
        made.metadata_props.extend(node.metadata_props)
        node.CopyFrom(made)


def _read(
    node: onnx.NodeProto,
    spelling: Spelling,
    tensors: Mapping[str, onnx.TensorProto],
    shapes: Mapping[str, tuple[Any, ...]],
) -> Call:
    attributes: dict[str, Any] = {}
    for attribute in node.attribute:
        value = None if attribute.ref_attr_name else onnx.helper.get_attribute_value(attribute)
        value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        attributes[attribute.name] = tuple(value) if isinstance(value, (list, tuple)) else value

    def constant(name: str) -> np.ndarray[Any, np.dtype[Any]] | None:
        tensor = tensors.get(name)
        external = tensor is not None and tensor.data_location == onnx.TensorProto.EXTERNAL
        return None if tensor is None or external else numpy_helper.to_array(tensor)

    def shape(name: str) -> tuple[Any, ...] | None:
        tensor = tensors.get(name)
        return tuple(tensor.dims) if tensor is not None else shapes.get(name)

    return spelling.read([name or None for name in node.input], attributes, constant, shape)


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {}
    for value in (*graph.input, *graph.value_info):
        if value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            found[value.name] = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in dims)
    return found
