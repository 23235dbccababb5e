"""One pattern with its conditions and its replacement: the smallest thing that the rewriter applies."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import onnx_ir as ir

from onnx_rewrite.match import Match, Matcher
from onnx_rewrite.pattern import trace

Unlike = Literal["special", "empty"]


class Rule(abc.ABC):
    """A pattern, the conditions under which it may be replaced, and the replacement.

    A subclass writes `pattern` (traced once: its parameters are captures), `replace`, and where needed `check`.

    Attributes:
        needs_opset: Lowest opset of the standard operators that the replacement can be written in.
        targets: For whom it is (`--target`); none: for all.
        interior: What to do when an interior value is needed outside the match: "refuse" it (the match backtracks
            into smaller alternatives), or "keep" the nodes that compute the value.
        about: Operators of which every match has one and hardly anything else has: `explain` then says of each of
            them that is in no match, and of nothing else, what stood in the way.
    """

    needs_opset: ClassVar[int] = 1
    targets: ClassVar[tuple[str, ...]] = ()
    interior: ClassVar[Literal["refuse", "keep"]] = "refuse"
    about: ClassVar[frozenset[str]] = frozenset()

    pattern: Any  # a method whose parameters are the captures: every subclass has its own

    def opset_for(self, m: Match) -> int:
        """Lowest opset of the standard operators that the replacement of this match is written in; at most
        `needs_opset`.
        """
        del m
        return self.needs_opset

    def note(self, m: Match) -> str | None:
        """What the replacement of this match is, in words for the report, where the pass has a choice."""
        del m
        return None

    def check(self, m: Match) -> None:
        """Raises `Refused` where the replacement would be wrong."""
        del m

    def unlike(self, m: Match) -> Mapping[Unlike, str]:
        """For what inputs the replacement may give something else than what it replaces, each with the reason.

        "special": NaN and infinities; "empty": tensors without elements. The judge does not feed these, and the
        verification says so.
        """
        del m
        return {}

    def settled(self, m: Match, new: Sequence[ir.Node]) -> bool:
        """Whether what stands there is as good as the replacement, whose nodes are `new`: then it is left.

        For passes that prefer one spelling. What equals the replacement node by node is left in any case.
        """
        del m, new
        return False

    @abc.abstractmethod
    def replace(self, m: Match) -> Any:
        """Builds the replacement with `op` and returns its output, or a tuple of outputs."""

    def compile(self) -> Matcher:
        """The compiled pattern."""
        return Matcher(trace(self.pattern, f"{type(self).__module__}.{type(self).__qualname__}"))
