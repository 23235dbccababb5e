"""Files in trtexec's own formats, so that scripts that read its files read these; and engines themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, BinaryIO

import numpy as np

from onnx_rewrite.engines.protocol import Layer, Timing
from onnx_rewrite.model.files import write_atomically


def times(timings: Sequence[Timing]) -> str:
    """`--exportTimes`: one object per counted inference, milliseconds since a common start."""
    rows: list[dict[str, float]] = []
    origin = min((one.start for one in timings), default=0.0)
    for one in timings:
        if one.phases is None:  # an engine on the CPU: its whole time counts as computation
            start, length = 1e3 * (one.start - origin), 1e3 * one.seconds
            enqueue, h2d, compute, d2h = [
                (start, start),
                (start, start),
                (start, start + length),
                (start + length,) * 2,
            ]
        else:
            enqueue, h2d, compute, d2h = (one.phases.enqueue, one.phases.h2d, one.phases.compute, one.phases.d2h)
        rows.append(
            {
                "startEnqMs": enqueue[0],
                "endEnqMs": enqueue[1],
                "startH2dMs": h2d[0],
                "endH2dMs": h2d[1],
                "startComputeMs": compute[0],
                "endComputeMs": compute[1],
                "startD2hMs": d2h[0],
                "endD2hMs": d2h[1],
                "h2dMs": h2d[1] - h2d[0],
                "computeMs": compute[1] - compute[0],
                "d2hMs": d2h[1] - d2h[0],
                "latencyMs": sum(end - start for start, end in (h2d, compute, d2h)),
            }
        )
    return _list(rows)


def profile(layers: Sequence[tuple[str, Sequence[float]]]) -> str:
    """`--exportProfile`: how many inferences, then one object per layer."""
    total = sum(sum(ms) for _, ms in layers)
    rows: list[dict[str, Any]] = [{"count": max((len(ms) for _, ms in layers), default=0)}]
    for name, ms in layers:
        if ms:
            part = 100 * sum(ms) / total if total else 0.0
            rows.append(
                {"name": name, "timeMs": sum(ms), "averageMs": fmean(ms), "medianMs": median(ms), "percentage": part}
            )
    return _list(rows)


def layers(found: Sequence[Layer], information: str = "") -> str:
    """`--exportLayerInfo`: the inspector's own JSON where there is one, else the same keys from what is known."""
    if information:
        return information if information.endswith("\n") else f"{information}\n"
    entries = [
        {
            "Name": one.name,
            "LayerType": one.kind,
            "TacticName": one.tactic,
            "Metadata": "\x1e".join(f"[ONNX Layer: {node}]" for node in one.nodes),
        }
        for one in found
    ]
    return json.dumps({"Layers": entries}, indent=1) + "\n"


def outputs(values: Mapping[str, Any]) -> str:
    """`--exportOutput`: name, dimensions as "1x3x4", and all values."""
    rows = [
        {"name": name, "dimensions": "x".join(map(str, np.shape(value))), "values": np.ravel(value).tolist()}
        for name, value in values.items()
    ]
    return _list(rows)


def write(path: str, content: str | bytes, *, side: str | None = None) -> Path:
    """Writes a file, whole or not at all; `side` ("before", "after") goes into its name if two models are measured."""
    target = Path(path)
    if side is not None:
        target = target.with_name(f"{target.stem}.{side}{target.suffix}")
    data = content.encode() if isinstance(content, str) else content

    def fill(file: BinaryIO) -> None:
        file.write(data)

    write_atomically(target, fill)
    return target


def _list(rows: Sequence[Mapping[str, Any]]) -> str:
    """A list with one entry per line, as trtexec writes it."""
    return "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n]\n"
