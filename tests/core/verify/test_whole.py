"""Whole models: real ones against themselves and against perturbed selves, on drawn and on given inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from onnx_rewrite.errors import ModelError, UsageError
from onnx_rewrite.verify import Reference, check_feeds, judge_models, load_inputs, loads_everywhere
from onnx_rewrite.verify.feeds import Source
from onnx_rewrite.verify.regimes import UNIT
from onnx_rewrite.verify.session import Session

from .rewrites import CORRECT, LN, layer_norm, model

MODELS = Path(__file__).parents[2] / "models"
EXPORTED = [
    "hybrid_legacy_op12_keep_bn", "subblock_legacy_op12", "bert_legacy_op12_dynamic", "batchnorms_legacy_op9_keep_bn",
    "minmax_legacy_op10", "swin_legacy_op12", "gpt2_legacy_op12",
]  # fmt: skip
HANDMADE = [
    "if_subgraph_minmax_op13", "fp16_convnet_op13", "local_function_minmax_op18", "std_deformconv_op19",
    "outer_value_used_in_subgraph_op13", "convtranspose_grouped_bn", "ln_torch_op12",
]  # fmt: skip
if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 24):
    HANDMADE.remove("std_deformconv_op19")  # no kernel

PATHS = [MODELS / "exported" / f"{n}.onnx" for n in EXPORTED] + [MODELS / "handmade" / f"{n}.onnx" for n in HANDMADE]


def perturbed(path: Path) -> onnx.ModelProto:
    """The model with one of its float constants, the largest, changed by a hundredth."""
    made = onnx.load(path)
    floats = [t for t in made.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    floats += [n.attribute[0].t for n in made.graph.node if n.op_type == "Constant" and n.attribute[0].t.data_type == 1]
    tensor = max(floats, key=lambda t: numpy_helper.to_array(t).size)
    value = numpy_helper.to_array(tensor)
    rng = np.random.default_rng(0)
    tensor.CopyFrom(
        numpy_helper.from_array((value * (1 + 0.01 * rng.standard_normal(value.shape))).astype(np.float32), tensor.name)
    )
    return made


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_float64_is_near_onnxruntime(path: Path) -> None:
    made = onnx.load(path)
    source = Source(made, 0)
    feed = source.draw(UNIT, dict.fromkeys(next(iter(source.bindings())), 3))
    reference = Reference(made)(feed.values)
    for got, want in zip(reference, Session(made)(feed.values), strict=True):
        tolerance = 2e-2 if want.dtype == np.float16 else 1e-3
        np.testing.assert_allclose(got, want.astype(np.float64), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_a_model_equals_itself(path: Path) -> None:
    verdict = judge_models(path, onnx.load(path))
    assert verdict.equivalent, verdict
    assert verdict.error_before == verdict.error_after


@pytest.mark.parametrize("path", PATHS[:7], ids=lambda p: p.stem)
def test_a_model_differs_from_a_perturbed_self(path: Path) -> None:
    verdict = judge_models(path, perturbed(path))
    assert verdict.verdict == "different", verdict
    assert verdict.error_after > verdict.bound


def test_a_model_with_a_custom_operator_is_not_verified() -> None:
    model = onnx.load(MODELS / "handmade" / "custom_deform_conv2d_op12.onnx")
    assert judge_models(model, model).verdict == "equivalent"  # it is known what this one means
    model.graph.node[1].op_type = "mystery"
    verdict = judge_models(model, model)
    assert verdict.verdict == "not verified"
    assert "mystery" in (verdict.reason or "")
    assert "mystery" in (loads_everywhere(model) or "")


def test_progress_and_shapes() -> None:
    told: list[str] = []
    verdict = judge_models(LN, layer_norm(), shapes={"x": [4, 6, 16]}, progress=told.append)
    assert verdict.equivalent
    assert len(told) == verdict.feeds == 3
    with pytest.raises(UsageError, match="no input 'z'"):
        judge_models(LN, LN, shapes={"z": [1]})
    with pytest.raises(UsageError, match="does not fit"):
        judge_models(LN, LN, shapes={"x": [1, 2, 17]})


def test_external_data_is_found_from_the_path(tmp_path: Path) -> None:
    before, after = CORRECT["matmul as gemm"]()
    for name, made in (("a", before), ("b", after)):
        onnx.save(
            made, tmp_path / f"{name}.onnx", save_as_external_data=True, location=f"{name}.data", size_threshold=0
        )
    assert not onnx.load(tmp_path / "a.onnx", load_external_data=False).graph.initializer[0].raw_data
    assert judge_models(tmp_path / "a.onnx", tmp_path / "b.onnx").equivalent


def test_an_ir_version_that_onnxruntime_does_not_know(tmp_path: Path) -> None:
    before, after = CORRECT["matmul as gemm"]()
    before.ir_version = 90
    onnx.save(before, tmp_path / "a.onnx", save_as_external_data=True, location="a.data", size_threshold=0)
    assert judge_models(tmp_path / "a.onnx", after).equivalent
    assert before.ir_version == 90


def test_given_inputs_decide() -> None:
    """On ones alone a dropped Relu does not show."""
    before, after = model("a = Relu(x) y = Neg(a)"), model("y = Neg(x)")
    ones = {"x": np.ones((1, 2, 16), np.float32)}
    assert judge_models(before, after, inputs=[ones]).equivalent
    assert judge_models(before, after, inputs=[ones, {"x": -ones["x"]}]).verdict == "different"
    assert judge_models(before, after).verdict == "different"


def test_an_unreadable_path(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"\xff\xd8\xff\xe0 no model")
    with pytest.raises(ModelError, match=r"no\.onnx"):
        judge_models(tmp_path / "no.onnx", LN)


def test_loads_everywhere() -> None:
    assert loads_everywhere(LN) is None
    assert "nowhere" in (loads_everywhere(model("y = Add(x, nowhere)")) or "")


class TestFeeds:
    def test_good_ones(self) -> None:
        check_feeds(LN, {"x": np.zeros((1, 2, 16), np.float32)})

    @pytest.mark.parametrize(
        ("feeds", "message"),
        [
            ({"X1": np.zeros((1, 2, 16), np.float32)}, "no input 'X1'"),
            ({}, "'x' is not fed"),
            ({"x": np.zeros((1, 2, 16))}, "float64"),
            ({"x": np.zeros((2, 16), np.float32)}, "rank 3"),
            ({"x": np.zeros((1, 2, 17), np.float32)}, "17 on axis 2"),
        ],
    )
    def test_bad_ones(self, feeds: dict[str, np.ndarray], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            check_feeds(LN, feeds)

    def test_the_nearest_name_is_told(self) -> None:
        made = model("y = Neg(pixel_values)", inputs="float[n,3] pixel_values", outputs="float[n,3] y")
        with pytest.raises(UsageError) as caught:
            check_feeds(made, {"pixel_value": np.zeros((1, 3), np.float32)})
        assert "'pixel_values'" in (caught.value.hint or "")

    def test_a_symbol_has_one_value(self) -> None:
        made = model("y = Add(x, z)", inputs="float[n,3] x, float[n,3] z", outputs="float[n,3] y")
        with pytest.raises(UsageError, match="dimension 'n'"):
            check_feeds(made, {"x": np.zeros((1, 3), np.float32), "z": np.zeros((2, 3), np.float32)})

    def test_files(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "feed2.npz", x=np.ones(2))
        np.savez(tmp_path / "feed10.npz", x=np.zeros(2))
        assert load_inputs(tmp_path / "feed2.npz")[0]["x"].tolist() == [1, 1]
        assert [f["x"][0] for f in load_inputs(tmp_path)] == [1, 0]

    def test_protobufs(self, tmp_path: Path) -> None:
        for n in (0, 1, 10, 2):
            folder = tmp_path / f"test_data_set_{n}"
            folder.mkdir()
            for k in range(2):
                (folder / f"input_{k}.pb").write_bytes(
                    numpy_helper.from_array(np.full(2, 10 * n + k)).SerializeToString()
                )
        feeds = load_inputs(tmp_path, ["a", "b"])
        assert [(f["a"][0], f["b"][0]) for f in feeds] == [(0, 1), (10, 11), (20, 21), (100, 101)]
        assert load_inputs(tmp_path / "test_data_set_1", ["a", "b"])[0]["b"][0] == 11
        with pytest.raises(UsageError, match="position 1"):
            load_inputs(tmp_path, ["a"])

    def test_what_is_not_there(self, tmp_path: Path) -> None:
        (tmp_path / "bad.npz").write_bytes(b"no archive")
        for path in (tmp_path / "nothing.npz", tmp_path / "bad.npz"):
            with pytest.raises(UsageError, match=path.name):
                load_inputs(path)
        (tmp_path / "bad.npz").unlink()
        with pytest.raises(UsageError, match="neither"):
            load_inputs(tmp_path)
