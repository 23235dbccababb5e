"""What engines are run on, and what their outputs are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_rewrite.engines.protocol import Model
from onnx_rewrite.verify.bindings import Input, fed_inputs
from onnx_rewrite.verify.dtypes import Array
from onnx_rewrite.verify.feeds import Source
from onnx_rewrite.verify.inputs import check_feeds, check_shapes
from onnx_rewrite.verify.judge import Subject
from onnx_rewrite.verify.promote import has_halves
from onnx_rewrite.verify.regimes import UNIT
from onnx_rewrite.verify.session import Session, first_line

Outputs = Mapping[str, Any]


class Oracle:
    """A model in onnxruntime on the CPU with optimisations off, fp16 and bf16 as fp32.

    Attributes:
        obstacle: Why it cannot be run, or None.
    """

    def __init__(self, model: Model) -> None:
        self.obstacle: str | None = None
        subject = Subject(model.proto, base=model.folder)
        self._promoted = has_halves(model.proto)
        self._session: Session | None = None
        try:
            self._session = (subject.promoted() if self._promoted else subject).open(threads=0)
        except Exception as error:
            self.obstacle = first_line(error)

    def __call__(self, feeds: Mapping[str, Array]) -> Outputs | None:
        """The outputs by name, or None if it cannot be run on these."""
        if self._session is None:
            return None
        if self._promoted:
            feeds = {name: _promoted(value) for name, value in feeds.items()}
        try:
            return dict(zip(self._session.outputs, self._session(feeds), strict=True))
        except Exception:  # whoever needs the outputs says that there are none
            return None


def _promoted(value: Array) -> Array:
    return value.astype(np.float32) if value.dtype.name in ("float16", "bfloat16") else value


@dataclass(frozen=True)
class Trials:
    """Feeds, and what each model gives for them.

    Attributes:
        feeds: The first one is timed.
        expected: Per model, the outputs on each feed; None where the oracle cannot run.
        obstacle: Why there are no feeds, or None.
    """

    feeds: tuple[Mapping[str, Array], ...]
    expected: tuple[tuple[Outputs | None, ...], ...]
    obstacle: str | None = None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """By input name, of the feed that is timed."""
        return {name: tuple(np.shape(value)) for name, value in self.feeds[0].items()} if self.feeds else {}


def trials(
    models: Sequence[Model],
    *,
    shapes: Mapping[str, Sequence[int]] | None,
    inputs: Sequence[Mapping[str, Array]] | None,
    seed: int,
    expect: bool = True,
) -> Trials:
    """The user's feeds, or one drawn for the first model, of amplitude 1, and what the models give for them.

    Without `expect` nothing is run but what a dynamic model's shapes are found with: the outputs are None.

    Raises:
        UsageError: `inputs` or `shapes` do not fit the first model.
    """
    first = models[0].proto
    for feed in inputs or ():
        check_feeds(first, feed)
    check_shapes(first, shapes or {})
    dynamic = not inputs and not all(map(_static, fed_inputs(first)))
    oracles = [Oracle(model) if expect or (dynamic and model is models[0]) else None for model in models]
    if inputs:
        feeds = tuple(inputs)
    else:
        source = Source(first, seed, shapes)
        if source.obstacle:
            return Trials((), tuple(() for _ in models), source.obstacle)
        feeds = (_drawn(source, oracles[0]),)
    wanted = (oracle if expect else None for oracle in oracles)
    return Trials(feeds, tuple(tuple(one(feed) if one else None for feed in feeds) for one in wanted))


def _static(value: Input) -> bool:
    return value.dims is not None and all(isinstance(dim, int) for dim in value.dims)


def _drawn(source: Source, oracle: Oracle | None) -> Mapping[str, Array]:
    """A feed under the first binding of the symbolic dimensions that the model accepts."""
    first: Mapping[str, Array] | None = None
    for binding in source.bindings():
        feed = source.draw(UNIT, binding).values
        if oracle is None or oracle.obstacle is not None or oracle(feed) is not None:
            return feed
        first = feed if first is None else first
    return first or {}


def largest_difference(found: Outputs, expected: Outputs) -> tuple[float, float]:
    """The largest absolute difference of any element, and the largest one relative to the largest number of its output;
    infinite where shapes, NaN or infinities differ.
    """
    worst = relative = 0.0
    for name, want in expected.items():
        have = found.get(name)
        if isinstance(want, np.ndarray) and isinstance(have, np.ndarray) and have.shape == want.shape:
            apart = _difference(have, want)
            worst, relative = max(worst, apart), max(relative, apart / (_scale(want) or 1.0))
        elif isinstance(want, np.ndarray):
            return float("inf"), float("inf")
    return worst, relative


def _scale(want: Array) -> float:
    """The largest finite number; 0 where there is none."""
    if want.dtype.kind in "OUSb":
        return 0.0
    sizes = np.abs(want.astype(np.float64).ravel())
    return float(np.max(sizes, initial=0.0, where=np.isfinite(sizes)))


def _difference(have: Array, want: Array) -> float:
    if want.dtype.kind in "OUSb" or have.dtype.kind in "OUSb":
        return 0.0 if np.array_equal(have, want) else float("inf")
    a, b = have.astype(np.float64).ravel(), want.astype(np.float64).ravel()
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(a - b)
    apart[same] = 0.0
    return float(np.max(np.where(np.isnan(apart), np.inf, apart), initial=0.0))
