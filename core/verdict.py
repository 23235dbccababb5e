"""What a numerical comparison of two models says: the vocabulary of sites, judges and reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["equivalent", "different", "inconclusive", "not verified"]


@dataclass(frozen=True)
class Verification:
    """The verdict on one replacement, or on a whole model.

    Attributes:
        verdict: "equivalent"; "different"; "inconclusive" (it ran, but no judgement was possible, for example
            a tie of a discrete output); "not verified" (it could not be run, or was not asked for).
        error_before: Largest absolute error of the original, in its own precision, against itself in float64.
        error_after: Largest absolute error of the replacement against the original in float64.
        bound: The largest error_after that would have been accepted for the worst feed.
        feeds: How many feeds were run.
        reason: Why the verdict is not "equivalent", in words, or None.
        output: Name of the output with the worst error, or None.
        index: Position of the worst element in it, or None.
        regime: The kind of feed on which it was seen ("amplitude 1e-05", "nan", ...), or None.
    """

    verdict: Verdict
    error_before: float = 0.0
    error_after: float = 0.0
    bound: float = 0.0
    feeds: int = 0
    reason: str | None = None
    output: str | None = None
    index: tuple[int, ...] | None = None
    regime: str | None = None

    @property
    def equivalent(self) -> bool:
        """Whether the verdict is "equivalent"."""
        return self.verdict == "equivalent"


def not_verified(reason: str) -> Verification:
    """The verdict where nothing was run, with the reason."""
    return Verification("not verified", reason=reason)
