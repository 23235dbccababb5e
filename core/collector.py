"""The garbage collector, where hundreds of thousands of objects are made that all stay."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Generator

# How many more objects are made than freed before the collector looks at them, while a model is edited.
EASED_THRESHOLD = 50_000


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
            if not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()
            gc.enable()


@contextlib.contextmanager
def collector_eased() -> Generator[None, None, None]:
    """Keeps the garbage collector away from everything there is, and lets it look at what is new less often.

    For edits: they leave garbage, but little beside the model, which the collector would look through again and again.
    """
    thresholds, frozen = gc.get_threshold(), gc.get_freeze_count()
    if thresholds[0]:
        gc.set_threshold(max(thresholds[0], EASED_THRESHOLD), *thresholds[1:])
    if not frozen:
        gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()
        gc.set_threshold(*thresholds)
