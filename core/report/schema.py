"""The report as typed objects, and as the JSON that `rewrite --report FILE.json` writes.

One dataclass per JSON object, one field per key, in the order in which the keys are written. README.md in this
folder says what every key means. This module imports nothing from the rest of the package, so that a program
that only reads reports pays for nothing else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from onnx_rewrite.report import codec

SCHEMA_VERSION = 1
"""Value of the key "schema". It grows when a key is renamed, removed or changes its meaning, not when one is added."""

SiteStatus = Literal["applied", "refused", "rolled_back"]
ReportedVerdict = Literal["equivalent", "different", "inconclusive", "not verified"]


@dataclass
class ModelInfo:
    """The model as it was read.

    Attributes:
        path: The file, "-" for standard input, or None where the model was an object in memory.
        sha256: Of the file (without external data) in hexadecimal; of the serialized model for one in memory.
        opset: Version by domain, "" being the standard one.
        nodes: Number of nodes, those of subgraphs and functions included, Constants not.
    """

    path: str | None = None
    sha256: str = ""
    opset: dict[str, int] = field(default_factory=dict[str, int])
    nodes: int = 0


@dataclass
class OutputInfo:
    """The rewritten model. `path` is None where nothing was written; the rest is as in `ModelInfo`."""

    path: str | None = None
    opset: dict[str, int] = field(default_factory=dict[str, int])
    nodes: int = 0


@dataclass
class SiteVerification:
    """The verdict on one replacement, from feeds run through both versions of the nodes it concerns.

    Attributes:
        verdict: "equivalent", "different", "inconclusive" or "not verified".
        error_before: Largest absolute error of the original nodes against the same nodes in float64.
        error_after: Largest absolute error of the replacement against the original nodes in float64.
        bound: The largest `error_after` that would have been accepted.
        feeds: How many feeds were run.
    """

    verdict: ReportedVerdict = "not verified"
    error_before: float = 0.0
    error_after: float = 0.0
    bound: float = 0.0
    feeds: int = 0


@dataclass
class SiteReport:
    """One place where a pass found its pattern.

    Attributes:
        id: Pass name and a number, "ln[3]": what `--only` and `--skip` take.
        nodes: Names of the nodes that matched.
        inputs: Names of the values that enter the match.
        outputs: Names of the values that leave it.
        status: "applied", "refused" (the pass did not want it) or "rolled_back" (replaced, then undone).
        reason: Why it was refused or rolled back, or why it could not be verified; None otherwise.
        verification: None where nothing was replaced.
        note: What a pass wrote, in its own words, where it has a choice; else None.
    """

    id: str
    nodes: list[str] = field(default_factory=list[str])
    inputs: list[str] = field(default_factory=list[str])
    outputs: list[str] = field(default_factory=list[str])
    status: SiteStatus = "applied"
    reason: str | None = None
    verification: SiteVerification | None = None
    note: str | None = None


@dataclass
class PassSeconds:
    """Wall-clock seconds that one pass took, by kind of work."""

    match: float = 0.0
    apply: float = 0.0
    verify: float = 0.0


@dataclass
class PassReport:
    """What one pass did. The three counts are those of `sites` by status."""

    name: str
    applied: int = 0
    refused: int = 0
    rolled_back: int = 0
    sites: list[SiteReport] = field(default_factory=list[SiteReport])
    seconds: PassSeconds = field(default_factory=PassSeconds)


@dataclass
class ModelVerification:
    """The verdict on the whole model.

    Attributes:
        verdict: As for a site.
        feeds: How many feeds were run.
        worst_output: Name of the graph output with the worst error, None where there is none.
        max_abs_error: Largest absolute error of the outputs, against the original model in float64.
    """

    verdict: ReportedVerdict = "not verified"
    feeds: int = 0
    worst_output: str | None = None
    max_abs_error: float = 0.0


@dataclass
class Latency:
    """Milliseconds of one inference; None where nothing was run.

    Percentiles are trtexec's: of n sorted numbers the one at max(n - 1 - int((1 - p/100) n), 0).

    Attributes:
        median: Half of the inferences were faster.
        p90: 90 of 100 took no longer.
        p99: 99 of 100 took no longer.
        p25: The quartiles say whether two medians differ by more than the inferences of one model do.
        p75: See `p25`.
        p95: 95 of 100 took no longer.
        min: The fastest.
        max: The slowest.
        mean: Of all.
        cv: Coefficient of variation: the standard deviation as a part of the mean.
    """

    median: float | None = None
    p90: float | None = None
    p99: float | None = None
    p25: float | None = None
    p75: float | None = None
    p95: float | None = None
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    cv: float | None = None


@dataclass
class Ratio:
    """How a median latency after relates to the one before, from inferences of both in turn.

    Attributes:
        value: After divided by before; below 1 is faster.
        low: The lower end of its 95 % confidence interval, from a block bootstrap.
        high: The upper end.
    """

    value: float
    low: float
    high: float


@dataclass
class LayerReport:
    """One layer of an engine.

    Attributes:
        name: The library's name for it.
        kind: The library's type of it.
        nodes: Names of the ONNX nodes in it.
        tactic: The kernel or tactic that was chosen.
        types: Types that go in and come out, "FP16 -> FP16".
        milliseconds: Median in a run with a profiler, or None. The sum is more than the engine takes.
    """

    name: str
    kind: str = ""
    nodes: list[str] = field(default_factory=list[str])
    tactic: str = ""
    types: str = ""
    milliseconds: float | None = None


@dataclass
class BenchmarkReport:
    """One engine built from the model before or after, and its measurements.

    Attributes:
        engine: "tensorrt", "tensorrt-rtx" or "onnxruntime".
        version: Of the library.
        device: What it was built for and ran on, in words.
        precision: "fp32", "fp16", ...
        model: Which of the two models.
        built: Whether the engine could be built.
        error: Why it was not built; of one that was, why it could not be run; or None.
        build_seconds: Wall-clock seconds of the build.
        engine_bytes: Size of the serialized engine; for onnxruntime of the optimised model.
        layers: Number of layers of the engine, None where the library does not tell; for onnxruntime of nodes of the
            optimised model.
        latency_ms: Per inference, from the inputs in the host's memory to the outputs there; of an engine on a GPU the
            GPU's own time, with transfers only where they were asked for.
        throughput: Inferences per second, one after another, or None.
        max_abs_error: Largest absolute difference to what onnxruntime gives for the same model in fp32 with
            optimisations off, or None.
        relative_error: The same relative to the largest number of that output, or None.
        shapes: By input name: what it was built for and run on.
        parts_ms: Of an engine on a GPU: "compute", "enqueue" (the host's), "h2d" and "d2h".
        ratio: In the row after: its latency to that of the row before, or None.
        profile: Its layers, where a profile was asked for.
        warnings: What the library or the timing gives cause to doubt.
        cached: Whether the engine was built earlier; `build_seconds` are those of that time.
    """

    engine: str
    version: str = ""
    device: str = ""
    precision: str = "fp32"
    model: Literal["before", "after"] = "after"
    built: bool = False
    error: str | None = None
    build_seconds: float = 0.0
    engine_bytes: int = 0
    layers: int | None = 0
    latency_ms: Latency = field(default_factory=Latency)
    throughput: float | None = None
    max_abs_error: float | None = None
    relative_error: float | None = None
    shapes: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    parts_ms: dict[str, Latency] = field(default_factory=dict[str, Latency])
    ratio: Ratio | None = None
    profile: list[LayerReport] = field(default_factory=list[LayerReport])
    warnings: list[str] = field(default_factory=list[str])
    cached: bool = False


@dataclass
class TotalSeconds:
    """Wall-clock seconds of the whole run, from reading the model to the end of verification."""

    total: float = 0.0


@dataclass
class Report:
    """Everything that one run of `rewrite` did.

    Attributes:
        schema: `SCHEMA_VERSION`.
        model: The model as it was read.
        output: The rewritten model.
        passes: In the order in which they ran.
        verification: The verdict on the whole model, or None with `--verify local` and `--verify off`.
        benchmark: Empty unless engines were measured.
        warnings: What a user should know, one sentence each: what was not verified above all.
        seconds: Of the whole run.
        peak_rss_mb: Peak resident memory of the process in units of 1e6 bytes, 0 where it cannot be read.
    """

    schema: int = SCHEMA_VERSION
    model: ModelInfo = field(default_factory=ModelInfo)
    output: OutputInfo = field(default_factory=OutputInfo)
    passes: list[PassReport] = field(default_factory=list[PassReport])
    verification: ModelVerification | None = None
    benchmark: list[BenchmarkReport] = field(default_factory=list[BenchmarkReport])
    warnings: list[str] = field(default_factory=list[str])
    seconds: TotalSeconds = field(default_factory=TotalSeconds)
    peak_rss_mb: float = 0.0

    @property
    def applied(self) -> int:
        """Number of replacements that are in the output."""
        return sum(p.applied for p in self.passes)

    @property
    def refused(self) -> int:
        """Number of sites that a pass found and left alone."""
        return sum(p.refused for p in self.passes)

    @property
    def rolled_back(self) -> int:
        """Number of replacements that were undone."""
        return sum(p.rolled_back for p in self.passes)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain dicts, lists, strings and numbers, keys in the order of the fields.

        Floats that JSON has no number for become the strings "NaN", "Infinity" and "-Infinity", which both
        Python's `float()` and JavaScript's `Number()` read.
        """
        return codec.encode(self)

    def to_json(self, *, indent: int | None = 2) -> str:
        """The report as JSON text of RFC 8259 (no bare NaN), ending in a newline."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_dict(cls, data: Any) -> Report:
        """The inverse of `to_dict`. Keys it does not know are ignored, missing ones take their default.

        Raises:
            ValueError: The data is of another schema version, or a value has the wrong type; the message says where.
        """
        version = data.get("schema") if isinstance(data, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if version != SCHEMA_VERSION:
            raise ValueError(f"this is not a report of schema {SCHEMA_VERSION} (its key 'schema' is {version!r})")
        return codec.decode(cls, data)

    @classmethod
    def from_json(cls, text: str | bytes) -> Report:
        """The inverse of `to_json`; raises ValueError like `from_dict`, and for text that is not JSON."""
        return cls.from_dict(json.loads(text))
