"""Whatever the model and the rules: the result is valid, means the same, and what no rule touched stays as it was."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from hypothesis import event, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from onnx_rewrite.model import load, to_proto
from onnx_rewrite.rewriter.driver import Driver
from onnx_rewrite.rewriter.edit import PASS_KEY, SOURCES_KEY
from onnx_rewrite.verify import LocalJudge

from .random_models import RULES, Tape, draw_model

Outputs = list[Any]


def rewritten(model: onnx.ModelProto, rules: list[Any], judge: Any = None) -> tuple[onnx.ModelProto, Driver]:
    loaded = load(model)
    driver = Driver(loaded.ir, rules, judge=judge)
    driver.run()
    return to_proto(loaded), driver


def results(model: onnx.ModelProto) -> list[Outputs]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    names = [node.name for node in nodes_of(model.graph) if node.name]
    if len(set(names)) < len(names):  # onnxruntime refuses equal names of nodes, ONNX does not
        evaluator = ReferenceEvaluator(model)
        return [evaluator.run(None, feed) for feed in feeds({v.name for v in model.graph.input})]
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [list(session.run(None, feed)) for feed in feeds({v.name for v in session.get_inputs()})]


def feeds(names: set[str]) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    found: list[dict[str, Any]] = []
    for condition in (True, False):
        feed: dict[str, Any] = {name: rng.integers(-3, 4, (2, 2)).astype(np.float32) for name in ("x0", "x1")}
        feed["condition"] = np.asarray(condition)
        found.append({name: array for name, array in feed.items() if name in names})
    return found


def nodes_of(graph: Any) -> list[onnx.NodeProto]:
    found: list[onnx.NodeProto] = []
    for node in graph.node:
        found.append(node)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found += nodes_of(attribute.g)
    return found


def everything(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return nodes_of(model.graph) + [node for function in model.functions for node in nodes_of(function)]


def stripped(node: onnx.NodeProto) -> bytes:
    """A node without its inputs and bodies, which an edit elsewhere may change."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.input[:]
    for attribute in copy.attribute:
        attribute.ClearField("g")
    return copy.SerializeToString(deterministic=True)


def check_untouched(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    new = [node for node in everything(after) if any(p.key == PASS_KEY for p in node.metadata_props)]
    old = [node for node in everything(after) if not any(p.key == PASS_KEY for p in node.metadata_props)]
    assert not Counter(map(stripped, old)) - Counter(map(stripped, everything(before)))
    for node in new:
        if node.op_type != "Identity":
            assert any(p.key == SOURCES_KEY and p.value for p in node.metadata_props)
    # What reads only values that are still made by old nodes, or by none, reads what it read.
    was = {node.output[0]: list(node.input) for node in everything(before)}
    standing = {o for node in everything(after) for o in node.output}
    for node in old:
        for one, other in zip(was[node.output[0]], node.input, strict=True):
            assert one == other or one not in standing


@settings(max_examples=200)
@given(st.binary(min_size=12, max_size=160), st.integers(1, 2 ** len(RULES) - 1))
def test_the_result_is_valid_and_means_the_same(data: bytes, chosen: int) -> None:
    model = draw_model(Tape(data))
    onnx.checker.check_model(model, full_check=True)
    original = model.SerializeToString(deterministic=True)
    rules = [rule() for number, rule in enumerate(RULES) if chosen >> number & 1]
    after, driver = rewritten(model, rules)
    applied = sum(s.status == "applied" for sites in driver.sites.values() for s in sites)
    event(f"applied {min(applied, 4)}")
    assert model.SerializeToString(deterministic=True) == original
    reasons = [s.reason for sites in driver.sites.values() for s in sites if s.status == "rolled_back"]
    assert not reasons, reasons
    if not applied:
        assert after.SerializeToString(deterministic=True) == original
        return
    onnx.checker.check_model(after, full_check=True)
    assert list(after.graph.output) == list(model.graph.output)
    assert list(after.graph.input)[: len(model.graph.input)] == list(model.graph.input)
    check_untouched(model, after)
    for mine, theirs in zip(results(after), results(model), strict=True):
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    again, second = rewritten(after, rules)
    assert not any(s.status == "applied" for sites in second.sites.values() for s in sites)
    assert again.SerializeToString(deterministic=True) == after.SerializeToString(deterministic=True)


@settings(max_examples=40)
@given(st.binary(min_size=12, max_size=120))
def test_the_judge_agrees_with_every_rule(data: bytes) -> None:
    model = draw_model(Tape(data))
    _, driver = rewritten(model, [rule() for rule in RULES], LocalJudge(feeds=2))
    for sites in driver.sites.values():
        for site in sites:
            assert site.status in ("applied", "refused"), (site.id, site.reason)
            if site.status == "applied":
                assert site.verification.verdict in ("equivalent", "not verified"), site
                event(f"{site.verification.verdict} {site.verification.reason}")
