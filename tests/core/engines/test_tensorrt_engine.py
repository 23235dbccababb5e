"""The TensorRT engine behind a module with the Python API of 8.6 that needs no GPU."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnx_rewrite as rw
from onnx_rewrite.engines import registry, tensorrt, trt_build
from onnx_rewrite.engines.bench import compare
from onnx_rewrite.engines.options import BuildOptions
from onnx_rewrite.engines.protocol import Bursting, EngineError, Model, Profile, Profiled
from onnx_rewrite.engines.tensorrt import GpuEngine, TensorRT
from onnx_rewrite.engines.timing import Effort
from onnx_rewrite.errors import UsageError

from . import fake_tensorrt as fake
from .models import linear

SHORT = Effort(warmup_seconds=0.0, seconds=0.0, iterations=10)
X = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture(autouse=True)
def trt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("ONNX_REWRITE_CACHE", str(tmp_path / "cache"))
    return fake.install(monkeypatch)


def build(model: onnx.ModelProto, *, profiles: dict[str, Profile] | None = None, **options: Any) -> GpuEngine:
    return TensorRT(BuildOptions(**options)).build(Model(model), profiles=profiles)


def config() -> fake.IBuilderConfig:
    assert fake.Builder.last is not None
    assert fake.Builder.last.config is not None
    return fake.Builder.last.config


def expected(bias: float = 0.0) -> np.ndarray:
    return np.maximum(X @ (np.arange(12, dtype=np.float32).reshape(4, 3) / 8) + bias, 0)


def test_it_runs_and_gives_what_the_model_gives() -> None:
    engine = build(linear(0.5))
    assert isinstance(engine, Bursting)
    assert isinstance(engine, Profiled)
    np.testing.assert_allclose(engine.run({"x": X})["y"], expected(0.5), rtol=1e-6)
    np.testing.assert_allclose(engine.run({"x": -X})["y"], np.maximum(0.5 - (expected()), 0), rtol=1e-6)
    assert len(engine.timings) == 2
    phases = engine.timings[0].phases
    assert phases is not None
    assert phases.h2d[1] <= phases.compute[0] <= phases.compute[1] <= phases.d2h[0] <= phases.d2h[1]
    assert engine.timings[0].seconds == pytest.approx(phases.latency / 1e3)
    assert (engine.device, engine.version) == ("NVIDIA Fake 1", "8.6.0")
    assert fake.Builder.last is not None
    assert fake.Builder.last.network_flags == 1  # explicit batch


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("transfers", [True, False])
def test_bursts(graph: bool, transfers: bool) -> None:
    engine = build(linear(), graph=graph, transfers=transfers, streams=2)
    cuda = fake.FakeCuda.last
    assert cuda is not None
    engine.burst({"x": X}, 0.0, 12)
    copies, launches = cuda.copies, cuda.launches
    engine.burst({"x": X}, 0.0, 12)
    assert [count for count, _ in engine.bursts] == [12, 12]
    assert len(engine.timings) == 24
    assert cuda.launches - launches == (12 if graph else 0)
    assert cuda.copies - copies == (24 if transfers else 0)
    phases = engine.timings[-1].phases
    assert phases is not None
    assert (phases.h2d[1] > phases.h2d[0]) == transfers
    assert all(wall > 0 for _, wall in engine.bursts)
    assert engine.graphed == graph


def test_another_shape_of_a_dynamic_input() -> None:
    wide = Profile((1, 4), (2, 4), (8, 4))
    engine = build(linear(rows="n"), profiles={"x": wide})
    assert engine.run({"x": X})["y"].shape == (2, 3)
    assert engine.run({"x": np.ones((5, 4), np.float32)})["y"].shape == (5, 3)
    assert config().profiles[0].shapes == {"x": ((1, 4), (2, 4), (8, 4))}
    with pytest.raises(EngineError, match="input x of shape"):
        engine.run({"x": np.ones((5, 3), np.float32)})
    with pytest.raises(UsageError, match="input x has dynamic dimensions"):
        build(linear(rows="n"))


def test_streams_and_a_profiler_share_the_profile_of_a_dynamic_engine() -> None:
    engine = build(linear(rows="n"), profiles={"x": Profile((1, 4), (2, 4), (8, 4))}, streams=2)
    engine.burst({"x": X}, 0.0, 4)
    assert engine.profile({"x": X})
    assert config().preview == {fake.PreviewFeature.PROFILE_SHARING_0806}


def test_a_library_that_is_known_to_work_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    build(linear())
    monkeypatch.setattr(fake.Builder, "__init__", lambda *_: pytest.fail("a builder was made"))
    tensorrt._works.cache_clear()  # as in a new process
    assert build(linear()).cached


def test_all_memory_is_given_back() -> None:
    engine = build(linear(rows="n"), profiles={"x": Profile((1, 4), (2, 4), (8, 4))})
    cuda = fake.FakeCuda.last
    assert cuda is not None
    for rows in (2, 5, 3):
        engine.burst({"x": np.ones((rows, 4), np.float32)}, 0.0, 3)
    assert len(cuda.held) == 4
    del engine
    gc.collect()
    assert (cuda.held, cuda.events, cuda.graphs, cuda.streams) == ({}, {}, {}, set())


def test_what_cannot_be_captured_runs_without_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake.FakeCuda, "capturable", False)
    engine = build(linear())
    engine.burst({"x": X}, 0.0, 3)
    assert len(engine.timings) == 3
    assert "not run as a CUDA graph: CUDA: operation not permitted" in engine.notes[0]


def test_an_output_whose_shape_depends_on_values() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])
    y = helper.make_tensor_value_info("y", TensorProto.INT64, [2, "n"])
    graph = helper.make_graph([helper.make_node("NonZero", ["x"], ["y"], name="nz")], "g", [x], [y])
    engine = build(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    for value in (X, np.zeros_like(X), np.eye(2, 4, dtype=np.float32)):
        found = engine.run({"x": value})["y"]
        assert found.dtype == np.int64  # 8.6 has int32 only
        np.testing.assert_array_equal(found, np.stack(np.nonzero(value)))


def test_int64_inputs_become_int32_where_they_fit() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.INT64, [2])
    y = helper.make_tensor_value_info("y", TensorProto.INT64, [2])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"], name="i")], "g", [x], [y])
    engine = build(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    assert engine.run({"x": np.array([3, -4])})["y"].tolist() == [3, -4]
    with pytest.raises(EngineError, match="holds numbers that int32 has not"):
        engine.run({"x": np.array([3, 1 << 40])})


def test_options_reach_the_builder(tmp_path: Path) -> None:
    cache = tmp_path / "timings"
    options = {
        "workspace": 64,
        "tactic_sources": ("edge_mask_convolutions", "jit_convolutions"),
        "level": 2,
        "hardware_compatibility": "ampere+",
        "timing_cache": str(cache),
    }
    build(linear(), **options)
    found = config()
    assert found.pools == {fake.MemoryPoolType.WORKSPACE: 64 << 20}
    assert found.sources == 0b11000
    assert found.builder_optimization_level == 2
    assert found.hardware_compatibility_level is fake.HardwareCompatibilityLevel.AMPERE_PLUS
    assert cache.read_bytes() == b"!"
    build(linear(1.0), **options)
    assert cache.read_bytes() == b"!!"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tactic_sources": ("cublass",)}, "TensorRT 8.6.0 has no tactic source 'cublass'"),
        ({"hardware_compatibility": "same"}, "has no hardware compatibility 'same'"),
        ({"precision": "bf16"}, "has no flag for bf16"),
        ({"precision": "int8"}, "needs scales for int8"),
        ({"precision": "fp61"}, "unknown precision 'fp61'"),
        ({"level": 6}, "a number from 0 to 5"),
        ({"plugins": ("nowhere.so",)}, "--plugin nowhere.so: no such file"),
    ],
)
def test_what_this_version_has_not(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build(linear(), **options)


def test_a_plugin_that_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "p.so").write_text("not a library")
    with pytest.raises(UsageError, match=r"p\.so does not load"):
        build(linear(), plugins=(str(tmp_path / "p.so"),))


@pytest.mark.parametrize(
    ("precision", "kind", "reported", "flags"),
    [
        (None, TensorProto.FLOAT, "tf32", {"TF32"}),
        ("fp32", TensorProto.FLOAT, "fp32", set()),
        ("tf32", TensorProto.FLOAT, "tf32", {"TF32"}),
        ("fp16", TensorProto.FLOAT, "fp16", {"TF32", "FP16"}),
        ("fp16+fp32", TensorProto.FLOAT, "fp16+fp32", {"FP16"}),
        (None, TensorProto.FLOAT16, "fp16", {"TF32", "FP16"}),
        ("fp16", TensorProto.FLOAT16, "fp16", {"TF32", "FP16"}),
    ],
)
def test_precisions(precision: str | None, kind: int, reported: str, flags: set[str]) -> None:
    assert build(linear(kind=kind), precision=precision).precision == reported
    assert {flag.name for flag in config().flags} == flags


def test_later_versions_have_no_precision_flags(trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import enum

    monkeypatch.setattr(trt, "BuilderFlag", enum.Enum("BuilderFlag", "DEBUG REFIT"))
    monkeypatch.setattr(trt, "__version__", "11.0.0")
    with pytest.raises(
        UsageError, match=r"TensorRT 11\.0\.0 computes in the types that the ONNX model names: .* fp32, not fp16"
    ):
        build(linear(), precision="fp16")
    assert build(linear()).precision == "fp32"
    assert fake.Builder.last is not None
    assert fake.Builder.last.network_flags == 0
    assert build(linear(kind=TensorProto.FLOAT16)).precision == "fp16"


def test_functions_are_inlined_for_a_parser_without_them() -> None:
    def body() -> onnx.FunctionProto:
        nodes = [helper.make_node("Relu", ["a"], ["b"], name="inside")]
        return helper.make_function("own", "F", ["a"], ["b"], nodes, [helper.make_opsetid("", 17)])

    model = linear(0.5)
    model.graph.node[2].CopyFrom(helper.make_node("F", ["s"], ["y"], name="call", domain="own"))
    model.functions.append(body())
    model.opset_import.append(helper.make_opsetid("own", 1))
    np.testing.assert_allclose(build(model).run({"x": X})["y"], expected(0.5), rtol=1e-6)
    assert model.functions  # the user's own is as it was


def test_a_plugin_that_computes_by_cublas_is_not_built_without_it() -> None:
    """TensorRT 8.6's ModulatedDeformConv2d would leave its output unwritten, and say nothing."""
    model = linear()
    node = helper.make_node("ModulatedDeformConv2d", ["x"], ["z"], name="deform", plugin_version="1")
    model.graph.node.append(node)
    with pytest.raises(UsageError, match="ModulatedDeformConv2d 'deform' writes nothing unless cublas") as caught:
        build(model, tactic_sources=("edge_mask_convolutions",))
    assert caught.value.hint is not None
    assert "tactic-sources=edge_mask_convolutions+cublas" in caught.value.hint


def test_refused_nodes_are_listed_with_the_pass_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_build, "REMEDIES", {"Gelu": "not-installed", "DeformConv": "clip"})
    model = linear()
    node = model.graph.node
    node[2].CopyFrom(helper.make_node("Gelu", ["s"], ["g"], name="gelu"))
    node.append(helper.make_node("DeformConv", ["g", "w", "b"], ["y"], name="deform"))
    with pytest.raises(EngineError) as caught:
        build(model)
    lines = str(caught.value).splitlines()
    assert lines[0] == "TensorRT 8.6.0 cannot parse the model:"
    words = "node gelu (Gelu): In node 2 (parseGraph): UNSUPPORTED_NODE: No importer registered for op: Gelu"
    assert lines[1].strip() == words
    assert lines[2].strip() == (
        "node deform (DeformConv): the parser does not know this operator (the pass 'clip' replaces it)"
    )


def test_the_builder_s_own_words() -> None:
    model = linear()
    model.graph.name = "unbuildable"
    with pytest.raises(EngineError, match="Could not find any implementation for node sum"):
        build(model)


def test_engines_are_found_again(tmp_path: Path) -> None:
    fake.Builder.builds = 0
    first = build(linear())
    second = build(linear())
    assert (first.cached, second.cached, fake.Builder.builds) == (False, True, 1)
    assert second.build_seconds == pytest.approx(first.build_seconds)
    assert second.warnings == first.warnings == ("a warning of the builder",)
    np.testing.assert_allclose(second.run({"x": X})["y"], expected(), rtol=1e-6)
    assert not build(linear(0.5)).cached
    assert not build(linear(), level=1).cached
    assert build(linear(), streams=3, graph=False).cached  # which the bytes do not depend on
    assert not build(linear(), cache=False).cached
    for kept in (tmp_path / "cache").rglob("*.engine"):
        kept.write_bytes(b"broken")
    assert not build(linear()).cached


def test_external_weights_count(tmp_path: Path) -> None:
    onnx.save(linear(), tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    from onnx_rewrite.engines import cache

    first = cache.key(Model(model, tmp_path), {}, {})
    assert first == cache.key(Model(model, tmp_path), {}, {})
    data = bytearray((tmp_path / "w.bin").read_bytes())
    data[0] ^= 1
    (tmp_path / "w.bin").write_bytes(data)
    assert first != cache.key(Model(model, tmp_path), {}, {})


def test_layers_and_their_nodes() -> None:
    engine = build(linear())
    one, copy, rest = engine.layers
    assert (one.nodes, one.tactic, one.types) == (("product",), "ampere_sgemm_64x32", "FP32 -> FP32")
    assert copy.reformats
    assert rest.nodes == ("sum", "relu")  # from the ends of the region
    profiled = engine.profile({"x": X})
    assert [layer.milliseconds for layer in profiled] == [0.25, 0.5, 0.75]
    assert {len(times) for _, times in engine.raw_profile} == {50}


def test_a_comparison() -> None:
    backends = registry.choose("tensorrt", precisions=("fp32", "fp16")).backends
    rows = compare(Model(linear()), Model(linear(0.5)), backends, effort=SHORT, profile=True)
    assert [(row.precision, row.model, row.error) for row in rows] == [
        (p, m, None) for p in ("fp32", "fp16") for m in ("before", "after")
    ]
    for row in rows:
        assert row.throughput is not None
        assert row.parts_ms["h2d"].median == 0.0
        assert row.parts_ms["compute"].median == row.latency_ms.median
        assert row.max_abs_error is not None
        assert row.max_abs_error < 1e-5
        assert len(row.profile) == 3
        assert "a warning of the builder" in row.warnings
    assert rows[0].ratio is None
    assert rows[1].ratio is not None
    assert rows[1].ratio.low <= rows[1].ratio.value <= rows[1].ratio.high


def test_rewrite_with_bench() -> None:
    result = rw.rewrite(linear(), "clip", bench="tensorrt:fp16:no-cache")
    assert [(row.engine, row.precision, row.built) for row in result.report.benchmark] == [
        ("tensorrt", "fp16", True)
    ] * 2


def test_options_in_the_engine_s_name() -> None:
    (backend,) = registry.choose("tensorrt:fp16:level=2:tactic-sources=cublas+cudnn:no-graph:streams=3").backends
    assert isinstance(backend, TensorRT)
    assert backend.options == BuildOptions("fp16", tactic_sources=("cublas", "cudnn"), level=2, graph=False, streams=3)
    for wrong, words in (
        ("tensorrt:fp61", "unknown option"),
        ("tensorrt:level=x", "a number"),
        ("auto:fp16", "no options"),
    ):
        with pytest.raises(UsageError, match=words):
            registry.choose(wrong)


def test_too_little_memory_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx_rewrite.engines.cuda import CudaError

    def full(self: object, size: int) -> int:
        raise CudaError("CUDA: not enough GPU memory")

    monkeypatch.setattr(fake.FakeCuda, "allocate", full)
    (row,) = compare(None, Model(linear()), [TensorRT()], effort=SHORT)
    assert row.built
    assert row.error == ("not run: CUDA: not enough GPU memory: 32 bytes for x (3.0 of 4.0 GiB of GPU memory are free)")


def test_an_engine_that_does_not_load_or_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake.ICudaEngine, "create_execution_context", lambda self: None)
    with pytest.raises(EngineError, match=r"no execution context(.|\n)*3\.0 of 4\.0 GiB"):
        build(linear())
    monkeypatch.undo()


def test_a_run_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = build(linear())
    monkeypatch.setattr(fake.IExecutionContext, "execute_async_v3", lambda self, stream: False)
    with pytest.raises(EngineError, match="the engine does not run"):
        engine.run({"x": X})


def test_the_log_is_kept_where_it_is_asked_for(tmp_path: Path) -> None:
    from onnx_rewrite.engines.trt_log import analyse

    build(linear())
    TensorRT(log=str(tmp_path / "b.log")).build(Model(linear()))  # not from the cache: there would be nothing to log
    with (tmp_path / "b.log").open(encoding="utf-8") as file:
        found = analyse(file)
    assert found.nodes == {"MatMul": 1, "Add": 1, "Relu": 1}
    assert [one.text for one in found.warnings] == ["a warning of the builder"]
