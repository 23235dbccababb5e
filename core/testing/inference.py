"""Types and shapes of what one node gives, as onnx infers them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import onnx
from onnx import helper, shape_inference

from onnx_rewrite.testing.draft import Unfit

if TYPE_CHECKING:
    from onnx_rewrite.testing.draft import Draft, Node


# Their schemas say so, onnx's inference does not.
_EQUAL_SHAPES_BELOW_8 = frozenset({"Max", "Mean", "Min", "Sum"})

NO_KERNEL_BELOW_7 = frozenset(
    {
        "Add", "And", "AveragePool", "BatchNormalization", "Div", "Dropout", "Equal", "GRU", "Gemm", "Greater", "LSTM",
        "Less", "Mul", "Or", "PRelu", "Pow", "RNN", "Sub", "Upsample", "Xor",
    }
)  # fmt: skip
"""Operators of which onnxruntime 1.32.0 has no kernel of opset 6: it has one of every operator of opset 7."""


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


_Operand: TypeAlias = "tuple[int, tuple[int, ...], tuple[str, bytes] | None] | None"
"""Element type, shape, and the elements of few integers, on which shapes may depend."""


def infer(draft: Draft, node: Node, outputs: int) -> list[tuple[int, tuple[int, ...]]]:
    """Element type and shape of each output.

    Raises:
        Unfit: The operands are not legal, or the shapes cannot be inferred.
    """
    version = draft.opset if node.domain == "" else draft.versions.get(node.domain, 1)
    operands: list[_Operand] = []
    for value in node.inputs:
        if value is None:
            operands.append(None)
        elif value.array is not None and value.array.size <= 16 and value.array.dtype.kind in "iu":
            operands.append((value.dtype, value.shape, (value.array.dtype.str, value.array.tobytes())))
        else:
            operands.append((value.dtype, value.shape, None))
    asked = (node.op_type, node.domain, version, tuple(operands), repr(node.attributes), outputs)
    found = _known.get(asked)
    if found is None:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        try:
            found = _inferred(node.op_type, node.domain, version, operands, node.attributes, outputs)
        except Unfit as unfit:
            found = unfit.args
        _known[asked] = found
    if isinstance(found, tuple):
        raise Unfit(*found)
    return found


_MOST_KNOWN = 20_000
_known: dict[Any, Any] = {}
"""What was asked before, with the answer, or the arguments of the `Unfit` to raise."""


def _inferred(
    op_type: str, domain: str, version: int, operands: Sequence[Any], attributes: Mapping[str, Any], outputs: int
) -> list[tuple[int, tuple[int, ...]]]:
    schema = schema_of(op_type, version, domain)
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    for position, operand in enumerate(operands):
        if operand is None:
            continue
        dtype, shape, elements = operand
        if type_name(dtype) not in allowed(op_type, version, domain, position):
            raise Unfit(f"{op_type} takes no {type_name(dtype)} as operand {position}")
        name = f"i{position}"
        types[name] = _type_proto(dtype, shape)
        if elements is not None:
            data[name] = onnx.TensorProto(name=name, data_type=dtype, dims=shape, raw_data=elements[1])
    shapes = {operand[1] for operand in operands if operand is not None}
    if version < 7 and domain == "" and op_type in NO_KERNEL_BELOW_7:
        raise Unfit(f"onnxruntime has no {op_type} of opset {version}")
    if version < 8 and domain == "" and op_type in _EQUAL_SHAPES_BELOW_8 and len(shapes) > 1:
        raise Unfit(f"{op_type} does not broadcast at opset {version}")
    names = [f"{op_type}_{i}" for i in range(outputs)]
    inputs = [f"i{position}" if operand is not None else "" for position, operand in enumerate(operands)]
    proto = helper.make_node(op_type, inputs, names, domain=domain)
    try:
        for name, value in attributes.items():  # an empty list has no type
            proto.attribute.append(helper.make_attribute(name, value))
        found = shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=[_import(domain, version)])
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        raise Unfit(f"{op_type}: {error}") from error
    result: list[tuple[int, tuple[int, ...]]] = []
    for name in names:
        kind = found.get(name)
        if kind is None or not kind.tensor_type.HasField("shape"):
            raise Unfit(f"the shape that {op_type} gives is not known")
        dims = kind.tensor_type.shape.dim
        if any(not d.HasField("dim_value") for d in dims) or len(dims) > 6:
            raise Unfit(f"the shape that {op_type} gives is not known")
        result.append((kind.tensor_type.elem_type, tuple(d.dim_value for d in dims)))
    return result
