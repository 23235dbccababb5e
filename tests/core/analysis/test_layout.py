"""Layouts: what chains of moving operators amount to, against numpy, and the nodes that write a layout."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.analysis.layout import Layout, Unknown, regrouped, size_of, through
from onnx_rewrite.passes.mhsa.arranging import arranged

FACTORS = (2, 3, 2, 5, 2)


def elements(layout: Layout) -> np.ndarray[Any, Any]:
    """Where in the source each element of the tensor stands, by the layout."""
    strides = [math.prod(int(n) for n in layout.source[i + 1 :]) for i in range(len(layout.source))]
    place = np.asarray(sum(start * stride for start, stride in zip(layout.starts, strides, strict=True)))
    for axis in layout.axes:
        steps = np.zeros(1, np.int64)
        for digit in axis:
            stride = 0 if digit.axis is None else digit.stride * strides[digit.axis]
            steps = np.add.outer(steps, stride * np.arange(digit.size)).reshape(-1)
        place = np.add.outer(place, steps)
    return place


@st.composite
def chains(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], Layout]:
    """A tensor of numbers from 0 on after some operators, and the layout that these give."""
    count = draw(st.integers(1, len(FACTORS)))
    shape = [math.prod(FACTORS[:count][i::2]) for i in range(2)]
    array = np.arange(math.prod(shape)).reshape(shape)
    layout: Layout | None = Layout.of(shape)
    for _ in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from(["reshape", "transpose", "slice", "pick", "expand"]))
        rank = array.ndim
        if kind == "transpose":
            perm = draw(st.permutations(range(rank)))
            array, after = array.transpose(perm), layout.transposed(perm)
        elif kind == "reshape":
            sizes = draw(st.sampled_from(splits(array.size)))
            array, after = array.reshape(sizes), layout.reshaped(sizes)
        elif kind == "slice" and rank:
            axis = draw(st.integers(0, rank - 1))
            start = draw(st.integers(0, array.shape[axis] - 1))
            size = draw(st.integers(1, array.shape[axis] - start))
            array = array.take(range(start, start + size), axis)
            after = layout.restricted(axis, start, size)
        elif kind == "pick" and rank:
            axis = draw(st.integers(0, rank - 1))
            index = draw(st.integers(0, array.shape[axis] - 1))
            array, after = array.take(index, axis), layout.picked(axis, index)
        else:
            sizes = (2, *array.shape)
            array, after = np.broadcast_to(array, sizes), layout.expanded(sizes)
        if after is None:  # digits cannot tell: a view ends here
            break
        layout = after
    return np.asarray(array), layout


def splits(size: int) -> list[tuple[int, ...]]:
    """Some shapes of so many elements."""
    found = [(size,), (1, size)]
    for first in range(2, size):
        if size % first == 0:
            found += [(first, size // first), (size // first, 1, first)]
    return found


@settings(max_examples=150, deadline=None)
@given(chains())
def test_a_layout_says_where_each_element_stands(drawn: tuple[np.ndarray[Any, Any], Layout]) -> None:
    array, layout = drawn
    if array.shape == layout.sizes:  # else the last operator was beyond what digits can tell
        assert np.array_equal(elements(layout), array)


@settings(max_examples=150, deadline=None)
@given(chains(), st.randoms(use_true_random=False))
def test_nodes_that_write_a_layout_give_it(drawn: tuple[np.ndarray[Any, Any], Layout], random: Any) -> None:
    _, layout = drawn
    axes = list(layout.axes)
    random.shuffle(axes)
    groups = [axes[0] + axes[1], *axes[2:]] if len(axes) > 1 and random.random() < 0.5 else axes
    recipe = arranged(layout, groups)
    if recipe is None:
        assert any(digit.axis is None for axis in axes for digit in axis)
        return
    array = np.arange(math.prod(int(n) for n in layout.source)).reshape([int(n) for n in layout.source])
    wanted = elements(Layout(layout.source, tuple(groups), layout.starts))
    assert np.array_equal(run(recipe, array), wanted)
    assert recipe.cost <= 5 + len(recipe.picks)


def run(recipe: Any, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    for axis, start, end in recipe.slices:
        array = array.take(range(start, end), axis)
    if recipe.divided is not None:
        array = array.reshape(recipe.divided)
    for axis, index in recipe.picks:
        array = array.take(index, axis)
    if recipe.perm is not None:
        array = array.transpose(recipe.perm)
    return array if recipe.joined is None else array.reshape(recipe.joined)


def test_sizes_that_are_not_known_stay_apart() -> None:
    batch, length = Unknown("N"), Unknown("L")
    heads = Layout.of([batch, length, 12]).reshaped([batch, length, 3, 4])
    assert heads is not None
    across = heads.transposed([0, 2, 3, 1])
    assert across.sizes == (batch, 3, 4, length)
    folded = Layout.of([batch, 3, 4]).reshaped([Unknown("M"), 4])
    assert folded is not None
    windows = Layout.of([batch, 3]).reshaped([Unknown("?"), 4, 3])
    assert windows is not None
    assert windows.axes[0][0].stride == 4
    assert size_of(windows.axes[0]) == Unknown("N", 4)
    assert regrouped(list(Layout.of([batch, length]).axes[0]), [2, 3]) is None


def test_a_chain_of_nodes() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 13]> g (float[2,5,24] x) => (float[2,2,5,4] y)
        <int64[5] five = {2,5,3,2,4}, int64 one = {1}>
        { a = Reshape(x, five) b = Transpose<perm=[2,0,3,1,4]>(a) y = Gather<axis=0>(b, one) }"""
    )
    from onnx_rewrite.analysis.types import complete_types

    complete_types(model)
    chain = [node.outputs[0] for node in model.graph]
    layout = through(chain, model.graph.inputs[0], 13, Constants())
    assert layout is not None
    assert layout.starts == (0, 0, 8)
    numbers = np.arange(2 * 5 * 24).reshape(2, 5, 3, 2, 4).transpose(2, 0, 3, 1, 4)[1]
    assert np.array_equal(elements(layout), numbers)


def test_a_factor_between_two_nodes_may_give_another_rank() -> None:
    """Then the chain does not begin where its source ends."""
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 13]> g (float[3] x) => (float[3,1,1] y)
        <float[1,1,1] one = {1}> { a = Mul(x, one) y = Transpose<perm=[2,1,0]>(a) }"""
    )
    from onnx_rewrite.analysis.types import complete_types

    complete_types(model)
    assert through([model.graph.outputs[0]], model.graph.inputs[0], 13, Constants()) is None
