"""The garbage collector, where hundreds of thousands of objects are made that all stay."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Generator

# How many more objects are made than freed before the collector looks at them, while a model is edited.
EASED_THRESHOLD = 50_000

_easing = 0
"""How many uses of `collector_eased` are under way."""


@contextlib.contextmanager
def collector_paused() -> Generator[None, None, None]:
    """Pauses the garbage collector.

    Reading and writing make hundreds of thousands of objects that all stay; looking for garbage among them takes a
    third of the time. Afterwards they count as old, so that the collector does not come for them at once.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            if not _frozen():
                gc.freeze()
                gc.unfreeze()
            gc.enable()


@contextlib.contextmanager
def collector_eased() -> Generator[None, None, None]:
    """Keeps the garbage collector away from everything there is, and lets it look at what is new less often.

    For edits: they leave garbage, but little beside the model, which the collector would look through again and again.
    """
    global _easing
    if not gc.isenabled():
        # Whoever keeps it off has no use for this, and garbage would be moved to where it is seldom looked for.
        yield
        return
    thresholds, frozen = gc.get_threshold(), _frozen()
    if thresholds[0]:
        gc.set_threshold(max(thresholds[0], EASED_THRESHOLD), *thresholds[1:])
    if not frozen:
        gc.freeze()
    _easing += 1
    try:
        yield
    finally:
        _easing -= 1
        if not frozen:
            gc.unfreeze()
        gc.set_threshold(*thresholds)


def _frozen() -> bool:
    """Whether objects are frozen: counting them takes 5 ms for what `collector_eased` freezes."""
    return _easing > 0 or gc.get_freeze_count() > 0
