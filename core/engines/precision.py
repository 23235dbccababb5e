"""The precision that a model itself states."""

from __future__ import annotations

import math
from collections import Counter

import onnx

from onnx_rewrite.errors import UsageError

_T = onnx.TensorProto
_NAMES: dict[int, str] = {_T.FLOAT: "fp32", _T.FLOAT16: "fp16", _T.BFLOAT16: "bf16", _T.DOUBLE: "fp64"}


def stated(model: onnx.ModelProto) -> str:
    """The type that most elements of the model's weights have; "int8" for a quantized model.

    A model without weights is named after its inputs; one without floats at all is "fp32".
    """
    graph = model.graph
    if any(node.op_type in ("DequantizeLinear", "QLinearConv", "QLinearMatMul") for node in graph.node):
        return "int8"
    elements: Counter[int] = Counter()
    for tensor in graph.initializer:
        elements[tensor.data_type] += math.prod(tensor.dims)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                elements[attribute.t.data_type] += math.prod(attribute.t.dims)
    for value in graph.input:
        elements[value.type.tensor_type.elem_type] += 1
    floats = {kind: n for kind, n in elements.items() if kind in _NAMES}
    return _NAMES[max(floats, key=lambda kind: floats[kind])] if floats else "fp32"


def as_stated(model: onnx.ModelProto, wanted: str | None, engine: str) -> str:
    """The model's precision, for an engine that computes in the types that the model names.

    Raises:
        UsageError: Another one is wanted.
    """
    found = stated(model)
    if wanted not in (None, found):
        raise UsageError(
            f"{engine} computes in the types that the model names: this one is {found}, not {wanted}",
            hint=f"convert the model to {wanted} first",
        )
    return found
