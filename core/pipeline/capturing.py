"""Captures what flows into the sites when the original runs on the user's inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import onnx

from onnx_rewrite.model import LoadedModel
from onnx_rewrite.rewriter.site import Site
from onnx_rewrite.verify.captured import Captured
from onnx_rewrite.verify.session import Session

MAX_CAPTURED_BYTES = 1 << 30
"""Of all captured values together; sites beyond it are judged on drawn feeds alone."""

_LARGEST_ELEMENT = 8  # bytes: dtypes of values inside are not known before the run


def capture(
    original: LoadedModel, feeds: Sequence[Mapping[str, Any]], sites: Iterable[Site]
) -> tuple[Captured | None, str | None]:
    """Runs the original on the user's feeds and keeps what flows into the sites.

    Args:
        original: The model as it was read.
        feeds: The user's inputs.
        sites: Where replacements are going to be tried.

    Returns:
        The values, and why some or all are missing, if they are.
    """
    given = {v.name for v in original.proto.graph.input}
    made = {name for node in original.proto.graph.node for name in node.output if name}
    groups = [[n for n in site.inputs if n in made or n in given] for site in sites]
    names = list(dict.fromkeys(n for group in groups for n in group if n in made))
    if not any(groups):
        return None, None
    folder = None if original.base_dir is None else str(original.base_dir)
    try:
        sizes = _sizes(original.proto, names, feeds[0], folder) if names else {}
        budget = MAX_CAPTURED_BYTES // len(feeds)
        kept: dict[str, None] = {}
        left_out = 0
        for group in groups:
            cost = sum(sizes[n] for n in group if n in sizes and n not in kept)
            if cost > budget:
                left_out += 1
                continue
            budget -= cost
            kept.update(dict.fromkeys(n for n in group if n in sizes))
        session = Session(_exposing(original.proto, list(kept)), folder=folder) if kept else None
        values = [
            {**feed, **(dict(zip(kept, session(feed, list(kept)), strict=True)) if session else {})} for feed in feeds
        ]
    except Exception as error:  # the verdict on the whole model says what is wrong with it
        return None, f"nothing was captured from the inputs: {error}"
    missing = (
        f"{left_out} sites saw no values captured from the inputs: they take more than 1 GiB" if left_out else None
    )
    return Captured(values), missing


def _sizes(proto: onnx.ModelProto, names: Sequence[str], feed: Mapping[str, Any], folder: str | None) -> dict[str, int]:
    """Upper bounds of the sizes of values, in bytes."""
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    del model.graph.output[:]
    for number, name in enumerate(names):
        output = f"onnx_rewrite_shape_{number}"
        model.graph.node.append(onnx.helper.make_node("Shape", [name], [output]))
        model.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.INT64, [None]))
    shapes = Session(model, folder=folder)(feed)
    return {
        name: math.prod(int(d) for d in shape) * _LARGEST_ELEMENT for name, shape in zip(names, shapes, strict=True)
    }


def _exposing(proto: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    present = {v.name for v in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    return model
