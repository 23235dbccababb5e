"""The judge: a pair of models, run feed by feed, against the original in float64."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnx_rewrite.rewriter.standing_in import resolved
from onnx_rewrite.verdict import Verdict, Verification, not_verified
from onnx_rewrite.verify.bindings import fed_inputs
from onnx_rewrite.verify.compare import Comparison, compare
from onnx_rewrite.verify.defects import defect, overflows_in_half
from onnx_rewrite.verify.dtypes import FLOATS, HALVES, Array, Tolerance, eps, widen
from onnx_rewrite.verify.feeds import Feed
from onnx_rewrite.verify.kernels import IllegalFeed
from onnx_rewrite.verify.promote import has_halves, promote
from onnx_rewrite.verify.reference import DISCRETE, CannotEvaluate, Jitter, Reference
from onnx_rewrite.verify.regimes import generator
from onnx_rewrite.verify.session import Session, Unsupported, first_line, limits, obstacle

_JITTERS = 6
_NUDGES = 3

IN_FLOAT64 = ", replacement in float64: "
"""Before the name of a defect of onnxruntime, in the name of a feed."""

# Of several feeds' verdicts the one with the highest rank counts.
_RANK: dict[Verdict, int] = {"equivalent": 0, "inconclusive": 1, "not verified": 2, "different": 3}


@dataclass(frozen=True)
class Subject:
    """One of the two models.

    Attributes:
        proto: The model, possibly without its external data.
        path: Where it was read from, if it was; onnxruntime opens it there.
        base: The folder that holds the external data of a model in memory.
    """

    proto: onnx.ModelProto
    path: Path | None = None
    base: Path | None = None

    @property
    def folder(self) -> str:
        """Where external data lies."""
        folder = self.base if self.path is None else self.path.parent
        return "" if folder is None else str(folder)

    def open(self, threads: int) -> Session:
        """A session; external data is found."""
        if self.path is None or self.proto.ir_version > limits()[1] or resolved(self.proto) is not self.proto:
            return Session(self.proto, threads=threads, folder=self.folder or None)
        # The opset and custom operators are looked at first: onnxruntime's own words do not name them.
        reason = obstacle(self.proto)
        if reason:
            raise Unsupported(reason)
        return Session(self.path, threads=threads)

    def promoted(self) -> Subject:
        """The model with fp16 and bf16 as fp32, its external data loaded."""
        return Subject(promote(self.proto, self.folder), None) if not self._external() else self._loaded().promoted()

    def _external(self) -> bool:
        return any(t.data_location == onnx.TensorProto.EXTERNAL for t in self.proto.graph.initializer)

    def _loaded(self) -> Subject:
        if self.path is not None:
            return Subject(onnx.load(self.path), None)
        model = onnx.ModelProto()
        model.CopyFrom(self.proto)
        onnx.load_external_data_for_model(model, self.folder)
        return Subject(model, None)


class Refused(Exception):
    """The pair cannot be judged by running it; carries the verdict."""

    def __init__(self, verification: Verification) -> None:
        super().__init__(verification.reason)
        self.verification = verification


Original = tuple[list[Array], "list[Array] | CannotEvaluate"]
"""What the original gave for a feed, in onnxruntime and in float64."""


@dataclass
class Pair:
    """Two models with the same interface, ready to run, and the original's reference.

    fp16 and bf16 run natively where onnxruntime has kernels for both models; otherwise both are promoted to fp32, and
    the bound still uses the eps of the original type.
    """

    before: Subject
    after: Subject
    tolerance: Tolerance
    threads: int = 1
    promoted: bool = False
    types: list[int] = field(default_factory=list[int])
    _exact_after: Reference | None = None
    _known: dict[str, Original] = field(default_factory=dict[str, "Original"])

    def __post_init__(self) -> None:
        graph = self.before.proto.graph
        self.names = [o.name for o in graph.output]
        self.types = [o.type.tensor_type.elem_type for o in graph.output]
        self._interface()
        if has_halves(self.before.proto) or has_halves(self.after.proto):
            self.promoted = overflows_in_half(self.before.proto) or overflows_in_half(self.after.proto)
            try:
                if not self.promoted:
                    self._open(self.before, self.after)
            except (Refused, Unsupported):
                self.promoted = True
            if self.promoted:
                self._open_or_refuse(self.before.promoted(), self.after.promoted())
        else:
            self._open_or_refuse(self.before, self.after)
        try:
            self.reference = Reference(self.before.proto, self.before.folder)
        except Exception as error:
            raise Refused(not_verified(f"the original has no evaluation in float64: {first_line(error)}")) from error
        coarse = {t for t in (*self.types, *(i.elem_type for i in fed_inputs(self.before.proto))) if t in FLOATS}
        # onnxruntime's CPU provider computes fp16 in fp32 and drops pairs of casts, so it would not show the loss.
        self.narrows = has_halves(self.after.proto) and not has_halves(self.before.proto)
        self._noise = self.tolerance.floor * max((eps(t) for t in coarse), default=2.0**-23)
        # Of which type the results on the way are is told only where all are of one.
        self.uniform = len(coarse) == 1 and not any(n.op_type == "Cast" for n in self.before.proto.graph.node)
        self.jumps = _has_discrete(self.before.proto)
        self.quantizes = _quantizes(self.before.proto)

    def _interface(self) -> None:
        after = self.after.proto.graph
        theirs = {o.name: o.type.tensor_type.elem_type for o in after.output}
        for name, kind in zip(self.names, self.types, strict=True):
            if name not in theirs:
                raise Refused(Verification("different", reason=f"output {name!r} is gone", output=name))
            if kind and theirs[name] and kind != theirs[name]:
                was, now = (onnx.TensorProto.DataType.Name(k).lower() for k in (kind, theirs[name]))
                raise Refused(
                    Verification("different", reason=f"output {name!r}: dtype {was} became {now}", output=name)
                )
        extra = [name for name in theirs if name not in self.names]
        if extra:
            raise Refused(Verification("different", reason=f"output {extra[0]!r} is new", output=extra[0]))
        known = {i.name for i in self.before.proto.graph.input}
        new = [i.name for i in fed_inputs(self.after.proto) if i.name not in known]
        if new:
            raise Refused(Verification("different", reason=f"input {new[0]!r} is new"))

    def _open_or_refuse(self, before: Subject, after: Subject) -> None:
        try:
            self._open(before, after)
        except Unsupported as error:
            raise Refused(not_verified(str(error))) from error

    def _open(self, before: Subject, after: Subject) -> None:
        try:
            self._before = before.open(self.threads)
        except Unsupported:
            raise
        except Exception as error:
            raise Refused(not_verified(f"onnxruntime cannot open the original: {first_line(error)}")) from error
        try:
            self._after = after.open(self.threads)
        except Unsupported:
            raise
        except Exception as error:
            reason = f"onnxruntime cannot open the replacement: {first_line(error)}"
            raise Refused(Verification("different", reason=reason)) from error

    def _given(self, session: Session, values: Mapping[str, Array]) -> dict[str, Array]:
        given = {name: values[name] for name in session.inputs if name in values}
        if self.promoted:
            halves = {i.name for i in fed_inputs(self.before.proto) if i.elem_type in HALVES}
            given = {name: v.astype(np.float32) if name in halves else v for name, v in given.items()}
        return given

    def run_before(self, feed: Feed, *, keep: bool = False) -> Original:
        """The original's outputs, and the reference's (or why there are none); with keep, remembered for the next call.

        Raises:
            IllegalFeed: The feed has no meaning; onnxruntime was not asked.
            Exception: onnxruntime's, if the original fails.
        """
        known = self._known.pop(feed.regime, None)
        if known is None:
            ref: list[Array] | CannotEvaluate
            try:
                ref = self.reference(feed.values)
            except IllegalFeed:
                raise
            except CannotEvaluate as error:
                ref = error
            known = self._before(self._given(self._before, feed.values), self.names), ref
        if keep:
            self._known[feed.regime] = known
        return known

    def run_after(self, values: Mapping[str, Array]) -> list[Array]:
        """The replacement's outputs in the original's order."""
        return self._after(self._given(self._after, values), self.names)

    def exact_after(self, values: Mapping[str, Array], k: int) -> Array | None:
        """The replacement's output k in float64, or None if it cannot be evaluated; casts round if `narrows`."""
        if self._exact_after is None:
            self._exact_after = Reference(self.after.proto, self.after.folder, narrow=self.narrows)
        try:
            return dict(zip(self._exact_after.outputs, self._exact_after(values), strict=True))[self.names[k]]
        except CannotEvaluate:
            return None

    def moves(self, k: int, ref: Array, values: Mapping[str, Array], least: float) -> tuple[Array, float] | None:
        """Where the float64 reference itself moves, once its decisions get noise of the floor's size.

        Args:
            k: Which output.
            ref: What the reference gives without noise.
            values: The feed.
            least: Movements of at most this are no decisions.

        Returns:
            A mask of ref's shape and the furthest finite movement, or None where the noise changes the shape or the
            reference cannot be evaluated.
        """
        unstable, furthest = np.zeros(ref.shape, bool), 0.0
        for turn in range(_JITTERS):
            # In pairs of opposite signs: an exact tie falls the other way under one of the two.
            amount = -self._noise if turn % 2 else self._noise
            try:
                moved = self.reference(values, Jitter(amount, generator("ties", turn // 2)))[k]
            except CannotEvaluate:
                return None
            if moved.shape != ref.shape:
                return None
            gap = np.abs(np.subtract(moved, ref, dtype=np.float64)) if ref.dtype.kind in "fiu" else moved != ref
            unstable |= gap > least
            furthest = max(furthest, float(np.max(gap, initial=0.0, where=np.isfinite(gap))))
        return unstable, furthest

    def is_tie(
        self, k: int, kind: int, found: Comparison, before: Array, ref: Array, values: Mapping[str, Array]
    ) -> bool:
        """Whether the float64 reference itself moves wherever output k is wrong."""
        if not self.jumps or found.wrong is None:
            return False
        moves = self.moves(k, ref, values, found.bound / 2 if kind in FLOATS else 0.0)
        if moves is None:
            return True
        unstable = moves[0] | (before != ref) if kind not in FLOATS else moves[0]
        return bool(np.all(unstable[found.wrong]))

    def with_conditioning(
        self, k: int, kind: int, before: Array, after: Array, ref: Array, values: Mapping[str, Array], found: Comparison
    ) -> Comparison:
        """The comparison once more, where the original may have been lucky.

        No computation can be held to less than what the result itself moves when the inputs, or the original's own
        results on the way, move by one rounding: on an offset of 1000 a variance loses ten bits, whoever computes it,
        but now and then the original loses none; and which of two scores in the millions is the larger is decided by
        their last bits. That movement, in float64, counts as the original's error if it is larger.
        """
        moved = max((self._moved(k, ref, values, turn) for turn in range(_NUDGES)), default=0.0)
        if self.uniform:
            moved = max(moved, *(self._strayed(k, kind, ref, values, turn) for turn in range(_NUDGES)))
        if moved <= found.error_before or not np.isfinite(moved):
            return found
        # An original that errs by just as much at the worst place.
        place = np.unravel_index(int(np.argmax(np.where(np.isfinite(ref), np.abs(before - ref), -1.0))), ref.shape)
        erring = widen(before).copy()
        erring[place] = ref[place] + moved
        return compare(kind, erring, widen(after), ref, self.tolerance)

    def _moved(self, k: int, ref: Array, values: Mapping[str, Array], turn: int) -> float:
        nudged: dict[str, Array] = {}
        for number, (name, value) in enumerate(values.items()):
            kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
            wide = widen(value)
            if kind in FLOATS:
                rng = generator("nudges", turn, number)
                wide = wide * (1.0 + eps(kind) / 2 * rng.uniform(-1.0, 1.0, wide.shape))
            nudged[name] = wide
        return self._gap(k, ref, nudged, None)

    def _strayed(self, k: int, kind: int, ref: Array, values: Mapping[str, Array], turn: int) -> float:
        return self._gap(k, ref, values, Jitter(0.0, generator("rounding", turn), eps(kind) / 2))

    def _gap(self, k: int, ref: Array, values: Mapping[str, Array], jitter: Jitter | None) -> float:
        try:
            result = self.reference(values, jitter)[k]
        except Exception:  # what cannot be evaluated there excuses nothing
            return 0.0
        if result.shape != ref.shape:
            return 0.0
        gap = np.abs(result - ref)
        return float(np.max(gap, initial=0.0, where=np.isfinite(gap)))

    def compare_steps(
        self, k: int, kind: int, before: Array, after: Array, ref: Array, values: Mapping[str, Array]
    ) -> Comparison:
        """Compares where numbers are quantized: what a tie of rounding moves by a step says nothing of the rest.

        Elements that the reference itself moves under noise may be as far off as it moves them; the others are
        compared as ever, with the error that the original has there.
        """
        scale = float(np.max(np.abs(ref), initial=0.0, where=np.isfinite(ref))) if ref.dtype.kind == "f" else 0.0
        least = self.tolerance.bound(kind, 0.0, scale) if kind in FLOATS else 0.0
        found = self.moves(k, ref, values, least) if before.shape == after.shape == ref.shape else None
        if found is None or not found[0].any():
            return compare(kind, before, after, ref, self.tolerance)
        unstable, furthest = found
        exact = ref.astype(before.dtype)
        calm = compare(kind, np.where(unstable, exact, before), np.where(unstable, exact, after), ref, self.tolerance)
        gap = np.where(unstable, np.abs(np.subtract(after, ref, dtype=np.float64)), 0.0)
        allowed = max(furthest, calm.bound)
        worst = float(gap.max())
        if not calm.ok or worst <= allowed:
            return calm
        index = tuple(int(i) for i in np.unravel_index(int(gap.argmax()), gap.shape))
        reason = f"{before[index]} became {after[index]}, further than the {allowed:.9g} that rounding explains"
        return Comparison(False, calm.error_before, worst, allowed, index, reason)


def _has_discrete(model: onnx.ModelProto) -> bool:
    graphs = [model.graph]
    if model.functions:
        return True
    while graphs:
        for node in graphs.pop().node:
            if node.op_type in DISCRETE or node.op_type == "Cast":
                return True
            graphs.extend(a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH)
    return False


def _quantizes(model: onnx.ModelProto) -> bool:
    """Whether numbers are rounded to the steps of a quantization."""
    return any(
        n.op_type.startswith(("QLinear", "Quantize", "DynamicQuantize"))
        for graph in (model.graph, *model.functions)
        for n in graph.node
    )


def judge_feeds(pair: Pair, feeds: Iterable[Feed]) -> Verification:
    """Runs the feeds and sums them up: the worst of the verdicts, with the numbers of the feed that uses most of its
    bound.
    """
    total = _Total(pair)
    for feed in feeds:
        if total.add(feed):
            break
    return total.result()


class _Total:
    """Sums up feeds."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._count = 0
        self._failure: str | None = None
        self._telling = [False] * len(pair.names)
        self._worst: tuple[tuple[int, float], Verification] | None = None

    def add(self, feed: Feed) -> bool:
        """Judges one feed; true if nothing can change the verdict any more."""
        pair = self._pair
        try:
            before, ref = pair.run_before(feed)
        except Exception as error:
            self._failure = self._failure or first_line(error)
            return False
        if isinstance(ref, CannotEvaluate):
            self._keep(_RANK["not verified"], 0.0, not_verified(str(ref)))
            return True
        self._count += 1
        try:
            after = pair.run_after(feed.values)
        except Exception as error:
            reason = f"onnxruntime runs the original but not the replacement: {first_line(error)}"
            self._keep(_RANK["different"], float("inf"), Verification("different", reason=reason, regime=feed.regime))
            return True
        return any(self._output(feed, k, name, before[k], after[k], ref[k]) for k, name in enumerate(pair.names))

    def _output(self, feed: Feed, k: int, name: str, before: Any, after: Any, ref: Array) -> bool:
        pair = self._pair
        if not isinstance(before, np.ndarray) or not isinstance(after, np.ndarray):
            self._keep(_RANK["not verified"], 0.0, not_verified(f"output {name!r} is no tensor"))
            return True
        kind = pair.types[k] or onnx.helper.np_dtype_to_tensor_dtype(before.dtype)
        if kind in FLOATS and before.shape == after.shape and ref.shape != before.shape:
            shapes = f"{list(before.shape)} in onnxruntime and {list(ref.shape)} in the float64 reference"
            reason = f"output {name!r} has shape {shapes}"
            self._keep(_RANK["not verified"], 0.0, not_verified(reason))
            return True
        with np.errstate(all="ignore"):
            if pair.quantizes:
                found = pair.compare_steps(k, kind, before, after, ref, feed.values)
            else:
                found = compare(kind, before, after, ref, pair.tolerance)
                if not found.ok and kind in FLOATS and found.index is not None:
                    found = pair.with_conditioning(k, kind, before, after, ref, feed.values, found)
            known = None if found.ok else defect(pair.after.proto, feed.values)
            if known is not None:
                exact = pair.exact_after(feed.values, k)
                again = None if exact is None else compare(kind, before, exact.astype(after.dtype), ref, pair.tolerance)
                if again is not None and again.ok:
                    found = again
                    feed = replace(feed, regime=f"{feed.regime}{IN_FLOAT64}{known}")
            if found.ok and pair.narrows:
                narrow = pair.exact_after(feed.values, k)
                if narrow is not None and narrow.shape == after.shape:
                    found = compare(kind, before, narrow.astype(after.dtype), ref, pair.tolerance)
        self._telling[k] |= found.telling and not feed.empty
        verdict: Verdict = "equivalent"
        reason = None
        if not found.ok:
            verdict = "different"
            where = f"{name}[{', '.join(map(str, found.index))}]" if found.index is not None else name
            reason = f"output {where}: {found.reason} (feed: {feed.regime})"
            if pair.is_tie(k, kind, found, before, ref, feed.values):
                verdict = "inconclusive"
                reason += "; the float64 reference has a tie there"
        numbers = found.error_before, found.error_after, found.bound
        self._keep(
            _RANK[verdict], found.ratio, Verification(verdict, *numbers, 0, reason, name, found.index, feed.regime)
        )
        return verdict == "different" and found.wrong is None

    def _keep(self, rank: int, ratio: float, verification: Verification) -> None:
        if self._worst is None or (rank, ratio) > self._worst[0]:
            self._worst = (rank, ratio), verification

    def result(self) -> Verification:
        if self._worst is None:
            reason = self._failure or "there was nothing to feed"
            return not_verified(f"the original ran on no feed: {reason}")
        rank, worst = self._worst[0][0], self._worst[1]
        if rank == 0 and not all(self._telling):
            name = self._pair.names[self._telling.index(False)]
            why = "is never finite, or is itself so far from float64 on every feed that anything would be accepted"
            reason = f"output {name!r} {why}"
            worst = replace(worst, verdict="inconclusive", reason=reason, output=name)
        return replace(worst, feeds=self._count)
