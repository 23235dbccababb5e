"""The properties of a peer: what the judge finds in one answer, and what several answers show together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import onnx

from benchmarks.peers_fuzz.adapters import RULES, RUNS_THE_MODEL
from benchmarks.peers_fuzz.drawing import Drawn
from benchmarks.peers_fuzz.workers import Answer, Worker

PROPERTIES = {
    "answers": "no exception, no crash, an answer within the limits of time and memory",
    "valid": "the checker accepts the result",
    "interface": "inputs and outputs keep names, element types and shapes",
    "equal": "outputs differ by no more than rounding explains; onnxruntime runs the result",
    "nan": "NaN comes out where it did",
    "overridable": "an initializer that is an input too can still be given, and counts",
    "opsets": "the standard opset stays; domains in use are declared",
    "stated": "stated types and shapes are the inferred ones",
    "kept": "words, training_info, sparse weights and annotations stay",
    "names": "names that the peer makes up do not clash with names that are there",
    "idempotent": "a second run leaves the operators of the first result as they are",
    "deterministic": "the same model gives the same bytes, and is not changed itself",
    "found": "a rule finds the nodes that it was made from, and no node twice",
    "growth": "time grows with the number of copies by less than n^1.5",
}

Reasons = dict[str, str]


FURTHER = ("deterministic", "idempotent", "names")
"""These need more answers of the peer."""


def examine(
    worker: Worker, judge: Worker, drawn: Drawn, only: str | None = None, *, further: bool = True
) -> tuple[Reasons, Answer]:
    """As `_examine`; what a peer declares to do otherwise on NaN is not held against it."""
    found, answer = _examine(worker, judge, drawn, only, further=further)
    if not answer.failure and answer.notes.get("unlike on NaN"):
        found = {name: reason for name, reason in found.items() if " NaN became " not in reason}
    return found, answer


def _examine(
    worker: Worker, judge: Worker, drawn: Drawn, only: str | None = None, *, further: bool = True
) -> tuple[Reasons, Answer]:
    """The properties that do not hold for one graph, each with the reason, and the peer's answer.

    Args:
        worker: The peer.
        judge: The judge.
        drawn: The graph.
        only: One property; the others are not looked at where that saves time.
        further: Whether to look at those that need further answers.
    """
    answer = worker.ask([drawn.model], rule=drawn.rule)
    if answer.failure:
        if worker.name in RUNS_THE_MODEL and not judge.ask([drawn.model], runs=True).notes.get("runs"):
            return {}, answer  # it has no kernel for the original either
        return {"answers": answer.failure}, answer
    (after,) = answer.models
    wanted = None if only is None else [only]
    found: Reasons = dict(_judged(judge, drawn.model, after, wanted))
    if answer.notes.get("raises the opset"):
        found.pop("opsets", None)
    if only in (None, "found") and drawn.rule:
        reason = _found(drawn, answer)
        if reason is not None:
            found["found"] = reason
    if not further:
        return found, answer
    if worker.name in RULES:
        if only in (None, "names") and not found.keys() & {"valid", "equal"}:
            reason = _names(worker, judge, drawn, after)
            if reason is not None:
                found["names"] = reason
        return found, answer
    if only in (None, "deterministic"):
        again = worker.ask([drawn.model], rule=drawn.rule)
        if answer.notes.get("input changed"):
            found["deterministic"] = "the model that it was given has changed"
        elif again.failure:
            found["deterministic"] = f"a second run of the same model {again.failure}"
        elif _bytes(again.models[0]) != _bytes(after):
            found["deterministic"] = "two runs give different bytes"
    if only in (None, "idempotent") and "valid" not in found:
        reason = _idempotent(worker, after)
        if reason is not None:
            found["idempotent"] = reason
    if only in (None, "names") and not found.keys() & {"valid", "equal", "interface"}:
        reason = _names(worker, judge, drawn, after)
        if reason is not None:
            found["names"] = reason
    return found, answer


def _judged(judge: Worker, before: onnx.ModelProto, after: onnx.ModelProto, only: list[str] | None) -> Reasons:
    told = judge.ask([before, after], only=only)
    if told.failure.startswith("raises"):
        raise RuntimeError(f"the judge {told.failure}")
    if told.failure:
        return {"equal": f"onnx or onnxruntime does not survive the result: {told.failure}"}
    return told.notes["reasons"]


def _bytes(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString(deterministic=True)


def _found(drawn: Drawn, answer: Answer) -> str | None:
    """What a matcher must find; which sites a driver may replace besides is its own affair."""
    size = len(drawn.rule["nodes"])
    fewer = [n for n in answer.notes["nodes"] if n < size]
    if fewer:
        return f"a match of {size} nodes of the pattern has {fewer[0]} nodes of the graph"
    if drawn.rule["there"] and drawn.rule["alone"] and not answer.notes["sites"]:
        return "the pattern is not found in the graph that it was made from"
    return None


def _idempotent(worker: Worker, after: onnx.ModelProto) -> str | None:
    again = worker.ask([after])
    if again.failure:
        return f"a second run {again.failure}"
    first, second = _operators(after), _operators(again.models[0])
    if first != second:
        gone, new = dict(first - second), dict(second - first)
        return f"a second run takes {gone or 'nothing'} away and adds {new or 'nothing'}"
    return None


def _operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def _names(worker: Worker, judge: Worker, drawn: Drawn, after: onnx.ModelProto) -> str | None:
    """Gives interior values the names that the peer made up, and looks whether the result is still right."""
    renamed = with_taken_names(drawn.model, after)
    if renamed is None:
        return None
    answer = worker.ask([renamed], rule=drawn.rule)
    if answer.failure:
        return f"where a name that it makes up is taken, it {answer.failure}"
    wrong = _judged(judge, renamed, answer.models[0], ["valid", "interface", "equal"])
    return next((f"where a name that it makes up is taken: {reason}" for reason in wrong.values()), None)


def with_taken_names(before: onnx.ModelProto, after: onnx.ModelProto) -> onnx.ModelProto | None:
    """The original, in which values have the names that are new in a result; None if there are none."""
    had, has = set(_names_of(before)), list(dict.fromkeys(_names_of(after)))
    ends = {v.name for v in (*before.graph.input, *before.graph.output)}
    interior = [n for n in dict.fromkeys(_names_of(before)) if n not in ends]
    new = [n for n in has if n not in had]
    if not new or not interior or before.functions or any(_has_body(n) for n in before.graph.node):
        return None
    mapped = dict(zip(interior, new, strict=False))
    made = onnx.ModelProto()
    made.CopyFrom(before)
    for node in made.graph.node:
        node.input[:] = [mapped.get(n, n) for n in node.input]
        node.output[:] = [mapped.get(n, n) for n in node.output]
    for holder in (*made.graph.initializer, *made.graph.value_info, *(t.values for t in made.graph.sparse_initializer)):
        holder.name = mapped.get(holder.name, holder.name)
    for note in made.graph.quantization_annotation:
        note.tensor_name = mapped.get(note.tensor_name, note.tensor_name)
    return made


def _names_of(model: onnx.ModelProto) -> Iterator[str]:
    for node in model.graph.node:
        yield from (n for n in (*node.input, *node.output) if n)
    yield from (t.name for t in model.graph.initializer)


def _has_body(node: onnx.NodeProto) -> bool:
    return any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute)


def kind_of(reason: str) -> str:
    """A reason without names and numbers: what makes two failures the same."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|\{[^}]*\}|\S*/\S*|0x[0-9a-f]+", "_", reason)
    return re.sub(r"[-+]?\d[\d.e+-]*", "#", text)[:90]
