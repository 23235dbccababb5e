"""The replacement by MatMul, Softmax and MatMul, all spelt in one way: for targets that have no operator for it.

What the way is makes a difference only to a compiler that looks for certain patterns; the options say it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from onnx_rewrite.analysis.layout import Axis
from onnx_rewrite.match import Match, Refused
from onnx_rewrite.passes.mhsa.arranging import arranged
from onnx_rewrite.passes.mhsa.attention import Attention, Sight, product
from onnx_rewrite.passes.mhsa.block import packed_sights, projections
from onnx_rewrite.passes.mhsa.cleaning import cleaned
from onnx_rewrite.passes.mhsa.meaning import check_number, meaning, numpy_of
from onnx_rewrite.passes.mhsa.operands import Groups, Operand, axes4, made, merge, see, seen, seen_nodes
from onnx_rewrite.passes.mhsa.terms import check_terms, gained, mask, parted, plainly
from onnx_rewrite.pattern import op

Scaled = Literal["scores", "q", "k", "both"]
Masked = Literal["merged", "apart"]
Keys = Literal["once", "twice"]
Packed = Literal["split", "stacked"]


@dataclass(frozen=True)
class Style:
    """One way of spelling.

    Attributes:
        scale: What is multiplied by the scale; "both": Q and K by its root.
        rank: 4: batch and heads are two axes; 3: one.
        keys: Whether Kᵀ comes from one Transpose, or from that of Q and V and another one.
        mask: Whether all terms are added up before they meet the scores.
        packed: How Q, K and V are cut out of one value: by Split, or from a stack of five axes.
    """

    scale: Scaled = "scores"
    rank: Literal[3, 4] = 4
    keys: Keys = "once"
    mask: Masked = "merged"
    packed: Packed = "split"


_MOVES = ("Reshape", "Transpose")
_CHOICES = ("Flatten", "Gather", "Slice", "Split", "Squeeze", "Unsqueeze", "Expand")


class Plain:
    """An attention as it would be spelt.

    Args:
        m: The match.
        style: The way.
        level: "core": its operands are seen from as near as can be; "block": with their projections, as one product;
            else from as far as can be.

    Raises:
        Refused: It cannot.
    """

    def __init__(self, m: Match, style: Style, level: str = "auto") -> None:
        far = level != "core"
        self.style = style
        self.attention = attention = plainly(meaning(m))
        self._check(m)
        if attention.softcap:
            raise Refused("tanh bounds the scores: only Attention, since opset 23, has a form for it", m.softmax)
        if style.rank == 3 and (attention.terms or attention.gains):
            raise Refused("a mask is spelt on scores of rank 4", m.softmax)
        each = attention.q, attention.k, attention.v
        q, k, v = (seen(attention, sights, way, far=far) for sights, way in zip(each, self._ways, strict=True))
        if q is None or k is None or v is None:
            raise Refused("how Q, K and V are arranged cannot be said with one size that is not known", m.scores)
        self.operands: list[Operand] = [q, k, v]
        self.scale = math.prod([attention.scale, *(operand.sight.absorbed for operand in (q, k, v))])
        if self.scale <= 0 and style.scale == "both":
            raise Refused(f"the scores are multiplied by {self.scale:g}, which has no root", m.scores)
        check_number(m, self.scale, numpy_of(m, attention.dtype), "the scores are multiplied")
        check_terms(m, attention)
        parts = len(attention.parts)
        batch, heads = list(range(attention.split)), list(range(attention.split, parts))
        places = [[*batch, *heads], [parts], [parts + 1]] if style.rank == 3 else [batch, heads, [parts], [parts + 1]]
        dims = (*attention.parts, attention.queries, attention.channels)
        recipe = merge(attention, [product([dims[i] for i in place]) for place in places], places)
        if recipe is None:
            raise Refused("how the result is put together cannot be said with one size that is not known", m.context)
        self.merge = recipe
        see(m, attention, self.operands)
        self.projections = projections(m, attention, [o.sight for o in self.operands]) if level == "block" else None
        if self.projections is not None:
            m.look_through([*self.projections.nodes, *seen_nodes(attention, self.operands)])
            sights = packed_sights(attention, self.projections, q.sight)
            self.operands = [self._packed(m, sight, way) for sight, way in zip(sights, self._ways, strict=True)]

    @property
    def _ways(self) -> list[Groups]:
        """The axes of Q, K and V."""
        return [self._straight, self._across if self.style.keys == "once" else self._straight, self._straight]

    def _packed(self, m: Match, sight: Sight, way: Groups) -> Operand:
        axes = way(self.attention, sight)
        recipe = None if axes is None else arranged(sight.layout, axes)
        if recipe is None:
            raise Refused("how Q, K and V are arranged cannot be said with one size that is not known", m.scores)
        return Operand(sight, recipe)

    def _check(self, m: Match) -> None:
        attention = self.attention
        sizes = attention.parts
        for sight, name in ((attention.q[0], "queries"), (attention.k[0], "keys"), (attention.v[0], "values")):
            for group in (slice(0, attention.split), slice(attention.split, None)):
                there = [bool(d) for d, size in zip(sight.batch[group], sizes[group], strict=True) if size != 1]
                if any(there) and not all(there):
                    raise Refused(f"the {name} are the same for a part of the heads", m.scores)
                if self.style.rank == 3 and not all(there):
                    raise Refused(f"the {name} are the same for several heads", m.scores)

    def _straight(self, attention: Attention, sight: Sight) -> list[Axis]:
        batch, heads, sequence, channels = axes4(attention, sight)
        return [(*batch, *heads), sequence, channels] if self.style.rank == 3 else [batch, heads, sequence, channels]

    def _across(self, attention: Attention, sight: Sight) -> list[Axis]:
        *batch, sequence, channels = self._straight(attention, sight)
        return [*batch, channels, sequence]

    def made(self, m: Match) -> tuple[Any, Any, Any]:
        """Records what arranges Q, K and V; K as one wants it for a product, or as it comes (`keys`)."""
        attention, operands = self.attention, self.operands
        if self.projections is not None:
            both = self.projections.applied()
            operands = [replace(o, sight=replace(o.sight, value=both)) for o in operands]
        q, k, v = made(operands, self._ways, attention, stacked=self.style.packed == "stacked")
        return gained(m, attention, q), k, v

    def finished(self, m: Match, context: Any, v: Any) -> Any:
        """Records what makes the result of softmax(...) V."""
        return self.merge.applied(cleaned(m, self.attention, context, v, None))

    def stands(self, m: Match, new: Sequence[ir.Node]) -> bool:
        """Whether it is spelt so already, and moves elements in no more nodes than the new ones would.

        Operands whose arrangement cannot be told from afar would else be rearranged once more in every run.
        """
        found, style = self.attention, self.style
        scaled = {"scores": "", "q": "q", "k": "k", "both": "qk"}[style.scale] if self.scale != 1 else ""
        if m.scores.op_type != "MatMul" or m.context.op_type != "MatMul" or m.turned is not None:
            return False
        absorbed = "".join(n for n, o in zip("qk", self.operands, strict=False) if o.sight.absorbed != 1)
        if absorbed != scaled or m.q_divisor is not None or m.k_divisor is not None:
            return False
        logits = ["Mul"] * (style.scale == "scores" and found.scale != 1)
        logits += ["Cast"] * (found.softmax_dtype != found.dtype)
        logits += ["Add"] * (len(found.terms) if style.mask == "apart" else min(1, len(found.terms)))
        weights = ["Cast"] * (found.softmax_dtype != found.dtype)
        if [n.op_type for n in m.logits] != logits or [n.op_type for n in m.weights] != weights or found.gains:
            return False
        old = Counter(node.op_type for node in m.nodes)
        made = Counter(node.op_type for node in new)
        if any(old[one] != made[one] for one in _CHOICES):
            return False
        if self.projections is not None and old["MatMul"] != made["MatMul"]:
            return False
        return sum(old[one] for one in _MOVES) <= sum(made[one] for one in _MOVES)

    def write(self, m: Match) -> Any:
        """Records it."""
        attention, style = self.attention, self.style
        q, k, v = self.made(m)
        dtype = numpy_of(m, attention.dtype)
        if style.keys == "twice":
            k = op.Transpose(k, perm=[0, 2, 1] if style.rank == 3 else [0, 1, 3, 2])
        factor = np.asarray(math.sqrt(self.scale) if style.scale == "both" else self.scale, dtype)
        if self.scale != 1 and style.scale in ("q", "both"):
            q = op.Mul(q, factor)
        if self.scale != 1 and style.scale in ("k", "both"):
            k = op.Mul(k, factor)
        scores = op.MatMul(q, k)
        if self.scale != 1 and style.scale == "scores":
            scores = op.Mul(scores, np.asarray(self.scale, dtype))
        wide = attention.softmax_dtype != attention.dtype
        if wide:
            scores = op.Cast(scores, to=attention.softmax_dtype)
        for one in self.masked(m):
            scores = op.Add(scores, one)
        weights = op.Softmax(scores, axis=-1)
        if wide:
            weights = op.Cast(weights, to=attention.dtype)
        return self.finished(m, op.MatMul(weights, v), v)

    def masked(self, m: Match) -> list[Any]:
        """What is added to the scores."""
        attention = self.attention
        each = [parted(attention, t) for t in attention.terms] if self.style.mask == "apart" else [attention]
        totals = [mask(m, one, attention.softmax_dtype, clamped=False) for one in each]
        return [self._flat(total) for total in totals if total is not None]

    def _flat(self, total: Any) -> Any:
        """A mask of rank 4 for scores of rank 3."""
        if self.style.rank == 4:
            return total
        raise Refused("a mask is spelt on scores of rank 4")


def refuse_unmasked(m: Match, plain: Plain) -> None:
    """Raises Refused where TensorRT 8.6 was measured to be no faster with another spelling: where nothing is masked.

    The numbers are in mhsa.md: whole ViT and DeiT, 0.91 to 1.10 times as fast.
    """
    if not plain.attention.terms:
        reason = "without a mask or bias TensorRT 8.6 gains nothing reliably: mhsa:form=spelling takes it all the same"
        raise Refused(reason, m.softmax)
