"""Runs two aligned models on feeds, judges where there is a common precision, and measures everything that was run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any

import onnx

from onnx_rewrite.pipeline.aligning import Aligned
from onnx_rewrite.verdict import Verification, not_verified
from onnx_rewrite.verify.dtypes import FLOATS, Array, Tolerance, type_name
from onnx_rewrite.verify.feeds import Feed, Source
from onnx_rewrite.verify.judge import Original, Pair, Refused, Subject, judge_feeds
from onnx_rewrite.verify.measures import Measuring, OutputMeasures
from onnx_rewrite.verify.metrics import refused
from onnx_rewrite.verify.native import Runner, common, mixed_bound
from onnx_rewrite.verify.reference import CannotEvaluate, Reference
from onnx_rewrite.verify.regimes import UNIT, WHOLE
from onnx_rewrite.verify.session import first_line

BINDINGS = 2
"""How many bindings of the symbolic dimensions are drawn."""

WAY_OUT = "--outputs names values before the operator that onnxruntime cannot run; those are compared without it"

Tell = Callable[[Feed, list[Any], list[Any], "list[Array] | None"], None]
Run = Callable[[Feed], object]


@dataclass(frozen=True)
class Feeds:
    """What is fed: the user's own arrays, or drawn ones.

    Args:
        model: A, under whose names and types is fed.
        own: The user's feeds, or None.
        shapes: Shapes by input name for drawn ones.
        seed: The source of randomness of drawn ones.
        wanted: How many are drawn; None: amplitude 1 and 1e-3 and small integers under one binding of the symbolic
            dimensions, amplitude 1 under a second.
    """

    model: onnx.ModelProto
    own: Sequence[Mapping[str, Array]] | None
    shapes: Mapping[str, Sequence[int]] | None
    seed: int
    wanted: int | None = None

    def obstacle(self) -> str | None:
        """Why nothing can be drawn, or None."""
        return Source(self.model, self.seed, self.shapes).obstacle if self.own is None else None

    def bindings(self, run: Run) -> tuple[list[dict[str, int]], str | None]:
        """The first bindings under which `run` does not raise, and why the first that failed did."""
        source = Source(self.model, self.seed, self.shapes)
        found: list[dict[str, int]] = []
        failure: str | None = None
        for binding in source.bindings():
            try:
                run(source.draw(UNIT, binding))
            except Exception as error:
                failure = failure or first_line(error)
                continue
            found.append(binding)
            if len(found) == BINDINGS:
                break
        return found, failure

    def draw(self, bindings: Sequence[dict[str, int]]) -> Iterator[Feed]:
        """The feeds, the same in every call; the bindings are for drawn ones."""
        if self.own is not None:
            yield from (Feed(dict(values), f"input {i}") for i, values in enumerate(self.own))
        elif bindings:
            plan = [(regime, bindings[0]) for regime in WHOLE] + [(UNIT, binding) for binding in bindings[1:]]
            yield from islice(self._rounds(plan), self.wanted or len(plan))

    def _rounds(self, plan: Sequence[tuple[Any, dict[str, int]]]) -> Iterator[Feed]:
        for turn in count():
            source = Source(self.model, self.seed + turn * 1_000_003, self.shapes)
            for entry in plan:
                feed = source.draw(*entry)
                yield replace(feed, regime=f"{feed.regime}, draw {turn + 1}") if turn else feed


class Observed(Pair):
    """A pair that shows what it runs."""

    tell: Tell | None = None
    _current: tuple[Feed, Original] | None = None

    def run_before(self, feed: Feed, *, keep: bool = False) -> Original:
        """As `Pair` has it."""
        original = super().run_before(feed, keep=keep)
        self._current = feed, original
        return original

    def run_after(self, values: Mapping[str, Array]) -> list[Array]:
        """As `Pair` has it."""
        after = super().run_after(values)
        if self.tell is not None and self._current is not None and self._current[0].values is values:
            feed, (before, reference) = self._current
            self.tell(feed, before, after, None if isinstance(reference, CannotEvaluate) else reference)
        return after


class Measurement:
    """Runs and measures two models.

    Args:
        aligned: The models.
        feeds: What is fed.
        metrics: Names of the measures to take.
        tolerance: What the judge accepts.
        step: Called after each feed.

    Attributes:
        bindings: The bindings that feeds are drawn under, once something ran.
        notes: What is to be known besides.
    """

    def __init__(
        self,
        aligned: Aligned,
        feeds: Feeds,
        metrics: tuple[str, ...],
        tolerance: Tolerance,
        step: Callable[[], None] = lambda: None,
    ) -> None:
        self.aligned, self.feeds, self.tolerance = aligned, feeds, tolerance
        self.bindings: list[dict[str, int]] = []
        self.notes: list[str] = []
        self._step = step
        self._seen: list[str] = []
        theirs = {o.name: o.type.tensor_type.elem_type for o in aligned.b.graph.output}
        self._types: list[tuple[int, int]] = []
        self._measuring: list[Measuring] = []
        for value in aligned.a.graph.output:
            own = value.type.tensor_type.elem_type
            kinds = own if own in FLOATS else 0, theirs[value.name] if theirs[value.name] in FLOATS else 0
            self._types.append((own, theirs[value.name]))
            name_b = aligned.names_b.get(value.name, value.name)
            self._measuring.append(Measuring(value.name, name_b, metrics, kinds))

    def judge(self) -> Verification:
        """The judge's verdict, against A in float64; what it runs is measured."""
        aligned = self.aligned
        subjects = Subject(aligned.a, base=aligned.folder_a), Subject(aligned.b, base=aligned.folder_b)
        try:
            pair = Observed(*subjects, self.tolerance, threads=0)
        except Refused as refusal:
            return refusal.verification
        failure = self._bind(lambda feed: pair.run_before(feed, keep=True))
        if failure is not None:
            return not_verified(failure)
        pair.tell = self._tell
        if pair.promoted:
            self.notes.append("float16 and bfloat16 ran as float32: onnxruntime lacks kernels for them here")
        return judge_feeds(pair, self.feeds.draw(self.bindings))

    def measure(self) -> str | None:
        """Runs the feeds that the judge did not come to, each model in its own types; returns why it could not."""
        aligned = self.aligned
        runners: list[Runner] = []
        for model, folder, who in ((aligned.a, aligned.folder_a, "A"), (aligned.b, aligned.folder_b, "B")):
            try:
                runners.append(Runner(Subject(model, base=folder)))
            except Exception as error:
                self.notes.append(WAY_OUT)
                return f"onnxruntime cannot open {who}: {first_line(error)}"
        for runner, who in zip(runners, "AB", strict=True):
            if runner.promoted:
                self.notes.append(
                    f"{who} ran in float32 in place of float16 or bfloat16: its own rounding is not shown"
                )
            if runner.evaluated:
                self.notes.append(
                    f"{who} was evaluated in float64 by numpy: onnxruntime lacks some of its double kernels"
                )
        first, second = runners
        order = [second.outputs.index(name) for name in first.outputs]
        failure = self._bind(lambda feed: first(common(aligned.a, aligned.b, feed.values)))
        if failure is not None:
            return failure
        reference: Reference | None = None
        try:
            reference = Reference(aligned.a, str(aligned.folder_a or ""))
        except Exception as error:
            self.notes.append(f"there is no float64 reference: {first_line(error)}")
        for feed in self.feeds.draw(self.bindings):
            if feed.regime in self._seen:
                continue
            values = common(aligned.a, aligned.b, feed.values)
            try:
                exact = reference(values) if reference is not None else None
            except CannotEvaluate as error:
                exact, reference = None, None
                self.notes.append(f"there is no float64 reference: {error}")
            who = "A"
            try:
                before = first(values)
                who = "B"
                after = second(values)
            except Exception as error:
                return f"onnxruntime cannot run {who} (feed: {feed.regime}): {first_line(error)}"
            self._tell(feed, before, [after[k] for k in order], exact)
        return None

    def _bind(self, run: Run) -> str | None:
        if self.feeds.own is not None or self.bindings:
            return None
        obstacle = self.feeds.obstacle()
        if obstacle is not None:
            return f"{obstacle}; --shape or --inputs say what to feed"
        self.bindings, failure = self.feeds.bindings(run)
        if self.bindings:
            return None
        return f"A ran on no feed: {failure}; --inputs gives it feeds that it takes"

    def _tell(self, feed: Feed, before: list[Any], after: list[Any], reference: list[Array] | None) -> None:
        self._seen.append(feed.regime)
        for k, measuring in enumerate(self._measuring):
            exact = None if reference is None else reference[k]
            own, other = self._types[k]
            names = (type_name(own) if own else "", type_name(other) if other else "")
            found = measuring.add(feed.regime, before[k], after[k], exact, names)
            if found is None:
                continue
            error_a, _, scale = found
            kind = own or onnx.helper.np_dtype_to_tensor_dtype(before[k].dtype)
            if kind in FLOATS:
                theirs = other if other in FLOATS else kind
                measuring.limit(mixed_bound(self.tolerance, kind, theirs, error_a, scale))
            else:
                measuring.limit(0.0)
        self._step()

    @property
    def complete(self) -> bool:
        """Whether all feeds were measured."""
        own = self.feeds.own
        drawn = self.feeds.wanted or len(WHOLE) + len(self.bindings) - 1
        return self.count >= (drawn if own is None else len(own))

    @property
    def count(self) -> int:
        """How many feeds were measured."""
        return len(self._seen)

    def outputs(self) -> tuple[OutputMeasures, ...]:
        """The measures of every output, as far as something ran."""
        return tuple(m.result() for m in self._measuring) if self._seen else ()


def by_thresholds(outputs: Sequence[OutputMeasures], thresholds: Mapping[str, float], feeds: int) -> Verification:
    """The verdict by the user's thresholds: every output must keep to every one of them."""
    worst = max(outputs, key=lambda o: o.metrics.get("abs", 0.0))
    reason: str | None = None
    for output in outputs:
        found = output.obstacle or refused(output.metrics, thresholds)
        if found is not None:
            worst, reason = output, f"output {output.name!r}: {found}"
            break
    verdict = "different" if reason else "equivalent"
    blind = next((o for o in outputs if o.elements and not o.finite), None)
    if reason is None and blind is not None:
        worst, verdict, reason = blind, "inconclusive", f"output {blind.name!r} is never finite"
    return replace(_about(worst), verdict=verdict, feeds=feeds, reason=reason)


def only_measured(outputs: Sequence[OutputMeasures], mixed: str, feeds: int) -> Verification:
    """What is said of two models without a common precision: "different" where B breaks down, else "not verified"."""
    for output in outputs:
        if output.obstacle:
            return replace(
                _about(output), verdict="different", feeds=feeds, reason=f"output {output.name!r} {output.obstacle}"
            )
        if output.error_b == float("inf") and output.error_a != float("inf"):
            reason = f"output {output.name!r} is not finite in B where it is in A"
            return replace(_about(output), verdict="different", feeds=feeds, reason=reason)
    known = [o for o in outputs if o.error_b is not None and o.bound]
    worst = max(known, key=lambda o: (o.error_b or 0.0) / (o.bound or 1.0), default=outputs[0])
    reason = f"{mixed}: they have no common precision to be judged by, so this is only measured"
    if worst.bound and worst.error_b is not None:
        within = "within" if worst.error_b <= worst.bound else "beyond"
        reason += (
            f"; output {worst.name!r} of B is {worst.error_b:.2g} off, {within} the {worst.bound:.2g} that A's "
            "rounding would make in the coarser type"
        )
    return replace(_about(worst), verdict="not verified", feeds=feeds, reason=f"{reason}; --threshold gives a verdict")


def _about(output: OutputMeasures) -> Verification:
    worst = output.worst
    return Verification(
        "not verified",
        output.error_a or 0.0,
        output.error_b or 0.0,
        output.bound or 0.0,
        output=output.name,
        index=worst.index if worst else None,
        regime=worst.feed if worst else None,
    )
