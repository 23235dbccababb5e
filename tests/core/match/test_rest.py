"""`rest`: any number of operands."""

from __future__ import annotations

from typing import Any

import pytest

from onnx_rewrite.pattern import FLOATS, constant, either, op, rest, scalar, where

from .finding import find, names, why_not

CONCAT = "(float[2] a, float[2] b, float[2] c) => (float[6] y) {{ r = Relu(b) y = Concat<axis = 0>({}) }}"


@pytest.mark.parametrize(
    ("pattern", "operands", "expected"),
    [
        (lambda a, xs: op.Concat(a, rest(xs), axis=0), "a, r, c", ["r", "c"]),
        (lambda a, xs: op.Concat(a, rest(xs), axis=0), "a", []),
        (lambda a, xs: op.Concat(rest(xs), a, axis=0), "a, r, c", ["a", "r"]),
        (lambda a, b, xs: op.Concat(a, rest(xs), b, axis=0), "a, r, c, b", ["r", "c"]),
        (lambda a, b, xs: op.Concat(a, rest(xs), b, axis=0), "a, b", []),
        (lambda a, b, xs: op.Concat(a, rest(xs), b, axis=0), "a", None),
        (lambda xs: op.Concat(rest(xs), axis=0), "a, a, a", ["a", "a", "a"]),
        (lambda xs: op.Concat(rest(xs, least=2), axis=0), "a, b", ["a", "b"]),
        (lambda xs: op.Concat(rest(xs, least=2), axis=0), "a", None),
        (lambda xs: op.Concat(rest(xs, most=2), axis=0), "a, b", ["a", "b"]),
        (lambda xs: op.Concat(rest(xs, most=2), axis=0), "a, b, c", None),
        # Operands have their places: the Relu must come first.
        (lambda x, xs: op.Concat(op.Relu(x), rest(xs), axis=0), "r, a, c", ["a", "c"]),
        (lambda x, xs: op.Concat(op.Relu(x), rest(xs), axis=0), "a, r, c", None),
    ],
)
def test_operands_in_place(pattern: Any, operands: str, expected: list[str] | None) -> None:
    found = find(pattern, CONCAT.format(operands))
    assert (None if found is None else names(found.xs)) == expected


@pytest.mark.parametrize("operator", ["Sum", "Max", "Min", "Mean"])
@pytest.mark.parametrize("operands", ["r, a, c", "a, r, c", "a, c, r"])
def test_named_operands_stand_anywhere(operator: str, operands: str) -> None:
    text = f"(float[2] a, float[2] b, float[2] c) => (float[2] y) {{ r = Relu(b) y = {operator}({operands}) }}"
    found = find(lambda x, xs: getattr(op, operator)(op.Relu(x), rest(xs)), text)
    assert found is not None
    assert (found.x.name, names(found.xs)) == ("b", ["a", "c"])
    assert find(lambda x, xs: getattr(op, operator)(op.Neg(x), rest(xs)), text) is None


ELEMENTS = """(float[2] a, float[2] b) => (float[2] y)
<float[1] two = {{2.0}}, float one = {{1.0}}, float[2] some = {{3.0, 4.0}}>
{{ r = Relu(a) s = Relu(b) d = Mul(a, two) e = Mul(b, two) f = Mul(b, one) y = Max({}) }}"""


def scaled(x: Any, xs: Any, factor: Any) -> Any:
    return op.Max(x, rest(xs, lambda v: op.Mul(v, scalar(factor)), least=1))


@pytest.mark.parametrize(
    ("pattern", "operands", "expected"),
    [
        (lambda x, xs: op.Max(x, rest(xs, constant)), "two, a, one", [(1,), ()]),
        (lambda x, xs: op.Max(x, rest(xs, constant)), "two, a, b", None),
        (lambda x, xs: op.Max(x, rest(xs, scalar)), "two, a, one", [2.0, 1.0]),
        (lambda x, xs: op.Max(x, rest(xs, scalar)), "two, a, some", None),
        (lambda xs: op.Max(rest(xs, op.Relu)), "r, s, r", ["a", "b", "a"]),
        (lambda xs: op.Max(rest(xs, op.Relu)), "r, s, a", None),
        (lambda xs: op.Max(rest(xs, lambda v: either(op.Relu(v), op.Mul(v, 2)))), "r, e", ["a", "b"]),
        # What comes from outside is the same for all: both are scaled by two.
        (scaled, "d, a, e", ["a", "b"]),
        (scaled, "d, a, f", None),
        (lambda xs: op.Max(rest(xs, lambda v: v.having(dtype=FLOATS))), "a, b", ["a", "b"]),
        (lambda xs: op.Max(rest(xs, lambda v: v.having(rank=2))), "a, b", None),
    ],
)
def test_what_each_must_be(pattern: Any, operands: str, expected: Any) -> None:
    found = find(pattern, ELEMENTS.format(operands))
    got = None if found is None else [getattr(v, "name", getattr(v, "shape", v)) for v in found.xs]
    assert got == expected


def test_captures_of_each_operand() -> None:
    def pattern(x: Any, xs: Any) -> Any:
        return op.Max(x, rest(xs, lambda v, factor: op.Mul(v, scalar(factor)).named("products")))

    found = find(pattern, ELEMENTS.format("e, a, f, d"))
    assert found is not None
    assert (names(found.xs), found.factor) == (["b", "b", "a"], (2.0, 1.0, 2.0))
    assert names(found.products) == ["e", "f", "d"]
    none = find(pattern, ELEMENTS.format("a"))
    assert none is not None
    assert (none.xs, none.factor, none.products) == ((), (), ())


def test_the_same_rest_twice() -> None:
    def pattern(xs: Any) -> Any:
        return op.Sub(op.Sum(rest(xs)), op.Max(rest(xs)))

    text = "(float[2] a, float[2] b) => (float[2] y) {{ s = Sum(a, b) m = Max({}) y = Sub(s, m) }}"
    assert find(pattern, text.format("a, b")) is not None
    assert find(pattern, text.format("b, a")) is None
    assert find(pattern, text.format("a")) is None


def test_why_not() -> None:
    reasons = why_not(lambda x, xs: op.Max(x, rest(xs, constant)), ELEMENTS.format("two, a, b"))
    assert "value 'b' is not a constant" in reasons
    reasons = why_not(lambda xs: op.Concat(rest(xs, least=2), axis=0), CONCAT.format("a"))
    assert reasons == ["Concat 'y' has 1 operands for 'xs', which needs at least 2"]
    reasons = why_not(
        lambda xs: op.Max(rest(xs, lambda v: where(scalar(v), lambda n: n > 1, "greater than 1"))),
        ELEMENTS.format("two, one"),
    )
    assert reasons == ["value 'one' is not greater than 1"]


def test_many_operands() -> None:
    operands = ", ".join(f"v{i}" for i in range(3000))
    made = " ".join(f"v{i} = Relu(a)" for i in range(3000))
    text = f"(float[2] a) => (float[2] y) {{ {made} y = Sum({operands}) }}"
    found = find(lambda xs: op.Sum(rest(xs, lambda v: op.Relu(v).named("relus"))), text)
    assert found is not None
    assert len(found.relus) == 3000
