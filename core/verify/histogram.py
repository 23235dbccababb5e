"""How absolute errors are distributed: logarithmic bins, four to a decade."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from onnx_rewrite.verify.dtypes import Array

BINS_PER_DECADE = 4


@dataclass(frozen=True)
class Histogram:
    """Absolute errors, counted.

    Attributes:
        zero: Elements without any error.
        not_finite: Elements that are NaN or infinite on one side only: infinitely far.
        first: The first bin: bin i holds errors from 10^(i/4) up to, and without, 10^((i+1)/4).
        counts: Elements in the bins `first`, `first + 1`, ...; empty if no error is finite and above zero.
    """

    zero: int = 0
    not_finite: int = 0
    first: int = 0
    counts: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        """All elements."""
        return self.zero + self.not_finite + sum(self.counts)

    def per_decade(self) -> dict[int, int]:
        """The same in whole decades: 10^d up to 10^(d+1) by d, without empty ones at the ends."""
        found: Counter[int] = Counter()
        for position, n in enumerate(self.counts, self.first):
            found[position // BINS_PER_DECADE] += n
        return dict(sorted(found.items()))


class Counting:
    """Adds up a `Histogram`, array by array."""

    def __init__(self) -> None:
        self._zero = self._not_finite = 0
        self._bins: Counter[int] = Counter()

    def add(self, gaps: Array) -> None:
        """Counts absolute errors of any shape; NaN and infinity count as not finite."""
        finite = np.isfinite(gaps)
        positive = gaps[finite & (gaps > 0)]
        self._not_finite += int(finite.size - np.count_nonzero(finite))
        self._zero += int(np.count_nonzero(finite) - positive.size)
        bins, counts = np.unique(np.floor(BINS_PER_DECADE * np.log10(positive)).astype(np.int64), return_counts=True)
        self._bins.update({int(b): int(n) for b, n in zip(bins, counts, strict=True)})

    def result(self) -> Histogram:
        """What was counted so far."""
        if not self._bins:
            return Histogram(self._zero, self._not_finite)
        first, last = min(self._bins), max(self._bins)
        return Histogram(self._zero, self._not_finite, first, tuple(self._bins[i] for i in range(first, last + 1)))
