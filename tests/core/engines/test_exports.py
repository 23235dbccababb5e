from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from onnx_rewrite.engines import exports
from onnx_rewrite.engines.protocol import Layer, Phases, Timing

# The keys that NVIDIA's sampleReporting.cpp writes, in its order.
TRACE = ["startEnqMs", "endEnqMs", "startH2dMs", "endH2dMs", "startComputeMs", "endComputeMs"]
TRACE += ["startD2hMs", "endD2hMs", "h2dMs", "computeMs", "d2hMs", "latencyMs"]


def test_times() -> None:
    phases = Phases((0.0, 0.125), (0.0, 0.5), (0.75, 2.75), (3.0, 3.25))
    (row,) = json.loads(exports.times([Timing(0.0, 0.00275, phases)]))
    assert list(row) == TRACE
    assert (row["h2dMs"], row["computeMs"], row["d2hMs"], row["latencyMs"]) == (0.5, 2.0, 0.25, 2.75)
    assert (row["startComputeMs"], row["endD2hMs"], row["endEnqMs"]) == (0.75, 3.25, 0.125)


def test_times_of_an_engine_without_a_gpu() -> None:
    rows = json.loads(exports.times([Timing(10.0, 0.5), Timing(11.0, 0.25)]))
    assert [row["startComputeMs"] for row in rows] == [0.0, 1000.0]
    assert [row["latencyMs"] for row in rows] == [500.0, 250.0]


def test_profile() -> None:
    count, a, b = json.loads(exports.profile([("a", [1.0, 2.0, 6.0]), ("b", [1.0, 1.0, 1.0]), ("never", [])]))
    assert count == {"count": 3}
    assert a == {"name": "a", "timeMs": 9.0, "averageMs": 3.0, "medianMs": 2.0, "percentage": 75.0}
    assert b["percentage"] == 25.0


def test_layers() -> None:
    assert exports.layers((), '{"Layers": []}') == '{"Layers": []}\n'
    found = json.loads(exports.layers([Layer("l", "kgen", ("a", "b"), "t")]))
    assert found["Layers"][0]["Metadata"] == "[ONNX Layer: a]\x1e[ONNX Layer: b]"


def test_outputs() -> None:
    found = json.loads(exports.outputs({"y": np.arange(6, dtype=np.float32).reshape(1, 2, 3), "s": np.float32(4)}))
    assert found[0] == {"name": "y", "dimensions": "1x2x3", "values": [0, 1, 2, 3, 4, 5]}
    assert found[1]["values"] == [4.0]


@pytest.mark.parametrize(("side", "name"), [(None, "t.json"), ("before", "t.before.json")])
def test_two_models_write_two_files(tmp_path: Path, side: str | None, name: str) -> None:
    assert exports.write(str(tmp_path / "t.json"), "[]", side=side) == tmp_path / name
    assert (tmp_path / name).read_text() == "[]"
