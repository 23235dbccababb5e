"""Measuring: the engines of a model before and after, or of any two models."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from onnx_rewrite.custom import using
from onnx_rewrite.engines import registry
from onnx_rewrite.engines.bench import Watch, compare
from onnx_rewrite.engines.protocol import Backend, Model, Profile
from onnx_rewrite.engines.timing import Effort
from onnx_rewrite.errors import UsageError
from onnx_rewrite.model import LoadedModel, load, to_proto
from onnx_rewrite.pipeline import running
from onnx_rewrite.pipeline.result import Result
from onnx_rewrite.report.schema import BenchmarkReport
from onnx_rewrite.verify.bindings import fed_inputs


def bench(
    model: Any,
    before: Any | None = None,
    *,
    engines: str | Sequence[str] = registry.AUTO,
    inputs: str | os.PathLike[str] | Any | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    progress: running.Progress | None = None,
    backends: Sequence[Backend] | None = None,
    profiles: Mapping[str, Profile] | None = None,
    effort: Effort | None = None,
    profile: bool = False,
    watch: Watch | None = None,
) -> list[BenchmarkReport]:
    """Builds engines of a model, runs them where this machine can, and measures; or of two, in turn.

    Args:
        model: A path, bytes, a ModelProto, an onnx_ir.Model or a gs.Graph.
        before: What it is compared with: a model with the same inputs.
        engines: "onnxruntime,tensorrt-rtx" or a sequence of names; "auto": those that this machine has.
        inputs: Feeds, as for `rewrite`: the first one is timed. None: one is drawn.
        shapes: Shapes by input name for a drawn feed.
        seed: The source of randomness of a drawn feed.
        progress: Told what is going on.
        backends: Engines with options of their own, in place of `engines`.
        profiles: Shapes that engines are built for, by input name; None: those that are fed.
        effort: How long each engine is run; None: as long as trtexec does on a GPU, a second elsewhere.
        profile: Whether the rows list the engines' layers, with their times where the engine tells them.
        watch: Told of each row, its engine, and the feed that was timed.

    Returns:
        One row per engine and model; a failure is in its row.

    Raises:
        ModelError: A model cannot be read.
        UsageError: An engine is unknown or, named, not available; `inputs` or `shapes` do not fit; the two models have
            different inputs.
    """
    chosen = registry.choose(engines).backends if backends is None else backends
    second = load(model)
    first = None if before is None else load(before)
    if first is not None:
        have, want = (sorted(value.name for value in fed_inputs(one.proto)) for one in (second, first))
        if have != want:
            raise UsageError(
                f"the two models have different inputs: {', '.join(want)} before and {', '.join(have)} after"
            )
    return compare(
        None if first is None else _as_read(first),
        _as_read(second),
        chosen,
        shapes=shapes,
        inputs=running.feeds_for(inputs, first or second),
        seed=seed,
        progress=progress,
        effort=effort,
        profiles=profiles,
        profile=profile,
        watch=watch,
    )


def measure(
    result: Result,
    engines: str | Sequence[str] = registry.AUTO,
    *,
    inputs: str | os.PathLike[str] | Any | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    progress: running.Progress | None = None,
) -> list[BenchmarkReport]:
    """Measures what a run gained, and puts the rows into its report; the arguments are those of `bench`."""
    backends = registry.choose(engines).backends
    loaded = result.loaded
    with using(result.adapters):
        rows = compare(
            _as_read(loaded),
            Model(to_proto(loaded), loaded.base_dir),
            backends,
            shapes=shapes,
            inputs=running.feeds_for(inputs, loaded),
            seed=seed,
            progress=progress,
        )
    result.report.benchmark = rows
    return rows


def _as_read(loaded: LoadedModel) -> Model:
    return Model(loaded.proto, loaded.base_dir)
