"""The judge of two whole models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import onnx

from onnx_rewrite.errors import ModelError
from onnx_rewrite.verdict import Verification, not_verified
from onnx_rewrite.verify.dtypes import Array, Tolerance
from onnx_rewrite.verify.feeds import Feed, Source
from onnx_rewrite.verify.inputs import check_feeds, check_shapes
from onnx_rewrite.verify.judge import Pair, Refused, Subject, judge_feeds
from onnx_rewrite.verify.local import bind
from onnx_rewrite.verify.regimes import UNIT, WHOLE


def judge_models(
    before: onnx.ModelProto | str | Path,
    after: onnx.ModelProto | str | Path,
    *,
    inputs: Sequence[Mapping[str, Array]] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    tolerance: Tolerance | None = None,
    folder: Path | None = None,
    folder_after: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Verification:
    """Whether two models with the same interface compute the same.

    Args:
        before: The original: a model, or a path (opened from there, so that external data is found).
        after: The other one.
        inputs: Feeds to run, an array per input name each. Without them a few are drawn: amplitude 1 and 1e-3 and small
            integers under one binding of the symbolic dimensions, amplitude 1 under a second; no NaN, no infinities.
        shapes: Shapes by input name for the drawn feeds; they bind the symbols of the shapes that they override.
        seed: The source of randomness of the drawn feeds.
        tolerance: How far apart the results may be.
        folder: Where a model in memory keeps its external data.
        folder_after: The same for ``after``; default: ``folder``.
        progress: Called with the name of each feed before it is run.

    Raises:
        UsageError: ``inputs`` or ``shapes`` do not fit the original.
        ModelError: A path cannot be read as a model.
    """
    first, second = _subject(before, folder), _subject(after, folder_after or folder)
    if inputs is not None:
        for feeds in inputs:
            check_feeds(first.proto, feeds)
    check_shapes(first.proto, shapes or {})
    source = Source(first.proto, seed, shapes)
    if inputs is None and source.obstacle:
        return not_verified(source.obstacle)
    try:
        pair = Pair(first, second, tolerance or Tolerance(), threads=0)
    except Refused as refusal:
        return refusal.verification

    def told(feeds: Iterator[Feed]) -> Iterator[Feed]:
        for feed in feeds:
            if progress is not None:
                progress(feed.regime)
            yield feed

    if inputs is not None:
        return judge_feeds(pair, told(Feed(dict(values), f"input {i}") for i, values in enumerate(inputs)))
    bindings, failure = bind(pair, source, 2)
    if not bindings:
        return not_verified(f"the original ran on no feed: {failure}")
    plan = [(regime, bindings[0]) for regime in WHOLE] + [(UNIT, binding) for binding in bindings[1:]]
    return judge_feeds(pair, told(source.draw(*entry) for entry in plan))


def _subject(model: onnx.ModelProto | str | Path, folder: Path | None) -> Subject:
    if isinstance(model, onnx.ModelProto):
        return Subject(model, base=folder)
    path = Path(model)
    try:
        return Subject(onnx.load(path, load_external_data=False), path)
    except Exception as error:
        raise ModelError(f"{path} cannot be read as an ONNX model: {error}") from error
