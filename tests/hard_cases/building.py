"""What every hard case is held against: sites, reasons, names, the checker, and onnxruntime's own outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

import onnx_rewrite as rw
from tests.passes import building
from tests.passes.building import told

Feed = dict[str, np.ndarray]

ROUNDING = {"float16": 2e-2, "bfloat16": 5e-2, "float32": 2e-4, "float64": 1e-10}


def outputs_of(model: onnx.ModelProto | str, feed: Feed) -> list[Any]:
    """What onnxruntime computes, without optimisations of its own."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    source = model if isinstance(model, str) else model.SerializeToString()
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}
    return session.run(None, {name: value for name, value in feed.items() if name in wanted})


def drawn(made: onnx.ModelProto, seed: int = 0, sizes: Mapping[str, int] | None = None) -> Feed:
    """A feed of the model's inputs; symbols that `sizes` does not name are 3, 4, ... long.

    Even seeds are ordinary numbers, odd ones are all negative and up to thousands.
    """
    rng = np.random.default_rng(seed)
    given = {t.name for t in made.graph.initializer}
    known = dict(sizes or {})
    feed: Feed = {}
    for value in made.graph.input:
        if value.name in given:
            continue
        tensor = value.type.tensor_type
        shape = [
            d.dim_value if d.HasField("dim_value") else known.setdefault(d.dim_param, 3 + len(known))
            for d in tensor.shape.dim
        ]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        numbers = rng.standard_normal(shape) * 3
        if seed % 2:
            numbers = -np.abs(numbers) * 10.0 ** rng.uniform(-2, 2 if dtype == np.float16 else 3, shape)
        if dtype == np.bool_:
            numbers = np.full(shape, seed % 4 < 2)
        elif dtype.kind == "u":
            numbers = np.abs(numbers)
        feed[value.name] = np.asarray(numbers).astype(dtype)
    return feed


def assert_same(mine: Sequence[Any], theirs: Sequence[Any]) -> None:
    """Outputs of one feed, within the rounding of their dtype; integers and booleans exactly."""
    assert len(mine) == len(theirs)
    for one, other in zip(mine, theirs, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        if one.dtype.kind in "biu":
            assert (one == other).all()
            continue
        rounding = ROUNDING[one.dtype.name]
        one, other = one.astype(np.float64), other.astype(np.float64)
        scale = np.max(np.abs(other[np.isfinite(other)]), initial=1.0)
        assert np.allclose(one, other, rtol=rounding, atol=rounding * scale, equal_nan=True)


def interface(made: onnx.ModelProto) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    return list(made.graph.input), list(made.graph.output)


def agree(made: onnx.ModelProto, proto: onnx.ModelProto, sizes: Mapping[str, int] | None = None) -> None:
    """The rewritten model is valid, has the same inputs and outputs, and gives the same numbers."""
    onnx.checker.check_model(proto, full_check=True)
    assert interface(proto) == interface(made)
    for seed in range(4):
        feed = drawn(made, seed, sizes)
        assert_same(outputs_of(proto, feed), outputs_of(made, feed))


def fires(
    made: onnx.ModelProto, one: Any, sites: int = 1, *, sizes: Mapping[str, int] | None = None, **options: Any
) -> onnx.ModelProto:
    """`sites` sites are applied, every one verified where it stood; the result is what the original was."""
    proto = building.fires(made, one, sites, **options)
    agree(made, proto, sizes)
    return proto


def is_left(made: onnx.ModelProto, one: Any, reason: str | None = None, **options: Any) -> rw.Result:
    """Nothing is applied: a site is refused for `reason`, or, without one, there is no site."""
    result = building.is_left(made, one, reason, **options)
    assert result.to_proto().SerializeToString(deterministic=True) == made.SerializeToString(deterministic=True)
    return result


def is_caught(made: onnx.ModelProto, wrong: Any, sites: int = 1, reason: str = "", **options: Any) -> rw.Result:
    """A wrong pass finds `sites` sites; each is rolled back (for `reason`), and nothing is left of them."""
    before = made.SerializeToString(deterministic=True)
    result = rw.rewrite(made, wrong, **options)
    (report,) = result.report.passes
    assert (report.applied, report.rolled_back) == (0, sites), told(result)
    assert not result.changed
    assert result.to_proto().SerializeToString(deterministic=True) == before
    backs = [s for s in result.sites if s.status == "rolled_back"]
    assert all(reason in (s.reason or "") for s in backs), told(result)
    return result


def is_judged_wrong(made: onnx.ModelProto, wrong: Any, sites: int = 1, **options: Any) -> rw.Result:
    """As `is_caught`, and it was the comparison of numbers that caught it."""
    result = is_caught(made, wrong, sites, **options)
    backs = [s for s in result.sites if s.status == "rolled_back"]
    assert [s.verification.verdict for s in backs] == ["different"] * sites, told(result)
    assert all(s.before is not None and s.after is not None for s in backs)
    return result


def body(made: onnx.ModelProto, op_type: str, which: int = 0) -> onnx.GraphProto:
    """Body number `which` of the only node of an operator."""
    found = building.node(made, op_type)
    return [a.g for a in found.attribute if a.type == onnx.AttributeProto.GRAPH][which]


def initializers(graph: onnx.ModelProto | onnx.GraphProto) -> dict[str, np.ndarray]:
    graph = graph.graph if isinstance(graph, onnx.ModelProto) else graph
    return {t.name: numpy_helper.to_array(t) for t in graph.initializer}
