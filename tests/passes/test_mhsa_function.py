"""Attention where the operator may not be had: our own node, with a function of the model's opset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import onnx_rewrite as rw
from onnx_rewrite.testing import PassTestSuite

from .attention_recipe import attention
from .building import fires, is_left, node, ops
from .test_mhsa import SOME, made, named

NAN_AMONG_WEIGHTS = "NaN among the weights that the model makes 0 stays; the pass says so of each such site"

MODELS = Path(__file__).parents[1] / "models"
NODE = "MultiHeadAttention"
REAL = {
    "exported/bert_legacy_op11": 2,  # below opset 12 no number of a function comes from an attribute
    "exported/bert_legacy_op17_sdpa": 2,  # NaN made 0
    "exported/swin_legacy_op12": 4,
    "exported/vit_legacy_op17": 2,
    "handmade/mha_qkv_split_op13": 1,
}


def has_function(result: onnx.ModelProto, opset: int) -> None:
    (function,) = result.functions
    assert (function.domain, function.name) == ("onnx_rewrite", NODE)
    assert {o.domain: o.version for o in (*result.opset_import, *function.opset_import)}[""] == opset
    assert not {"Softmax", "Attention"} & set(ops(result))
    onnxruntime.InferenceSession(result.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", REAL)
def test_a_model_that_keeps_its_opset_gets_a_function_that_runs(name: str) -> None:
    before = onnx.load(MODELS / f"{name}.onnx")
    result = fires(before, "mhsa", REAL[name], opset="keep")
    has_function(result, before.opset_import[0].version)
    assert ops(result).count(NODE) == REAL[name]
    again = rw.rewrite(result, "mhsa", opset="keep")
    assert not again.changed, [(s.status, s.reason) for s in again.sites]


def test_two_runs_write_the_same() -> None:
    first, second = (rw.rewrite(made("two terms"), "mhsa", opset="keep").to_proto() for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


@pytest.mark.parametrize("spelling", SOME)
def test_every_spelling_becomes_the_node(spelling: str) -> None:
    result = fires(made(spelling), "mhsa:form=function")
    has_function(result, 13)
    again = rw.rewrite(result, "mhsa:form=function", verify="off")
    assert not again.changed, [(s.status, s.reason) for s in again.sites]


def test_it_stands_in_where_attention_may_not_be_had_and_nowhere_else() -> None:
    assert "Attention" in ops(fires(made("two terms"), "mhsa"))
    assert NODE in ops(fires(made("two terms"), "mhsa", opset=20))
    spelt = fires(made("two terms"), "mhsa", opset="keep", target="tensorrt-8.6")
    assert ops(spelt).count("Softmax") == 1


def test_a_model_that_cannot_be_raised_gets_it() -> None:
    mode = 'mode="nearest", coordinate_transformation_mode="tf_half_pixel_for_nn"'  # not since opset 13
    model = attention(
        y=f"ya = Reshape(t, join); Resize<{mode}>(ya, region, ones3)",
        constants={"region": np.zeros(0, np.float32), "ones3": np.ones(3, np.float32)},
        opset=12,
    )
    result = rw.rewrite(model, "mhsa")
    (site,) = result.sites
    assert (site.status, site.verification.verdict) == ("applied", "equivalent")
    assert NODE in site.note
    has_function(result.to_proto(), 12)


def test_levels() -> None:
    heads = fires(made("scale on Q"), "mhsa:form=function")
    core = fires(made("scale on Q"), "mhsa:form=function:level=core")
    assert ops(core).count("Mul") >= ops(heads).count("Mul")


def test_tensorrt_has_no_plugin_for_it() -> None:
    for target in ("tensorrt-8.6", "tensorrt-rtx"):
        is_left(made("as it is"), "mhsa:form=function", "no plugin", target=target)


WIDE = {"m": "Add(z, bias); Cast<to=1>(ma)", "o": "Cast<to=10>(p)", "kind": "float16"}


def test_softmax_in_another_type_needs_castlike() -> None:
    wide = attention(**named(WIDE))
    is_left(wide, "mhsa", "needs opset 15", opset="keep")
    result = fires(wide, "mhsa:form=function")
    has_function(result, 15)
    assert [n.op_type for n in result.functions[0].node].count("CastLike") == 2
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    types = {t.name: t.data_type for t in result.graph.initializer}
    *_, mask, scale = node(result, NODE).input
    assert (types[mask], types[scale]) == (single, half)


class TestFunction(PassTestSuite):
    pass_ = "mhsa:form=function"
    examples = 8
    seed = 1
    nan = NAN_AMONG_WEIGHTS
