"""Deformable convolutions that TensorRT-RTX refuses become engines once they are standard operators."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import onnx_rewrite as rw
from onnx_rewrite.engines.protocol import EngineError, Model, Profile
from onnx_rewrite.engines.tensorrt_rtx import TensorRTRTX
from onnx_rewrite.engines.trials import trials

pytestmark = pytest.mark.usefixtures("rtx")

MODELS = Path(__file__).resolve().parents[2] / "models"
REFUSED = {
    "handmade/custom_deform_conv2d_op12": "deform_conv2d_6 (deform_conv2d)",
    "exported/deformconv_dynamo_op19": "node_deform_conv2d (DeformConv)",
    "exported/deformconv_dynamo_op22": "node_deform_conv2d (DeformConv)",
    "exported/deformconv_legacy_op12_custom": "/b1/conv/deform_conv2d (deform_conv2d)",
    "exported/deformconv_legacy_op12_custom_keep_bn": "/b1/conv/deform_conv2d (deform_conv2d)",
    "handmade/std_deformconv_op19": "DeformConv_6 (DeformConv)",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_decomposition_is_built(name: str) -> None:
    path = MODELS / f"{name}.onnx"
    passes = ["bn", "clip", "deform-conv"]
    result = rw.rewrite(path, passes, target="tensorrt-rtx", verify="off")
    before = Model(result.loaded.proto, result.loaded.base_dir)
    shapes = trials([before], shapes=None, inputs=None, seed=0).shapes
    profiles = {name: Profile.fixed(*shape) for name, shape in shapes.items()}
    with pytest.raises(EngineError, match=re.escape(f"node {REFUSED[name]}")):
        TensorRTRTX("SM89").build(before, profiles=profiles)
    grids = rw.rewrite(path, [*passes[:2], "deform-conv:sampling=grid"], target="tensorrt-rtx", verify="off")
    for made in (result, grids):
        assert TensorRTRTX("SM89").build(Model(made.to_proto()), profiles=profiles).layers
