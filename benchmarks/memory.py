"""`python -m benchmarks memory`: peak memory on a model with 3.2 GB of external weights."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks import results
from benchmarks.measure import run

WIDTH = 4096
BYTES = WIDTH * WIDTH * 4


def model(folder: Path, gigabytes: float) -> Path:
    """MatMuls with external weights of 64 MiB each, a Min and a Max behind each; the file of weights is sparse."""
    count = max(1, round(gigabytes * 1e9 / BYTES))
    data = folder / "weights.bin"
    with data.open("wb") as file:
        file.truncate(count * BYTES)
    constants = [onnx.numpy_helper.from_array(np.float32(v), n) for n, v in (("lo", -1), ("hi", 1))]
    nodes: list[onnx.NodeProto] = []
    x = "x"
    for i in range(count):
        weight = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH])
        weight.data_location = TensorProto.EXTERNAL
        for key, value in (("location", data.name), ("offset", str(i * BYTES)), ("length", str(BYTES))):
            weight.external_data.add(key=key, value=value)
        constants.append(weight)
        nodes += [
            helper.make_node("MatMul", [x, f"w{i}"], [f"m{i}"]),
            helper.make_node("Min", [f"m{i}", "hi"], [f"s{i}"]),
            helper.make_node("Max", [f"s{i}", "lo"], [f"y{i}"]),
        ]
        x = f"y{i}"
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "weights",
        [info("x", TensorProto.FLOAT, [1, WIDTH])],
        [info(x, TensorProto.FLOAT, [1, WIDTH])],
        constants,
    )
    path = folder / "model.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    return path


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks memory", description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=3.2)
    parser.add_argument("--peers", nargs="+", default=["onnx-rewrite", "onnx-rewrite, verified"])
    parser.add_argument("--limit", type=float, default=300, help="seconds per run")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        source = model(Path(folder), options.gigabytes)
        for peer in options.peers:
            found = run(peer, str(source), str(Path(folder) / "out.onnx"), options.limit)
            rows.append({"peer": peer, "gigabytes": options.gigabytes, **found})
            print(rows[-1], flush=True)
    print(results.save("memory", rows))
    return 1 if any("error" in row for row in rows) else 0
