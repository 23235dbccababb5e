"""Kernels of the installed onnxruntime that are known to be less exact than the operator's definition.

A replacement by such an operator is right, yet its outputs in this onnxruntime are not. Each defect is found by trying,
so that a version that mended it is judged without allowance.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import onnx

from onnx_rewrite.verify.dtypes import Array
from onnx_rewrite.verify.session import Session

# The mean of squares minus the square of the mean loses all digits of a variance that is 1e-6 of the mean's square.
# onnxruntime 1.23.2 computes LayerNormalization so on the CPU; 1.31.1 does not.
_OFFSET = 1000.0
_ALLOWED = 1e-2


INEXACT = "this onnxruntime's kernel loses precision"
IMPURE = "this onnxruntime's kernel multiplies what is not finite by the zeros outside an image"


def defect(model: onnx.ModelProto, feed: Mapping[str, Array]) -> str | None:
    """What is wrong with a kernel of this onnxruntime that a model holds, in words, where it matters for a feed."""
    present = _operators(model)
    if "LayerNormalization" in present and lossy_layer_normalization():
        return INEXACT
    if "DeformConv" in present and _has_specials(feed) and impure_deform_conv():
        return IMPURE
    return None


def _operators(model: onnx.ModelProto) -> set[str]:
    """All operators of a model, those in bodies and functions among them."""
    found: set[str] = set()
    waiting: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while waiting:
        for node in waiting.pop().node:
            found.add(node.op_type)
            waiting += [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return found


def _has_specials(feed: Mapping[str, Array]) -> bool:
    return any(value.dtype.kind == "f" and not np.isfinite(value).all() for value in feed.values())


@cache
def impure_deform_conv() -> bool:
    """Whether DeformConv gives NaN where it reads half of an infinite pixel at the border, and half nothing.

    onnxruntime 1.32 does: its corners outside are pixels inside, times zero.
    """
    info = onnx.helper.make_tensor_value_info
    shapes = {"x": [1, 1, 1, 1], "w": [1, 1, 1, 1], "o": [1, 2, 1, 1]}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("DeformConv", list(shapes), ["y"])],
        "probe",
        [info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [info("y", onnx.TensorProto.FLOAT, [1, 1, 1, 1])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=8)
    feed = {"x": np.array([np.inf]), "w": np.ones(1), "o": np.array([0.5, 0.5])}
    try:
        (found,) = Session(model)({k: v.astype(np.float32).reshape(shapes[k]) for k, v in feed.items()})
    except Exception:  # a version without it
        return False
    return bool(np.isnan(found).any())


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
    return "Attention" in _operators(model) and attention_overflows()


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
