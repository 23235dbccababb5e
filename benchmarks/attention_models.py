"""Attention blocks alone, as exporters spell them, at the sizes of known models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


@dataclass
class Graph:
    """Collects nodes and constants; every method returns the name of what it adds."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int) -> str:
        return self.constant((self.rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32))

    def ints(self, *numbers: int) -> str:
        return self.constant(np.asarray(numbers, np.int64))

    def add(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        names = [f"t{len(self.nodes)}" if not i else f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op_type, list(inputs), names, f"{op_type}_{len(self.nodes)}", **attributes))
        return names[0]

    def linear(self, x: str, width: int, out: int) -> str:
        return self.add("Add", self.add("MatMul", x, self.weight(width, out)), self.weight(out))

    def model(self, inputs: dict[str, tuple[int, ...]], output: str, opset: int) -> onnx.ModelProto:
        self.nodes.append(helper.make_node("Identity", [output], ["y"]))
        graph = helper.make_graph(
            self.nodes,
            "attention",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            self.constants,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        return onnx.shape_inference.infer_shapes(made, strict_mode=True)


def vit(batch: int, layers: int, *, tokens: int = 197, width: int = 768, heads: int = 12) -> onnx.ModelProto:
    """timm's: one packed projection, a stack of Q, K and V, the scale on Q."""
    g, x, d = Graph(), "x", width // heads
    for _ in range(layers):
        packed = g.add("Reshape", g.linear(x, width, 3 * width), g.ints(batch, tokens, 3, heads, d))
        stack = g.add("Transpose", packed, perm=[2, 0, 3, 1, 4])
        q, k, v = (g.add("Gather", stack, g.constant(np.asarray(i, np.int64)), axis=0) for i in range(3))
        q = g.add("Mul", q, g.constant(np.asarray(d**-0.5, np.float32)))
        weights = g.add("Softmax", g.add("MatMul", q, g.add("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
        merged = g.add("Transpose", g.add("MatMul", weights, v), perm=[0, 2, 1, 3])
        x = g.add("Add", x, g.linear(g.add("Reshape", merged, g.ints(batch, tokens, width)), width, width))
    return g.model({"x": (batch, tokens, width)}, x, 13)


def swin(batch: int, layers: int, *, windows: int = 64, width: int = 96, heads: int = 3) -> onnx.ModelProto:
    """torchvision's, of shifted windows: a relative position bias, then a mask for each window, Reshapes between."""
    g, x, d, tokens = Graph(), "x", width // heads, 49
    n = batch * windows
    mask = np.where(g.rng.random((1, windows, 1, tokens, tokens)) < 0.2, -100.0, 0.0).astype(np.float32)
    for _ in range(layers):
        packed = g.add("Reshape", g.linear(x, width, 3 * width), g.ints(n, tokens, 3, heads, d))
        stack = g.add("Transpose", packed, perm=[2, 0, 3, 1, 4])
        q, k, v = (g.add("Gather", stack, g.constant(np.asarray(i, np.int64)), axis=0) for i in range(3))
        q = g.add("Mul", q, g.constant(np.asarray(d**-0.5, np.float32)))
        scores = g.add("MatMul", q, g.add("Transpose", k, perm=[0, 1, 3, 2]))
        scores = g.add("Add", scores, g.weight(1, heads, tokens, tokens))
        scores = g.add("Reshape", scores, g.ints(batch, windows, heads, tokens, tokens))
        scores = g.add("Reshape", g.add("Add", scores, g.constant(mask)), g.ints(n, heads, tokens, tokens))
        merged = g.add("Transpose", g.add("MatMul", g.add("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
        x = g.add("Add", x, g.linear(g.add("Reshape", merged, g.ints(n, tokens, width)), width, width))
    return g.model({"x": (n, tokens, width)}, x, 13)


def bert(batch: int, layers: int, *, tokens: int = 128, width: int = 768, heads: int = 12) -> onnx.ModelProto:
    """Hugging Face's: three projections, the scale on the scores, a padding mask that is an input."""
    g, x, d = Graph(), "x", width // heads
    for _ in range(layers):
        parts = [g.add("Reshape", g.linear(x, width, width), g.ints(batch, tokens, heads, d)) for _ in range(3)]
        q, v = (g.add("Transpose", parts[i], perm=[0, 2, 1, 3]) for i in (0, 2))
        k = g.add("Transpose", parts[1], perm=[0, 2, 3, 1])
        scores = g.add("Div", g.add("MatMul", q, k), g.constant(np.asarray(d**0.5, np.float32)))
        weights = g.add("Softmax", g.add("Add", scores, "mask"), axis=-1)
        merged = g.add("Transpose", g.add("MatMul", weights, v), perm=[0, 2, 1, 3])
        x = g.add("Add", x, g.linear(g.add("Reshape", merged, g.ints(batch, tokens, width)), width, width))
    return g.model({"x": (batch, tokens, width), "mask": (batch, 1, 1, tokens)}, x, 13)


FAMILIES: dict[str, Callable[[int, int], onnx.ModelProto]] = {
    "vit_b": vit,
    "swin_t": swin,
    "bert_128": bert,
    "bert_384": lambda batch, layers: bert(batch, layers, tokens=384),
}
