"""`PassTestSuite`: every property of a pass as a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from onnx_rewrite.errors import UsageError
from onnx_rewrite.testing.failures import replay, where
from onnx_rewrite.testing.mutations import MUTATIONS
from onnx_rewrite.testing.properties import PROPERTIES, Property, Terms
from onnx_rewrite.testing.running import Run, run_one
from onnx_rewrite.testing.sharing import run_together
from onnx_rewrite.testing.strategies import embed, instances, near_miss
from onnx_rewrite.testing.subject import Subject, subject_of
from onnx_rewrite.verify import Tolerance


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
        return run_one(cls, PROPERTIES[name], examples, seed, shrink=shrink)

    @classmethod
    def run_all(
        cls,
        names: Sequence[str] | None = None,
        *,
        examples: int | None = None,
        seed: int = 0,
        shrink: bool = True,
        jobs: int = 1,
    ) -> Iterator[Run]:
        """Runs several properties without pytest; those that draw from the same strategy are shown the same examples.

        What is drawn is what `run` draws with the same seed. A property that fails is run again alone, so that its
        example shrinks.

        Args:
            names: The properties; default: all that are not relaxed.
            examples: As for `run`.
            seed: As the attribute.
            shrink: As for `run`.
            jobs: How many processes run at a time. What is drawn and found does not depend on it. A pass that cannot
                be sent to another process, such as a class inside a function, is tested in this one.

        Yields:
            What became of each, one strategy after the other.

        Raises:
            OnnxRewriteError: One of several processes crashed.
        """
        chosen = [n for n in PROPERTIES if n not in cls.relaxed] if names is None else names
        return run_together(cls, [PROPERTIES[name] for name in chosen], examples, seed, shrink=shrink, jobs=jobs)


def _test(one: Property) -> Callable[[PassTestSuite], None]:
    def test(self: PassTestSuite) -> None:
        why = self.relaxed.get(one.name)
        if why is not None:
            import pytest

            pytest.skip(f"relaxed: {why}")
        ran = run_one(type(self), one, None, None)
        if ran.failure is not None:
            import pytest

            assert ran.folder is not None
            pytest.fail(f"{ran.failure.text()}\n{where(ran.folder)}", pytrace=False)

    test.__name__ = f"test_{one.name}"
    test.__doc__ = one.about
    return test
