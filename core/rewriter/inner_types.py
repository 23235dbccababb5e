"""Types of the values inside a replacement: whoever matches on them next wants to know them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx_ir as ir

from onnx_rewrite.model.nodes import INFERRED_KEY

ValueType = tuple[ir.DataType, tuple[int | str | None, ...] | None]
"""An element type and the dimensions; None instead of them where not even the rank is known."""

NodeTypes = tuple[tuple[ValueType | None, ...], ...]
"""What is known of each output of each node."""


def inner_types(model: onnx.ModelProto, nodes: Sequence[ir.Node], results: Sequence[ir.Value]) -> NodeTypes:
    """What shape inference finds out about values that are no outputs.

    Args:
        model: A sound cut-out, whose first nodes are `nodes`.
        nodes: The nodes.
        results: Its outputs; their types are known.
    """
    if all(value in results for node in nodes for value in node.outputs):
        return ((),) * len(nodes)
    inferred = onnx.shape_inference.infer_shapes(_without_weights(model))
    found = {
        info.name: info.type.tensor_type for info in inferred.graph.value_info if info.type.HasField("tensor_type")
    }
    given = {symbol for value in model.graph.input for symbol in _symbols(value.type.tensor_type)}

    def read(name: str) -> ValueType | None:
        kind = found.get(name)
        if kind is None or not kind.elem_type:
            return None
        if not kind.HasField("shape"):
            return ir.DataType(kind.elem_type), None
        dims: list[int | str | None] = []
        for dim in kind.shape.dim:
            symbol = dim.dim_param if dim.dim_param in given else None  # others are inference's inventions
            dims.append(dim.dim_value if dim.HasField("dim_value") else symbol)
        return ir.DataType(kind.elem_type), tuple(dims)

    return tuple(tuple(read(name) for name in node.output) for node in inferred.graph.node[: len(nodes)])


def give_types(nodes: Sequence[ir.Node], types: NodeTypes) -> None:
    """Tells the outputs of new nodes what was found out about them."""
    for node, kinds in zip(nodes, types, strict=False):
        for value, kind in zip(node.outputs, kinds, strict=False):
            if kind is None or (value.type is not None and INFERRED_KEY not in value.meta):
                continue
            value.type = ir.TensorType(kind[0])
            value.shape = None if kind[1] is None else ir.Shape(kind[1])
            value.meta[INFERRED_KEY] = True


def _symbols(kind: onnx.TypeProto.Tensor) -> list[str]:
    return [dim.dim_param for dim in kind.shape.dim if dim.dim_param]


# Larger constants are weights: no shape depends on what they hold.
_LARGE = 1 << 10


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    if not any(len(tensor.raw_data) > _LARGE for tensor in model.graph.initializer):
        return model
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > _LARGE:
            light.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            light.graph.initializer.append(tensor)
    return light
