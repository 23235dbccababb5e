"""`PassTestSuite`: every property of a pass as a test."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import seed as seeded

from onnx_rewrite.errors import UsageError
from onnx_rewrite.testing.example import Example
from onnx_rewrite.testing.failures import Failure, replay
from onnx_rewrite.testing.mutations import MUTATIONS
from onnx_rewrite.testing.properties import PROPERTIES, Property, Terms, Violation
from onnx_rewrite.testing.strategies import embed, instances, near_miss
from onnx_rewrite.testing.subject import Subject, subject_of
from onnx_rewrite.verify import Tolerance

EXAMPLES_VARIABLE = "ONNX_REWRITE_EXAMPLES"
"""Environment variable: how many examples each property gets, whatever the suite says."""


@dataclass
class Run:
    """What became of one property.

    Attributes:
        property: Its name.
        examples: How many examples it held for, or was tried on.
        counts: What was worth counting.
        failure: The smallest example for which it does not hold, or None.
        folder: Where that was saved, or None.
    """

    property: str
    examples: int = 0
    counts: Counter[str] = field(default_factory=Counter[str])
    failure: Failure | None = None
    folder: Path | None = None


class PassTestSuite:
    """Subclass it, name a pass, and get one test per property.

        class TestMine(PassTestSuite):
            pass_ = "mine"

    Attributes:
        pass_: The name of a pass, or a class or an instance of `Pass` or `RuleSet`.
        examples: Examples per property; the environment variable ONNX_REWRITE_EXAMPLES overrides it.
        seed: Makes the examples the same in every run; None: hypothesis decides.
        fires_at_least: The share of instances that must be replaced, not refused.
        still_legal: Mutations that are not drawn, by name, each with the reason.
        relaxed: Properties that are not tested, by name, each with the reason; their tests are skipped with it.
        nan: Why NaN may come out where it did not, or the other way round; empty: it may not.
        tolerance: How far results may be apart; None: as the judge has it.
        saved: Folders of saved failures that are run again as explicit examples.
        failures: The folder that failing examples are saved to.
    """

    pass_: ClassVar[Any] = None
    examples: ClassVar[int] = 100
    seed: ClassVar[int | None] = None
    fires_at_least: ClassVar[float] = 0.5
    still_legal: ClassVar[Mapping[str, str]] = {}
    relaxed: ClassVar[Mapping[str, str]] = {}
    nan: ClassVar[str] = ""
    tolerance: ClassVar[Tolerance | None] = None
    saved: ClassVar[Sequence[str | Path]] = ()
    failures: ClassVar[Path | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, known in (("still_legal", MUTATIONS), ("relaxed", PROPERTIES)):
            for given_name, why in getattr(cls, name).items():
                if given_name not in known:
                    raise UsageError(f"{cls.__name__}.{name}: there is no '{given_name}'", hint=f"{sorted(known)}")
                if not why:
                    raise UsageError(f"{cls.__name__}.{name}: say why '{given_name}' is relaxed")
        if cls.pass_ is None:
            return
        for name, one in PROPERTIES.items():
            if f"test_{name}" not in cls.__dict__:
                setattr(cls, f"test_{name}", _test(one))

    def test_saved_examples(self) -> None:
        """What failed once holds now."""
        for folder in self.saved:
            replay(folder, self.pass_, self.terms())

    @classmethod
    def terms(cls) -> Terms:
        """What is relaxed, for the checks."""
        return Terms(nan=cls.nan, tolerance=cls.tolerance or Tolerance())

    @classmethod
    def subject(cls) -> Subject:
        """The pass, ready to be run.

        Raises:
            UsageError: There is no such pass.
        """
        return subject_of(cls.pass_)

    @classmethod
    def strategy(cls, of: str) -> Any:
        """The examples of a property: "instances", "embed" or "near_miss"."""
        subject = cls.subject()
        if of == "near_miss":
            return near_miss(subject, without=tuple(cls.still_legal))
        return {"instances": instances, "embed": embed}[of](subject)

    @classmethod
    def run(cls, name: str, *, examples: int | None = None, seed: int | None = None, shrink: bool = True) -> Run:
        """Runs one property without pytest.

        Args:
            name: The property.
            examples: How many; default: the environment's, or the suite's.
            seed: As the attribute.
            shrink: Whether a failing example is made small.
        """
        return _run(cls, PROPERTIES[name], examples, seed, shrink=shrink)


def _test(one: Property) -> Callable[[PassTestSuite], None]:
    def test(self: PassTestSuite) -> None:
        why = self.relaxed.get(one.name)
        if why is not None:
            import pytest

            pytest.skip(f"relaxed: {why}")
        ran = _run(type(self), one, None, None)
        if ran.failure is not None:
            raise Violation(f"{ran.failure.text()}\nSaved in {ran.folder}", ran.failure.feed)

    test.__name__ = f"test_{one.name}"
    test.__doc__ = one.about
    return test


def _run(
    cls: type[PassTestSuite], one: Property, examples: int | None, seed: int | None, *, shrink: bool = True
) -> Run:
    count = examples or int(os.environ.get(EXAMPLES_VARIABLE, "0")) or cls.examples
    chosen = cls.seed if seed is None else seed
    ran, terms, last = Run(one.name), cls.terms(), list[Failure]()
    pass_name = cls.subject().name

    def body(example: Example) -> None:
        ran.examples += 1
        try:
            told = one.check(example, terms)
        except Violation as violation:
            last[:] = [Failure(pass_name, one.name, str(violation), example, violation.feed)]
            raise
        except Exception as error:
            reason = f"the pass raises {type(error).__name__}: {error}"
            last[:] = [Failure(pass_name, one.name, reason, example, {})]
            raise
        if told is not None and not last:
            ran.counts[told] += 1
            event(f"{one.name}: {told}")

    everything: Any = list(HealthCheck)
    phases = [p for p in Phase if (shrink or p is not Phase.shrink) and p is not Phase.explain]
    test: Any = settings(
        max_examples=count,
        deadline=None,
        database=settings.default.database if chosen is None and settings.default is not None else None,
        derandomize=False if chosen is not None else settings.default.derandomize if settings.default else False,
        print_blob=False,
        report_multiple_bugs=False,
        phases=phases,
        suppress_health_check=everything,
    )(given(cls.strategy(one.of))(body))
    if chosen is not None:
        test = seeded(chosen)(test)
    try:
        test()
    except Exception:
        if not last:
            raise
        ran.failure = last[0]
        ran.folder = last[0].save(cls.failures)
        return ran
    fired, all_ = ran.counts["fires"], ran.counts["fires"] + ran.counts["refused"]
    if one.name == "fires_or_says_why" and all_ >= 20 and fired < cls.fires_at_least * all_:
        raise Violation(
            f"{fired} of {all_} instances are replaced, the others refused; if that is right, "
            f"say so: fires_at_least = {fired / all_:.2f}"
        )
    return ran
