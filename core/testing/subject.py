"""The pass that is tested: compiled once, run without a judge, and what came of it."""

from __future__ import annotations

import gc
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import onnx

from onnx_rewrite import registry
from onnx_rewrite.model import load, to_proto
from onnx_rewrite.pattern import trace
from onnx_rewrite.pattern.language import Apply, Output, Traced, walk
from onnx_rewrite.rewriter.driver import Driver
from onnx_rewrite.rewriter.rule import Rule
from onnx_rewrite.rewriter.site import Site
from onnx_rewrite.verify import LocalJudge

_RUNS_PER_COLLECTION = 400
_runs = 0


@contextmanager
def collector_off() -> Generator[None, None, None]:
    """Keeps the garbage collector away for one short piece of work; it comes once in some hundreds."""
    global _runs
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        _runs += 1
        if collecting:
            if _runs % _RUNS_PER_COLLECTION == 0:
                gc.collect(1)
            gc.enable()


class _Once:
    """A rule whose pattern is compiled once."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._matcher = rule.compile()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rule, name)

    def compile(self) -> Any:
        return self._matcher


@dataclass(frozen=True)
class Outcome:
    """What a pass made of a model, without a judge.

    Attributes:
        model: The result.
        sites: All sites: applied, refused (with the reason), or rolled back because the replacement is not legal.
        raised: The opset afterwards, if it was raised; else None.
        settled: Why the pass has nothing to do at what it found, which is no site.
    """

    model: onnx.ModelProto
    sites: tuple[Site, ...]
    raised: int | None
    settled: tuple[str, ...] = ()

    def count(self, status: str) -> int:
        """How many sites ended so."""
        return sum(site.status == status for site in self.sites)

    @property
    def applied(self) -> int:
        """How many sites were replaced."""
        return self.count("applied")

    def told(self) -> str:
        """The sites in words."""
        told = [f"{s.id} {s.status}{f': {s.reason}' if s.reason else ''}" for s in self.sites]
        return "; ".join((*told, *self.settled)) or "no sites"


class Subject:
    """A pass, or one rule, ready to be run many times.

    Args:
        pattern: The name of a pass (with options as on the command line), a class or an instance of `Pass`,
            `RuleSet` or `Rule`.

    Raises:
        UsageError: There is no such pass, or it has no patterns.
    """

    def __init__(self, pattern: Any) -> None:
        found = pattern() if isinstance(pattern, type) and issubclass(pattern, Rule) else pattern
        if isinstance(found, Rule) and not hasattr(found, "rules"):
            self.name = type(found).__name__
            rules: Sequence[Any] = (found,)
        else:
            (made,) = registry.resolve(found)
            if isinstance(made, registry.FunctionPass):
                from onnx_rewrite.errors import UsageError

                raise UsageError(f"pass '{made.name}' is a function on a graph: it has no pattern to draw instances of")
            self.name, rules = made.name, made.rules()
        self.originals = tuple(rules)
        self._rules = tuple(_Once(rule) for rule in rules)

        self.dtypes: tuple[int, ...] = ()
        """Element types of which instances can be drawn; filled in when the first one is drawn."""

    def rules(self) -> Sequence[Any]:
        """What the driver asks a pass for."""
        return self._rules

    @cached_property
    def traced(self) -> tuple[Traced, ...]:
        """The pattern of each rule."""
        return tuple(trace(rule.pattern, f"{type(rule).__qualname__}") for rule in self.originals)

    @cached_property
    def operators(self) -> frozenset[str]:
        """All operators of the patterns."""
        parts = [p for traced in self.traced for root in traced.roots for p in walk(root)]
        applied: list[Apply] = [p.apply for p in parts if isinstance(p, Output)]
        return frozenset(name for apply in applied for name in apply.op_types)

    @cached_property
    def needs_opset(self) -> int:
        """The highest opset that a replacement needs."""
        return max((rule.needs_opset for rule in self.originals), default=1)

    def run(self, model: onnx.ModelProto, *, opset: int | str | None = None, judge: Any = None) -> Outcome:
        """Rewrites a copy of a model; nothing is judged unless a judge is given.

        Raises:
            Exception: Whatever the pass raises, and `CircularRewriteError` if it undoes itself.
        """
        with collector_off():
            loaded = load(model)
            driver = Driver(loaded.ir, [self], judge=judge, opens=_opens().opens, opset=opset)
            driver.run()
            sites = tuple(driver.sites[self.name])
            result = to_proto(loaded)
            raised = loaded.ir.opset_imports.get("") if driver.raised else None
        return Outcome(result, sites, raised, tuple(driver.settled[self.name]))


@cache
def _opens() -> LocalJudge:
    """Remembers which nodes have kernels."""
    return LocalJudge()


def subject_of(pattern: Any) -> Subject:
    """The subject of a pass; one per pass is kept, because compiling patterns takes time."""
    if isinstance(pattern, Subject):
        return pattern
    try:
        if pattern not in _subjects:
            _subjects[pattern] = Subject(pattern)
        return _subjects[pattern]
    except TypeError:  # not hashable
        return Subject(pattern)


_subjects: dict[Any, Subject] = {}
