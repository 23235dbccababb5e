"""Multi-head attention: softmax(Q Kᵀ · scale + terms) V.

What is matched is in `spelling`, what an attention is in `attention`, how a match is read as one in `meaning` and
`scores`, how operands are brought into shape in `operands`, `terms` and `arranging`; the other files are the
replacements.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import onnx_ir as ir

from onnx_rewrite.match import Match
from onnx_rewrite.passes.mhsa import spelling
from onnx_rewrite.passes.mhsa.cleaning import told_apart
from onnx_rewrite.passes.mhsa.function import check_function, multi_head_function
from onnx_rewrite.passes.mhsa.meaning import meaning
from onnx_rewrite.passes.mhsa.microsoft import check_microsoft, multi_head_attention
from onnx_rewrite.passes.mhsa.operator import attention_operator, packed_projections, prepare, refuse_unfused
from onnx_rewrite.passes.mhsa.plain import Keys, Masked, Packed, Plain, Scaled, Style, refuse_unmasked
from onnx_rewrite.passes.mhsa.terms import endless, finite
from onnx_rewrite.plugins.multi_head_attention.op import CASTS_SINCE, MultiHeadAttention
from onnx_rewrite.registry import Pass, RuleSet
from onnx_rewrite.rewriter.rule import Unlike

Level = Literal["auto", "core", "heads", "block"]
Form = Literal["auto", "attention", "function", "microsoft", "spelling"]

TENSORRT = ("tensorrt-rtx", "tensorrt-10", "tensorrt-11")
"""They have fewer kernels where Q, K and V come to the operator with heads of their own."""


@dataclass(frozen=True)
class _Attention(Pass):
    """What all replacements share: the pattern."""

    level: Level = "auto"
    targets: tuple[str, ...] = ()  # type: ignore[misc]

    pattern = staticmethod(spelling.attention)
    about: ClassVar[frozenset[str]] = frozenset({"Softmax"})

    def unlike(self, m: Match) -> Mapping[Unlike, str]:
        found = meaning(m)
        differences: dict[Unlike, str] = {}
        if any(term.exact for term in found.terms):
            differences["special"] = "NaN that a mask hides stays NaN, where it was replaced by a number"
        elif (not found.cleaned or told_apart(m, found)) and any(
            term.fill is not None or endless(m, term) or not finite(m, term) for term in found.terms
        ):
            differences["special"] = "minus infinity in a mask counts as a very low number"
        if not all(isinstance(size, int) for size in (*found.parts, found.queries, found.keys)):
            differences["empty"] = "Attention takes none in onnxruntime"
        return differences


@dataclass(frozen=True)
class Operator(_Attention):
    """Attention, since opset 23; of a whole block its projections too, as one product."""

    needs_opset: ClassVar[int] = 23

    def note(self, m: Match) -> str | None:
        found = meaning(m)
        if found.softcap and found.terms:
            return "onnxruntime before 1.27 adds the mask before it bounds the scores"
        return None

    def check(self, m: Match) -> None:
        form = prepare(m, self.level)
        if self.level == "block":
            packed_projections(m, form)
        if self.targets and m.target.startswith("tensorrt"):
            refuse_unfused(m, form)

    def replace(self, m: Match) -> Any:
        form = prepare(m, self.level)
        return attention_operator(m, form, packed_projections(m, form) if self.level == "block" else None)


@dataclass(frozen=True)
class Microsoft(_Attention):
    """com.microsoft's MultiHeadAttention, or Attention where the projections can be taken in."""

    def check(self, m: Match) -> None:
        check_microsoft(m, prepare(m, self.level), self.level)

    def replace(self, m: Match) -> Any:
        form = prepare(m, self.level)
        return multi_head_attention(m, form, check_microsoft(m, form, self.level))


@dataclass(frozen=True)
class _InPlain(_Attention):
    """What is said in MatMul, Softmax and MatMul: unlike Attention, it takes all numbers and sizes as they come."""

    def unlike(self, m: Match) -> Mapping[Unlike, str]:
        differences = dict(super().unlike(m))
        if any(node.op_type == "Reshape" and m.constant(node.inputs[1]) is None for node in m.nodes):
            differences["empty"] = "a size of 0 in the shape that is computed for a Reshape copies another size"
        else:
            differences.pop("empty", None)
        if not any(term.exact for term in meaning(m).terms):
            differences.pop("special", None)
        return differences


@dataclass(frozen=True)
class Function(_InPlain):
    """This project's MultiHeadAttention, with a function in standard operators of the model's opset."""

    needs_opset: ClassVar[int] = CASTS_SINCE

    def opset_for(self, m: Match) -> int:
        found = meaning(m)
        return CASTS_SINCE if found.softmax_dtype != found.dtype else MultiHeadAttention.since

    def note(self, m: Match) -> str:
        return f"as {MultiHeadAttention().title}, a function of standard operators"

    def check(self, m: Match) -> None:
        check_function(m, self.level)

    def replace(self, m: Match) -> Any:
        return multi_head_function(m, self.level)


@dataclass(frozen=True)
class Standard(_Attention):
    """Attention, or our own where the opset that it needs may not be had."""

    needs_opset: ClassVar[int] = Operator.needs_opset

    def chosen(self, m: Match) -> Pass:
        """What this match becomes."""
        return Operator(self.level) if m.may_have(self.needs_opset) else Function(self.level)

    def opset_for(self, m: Match) -> int:
        return self.chosen(m).opset_for(m)

    def note(self, m: Match) -> str | None:
        return self.chosen(m).note(m)

    def unlike(self, m: Match) -> Mapping[Unlike, str]:
        return self.chosen(m).unlike(m)

    def check(self, m: Match) -> None:
        self.chosen(m).check(m)

    def replace(self, m: Match) -> Any:
        return self.chosen(m).replace(m)


@dataclass(frozen=True)
class Spelling(_InPlain):
    """MatMul, Softmax and MatMul, spelt in one way."""

    style: Style = field(default_factory=Style)

    def check(self, m: Match) -> None:
        plain = Plain(m, self.style, self.level)
        if self.targets and self.level == "auto" and self.style == Style():
            refuse_unmasked(m, plain)

    def settled(self, m: Match, new: Sequence[ir.Node]) -> bool:
        return Plain(m, self.style, self.level).stands(m, new)

    def replace(self, m: Match) -> Any:
        return Plain(m, self.style, self.level).write(m)


@dataclass(frozen=True)
class FuseAttention(RuleSet):
    """Fuses multi-head attention, however it is spelt, into the form that the target runs best."""

    name: ClassVar[str] = "mhsa"

    level: Level = field(default="auto", metadata={"help": "how much is replaced: the products alone, or more"})
    form: Form = field(default="auto", metadata={"help": "what it becomes; auto: what the target runs best"})
    scale: Scaled = field(default="scores", metadata={"help": "spelling: what is multiplied by the scale"})
    rank: Literal[3, 4] = field(default=4, metadata={"help": "spelling: whether batch and heads are two axes or one"})
    keys: Keys = field(default="once", metadata={"help": "spelling: Kᵀ by one Transpose or by two"})
    mask: Masked = field(default="merged", metadata={"help": "spelling: whether masks and biases are added up first"})
    packed: Packed = field(default="split", metadata={"help": "spelling: how Q, K, V are cut out of one value"})

    def rules(self) -> tuple[Pass, ...]:
        spelling = Spelling(self.level, style=Style(self.scale, self.rank, self.keys, self.mask, self.packed))
        if self.form == "spelling":
            return (spelling,)
        if self.form == "attention":
            return (Operator(self.level),)
        if self.form == "function":
            return (Function(self.level),)
        if self.form == "microsoft":
            return (Microsoft(self.level),)
        return (
            Microsoft(self.level, targets=("onnxruntime",)),
            Operator(self.level, targets=("onnxruntime",)),
            Standard(self.level, targets=("onnx",)),
            Operator("core" if self.level == "auto" else self.level, targets=TENSORRT),
            dataclasses.replace(spelling, targets=("tensorrt-8.6",)),
        )
