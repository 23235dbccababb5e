"""Runs the properties of a suite on several processors, each on portions of the examples.

What is drawn, and so what is found, does not depend on how many processes there are.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

import onnx

from onnx_rewrite import registry
from onnx_rewrite.deferral import InNewProcess
from onnx_rewrite.errors import OnnxRewriteError
from onnx_rewrite.registry.options import parse_list
from onnx_rewrite.testing.example import Example
from onnx_rewrite.testing.failures import Failure
from onnx_rewrite.testing.properties import PROPERTIES, Property
from onnx_rewrite.testing.running import Checking, Portion, Run, check_alone, check_together, portions, together

if TYPE_CHECKING:
    from onnx_rewrite.testing.suite import PassTestSuite


def processors() -> int:
    """How many processors this process may use."""
    allowed: Any = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def run_together(
    cls: type[PassTestSuite],
    properties: Sequence[Property],
    examples: int | None,
    seed: int,
    *,
    shrink: bool,
    jobs: int = 1,
) -> Iterator[Run]:
    """Runs properties, those of one strategy on the same examples; `PassTestSuite.run_all` describes the arguments."""
    wanted = portions(cls, examples, seed)
    groups = {of: [p.name for p in properties if p.of == of] for of in dict.fromkeys(p.of for p in properties)}
    pool = _pool(min(jobs, len(groups) * len(wanted)), cls)
    try:
        parts = {
            of: [_later(pool, cls, _examine, names, portion) for portion in wanted] for of, names in groups.items()
        }
        for of, names in groups.items():
            found = [_result(part, of, portion) for part, portion in zip(parts[of], wanted, strict=True)]
            failed = [next((n for n, part in enumerate(found) if part[at].failure), None) for at in range(len(names))]
            small = [
                _later(pool, cls, _shrink, [name], wanted[at]) if shrink and at is not None else None
                for name, at in zip(names, failed, strict=True)
            ]
            for at, (last, shrunk) in enumerate(zip(failed, small, strict=True)):
                pieces = [part[at] for part in found[: None if last is None else last + 1]]
                failure = pieces[-1].failure
                if shrunk is not None:
                    (alone,) = _result(shrunk, of, wanted[last or 0])
                    failure = alone.failure or failure
                runs = [Run(piece.property, piece.examples, piece.counts) for piece in pieces]
                yield together(cls, runs, None if failure is None else failure.unpacked(cls))
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


# -- what goes from one process to another


@dataclass(frozen=True)
class _Plan:
    """A suite, as another process can make it again."""

    attributes: dict[str, Any]

    @classmethod
    def of(cls, suite: type[PassTestSuite]) -> _Plan:
        return cls({name: getattr(suite, name) for name in _DECLARED})

    def suite(self) -> type[PassTestSuite]:
        from onnx_rewrite.testing.suite import PassTestSuite

        return type("Suite", (PassTestSuite,), dict(self.attributes))

    def travels(self, suite: type[PassTestSuite]) -> bool:
        """Whether another process can make the suite: it finds the pass by name, or imports its class."""
        pass_ = self.attributes["pass_"]
        if isinstance(pass_, str):
            (name, _), *others = parse_list(pass_)
            found = not others and bool(registry.describe(name).package)  # installed, not declared in this process
        else:
            kind = pass_ if isinstance(pass_, type) else type(pass_)
            found = kind.__module__ != "__main__" and _importable(kind.__module__.partition(".")[0])
        base = next(c for c in suite.__mro__ if c.__module__ == "onnx_rewrite.testing.suite")
        own = any(getattr(suite, name).__func__ is not getattr(base, name).__func__ for name in _METHODS)
        if not found or own:
            return False
        try:
            ForkingPickler.dumps(self)
        except Exception:
            return False
        return True


_DECLARED = ("pass_", "fires_at_least", "still_legal", "nan", "tolerance")
_METHODS = ("strategy", "subject", "terms")


@dataclass(frozen=True)
class _Packed:
    """A failure without the pass."""

    property: str
    reason: str
    model: bytes
    story: tuple[str, ...]
    container: str
    elsewhere: str
    feed: dict[str, Any]

    @classmethod
    def of(cls, failure: Failure) -> _Packed:
        shown = failure.example
        model, feed = shown.model.SerializeToString(), dict(failure.feed)
        return cls(failure.property, failure.reason, model, shown.story, shown.container, shown.elsewhere, feed)

    def unpacked(self, cls: type[PassTestSuite]) -> Failure:
        subject, model = cls.subject(), onnx.load_from_string(self.model)
        example = Example(model, subject, self.story, container=self.container, elsewhere=self.elsewhere)
        return Failure(subject.name, self.property, self.reason, example, self.feed)


@dataclass(frozen=True)
class _Piece:
    """What became of one property on one portion."""

    property: str
    examples: int
    counts: Counter[str]
    failure: _Packed | None

    @classmethod
    def of(cls, checking: Checking) -> _Piece:
        ran, failure = checking.ran, checking.failure
        return cls(ran.property, ran.examples, ran.counts, None if failure is None else _Packed.of(failure))


_Work = Callable[["type[PassTestSuite]", "list[str]", Portion], "list[_Piece]"]


def _examine(suite: type[PassTestSuite], names: list[str], portion: Portion) -> list[_Piece]:
    return [_Piece.of(c) for c in check_together(suite, [PROPERTIES[name] for name in names], portion)]


def _shrink(suite: type[PassTestSuite], names: list[str], portion: Portion) -> list[_Piece]:
    return [_Piece.of(check_alone(suite, PROPERTIES[name], portion, shrink=True)) for name in names]


# -- where it is done


def _importable(name: str) -> bool:
    """Whether a new process finds a module: this one may have been given it as a file."""
    finders = [f.find_spec for f in sys.meta_path if hasattr(f, "find_spec")]
    return any(find(name, None) is not None for find in finders)


_suite: type[PassTestSuite] | None = None
"""In a process of a pool: what it works on."""


def _pool(jobs: int, suite: type[PassTestSuite]) -> ProcessPoolExecutor | None:
    """Processes, or None to do everything in this one."""
    plan = _Plan.of(suite)
    if jobs < 2 or not plan.travels(suite):
        return None
    # A fork would inherit locks of onnxruntime's threads.
    begin = InNewProcess(__name__, _begin.__name__)
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), begin, (plan,))


def _begin(plan: _Plan) -> None:
    global _suite
    warnings.simplefilter("ignore")
    _suite = plan.suite()


class _Later:
    """Work that is done when its result is asked for."""

    def __init__(self, work: Callable[[], list[_Piece]]) -> None:
        self.result = work


def _later(
    pool: ProcessPoolExecutor | None,
    suite: type[PassTestSuite],
    work: _Work,
    names: list[str],
    portion: Portion,
) -> Future[list[_Piece]] | _Later:
    if pool is None:
        return _Later(lambda: work(suite, names, portion))
    return pool.submit(_elsewhere, work, names, portion)


def _elsewhere(work: _Work, names: list[str], portion: Portion) -> list[_Piece]:
    assert _suite is not None
    return work(_suite, names, portion)


def _result(part: Future[list[_Piece]] | _Later, of: str, portion: Portion) -> list[_Piece]:
    try:
        return part.result()
    except BrokenProcessPool as error:
        raise OnnxRewriteError(
            f"a process ended without an answer, at the latest on {portion.examples} examples of '{of}' "
            f"from seed {portion.seed}",
            hint="onnxruntime may have crashed; with one job the same examples run in this process",
        ) from error
