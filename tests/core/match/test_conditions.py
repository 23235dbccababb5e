"""Conditions on captures: each is refused with words, and its twin one edit away fires."""

from __future__ import annotations

from typing import Any

import pytest

from onnx_rewrite.pattern import FLOATS, INTEGERS, constant, maybe, op, optional, rest, scalar, where

from .finding import find, names, why_not


def add(x: Any, y: Any) -> Any:
    return op.Add(x, y)


TWO = "({} x, {} y) => ({} z) {{ z = Add(x, y) }}"


@pytest.mark.parametrize(
    ("pattern", "fires", "refused", "reason"),
    [
        (lambda x, y: add(x.having(dtype=FLOATS), y), "float16[2]", "int32[2]",
         "value 'x' has element type INT32; the pattern needs BFLOAT16 or DOUBLE or FLOAT or FLOAT16"),
        (lambda x, y: add(x.having(dtype=INTEGERS), y), "int32[2]", "float[2]", "value 'x' has element type FLOAT"),
        (lambda x, y: add(x.having(rank=2), y), "float[2, M]", "float[2]", "value 'x' has rank 1; the pattern needs 2"),
        (lambda x, y: add(x.shaped(2, None), y), "float[2, M]", "float[3, 2]",
         "value 'x' has shape [3, 2]; the pattern needs [2, ?]"),
        (lambda x, y: add(x.shaped(2), y), "float[2]", "float[M]", "value 'x' has shape [M]; the pattern needs [2]"),
        (lambda x, y: add(x.shaped(..., 3), y), "float[1, M, 3]", "float[3, 2]",
         "value 'x' has shape [3, 2]; the pattern needs [..., 3]"),
        (lambda x, y: add(x.shaped("A", "A"), y), "float[3, 3]", "float[3, 2]",
         "value 'x' has shape [3, 2]; the pattern needs [A, A], where A is 3"),
        (lambda x, y: add(x.shaped("A", "A"), y), "float[N, N]", "float[N, M]",
         "value 'x' has shape [N, M]; the pattern needs [A, A], where A is N"),
        (lambda x, y: add(x.shaped("A", ..., "A"), y), "float[N, 5, N]", "float[N]",
         "value 'x' has shape [N]; the pattern needs [A, ..., A]"),
        (lambda x, y: add(where(x, lambda v: v.shape[0] == 2, "two long"), y), "float[2]", "float[3]",
         "value 'x' is not two long"),
        (lambda x, y: add(x.having(where=lambda v: v.shape[0] == 2, wants="two long"), y), "float[2]", "float[3]",
         "value 'x' is not two long"),
        (lambda x, y: add(x, y).having(rank=1), "float[2]", "float[2, 2]", "value 'z' has rank 2; the pattern needs 1"),
        (lambda x, y: add(x, y).shaped("A", "A"), "float[2, 2]", "float[2, 3]",
         "value 'z' has shape [2, 3]; the pattern needs [A, A], where A is 2"),
        (lambda x, y: where(add(x, y), lambda v: v.shape[0] == 2, "two long"), "float[2]", "float[3]",
         "value 'z' is not two long"),
    ],
)  # fmt: skip
def test_one_value(pattern: Any, fires: str, refused: str, reason: str) -> None:
    assert find(pattern, TWO.format(fires, fires, fires)) is not None
    assert any(told.startswith(reason) for told in why_not(pattern, TWO.format(refused, refused, refused)))


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [("3", "3", True), ("3", "4", False), ("N", "N", True), ("N", "M", False), ("N", "3", False)],
)
def test_a_symbol_is_one_dimension_everywhere(one: str, other: str, equal: bool) -> None:
    found = find(lambda x, y: op.MatMul(x.shaped(None, "A"), y.shaped("A", "B")),
                 f"(float[2, {one}] x, float[{other}, 5] y) => (float[2, 5] z) {{ z = MatMul(x, y) }}")  # fmt: skip
    assert (found is not None) == equal
    if found is not None:
        assert (str(getattr(found.A, "value", found.A)), found.B) == (one, 5)


def test_what_is_not_known_is_equal_to_nothing() -> None:
    text = "(float[N, 2] x, float[N, 2] y) => (float[N, 2] z) { u = Relu(x) z = Add(u, y) }"
    assert any("not known" in told for told in why_not(lambda x, y: op.Add(op.Relu(x).shaped("A", 2), y), text))
    assert any("not known" in told for told in why_not(lambda x, y: op.Add(op.Relu(x).having(rank=2), y), text))
    assert find(lambda x, y: op.Add(op.Relu(x.shaped("A", 2)), y.shaped("A", 2)), text) is not None
    unknown = "(float[?, 2] x, float[?, 2] y) => (float[?, 2] z) { z = Add(x, y) }"
    pattern = lambda x, y: op.Add(x.shaped("A", 2), y)  # noqa: E731
    assert "value 'x' has a dimension 0 that is not known; the pattern needs [A, 2]" in why_not(pattern, unknown)


@pytest.mark.parametrize(
    ("small", "large", "fits"),
    [("3", "2, 3", True), ("1, 3", "2, 3", True), ("2, 1", "2, 3", True), ("N, 1", "N, 3", True), ("2", "2, 3", False),
     ("1, 2, 3", "2, 3", False), ("N", "3", False), ("M, 3", "N, 3", False), ("3", "1", False), ("1", "N", True)],
)  # fmt: skip
@pytest.mark.parametrize("swapped", [False, True])
def test_broadcasting_one_way(small: str, large: str, fits: bool, swapped: bool) -> None:
    def pattern(a: Any, b: Any) -> Any:
        return op.Sub(b, a.broadcasts_to(b)) if swapped else op.Sub(a.broadcasts_to(b), b)

    operands = "b, a" if swapped else "a, b"
    text = f"(float[{small}] a, float[{large}] b) => (float z) {{ z = Sub({operands}) }}"
    assert (find(pattern, text) is not None) == fits
    if not fits:
        assert any("does not broadcast to value 'b' of shape" in told for told in why_not(pattern, text))


def test_commutative_operands_are_told_apart_by_conditions() -> None:
    text = "(float[3] a, float[2, 3] b) => (float[2, 3] z) { z = Add(b, a) }"
    found = find(lambda small, large: op.Add(small.broadcasts_to(large), large), text)
    assert found is not None
    assert names([found.small, found.large]) == ["a", "b"]
    found = find(lambda small, large: op.Add(large.having(rank=1), small), text)
    assert found is not None
    assert found.large.name == "a"


def test_what_is_absent_need_not_broadcast() -> None:
    def pattern(x: Any, bias: Any) -> Any:
        return maybe(lambda v: op.Add(v, constant(bias.broadcasts_to(x))), op.Relu(x))

    for shape, nodes in (("2", 2), ("2, 2", 1)):
        count = "1.0, 2.0" if shape == "2" else "1.0, 2.0, 3.0, 4.0"
        text = f"(float[2] x) => (float z) <float[{shape}] c = {{{count}}}> {{ r = Relu(x) z = Add(r, c) }}"
        found = find(pattern, text)
        assert found is not None
        assert (len(found.nodes), found.bias is None) == (nodes, nodes == 1)


def test_each_of_several_broadcasts() -> None:
    def pattern(x: Any, xs: Any) -> Any:
        return op.Sum(x.having(rank=2), rest(xs, lambda v: v.broadcasts_to(x)))

    text = "(float[2, 3] x, float[3] a, float[{}] b) => (float[2, 3] z) {{ z = Sum(a, x, b) }}"
    assert find(pattern, text.format("1")) is not None
    assert find(pattern, text.format("2")) is None


CONSTANTS = (
    "(float[2] x) => (float[2] z) <float[1] c = {{{}}}, float[2] d = {{1.0, 2.0}}> {{ p = Mul(x, c) z = Add(p, d) }}"
)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (lambda x, c, d: (scalar(where(c, lambda n: n > 1, "above 1")), constant(d)), "value 'c' is not above 1"),
        (lambda x, c, d: (where(scalar(c), lambda n: n > 1, "above 1"), constant(d)), "value 'c' is not above 1"),
        (lambda x, c, d: (where(constant(c), lambda t: t.array[0] > 1, "above 1"), constant(d)),
         "value 'c' is not above 1"),
    ],
)  # fmt: skip
def test_constants(pattern: Any, reason: str) -> None:
    def whole(x: Any, c: Any, d: Any) -> Any:
        factor, term = pattern(x, c, d)
        return op.Add(op.Mul(x, factor), term)

    assert find(whole, CONSTANTS.format("2.0")) is not None
    assert reason in why_not(whole, CONSTANTS.format("0.5"))


def test_shapes_of_constants() -> None:
    def whole(x: Any, c: Any, d: Any) -> Any:
        return op.Add(op.Mul(x, scalar(c)), constant(d.shaped("A").having(rank=1)))

    found = find(whole, CONSTANTS.format("2.0"))
    assert found is not None
    assert found.A == 2
    reasons = why_not(lambda x, c, d: op.Add(op.Mul(x, scalar(c.shaped(2))), constant(d)), CONSTANTS.format("2.0"))
    assert "value 'c' has shape [1]; the pattern needs [2]" in reasons


@pytest.mark.parametrize("spelling", [lambda a: where(a, lambda n: n == 0, "the first"),
                                      lambda a: where(optional(a), lambda n: n == 0, "the first"),
                                      lambda a: optional(where(a, lambda n: n == 0, "the first"))])  # fmt: skip
def test_parameters(spelling: Any) -> None:
    def pattern(x: Any, a: Any) -> Any:
        return op.Softmax(x, axis=spelling(a))

    assert find(pattern, "(float[2, 3] x) => (float[2, 3] y) { y = Softmax <axis = -2> (x) }") is not None
    reasons = why_not(pattern, "(float[2, 3] x) => (float[2, 3] y) { y = Softmax <axis = -1> (x) }")
    assert "axis of Softmax 'y' is 1, which is not the first" in reasons


@pytest.mark.parametrize(
    ("since", "until", "matched"), [(None, 12, [11, 12]), (13, None, [13, 18]), (12, 13, [12, 13])]
)
def test_opsets(since: int | None, until: int | None, matched: list[int]) -> None:
    def pattern(x: Any) -> Any:
        return op.Relu(op.Abs(x).opset(since=since, until=until))

    text = "(float[2] x) => (float[2] y) { a = Abs(x) y = Relu(a) }"
    assert [opset for opset in (11, 12, 13, 18) if find(pattern, text, opset)] == matched
    outside = next(opset for opset in (11, 12, 13, 18) if opset not in matched)
    assert any(told.startswith(f"Abs 'a' is of opset {outside}; the pattern is for") for told in
               why_not(pattern, text, outside))  # fmt: skip


def test_opset_of_another_domain() -> None:
    twice = op.domain("local").Twice
    text = "(float[2] x) => (float[2] y) { y = local.Twice(x) }"
    assert find(lambda x: twice(x).opset(until=1), text) is not None
    assert find(lambda x: twice(x).opset(since=2), text) is None
