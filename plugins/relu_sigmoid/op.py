"""`onnx_rewrite::ReluSigmoid`: max(x, 0) / (1 + exp(-x)), which is max(x, 0) times the logistic function of x."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnx_rewrite.custom import Alike, Call, CustomOp
from onnx_rewrite.match import Match, Refused
from onnx_rewrite.pattern import either, op
from onnx_rewrite.registry import Pass


class ReluSigmoid(CustomOp):
    """max(x, 0) / (1 + exp(-x)), element by element: x of any shape and float type."""

    name = "ReluSigmoid"
    inputs = ("x",)
    required = 1
    since = 7

    def body(self, operands: Mapping[str, Any], parameters: Mapping[str, Any], opset: int) -> Any:
        x = operands["x"]
        return op.Mul(op.Relu(x), op.Sigmoid(x))

    def alike(self, call: Call) -> Alike:
        return Alike("Relu", ("x",), {})


class InsertReluSigmoid(Pass):
    """Makes max(x, 0) / (1 + exp(-x)), as torch exports x.clamp(min=0) / (1 + exp(-x)), one node with a plugin."""

    name = "relu-sigmoid"

    def pattern(self, x: Any) -> Any:
        positive = either(op.Clip(x, min=0.0), op.Relu(x), op.Max(x, 0.0))
        return either(
            op.Div(positive, op.Add(op.Exp(op.Neg(x)), 1.0)),
            op.Mul(positive, op.Sigmoid(x)),
        )

    def check(self, m: Match) -> None:
        if m.rank(m.x) != m.rank(m.output):
            raise Refused("a constant gives the result another rank than the input's", m.output)

    def replace(self, m: Match) -> Any:
        return ReluSigmoid().node(m.x)
