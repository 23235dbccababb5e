"""Draws examples from a tape: instances, embedded ones, near misses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from onnx_rewrite.testing.containers import CONTAINERS, COPIES, build
from onnx_rewrite.testing.draft import Draft, Unfit, Value
from onnx_rewrite.testing.emitting import Emitter
from onnx_rewrite.testing.example import Example
from onnx_rewrite.testing.mutations import MUTATIONS, Mutation
from onnx_rewrite.testing.subject import Subject
from onnx_rewrite.testing.surroundings import attach, surroundings
from onnx_rewrite.testing.tape import LENGTH, Tape
from onnx_rewrite.testing.wants import STYLES

NEWEST = onnx.defs.onnx_opset_version()
OPSETS = tuple(
    opset if opset <= NEWEST else 17
    for opset in (
        17,
        18,
        13,
        21,
        12,
        19,
        11,
        20,
        15,
        17,
        18,
        14,
        21,
        9,
        19,
        16,
        20,
        10,
        8,
        7,
        22,
        23,
        24,
        25,
        26,
        27,
        28,
        6,
    )
)
"""The opsets that are drawn, the usual ones twice; those that cannot express the pattern are passed over.

Opset 6 with the operators that it shares with later ones: `inference.NO_KERNEL_BELOW_7` has those of which onnxruntime
1.32.0 has no kernel of opset 6, above all arithmetic, which broadcasts there by an attribute. Below 6 it has none of 43
of 94 operators (Relu, Clip, Max, Min, Sqrt, Neg ... among them), so that nothing could be compared.
"""

DTYPES = (1, 1, 1, 1, 1, 1, 11, 10, 1, 6)
"""Element types of the data that are drawn: mostly float32, then float64, float16, int32."""

VARIANTS = 14
"""How many variants of one draw are tried until one fires."""

TRIALS, ENOUGH = 16, 4
"""So many of so many draws of an element type must go together; else it is not drawn."""


def dtypes_of(subject: Subject) -> tuple[int, ...]:
    """Those of `DTYPES` of which instances can be drawn: a pattern with a root has none of integers."""
    if not subject.dtypes:
        possible = {dtype for dtype in set(DTYPES) if _drawable(subject, dtype)}
        subject.dtypes = tuple(dtype for dtype in DTYPES if dtype in possible) or DTYPES
    return subject.dtypes


def _drawable(subject: Subject, dtype: int) -> bool:
    rng, left = np.random.default_rng(dtype), ENOUGH
    for _ in range(TRIALS):
        tape = Tape(rng.bytes(LENGTH))
        try:
            one_instance(subject, Draft(tape.one(OPSETS)), tape, dtype, tape.one(STYLES))
        except Unfit:
            continue
        left -= 1
        if not left:
            return True
    return False


def fresh(subject: Subject, tape: Tape, variant: int) -> tuple[Draft, int, str]:
    """An empty draft, the element type of its data, and a layout of constants."""
    style = STYLES[(tape.below(len(STYLES)) + variant) % len(STYLES)]
    dtype = tape.one(dtypes_of(subject))
    dtype = 1 if tape.tame and dtype == 6 else dtype
    opset = tape.one(OPSETS)
    draft = Draft(opset)
    if tape.rarely(12):
        draft.symbolic = 1 + tape.below(2)
    draft.inferred = tape.chance(40)
    return draft, dtype, style


def one_instance(subject: Subject, draft: Draft, tape: Tape, dtype: int, style: str, part: int = 0) -> list[Value]:
    """Adds one instance of one of the rules; returns what it gives."""
    traced = subject.traced[tape.below(len(subject.traced))]
    return Emitter(draft, tape, traced, part=part, dtype=dtype, style=style).outputs()


def instance(subject: Subject, tape: Tape, variant: int) -> Example:
    """One instance, alone in its graph.

    Raises:
        Unfit: What was chosen does not go together.
    """
    draft, dtype, style = fresh(subject, tape, variant)
    draft.outputs = one_instance(subject, draft, tape, dtype, style)
    if tape.chance(15):
        draft.container = "If with constants outside"
    draft.elsewhere = tape.one(CONTAINERS[1:])
    return finished(subject, draft, 1)


def embedded(subject: Subject, tape: Tape, variant: int) -> Example:
    """Instances inside a random graph.

    Raises:
        Unfit: What was chosen does not go together.
    """
    draft, dtype, style = fresh(subject, tape, variant)
    count = 1 + tape.more(40, 2)
    pool: list[Value] = []
    ends: list[Value] = []
    for part in range(count):
        pool += surroundings(draft, tape, pool, subject.operators)
        traced = subject.traced[tape.below(len(subject.traced))]
        made = Emitter(draft, tape, traced, part=part, dtype=dtype, style=style, pool=pool, amid=True).outputs()
        pool += made
        ends += made
        if tape.chance(25):  # what comes next reads an interior value of this one
            pool += [v for v in draft.interior() if v.dtype == dtype]
    attach(draft, tape, ends, subject.operators)
    if tape.chance(20):
        draft.reorder(np.random.default_rng(tape.below(256)))
    draft.container = tape.one(("main", "main", *CONTAINERS))
    draft.story.append(f"{count} instance{'s' if count > 1 else ''}")
    return finished(subject, draft, 0)


def missed(subject: Subject, tape: Tape, variant: int, mutations: dict[str, Mutation] | None = None) -> Example:
    """An instance with one thing changed.

    Raises:
        Unfit: What was chosen does not go together, or there is nothing to change in such a way.
    """
    choices = list((MUTATIONS if mutations is None else mutations).items())
    if not choices:
        raise Unfit("no mutation is left")

    def again() -> tuple[Draft, int]:
        """The instance, and which mutation is tried first."""
        tape.rewind()
        draft, dtype, style = fresh(subject, tape, variant)
        at = tape.below(len(choices))
        draft.outputs = one_instance(subject, draft, tape, dtype, style)
        return draft, at

    draft, at = again()
    if variant < VARIANTS - 2:
        whole = finished(subject, draft, 1)
        if not whole.fires:
            raise Unfit("the instance itself does not fire")
        if whole.raises:
            return whole
    # Some fit no graph of this pattern, or make it illegal: the next ones are tried in their order.
    for step in range(min(len(choices), 6)):
        name, mutate = choices[(at + step) % len(choices)]
        try:
            if not mutate(draft, tape):
                continue
            draft.story.append(name)
            draft.infer_again()
            return finished(subject, draft, 0)
        except Unfit:
            draft, _ = again()
    raise Unfit("nothing to change")


def finished(subject: Subject, draft: Draft, instances: int) -> Example:
    """The example of a draft."""
    draft.outputs = list({id(v): v for v in draft.outputs}.values())
    if not any(v.given for v in draft.read()):
        raise Unfit("everything is constant")
    model = build(draft)
    story = [*draft.story, *([f"in {draft.container}"] if draft.container != "main" else [])]
    count = instances * COPIES.get(draft.container, 1)
    return Example(model, subject, tuple(story), count, draft, draft.container, draft.elsewhere)


def varied(data: bytes, draw: Callable[[Tape, int], Example], good: Callable[[Example], bool]) -> Example | None:
    """The first variant of a draw that is good, else the first that goes together, else None."""
    kept: Example | None = None
    for variant in range(VARIANTS):
        try:
            found = draw(Tape(data, variant), variant)
        except Unfit:
            continue
        kept = kept or found
        if good(found):
            return found
    return kept
