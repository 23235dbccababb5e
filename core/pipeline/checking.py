"""`check`: the judge, for any two models."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from onnx_rewrite.model import load
from onnx_rewrite.pipeline import running
from onnx_rewrite.verdict import Verification
from onnx_rewrite.verify import judge_models


def check(
    a: Any,
    b: Any,
    *,
    inputs: str | os.PathLike[str] | Any | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
) -> Verification:
    """Whether two models with the same interface compute the same.

    Args:
        a: The reference: a path, bytes, a ModelProto, an onnx_ir.Model or a gs.Graph.
        b: The other one.
        inputs: Feeds: a .npz file, a folder of them or of test_data_set_N, a mapping, or several mappings.
        shapes: Shapes by input name for drawn feeds.
        seed: The source of randomness of drawn feeds.

    Raises:
        ModelError: One of them cannot be read.
        UsageError: `inputs` or `shapes` do not fit.
    """
    first, second = load(a), load(b)
    feeds = running.feeds_for(inputs, first)
    return judge_models(
        first.proto,
        second.proto,
        inputs=feeds,
        shapes=shapes,
        seed=seed,
        folder=first.base_dir,
        folder_after=second.base_dir,
    )
