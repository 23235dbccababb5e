"""Models with deformable convolutions, each as onnxruntime reads it and as a TensorRT with the plugin does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DEFORM_NET = Path(__file__).resolve().parent.parent / "tests/models/exported/deformconv_legacy_op12_custom.onnx"


def plugin_node(
    inputs: list[str], output: str, kernel: tuple[int, ...], tf32: int, **attributes: Any
) -> onnx.NodeProto:
    return helper.make_node(
        "DeformConv2d",
        inputs,
        [output],
        domain="onnx_rewrite",
        kernel_shape=kernel,
        tf32=tf32,
        plugin_namespace="onnx_rewrite",
        plugin_version="1",
        **attributes,
    )


def standard(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with DeformConv in place of the plugin's nodes, in opset 19."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    del found.opset_import[:]
    found.opset_import.append(helper.make_opsetid("", 19))
    found.ir_version = 9
    for node in found.graph.node:
        if node.op_type == "DeformConv2d":
            node.op_type, node.domain = "DeformConv", ""
            kept = [one for one in node.attribute if one.name not in ("tf32", "plugin_namespace", "plugin_version")]
            del node.attribute[:]
            node.attribute.extend(kept)
        axes = next((one for one in node.attribute if one.name == "axes"), None)
        if node.op_type == "ReduceMean" and axes is not None:  # an input from opset 18 on
            name = f"{node.output[0]}_axes"
            found.graph.initializer.append(numpy_helper.from_array(np.array(axes.ints, np.int64), name))
            node.input.append(name)
            node.attribute.remove(axes)
    return found


def deform_net(tf32: int) -> onnx.ModelProto:
    """The shared DeformNet: three deformable convolutions, two groups, four offset groups, strides, dilations."""
    model = onnx.load(DEFORM_NET)
    weights = {one.name: one for one in model.graph.initializer}
    for index, node in enumerate(model.graph.node):
        if node.op_type != "deform_conv2d":
            continue
        told = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        new = plugin_node(
            list(node.input),
            node.output[0],
            tuple(weights[node.input[1]].dims[2:]),
            tf32,
            strides=told["stride"],
            pads=[*told["padding"], *told["padding"]],
            dilations=told["dilation"],
            group=told["groups"],
            offset_group=told["deform_groups"],
        )
        model.graph.node[index].CopyFrom(new)
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("", 12), helper.make_opsetid("onnx_rewrite", 1)])
    return model


class Net:
    """A graph that is written down layer by layer, with drawn weights."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def weight(self, name: str, *shape: int, scale: float = 1.0) -> str:
        fan = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        drawn = self.random.standard_normal(shape, dtype=np.float32)
        self.weights.append(numpy_helper.from_array((drawn * scale * (2.0 / fan) ** 0.5).astype(np.float32), name))
        return name

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def conv(self, x: str, name: str, c: int, m: int, kernel: int, stride: int = 1, scale: float = 1.0) -> str:
        pad = kernel // 2
        inputs = [
            x,
            self.weight(f"{name}.w", m, c, kernel, kernel, scale=scale),
            self.weight(f"{name}.b", m, scale=0.05),
        ]
        same = {"kernel_shape": [kernel] * 2, "pads": [pad] * 4, "strides": [stride] * 2}
        return self.add("Conv", inputs, name, **same)

    def deform(self, x: str, name: str, c: int, stride: int, tf32: int) -> str:
        offset = self.conv(x, f"{name}.offset", c, 18, 3, stride, scale=0.5)
        mask = self.add("Sigmoid", [self.conv(x, f"{name}.modulation", c, 9, 3, stride)], f"{name}.mask")
        inputs = [x, self.weight(f"{name}.w", c, c, 3, 3), offset, self.weight(f"{name}.b", c, scale=0.05), mask]
        self.nodes.append(plugin_node(inputs, name, (3, 3), tf32, strides=[stride] * 2, pads=[1] * 4, dilations=[1, 1]))
        return name

    def model(self, x: tuple[str, list[Any]], y: str, rank: int) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info(x[0], TensorProto.FLOAT, x[1])],
            [helper.make_tensor_value_info(y, TensorProto.FLOAT, [None] * rank)],
            self.weights,
        )
        sets = [helper.make_opsetid("", 13), helper.make_opsetid("onnx_rewrite", 1)]
        return helper.make_model(graph, opset_imports=sets, ir_version=7)


def resnet50(tf32: int, batch: Any = 1, size: int = 224) -> onnx.ModelProto:
    """ResNet-50 whose 3x3 convolutions of the last three stages are deformable and modulated, as in DCNv2 (13 of them).

    Weights are drawn (He), the last of each branch scaled by 0.2, so that activations keep their size.
    """
    net = Net(50)
    x = net.add("Relu", [net.conv("x", "stem", 3, 64, 7, 2)], "stem.relu")
    x = net.add("MaxPool", [x], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    c = 64
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512))):
        for block in range(blocks):
            name, stride = f"s{stage}.{block}", 2 if block == 0 and stage else 1
            y = net.add("Relu", [net.conv(x, f"{name}.1", c, width, 1)], f"{name}.r1")
            if stage == 0:
                y = net.conv(y, f"{name}.2", width, width, 3, stride)
            else:
                y = net.deform(y, f"{name}.2", width, stride, tf32)
            y = net.conv(net.add("Relu", [y], f"{name}.r2"), f"{name}.3", width, 4 * width, 1, scale=0.2)
            beside = x if block else net.conv(x, f"{name}.0", c, 4 * width, 1, stride, scale=0.7)
            x = net.add("Relu", [net.add("Add", [y, beside], f"{name}.sum")], f"{name}.out")
            c = 4 * width
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x], "average")], "flat")
    net.add("Gemm", [x, net.weight("head.w", 1000, 2048), net.weight("head.b", 1000, scale=0.05)], "y", transB=1)
    return net.model(("x", [batch, 3, size, size]), "y", 2)


def layer(shape: tuple[int, int, int, int, int], tf32: int, builtin: bool = False) -> onnx.ModelProto:
    """One deformable convolution, its offsets and mask computed from x by a convolution: n, c, h, w, m.

    With `builtin`, TensorRT's own plugin ModulatedDeformConv2d in its place.
    """
    n, c, h, w, m = shape
    net = Net(7)
    offset = net.conv("x", "offset", c, 18, 3, scale=0.7)
    mask = net.add("Sigmoid", [net.conv("x", "modulation", c, 9, 3)], "mask")
    weight, bias = net.weight("w", m, c, 3, 3), net.weight("b", m, scale=0.05)
    if builtin:
        each = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "group": 1, "deformable_group": 1}
        net.add("ModulatedDeformConv2d", ["x", offset, mask, weight, bias], "y", **each)
    else:
        inputs = ["x", weight, offset, bias, mask]
        net.nodes.append(plugin_node(inputs, "y", (3, 3), tf32, strides=[1, 1], pads=[1] * 4, dilations=[1, 1]))
    return net.model(("x", [n, c, h, w]), "y", 4)


def relu_sigmoid() -> onnx.ModelProto:
    """The tutorial's activation between two convolutions."""
    net = Net(3)
    x = net.conv("x", "first", 3, 32, 3)
    net.add("ReluSigmoid", [x], "a", domain="onnx_rewrite", plugin_namespace="onnx_rewrite", plugin_version="1")
    net.conv("a", "y", 32, 16, 3)
    return net.model(("x", [2, 3, 48, 40]), "y", 4)


def activation_spelled(model: onnx.ModelProto) -> onnx.ModelProto:
    """The activation in standard operators."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    nodes: list[onnx.NodeProto] = []
    for node in found.graph.node:
        if node.op_type != "ReluSigmoid":
            nodes.append(node)
            continue
        nodes += [
            helper.make_node("Relu", list(node.input), ["positive"]),
            helper.make_node("Sigmoid", list(node.input), ["logistic"]),
            helper.make_node("Mul", ["positive", "logistic"], list(node.output)),
        ]
    del found.graph.node[:]
    found.graph.node.extend(nodes)
    return found
