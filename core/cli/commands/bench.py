"""`rewrite bench MODEL`: what engines make of a model, or of two."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from onnx_rewrite.cli import arguments, output
from onnx_rewrite.errors import UsageError

if TYPE_CHECKING:
    from onnx_rewrite.engines.protocol import Engine
    from onnx_rewrite.report.schema import BenchmarkReport

EXIT_NOT_BUILT = 1


def bench(
    model: arguments.PathOrStdio | None = None,
    /,
    *,
    compare: arguments.PathOrStdio | None = None,
    engines: str = "auto",
    precision: str | None = None,
    inputs: str | None = None,
    shape: tuple[str, ...] = (),
    seed: int = 0,
    workspace: int | None = None,
    level: int | None = None,
    tactic_sources: str | None = None,
    timing_cache: str | None = None,
    hardware_compatibility: Literal["none", "ampere+", "same"] | None = None,
    compute_capability: str | None = None,
    plugin: tuple[str, ...] = (),
    cache: Literal["on", "off"] = "on",
    duration: float | None = None,
    iterations: int = 10,
    warmup: float = 200.0,
    streams: int = 1,
    cuda_graph: Literal["on", "off"] = "on",
    transfers: bool = False,
    profile: bool = False,
    where: tuple[str, ...] = (),
    export_times: str | None = None,
    export_profile: str | None = None,
    export_layers: str | None = None,
    export_outputs: str | None = None,
    export_engine: str | None = None,
    export_log: str | None = None,
    log: str | None = None,
    nsys: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Measures; `onnx_rewrite.cli.texts.BENCH` describes the options. Returns 1 if an engine could not be built."""
    if log is not None:
        if model is not None:
            raise UsageError("--log analyses a log and takes no model")
        return _log(log, as_json=as_json)
    if model is None:
        raise UsageError("a model is needed", hint="rewrite bench MODEL, or rewrite bench --log FILE")
    if model == compare == "-":
        raise UsageError("only one of the two models can come from standard input")
    if nsys is not None:
        from onnx_rewrite.engines import nsight

        return nsight.run(nsys, sys.argv[1:])
    if duration is not None and duration < 0:
        raise UsageError("--duration: seconds cannot be negative")
    from onnx_rewrite.engines.options import BuildOptions, parse_profiles

    plain, profiles = parse_profiles(shape)
    shapes = arguments.parse_shapes(plain)
    options = BuildOptions(
        workspace=workspace,
        tactic_sources=None if tactic_sources is None else tuple(filter(None, tactic_sources.split(","))),
        level=level,
        timing_cache=timing_cache,
        hardware_compatibility=hardware_compatibility,
        plugins=plugin,
        compute_capability=compute_capability,
        cache=cache == "on",
        graph=cuda_graph == "on",
        transfers=transfers,
        streams=streams,
    )
    for name, path in (
        ("times", export_times),
        ("profile", export_profile),
        ("layers", export_layers),
        ("outputs", export_outputs),
        ("engine", export_engine),
        ("log", export_log),
    ):
        if path is not None:
            arguments.writable(path, f"--export-{name}")
    from onnx_rewrite import pipeline
    from onnx_rewrite.engines import registry
    from onnx_rewrite.engines.timing import Effort

    wanted = () if precision is None else tuple(precision.split(","))
    if export_log is not None:
        open(export_log, "w", encoding="utf-8").close()
    chosen = registry.choose(engines, options, precisions=wanted, log=export_log)
    exports = {
        "times": export_times,
        "profile": export_profile,
        "layers": export_layers,
        "outputs": export_outputs,
        "engine": export_engine,
    }
    notes: list[str] = []

    def watch(row: BenchmarkReport, engine: Engine, feed: Mapping[str, Any] | None) -> None:
        notes.extend(_export(exports, row, engine, feed, two=compare is not None, several=len(chosen.backends) > 1))

    with output.tracked() as progress:
        rows = pipeline.bench(
            model,
            compare,
            backends=chosen.backends,
            inputs=inputs,
            shapes=shapes or None,
            seed=seed,
            progress=progress,
            profiles=profiles,
            effort=Effort(warmup / 1e3, duration, iterations),
            profile=profile or bool(where) or export_profile is not None,
            watch=watch,
        )
    missing = chosen.missing
    if as_json:
        from onnx_rewrite.report.codec import encode
        from onnx_rewrite.report.schema import SCHEMA_VERSION

        print(json.dumps({"schema": SCHEMA_VERSION, "benchmark": encode(rows)}, indent=2, ensure_ascii=False))
        for lack in missing:
            print(f"not on this machine: {lack}", file=sys.stderr)
    else:
        from onnx_rewrite.report import layers, measurements

        console = output.console()
        measurements.render(rows, console, missing=missing)
        for row in rows:
            if profile and row.profile:
                layers.render(row, console)
            if where and row.profile:
                layers.render_destinations(row, where, console)
        for note in notes:
            console.print(note, markup=False, soft_wrap=True)
    return 0 if all(row.built for row in rows) else EXIT_NOT_BUILT


def _export(
    wanted: Mapping[str, str | None],
    row: BenchmarkReport,
    engine: Engine,
    feed: Mapping[str, Any] | None,
    *,
    two: bool,
    several: bool,
) -> list[str]:
    """Writes the files that are wanted and that there is something for; returns a line for each."""
    from onnx_rewrite.engines import exports

    side = ".".join(
        part for part in (f"{row.engine}-{row.precision}" if several else "", row.model if two else "") if part
    )
    texts: dict[str, str | bytes] = {}
    if wanted["times"] and engine.timings:
        texts["times"] = exports.times(engine.timings)
    raw = getattr(engine, "raw_profile", None)
    if wanted["profile"] and raw:
        texts["profile"] = exports.profile(raw)
    if wanted["layers"]:
        texts["layers"] = exports.layers(engine.layers, str(getattr(engine, "information", "")))
    if wanted["outputs"] and feed is not None and engine.obstacle is None and row.latency_ms.median is not None:
        texts["outputs"] = exports.outputs(engine.run(feed))
    data = getattr(engine, "data", None)
    if wanted["engine"] and data:
        texts["engine"] = data
    lines: list[str] = []
    for name, path in wanted.items():
        if path is not None and name in texts:
            lines.append(f"{name:8} {exports.write(path, texts[name], side=side or None)}")
        elif path is not None and name == "engine":
            lines.append(f"{name:8} not written: {row.engine} has no engine that a file could hold")
        elif path is not None:
            lines.append(f"{name:8} not written: {row.engine} was not run, or does not tell")
    return lines


def _log(path: str, *, as_json: bool) -> int:
    """Prints the analysis of a verbose build log."""
    from onnx_rewrite.engines import trt_log
    from onnx_rewrite.errors import ModelError

    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = trt_log.analyse(file)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    if as_json:
        from onnx_rewrite.report.codec import encode

        print(json.dumps(encode(found), indent=2, ensure_ascii=False))
    else:
        from onnx_rewrite.report import build_log

        build_log.render(found, output.console())
    return 0
