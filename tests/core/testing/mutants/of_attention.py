"""Wrong variants of attention, each with the part of its pattern that shows the bug often."""

from __future__ import annotations

from typing import Any

import numpy as np

import onnx_rewrite as rw
from onnx_rewrite.match import Refused
from onnx_rewrite.passes.mhsa import Spelling
from onnx_rewrite.passes.mhsa import plain as spelt
from onnx_rewrite.pattern import constant, op, scalar, view
from tests.core.testing.mutants.mutant import of

ATTENTION = "mhsa"


def attention_with(**changed: Any) -> Any:
    """The spelling with some of its parts written wrongly."""
    return type("Mutant", (Spelling,), {"name": "mutant", **changed})()


class Simple(rw.Pass):
    """softmax(Q Kᵀ · scale + mask) V as an author would first write it; rewritten as itself with Q scaled."""

    name = "mutant"

    def pattern(self, q: Any, k: Any, v: Any, scale: Any, mask: Any, perm: Any) -> Any:
        scores = op.Mul(op.MatMul(q, op.Transpose(k, perm=perm)), scalar(scale)).named("scores")
        weights = op.Softmax(op.Add(scores, mask), axis=-1).named("softmax")
        return op.MatMul(weights, v)

    axis = -1

    def check(self, m: rw.Match) -> None:
        if not np.isfinite(float(m.scale)):
            raise Refused("no number")

    def keys(self, m: rw.Match) -> Any:
        return op.Transpose(m.k, perm=m.perm)

    def scaled(self, m: rw.Match, q: Any) -> Any:
        return op.Mul(q, np.asarray(m.scale, m.q.dtype.numpy()))

    def masked(self, m: rw.Match, scores: Any) -> Any:
        return op.Add(scores, m.mask)

    def replace(self, m: rw.Match) -> Any:
        scores = op.MatMul(self.scaled(m, m.q), self.keys(m))
        return op.MatMul(op.Softmax(self.masked(m, scores), axis=self.axis), m.v)


def simple(base: type[Simple] = Simple, **changed: Any) -> Any:
    return type("Mutant", (base,), changed)()


def root_twice(self: Any, m: rw.Match, q: Any) -> Any:
    return op.Mul(q, np.asarray(np.sqrt(abs(float(m.scale))), m.q.dtype.numpy()))


def scaled_before_mask_and_after(self: Any, m: rw.Match, scores: Any) -> Any:
    return op.Mul(op.Add(scores, m.mask), np.asarray(m.scale, m.q.dtype.numpy()))


def key_like_query(self: Any, m: rw.Match) -> Any:
    """Kᵀ is left out where the sizes allow it."""
    if m.dim(m.k, -1) != m.dim(m.k, -2) or m.rank(m.k) != m.rank(m.q):
        raise Refused("the sizes tell")
    return m.k


class Twice(rw.Pass):
    """Two masks, the second of which is broadcast onto the first."""

    name = "mutant"

    def pattern(self, s: Any, first: Any, second: Any) -> Any:
        return op.Softmax(op.Add(op.Add(s, constant(first)), constant(second)), axis=-1)

    def replace(self, m: rw.Match) -> Any:
        second = m.second.array
        if second.ndim != 1 or (m.rank(m.s) or 0) < 2 or m.dim(m.s, -2) != second.shape[0]:
            raise Refused("the sizes tell")
        # A mask for keys is taken for one for queries.
        return op.Softmax(op.Add(op.Add(m.s, m.first.array), second[:, None]), axis=-1)


class Tapped(rw.Pass):
    """The scores are thought to be needed by nobody else: the scaled query is given to them, too."""

    name = "mutant"

    def pattern(self, q: Any, k: Any, scale: Any) -> Any:
        scores = op.MatMul(q, k)
        return op.Softmax(op.Mul(scores, scalar(scale)), axis=-1), scores

    def replace(self, m: rw.Match) -> Any:
        scores = op.MatMul(op.Mul(m.q, np.asarray(m.scale, m.q.dtype.numpy())), m.k)
        return op.Softmax(scores, axis=-1), scores


class Heads(rw.Pass):
    """Heads are put together by a Reshape: the sizes are right, the order of the elements is not."""

    name = "mutant"

    def pattern(self, w: Any, v: Any, perm: Any) -> Any:
        return op.Transpose(op.MatMul(op.Softmax(w, axis=-1), v), perm=perm)

    def replace(self, m: rw.Match) -> Any:
        shape = tuple(m.dim(m.output, axis) for axis in range(m.rank(m.output) or 0))
        if not shape or not all(isinstance(size, int) for size in shape):
            raise Refused("sizes that are not known")
        return op.Reshape(op.MatMul(op.Softmax(m.w, axis=-1), m.v), shape=shape)


class Tiled(rw.Pass):
    """repeat and tile give the same sizes: heads 0 0 1 1 for 0 1 0 1."""

    name = "mutant"

    def pattern(self, w: Any, x: Any, steps: Any) -> Any:
        return op.MatMul(op.Softmax(w, axis=-1), view(x, steps))

    def replace(self, m: rw.Match) -> Any:
        expands = [v.producer() for v in m.steps if v.producer() is not None and v.producer().op_type == "Expand"]
        have = [m.dim(m.x, axis) for axis in range(m.rank(m.x) or 0)]
        value = m.steps[-1] if m.steps else m.x
        want = [m.dim(value, axis) for axis in range(m.rank(value) or 0)]
        if not expands or len(have) != len(want) or not all(isinstance(s, int) for s in (*have, *want)):
            raise Refused("no repeated heads")
        if any(b % a for a, b in zip(have, want, strict=True)) or m.x.dtype.name == "FLOAT16":
            raise Refused("no repeated heads")
        times = np.asarray([b // a for a, b in zip(have, want, strict=True)], np.int64)
        return op.MatMul(op.Softmax(m.w, axis=-1), op.Tile(m.x, repeats=times.tolist()))


class Causal(rw.Pass):
    """A causal mask built anew, which hides the future from the first query on."""

    name = "mutant"
    offset = 1

    def pattern(self, s: Any, hidden: Any) -> Any:
        return op.Softmax(op.Add(s, constant(hidden)), axis=-1)

    def replace(self, m: rw.Match) -> Any:
        array = m.hidden.array
        if array.ndim < 2 or array.dtype != np.float32:
            raise Refused("no mask of queries and keys")
        rows, columns = array.shape[-2:]
        ahead = np.triu(np.ones((rows, columns), bool), columns - rows + self.offset)
        return op.Softmax(op.Add(m.s, np.where(ahead, array.min(), array).astype(array.dtype)), axis=-1)


class Narrowed(rw.Pass):
    """Softmax between two Casts: what it is computed in is taken for what it is cast back to."""

    name = "mutant"

    def pattern(self, s: Any, v: Any, wide: Any, back: Any) -> Any:
        return op.MatMul(op.Cast(op.Softmax(op.Cast(s, to=wide), axis=-1), to=back), v)

    def replace(self, m: rw.Match) -> Any:
        return op.MatMul(op.Cast(op.Softmax(op.Cast(m.s, to=10), axis=-1), to=m.back), m.v)


def as_wide_as_the_key(self: Any, m: rw.Match) -> Any:
    width = m.dim(m.q, -1)
    if not isinstance(width, int) or (m.rank(m.v) or 0) < 2:
        raise Refused("sizes that are not known")
    v = op.Slice(m.v, starts=[0], ends=[width], axes=[m.rank(m.v) - 1])
    scores = op.MatMul(self.scaled(m, m.q), self.keys(m))
    return op.MatMul(op.Softmax(self.masked(m, scores), axis=-1), v)


class Softened(Spelling):
    """Terms are added after the weights are made."""

    def replace(self, m: rw.Match) -> Any:
        plain = spelt.Plain(m, self.style)
        q, k, v = plain.made(m)
        total = plain.masked(m)
        if not total:
            raise Refused("no mask")
        weights = op.Softmax(op.Mul(op.MatMul(q, k), np.asarray(plain.scale, m.q.dtype.numpy())), axis=-1)
        return plain.merge.applied(op.MatMul(op.Add(weights, total[0]), v))


def unscaled(self: Any, m: rw.Match) -> Any:
    plain = spelt.Plain(m, self.style)
    if plain.scale == 1:
        raise Refused("no scale")
    plain.scale = 1.0
    return plain.write(m)


class Unmasked(spelt.Plain):
    """It adds no mask."""

    def masked(self, m: rw.Match) -> list[Any]:
        return []


def unmasked(self: Any, m: rw.Match) -> Any:
    plain = Unmasked(m, self.style)
    if not plain.attention.terms:
        raise Refused("no mask")
    return plain.write(m)


BUGS = (
    of("the scale dropped", ATTENTION, "attention: scale", attention_with(replace=unscaled)),
    of("the mask dropped", ATTENTION, "attention: mask", attention_with(replace=unmasked)),
    of("Softmax over the queries", ATTENTION, "Softmax over another axis", simple(axis=-2)),
    of("K not transposed", ATTENTION, "attention: transposed keys", simple(keys=key_like_query)),
    of("the root of the scale on one side", ATTENTION, "attention: scale on both", simple(scaled=root_twice)),
    of("the mask scaled, too", ATTENTION, "a term, then the scale", simple(masked=scaled_before_mask_and_after)),
    of("two masks broadcast wrongly", ATTENTION, "two terms of different axes", Twice()),
    of("the scores are tapped", ATTENTION, "an interior value is used elsewhere", Tapped()),
    of("heads in the wrong order", ATTENTION, "attention: heads put together", Heads()),
    of("keys tiled, not repeated", ATTENTION, "grouped queries", Tiled()),
    of("causal by one", ATTENTION, "a causal mask", Causal()),
    of("Softmax in halves", ATTENTION, "Cast around Softmax", Narrowed()),
    of("V as wide as K", ATTENTION, "values of another width", simple(replace=as_wide_as_the_key), "result_is_valid"),
    of("the mask after Softmax", ATTENTION, "attention: mask", Softened()),
)
