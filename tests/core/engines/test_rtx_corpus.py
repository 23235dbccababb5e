"""Every rewritten model becomes a TensorRT-RTX engine, of no more kernels than the original's.

All are built for SM89, a few for SM86 and SM120 too: kernels differ between these, the parser and the fusions that a
rewrite could upset do not. ONNX_REWRITE_KERNELS=F adds a line of a table to F for each model: kernels before and after.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import onnx_rewrite as rw
from onnx_rewrite.engines.protocol import EngineError, Model, Profile
from onnx_rewrite.engines.tensorrt_rtx import TensorRTRTX
from onnx_rewrite.engines.trials import trials

pytestmark = pytest.mark.usefixtures("rtx")

MODELS = Path(__file__).resolve().parents[2] / "models"
PASSES = ["bn", "clip", "deform-conv", "ln"]

# What TensorRT-RTX 1.7 cannot build, by the node that it refuses.
REFUSED = {
    "batchnorms_dynamo_op18_no_optimize": "node_mean (ReduceMean)",
    "batchnorms_legacy_op12_train": "/b1/BatchNormalization (BatchNormalization)",
    "convnet_bn_training_mode_op14": "BatchNormalization_8 (BatchNormalization)",
    "hybrid_dynamo_op18_no_optimize": "node_mean (ReduceMean)",
}
# What it cannot build as it is, and builds once deformable convolutions are standard operators.
MADE_POSSIBLE = {
    "custom_deform_conv2d_op12": "deform_conv2d_6 (deform_conv2d)",
    "deformconv_dynamo_op19": "node_deform_conv2d (DeformConv)",
    "deformconv_dynamo_op22": "node_deform_conv2d (DeformConv)",
    "deformconv_legacy_op12_custom": "/b1/conv/deform_conv2d (deform_conv2d)",
    "deformconv_legacy_op12_custom_keep_bn": "/b1/conv/deform_conv2d (deform_conv2d)",
    "std_deformconv_op19": "DeformConv_6 (DeformConv)",
}
FEW = ("subblock_legacy_op12", "mobilenet_v2_legacy_op12_keep_bn", "bert_legacy_op12", "minmax_legacy_op12")


@pytest.mark.parametrize("path", sorted(MODELS.rglob("*.onnx")), ids=lambda path: path.stem)
def test_a_rewritten_model_is_built(path: Path) -> None:
    result = rw.rewrite(path, PASSES, target="tensorrt-rtx", verify="off")
    loaded = result.loaded
    before, after = Model(loaded.proto, loaded.base_dir), Model(result.to_proto(), loaded.base_dir)
    shapes = trials([before], shapes=None, inputs=None, seed=0).shapes
    profiles = {name: Profile.fixed(*shape) for name, shape in shapes.items()}
    if path.stem in REFUSED:
        with pytest.raises(EngineError, match=re.escape(f"node {REFUSED[path.stem]}")):
            TensorRTRTX("SM89").build(after, profiles=profiles)
        return
    if path.stem in MADE_POSSIBLE:
        with pytest.raises(EngineError, match=re.escape(f"node {MADE_POSSIBLE[path.stem]}")):
            TensorRTRTX("SM89").build(before, profiles=profiles)
        gathers = rw.rewrite(path, [*PASSES[:2], "deform-conv:sampling=gather"], target="tensorrt-rtx", verify="off")
        for made in (after, Model(gathers.to_proto())):
            assert TensorRTRTX("SM89").build(made, profiles=profiles).layers
        return
    kernels = len(TensorRTRTX("SM89").build(after, profiles=profiles).layers)
    # A model without sites is built once: what it becomes is what it is.
    first = len(TensorRTRTX("SM89").build(before, profiles=profiles).layers) if result.report.applied else kernels
    table = os.environ.get("ONNX_REWRITE_KERNELS")
    if table:
        with open(table, "a", encoding="utf-8") as file:
            file.write(f"| {path.stem} | {result.report.applied} | {first} | {kernels} |\n")
    assert kernels <= first
    # What becomes a constant has no kernel; every other model has one.
    assert kernels > 0 or path.stem in ("output_is_input_identity",)
    if path.stem in FEW:
        for capability in ("SM86", "SM120"):
            assert TensorRTRTX(capability).build(after, profiles=profiles).layers


def test_names_of_the_lists_are_those_of_models() -> None:
    assert {*REFUSED, *MADE_POSSIBLE, *FEW} <= {path.stem for path in MODELS.rglob("*.onnx")}
