"""`run`: from a model and a list of passes to a verified result."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, Protocol

import numpy as np

from onnx_rewrite import registry
from onnx_rewrite.custom import Files, knowing_adapters
from onnx_rewrite.engines import registry as registry_of_engines
from onnx_rewrite.engines.trt_legacy import LAST_OF_8, misread
from onnx_rewrite.errors import NotEquivalentError, UsageError
from onnx_rewrite.model import LoadedModel, load, reload, to_proto
from onnx_rewrite.pipeline import reporting
from onnx_rewrite.pipeline.capturing import capture
from onnx_rewrite.pipeline.driving import PassRun
from onnx_rewrite.pipeline.graphsurgeon import Conditions
from onnx_rewrite.pipeline.probing import Probe
from onnx_rewrite.pipeline.result import Result
from onnx_rewrite.pipeline.stages import Stages
from onnx_rewrite.pipeline.whole import Whole
from onnx_rewrite.report.schema import Report, TotalSeconds
from onnx_rewrite.rewriter.functions import drop_functions
from onnx_rewrite.rewriter.listing import Selection
from onnx_rewrite.rewriter.standing_in import resolved
from onnx_rewrite.verdict import Verification
from onnx_rewrite.verify import LocalJudge, check_feeds, load_inputs
from onnx_rewrite.verify.deployment import optimiser_fault

TARGETS = ("onnx", "onnxruntime", "tensorrt-8.6", "tensorrt-10", "tensorrt-11", "tensorrt-rtx")

Feeds = Sequence[Mapping[str, np.ndarray[Any, np.dtype[Any]]]]


class Progress(Protocol):
    """Is told what a long run is doing."""

    def stage(self, name: str, total: int | None = None) -> None:
        """A new stage begins, of `total` steps if that is known."""
        ...

    def advance(self, n: int = 1) -> None:
        """`n` steps of the stage are done."""
        ...


class _Silent:
    def stage(self, name: str, total: int | None = None) -> None: ...

    def advance(self, n: int = 1) -> None: ...


@knowing_adapters
def run(
    source: Any,
    passes: Any,
    *,
    target: str = "onnx",
    opset: int | Literal["keep"] | None = None,
    inputs: str | os.PathLike[str] | Feeds | Mapping[str, np.ndarray[Any, np.dtype[Any]]] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    verify: Literal["full", "local", "off"] = "full",
    only: Sequence[str] | str | None = None,
    skip: Sequence[str] | str | None = None,
    accept: Sequence[str] = (),
    strict: bool = False,
    seed: int = 0,
    feeds_per_site: int | None = None,
    bench: Sequence[str] | str = (),
    print_between_passes: str | os.PathLike[str] | None = None,
    adapters: Files | None = None,
    progress: Progress | None = None,
) -> Result:
    """Rewrites a model; the model that is given is not changed.

    Args:
        source: A path ("-" is standard input), bytes, `onnx.ModelProto`, `onnx_ir.Model` or `gs.Graph`.
        passes: "ln,clip", a pass, or several of either, in the order in which they are tried.
        target: For whom: "onnx", "onnxruntime", "tensorrt-8.6", "tensorrt-10", "tensorrt-11" or "tensorrt-rtx".
        opset: The highest opset that the model may be raised to, "keep", or None: as high as a pass needs.
        inputs: Feeds for the verdict on the whole model: a .npz file, a folder of them or of test_data_set_N, one
            mapping of arrays by input name, or several; None: drawn ones.
        shapes: Shapes by input name for drawn feeds.
        verify: "full" judges each site and the whole model, "local" each site, "off" nothing.
        only: Site ids ("ln[3]") or regular expressions on node names; other sites are left.
        skip: The same, for sites that are left.
        accept: "inconclusive" keeps replacements that ran but could not be judged.
        strict: Raise where anything was rolled back or could not be verified.
        seed: The source of randomness of drawn feeds.
        feeds_per_site: How many feeds each replacement is judged on; None: about a dozen, of all regimes.
        bench: Engines that are built of the model before and after, run where this machine can, and measured:
            "onnxruntime,tensorrt-rtx", or a sequence of names; "auto": those that this machine has.
        print_between_passes: A folder that gets the model as it was read, and as it is after each turn of a pass that
            changed it: "00.input.onnx", "01.ln.onnx", ...
        adapters: Files that say how exporters write custom operators, beside what is known (plugins/README.md).
        progress: Told what is going on.

    Returns:
        The rewritten model and the report.

    Raises:
        ModelError: The model cannot be read.
        UsageError: A pass, an option, `inputs`, `shapes` or `adapters` are wrong, or an engine of `bench` is not
            available.
        NotEquivalentError: The result differs from the original, or `strict` and something is in doubt; its
            `report` says what.
    """
    began = perf_counter()
    tell = progress or _Silent()
    if target not in TARGETS:
        raise UsageError(f"unknown target '{target}'", hint=f"one of: {', '.join(TARGETS)}")
    chosen = registry.resolve(passes)
    selection = Selection(_listed(only), _listed(skip))
    if bench:
        registry_of_engines.choose(bench)
    tell.stage("loading")
    loaded = load(source)
    feeds = feeds_for(inputs, loaded)
    report = Report(model=reporting.model_info(loaded))
    if feeds_per_site is not None and feeds_per_site < 1:
        raise UsageError(f"{feeds_per_site} feeds per site judge nothing", hint="at least 1, or --verify off")
    judge = None if verify == "off" else LocalJudge(seed=seed, feeds=feeds_per_site)
    if verify != "off":
        _refuse_bad_shapes(loaded, shapes)

    stages = None if print_between_passes is None else Stages(Path(print_between_passes))
    if stages is not None:
        stages.write(loaded, "input")

    too_new: list[str] = []
    """Why the model could not be written in an opset that its target reads rightly."""

    def drive(model: LoadedModel, denied: frozenset[tuple[str, tuple[str, ...]]], *, judged: bool) -> PassRun:
        def turned(name: str) -> None:
            if stages is not None and model is loaded:
                stages.write(model, name)

        driven = PassRun(
            model,
            chosen,
            judge=judge if judged else None,
            conditions=Conditions(
                verify=judged and judge is not None,
                feeds=feeds,
                shapes=shapes,
                seed=seed,
                opset=opset,
                selection=selection,
                accept_inconclusive="inconclusive" in accept,
                denied=denied,
                kept=loaded.kept_names,
            ),
            target=target,
            learn=None if verify == "off" else Probe(loaded, model.ir, feeds, shapes, seed),
            found=lambda site: tell.advance(),
            after=turned,
        )
        driven.run()
        if target == "tensorrt-8.6" and opset != "keep" and misread(model.ir) is not None:
            too_new[:] = filter(None, [driven.lower(LAST_OF_8)])
        return driven

    uncaptured: str | None = None
    if feeds and judge is not None:
        tell.stage("capturing what flows into the sites")
        planned = drive(reload(loaded), frozenset(), judged=False)
        judge.captured, uncaptured = capture(loaded, feeds, [s for one in planned.sites.values() for s in one])
    tell.stage("rewriting")
    driver = drive(loaded, frozenset(), judged=True)
    verdict: Verification | None = None
    if verify == "full" and not feeds and not _changed(driver):
        verdict = Verification("equivalent")  # to itself: running a large model in float64 would only tell that again
    elif verify == "full":
        tell.stage("verifying the whole model")
        whole = Whole(loaded, feeds, shapes, seed, drive)
        loaded, driver, verdict = whole.settled(loaded, driver)
    if target == "tensorrt-8.6":  # it knows no functions
        drop_functions(loaded.ir)
    report.output = reporting.output_info(loaded.ir)
    report.passes = reporting.pass_reports(driver)
    report.verification = None if verdict is None else reporting.model_verification(verdict)
    report.warnings = _warnings(driver, verdict, verify)
    if uncaptured is not None:
        report.warnings.append(uncaptured)
    overlooked = misread(loaded.ir) if target == "tensorrt-8.6" else None
    if overlooked is not None:
        reason = f"; lowering it here failed: {too_new[0]}" if too_new else ""
        report.warnings.append(f"{overlooked}{reason}")
    report.seconds = TotalSeconds(round(perf_counter() - began, 6))
    report.peak_rss_mb = reporting.peak_rss_mb()
    sites = [site for one in driver.passes for site in driver.sites[one.name]]
    result = Result(report, sites, changed=_changed(driver), _loaded=loaded, _judge=judge, adapters=adapters)
    _judge_run(result, verdict, strict=strict, verify=verify)
    if verdict is not None and verdict.equivalent and result.changed:
        fault = optimiser_fault(resolved(to_proto(loaded)), None if loaded.base_dir is None else str(loaded.base_dir))
        report.warnings += [] if fault is None else [fault]
    if bench:
        from onnx_rewrite.pipeline.measuring import measure

        measure(result, bench, inputs=inputs, shapes=shapes, seed=seed, progress=progress)
    return result


def _changed(driver: PassRun) -> bool:
    return bool(driver.raised) or any(s.status == "applied" for sites in driver.sites.values() for s in sites)


def _listed(chosen: Sequence[str] | str | None) -> Sequence[str]:
    return () if chosen is None else (chosen,) if isinstance(chosen, str) else tuple(chosen)


def feeds_for(inputs: Any, loaded: LoadedModel) -> Feeds | None:
    """The feeds that a user gave, checked against the model; None if there are none.

    Raises:
        UsageError: They cannot be read, or do not fit the model.
    """
    if inputs is None:
        return None
    initializers = {t.name for t in loaded.proto.graph.initializer}
    names = [v.name for v in loaded.proto.graph.input if v.name not in initializers]
    if isinstance(inputs, (str, os.PathLike)):
        found: Feeds = load_inputs(Path(inputs), names)
    else:
        found = [inputs] if isinstance(inputs, Mapping) else list(inputs)
    if not found:
        raise UsageError("there are no inputs to verify with")
    for feed in found:
        check_feeds(loaded.proto, feed)
    return found


def _refuse_bad_shapes(loaded: LoadedModel, shapes: Mapping[str, Sequence[int]] | None) -> None:
    if shapes:
        from onnx_rewrite.verify.inputs import check_shapes

        check_shapes(loaded.proto, shapes)


def _warnings(driver: PassRun, verdict: Verification | None, verify: str) -> list[str]:
    found: list[str] = []
    applied = [s for sites in driver.sites.values() for s in sites if s.status == "applied"]
    blind = [s for s in applied if s.verification.verdict != "equivalent"]
    if verify == "off" and applied:
        found.append("nothing was verified (--verify off)")
    elif blind:
        some = ", ".join(s.id for s in blind[:5]) + (", ..." if len(blind) > 5 else "")
        found.append(f"{len(blind)} of {len(applied)} replacements were not verified where they happened: {some}")
    if verdict is not None and verdict.verdict in ("not verified", "inconclusive"):
        found.append(f"the whole model was not verified: {verdict.reason}")
    return found


def _judge_run(result: Result, verdict: Verification | None, *, strict: bool, verify: str) -> None:
    """Raises where the run may not end well: the whole differs, or `strict` and something is in doubt."""
    failed: str | None = None
    if verdict is not None and verdict.verdict == "different":
        failed = f"the rewritten model is not equivalent to the original: {verdict.reason}"
    elif strict:
        backs = [s for s in result.sites if s.status == "rolled_back"]
        if backs:
            failed = f"--strict: {backs[0].id} was rolled back: {backs[0].reason}"
        elif result.report.warnings:
            failed = f"--strict: {result.report.warnings[0]}"
    if failed is not None:
        error = NotEquivalentError(failed, hint="nothing was written")
        error.report = result.report
        error.result = result
        raise error
