"""The way for operators that no table knows: `onnx.version_converter`, on a model of one node.

On whole models it drops functions, metadata and quantization annotations; on one node there is nothing to lose.
"""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir

from onnx_rewrite.model.messages import write_attribute
from onnx_rewrite.opset.adaptation import Change, NotAdaptable, OldNode

_MAX_CONSTANT = 1024


def convert(old: OldNode) -> Change | None:
    """Writes a node as `onnx.version_converter` would.

    Raises:
        NotAdaptable: It cannot, or the dtype or rank of an input is not known.
    """
    model, values = _model(old)
    before = model.graph.node[0]
    try:
        after = onnx.version_converter.convert_version(model, old.target).graph
    except Exception as error:
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise NotAdaptable(f"onnx.version_converter has no way from opset {old.source}: {reason[0]}") from error
    if len(after.node) == 1 and _same(before, after.node[0]):
        return None
    return Change(_spliced(old, after, values, list(before.output)))


def _model(old: OldNode) -> tuple[onnx.ModelProto, dict[str, ir.Value]]:
    node = old.node
    values: dict[str, ir.Value] = {}
    names: dict[ir.Value, str] = {}
    graph = onnx.GraphProto(name="node")
    for value in node.inputs:
        if value is None or value in names:
            continue
        if value.dtype is None or value.shape is None:
            raise NotAdaptable(f"the dtype or the rank of its input '{value.name}' is not known")
        name = names[value] = f"x{len(names)}"
        values[name] = value
        dims = [d if isinstance(d, int) else d.value for d in value.shape]
        graph.input.append(onnx.helper.make_tensor_value_info(name, value.dtype.value, dims))
        size = old.constants.size(value)
        array = old.constants.array(value) if size is not None and size <= _MAX_CONSTANT else None
        if array is not None:
            graph.initializer.append(ir.serde.serialize_tensor(ir.Tensor(array, name=name)))
    proto = graph.node.add(op_type=node.op_type)
    proto.input.extend("" if v is None else names[v] for v in node.inputs)
    proto.output.extend("" if v.name == "" else f"y{i}" for i, v in enumerate(node.outputs))
    for attribute in node.attributes.values():
        if attribute.is_ref() or attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            raise NotAdaptable(f"it has a body, or its {attribute.name} is one of the enclosing function")
        write_attribute(proto.attribute.add(), attribute)
    for value, name in zip(node.outputs, proto.output, strict=True):
        if name:
            info = graph.output.add(name=name)
            if value.dtype is not None:
                info.type.tensor_type.elem_type = value.dtype.value
    imports = [onnx.helper.make_opsetid("", old.source)]
    return onnx.ModelProto(ir_version=8, graph=graph, opset_import=imports), values


def _same(a: onnx.NodeProto, b: onnx.NodeProto) -> bool:
    return (
        a.op_type == b.op_type
        and list(a.input) == list(b.input)
        and sorted(t.SerializeToString() for t in a.attribute) == sorted(t.SerializeToString() for t in b.attribute)
    )


def _spliced(
    old: OldNode, graph: onnx.GraphProto, inputs: dict[str, ir.Value], outputs: list[str]
) -> tuple[ir.Value | None, ...]:
    known: dict[str, Any] = {"": None, **inputs}
    for tensor in graph.initializer:
        if tensor.name not in known:
            known[tensor.name] = onnx.numpy_helper.to_array(tensor)
    for node in graph.node:
        operands = tuple(known[name] for name in node.input)
        params = {a.name: ir.serde.deserialize_attribute(a) for a in node.attribute}
        made = old.maker.make(node.op_type, node.domain, operands, params, len(node.output))
        known.update(zip(node.output, (made,) if isinstance(made, ir.Value) else made, strict=True))
    return tuple(known.get(name) if name else None for name in outputs)
