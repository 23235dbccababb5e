"""Builds engines of two models, runs them in turn, and says what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

from onnx_rewrite.engines.nsight import span
from onnx_rewrite.engines.options import merged
from onnx_rewrite.engines.precision import stated
from onnx_rewrite.engines.protocol import Backend, Bursting, Engine, Layer, Model, Profile, Profiled
from onnx_rewrite.engines.timing import Effort, latency, ratio, spans, take_turns, warnings
from onnx_rewrite.engines.trials import Trials, largest_difference, trials
from onnx_rewrite.errors import OnnxRewriteError
from onnx_rewrite.report.schema import BenchmarkReport, LayerReport
from onnx_rewrite.verify.dtypes import Array

Side = Literal["before", "after"]


Watch = Callable[[BenchmarkReport, Engine, "Mapping[str, Array] | None"], None]
"""Is told of a row, its engine, and the feed that was timed."""


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
    profiles: Mapping[str, Profile] | None = None,
    profile: bool = False,
    watch: Watch | None = None,
    known: Trials | None = None,
) -> list[BenchmarkReport]:
    """Measures two models, or one, with each of some engines.

    What an engine cannot do is in its rows, in its own words: `built` is false and `error` set where it refused the
    model, `built` true and `error` set where it failed to run; the rest goes on.

    Args:
        before: The original; None to measure one model alone.
        after: The other one, with the same inputs.
        engines: From `onnx_rewrite.engines.registry`.
        shapes: Shapes by input name for a drawn feed. Inputs with dynamic dimensions are built for the shapes of the
            feed alone (min = opt = max), unless `profiles` says more.
        inputs: Feeds: the first is timed, all are compared. None: one of amplitude 1 is drawn.
        seed: The source of randomness of the drawn feed.
        progress: Told what is going on.
        effort: How long each engine is run.
        profiles: By input name: what engines are built for.
        profile: Whether the rows list the layers, with their times where an engine can be profiled.
        watch: Told of each engine that was built, and run where it could be.
        known: Feeds, and what the models give for them, where that was computed before; in place of `inputs`.

    Returns:
        One row per engine and model, those of one engine together, `before` first. `max_abs_error` is the distance of
        the outputs from onnxruntime's on the same model, in fp32 with optimisations off.

    Raises:
        UsageError: `inputs` or `shapes` do not fit.
    """
    models: dict[Side, Model] = {"after": after} if before is None else {"before": before, "after": after}
    if progress is not None:
        progress.stage("preparing the measurements")
    found = known or trials(list(models.values()), shapes=shapes, inputs=inputs, seed=seed)
    rows: list[BenchmarkReport] = []
    wanted = merged(found.shapes, profiles or {})
    for backend in engines:
        measured = _measured(backend, models, found, wanted, progress, effort or Effort(), profile)
        rows += [row for row, _ in measured]
        if watch is not None:
            for row, engine in measured:
                if engine is not None:
                    watch(row, engine, found.feeds[0] if found.feeds else None)
    return rows


def _measured(
    backend: Backend,
    models: Mapping[Side, Model],
    found: Trials,
    profiles: Mapping[str, Profile],
    progress: Progress | None,
    effort: Effort,
    profile: bool,
) -> list[tuple[BenchmarkReport, Engine | None]]:
    rows: list[BenchmarkReport] = []
    built: list[Engine | None] = []
    ready: list[tuple[BenchmarkReport, Engine]] = []
    shapes = {name: list(shape) for name, shape in found.shapes.items()}
    for side, model in models.items():
        if progress is not None:
            progress.stage(f"{backend.name}: building the model {side}" if len(models) > 1 else backend.name)
        row = BenchmarkReport(backend.name, backend.version(), model=side, shapes=shapes)
        row.precision = getattr(getattr(backend, "options", None), "precision", None) or stated(model.proto)
        rows.append(row)
        built.append(None)
        try:
            with span(f"build {side}"):
                engine = backend.build(model, profiles=profiles)
        except OnnxRewriteError as error:
            row.error = str(error)
            continue
        built[-1] = engine
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
            with span(f"check {row.model}"):
                row.max_abs_error, row.relative_error = _error(engine, found.feeds, expected[row.model])
        except OnnxRewriteError as error:
            row.error = f"not run: {error}"
        else:
            runnable.append((row, engine))
    feed = found.feeds[0] if found.feeds else {}
    try:
        take_turns([engine for _, engine in runnable], feed, effort, names=[row.model for row, _ in runnable])
    except OnnxRewriteError as error:
        for row, _ in runnable:
            row.error = f"not run to the end: {error}"
        return list(zip(rows, built, strict=True))
    for row, engine in runnable:
        _times(row, engine)
        if profile and isinstance(engine, Profiled):
            try:
                with span(f"profile {row.model}"):
                    engine.profile(feed)
            except OnnxRewriteError as error:
                row.warnings.append(f"no profile: {error}")
    if len(runnable) == 2:
        first, second = ([one.seconds for one in engine.timings] for _, engine in runnable)
        runnable[1][0].ratio = ratio(first, second)
    if profile:
        for row, engine in zip(rows, built, strict=True):
            if engine is not None:
                row.profile = [_layer(layer) for layer in engine.layers]
    return list(zip(rows, built, strict=True))


def _times(row: BenchmarkReport, engine: Engine) -> None:
    seconds = [one.seconds for one in engine.timings]
    row.latency_ms = latency(seconds)
    if not isinstance(engine, Bursting):
        row.throughput = len(seconds) / sum(seconds)
        return
    wall = sum(one for _, one in engine.bursts)
    row.throughput = sum(count for count, _ in engine.bursts) / wall if wall else None
    phases = [one.phases for one in engine.timings if one.phases is not None]
    if phases:
        row.parts_ms = spans(phases)
        notes = [str(note) for note in getattr(engine, "notes", ())]
        row.warnings += [*notes, *warnings(row.parts_ms, graph=bool(getattr(engine, "graphed", False)))]


def _layer(layer: Layer) -> LayerReport:
    return LayerReport(layer.name, layer.kind, list(layer.nodes), layer.tactic, layer.types, layer.milliseconds)


def _describe(row: BenchmarkReport, engine: Engine) -> None:
    row.built = True
    row.device = engine.device
    row.precision = engine.precision
    row.build_seconds = round(engine.build_seconds, 6)
    row.engine_bytes = engine.size
    row.layers = len(engine.layers) if engine.layers or getattr(engine, "layers_known", True) else None
    row.cached = bool(getattr(engine, "cached", False))
    row.warnings += [str(words) for words in getattr(engine, "warnings", ())]


def _copy_device(rows: Sequence[BenchmarkReport]) -> None:
    """A row that was not built is of the same device as the one that was."""
    built = next((row for row in rows if row.built), None)
    for row in rows:
        if built is not None and not row.built:
            row.device, row.precision = built.device, built.precision


def _error(
    engine: Engine, feeds: Sequence[Mapping[str, Array]], expected: Sequence[object]
) -> tuple[float | None, float | None]:
    """The largest differences on all feeds; None where there is nothing to hold the outputs against."""
    found: list[tuple[float, float]] = []
    for feed, want in zip(feeds, expected, strict=True):
        outputs = engine.run(feed)
        if isinstance(want, dict):
            found.append(largest_difference(outputs, want))
    return (max(a for a, _ in found), max(r for _, r in found)) if found else (None, None)
