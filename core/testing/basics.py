"""Strategies for the parts that models are made of, and for whole random models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from onnx_rewrite.testing.containers import CONTAINERS, build
from onnx_rewrite.testing.draft import Array, Draft, Unfit, Value
from onnx_rewrite.testing.drawing import OPSETS
from onnx_rewrite.testing.spelling import SPELLINGS, array_of
from onnx_rewrite.testing.surroundings import surroundings
from onnx_rewrite.testing.tape import LENGTH, Tape
from onnx_rewrite.verify.regimes import LOCAL, draw_floats

_FLOATS = (1, 11, 10)
_INTEGERS = (7, 6, 3, 2)


def dtypes(*, floats: bool = True, integers: bool = True) -> SearchStrategy[int]:
    """An ONNX element type, such as `onnx.TensorProto.FLOAT`.

    Args:
        floats: float32, float64 and float16 among them.
        integers: int64, int32, int8 and uint8 among them.

    Examples from this strategy shrink towards float32, or int64 if there are no floats.
    """
    return st.sampled_from((*(_FLOATS if floats else ()), *(_INTEGERS if integers else ())))


def dims(*, least: int = 1, most: int = 6, symbols: Sequence[str] = ()) -> SearchStrategy[int | str]:
    """A dimension: a number from `least` to `most`, or one of `symbols`. Shrinks towards `least`."""
    sizes: SearchStrategy[int | str] = st.integers(least, most)
    return sizes if not symbols else sizes | st.sampled_from(list(symbols))


def shapes(
    *, ranks: tuple[int, int] = (0, 4), least: int = 1, most: int = 6, onto: Sequence[int] | None = None
) -> SearchStrategy[tuple[int, ...]]:
    """A shape.

    Args:
        ranks: The smallest and the largest rank.
        least: The smallest dimension.
        most: The largest dimension.
        onto: Only shapes that broadcast to this one without changing it.

    Examples from this strategy shrink towards few and small dimensions.
    """
    if onto is None:
        return st.lists(st.integers(least, most), min_size=ranks[0], max_size=ranks[1]).map(tuple)
    full = tuple(onto)
    return st.integers(0, len(full)).flatmap(
        lambda rank: st.tuples(*[st.sampled_from(sorted({1, size})) for size in full[len(full) - rank :]])
    )


@st.composite
def tensors(
    draw: st.DrawFn,
    dtype: SearchStrategy[int] | int | None = None,
    shape: SearchStrategy[tuple[int, ...]] | Sequence[int] | None = None,
) -> Array:
    """A numpy array with elements of one regime: an amplitude, small integers, NaN, infinities, denormals, zeros.

    Args:
        draw: Given by hypothesis.
        dtype: An element type, or a strategy for one; default: `dtypes()`.
        shape: A shape, or a strategy for one; default: `shapes()`.

    Examples from this strategy shrink towards normal numbers of amplitude 1.
    """
    kind = dtype if isinstance(dtype, int) else draw(dtype or dtypes())
    dims_ = draw(shape or shapes()) if shape is None or isinstance(shape, SearchStrategy) else tuple(shape)
    seed, regime = draw(st.integers(0, 255)), draw(st.sampled_from(LOCAL))
    if kind in (1, 10, 11, 16):
        return np.array(draw_floats(regime, kind, dims_, seed, 0))
    rng = np.random.default_rng(seed)
    return array_of(rng.integers(0 if kind in (2, 4, 9, 12, 13) else -3, 8, dims_), kind)


@st.composite
def constants(draw: st.DrawFn, array: SearchStrategy[Array] | None = None) -> Value:
    """A constant with a way to spell it: initializer, Constant node, or an Identity of either.

    `Draft.node` takes it as an operand. Shrinks towards initializers.
    """
    found = draw(array if array is not None else tensors())
    return Value("c", onnx.helper.np_dtype_to_tensor_dtype(found.dtype), found.shape, found, draw(_spellings))


_spellings = st.sampled_from(SPELLINGS)
_tapes = st.binary(min_size=48, max_size=LENGTH).map(Tape)


def _drawn(tape: Tape) -> Draft:
    draft = Draft(tape.one(OPSETS))
    pool: list[Value] = []
    for _ in range(1 + tape.more(50, 4)):
        pool += surroundings(draft, tape, pool, ())
    if not pool:
        pool = draft.node("Identity", [draft.input(1, (2,))])
    draft.outputs = [v for v in pool if not draft.consumers(v)][: 1 + tape.below(2)]
    return draft


def graphs() -> SearchStrategy[onnx.GraphProto]:
    """A random graph of up to some ten nodes that an interpreter can run, without dead nodes."""
    return _tapes.map(lambda tape: build(_drawn(tape)).graph)


def models() -> SearchStrategy[onnx.ModelProto]:
    """A random model, at a random opset; its nodes stand in the main graph, in a body of If or Loop, or a function."""

    def made(tape: Tape) -> onnx.ModelProto:
        draft = _drawn(tape)
        draft.container = tape.one(("main", "main", *CONTAINERS))
        try:
            return build(draft)
        except Unfit:
            draft.container = "main"
            return build(draft)

    return _tapes.map(made)


@st.composite
def feeds(draw: st.DrawFn, model: onnx.ModelProto, *, sizes: Any = None) -> dict[str, Array]:
    """Inputs for a model, all of one regime.

    Args:
        draw: Given by hypothesis.
        model: The model.
        sizes: A strategy for the size of each symbolic dimension; default: 1 to 6.
    """
    bound: dict[str, int] = {}
    given = {t.name for t in model.graph.initializer}
    found: dict[str, Array] = {}
    for value in model.graph.input:
        if value.name in given:
            continue
        tensor = value.type.tensor_type
        shape: list[int] = []
        for number, dim in enumerate(tensor.shape.dim):
            if dim.HasField("dim_value"):
                shape.append(dim.dim_value)
            else:
                symbol = dim.dim_param or f"{value.name}.{number}"
                if symbol not in bound:
                    bound[symbol] = draw(sizes or st.integers(1, 6))
                shape.append(bound[symbol])
        found[value.name] = draw(tensors(tensor.elem_type, shape))
    return found
