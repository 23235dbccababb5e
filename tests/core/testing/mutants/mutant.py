"""What a mutant is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from onnx_rewrite.testing import PassTestSuite, Run
from onnx_rewrite.testing.subject import Subject

EXAMPLES = 300
"""Within so many examples a mutant must be found."""

SEED = 0
NEAR = "near_misses_are_right"


@dataclass(frozen=True)
class Mutant:
    """A pass that is wrong, or a right one on an engine that is.

    Attributes:
        bug: What is wrong, in words; its name.
        part: Where: a pass, or a part of the engine.
        case: The hard case that it stands for, as the list of hard cases has it.
        make: Gives the pass; the engine is wrong within the context.
        by: The properties that must find it, each within `EXAMPLES`.
    """

    bug: str
    part: str
    case: str
    make: Callable[[], AbstractContextManager[Any]]
    by: tuple[str, ...]

    def run(self, name: str, folder: Any = None, examples: int = EXAMPLES) -> Run:
        """Looks for the bug with one property; nothing is shrunk."""
        with self.make() as pass_:
            suite = type("Suite", (PassTestSuite,), {"pass_": pass_, "failures": folder})
            return suite.run(name, examples=examples, seed=SEED, shrink=False)


def of(bug: str, part: str, case: str, pass_: Any, *by: str) -> Mutant:
    """A wrong pass."""
    return Mutant(bug, part, case, lambda: nullcontext(pass_), by or ("equivalent_by_the_judge", NEAR))


def engine(bug: str, part: str, case: str, by: str, pass_: Any, *patches: tuple[Any, str, Any]) -> Mutant:
    """A right pass on an engine of which some names stand for something else; the pass is compiled there, too."""

    @contextmanager
    def made() -> Iterator[Subject]:
        kept = [(holder, name, holder.__dict__[name]) for holder, name, _ in patches]
        try:
            for holder, name, value in patches:
                setattr(holder, name, value)
            yield Subject(pass_)
        finally:
            for holder, name, value in kept:
                setattr(holder, name, value)

    return Mutant(bug, part, case, made, (by,))
