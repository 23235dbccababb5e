"""Random deformable convolutions: ONNX's node, and the same as another node type."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper

Array = np.ndarray[Any, np.dtype[Any]]


class Drawn:
    """One configuration.

    Attributes:
        shapes: Of the operands by role, absent ones left out.
        attributes: As ONNX's DeformConv has them.
        label: What it is, for messages.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)

        def pick(*numbers: int, size: int | None = None) -> Any:
            found = rng.choice(numbers, size)
            return int(found) if size is None else [int(v) for v in found]

        while True:
            group, moved = pick(1, 1, 2, 3), pick(1, 1, 2, 4)
            channels = int(np.lcm(group, moved)) * pick(1, 2)
            kernel, strides, dilations = pick(1, 2, 3, size=2), pick(1, 2, 3, size=2), pick(1, 2, size=2)
            pads = pick(0, 1, 2, 3, size=4)
            size = pick(1, 4, 5, 7, size=2)
            reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
            out = [(size[i] + pads[i] + pads[2 + i] - reach[i]) // strides[i] + 1 for i in (0, 1)]
            if min(out) > 0:
                break
        batch, filters, taps = pick(1, 2), group * pick(1, 2), kernel[0] * kernel[1]
        self.shapes: dict[str, list[int]] = {
            "x": [batch, channels, *size],
            "weight": [filters, channels // group, *kernel],
            "offset": [batch, moved * taps * 2, *out],
        }
        if rng.integers(2):
            self.shapes["bias"] = [filters]
        if rng.integers(2):
            self.shapes["mask"] = [batch, moved * taps, *out]
        self.attributes: dict[str, Any] = {
            "kernel_shape": kernel,
            "strides": strides,
            "pads": pads,
            "dilations": dilations,
            "group": group,
            "offset_group": moved,
        }
        self.rng = rng
        self.label = f"seed {seed}: {self.shapes}, {self.attributes}"

    def model(
        self, opset: int = 19, op_type: str = "DeformConv", domain: str = "", *, free: bool = False, dtype: int = 1
    ) -> onnx.ModelProto:
        """A model of the node.

        Args:
            opset: Of the standard operators.
            op_type: The node's type; it takes inputs and attributes in ONNX's form.
            domain: The node's domain.
            free: Whether batch, height and width are not known.
            dtype: Of all operands.
        """
        roles = ["x", "weight", "offset", "bias", "mask"]
        inputs = [role if role in self.shapes else "" for role in roles]
        while not inputs[-1]:
            inputs.pop()
        node = helper.make_node(op_type, inputs, ["y"], name="conv", domain=domain, **self.attributes)
        infos = []
        for role, shape in self.shapes.items():
            image = role in ("x", "offset", "mask")
            dims: list[Any] = ["n", shape[1], f"{role}_h", f"{role}_w"] if free and image else shape
            infos.append(helper.make_tensor_value_info(role, dtype, dims))
        output = helper.make_tensor_value_info("y", dtype, [None] * 4)
        graph = helper.make_graph([node], "g", infos, [output])
        imports = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
        return helper.make_model(graph, opset_imports=imports, ir_version=8)

    def feed(self, spread: float = 2.0) -> dict[str, Array]:
        """Numbers: offsets of some pixels, many of them outside."""
        scale = {"offset": spread}
        return {
            role: (scale.get(role, 1.0) * self.rng.standard_normal(shape)).astype(np.float32)
            for role, shape in self.shapes.items()
        }
