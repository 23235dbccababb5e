"""Constant masks and biases of attention scores, added up before they meet the scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from onnx_rewrite.match import Constant, Match, Refused
from onnx_rewrite.pattern import constant, op, repeat
from onnx_rewrite.registry import Pass, RuleSet

# A sum may be larger than its terms, where they vary along different axes.
MOST_ELEMENTS = 1 << 26


class Sums(Pass):
    """Softmax of scores to which one constant after the other is added."""

    def pattern(self, scores: Any) -> Any:
        logits = repeat(lambda s, terms: op.Add(s, constant(terms)), scores, least=2)
        return op.Softmax(logits).named("softmax")

    def check(self, m: Match) -> None:
        total(m, m.terms)

    def replace(self, m: Match) -> Any:
        return op.like(m.softmax, op.Add(m.scores, total(m, m.terms)))


class Windows(Pass):
    """The same where the scores have one axis for the windows of a picture while the second term is added.

    Add, Reshape to five axes, Add, Reshape to four: both terms are added while there are five.
    """

    def pattern(self, scores: Any, bias: Any, mask: Any, there: Any, back: Any) -> Any:
        first = op.Add(scores, constant(bias))
        second = op.Add(op.Reshape(first, shape=there), constant(mask))
        return op.Softmax(op.Reshape(second, shape=back).named("joined")).named("softmax")

    def check(self, m: Match) -> None:
        four, five = m.rank(m.scores), len(m.there)
        if four != 4 or five != 5 or m.rank(m.joined.outputs[0]) != 4:
            raise Refused("the scores have not four axes, five, and four again", m.scores)
        for axis, place in ((1, 2), (2, 3), (3, 4)):
            if m.dim(m.scores, axis) != m.there[place]:
                raise Refused("the Reshape divides other axes than the batch's", m.scores)
        if len(m.bias.shape) != 4 or m.bias.shape[0] != 1:
            raise Refused(f"the first term has shape {list(m.bias.shape)}: it varies along the batch", m.bias)
        total(m, (m.bias, m.mask))

    def replace(self, m: Match) -> Any:
        wide = op.Add(op.Reshape(m.scores, shape=m.there), total(m, (m.bias, m.mask)))
        return op.like(m.softmax, op.Reshape(wide, shape=m.back))


def total(m: Match, terms: tuple[Constant, ...]) -> Any:
    """The sum of all terms.

    Raises:
        Refused: They do not broadcast to each other, or the sum would be too large.
    """
    try:
        shape = np.broadcast_shapes(*(term.shape for term in terms))
    except ValueError:
        raise Refused("the terms do not broadcast to each other", m.softmax) from None
    if int(np.prod(shape)) > MOST_ELEMENTS:
        raise Refused(f"the sum of the terms would have shape {list(shape)}", m.softmax)
    if len(shape) > (m.rank(m.scores) or 0) + 1:
        raise Refused("the terms have more axes than the scores", m.softmax)
    with np.errstate(all="ignore"):
        return sum(term.array for term in terms)


@dataclass(frozen=True)
class SumMasks(RuleSet):
    """Adds up constant masks and biases of attention scores beforehand, also across the Reshapes of windows."""

    name: ClassVar[str] = "mask"

    def rules(self) -> tuple[Pass, ...]:
        return (Sums(), Windows())
