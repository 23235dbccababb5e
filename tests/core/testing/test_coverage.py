"""What docs/testing.md promises of the draws really occurs in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, seed, settings

import onnx_rewrite as rw
from onnx_rewrite.pattern import constant, op
from onnx_rewrite.testing import MUTATIONS, Draft, Example, Tape, Unfit, embed, instances, mutation, near_miss
from onnx_rewrite.testing.drawing import OPSETS


class Scaled(rw.Pass):
    """A mean, scaled: an operator whose operands commute, a default, axes of both forms, two kinds of constants."""

    name = "scaled"

    def pattern(self, x: Any, axes: Any, scale: Any) -> Any:
        return op.Mul(op.ReduceMean(x, axes=axes, keepdims=1), constant(scale))

    def replace(self, m: rw.Match) -> Any:
        return op.ReduceMean(op.Mul(m.x, m.scale), axes=m.axes, keepdims=1)

    def check(self, m: rw.Match) -> None:
        if m.scale.shape:
            raise rw.Refused("not one number", m.scale)


def drawn(strategy: Any, count: int) -> list[Example]:
    found: list[Example] = []

    @seed(5)
    @settings(max_examples=count, deadline=None, database=None)
    @given(strategy)
    def collect(example: Example) -> None:
        found.append(example)

    collect()
    return found


def graphs(model: onnx.ModelProto) -> Iterator[Any]:
    """All graphs, those of functions included."""
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        waiting += [a.g for n in graph.node for a in n.attribute if a.type == onnx.AttributeProto.GRAPH]


def nodes(model: onnx.ModelProto, op_type: str) -> list[onnx.NodeProto]:
    return [n for g in graphs(model) for n in g.node if n.op_type == op_type]


# -- instances


def spellings(model: onnx.ModelProto) -> Iterator[str]:
    """How the constants of a model are written."""
    main = {t.name for t in model.graph.initializer}
    for graph in graphs(model):
        inner = graph is not model.graph
        own = {t.name for t in getattr(graph, "initializer", ())}
        made = {n.output[0]: n for n in graph.node}
        for node in graph.node:
            if node.op_type == "Constant":
                yield f"Constant {node.attribute[0].name}"
            for name in node.input:
                if name in own:
                    yield "Identity of an initializer" if node.op_type == "Identity" else "initializer"
                elif inner and (name in main or name not in made):
                    yield "captured from outside" if name in main else "captured"
                if node.op_type == "Identity" and name in made and made[name].op_type == "Constant":
                    yield "Identity of a Constant"


def test_instances_vary_as_told() -> None:
    seen: Counter[str] = Counter()
    for example in drawn(instances(Scaled), 240):
        model = example.model
        opset = next(o.version for o in model.opset_import if not o.domain)
        seen[f"opset {opset}"] += 1
        seen.update(set(spellings(model)))
        (mean,), scaled = nodes(model, "ReduceMean")[:1], nodes(model, "Mul")[0]
        seen["commuted" if scaled.input[1] == mean.output[0] else "in place"] += 1
        given_attributes = {a.name: onnx.helper.get_attribute_value(a) for a in mean.attribute}
        seen["default given" if "keepdims" in given_attributes else "default left out"] += 1
        axes = given_attributes.get("axes")
        arrays = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        if axes is None and len(mean.input) > 1 and mean.input[1] in arrays:
            axes = arrays[mean.input[1]].tolist()
        if axes:
            seen["negative axes" if axes[0] < 0 else "positive axes"] += 1
    wanted = {
        "commuted", "in place", "default given", "default left out", "negative axes", "positive axes",
        "initializer", "Identity of an initializer", "Identity of a Constant", "captured from outside",
        "Constant value", "Constant value_float", "Constant value_ints", "Constant sparse_value",
    }  # fmt: skip
    assert wanted <= set(seen), wanted - set(seen)
    newest = onnx.defs.onnx_opset_version()
    assert {f"opset {n}" for n in range(7, min(newest, 28) + 1)} <= set(seen)


def test_numbers_have_any_rank_up_to_3() -> None:
    """Also beyond the rank of what they are combined with, which the result has then."""
    ranks, beyond = set[int](), 0
    for example in drawn(embed("clip"), 150):
        assert example.draft is not None
        for node in (n for n in example.draft.nodes if n.op_type in ("Min", "Max")):
            read = [v for v in node.inputs if v is not None]
            numbers = [v.array.ndim for v in read if v.array is not None and v.array.size == 1]
            ranks.update(numbers)
            beyond += max(numbers, default=0) > max((len(v.shape) for v in read if v.array is None), default=9)
    assert ranks >= {0, 1, 2, 3}
    assert beyond


def test_opset_6_is_drawn_where_onnxruntime_has_kernels() -> None:
    assert 6 in OPSETS
    draft = Draft(6)
    x = draft.input(1, (2,))
    draft.node("Relu", [x])
    with pytest.raises(Unfit, match="onnxruntime has no Add of opset 6"):
        draft.node("Add", [x, x])


# -- embedded


def test_embedded_ones_stand_everywhere() -> None:
    told: Counter[str] = Counter()
    overlaps = 0
    for example in drawn(embed("clip"), 180):
        told.update(example.story)
        assert example.draft is not None
        parts = {id(v): n.part for n in example.draft.nodes for v in n.outputs}
        interior = {id(v) for v in example.draft.interior()}
        for node in example.draft.nodes:
            for value in node.inputs:
                if node.part is not None and value is not None and parts.get(id(value), node.part) != node.part:
                    told["reads another instance"] += 1
                    overlaps += id(value) in interior
    wanted = {
        "1 instance", "2 instances", "3 instances", "reads another instance",
        "an interior value is an output", "an interior value has another consumer",
        "in If", "in If with constants outside", "in Loop", "in If in a Loop", "in function",
    }  # fmt: skip
    assert wanted <= set(told), wanted - set(told)
    assert overlaps


def captured(graph: Any) -> set[str]:
    """The names that a graph reads and does not hold."""
    bodies = [a.g for n in graph.node for a in n.attribute if a.type == onnx.AttributeProto.GRAPH]
    read = {name for n in graph.node for name in n.input if name} | {o.name for o in graph.output}
    held = (
        {i.name for i in graph.input} | {t.name for t in graph.initializer} | {o for n in graph.node for o in n.output}
    )
    return read.union(*map(captured, bodies)) - held


def test_a_body_in_a_body_captures_inputs_and_constants_of_the_main_graph() -> None:
    """Through two bodies, that is: the one in between does not name them otherwise."""
    seen: Counter[str] = Counter()
    for example in drawn(embed("clip"), 120):
        if example.container != "If in a Loop":
            continue
        (loop,) = nodes(example.model, "Loop")
        (branches,) = ([a.g for a in n.attribute] for n in loop.attribute[0].g.node if n.op_type == "If")
        main = example.model.graph
        inner = set().union(*map(captured, branches))
        seen["inputs"] += not inner.isdisjoint(i.name for i in main.input)
        seen["constants"] += not inner.isdisjoint({t.name for t in main.initializer} | {n.output[0] for n in main.node})
    assert min(seen["inputs"], seen["constants"]) >= 5, seen


class Pair(rw.Pass):
    """Two outputs, the second of the first and of something else."""

    name = "pair"

    def pattern(self, x: Any, other: Any) -> Any:
        y = op.Neg(x)
        return y, op.Max(y, other)

    def replace(self, m: rw.Match) -> Any:
        y = op.Neg(m.x)
        return y, op.Max(m.other, y)


def test_nodes_stand_among_those_of_an_instance() -> None:
    """What an instance reads may come after its first node, may be made of its own values, and may be one of them."""
    seen: Counter[str] = Counter()
    for example in drawn(embed(Pair), 120):
        assert example.draft is not None
        nodes_ = example.draft.nodes
        at = {id(v): i for i, n in enumerate(nodes_) for v in n.outputs}
        for node in nodes_:
            if node.op_type != "Max" or node.part is None:
                continue
            first = min(i for i, n in enumerate(nodes_) if n.part == node.part)
            for value in node.inputs:
                made = None if value is None else at.get(id(value))
                if made is None or nodes_[made].part == node.part:
                    continue
                seen["late"] += made > first
                seen["not convex"] += any(
                    nodes_[at[id(v)]].part == node.part for v in nodes_[made].inputs if id(v) in at
                )
        seen["refused"] += example.outcome.count("refused") > 0
        names = [o.name for o in example.model.graph.output]
        order = [o.name for o in example.draft.outputs]
        seen["outputs in another order"] += order != sorted(order, key=lambda n: int(n[1:])) and len(names) > 1
    assert min(seen[k] for k in ("late", "not convex", "refused", "outputs in another order")) >= 5, seen


class Leaky(rw.Pass):
    """Says nothing of alpha."""

    name = "leaky"

    def pattern(self, x: Any) -> Any:
        return op.LeakyRelu(x)

    def replace(self, m: rw.Match) -> Any:
        return op.LeakyRelu(op.Identity(m.x))


def test_defaults_are_written_out() -> None:
    given_ = [bool(n.attribute) for e in drawn(instances(Leaky), 80) for n in nodes(e.model, "LeakyRelu")]
    assert 5 <= sum(given_) <= len(given_) - 5


def test_an_epsilon_may_vanish() -> None:
    """An epsilon of 1e-12 is 0 in float16; ln refuses it."""
    reasons = [s.reason or "" for e in drawn(embed("ln"), 250) for s in e.outcome.sites]
    assert any("epsilon is 0 in FLOAT16" in reason for reason in reasons)


def test_matches_overlap() -> None:
    """A chain of four bounds can be matched in three places, of which two exclude each other."""
    assert any(e.outcome.applied > 2 for e in drawn(embed("clip"), 60))


# -- near misses

PATTERNS = {"bn": ("training_mode", "groups"), "clip": ("bounds reversed", "empty optional input")}


@pytest.mark.parametrize("name", list(MUTATIONS))
def test_every_mutation_occurs(name: str) -> None:
    pattern = next((p for p, names in PATTERNS.items() if name in names), "ln")
    found = drawn(near_miss(pattern, only=(name,)), 4)
    assert any(name in e.story for e in found)


def test_mutations_change_what_they_say() -> None:
    def changed(name: str, pattern: str = "ln", count: int = 6) -> list[Example]:
        return [e for e in drawn(near_miss(pattern, only=(name,)), count) if name in e.story]

    for example in changed("initializer is an input too"):
        assert {i.name for i in example.model.graph.input} & {t.name for t in example.model.graph.initializer}
    for example in changed("captured by a body"):
        assert nodes(example.model, "If")
    for example in changed("training_mode", "bn"):
        assert any(
            a.name == "training_mode" and a.i == 1
            for n in nodes(example.model, "BatchNormalization")
            for a in n.attribute
        )
    for example in changed("empty optional input", "clip"):
        assert any("" in n.input for g in graphs(example.model) for n in g.node) or nodes(example.model, "Clip")
    for example in changed("interior value is an output"):
        read = {name for g in graphs(example.model) for n in g.node for name in n.input}
        assert read & {o.name for o in example.model.graph.output}


def test_an_author_adds_a_mutation() -> None:
    @mutation("everything is negated")
    def negated(draft: Draft, tape: Tape) -> bool:
        found = [v for v in draft.read() if v.array is not None and v.array.dtype.kind == "f"]
        for value in found:
            value.array = np.negative(value.array)  # type: ignore[arg-type]
        return bool(found)

    try:
        assert any(
            "everything is negated" in e.story for e in drawn(near_miss("ln", only=("everything is negated",)), 4)
        )
        with pytest.raises(ValueError, match="there is a mutation called"):
            mutation("everything is negated")(lambda draft, tape: True)
    finally:
        del MUTATIONS["everything is negated"]
