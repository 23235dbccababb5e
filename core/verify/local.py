"""The judge of one replacement."""

from __future__ import annotations

from dataclasses import replace

import onnx

from onnx_rewrite.verdict import Verification, not_verified
from onnx_rewrite.verify.dtypes import Array, Tolerance
from onnx_rewrite.verify.feeds import Source
from onnx_rewrite.verify.fingerprint import exact, structural
from onnx_rewrite.verify.judge import Pair, Refused, Subject, judge_feeds
from onnx_rewrite.verify.regimes import INTEGERS, LOCAL, UNIT
from onnx_rewrite.verify.session import first_line


class LocalJudge:
    """Judges cut-out subgraphs; remembers its verdicts.

    The replaced subgraph and the replacement are models with the same names of inputs and outputs. They run in
    onnxruntime with optimisations off on about a dozen feeds: every regime under one binding of the symbolic
    dimensions, the first ones again under others (1 everywhere, other primes). Bindings that the original refuses are
    passed over.

    Args:
        seed: The only source of randomness: equal seeds give equal feeds and verdicts.
        tolerance: How far apart results may be.
        feeds: At most this many feeds per check; None runs all.
    """

    def __init__(self, *, seed: int = 0, tolerance: Tolerance | None = None, feeds: int | None = None) -> None:
        self.seed, self.tolerance, self.feeds = seed, tolerance or Tolerance(), feeds
        self._exact: dict[bytes, Verification] = {}
        self._structural: dict[bytes, tuple[Verification, int]] = {}
        self.judged = 0
        """How many pairs were run; the others were known already."""

    def __call__(self, before: onnx.ModelProto, after: onnx.ModelProto) -> Verification:
        """The verdict on replacing ``before`` by ``after``. Identical pairs are judged once, whatever their names."""
        key = exact(before, after)
        known = self._exact.get(key)
        if known is not None:
            return known
        shape = structural(before, after)
        alike = self._structural.get(shape) if shape is not None else None
        if alike is not None:
            verdict, position = alike
            verdict = replace(verdict, output=before.graph.output[position].name)
        else:
            verdict = self._judge(before, after)
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
        source = Source(before, self.seed)
        if source.obstacle:
            return None
        for binding in source.bindings():
            if source.label(LOCAL[0], binding).removeprefix(LOCAL[0].name) not in regime:
                continue
            for kind in LOCAL:
                if source.label(kind, binding) == regime:
                    return source.draw(kind, binding).values
        return None

    def _judge(self, before: onnx.ModelProto, after: onnx.ModelProto) -> Verification:
        self.judged += 1
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
        plan = [(regime, bindings[0]) for regime in LOCAL]
        plan += [(regime, binding) for binding in bindings[1:] for regime in (UNIT, INTEGERS)]
        return judge_feeds(pair, (source.draw(*entry) for entry in plan[: self.feeds]))


def bind(pair: Pair, source: Source, wanted: int) -> tuple[list[dict[str, int]], str | None]:
    """The first bindings under which the original runs, and why the first that failed did."""
    found: list[dict[str, int]] = []
    failure: str | None = None
    for binding in source.bindings():
        try:
            pair.run_before(source.draw(UNIT, binding), keep=True)
        except Exception as error:
            failure = failure or first_line(error)
            continue
        found.append(binding)
        if len(found) == wanted:
            break
    return found, failure
