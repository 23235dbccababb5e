"""The judge of one replacement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain

import onnx

from onnx_rewrite.verdict import Verification, not_verified
from onnx_rewrite.verify.captured import LABEL, Captured
from onnx_rewrite.verify.dtypes import Array, Tolerance
from onnx_rewrite.verify.feeds import MOST_ELEMENTS, Feed, Source
from onnx_rewrite.verify.fingerprint import exact, structural
from onnx_rewrite.verify.judge import IN_FLOAT64, Pair, Refused, Subject, judge_feeds
from onnx_rewrite.verify.loosening import loosened
from onnx_rewrite.verify.reference import CannotEvaluate
from onnx_rewrite.verify.regimes import INTEGERS, LOCAL, UNIT, Regime
from onnx_rewrite.verify.session import Session, Unsupported, first_line

DRAWN_AGAIN = ", draw "
MOST_EMPTY = 2

_SPARED = {"special": "no NaN and no infinities were fed", "empty": "no empty tensors were fed"}


class LocalJudge:
    """Judges cut-out subgraphs; remembers its verdicts.

    The replaced subgraph and the replacement are models with the same names of inputs and outputs. They run in
    onnxruntime with optimisations off on about a dozen feeds: every regime under one binding of the symbolic
    dimensions, the first ones again under others (1 everywhere, other primes). Bindings that the original refuses are
    passed over.

    Dimensions that may be 0 are fed so too, where the original runs on it.

    Args:
        seed: The only source of randomness: equal seeds give equal feeds and verdicts.
        tolerance: How far apart results may be.
        feeds: So many feeds per check: the most telling ones of the plan, or, beyond it, its regimes drawn again.
            None: the plan.
        captured: Values from the user's own inputs, which every site is judged on too.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        tolerance: Tolerance | None = None,
        feeds: int | None = None,
        captured: Captured | None = None,
    ) -> None:
        self.seed, self.tolerance, self.feeds = seed, tolerance or Tolerance(), feeds
        self.captured = captured
        self._exact: dict[bytes, Verification] = {}
        self._structural: dict[bytes, tuple[Verification, int]] = {}
        self._opened: dict[bytes, str | None] = {}
        self.judged = 0
        """How many pairs were run; the others were known already."""

    def sparing(self, before: onnx.ModelProto, after: onnx.ModelProto, unlike: Mapping[str, str]) -> Verification:
        """The verdict on a replacement that may differ on some inputs by what it is; an "equivalent" says so.

        Args:
            before: As for a call.
            after: As for a call.
            unlike: "special" (NaN and infinities are not fed), "empty" (nor tensors without elements), with the
                pass's reasons.
        """
        verdict = self(before, after, frozenset(unlike))
        if not verdict.equivalent:
            return verdict
        return replace(verdict, reason="; ".join(f"{_SPARED[kind]}: {why}" for kind, why in unlike.items()))

    def __call__(
        self, before: onnx.ModelProto, after: onnx.ModelProto, spared: frozenset[str] = frozenset()
    ) -> Verification:
        """The verdict on replacing ``before`` by ``after``. Identical pairs are judged once, whatever their names; on
        captured values each of them is.
        """
        verdict = self._on_drawn(before, after, spared)
        feeds = [] if self.captured is None or not verdict.equivalent else self.captured.feeds(before)
        if not feeds:
            return verdict
        try:
            pair = Pair(Subject(before), Subject(after), self.tolerance)
        except Refused as refusal:
            return refusal.verification
        own = judge_feeds(pair, feeds)
        if own.verdict == "not verified":  # the original refuses what it was fed inside the whole
            return verdict
        if own.equivalent and own.error_after * (verdict.bound or 1.0) <= verdict.error_after * (own.bound or 1.0):
            return replace(verdict, feeds=verdict.feeds + own.feeds)
        return replace(own, feeds=verdict.feeds + own.feeds)

    def opens(self, model: onnx.ModelProto) -> str | None:
        """What onnxruntime says if it has no kernel for a model of a few nodes; None if it opens it."""
        key = model.SerializeToString(deterministic=True)
        if key not in self._opened:
            try:
                Session(model)
            except Unsupported as error:
                self._opened[key] = str(error)
            except Exception:  # not for lack of a kernel: that is not what is asked
                self._opened[key] = None
            else:
                self._opened[key] = None
        return self._opened[key]

    @property
    def by_place(self) -> bool:
        """Whether equal sites may get different verdicts: each is fed what flows there."""
        return self.captured is not None

    def _on_drawn(self, before: onnx.ModelProto, after: onnx.ModelProto, spared: frozenset[str]) -> Verification:
        key = exact(before, after) + "+".join(sorted(spared)).encode()
        known = self._exact.get(key)
        if known is not None:
            return known
        shape = structural(before, after)
        shape = None if shape is None else shape + "+".join(sorted(spared)).encode()
        alike = self._structural.get(shape) if shape is not None else None
        if alike is not None:
            verdict, position = alike
            verdict = replace(verdict, output=before.graph.output[position].name)
        else:
            verdict = self._judge(before, after, spared)
            names = [o.name for o in before.graph.output]
            # Reasons contain names, so only verdicts without one are passed on to sites that look alike.
            if shape is not None and verdict.reason is None and verdict.output in names:
                self._structural[shape] = verdict, names.index(verdict.output)
        self._exact[key] = verdict
        return verdict

    def feed(self, before: onnx.ModelProto, regime: str) -> dict[str, Array] | None:
        """The feed that a verdict names in `Verification.regime`, drawn again (for a reproduction); None if it is no
        such name.

        Args:
            before: The model that was judged as the original.
            regime: As the verdict has it, sizes of symbolic dimensions included.
        """
        if regime.startswith(LABEL) and self.captured is not None:
            return next((dict(f.values) for f in self.captured.feeds(before) if regime == f.regime), None)
        regime = regime.partition(IN_FLOAT64)[0]
        regime, _, turn = regime.partition(DRAWN_AGAIN)
        source = Source(before, self.seed + int(turn or 0))
        if source.obstacle:
            return None
        bindings = [b for binding in source.bindings() for b in (binding, *source.empty_bindings(binding))]
        for binding in bindings:
            if source.label(LOCAL[0], binding).removeprefix(LOCAL[0].name) not in regime:
                continue
            for kind in LOCAL:
                if source.label(kind, binding) == regime:
                    return source.draw(kind, binding).values
        return None

    def _judge(self, before: onnx.ModelProto, after: onnx.ModelProto, spared: frozenset[str]) -> Verification:
        self.judged += 1
        loose = loosened(before, after)
        if loose is not None:
            verdict = self._judge_as_is(*loose, spared)
            if verdict.equivalent:
                return verdict
            # What stands is found at the sizes of the model, where it can be reproduced.
        return self._judge_as_is(before, after, spared)

    def _judge_as_is(self, before: onnx.ModelProto, after: onnx.ModelProto, spared: frozenset[str]) -> Verification:
        source = Source(before, self.seed)
        if source.obstacle:
            return not_verified(source.obstacle)
        try:
            pair = Pair(Subject(before), Subject(after), self.tolerance)
        except Refused as refusal:
            return refusal.verification
        bindings, failure = bind(pair, source, 3)
        if not bindings:
            return not_verified(f"the original ran on no feed: {failure}")
        plan = [(regime, bindings[0]) for regime in LOCAL if "special" not in spared or not regime.is_special]
        plan += [(regime, binding) for binding in bindings[1:] for regime in (UNIT, INTEGERS)]
        if "empty" not in spared:
            plan += [(UNIT, binding) for binding in empty_bindings(pair, source, bindings[0])]
        feeds = (source.draw(*entry) for entry in plan[: self.feeds])
        return judge_feeds(pair, chain(feeds, self._further(before, plan)))

    def _further(self, before: onnx.ModelProto, plan: list[tuple[Regime, dict[str, int]]]) -> Iterator[Feed]:
        """The plan's feeds with other numbers, turn after turn, as many as are asked for beyond the plan."""
        for number in range(len(plan), self.feeds or 0):
            turn, place = divmod(number, len(plan))
            feed = Source(before, self.seed + turn).draw(*plan[place])
            yield replace(feed, regime=f"{feed.regime}{DRAWN_AGAIN}{turn}")


def empty_bindings(pair: Pair, source: Source, binding: dict[str, int]) -> list[dict[str, int]]:
    """Bindings with a dimension of 0 under which the original runs; few models are meant for more than one."""
    found: list[dict[str, int]] = []
    for empty in source.empty_bindings(binding):
        try:
            _, reference = pair.run_before(source.draw(UNIT, empty), keep=True)
        except Exception:  # not legal for this graph
            continue
        if isinstance(reference, CannotEvaluate):
            continue
        found.append(empty)
        if len(found) == MOST_EMPTY:
            break
    return found


def bind(pair: Pair, source: Source, wanted: int) -> tuple[list[dict[str, int]], str | None]:
    """The first bindings under which the original runs, and why the first that failed did."""
    found: list[dict[str, int]] = []
    failure: str | None = None
    body = pair.reference.body
    for binding in source.bindings():
        if found and body.most is None:  # what is squared on the way must not make a site cost minutes
            body.most = max(MOST_ELEMENTS, 4 * body.largest)
        try:
            pair.run_before(source.draw(UNIT, binding), keep=True)
        except Exception as error:
            failure = failure or first_line(error)
            continue
        found.append(binding)
        if len(found) == wanted:
            break
    body.most = None
    return found, failure
