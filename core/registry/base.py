"""`Pass`: what the registry holds and the command line names."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from onnx_rewrite.errors import UsageError
from onnx_rewrite.rewriter.rule import Rule


class PassInfo:
    """Mixin: name, one-line summary and options of a pass, read off its class."""

    name: ClassVar[str] = ""

    @classmethod
    def summary(cls) -> str:
        """First line of the docstring."""
        return (cls.__doc__ or "").strip().splitlines()[0] if cls.__doc__ else ""

    @classmethod
    def options(cls) -> tuple[dataclasses.Field[Any], ...]:
        """The options: the fields of the dataclass."""
        return dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()


class Pass(Rule, PassInfo):
    """A pass of one rule. Make it a frozen dataclass to give it options: its fields.

    Attributes:
        name: What `--passes` calls it.
    """

    def rules(self) -> Sequence[Rule]:
        """The rules, the most wanted first."""
        return (self,)


class RuleSet(PassInfo):
    """A pass of several rules: a subclass lists them in `rules`."""

    def rules(self) -> Sequence[Rule]:
        """The rules, the most wanted first."""
        raise UsageError(f"pass '{self.name}' lists no rules")
