"""Synthetic graphs: blocks of a decomposed LayerNorm, a MatMul, a Min and a Max, twelve nodes each."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NODES_PER_BLOCK = 12


def blocks(count: int, opset: int, width: int = 8) -> onnx.ModelProto:
    """A chain of blocks on x of shape (2, 4, width); every block has the same constants.

    Args:
        count: Number of blocks.
        opset: 12, 17 or 18; from 18 on the axes of a reduction are an input.
        width: Length of the last axis.
    """
    rng = np.random.default_rng(0)
    constants = {
        "g": np.ones(width, np.float32),
        "b": np.zeros(width, np.float32),
        "two": np.float32(2),
        "eps": np.float32(1e-5),
        "lo": np.float32(-3),
        "hi": np.float32(3),
        "w": rng.standard_normal((width, width)).astype(np.float32),
    }
    axes_input, axes_attribute = ([], {"axes": [-1]}) if opset < 18 else (["axes"], {})
    if opset >= 18:
        constants["axes"] = np.array([-1], np.int64)
    nodes: list[onnx.NodeProto] = []
    infos: list[onnx.ValueInfoProto] = []
    full, reduced = (2, 4, width), (2, 4, 1)

    def add(
        block: int, op: str, inputs: list[str], out: str, shape: tuple[int, ...] = full, **attributes: object
    ) -> str:
        name = f"b{block}_{out}"
        nodes.append(helper.make_node(op, inputs, [name], name=f"b{block}_{op}_{out}", **attributes))
        infos.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    x = "x"
    for i in range(count):
        mean = add(i, "ReduceMean", [x, *axes_input], "mean", reduced, **axes_attribute)
        centred = add(i, "Sub", [x, mean], "centred")
        square = add(i, "Pow", [centred, "two"], "square")
        variance = add(i, "ReduceMean", [square, *axes_input], "variance", reduced, **axes_attribute)
        shifted = add(i, "Add", [variance, "eps"], "shifted", reduced)
        deviation = add(i, "Sqrt", [shifted], "deviation", reduced)
        normed = add(i, "Div", [centred, deviation], "normed")
        scaled = add(i, "Mul", [normed, "g"], "scaled")
        norm = add(i, "Add", [scaled, "b"], "norm")
        product = add(i, "MatMul", [norm, "w"], "product")
        x = add(i, "Max", [add(i, "Min", [product, "hi"], "least"), "lo"], "most")
    graph = helper.make_graph(
        nodes,
        "blocks",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, full)],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, full)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
        value_info=infos[:-1],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
