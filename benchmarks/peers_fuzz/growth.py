"""How a peer's time grows: the same graph many times over, side by side."""

from __future__ import annotations

import math

import onnx
from onnx import compose

from benchmarks.peers_fuzz.drawing import Drawn, Graphs
from benchmarks.peers_fuzz.findings import Failure
from benchmarks.peers_fuzz.workers import Worker

SIZES = (1000, 8000)
LIMIT, WORTH, MOST = 30.0, 1.0, 1.5
"""Seconds for one answer; processor seconds from which on growth is looked at; the exponent that is allowed."""


def measure(peer: str, graphs: Graphs, count: int) -> list[Failure]:
    """The graphs on which time grows by more than n^1.5, at most `count` looked at."""
    found: list[Failure] = []
    looked, number = 0, 0
    with Worker(peer, LIMIT) as worker:
        while looked < count and number < 50 * count:
            drawn = graphs.draw(number)
            number += 1
            if (
                drawn.kind != "instance"
                or drawn.source == "chain"
                or len(drawn.model.graph.node) < 3
                or drawn.model.functions
            ):
                continue
            looked += 1
            reason = _grows(worker, drawn.model)
            if reason is not None:
                found.append(Failure("growth", reason, drawn, None))
    return found


def _grows(worker: Worker, model: onnx.ModelProto) -> str | None:
    seconds: list[float] = []
    nodes: list[int] = []
    for size in SIZES:
        many = repeated(model, math.ceil(size / len(model.graph.node)))
        answer = worker.ask([many])
        nodes.append(len(many.graph.node))
        if answer.failure:
            return f"{nodes[-1]} nodes: {answer.failure}" if "no answer" in answer.failure else None
        seconds.append(float(answer.notes["cpu"]))
    exponent = math.log(max(seconds[1], 1e-3) / max(seconds[0], 1e-3)) / math.log(nodes[1] / nodes[0])
    if seconds[1] < WORTH or exponent <= MOST:
        return None
    return f"{seconds[0]:.2f} s for {nodes[0]} nodes, {seconds[1]:.2f} s for {nodes[1]}: n^{exponent:.1f}"


def repeated(model: onnx.ModelProto, copies: int) -> onnx.ModelProto:
    """The graph so many times, side by side."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    for number in range(1, copies):
        other = compose.add_prefix(model, f"copy{number}_")
        for name in ("node", "initializer", "input", "output", "value_info"):
            getattr(whole.graph, name).extend(getattr(other.graph, name))
    return whole


__all__ = ["Drawn", "measure", "repeated"]
