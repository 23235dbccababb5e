"""ResNet-50 with deformable convolutions in its last three stages, as detectors use it: random weights, full size.

`python -m benchmarks.dcn_resnet FILE [HEIGHT WIDTH]`
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

STAGES = ((3, 64, False), (4, 128, True), (6, 256, True), (3, 512, True))
"""Blocks, width, and whether the 3x3 convolutions are deformable (Dai et al., 2017; Zhu et al., 2019: conv3 to 5)."""


class Builder:
    """Writes the layers one after the other."""

    def __init__(self, seed: int, opset: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def tensor(self, name: str, array: np.ndarray) -> str:
        self.tensors.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def node(self, op_type: str, inputs: list[str], name: str, domain: str = "", **attributes: object) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [f"{name}_out"], name=name, domain=domain, **attributes))
        return f"{name}_out"

    def conv(self, x: str, name: str, c: int, m: int, k: int, stride: int = 1, *, gain: float = 1.0) -> str:
        weight = self.rng.standard_normal((m, c, k, k)) * gain * np.sqrt(2 / (c * k * k))
        return self.node(
            "Conv", [x, self.tensor(f"{name}.weight", weight)], name,
            kernel_shape=[k, k], strides=[stride] * 2, pads=[k // 2] * 4,
        )  # fmt: skip

    def norm(self, x: str, name: str, c: int, gain: float = 1.0) -> str:
        rng = self.rng
        scale, var = gain * (rng.random(c) + 0.5), rng.random(c) + 0.5
        statistics = (scale, *(rng.standard_normal((2, c)) * 0.1), var)
        names = ("scale", "bias", "mean", "var")
        inputs = [self.tensor(f"{name}.{n}", a) for n, a in zip(names, statistics, strict=True)]
        return self.node("BatchNormalization", [x, *inputs], name)

    def deform(self, x: str, name: str, c: int, stride: int) -> str:
        """A modulated deformable 3x3 convolution; offsets of about a pixel."""
        both = self.conv(x, f"{name}.offset", c, 27, 3, stride, gain=0.7)
        parts = [f"{name}.moved", f"{name}.logits"]
        self.tensors.append(numpy_helper.from_array(np.array([18, 9], np.int64), f"{name}.split"))
        self.nodes.append(helper.make_node("Split", [both, f"{name}.split"], parts, name=f"{name}.split", axis=1))
        mask = self.node("Sigmoid", [parts[1]], f"{name}.mask")
        weight = self.tensor(f"{name}.weight", self.rng.standard_normal((c, c, 3, 3)) * np.sqrt(4 / (c * 9)))
        bias = self.tensor(f"{name}.bias", np.zeros(c))
        if self.opset >= 19:
            return self.node(
                "DeformConv", [x, weight, parts[0], bias, mask], name,
                kernel_shape=[3, 3], strides=[stride] * 2, pads=[1] * 4,
            )  # fmt: skip
        return self.node(
            "MMCVModulatedDeformConv2d", [x, parts[0], mask, weight, bias], name, "mmcv",
            stride=[stride] * 2, padding=[1, 1], dilation=[1, 1], groups=1, deform_groups=1,
        )  # fmt: skip

    def block(self, x: str, name: str, c: int, width: int, stride: int, deformable: bool) -> str:
        y = self.node(
            "Relu", [self.norm(self.conv(x, f"{name}.conv1", c, width, 1), f"{name}.bn1", width)], f"{name}.r1"
        )
        if deformable:
            y = self.deform(y, f"{name}.conv2", width, stride)
        else:
            y = self.conv(y, f"{name}.conv2", width, width, 3, stride)
        y = self.node("Relu", [self.norm(y, f"{name}.bn2", width)], f"{name}.r2")
        y = self.norm(self.conv(y, f"{name}.conv3", width, 4 * width, 1), f"{name}.bn3", 4 * width, 0.2)
        if stride != 1 or c != 4 * width:
            x = self.norm(self.conv(x, f"{name}.down", c, 4 * width, 1, stride), f"{name}.downbn", 4 * width)
        return self.node("Relu", [self.node("Add", [x, y], f"{name}.add")], f"{name}.r3")


def build(
    height: int = 800, width: int = 1216, *, batch: int = 1, opset: int = 19, scale: int = 1, seed: int = 0
) -> onnx.ModelProto:
    """The model: from opset 19 on with ONNX's DeformConv (13 of them), below with mmcv's node.

    Args:
        height: Of the image.
        width: Of the image.
        batch: Images.
        opset: At least 13.
        scale: All widths are divided by it; 1 is full size.
        seed: Of the weights.
    """
    b = Builder(seed, opset)
    first = 64 // scale
    x = b.node("Relu", [b.norm(b.conv("image", "conv1", 3, first, 7, 2), "bn1", first)], "relu1")
    x = b.node("MaxPool", [x], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = first
    for number, (blocks, full, deformable) in enumerate(STAGES, 2):
        size = full // scale
        for block in range(blocks):
            stride = 2 if block == 0 and number > 2 else 1
            x = b.block(x, f"layer{number - 1}.{block}", channels, size, stride, deformable)
            channels = 4 * size
    b.nodes[-1].output[0] = "features"
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [batch, 3, height, width])
    features = helper.make_tensor_value_info(
        "features", onnx.TensorProto.FLOAT, [batch, channels, -(-height // 32), -(-width // 32)]
    )
    graph = helper.make_graph(b.nodes, "dcn_resnet50", [image], [features], b.tensors)
    imports = [helper.make_opsetid("", opset)] + ([] if opset >= 19 else [helper.make_opsetid("mmcv", 1)])
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    return model


if __name__ == "__main__":
    target, *size = sys.argv[1:]
    onnx.save(build(*map(int, size)), target)
    print(target, f"{Path(target).stat().st_size / 1e6:.0f} MB")
