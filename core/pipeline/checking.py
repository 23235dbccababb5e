"""`check`: the judge, and measures, for any two models."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Literal

from onnx_rewrite.custom import Files, knowing_adapters
from onnx_rewrite.errors import UsageError
from onnx_rewrite.model import load
from onnx_rewrite.pipeline import running
from onnx_rewrite.pipeline.aligning import Aligned, align
from onnx_rewrite.pipeline.layerwise import compare_layers
from onnx_rewrite.pipeline.measuring_pairs import Feeds, Measurement, by_thresholds, only_measured
from onnx_rewrite.verdict import Verification, not_verified
from onnx_rewrite.verify.dtypes import Tolerance
from onnx_rewrite.verify.feeds import Feed
from onnx_rewrite.verify.inputs import check_feeds, check_shapes
from onnx_rewrite.verify.measures import Checked, Layers
from onnx_rewrite.verify.metrics import choose


@knowing_adapters
def check(
    a: Any,
    b: Any,
    *,
    inputs: str | os.PathLike[str] | Any | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    feeds: int | None = None,
    by_position: bool = False,
    outputs: Sequence[str] | None = None,
    metrics: str | Sequence[str] | None = None,
    thresholds: Mapping[str, float] | None = None,
    layerwise: bool = False,
    adapters: Files | None = None,
    progress: running.Progress | None = None,
) -> Checked:
    """Whether two models compute the same, and how far apart they are.

    Args:
        a: The reference: a path, bytes, a ModelProto, an onnx_ir.Model or a gs.Graph.
        b: The other one.
        inputs: Feeds: a .npz file, a folder of them or of test_data_set_N, a mapping, or several mappings, under A's
            names and in A's types.
        shapes: Shapes by input name for drawn feeds.
        seed: The source of randomness of drawn feeds.
        feeds: How many feeds are drawn; None: three of several amplitudes, and one of other sizes where sizes are open.
        by_position: Inputs and outputs belong together by their order, not by their names.
        outputs: What is compared, by A's names: outputs, or values inside both models; None: all outputs.
        metrics: Names of measures to take (`onnx_rewrite.verify.metrics.METRICS`): "abs,ulp", or a sequence.
        thresholds: Numbers by metric: the verdict is then whether every output keeps to all of them.
        layerwise: Compare all values that both models have, on the worst feed.
        adapters: As for `rewrite`.
        progress: Told what is going on.

    Returns:
        The verdict, which is also a `Verification`, with the measures. Models of different float types are only
        measured, unless there are thresholds.

    Raises:
        ModelError: One of them cannot be read.
        UsageError: The models do not belong together, or an option does not fit them.
    """
    del adapters  # they are known while this runs
    limits = dict(thresholds or {})
    chosen = choose(metrics, limits)
    if feeds is not None and feeds < 1:
        raise UsageError(f"{feeds} feeds are not enough", hint="one at least")
    if feeds is not None and inputs is not None:
        raise UsageError("the number of feeds is that of the inputs given", hint="leave --feeds or --inputs out")
    if progress is not None:
        progress.stage("loading")
    first, second = load(a), load(b)
    own = running.feeds_for(inputs, first)
    check_shapes(first.proto, shapes or {})
    aligned = align(first, second, by_position=by_position, outputs=outputs)
    # Once more: sizes that A leaves open may be fixed in B.
    check_shapes(aligned.a, shapes or {})
    for feed in own or ():
        check_feeds(aligned.a, feed)
    plan = Feeds(aligned.a, own, shapes, seed, feeds)
    if progress is not None:
        progress.stage("comparing", len(own) if own is not None else feeds)
    measurement = Measurement(
        aligned, plan, chosen, Tolerance(), progress.advance if progress is not None else lambda: None
    )
    found = _verdict(measurement, aligned, limits)
    layers: Layers | None = None
    if layerwise:
        layers = _layers(measurement, first, second, found, progress)
    notes = (*aligned.notes, *dict.fromkeys(measurement.notes))
    return replace(found, outputs=measurement.outputs(), thresholds=limits, layers=layers, notes=notes)


def _verdict(measurement: Measurement, aligned: Aligned, limits: Mapping[str, float]) -> Checked:
    judged: Verification | None = measurement.judge() if aligned.mixed is None else None
    failure: str | None = None
    if judged is None or judged.verdict == "not verified" or (limits and not measurement.complete):
        failure = measurement.measure()
    measured = measurement.outputs()
    if limits and measured and failure is None:
        return _checked(by_thresholds(measured, limits, measurement.count), "thresholds")
    if judged is not None:
        return _checked(replace(judged, reason=_spoken(judged.reason)), "float64")
    assert aligned.mixed is not None
    if failure is not None or not measured:
        return _checked(not_verified(failure or "there was nothing to feed"), "nothing")
    return _checked(only_measured(measured, aligned.mixed, measurement.count), "nothing")


def _layers(measurement: Measurement, first: Any, second: Any, found: Checked, progress: Any) -> Layers | None:
    chosen: Feed | None = None
    for feed in measurement.feeds.draw(measurement.bindings):
        # Of "input 1" and "input 12" the longer name is meant.
        named = found.regime is not None and found.regime.startswith(feed.regime)
        if chosen is None or (named and len(feed.regime) >= len(chosen.regime)):
            chosen = feed
        if found.regime in (None, feed.regime):
            chosen = feed
            break
    if chosen is None:
        measurement.notes.append("there was no feed to compare layer by layer on")
        return None
    return compare_layers(measurement.aligned, first, second, chosen, measurement.tolerance, progress)


def _checked(verdict: Verification, judged_by: Literal["float64", "thresholds", "nothing"]) -> Checked:
    return Checked(**{f.name: getattr(verdict, f.name) for f in fields(Verification)}, judged_by=judged_by)


def _spoken(reason: str | None) -> str | None:
    """The judge's words, which are about a replacement, for any two models."""
    if reason is None:
        return None
    return re.sub(r"\bthe replacement\b", "B", re.sub(r"\bthe original\b", "A", reason))
