"""Patterns that cannot be meant are refused when they are traced; their twins are not."""

from __future__ import annotations

from typing import Any

import pytest

from onnx_rewrite.pattern import (
    PatternError,
    constant,
    either,
    maybe,
    op,
    optional,
    repeat,
    rest,
    scalar,
    trace,
    where,
)

WRONG: list[tuple[Any, Any, str]] = [
    # A wrong pattern, its right twin, and what is said of the wrong one.
    (lambda x: x, lambda x: op.Relu(x), "every output of a pattern must be the result of an operator"),
    (lambda x: either(op.Relu(x), x), lambda x: either(op.Relu(x), op.Abs(x)), "must be the result of an operator"),
    (lambda x, y: op.Relu(x), lambda x, y: op.Add(x, y), "never uses y"),
    (lambda: (), lambda x: (op.Relu(x),), "no outputs"),
    (lambda x: (op.Relu(x),) * 2, lambda x: (op.Relu(x), op.Relu(x)), "one and the same"),
    # outputs
    (lambda x, y: (op.Relu(x), op.Abs(y)), lambda x: (op.Relu(x), op.Abs(x)), "output 2 has no operator"),
    (lambda c: (op.Relu(constant(c)), op.Abs(constant(c))), lambda c: (op.Relu(c), op.Abs(c)), "no captured value"),
    (lambda a: (op.Relu(op.Exp(1)), op.Abs(scalar(a))), lambda a: (op.Relu(op.Exp(a)), op.Abs(a)), "constants alone"),
    # names
    (lambda x, a: op.Softmax(op.Add(x, a), axis=a), lambda x, a: op.Softmax(op.Add(x, scalar(a)), axis=a),
     "'a' stands for a number or parameter and for a value"),
    (lambda x: op.Relu(x).named("x"), lambda x: op.Relu(x).named("r"), "'x' stands for a node and for a value"),
    (lambda x, c: op.Add(op.Mul(x, scalar(c)), constant(c)), lambda x, c: op.Add(op.Mul(x, scalar(c)), scalar(c)),
     "'c' stands for a number or parameter and for a constant"),
    (lambda x: op.Relu(op.Abs(x).named("n")).named("n"), lambda x: op.Relu(op.Abs(x).named("n")).named("m"),
     "two nodes of the pattern are called 'n'"),
    (lambda x: op.Add(op.Abs(x).named("n"), op.Exp(x).named("n")),
     lambda x: either(op.Abs(x).named("n"), op.Exp(x).named("n")), "two nodes"),
    (lambda x: op.Relu(x.shaped("x")), lambda x: op.Relu(x.shaped("N")), "'x' stands for"),
    # rest
    (lambda x, a, b: op.Concat(rest(a), x, rest(b)), lambda x, a, b: op.Concat(rest(a), x, b), "one rest of operands"),
    (lambda x, a: op.F(optional(x), rest(a)), lambda x, a: op.F(x, rest(a)), "which operand is which"),
    (lambda x, a: op.F(either(x, rest(a))), lambda x, a: op.F(either(x, a)), "belongs among the operands"),
    (lambda a: op.Sum(rest(a.having(rank=1))), lambda a: op.Sum(rest(a, lambda v: v.having(rank=1))), "is a tuple"),
    (lambda x, a: op.Sum(a, rest(a)), lambda x, a: op.Sum(x, rest(a)), "'a' stands for"),
    (lambda a: op.Sum(rest(a, least=2, most=1)),
     lambda a: op.Sum(rest(a, least=2, most=2)), "at least 2 and at most 1"),
    (lambda a: op.Sum(rest("a")), lambda a: op.Sum(rest(a)), "takes a capture"),
    (lambda a: op.Sum(rest(a, lambda: 1)), lambda a: op.Sum(rest(a, constant)), "needs a parameter"),
    # repeat
    (lambda x: repeat(op.Relu, x), lambda x: repeat(op.Relu, x, least=1), "say least=1"),
    (lambda x: op.Abs(repeat(lambda v: v, x)), lambda x: op.Abs(repeat(op.Relu, x)), "result of an operator"),
    (lambda x: op.Abs(repeat(lambda v: op.Relu(x), x)), lambda x: op.Abs(repeat(lambda v: op.Add(v, x), x)),
     "must use the value"),
    (lambda x: op.Abs(repeat(lambda v: either(op.Relu(v), op.Exp(1)), x)),
     lambda x: op.Abs(repeat(lambda v: either(op.Relu(v), op.Exp(v)), x)), "in every alternative"),
    (lambda x: op.Abs(repeat(lambda v, w: op.Relu(v), x)), lambda x: op.Abs(repeat(lambda v, w: op.Add(v, w), x)),
     "a step never uses 'w'"),
    (lambda x: op.Abs(repeat(lambda v, x: op.Add(v, x), x)), lambda x: op.Abs(repeat(lambda x: op.Relu(x), x)),
     "'x' stands for"),
    (lambda x: op.Abs(repeat(lambda v: op.Relu(v).named("n"), op.Exp(x).named("n"))),
     lambda x: op.Abs(repeat(lambda v: op.Relu(v).named("n"), op.Exp(x).named("m"))), "'n' stands for"),
    (lambda x: op.Abs(repeat(op.Relu, x, most=0)), lambda x: op.Abs(repeat(op.Relu, x, most=1)), "at most 0"),
    # conditions
    (lambda x: op.Relu(x.shaped(-1)), lambda x: op.Relu(x.shaped(1)), "a dimension is a number"),
    (lambda x: op.Relu(x.shaped(..., 1, ...)), lambda x: op.Relu(x.shaped(..., 1)), "at most one ..."),
    (lambda x, a: op.Softmax(x, axis=a.having(rank=1)), lambda x, a: op.Softmax(x, axis=where(a, bool, "so")),
     "without dtype and shape"),
    (lambda x, a: op.Softmax(x, axis=constant(a)), lambda x, a: op.Softmax(x, axis=a), "is a parameter"),
    (lambda x, a: op.Add(x.broadcasts_to(a), scalar(a)), lambda x, a: op.Add(x.broadcasts_to(a), constant(a)),
     "nothing can broadcast to 'a'"),
    (lambda x: op.Abs(where(maybe(op.Relu, x), bool, "so")), lambda x: op.Abs(where(op.Relu(x), bool, "so")),
     "takes a capture or the result"),
    (lambda x: op.Relu(x).opset(since=3, until=2), lambda x: op.Relu(x).opset(since=2, until=3), "no opset"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "right", "words"), WRONG)
def test_mistakes(wrong: Any, right: Any, words: str) -> None:
    with pytest.raises(PatternError) as caught:
        trace(wrong, "some.pass")
    assert str(caught.value).startswith("some.pass: ")
    assert words in str(caught.value)
    trace(right, "some.pass")


def test_what_a_step_makes_stays_there() -> None:
    def leaking(x: Any) -> Any:
        made: list[Any] = []

        def step(v: Any) -> Any:
            made.append(op.Relu(v))
            return op.Add(made[0], v)

        chain = repeat(step, x)
        return op.Abs(op.Mul(chain, made[0]))

    with pytest.raises(PatternError, match="used outside of it"):
        trace(leaking, "some.pass")


def test_names_of_a_match() -> None:
    def pattern(x: Any, others: Any) -> Any:
        chain = repeat(lambda v, term: op.Add(v, constant(term)).named("steps"), x.shaped("N"))
        return op.Max(chain, rest(others, lambda v, w: op.Mul(v, w)))

    assert trace(pattern, "p").names == {"x", "others", "term", "steps", "N", "w"}
