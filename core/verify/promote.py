"""A model with fp16 and bf16 made fp32: what is run where onnxruntime's CPU provider has no kernel for the narrow type.

The constants keep their (already rounded) values, so that a replacement whose constants overflow in fp16 still shows
it.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_rewrite.verify.dtypes import HALVES

_FLOAT = onnx.TensorProto.FLOAT
# Attributes that hold an element type.
_TYPES = frozenset({"to", "dtype", "output_dtype"})


def has_halves(model: onnx.ModelProto) -> bool:
    """Whether a tensor of the model is declared as fp16 or bf16, or cast to it."""
    graph = model.graph
    if any(t.data_type in HALVES for t in graph.initializer):
        return True
    if any(v.type.tensor_type.elem_type in HALVES for v in (*graph.input, *graph.output, *graph.value_info)):
        return True
    return any(
        (a.name in _TYPES and a.i in HALVES) or a.t.data_type in HALVES for node in graph.node for a in node.attribute
    )


def promote(model: onnx.ModelProto, folder: str = "") -> onnx.ModelProto:
    """A copy with every fp16 and bf16 tensor, value and cast in fp32; model-local functions are inlined."""
    if model.functions:
        from onnx import inliner

        copy = inliner.inline_local_functions(model)
    else:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
    _graph(copy.graph, folder)
    return copy


def _graph(graph: onnx.GraphProto, folder: str) -> None:
    for tensor in graph.initializer:
        _tensor(tensor, folder)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in HALVES:
            value.type.tensor_type.elem_type = _FLOAT
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _graph(attribute.g, folder)
            elif attribute.type == onnx.AttributeProto.TENSOR:
                _tensor(attribute.t, folder)
            elif attribute.name in _TYPES and attribute.i in HALVES:
                attribute.i = _FLOAT


def _tensor(tensor: onnx.TensorProto, folder: str) -> None:
    if tensor.data_type in HALVES:
        wide = numpy_helper.to_array(tensor, folder).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
