"""What the strategies draw: legal models of every spelling, which the matcher finds again."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnx_rewrite as rw
from onnx_rewrite.pattern import constant, op, optional, repeat, rest
from onnx_rewrite.testing import (
    MUTATIONS,
    Example,
    constants,
    dims,
    dtypes,
    embed,
    feeds,
    graphs,
    instances,
    models,
    near_miss,
    shapes,
    tensors,
)
from onnx_rewrite.testing.comparing import session


class Chain(rw.Pass):
    """Language that our own passes do not use: repeated parts, a rest of operands, conditions."""

    name = "chain"

    def pattern(self, x: Any, others: Any, bound: Any) -> Any:
        joined = op.Concat(x.having(rank=2), rest(others, least=1), axis=1)
        return repeat(lambda v: op.Relu(v).named("steps"), op.Clip(joined, min=optional(bound)), least=1, most=3)

    def replace(self, m: rw.Match) -> Any:
        joined = op.Concat(m.x, *m.others, axis=1)
        low = np.asarray(max(m.bound or 0, 0), np.dtype(m.x.dtype.numpy()))
        return op.Max(joined, low)


class TwoOutputs(rw.Pass):
    """Several outputs."""

    name = "two"

    def pattern(self, x: Any, low: Any) -> Any:
        y = op.Neg(x)
        return y, op.Max(y, constant(low))

    def replace(self, m: rw.Match) -> Any:
        y = op.Mul(m.x, np.asarray(-1, np.dtype(m.x.dtype.numpy())))
        return y, op.Max(y, m.low)


def drawn(strategy: Any, count: int) -> list[Example]:
    found: list[Example] = []

    @settings(max_examples=count, deadline=None, database=None, derandomize=True)
    @given(strategy)
    def collect(example: Example) -> None:
        found.append(example)

    collect()
    return found


@pytest.mark.parametrize("pattern", ["clip", "bn", "ln", Chain, TwoOutputs])
def test_instances_are_legal_and_fire(pattern: Any) -> None:
    found = drawn(instances(pattern), 60)
    for example in found:
        onnx.checker.check_model(example.model, full_check=True)
        assert example.outcome.sites, example
    assert sum(e.fires for e in found) >= 0.7 * len(found)


@pytest.mark.parametrize("pattern", ["bn", Chain])
@pytest.mark.parametrize("strategy", [embed, near_miss])
def test_embedded_ones_and_near_misses_are_legal(pattern: Any, strategy: Any) -> None:
    for example in drawn(strategy(pattern), 60):
        onnx.checker.check_model(example.model, full_check=True)


def test_instances_have_every_spelling() -> None:
    seen: Counter[str] = Counter()
    for example in drawn(instances("bn"), 200):
        graph = example.model.graph
        seen[f"opset {example.model.opset_import[0].version}"] += 1
        for node in graph.node:
            seen[node.op_type] += 1
        seen["initializer"] += bool(graph.initializer)
    assert {"Constant", "Identity", "initializer", "If", "Conv", "Gemm", "MatMul", "ConvTranspose"} <= set(seen)
    assert sum(name.startswith("opset") for name in seen) >= 6


def test_near_misses_are_of_every_kind_that_fits() -> None:
    kinds = {word for example in drawn(near_miss("ln"), 250) for word in example.story}
    assert len(kinds & set(MUTATIONS)) >= 12, kinds


def test_only_and_without() -> None:
    assert all("keepdims flipped" in e.story for e in drawn(near_miss("ln", only=("keepdims flipped",)), 10))
    assert not any("extra consumer" in e.story for e in drawn(near_miss("clip", without=("extra consumer",)), 40))


@settings(max_examples=60, deadline=None)
@given(models(), st.data())
def test_models_run(model: onnx.ModelProto, data: st.DataObject) -> None:
    onnx.checker.check_model(model, full_check=True)
    feed = data.draw(feeds(model))
    assert len(session(model).run(None, feed)) == len(model.graph.output)


@settings(max_examples=30, deadline=None)
@given(graphs())
def test_graphs_have_no_dead_nodes(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
    assert all(set(node.output) & read for node in graph.node)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_parts(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    narrower = data.draw(shapes(onto=shape))
    assert np.broadcast_shapes(shape, narrower) == shape
    dtype = data.draw(dtypes())
    array = data.draw(tensors(dtype, shape))
    assert array.shape == shape
    assert onnx.helper.np_dtype_to_tensor_dtype(array.dtype) == dtype
    assert data.draw(dims(symbols=("n",))) in (*range(1, 7), "n")
    assert data.draw(constants()).constant
