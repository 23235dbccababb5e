"""Small models, and an engine that only pretends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_rewrite.engines.protocol import EngineError, Layer, Model, Profile, Timing, Unavailable


def linear(
    bias: float = 0.0, *, rows: int | str = 2, kind: int = TensorProto.FLOAT, operator: str = "Add", domain: str = ""
) -> onnx.ModelProto:
    """Y = relu(x @ W + bias), x of [rows, 4]; `operator` does the addition."""
    x = helper.make_tensor_value_info("x", kind, [rows, 4])
    y = helper.make_tensor_value_info("y", kind, [rows, 3])
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    tensors = [
        numpy_helper.from_array(np.arange(12).reshape(4, 3).astype(dtype) / dtype.type(8), "w"),
        numpy_helper.from_array(np.full(3, bias, dtype), "b"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], name="product"),
        helper.make_node(operator, ["p", "b"], ["s"], name="sum", domain=domain),
        helper.make_node("Relu", ["s"], ["y"], name="relu"),
    ]
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], tensors), opset_imports=opsets, ir_version=8)


@dataclass
class FakeEngine:
    """Gives zeros, and takes as long as it is told to."""

    name: str
    seconds: float
    log: list[str]
    version: str = "1.0"
    device: str = "nowhere"
    precision: str = "fp32"
    build_seconds: float = 0.5
    size: int = 7
    layers: tuple[Layer, ...] = (Layer("all", "fake", ("product", "sum", "relu")),)
    obstacle: str | None = None
    fails_after: int = 10**9
    timings: list[Timing] = field(default_factory=list)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        self.log.append(self.name)
        if self.log.count(self.name) > self.fails_after:
            raise EngineError("out of cheese")
        self.timings.append(Timing(0.0, self.seconds))
        return {"y": np.zeros((len(feeds["x"]), 3), np.float32)}


@dataclass
class FakeBackend:
    """Hands out engines in order; an exception in their place is raised."""

    engines: list[FakeEngine | Exception]
    name: str = "fake"
    profiles: list[Mapping[str, Profile] | None] = field(default_factory=list)

    def unavailable(self) -> Unavailable | None:
        return None

    def version(self) -> str:
        return "1.0"

    def build(
        self, model: Model, *, precision: str | None = None, profiles: Mapping[str, Profile] | None = None
    ) -> FakeEngine:
        self.profiles.append(profiles)
        made = self.engines.pop(0)
        if isinstance(made, Exception):
            raise made
        return made
