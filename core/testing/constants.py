"""Draws constants: their numbers, and how they are spelt."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnx_rewrite.testing.draft import Array, Draft, Unfit, Value
from onnx_rewrite.testing.params import EPSILONS, NUMBERS
from onnx_rewrite.testing.spelling import SPELLINGS, array_of
from onnx_rewrite.testing.tape import Tape
from onnx_rewrite.testing.wants import Want

TINY = (6e-8, 1e-8)
"""Epsilons of which float16 holds one as its smallest number, and one as 0."""

EXTREMES = (1e-4, 1e4, -1e4, -1e31, 1e31)
"""Numbers that are drawn where a pattern's condition allows none of the usual ones, such as a mask's lowest number."""

_INTEGERS = frozenset({2, 3, 4, 5, 6, 7, 12, 13})
MAGNITUDES = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 10.0, 1e-2, 1e3, 1.0, 1.0, 1.0)


class Constants:
    """The constants of one instance.

    Args:
        draft: What they belong to.
        tape: Where choices come from.
        plain: Whether all of them are initializers.
    """

    def __init__(self, draft: Draft, tape: Tape, *, plain: bool = False) -> None:
        self._draft, self._tape, self._plain = draft, tape, plain
        self._seed = tape.below(8)
        self._drawn = 0
        self._shared: dict[bytes, Value] = {}

    def spelt(self, array: Array, dtype: int | None = None) -> Value:
        """A constant of these elements, in any spelling; equal ones may be one value."""
        key = repr((dtype, array.dtype, array.shape)).encode() + array.tobytes()
        if key in self._shared and self._tape.chance(80):
            return self._shared[key]
        spelling = "initializer" if self._plain or not self._tape.chance(50) else self._tape.one(SPELLINGS)
        self._shared[key] = self._draft.constant(array, spelling, dtype)
        return self._shared[key]

    def again(self, value: Value) -> Value:
        """The same constant, or an equal one."""
        if value.array is not None and self._tape.chance(20):
            return self.spelt(value.array, value.dtype)
        return value

    def exact(self, number: float, dtype: int, shape: tuple[int, ...], *, may_vanish: bool = False) -> Value:
        """One number.

        Args:
            number: The number.
            dtype: Element type.
            shape: Of the constant.
            may_vanish: Whether it may be so small that the element type holds it as 0: an epsilon of 1e-12 in float16.

        Raises:
            Unfit: The element type cannot hold it, or only as 0.
        """
        if dtype == 11 and not self._tape.rarely(20):  # what attributes can hold, too
            number = float(np.float32(number))
        array = np.full(shape, array_of(number, dtype))
        if dtype in _INTEGERS and float(array.reshape(-1)[0]) != number:
            raise Unfit(f"{number} is no integer")
        if number and not array.any() and not may_vanish:
            raise Unfit(f"{number} vanishes")
        return self.spelt(array, dtype)

    def number(self, number: float, dtype: int, want: Want, *, may_vanish: bool = False) -> Value:
        """A constant of one element: a scalar, or now and then of rank 1 to 3; `may_vanish` as for `exact`.

        Of a rank beyond that of what it is combined with it gives the result a rank of its own, which a pass that takes
        it for a scalar overlooks.
        """
        rank = 0
        if want.beside is not None and self._tape.chance(20):
            rank = 1 + self._tape.below(3)
            if self._tape.tame:
                rank = min(rank, len(want.beside.shape))
        return self.exact(number, dtype, (1,) * rank, may_vanish=may_vanish)

    def guess(self, name: str, want: Want, dtype: int, var: Any) -> float:
        """A number for a capture of one element: by what it is combined with, then by its name."""
        beside = want.beside
        if beside is not None and beside.terms and want.op_type in ("Div", "Mul") and not self._tape.rarely(8):
            return float(beside.terms) if want.op_type == "Div" else 1.0 / beside.terms
        if name.lower().startswith("eps"):
            return self._tape.one(EPSILONS if dtype != 10 else (*EPSILONS, *TINY))
        numbers = NUMBERS if dtype not in _INTEGERS else (2.0, 1.0, 3.0, 0.0, 6.0)
        first = [self._tape.one(numbers)]
        for found in (*first, *numbers, *(() if dtype in _INTEGERS else EXTREMES)):
            if var is None or all(p.typed or p.fails(found) is None for p in var.predicates):
                return found
        raise Unfit(f"no number is found that '{name}' may be")

    def of(self, want: Want, dtype: int, shape: tuple[int, ...]) -> Value:
        """A constant of some shape."""
        self._drawn += 1
        rng = np.random.default_rng((self._seed, self._drawn))
        if want.numbers == "shape":
            beside = want.beside
            return self.spelt(np.asarray(beside.shape if beside is not None and beside.shape else (1,), np.int64))
        if want.numbers == "index":
            return self.spelt(rng.integers(0, max(want.limit, 1), shape), 7)
        if dtype == 9:
            return self.spelt(rng.random(shape) < 0.5)
        if dtype in _INTEGERS:
            return self.spelt(array_of(rng.integers(0, 6, shape), dtype), dtype)
        numbers = rng.standard_normal(shape)
        if want.numbers == "positive":
            numbers = np.abs(numbers) + 0.25
        elif self._tape.chance(60 if want.op_type in ("Min", "Max") else 15):
            # the same number everywhere, which some passes ask for
            numbers = np.full(shape, self._tape.one(NUMBERS))
        else:
            numbers = numbers * self._tape.one(MAGNITUDES)
        return self.spelt(array_of(np.round(numbers, 4), dtype), dtype)
