"""Products of matrices in Einsum: what is told of one, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_rewrite.analysis.product import Product, product_of

SIZES = {"a": 2, "b": 3, "h": 5, "i": 4, "j": 6, "k": 7}


def node(op_type: str, *shapes: tuple[int | str, ...], **attributes: str) -> ir.Node:
    given = [
        ir.Value(name=f"x{i}", shape=ir.Shape(s), type=ir.TensorType(ir.DataType.FLOAT)) for i, s in enumerate(shapes)
    ]
    return ir.Node("", op_type, given, [ir.AttrString(n, v) for n, v in attributes.items()])


def einsum(equation: str) -> ir.Node:
    shapes = [tuple(SIZES[i] for i in term) for term in equation.partition("->")[0].split(",")]
    return node("Einsum", *shapes, equation=equation)


def stack(array: np.ndarray[Any, Any], places: Any) -> np.ndarray[Any, Any]:
    if places is None:
        return array
    moved = array.transpose([p for p in places if p is not None])
    return np.expand_dims(moved, [i for i, p in enumerate(places) if p is None])


def computed(found: Product, arrays: dict[ir.Value | None, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """The product, as it is told."""
    made = stack(arrays[found.left], found.left_axes) @ stack(arrays[found.right], found.right_axes)
    return made if found.out_axes is None else made.transpose(found.out_axes)


@settings(max_examples=150)
@given(st.data())
def test_a_product_is_told_as_it_is(data: st.DataObject) -> None:
    """Any order of the axes, either operand first, batches that one operand lacks."""
    batch = data.draw(st.sampled_from(["", "a", "ab", "abh"]))
    lacking = data.draw(st.sampled_from(["", "a", "h"]))
    left = data.draw(st.permutations([*batch, "i", "j"]))
    right = data.draw(st.permutations([*(i for i in batch if i not in lacking), "j", "k"]))
    out = data.draw(st.permutations([*batch, "i", "k"]))
    terms = [left, right] if data.draw(st.booleans()) else [right, left]
    one = einsum(",".join("".join(t) for t in terms) + "->" + "".join(out))
    rng = np.random.default_rng(1)
    arrays = {v: rng.integers(-4, 5, [int(d) for d in v.shape or ()]) for v in one.inputs if v is not None}
    equation = one.attributes["equation"].as_string()
    expected = np.einsum(equation, *(arrays[v] for v in one.inputs))
    found = product_of(one)
    assert found is not None
    np.testing.assert_array_equal(computed(found, arrays), expected)
    flipped = found.flipped()
    assert flipped is not None
    np.testing.assert_array_equal(computed(flipped, arrays), expected)


def test_a_matmul_is_one_as_it_comes() -> None:
    one = node("MatMul", (2, 3, 4), (4, 5))
    left, right = one.inputs
    assert left is not None
    assert right is not None
    found = product_of(one)
    assert found == Product(left, right)
    arrays = {left: np.arange(24).reshape(2, 3, 4), right: np.arange(20).reshape(4, 5)}
    flipped = found.flipped()
    assert flipped is not None
    np.testing.assert_array_equal(computed(flipped, arrays), arrays[left] @ arrays[right])


@pytest.mark.parametrize(
    "equation",
    ["ai,ai->ai", "aij,aik->ai", "aij,bjk->ik", "ii,ij->ij", "aij,ajk", "ijk,jkh->ih", "ij->ji", "ij,jk->ijk"],
)
def test_what_is_no_product_of_two_matrices(equation: str) -> None:
    assert product_of(einsum(equation)) is None


def test_an_ellipsis_stands_for_the_axes_that_are_left() -> None:
    found = product_of(node("Einsum", (2, 3, 4, 6), (3, 7, 6), equation="...id, ...jd -> ...ij"))
    assert found is not None
    assert (found.left_axes, found.right_axes, found.out_axes) == ((0, 1, 2, 3), (None, 0, 2, 1), (0, 1, 2, 3))


def test_a_lone_element_that_is_repeated_is_no_product() -> None:
    assert product_of(node("Einsum", (2, 3), (1, 4), equation="ij,jk->ik")) is None


@pytest.mark.parametrize(("one", "two", "holds"), [(3, "n", False), ("m", "n", False), ("n", "n", True)])
def test_sizes_that_may_be_1_and_another_number_are_no_product(one: int | str, two: str, holds: bool) -> None:
    found = product_of(node("Einsum", (2, one), (two, 4), equation="ij,jk->ik"))
    assert (found is not None) == holds
