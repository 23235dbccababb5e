"""Runs properties of a pass on drawn examples."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import seed as seeded

from onnx_rewrite.collector import collector_eased
from onnx_rewrite.testing.example import Example
from onnx_rewrite.testing.failures import Failure, smallest
from onnx_rewrite.testing.properties import Property, Violation

if TYPE_CHECKING:
    from onnx_rewrite.testing.suite import PassTestSuite

EXAMPLES_VARIABLE = "ONNX_REWRITE_EXAMPLES"
"""Environment variable: how many examples each property gets, whatever the suite says."""

PORTION = 500
"""With a seed, so many examples are drawn from it, as many from the next one, and so on: what is drawn does not depend
on how many processes draw it.
"""

_NEXT_SEED = 1_000_003
"""From the seed of one portion to that of the next: seeds that a user gives are nearer to each other."""


@dataclass(frozen=True)
class Portion:
    """Some of the examples of a run.

    Attributes:
        examples: How many.
        seed: What they are drawn from; None: hypothesis decides.
    """

    examples: int
    seed: int | None


def portions(cls: type[PassTestSuite], examples: int | None, seed: int | None) -> list[Portion]:
    """A run of so many examples (default: the environment's number, or the suite's), taken apart."""
    count = examples or int(os.environ.get(EXAMPLES_VARIABLE, "0")) or cls.examples
    if seed is None:
        return [Portion(count, None)]
    starts = range(0, count, PORTION)
    return [Portion(min(PORTION, count - at), seed + n * _NEXT_SEED) for n, at in enumerate(starts)]


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


class Checking:
    """One property while examples come.

    Args:
        one: The property.
        cls: The suite.
    """

    def __init__(self, one: Property, cls: type[PassTestSuite]) -> None:
        self.one, self.ran = one, Run(one.name)
        self.failure: Failure | None = None
        self._pass_name, self._terms = cls.subject().name, cls.terms()

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


def show(cls: type[PassTestSuite], of: str, body: Callable[[Example], None], portion: Portion, *, shrink: bool) -> None:
    """Shows drawn examples to `body`; raises what it raises for the smallest of those that it raises for."""
    usual: Any = settings.default
    everything: Any = list(HealthCheck)
    chosen = portion.seed
    phases = [p for p in Phase if (shrink or p is not Phase.shrink) and p is not Phase.explain]
    test: Any = settings(
        max_examples=portion.examples,
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


def check_alone(cls: type[PassTestSuite], one: Property, portion: Portion, *, shrink: bool) -> Checking:
    """Checks one property on some examples."""
    checking = Checking(one, cls)

    def body(example: Example) -> None:
        checking(example)

    try:
        show(cls, one.of, body, portion, shrink=shrink)
    except Exception:
        if checking.failure is None:
            raise
    if checking.failure is not None and shrink:
        checking.failure = smallest(checking.failure, cls.terms())
    return checking


def check_together(cls: type[PassTestSuite], properties: Sequence[Property], portion: Portion) -> list[Checking]:
    """Checks properties of one strategy on the same examples; one that fails sees no more of them."""
    checkings = [Checking(one, cls) for one in properties]

    def body(example: Example) -> None:
        for checking in checkings:
            if checking.failure is None:
                try:
                    checking(example)
                except Exception:
                    continue  # it has noted the failure, and is run alone afterwards

    show(cls, properties[0].of, body, portion, shrink=False)
    return checkings


def run_one(
    cls: type[PassTestSuite], one: Property, examples: int | None, seed: int | None, *, shrink: bool = True
) -> Run:
    """Runs one property; `PassTestSuite.run` describes the arguments.

    Raises:
        Violation: Too few instances are replaced.
    """
    parts: list[Checking] = []
    for portion in portions(cls, examples, cls.seed if seed is None else seed):
        parts.append(check_alone(cls, one, portion, shrink=shrink))
        if parts[-1].failure is not None:
            break
    ran = together(cls, [part.ran for part in parts], parts[-1].failure)
    if ran.rare:
        raise Violation(ran.rare)
    return ran


def together(cls: type[PassTestSuite], parts: Sequence[Run], failure: Failure | None) -> Run:
    """One run of several portions; a failure is saved."""
    ran = Run(parts[0].property, sum(part.examples for part in parts))
    for part in parts:
        ran.counts.update(part.counts)
    if failure is not None:
        ran.failure, ran.folder = failure, failure.save(cls.failures, cls.pass_)
        return ran
    fired, all_ = ran.counts["fires"], ran.counts["fires"] + ran.counts["refused"]
    if ran.property == "fires_or_says_why" and all_ >= 20 and fired < cls.fires_at_least * all_:
        ran.rare = (
            f"{fired} of {all_} instances are replaced, the others refused; if that is right, "
            f"say so: fires_at_least = {fired / all_:.2f}"
        )
    return ran
