"""The harness that looks at other rewriters: a broken one is found out and shown small, and its crash is not ours."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

# benchmarks is a folder of the repository and of no package.
sys.path.append(str(Path(__file__).parents[1]))
peers_fuzz: Any = importlib.import_module("benchmarks.peers_fuzz")
drawing: Any = importlib.import_module("benchmarks.peers_fuzz.drawing")
findings: Any = importlib.import_module("benchmarks.peers_fuzz.findings")
judging: Any = importlib.import_module("benchmarks.peers_fuzz.judging")
properties: Any = importlib.import_module("benchmarks.peers_fuzz.properties")
rules: Any = importlib.import_module("benchmarks.peers_fuzz.rules")
stars: Any = importlib.import_module("benchmarks.peers_fuzz.stars")
workers: Any = importlib.import_module("benchmarks.peers_fuzz.workers")

# -- peers that are wrong in one way each; the child processes import them from here


def _changed(model: onnx.ModelProto) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made


def honest() -> Any:
    """Gives back what it got."""
    return lambda model, rule: (_changed(model), {})


def wrong() -> Any:
    """Takes every Sub for an Add, crashes at Sigmoid, raises at Relu, and forgets what models are for."""

    def run(model: onnx.ModelProto, rule: Any) -> Any:
        made = _changed(model)
        made.ClearField("metadata_props")
        for node in made.graph.node:
            if node.op_type == "Sub":
                node.op_type = "Add"
            if node.op_type == "Sigmoid":
                os.kill(os.getpid(), signal.SIGSEGV)
            if node.op_type == "Relu":
                raise ValueError(f"no Relu, said {node.name}")
        return made, {}

    return run


def slow() -> Any:
    """Never answers, but for Relu."""

    def run(model: onnx.ModelProto, rule: Any) -> Any:
        while model.graph.node[0].op_type != "Relu":
            time.sleep(0.1)
        return model, {}

    return run


def declared() -> Any:
    """Gives something else than NaN, and says so."""

    def run(model: onnx.ModelProto, rule: Any) -> Any:
        return model_of([helper.make_node("Max", ["x", "w"], ["a"]), *_ZERO_FOR_NAN], {"w": [-9e9]}), _NOTES

    return run


_ZERO_FOR_NAN = [
    helper.make_node("IsNaN", ["a"], ["n"]),
    helper.make_node("Where", ["n", "w", "a"], ["y"]),
]
_NOTES = {"unlike on NaN": True}


def absent() -> Any:
    """Is not installed."""
    importlib.import_module("no_such_package_at_all")


HERE = "tests.test_peers_fuzz"


@pytest.fixture(scope="module")
def tally() -> Any:
    return peers_fuzz.fuzz(f"{HERE}:wrong", 40, 0)


def test_a_broken_peer_is_found_out(tally: Any) -> None:
    assert tally.graphs == 40
    assert tally.broken["equal"] >= 3
    assert tally.broken["answers"] >= 2
    assert tally.broken["kept"] >= 1
    assert tally.crashes >= 1
    assert not tally.broken["interface"] + tally.broken["opsets"] + tally.broken["valid"] + tally.broken["stated"]


def test_each_failure_is_shown_on_a_minimal_model(tally: Any, tmp_path: Path) -> None:
    smallest = {(f.smallest.property, tuple(f.operators)) for f in tally.findings}
    assert ("equal", ("Sub",)) in smallest
    kinds = {
        f.smallest.reason.split(":")[0].split(",")[0]: f.operators
        for f in tally.findings
        if f.smallest.property == "answers"
    }
    assert kinds["ended by SIGSEGV"] == ["Sigmoid"]
    assert kinds["raises ValueError"] == ["Relu"]
    findings.save(tally.findings, tmp_path)
    folder = next(tmp_path.glob("*equal-1"))
    assert {p.name for p in folder.iterdir()} == {"model.onnx", "result.onnx", "finding.txt"}
    told = (folder / "finding.txt").read_text(encoding="utf-8")
    assert "Sub" in told.partition("becomes")[0]
    assert "Add" in told.partition("becomes")[2]
    onnx.checker.check_model(onnx.load(folder / "model.onnx"), full_check=True)


def test_nothing_is_found_in_one_that_changes_nothing() -> None:
    tally = peers_fuzz.fuzz(f"{HERE}:honest", 25, 1)
    assert not tally.broken, [(f.smallest.property, f.smallest.reason) for f in tally.findings]
    assert tally.graphs == 25


def test_one_that_hangs_is_ended_and_started_again() -> None:
    with workers.Worker(f"{HERE}:slow", 0.5) as worker:
        relu, neg = (model_of([helper.make_node(name, ["x"], ["y"])], {}) for name in ("Relu", "Neg"))
        assert not worker.ask([relu]).failure
        assert worker.ask([neg]).failure == "no answer in 0.5 s"
        assert not worker.ask([relu]).failure
        assert worker.crashes == 1


def test_one_that_is_not_installed_is_one_line() -> None:
    tally = peers_fuzz.fuzz(f"{HERE}:absent", 40, 1)
    assert "no_such_package_at_all" in tally.missing
    assert peers_fuzz._line(tally).count("\n") == 0


def test_what_is_declared_of_nan_is_not_held_against_it() -> None:
    before = model_of([helper.make_node("Max", ["x", "w"], ["y"])], {"w": [-9e9]})
    after = declared()(before, {})[0]
    assert set(reasons(before, after)) == {"nan"}
    with workers.Worker(f"{HERE}:declared", 20.0) as worker, workers.Worker("judge", 60.0) as judge:
        found, _ = properties.examine(worker, judge, drawing.Drawn(before, "chain", "instance"), further=False)
    assert not found


def test_plain_graphs_are_written_in_the_first_way() -> None:
    tape = drawing.Plain(bytes(range(1, 100)))
    assert {tape.one(drawing.SPELLINGS) for _ in range(20)} == {drawing.SPELLINGS[0]}
    assert len({tape.one((2, 3, 4, 1)) for _ in range(20)}) == 4


def test_some_rules_read_all_their_operands_through_one_value() -> None:
    drawn = [drawing.Graphs(3).rule(number).rule for number in range(60)]
    packed = [rule for rule in drawn if rule["packed"]]
    assert 5 <= len(packed) <= 40
    assert all(len(rule["captures"]) > 1 and rule["text"].endswith(", packed") for rule in packed)


def test_a_seed_is_a_graph() -> None:
    one, other = drawing.Graphs(3), drawing.Graphs(3)
    for number in range(20):
        assert one.draw(number).model == other.draw(number).model
        assert one.rule(number).rule == other.rule(number).rule
    graphs = [one.draw(number) for number in range(150)]
    assert {g.kind for g in graphs} == {"instance", "embedded", "near miss"}
    assert {g.source for g in graphs} >= {"chain", "ln", "clip", "bn"}
    assert any("decorated" in g.story for g in graphs)


# -- what the judge sees


def model_of(nodes: list[onnx.NodeProto], weights: dict[str, Any], **more: Any) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", 1, [2, 3]), *more.get("inputs", [])]
    tensors = [numpy_helper.from_array(np.asarray(a, np.float32), n) for n, a in weights.items()]
    outputs = [helper.make_tensor_value_info("y", 1, [2, 3])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", more.get("opset", 17))], ir_version=8)


def add(weights: dict[str, Any], **more: Any) -> onnx.ModelProto:
    return model_of([helper.make_node("Add", ["x", "w"], ["y"], name="n")], weights, **more)


def reasons(before: onnx.ModelProto, after: onnx.ModelProto) -> dict[str, str]:
    return judging.examine({}, [before, after])[0]["reasons"]


def test_every_property_of_a_result() -> None:
    both = [helper.make_tensor_value_info("w", 1, [3])]
    before = add({"w": [1, 2, 3]}, inputs=both)
    assert reasons(before, before) == {}
    assert set(reasons(before, add({"w": [1, 2, 3]}))) == {"overridable"}
    assert set(reasons(before, add({"w": [1, 2, 4]}, inputs=both))) == {"equal"}
    assert set(reasons(before, add({"w": [1, 2, 3]}, inputs=both, opset=13))) == {"opsets"}
    frozen = [helper.make_node("Identity", ["w"], ["v"]), helper.make_node("Add", ["x", "c"], ["y"], name="n")]
    assert set(reasons(before, model_of(frozen, {"w": [1, 2, 3], "c": [1, 2, 3]}, inputs=both))) == {"overridable"}
    other = add({"w": [1, 2, 3]}, inputs=both)
    other.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    assert {"interface", "valid"} <= set(reasons(before, other))
    stale = add({"w": [1, 2, 3]}, inputs=both)
    stale.graph.node.insert(0, helper.make_node("Identity", ["x"], ["z"]))
    stale.graph.value_info.append(helper.make_tensor_value_info("z", 1, [9, 3]))
    assert "stated" in reasons(before, stale)
    worded = add({"w": [1, 2, 3]}, inputs=both)
    worded.graph.node[0].doc_string = "why"
    assert set(reasons(worded, before)) == {"kept"}


def test_names_that_a_peer_makes_up_are_taken() -> None:
    before, after = add({"w": [1, 2, 3]}), add({"w": [1, 2, 3]})
    after.graph.node[0].input[1] = after.graph.initializer[0].name = "made_up"
    renamed = properties.with_taken_names(before, after)
    assert renamed.graph.node[0].input[1] == renamed.graph.initializer[0].name == "made_up"
    assert properties.with_taken_names(before, before) is None


def test_a_rule_means_what_it_replaces() -> None:
    """What the replacement says in other words is the same number to the bit."""
    from onnx_rewrite.testing.comparing import session

    class Builder:
        def __init__(self) -> None:
            self.nodes: list[onnx.NodeProto] = []

        def __getattr__(self, name: str) -> Any:
            def make(*inputs: str) -> str:
                self.nodes.append(helper.make_node(name, inputs, [f"o{len(self.nodes)}"]))
                return f"o{len(self.nodes) - 1}"

            return make

    x = np.array([[0.0, -1.5, 2.5], [-3e5, 1e-30, 7.0]], np.float32)
    for name, count in rules.OPERATORS.items():
        op = Builder()
        last = rules._in_other_words(op, name, ["x", "w"][:count], "minus")
        reworded = model_of([*op.nodes, helper.make_node("Identity", [last], ["y"])], {"w": [1, 2, 3], "minus": -1})
        plain = model_of([helper.make_node(name, ["x", "w"][:count], ["y"])], {"w": [1, 2, 3]})
        one, two = (session(m).run(None, {"x": x})[0] for m in (plain, reworded))
        np.testing.assert_array_equal(one, two)


def test_a_star_is_told_from_what_is_like_it() -> None:
    relu_clip = model_of([helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Clip", ["a"], ["y"])], {})
    for kind, expected in ((11, "Relu then Clip in float64"), (1, "")):
        for value in (*relu_clip.graph.input, *relu_clip.graph.output):
            value.type.tensor_type.elem_type = kind
        drawn = drawing.Drawn(relu_clip, "chain", "instance")
        assert stars.of("somebody", "answers", "raises Fail", drawn, None) == expected


def test_the_page_shows_what_was_kept() -> None:
    page: Any = importlib.import_module("benchmarks.peers_fuzz.page")
    text = page.DOCS.read_text(encoding="utf-8")
    rows = page.kept()
    for table in (page.broken(rows), page.cases(rows), page.meanings()):
        assert f"-->\n{table}\n<!--" in text
    ours = [row for row in rows if row["peer"] == "onnx-rewrite"]
    assert ours
    assert not any(row["broken"] for row in ours)
