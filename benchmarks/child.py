"""Runs one peer once, in a process of its own, and prints what happened as JSON."""

from __future__ import annotations

import json
import sys
from collections import Counter
from time import perf_counter, process_time

import onnx

from benchmarks.peers import PEERS
from onnx_rewrite.pipeline.reporting import peak_rss_mb


def main(peer: str, source: str, target: str) -> None:
    # Imports happen in a run on a tiny model; the clock is for a process that lives on.
    import tempfile
    from pathlib import Path

    from benchmarks.graphs import blocks

    with tempfile.TemporaryDirectory() as folder:
        tiny = str(Path(folder) / "tiny.onnx")
        onnx.save(blocks(1, 17), tiny)
        PEERS[peer](tiny, str(Path(folder) / "out.onnx"))
    began, used = perf_counter(), process_time()
    stages = PEERS[peer](source, target)
    seconds, cpu = perf_counter() - began, process_time() - used
    peak = peak_rss_mb()
    counts = Counter(n.op_type for n in onnx.load(target, load_external_data=False).graph.node)
    found = {op: counts[op] for op in ("LayerNormalization", "Clip", "Min", "Max", "ReduceMean") if counts[op]}
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "stages": stages, "peak_rss_mb": peak, "found": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
