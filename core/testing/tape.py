"""Bytes as choices: what the strategies draw from.

One tape is one hypothesis draw of bytes, which is an order of magnitude faster than a draw per choice, and still
shrinks: 0 is always the simplest choice, and a tape that is at its end reads as zeros.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np

T = TypeVar("T")

LENGTH = 160
"""How many bytes the tape of one example has at most."""


TAME = 5
"""From this variant on, choices that a pass often refuses are not made."""


class Tape:
    """Choices, one byte each.

    Args:
        data: The bytes.
        variant: Other choices from the same bytes; a small change of the bytes stays a small change of them.

    Attributes:
        tame: Whether to leave out what a pass often refuses.
    """

    def __init__(self, data: bytes, variant: int = 0) -> None:
        if variant:
            mask = np.random.default_rng(variant).bytes(LENGTH)
            padded = data.ljust(LENGTH, b"\0")
            data = bytes(a ^ b for a, b in zip(padded, mask, strict=False))
        self._data, self._at = data, 0
        self.tame = variant >= TAME

    def rewind(self) -> None:
        """Starts again with the first byte."""
        self._at = 0

    def below(self, count: int) -> int:
        """A number from 0 to `count` - 1."""
        byte = self._data[self._at] if self._at < len(self._data) else 0
        self._at += 1
        return byte % count

    def one(self, choices: tuple[T, ...] | list[T]) -> T:
        """One of several; the first is the simplest."""
        return choices[self.below(len(choices))]

    def chance(self, percent: int) -> bool:
        """True this often; False is the simplest."""
        return self.below(100) >= 100 - percent

    def more(self, percent: int, most: int) -> int:
        """A length by continue-flags: at most `most`."""
        count = 0
        while count < most and self.chance(percent):
            count += 1
        return count

    def rarely(self, percent: int) -> bool:
        """As `chance`, for what a pass often refuses."""
        return self.chance(percent) and not self.tame

    def order(self, count: int) -> list[int]:
        """A permutation of the numbers below `count`; the identity is the simplest."""
        left = list(range(count))
        return [left.pop(self.below(len(left))) for _ in range(count)]
