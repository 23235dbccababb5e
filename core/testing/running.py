"""Runs properties of a pass on drawn examples."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import seed as seeded

from onnx_rewrite.collector import collector_eased
from onnx_rewrite.testing.example import Example
from onnx_rewrite.testing.failures import Failure, smallest
from onnx_rewrite.testing.properties import Property, Terms, Violation

if TYPE_CHECKING:
    from onnx_rewrite.testing.suite import PassTestSuite

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
        rare: Why too few instances are replaced; empty if enough are.
    """

    property: str
    examples: int = 0
    counts: Counter[str] = field(default_factory=Counter[str])
    failure: Failure | None = None
    folder: Path | None = None
    rare: str = ""


class _Checking:
    """One property while examples come."""

    def __init__(self, one: Property, pass_name: str, terms: Terms) -> None:
        self.one, self.ran = one, Run(one.name)
        self.failure: Failure | None = None
        self._pass_name, self._terms = pass_name, terms

    def __call__(self, example: Example) -> None:
        """Checks one example.

        Raises:
            Exception: The property does not hold, or the pass raises.
        """
        self.ran.examples += 1
        try:
            told = self.one.check(example, self._terms)
        except Violation as violation:
            self.failure = Failure(self._pass_name, self.one.name, str(violation), example, violation.feed)
            raise
        except Exception as error:
            reason = f"the pass raises {type(error).__name__}: {error}"
            self.failure = Failure(self._pass_name, self.one.name, reason, example, {})
            raise
        if told is not None and self.failure is None:
            self.ran.counts[told] += 1
            event(f"{self.one.name}: {told}")

    def finished(self, cls: type[PassTestSuite], *, shrink: bool = False) -> Run:
        """What became of it; a failure is saved, reduced if it is to be shrunk."""
        if self.failure is not None:
            self.ran.failure = smallest(self.failure, self._terms) if shrink else self.failure
            self.ran.folder = self.ran.failure.save(cls.failures, cls.pass_)
            return self.ran
        fired, all_ = self.ran.counts["fires"], self.ran.counts["fires"] + self.ran.counts["refused"]
        if self.one.name == "fires_or_says_why" and all_ >= 20 and fired < cls.fires_at_least * all_:
            self.ran.rare = (
                f"{fired} of {all_} instances are replaced, the others refused; if that is right, "
                f"say so: fires_at_least = {fired / all_:.2f}"
            )
        return self.ran


def _show(
    cls: type[PassTestSuite],
    of: str,
    body: Callable[[Example], None],
    examples: int | None,
    chosen: int | None,
    *,
    shrink: bool,
) -> None:
    """Shows drawn examples to `body`; raises what it raises for the smallest of those that it raises for."""
    usual: Any = settings.default
    everything: Any = list(HealthCheck)
    phases = [p for p in Phase if (shrink or p is not Phase.shrink) and p is not Phase.explain]
    test: Any = settings(
        max_examples=examples or int(os.environ.get(EXAMPLES_VARIABLE, "0")) or cls.examples,
        deadline=None,
        database=usual.database if chosen is None and usual is not None else None,
        derandomize=False if chosen is not None else usual.derandomize if usual else False,
        print_blob=False,
        report_multiple_bugs=False,
        phases=phases,
        suppress_health_check=everything,
    )(given(cls.strategy(of))(body))
    if chosen is not None:
        test = seeded(chosen)(test)
    with collector_eased():  # every example makes some thousands of objects, and what was imported makes many more
        test()


def run_one(
    cls: type[PassTestSuite], one: Property, examples: int | None, seed: int | None, *, shrink: bool = True
) -> Run:
    """Runs one property; `PassTestSuite.run` describes the arguments.

    Raises:
        Violation: Too few instances are replaced.
    """
    checking = _Checking(one, cls.subject().name, cls.terms())

    def body(example: Example) -> None:
        checking(example)

    try:
        _show(cls, one.of, body, examples, cls.seed if seed is None else seed, shrink=shrink)
    except Exception:
        if checking.failure is None:
            raise
    ran = checking.finished(cls, shrink=shrink)
    if ran.rare:
        raise Violation(ran.rare)
    return ran


def run_together(
    cls: type[PassTestSuite], properties: Sequence[Property], examples: int | None, seed: int, *, shrink: bool
) -> Iterator[Run]:
    """Runs properties, those of one strategy on the same examples; `PassTestSuite.run_all` describes the arguments."""
    pass_name, terms = cls.subject().name, cls.terms()
    for of in dict.fromkeys(one.of for one in properties):
        checkings = [_Checking(one, pass_name, terms) for one in properties if one.of == of]

        def body(example: Example, checkings: list[_Checking] = checkings) -> None:
            for checking in checkings:
                if checking.failure is None:
                    try:
                        checking(example)
                    except Exception:
                        continue  # it has noted the failure, and is run alone afterwards

        _show(cls, of, lambda example: body(example), examples, seed, shrink=False)
        for checking in checkings:
            if checking.failure is not None and shrink:
                alone = run_one(cls, checking.one, examples, seed)
                yield alone if alone.failure is not None else checking.finished(cls)
            else:
                yield checking.finished(cls)
