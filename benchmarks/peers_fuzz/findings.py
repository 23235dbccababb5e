"""What was found: failures of one kind, the smallest model that still shows each, and how it is kept."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

from benchmarks.peers_fuzz import properties, stars
from benchmarks.peers_fuzz.drawing import Drawn
from benchmarks.peers_fuzz.workers import Worker

SHOWN = 1500
"""Characters of a model's text in the results."""


@dataclass
class Failure:
    """One property that does not hold for one graph."""

    property: str
    reason: str
    drawn: Drawn
    after: onnx.ModelProto | None

    @property
    def kind(self) -> tuple[str, str, str]:
        """What is counted together before anything is made small."""
        mutation = next((s for s in self.drawn.story if not s.startswith("rule: ")), "")
        return self.property, properties.kind_of(self.reason), mutation


@dataclass
class Finding:
    """Failures that come down to one minimal model.

    Attributes:
        peer: Who.
        smallest: The failure on the minimal model.
        first: Where it was first seen: the graph's description.
        count: How many graphs fail in this way, by property and kind of reason.
        star: The hard case that it is, or "".
    """

    peer: str
    smallest: Failure
    first: str
    count: int
    star: str = ""
    folder: str = ""

    @property
    def operators(self) -> list[str]:
        """Those of the minimal model."""
        return [node.op_type for node in self.smallest.drawn.model.graph.node]

    def row(self) -> dict[str, Any]:
        """For the results."""
        return {
            "property": self.smallest.property,
            "reason": self.smallest.reason[:300],
            "graphs": self.count,
            "seen on": self.first[:300],
            "operators": self.operators,
            "star": self.star,
            "model": text(self.smallest.drawn.model)[:SHOWN],
        }


def text(model: onnx.ModelProto) -> str:
    """A model for a reader; what the text form cannot say is left out of it."""
    try:
        return onnx.printer.to_text(model).strip()
    except Exception as error:
        return f"(no text: {error})"


def smallest(
    failure: Failure, worker: Worker, judge: Worker, seconds: float, minimise: Callable[..., onnx.ModelProto]
) -> Failure:
    """The failure on the smallest model that still breaks the same property for the same kind of reason."""
    kind = properties.kind_of(failure.reason)
    last: list[Failure] = [failure]

    def fails(model: onnx.ModelProto) -> bool:
        drawn = replace(failure.drawn, model=model)
        found, answer = properties.examine(worker, judge, drawn, failure.property)
        reason = found.get(failure.property, "")
        if not reason or (failure.property in ("answers", "valid") and properties.kind_of(reason) != kind):
            return False
        last[:] = [Failure(failure.property, reason, drawn, answer.models[0] if answer.models else None)]
        return True

    try:
        minimise(failure.drawn.model, fails, seconds=seconds)
    except ValueError:  # it did not happen again
        return failure
    return last[0]


def gather(
    peer: str,
    failures: Sequence[Failure],
    shrink: Callable[[Failure], Failure],
    most: int = 8,
) -> list[Finding]:
    """Failures by kind, one of each made small, and those that come down to one model put together.

    Args:
        peer: Who.
        failures: All of them.
        shrink: Makes one small.
        most: How many kinds of one property are made small; the others are only counted.
    """
    kinds: dict[tuple[str, str, str], list[Failure]] = {}
    for one in failures:
        kinds.setdefault(one.kind, []).append(one)
    of_property: Counter[str] = Counter()
    found: dict[Any, Finding] = {}
    for kind, group in sorted(kinds.items(), key=lambda item: -len(item[1])):
        of_property[kind[0]] += 1
        if of_property[kind[0]] > most:
            continue
        _add(found, peer, shrink(_least(group)), _least(group), len(group))
    # What looks like a hard case is made small too, to see whether that is what makes it fail.
    for star in stars.STARS:
        like = [f for f in failures if star.holds(peer, f.property, f.reason, f.drawn, f.after)]
        for one in sorted(like, key=_size)[:4]:
            if any(f.star == star.name for f in found.values()):
                break
            made = shrink(one)
            if star.holds(peer, made.property, made.reason, made.drawn, made.after):
                _add(found, peer, made, one, len(like))
    return sorted(found.values(), key=lambda f: (f.smallest.property, -f.count))


def _add(found: dict[Any, Finding], peer: str, made: Failure, first: Failure, count: int) -> None:
    star = stars.of(peer, made.property, made.reason, made.drawn, made.after)
    finding = Finding(peer, made, first.drawn.told, count, star)
    key = (made.property, properties.kind_of(made.reason), tuple(sorted(finding.operators)), star)
    if key in found:
        found[key].count += count
    else:
        found[key] = finding


def _size(failure: Failure) -> int:
    return failure.drawn.model.ByteSize()


def _least(group: Sequence[Failure]) -> Failure:
    return min(group, key=_size)


def save(findings: Sequence[Finding], folder: Path) -> None:
    """Keeps each finding in a folder of its own: the model, what became of it, and a text for a reader."""
    numbers: Counter[str] = Counter()
    for finding in findings:
        one = finding.smallest
        stem = re.sub(r"\W+", "-", f"{finding.peer}-{one.property}").strip("-")
        numbers[stem] += 1
        place = folder / f"{stem}-{numbers[stem]}"
        place.mkdir(parents=True, exist_ok=True)
        finding.folder = place.name
        onnx.save(one.drawn.model, place / "model.onnx")
        told = [
            f"{finding.peer}: {one.property}: {one.reason}",
            f"What must hold: {properties.PROPERTIES[one.property]}.",
            f"Seen on {finding.count} graphs; the first: {finding.first}",
            *([f"This is the hard case: {finding.star}"] if finding.star else []),
            "",
            text(one.drawn.model),
        ]
        if one.after is not None:
            onnx.save(one.after, place / "result.onnx")
            told += ["", "becomes", "", text(one.after)]
        (place / "finding.txt").write_text("\n".join(told) + "\n", encoding="utf-8")


@dataclass
class Tally:
    """What was counted of one peer."""

    peer: str
    version: str = ""
    missing: str = ""
    graphs: int = 0
    seed: int = 0
    seconds: float = 0.0
    crashes: int = 0
    broken: Counter[str] = field(default_factory=Counter[str])
    findings: list[Finding] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """For the results."""
        return {
            "peer": self.peer,
            "version": self.version,
            **({"missing": self.missing} if self.missing else {}),
            "graphs": self.graphs,
            "seeds": [self.seed],
            "date": datetime.date.today().isoformat(),
            "seconds": round(self.seconds, 1),
            "crashes": self.crashes,
            "broken": dict(sorted(self.broken.items())),
            "findings": [f.row() for f in self.findings],
        }
