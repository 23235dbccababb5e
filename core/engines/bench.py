"""Builds engines of two models, runs them in turn, and says what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from onnx_rewrite.engines.protocol import Backend, Engine, Model, Profile
from onnx_rewrite.engines.timing import Effort, latency, take_turns
from onnx_rewrite.engines.trials import Trials, largest_difference, trials
from onnx_rewrite.errors import OnnxRewriteError
from onnx_rewrite.report.schema import BenchmarkReport
from onnx_rewrite.verify.dtypes import Array

Side = Literal["before", "after"]


class Progress(Protocol):
    """Is told what a long comparison is doing."""

    def stage(self, name: str, total: int | None = None) -> None:
        """A new stage begins."""
        ...


def compare(
    before: Model | None,
    after: Model,
    engines: Sequence[Backend],
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    inputs: Sequence[Mapping[str, Array]] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    effort: Effort | None = None,
) -> list[BenchmarkReport]:
    """Measures two models, or one, with each of some engines.

    What an engine cannot do is in its rows, in its own words: `built` is false and `error` set where it refused the
    model, `built` true and `error` set where it failed to run; the rest goes on.

    Args:
        before: The original; None to measure one model alone.
        after: The other one, with the same inputs.
        engines: From `onnx_rewrite.engines.registry`.
        shapes: Shapes by input name for a drawn feed. Inputs with dynamic dimensions are built for the shapes of the
            feed alone (min = opt = max).
        inputs: Feeds: the first is timed, all are compared. None: one of amplitude 1 is drawn.
        seed: The source of randomness of the drawn feed.
        progress: Told what is going on.
        effort: How long each engine is run.

    Returns:
        One row per engine and model, those of one engine together, `before` first. `max_abs_error` is the distance of
        the outputs from onnxruntime's on the same model, in fp32 with optimisations off.

    Raises:
        UsageError: `inputs` or `shapes` do not fit.
    """
    models: dict[Side, Model] = {"after": after} if before is None else {"before": before, "after": after}
    if progress is not None:
        progress.stage("preparing the measurements")
    found = trials(list(models.values()), shapes=shapes, inputs=inputs, seed=seed)
    rows: list[BenchmarkReport] = []
    for backend in engines:
        rows += _measured(backend, models, found, progress, effort or Effort())
    return rows


def _measured(
    backend: Backend, models: Mapping[Side, Model], found: Trials, progress: Progress | None, effort: Effort
) -> list[BenchmarkReport]:
    rows: list[BenchmarkReport] = []
    ready: list[tuple[BenchmarkReport, Engine]] = []
    profiles = {name: Profile.fixed(*shape) for name, shape in found.shapes.items()}
    shapes = {name: list(shape) for name, shape in found.shapes.items()}
    for side, model in models.items():
        if progress is not None:
            progress.stage(f"{backend.name}: building the model {side}" if len(models) > 1 else backend.name)
        row = BenchmarkReport(backend.name, backend.version(), model=side, shapes=shapes)
        rows.append(row)
        try:
            engine = backend.build(model, profiles=profiles)
        except OnnxRewriteError as error:
            row.error = str(error)
            continue
        _describe(row, engine)
        if engine.obstacle is None and found.feeds:
            ready.append((row, engine))
        elif engine.obstacle is None:
            row.error = f"not run: {found.obstacle}"
    _copy_device(rows)
    if progress is not None and ready:
        progress.stage(f"{backend.name}: measuring")
    expected = dict(zip(models, found.expected, strict=True))
    runnable: list[tuple[BenchmarkReport, Engine]] = []
    for row, engine in ready:
        try:
            row.max_abs_error = _error(engine, found.feeds, expected[row.model])
        except OnnxRewriteError as error:
            row.error = f"not run: {error}"
        else:
            runnable.append((row, engine))
    try:
        take_turns([engine for _, engine in runnable], found.feeds[0] if found.feeds else {}, effort)
    except OnnxRewriteError as error:
        for row, _ in runnable:
            row.error = f"not run to the end: {error}"
        return rows
    for row, engine in runnable:
        seconds = [one.seconds for one in engine.timings]
        row.latency_ms = latency(seconds)
        row.throughput = len(seconds) / sum(seconds)
    return rows


def _describe(row: BenchmarkReport, engine: Engine) -> None:
    row.built = True
    row.device = engine.device
    row.precision = engine.precision
    row.build_seconds = round(engine.build_seconds, 6)
    row.engine_bytes = engine.size
    row.layers = len(engine.layers)


def _copy_device(rows: Sequence[BenchmarkReport]) -> None:
    """A row that was not built is of the same device as the one that was."""
    built = next((row for row in rows if row.built), None)
    for row in rows:
        if built is not None and not row.built:
            row.device, row.precision = built.device, built.precision


def _error(engine: Engine, feeds: Sequence[Mapping[str, Array]], expected: Sequence[object]) -> float | None:
    """The largest difference on all feeds; None where there is nothing to hold the outputs against."""
    worst: float | None = None
    for feed, want in zip(feeds, expected, strict=True):
        outputs = engine.run(feed)
        if isinstance(want, dict):
            worst = max(worst or 0.0, largest_difference(outputs, want))
    return worst
