"""Types and shapes of what one node gives, as onnx infers them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import onnx
from onnx import helper, numpy_helper, shape_inference

from onnx_rewrite.testing.draft import Unfit

if TYPE_CHECKING:
    from onnx_rewrite.testing.draft import Draft, Node


# Their schemas say so, onnx's inference does not.
_EQUAL_SHAPES_BELOW_8 = frozenset({"Max", "Mean", "Min", "Sum"})


@functools.lru_cache(maxsize=4096)
def schema_of(op_type: str, version: int, domain: str = "") -> Any:
    """The operator at an opset.

    Raises:
        Unfit: There is none, or it is deprecated.
    """
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError as error:
        raise Unfit(f"no {op_type} at opset {version}") from error
    if schema.deprecated:
        raise Unfit(f"{op_type} is deprecated at opset {version}")
    return schema


@functools.lru_cache(maxsize=64)
def type_name(dtype: int) -> str:
    """An element type as schemas spell it: "tensor(float)"."""
    return f"tensor({onnx.TensorProto.DataType.Name(dtype).lower()})"


@functools.lru_cache(maxsize=4096)
def allowed(op_type: str, version: int, domain: str, position: int) -> frozenset[str]:
    """The types that an operand may have."""
    formal = formal_input(schema_of(op_type, version, domain), position)
    return frozenset(formal.types)


def formal_input(schema: Any, position: int) -> Any:
    """What a schema says of an operand; the last one of a variadic operator speaks of all further ones.

    Raises:
        Unfit: The operator has no such operand.
    """
    inputs = schema.inputs
    if position < len(inputs):
        return inputs[position]
    if inputs and inputs[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic:
        return inputs[-1]
    raise Unfit(f"{schema.name} has no operand {position}")


@functools.lru_cache(maxsize=4096)
def _type_proto(dtype: int, shape: tuple[int, ...]) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(dtype, list(shape))


@functools.lru_cache(maxsize=64)
def _import(domain: str, version: int) -> Any:
    return helper.make_opsetid(domain, version)


def infer(draft: Draft, node: Node, outputs: int) -> list[tuple[int, tuple[int, ...]]]:
    """Element type and shape of each output.

    Raises:
        Unfit: The operands are not legal, or the shapes cannot be inferred.
    """
    version = draft.opset if node.domain == "" else draft.versions.get(node.domain, 1)
    schema = schema_of(node.op_type, version, node.domain)
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    for position, value in enumerate(node.inputs):
        if value is None:
            continue
        if type_name(value.dtype) not in allowed(node.op_type, version, node.domain, position):
            raise Unfit(f"{node.op_type} takes no {type_name(value.dtype)} as operand {position}")
        types[value.name] = _type_proto(value.dtype, value.shape)
        if value.array is not None and value.array.size <= 16 and value.array.dtype.kind in "iu":
            data[value.name] = numpy_helper.from_array(value.array, value.name)
    shapes = {value.shape for value in node.inputs if value is not None}
    if version < 8 and node.domain == "" and node.op_type in _EQUAL_SHAPES_BELOW_8 and len(shapes) > 1:
        raise Unfit(f"{node.op_type} does not broadcast at opset {version}")
    names = [f"{node.op_type}_{i}" for i in range(outputs)]
    proto = helper.make_node(
        node.op_type, [v.name if v is not None else "" for v in node.inputs], names, domain=node.domain
    )
    for name, value in node.attributes.items():
        proto.attribute.append(helper.make_attribute(name, value))
    try:
        found = shape_inference.infer_node_outputs(
            schema, proto, types, data, opset_imports=[_import(node.domain, version)]
        )
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        raise Unfit(f"{node.op_type}: {error}") from error
    result: list[tuple[int, tuple[int, ...]]] = []
    for name in names:
        kind = found.get(name)
        if kind is None or not kind.tensor_type.HasField("shape"):
            raise Unfit(f"the shape that {node.op_type} gives is not known")
        dims = kind.tensor_type.shape.dim
        if any(not d.HasField("dim_value") for d in dims) or len(dims) > 6:
            raise Unfit(f"the shape that {node.op_type} gives is not known")
        result.append((kind.tensor_type.elem_type, tuple(d.dim_value for d in dims)))
    return result
