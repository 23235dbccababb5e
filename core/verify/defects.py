"""Kernels of the installed onnxruntime that are known to be less exact than the operator's definition.

A replacement by such an operator is right, yet its outputs in this onnxruntime are not. Each defect is found by trying,
so that a version that mended it is judged without allowance.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx

from onnx_rewrite.verify.session import Session

# The mean of squares minus the square of the mean loses all digits of a variance that is 1e-6 of the mean's square.
# onnxruntime 1.23.2 computes LayerNormalization so on the CPU; 1.31.1 does not.
_OFFSET = 1000.0
_ALLOWED = 1e-2


def is_inexact(model: onnx.ModelProto) -> bool:
    """Whether a model holds an operator whose kernel in this onnxruntime loses precision."""
    return any(node.op_type == "LayerNormalization" for node in model.graph.node) and lossy_layer_normalization()


@cache
def lossy_layer_normalization() -> bool:
    """Whether LayerNormalization in fp32 is off by more than 1e-2 on numbers around 1000 with deviation 1."""
    length = 64
    x = (np.random.default_rng(0).standard_normal((4, length)) + _OFFSET).astype(np.float32)
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + np.float32(1e-5))
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("LayerNormalization", ["x", "scale"], ["y"], axis=-1)],
        "probe",
        [info("x", onnx.TensorProto.FLOAT, [4, length])],
        [info("y", onnx.TensorProto.FLOAT, [4, length])],
        [onnx.numpy_helper.from_array(np.ones(length, np.float32), "scale")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    (found,) = Session(model)({"x": x})
    return bool(np.abs(found - expected).max() > _ALLOWED)


def overflows_in_half(model: onnx.ModelProto) -> bool:
    """Whether a model holds an operator whose fp16 kernel in this onnxruntime overflows inside, where the nodes that it
    stands for, computed in fp32 throughout as onnxruntime does with chains of them, do not.
    """
    return any(node.op_type == "Attention" for node in model.graph.node) and attention_overflows()


@cache
def attention_overflows() -> bool:
    """Whether Attention in fp16 gives NaN or infinities where only the scores are beyond the range of fp16."""
    x = np.full((1, 1, 2, 8), 1000.0, np.float16)
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Attention", ["x", "x", "x"], ["y"], scale=1.0)],
        "probe",
        [info("x", onnx.TensorProto.FLOAT16, x.shape)],
        [info("y", onnx.TensorProto.FLOAT16, x.shape)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)], ir_version=10)
    try:
        (found,) = Session(model)({"x": x})
    except Exception:  # it has no such kernel: it is promoted anyhow
        return True
    return not bool(np.isfinite(found).all())
