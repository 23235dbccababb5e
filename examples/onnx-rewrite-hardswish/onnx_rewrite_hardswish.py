"""A pass for onnx-rewrite: hard swish, spelled out, becomes HardSwish."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from onnx_rewrite import Match, Pass, Refused, RuleSet, const, either, op


class FromHardSigmoid(Pass):
    """The spelling x * HardSigmoid(x)."""

    name = "hardswish-sigmoid"
    needs_opset = 14

    def pattern(self, x: Any) -> Any:
        return op.Mul(x, op.HardSigmoid(x, alpha=1 / 6, beta=0.5))

    def replace(self, m: Match) -> Any:
        return op.HardSwish(m.x)


class FromClip(Pass):
    """The spelling x * clip(x + 3, 0, 6) / 6, with the division anywhere."""

    name = "hardswish-clip"
    needs_opset = 14

    def pattern(self, x: Any) -> Any:
        clipped = op.Clip(op.Add(x, const(3)), min=0, max=6)
        return either(
            op.Div(op.Mul(x, clipped), const(6)),
            op.Mul(op.Mul(x, clipped), const(1 / 6)),
            op.Mul(x, op.Div(clipped, const(6))),
            op.Mul(x, op.Mul(clipped, const(1 / 6))),
        )

    def check(self, m: Match) -> None:
        if m.x.dtype is not None and not m.x.dtype.is_floating_point():
            raise Refused("HardSwish takes floats", m.x)

    def replace(self, m: Match) -> Any:
        return op.HardSwish(m.x)


@dataclass(frozen=True)
class FuseHardSwish(RuleSet):
    """Fuses a hard swish that is spelled out into HardSwish."""

    name = "hardswish"

    spelling: Literal["any", "sigmoid", "clip"] = field(
        default="any", metadata={"help": "which spelling to look for: with HardSigmoid, with Clip, or both"}
    )

    def rules(self) -> Sequence[Pass]:
        """The rules of the chosen spelling."""
        known = {"sigmoid": FromHardSigmoid(), "clip": FromClip()}
        return list(known.values()) if self.spelling == "any" else [known[self.spelling]]
