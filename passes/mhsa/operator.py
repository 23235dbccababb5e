"""The replacement by the standard operator Attention (since opset 23)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_rewrite.analysis.layout import Axis, size_of
from onnx_rewrite.match import Match, Refused
from onnx_rewrite.passes.mhsa.attention import Attention, Sight, product
from onnx_rewrite.passes.mhsa.block import Projections, projections
from onnx_rewrite.passes.mhsa.cleaning import above, check_repeated, cleaned, told_apart
from onnx_rewrite.passes.mhsa.meaning import check_number, meaning, numpy_of
from onnx_rewrite.passes.mhsa.operands import Operand, axes3, axes4, made, merge, see, seen, seen_nodes, shared
from onnx_rewrite.passes.mhsa.terms import array_of, check_terms, gained, last_axes, mask, nowhere
from onnx_rewrite.pattern import op

UNBOUNDED = "tanh bounds the scores, which {} has no form for"

ONE_IN_HALF = 1 + 2.0**-10
"""Roots up to here are taken for 1: both are one number as a 16-bit float."""


def _has_single_root(number: float) -> bool:
    with np.errstate(over="ignore"):
        return float(np.sqrt(np.float32(number))) ** 2 == number


class Form:
    """An attention with its operands in three or four dimensions.

    Attributes:
        attention: What it means.
        rank: Of the operands.
        operands: Q, K and V.
        merge: How the result is made.
        scale: Of the scores, with what the operands are multiplied by.
        guarded: Whether rows in which everything is hidden must be told from rows of lowest numbers.

    Raises:
        Refused: It cannot have them.
    """

    def __init__(self, m: Match, level: str) -> None:
        self.attention = attention = meaning(m)
        self._kv: int | None = None
        self.guarded = told_apart(m, attention)
        forms = [
            self._of(m, level, rank)
            for rank in ((4,) if level == "core" or self.guarded or attention.gains else (3, 4))
        ]
        found = [form for form in forms if form is not None]
        if not found:
            raise Refused("how Q, K and V are arranged cannot be said with one size that is not known", m.scores)
        self.cost, self.rank, self.operands, self.merge = min(found, key=lambda form: form[0])
        self.scale = attention.scale
        for operand in self.operands:
            self.scale *= operand.sight.absorbed
        if self.scale <= 0:
            raise Refused(f"the scores are multiplied by {self.scale:g}; Attention takes roots of its scale", m.scores)
        check_number(m, self.scale, np.dtype(np.float32), "the scores are multiplied")  # an attribute is a 32-bit float
        if attention.dtype == ir.DataType.DOUBLE and not _has_single_root(self.scale):
            reason = f"the root of the scale {self.scale} is no 32-bit float, and Attention computes with one"
            raise Refused(reason, m.scores)
        if attention.dtype == ir.DataType.DOUBLE and float(np.float32(attention.softcap)) != attention.softcap:
            raise Refused(
                f"the bound {attention.softcap} of the scores is no 32-bit float, as Attention has it", m.scores
            )
        if attention.softcap and m.target.startswith("tensorrt"):  # RTX 1.7.1 refuses to parse the attribute
            raise Refused(UNBOUNDED.format("TensorRT"), m.softmax)
        self._refuse_overflow(m)
        check_terms(m, attention)

    def _refuse_overflow(self, m: Match) -> None:
        """Attention multiplies Q and K by the root of its scale each, and adds up their products after that.

        Above 1 that may pass the largest 16-bit float, 65504, where the graph did not; what the graph itself multiplied
        them by, it may be given again. Wider types have room, unless the scale alone takes half of their exponents.
        """
        root = math.sqrt(self.scale)
        dtype = self.attention.dtype
        most = math.sqrt(float(np.finfo(np.float64 if dtype == ir.DataType.DOUBLE else np.float32).max))
        if dtype == ir.DataType.FLOAT16:
            given = [max(1.0, abs(operand.sight.absorbed)) for operand in self.operands[:2]]
            most = (min(given) * ONE_IN_HALF) ** 2
        if self.scale > most:
            reason = f"Attention would multiply Q and K by {root:g} each before it adds up their products, and these"
            raise Refused(f"{reason} may overflow", m.scores)

    def _of(self, m: Match, level: str, rank: int) -> tuple[int, int, list[Operand], Any] | None:
        attention = self.attention
        groups = axes3 if rank == 3 else axes4
        heads = attention.heads
        if rank == 3 and not isinstance(heads, int):
            return None

        def keys(attention: Attention, sight: Sight) -> list[Axis] | None:
            batch, own, sequence, channels = axes4(attention, sight)
            own = shared(own)
            return [batch, sequence, (*own, *channels)] if rank == 3 else [batch, own, sequence, channels]

        far = level != "core"
        q = seen(attention, self._sights(attention.q), groups, far=far)
        k = seen(attention, self._sights(attention.k), keys, far=far)
        v = seen(attention, attention.v, keys, far=far)
        if q is None or k is None or v is None:
            return None
        self._check(m, q, k, v)
        own = self._heads(m, v)
        if attention.cleaned and own != attention.heads:
            if rank == 3:
                return None
            check_repeated(m, attention, own)
        parts = len(attention.parts)
        batch, own = list(range(attention.split)), list(range(attention.split, parts))
        places = [batch, [parts], [*own, parts + 1]] if rank == 3 else [batch, own, [parts], [parts + 1]]
        dims = (*attention.parts, attention.queries, attention.channels)
        sizes = [product([dims[i] for i in place]) for place in places]
        recipe = merge(attention, sizes, places)
        if recipe is None:
            return None
        cost = sum(one.recipe.cost for one in (q, k, v)) + recipe.cost
        return cost, rank, [q, k, v], recipe

    def _sights(self, sights: Sequence[Sight]) -> Sequence[Sight]:
        """Those from which 16-bit floats are multiplied by no number above 1, if there are any."""
        if self.attention.dtype != ir.DataType.FLOAT16:
            return sights
        return [sight for sight in sights if abs(sight.absorbed) <= 1] or sights

    def _check(self, m: Match, *operands: Operand) -> None:
        """Batches must be equal, and heads of queries a multiple of those of keys and values."""
        attention = self.attention
        q, k, v = operands
        batch = attention.parts[: attention.split]
        for operand, name in ((q, "queries"), (k, "keys"), (v, "values")):
            for digits, size in zip(operand.sight.batch, batch, strict=False):
                if size != 1 and not shared(digits):
                    raise Refused(
                        f"the {name} are the same for the whole batch, which Attention does not know", m.scores
                    )
                if isinstance(size, int) and not isinstance(size_of(digits), int):
                    raise Refused(f"whether the {name} are the same for the whole batch is not known", m.scores)
        heads = attention.parts[attention.split :]
        for digits, size in zip(q.sight.batch[attention.split :], heads, strict=True):
            if size != 1 and (not digits or any(d.axis is None for d in digits)):
                raise Refused("the queries are the same for all heads", m.scores)
        counts = {self._heads(m, operand) for operand in (k, v)}
        if len(counts) > 1:
            raise Refused("the keys have another number of heads than the values", m.context)

    def _heads(self, m: Match, operand: Operand) -> Any:
        own = operand.sight.batch[self.attention.split :]
        for number, (digits, size) in enumerate(zip(own, self.attention.parts[self.attention.split :], strict=True)):
            if size != 1 and any(d.axis is None for d in shared(digits)):
                raise Refused("keys are repeated in an order that Attention does not know", m.scores)
            if size != 1 and not digits and any(o for o in own[number + 1 :]):
                raise Refused("keys are repeated in an order that Attention does not know", m.scores)
        return product([d.size for axis in own for d in shared(axis)])

    def kv_heads(self, m: Match) -> Any:
        """How many heads the keys have."""
        return self._heads(m, self.operands[1])

    def inputs(self, m: Match) -> list[ir.Value]:
        """Q, K and V."""
        attention, rank = self.attention, self.rank

        def groups(attention: Attention, sight: Sight) -> list[Axis]:
            batch, own, sequence, channels = axes4(attention, sight)
            own = shared(own)
            return [batch, sequence, (*own, *channels)] if rank == 3 else [batch, own, sequence, channels]

        q, k, v = made(self.operands, groups, attention)
        return [gained(m, attention, q), k, v]


def attention_operator(m: Match, form: Form, packed: Projections | None = None) -> Any:
    """Records Attention and what arranges its operands and its result; with `packed` the projections too."""
    attention = form.attention
    if packed is None:
        q, k, v = form.inputs(m)
    else:
        q, k, v = op.Split(packed.applied(), axis=-1, split=packed.columns, outputs=3)
    total = mask(m, attention, attention.dtype, clamped=not form.guarded)
    total = widened(attention, total, q, form.rank)
    params: dict[str, Any] = {"scale": form.scale}
    if attention.softcap:
        params["softcap"] = attention.softcap
    if form.rank == 3:
        params |= {"q_num_heads": form.attention.heads, "kv_num_heads": form.kv_heads(m)}
    if attention.softmax_dtype != attention.dtype:
        params["softmax_precision"] = int(attention.softmax_dtype)
    empty = nowhere(total, numpy_of(m, attention.dtype)) if form.guarded else None
    result = op.Attention(q, k, v, above(m, attention, total) if form.guarded else total, **params)
    shared_by = None if form.rank == 3 or form.kv_heads(m) == attention.heads else form.kv_heads(m)
    return form.merge.applied(cleaned(m, attention, result, v, shared_by, empty))


def refuse_unfused(m: Match, form: Form) -> None:
    """Raises Refused where TensorRT's engine was measured to have more kernels with Attention than without.

    The numbers are in mhsa.md.
    """
    if any(array_of(m, term) is None and fed(term.value) for term in form.attention.terms):
        raise Refused("the mask is computed: TensorRT fuses the products with it, and Attention without", m.softmax)


def fed(value: ir.Value) -> bool:
    """Whether a value depends on what the graph is fed, sizes apart; an engine is built with what does not."""
    waiting, known = [value], {value}
    while waiting:
        one = waiting.pop()
        node = one.producer()
        if node is None:
            if one.const_value is None:
                return True
        elif node.op_type not in ("Shape", "Size"):
            new = [v for v in node.inputs if v is not None and v not in known]
            known.update(new)
            waiting += new
    return False


def widened(attention: Attention, total: Any, q: Any, rank: int) -> Any:
    """A mask with a row for each query and a column for each key, as onnxruntime wants it.

    Raises:
        Refused: It must be repeated along keys whose number is not known.
    """
    ends = last_axes(attention)
    if ends is None or ends == (attention.queries, attention.keys):
        return total
    if ends[1] != attention.keys and not isinstance(attention.keys, int):
        raise Refused("a mask would be repeated along keys whose number is not known")
    columns = attention.keys if ends[1] != attention.keys else 1
    if isinstance(attention.queries, int):
        if isinstance(total, np.ndarray) and isinstance(attention.keys, int):
            shape = (total.shape[0], total.shape[1], attention.queries, attention.keys)
            return np.ascontiguousarray(np.broadcast_to(total, shape))
        return op.Expand(total, np.asarray([1, 1, attention.queries, columns], np.int64))
    rows = op.Shape(q, start=rank - 2, end=rank - 1)
    ones, last = np.asarray([1, 1], np.int64), np.asarray([columns], np.int64)
    return op.Expand(total, op.Concat(ones, rows, last, axis=0))


def prepare(m: Match, level: str) -> Form:
    """The form of a match, which is then left with the nodes that it replaces.

    Raises:
        Refused: There is none.
    """
    form = Form(m, level)
    see(m, form.attention, form.operands)
    return form


def packed_projections(m: Match, form: Form) -> Projections:
    """The projections of a whole block, which the match then has too.

    Raises:
        Refused: There are none of one value.
    """
    if form.rank != 3:
        raise Refused("heads and projections do not go together", m.scores)
    found = projections(m, form.attention, [operand.sight for operand in form.operands])
    m.look_through([*found.nodes, *seen_nodes(form.attention, form.operands)])
    return found
