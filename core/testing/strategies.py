"""Strategies for hypothesis: models, and instances of patterns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from hypothesis import event, reject
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from onnx_rewrite.testing.drawing import embedded, instance, missed, varied
from onnx_rewrite.testing.example import Example
from onnx_rewrite.testing.mutations import MUTATIONS
from onnx_rewrite.testing.subject import Subject, subject_of
from onnx_rewrite.testing.tape import LENGTH, Tape

_BYTES = st.binary(min_size=LENGTH, max_size=LENGTH)


MOST_RECENT = 256
"""So many examples are kept: with a seed, the tests of one suite draw the same ones."""

_recent: OrderedDict[tuple[Hashable, ...], Example | None] = OrderedDict()


def _examples(
    draw_one: Callable[[Tape, int], Example], good: Callable[[Example], bool], what: str, *key: Hashable
) -> SearchStrategy[Example]:
    def drawn(data: bytes) -> Example:
        asked = (what, *key, data)
        if asked in _recent:
            _recent.move_to_end(asked)
        else:
            _recent[asked] = varied(data, draw_one, good)
            if len(_recent) > MOST_RECENT:
                _recent.popitem(last=False)
        found = _recent[asked]
        if found is None:
            reject()
        event(f"{what}: {'fires' if found.fires else 'refused' if found.outcome.sites else 'left alone'}")
        return found

    return _BYTES.map(drawn)


def instances(pattern: Any) -> SearchStrategy[Example]:
    """A random instance of a pattern, alone in its graph.

    Operands are commuted, defaults are given or left out, axes count from either end, constants have every spelling
    (initializer, Constant node, Identity of either, captured from an outer graph), at every opset that can express
    it. Most of them fire; the others the pass refuses by its own `check`.

    Args:
        pattern: The name of a pass, or a class or an instance of `Pass`, `RuleSet` or `Rule`.

    Examples from this strategy shrink towards few nodes, small shapes, and initializers.
    """
    subject = subject_of(pattern)
    return _examples(
        lambda tape, variant: instance(subject, tape, variant),
        lambda e: (
            e.fires or not (e.outcome.sites or e.outcome.settled)
        ),  # one that is passed over is what a property looks for
        "instance",
        subject,
    )


def embed(pattern: Any) -> SearchStrategy[Example]:
    """Instances of a pattern inside a random graph.

    One to three of them, which may feed each other and share inputs; interior values that others need or that are
    outputs; in the main graph, in bodies of If and Loop, and in functions.
    """
    subject = subject_of(pattern)
    return _examples(lambda tape, variant: embedded(subject, tape, variant), lambda e: True, "embedded", subject)


def near_miss(pattern: Any, *, without: tuple[str, ...] = (), only: tuple[str, ...] = ()) -> SearchStrategy[Example]:
    """An instance in which one thing was changed: `Example.story` says which.

    Args:
        pattern: As for `instances`.
        without: Names of mutations that are not drawn.
        only: If given, only these are.
    """
    subject = subject_of(pattern)
    chosen = {n: m for n, m in MUTATIONS.items() if n not in without and (not only or n in only)}
    names = tuple(chosen.items())
    return _examples(
        lambda tape, variant: missed(subject, tape, variant, chosen), lambda e: True, "near miss", subject, names
    )


__all__ = ["embed", "instances", "near_miss", "Subject"]
