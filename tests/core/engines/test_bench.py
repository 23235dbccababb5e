from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import onnx_rewrite as rw
from onnx_rewrite import demo
from onnx_rewrite.engines import registry
from onnx_rewrite.engines.bench import compare
from onnx_rewrite.engines.protocol import EngineError, Model, Profile
from onnx_rewrite.engines.timing import Effort
from onnx_rewrite.engines.trials import largest_difference
from onnx_rewrite.errors import UsageError

from .models import FakeBackend, FakeEngine, linear

SHORT = Effort(warmup_seconds=0.0, seconds=0.0, iterations=10)


class Stages:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def stage(self, name: str, total: int | None = None) -> None:
        self.names.append(name)


def onnxruntime() -> list:
    return list(registry.choose("onnxruntime").backends)


def test_two_rows_of_everything() -> None:
    stages = Stages()
    before, after = compare(Model(linear(0.5)), Model(linear(0.5)), onnxruntime(), effort=SHORT, progress=stages)
    assert (before.model, after.model) == ("before", "after")
    for row in (before, after):
        assert row.built
        assert row.error is None
        assert row.engine == "onnxruntime"
        assert row.version
        assert row.precision == "fp32"
        assert row.build_seconds > 0
        assert row.engine_bytes > 100
        assert row.layers > 0
        assert row.shapes == {"x": [2, 4]}
        times = row.latency_ms
        assert 0 < times.p25 <= times.p75 <= times.p90 <= times.p99
        assert row.throughput > 0
        assert 0 <= row.max_abs_error < 1e-5
    assert stages.names[1:] == [
        "onnxruntime: building the model before",
        "onnxruntime: building the model after",
        "onnxruntime: measuring",
    ]


def test_one_model_alone() -> None:
    (row,) = compare(None, Model(linear()), onnxruntime(), effort=SHORT)
    assert row.model == "after"
    assert row.latency_ms.median is not None


def test_the_error_is_against_the_same_model_without_optimisations() -> None:
    """Zeros are wrong by as much as the largest output."""
    x = np.ones((2, 4), np.float32)
    backend = FakeBackend([FakeEngine("a", 0.1, []), FakeEngine("b", 0.1, [])])
    rows = compare(Model(linear(0.5)), Model(linear(1.0)), [backend], inputs=[{"x": x}], effort=SHORT)
    column = (np.arange(12).reshape(4, 3) / 8).sum(axis=0).max()
    assert [row.max_abs_error for row in rows] == [pytest.approx(column + 0.5), pytest.approx(column + 1.0)]
    assert [row.relative_error for row in rows] == [pytest.approx(1.0)] * 2


def test_all_feeds_are_compared_and_the_first_is_timed() -> None:
    feeds = [{"x": np.zeros((5, 4), np.float32)}, {"x": np.ones((3, 4), np.float32)}]
    backend = FakeBackend([FakeEngine("a", 0.1, [])])
    (row,) = compare(None, Model(linear(rows="n")), [backend], inputs=feeds, effort=SHORT)
    assert row.shapes == {"x": [5, 4]}
    assert row.max_abs_error > 1


def test_throughput_is_that_of_one_model_alone() -> None:
    backend = FakeBackend([FakeEngine("a", 0.1, []), FakeEngine("b", 0.5, [])])
    before, after = compare(Model(linear()), Model(linear()), [backend], effort=SHORT)
    assert (before.throughput, after.throughput) == (pytest.approx(10), pytest.approx(2))
    assert (before.latency_ms.median, after.latency_ms.median) == (pytest.approx(100), pytest.approx(500))


def test_a_dynamic_input_is_built_for_the_shape_that_is_given_or_drawn() -> None:
    model = Model(linear(rows="n"))
    backend = FakeBackend([FakeEngine("a", 0.1, []), FakeEngine("b", 0.1, [])])
    (row,) = compare(None, model, [backend], shapes={"x": (7, 4)}, effort=SHORT)
    assert row.shapes == {"x": [7, 4]}
    assert backend.profiles[0] == {"x": Profile((7, 4), (7, 4), (7, 4))}
    (row,) = compare(None, model, [backend], effort=SHORT)
    assert row.shapes["x"][0] > 0


def test_what_is_not_built_is_said_and_the_rest_goes_on() -> None:
    broken = FakeBackend([EngineError("node sum: no"), FakeEngine("b", 0.1, [])])
    sound = FakeBackend([FakeEngine("a", 0.1, []), FakeEngine("b", 0.1, [])], name="other")
    rows = compare(Model(linear()), Model(linear()), [broken, sound], effort=SHORT)
    assert [(row.engine, row.model, row.built, row.error) for row in rows] == [
        ("fake", "before", False, "node sum: no"),
        ("fake", "after", True, None),
        ("other", "before", True, None),
        ("other", "after", True, None),
    ]
    assert rows[0].version == "1.0"
    assert rows[0].device == rows[1].device == "nowhere"
    assert rows[0].latency_ms.median is None
    assert rows[1].latency_ms.median is not None


@pytest.mark.parametrize(("fails_after", "words"), [(0, "not run: out of cheese"), (5, "not run to the end: out")])
def test_what_does_not_run_is_said(fails_after: int, words: str) -> None:
    backend = FakeBackend([FakeEngine("a", 0.1, [], fails_after=fails_after)])
    (row,) = compare(None, Model(linear()), [backend], effort=SHORT)
    assert row.built
    assert row.error is not None
    assert row.error.startswith(words)
    assert row.latency_ms.median is None


def test_an_engine_for_another_machine_is_not_run() -> None:
    engine = FakeEngine("a", 0.1, [], obstacle="for another machine")
    (row,) = compare(None, Model(linear()), [FakeBackend([engine])], effort=SHORT)
    assert engine.log == []
    assert (row.built, row.error, row.layers, row.max_abs_error) == (True, None, 1, None)


def test_without_a_rank_nothing_can_be_drawn() -> None:
    model = linear()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    (row,) = compare(None, Model(model), onnxruntime(), effort=SHORT)
    assert row.built
    assert "input 'x' has no declared rank" in str(row.error)


def test_fp16_is_held_against_fp32() -> None:
    (row,) = compare(None, Model(linear(0.5, kind=TensorProto.FLOAT16)), onnxruntime(), effort=SHORT)
    assert row.precision == "fp16"
    assert 0 < row.max_abs_error < 1e-2


@pytest.mark.parametrize(
    ("options", "words"),
    [({"shapes": {"z": (1,)}}, "no input 'z'"), ({"inputs": [{"x": np.zeros((2, 5), np.float32)}]}, "has 5 on axis 1")],
)
def test_what_does_not_fit(options: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        compare(None, Model(linear()), onnxruntime(), effort=SHORT, **options)


@pytest.mark.parametrize(
    ("found", "expected", "difference"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.5),
        ([np.nan, np.inf], [np.nan, np.inf], 0.0),
        ([np.nan, 1.0], [0.0, 1.0], np.inf),
        ([np.inf, 1.0], [-np.inf, 1.0], np.inf),
        ([np.inf, 1.0], [3.0, 1.0], np.inf),
        ([1.0], [1.0, 2.0], np.inf),
        ([True, False], [True, False], 0.0),
        ([True, True], [True, False], np.inf),
        ([3, 4], [3, 9], 5.0),
        ([], [], 0.0),
    ],
)
def test_differences(found: list, expected: list, difference: float) -> None:
    assert largest_difference({"y": np.array(found)}, {"y": np.array(expected)})[0] == difference


@pytest.mark.usefixtures("rtx")
def test_the_rewritten_demo_has_fewer_layers_in_onnxruntime_and_no_more_kernels_in_rtx(tmp_path: Path) -> None:
    result = rw.rewrite(demo.copy_model(tmp_path), demo.PASSES, bench=("onnxruntime", "tensorrt-rtx"))
    rows = {(row.engine, row.model): row for row in result.report.benchmark}
    assert len(rows) == 4
    assert all(row.built and row.error is None for row in rows.values())
    assert rows["onnxruntime", "after"].layers < rows["onnxruntime", "before"].layers
    assert 0 < rows["tensorrt-rtx", "after"].layers <= rows["tensorrt-rtx", "before"].layers
    assert rows["tensorrt-rtx", "after"].latency_ms.median is None
    assert rows["tensorrt-rtx", "after"].device == "SM89 (ahead of time)"


def test_bench_of_two_models_with_other_inputs() -> None:
    other = linear()
    other.graph.input[0].name = "z"
    other.graph.node[0].input[0] = "z"
    with pytest.raises(UsageError, match="different inputs: x before and z after"):
        rw.bench(other, linear(), engines="onnxruntime")


def test_an_engine_that_is_missing_is_found_before_the_model_is_read() -> None:
    with pytest.raises(UsageError, match="unknown engine 'nonesuch'"):
        rw.rewrite("missing.onnx", "ln", bench="nonesuch")
    with pytest.raises(UsageError, match="unknown engine 'nonesuch'"):
        rw.bench("missing.onnx", engines="nonesuch")


def test_the_model_that_is_measured_is_not_changed() -> None:
    model = linear()
    bytes_before = model.SerializeToString()
    compare(None, Model(model), onnxruntime(), effort=SHORT)
    assert model.SerializeToString() == bytes_before
    assert isinstance(model, onnx.ModelProto)
