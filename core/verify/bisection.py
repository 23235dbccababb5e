"""Finds the first edit that makes a model differ."""

from __future__ import annotations

from collections.abc import Callable


def first_bad(count: int, differs: Callable[[int], bool]) -> int:
    """The index of the edit with which a model begins to differ.

    Args:
        count: Number of edits, in order; with all of them the model differs, with none it does not.
        differs: Whether it differs with the first `n` edits alone.

    Returns:
        The least `i` such that the first `i + 1` edits make it differ; `differs` is asked about log2(count) times.
    """
    good, bad = 0, count
    while bad - good > 1:
        middle = (good + bad) // 2
        if differs(middle):
            bad = middle
        else:
            good = middle
    return bad - 1
