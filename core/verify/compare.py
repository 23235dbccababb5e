"""One output on one feed: before, after, and the original in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_rewrite.verify.dtypes import FLOATS, Array, Tolerance, largest, widen


@dataclass(frozen=True)
class Comparison:
    """What one output says.

    Attributes:
        ok: Whether it is accepted.
        error_before: Largest absolute error of the original against float64.
        error_after: The same of the replacement; infinite if an element has the wrong class.
        bound: What was accepted.
        index: Position of the worst element, or None.
        reason: Why not, or None.
        telling: Whether a wrong output would have been noticed: for floats, whether some element is finite and the
            bound is smaller than the largest of them (or all are zero).
        wrong: Where it is not accepted (a mask of the output's shape), or None if all or nothing is.
    """

    ok: bool
    error_before: float = 0.0
    error_after: float = 0.0
    bound: float = 0.0
    index: tuple[int, ...] | None = None
    reason: str | None = None
    telling: bool = True
    wrong: Array | None = None

    @property
    def ratio(self) -> float:
        """How much of the bound is used; more than 1 is too much."""
        if not self.ok and not self.error_after > self.bound:
            return float("inf")
        return self.error_after / self.bound if self.bound else (0.0 if self.error_after == 0 else float("inf"))


def compare(elem_type: int, before: Array, after: Array, ref: Array, tolerance: Tolerance) -> Comparison:
    """Judges one output.

    Args:
        elem_type: ONNX type of the output in the original model, also where a wider one was run.
        before: What the original gave.
        after: What the replacement gave.
        ref: The original in float64, of before's shape.
        tolerance: How far they may be apart.

    Returns:
        Shapes, dtypes and everything that is no float must be equal; floats within the tolerance's bound, with
        NaN and the infinities compared by class.
    """
    if before.shape != after.shape:
        return _plain(f"shape {list(before.shape)} became {list(after.shape)}")
    if before.dtype != after.dtype:
        return _plain(f"dtype {before.dtype} became {after.dtype}")
    if elem_type in FLOATS:
        return _floats(elem_type, widen(before), widen(after), ref, tolerance)
    wrong = np.asarray(before != after)
    if not wrong.any():
        return Comparison(True)
    index = _first(wrong)
    gap = abs(float(before[index]) - float(after[index])) if before.dtype.kind in "biuf" else float("inf")
    return Comparison(
        False,
        0.0,
        gap,
        0.0,
        index,
        f"{before[index]} became {after[index]} in {int(wrong.sum())} elements",
        wrong=wrong,
    )


def _plain(reason: str) -> Comparison:
    return Comparison(False, error_after=float("inf"), reason=reason)


def _first(mask: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(mask)), mask.shape))


def _floats(elem_type: int, before: Array, after: Array, ref: Array, tolerance: Tolerance) -> Comparison:
    if not ref.size:
        return Comparison(True)
    gap_after = np.abs(after - ref)
    worst = gap_after.max()
    scale = np.abs(ref).max()
    if np.isfinite(worst) and scale <= largest(elem_type):
        gap_before = np.abs(before - ref)
        top = gap_before.max()
        if np.isfinite(top):
            # The common case: everything is finite.
            bound = tolerance.bound(elem_type, float(top), float(scale))
            index = tuple(int(i) for i in np.unravel_index(int(gap_after.argmax()), ref.shape))
            if worst <= bound:
                return Comparison(
                    True, float(top), float(worst), bound, index, telling=bool(scale == 0 or bound < scale)
                )
            reason = f"{before[index]:.9g} became {after[index]:.9g}, in float64 {ref[index]:.9g}"
            return Comparison(False, float(top), float(worst), bound, index, reason, wrong=gap_after > bound)
    return _specials(elem_type, before, after, ref, tolerance)


def _specials(elem_type: int, before: Array, after: Array, ref: Array, tolerance: Tolerance) -> Comparison:
    """With NaN or infinities somewhere.

    The class (finite, NaN, +Inf, -Inf) of after must be that of before or of the reference, where a reference beyond
    the range of the output's type counts as infinite. So finite turned into non-finite fails, and non-finite turned
    finite passes only if the reference is finite as well. Where both are finite and only the reference is not, they
    are held against each other.
    """
    ref = np.where(np.abs(ref) > largest(elem_type), np.copysign(np.inf, ref), ref)
    classes = [_classes(v) for v in (before, after, ref)]
    wrong_class = (classes[1] != classes[0]) & (classes[1] != classes[2])
    fin_before, fin_after, fin_ref = (c == 0 for c in classes)
    gap_before = np.where(fin_before & fin_ref, np.abs(before - ref), 0.0)
    gap_after = np.where(fin_after & fin_ref, np.abs(after - ref), 0.0)
    both = fin_before & fin_after & ~fin_ref
    gap_after = np.where(both, np.abs(after - before), gap_after)
    scale = float(np.max(np.where(fin_ref, np.abs(ref), np.where(both, np.abs(before), 0.0))))
    error_before = float(gap_before.max())
    bound = tolerance.bound(elem_type, error_before, scale)
    wrong = wrong_class | (gap_after > bound)
    if not wrong.any():
        index = tuple(int(i) for i in np.unravel_index(int(gap_after.argmax()), ref.shape))
        telling = bool((fin_before & fin_ref).any()) and (scale == 0 or bound < scale)
        return Comparison(True, error_before, float(gap_after.max()), bound, index, telling=telling)
    index = (
        _first(wrong_class)
        if wrong_class.any()
        else tuple(int(i) for i in np.unravel_index(int(gap_after.argmax()), ref.shape))
    )
    reason = f"{before[index]:.9g} became {after[index]:.9g}, in float64 {ref[index]:.9g}"
    error = float("inf") if wrong_class.any() else float(gap_after.max())
    return Comparison(False, error_before, error, bound, index, reason, wrong=wrong)


def _classes(values: Array) -> Array:
    """0 finite, 1 NaN, 2 +Inf, 3 -Inf."""
    out = np.array(np.isnan(values), np.int8)
    out[np.isposinf(values)] = 2
    out[np.isneginf(values)] = 3
    return out
