"""Patterns of custom operators, whatever an exporter calls them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from onnx_rewrite.custom import CustomOp, Spelling, op_named, spellings
from onnx_rewrite.pattern.errors import PatternError
from onnx_rewrite.pattern.language import Apply, Either, Operand, Optional, Output, Rest, Var, as_pattern, making


@dataclass(eq=False)
class Spelled(Either):
    """A node of a custom operator, in any of its spellings."""

    def named(self, name: str) -> Spelled:
        """Captures the node under `name`; the match reads it with `m.read`."""
        for branch in self.branches:
            assert isinstance(branch, Output)
            branch.apply.capture = name
        return self


def spelled(title: str, **operands: Operand) -> Spelled:
    """A node of a custom operator as any exporter that is known writes it, or as ONNX itself has it.

    Operands are told by their role, since each spelling has its own order; one that is not mentioned may be anything.
    Parameters are read from the node that is captured, with `m.read(node)`.

    Args:
        title: The operator, "onnx_rewrite::DeformConv2d".
        operands: Patterns by role; `optional(...)` for roles that may be absent. A spelling that has no such role
            leaves it absent too, and is left out where it may not be.

    Raises:
        UsageError: There is no such operator.
        PatternError: It has no such role.
    """
    op = op_named(title)
    _check_roles(op, operands)
    patterns = {role: as_pattern(operand) if not isinstance(operand, Optional) else operand
                for role, operand in operands.items()}  # fmt: skip
    found: list[Output] = []
    for spelling in spellings(op):
        missing = [role for role in patterns if role not in spelling.inputs]
        if all(isinstance(patterns[role], Optional) for role in missing):
            inputs = tuple(patterns.get(name) or _anything(op, name) for name in spelling.inputs)
            found.append(_node(spelling, inputs))
    if not found:
        raise PatternError(f"no spelling of {title} has all of {', '.join(operands)}")
    return Spelled(tuple(found))


def misspelled(title: str, operands: Var) -> Spelled:
    """A node that bears the name of one of an operator's spellings other than ONNX's own, whatever it is given.

    Args:
        title: The operator.
        operands: Captures a tuple of its inputs.

    Raises:
        UsageError: There is no such operator.
    """
    named = [one for one in spellings(op_named(title)) if not one.standard]
    return Spelled(tuple(_node(one, (Rest(operands, None, 0, None),)) for one in named))


def _node(spelling: Spelling, inputs: tuple[Any, ...]) -> Output:
    return Output(Apply(frozenset({spelling.op_type}), spelling.domain, inputs, {}, home=making.get(), capture="_"))


def _anything(op: CustomOp, name: str) -> Any:
    wildcard = Var(f"{op.name}_{name}")
    needed = name in op.inputs[: op.required]
    return wildcard if needed else Optional(wildcard)


def _check_roles(op: CustomOp, operands: dict[str, Any]) -> None:
    for role in operands:
        if role not in op.inputs:
            raise PatternError(f"{op.title} has no input '{role}': it has {', '.join(op.inputs)}")
