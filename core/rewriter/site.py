"""A place where a pattern stood, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import onnx

from onnx_rewrite.verdict import Verification

Status = Literal["applied", "refused", "rolled_back", "skipped"]

Judge = Callable[[onnx.ModelProto, onnx.ModelProto], Verification]
"""Compares two models of one site: before, after."""


@dataclass
class Site:
    """One match of one pass.

    Attributes:
        id: Pass name and number, "ln[3]"; numbers follow the order of the graph.
        pass_name: The pass.
        nodes: Names of the matched nodes (an unnamed one goes by its first output).
        inputs: Names of the values that flow in.
        outputs: Names of the values that are replaced.
        status: What was done. "refused": the pass, the model's opset or another use of an interior value forbids
            it; "rolled_back": it was not equivalent, or could not be built; "skipped": not chosen.
        reason: Why it was not applied, or None.
        verification: The judgement on this site.
        note: What the pass wrote, in its own words, or None.
        number: Place of the edit among all edits of the run.
        before: The cut-out as it was, kept where it was rolled back.
        after: The cut-out as it would have been, likewise.
    """

    id: str
    pass_name: str
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    status: Status
    reason: str | None = None
    verification: Verification = field(default_factory=lambda: Verification("not verified"))
    number: int = 0
    note: str | None = None
    before: onnx.ModelProto | None = field(default=None, repr=False)
    after: onnx.ModelProto | None = field(default=None, repr=False)


@dataclass
class Seconds:
    """Wall time of one pass, in seconds."""

    match: float = 0.0
    apply: float = 0.0
    verify: float = 0.0
