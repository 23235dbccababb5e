"""Attention at the edges: ranks and sizes that are not known, numbers out of range, old opsets."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnx_rewrite as rw

from .attention_recipe import attention
from .building import fires, is_left, ops
from .test_mhsa import FORMS, MODELS


def test_scores_of_another_rank_behind_a_factor_are_refused() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["" : 20]>
        g (float[1,1,1] f, float[1,1,1] x, float[1,1] q, float[1,1] k) => (float[1,1,1] y) {
            a = MatMul (q, k)
            b = Mul (f, a)
            w = Softmax (b)
            t = Transpose <perm = [0, 2, 1]> (w)
            y = MatMul (x, t)
        }""")
    (site,) = rw.rewrite(model, "mhsa").report.passes[0].sites
    assert site.status == "refused"
    assert "another rank" in str(site.reason)


@pytest.mark.parametrize("term", ["n", "5,n", "m,n"])
def test_a_term_of_a_size_that_is_not_known_is_spelt_once(term: str) -> None:
    """Its axis may be 1 as well as the number of keys: no reason to bring it into shape in every round."""
    model = onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["" : 20]>
        g (float[1,1,5,3] q, float[1,1,3,2] k, float[1,1,2,3] v, float[{term}] bias) => (float[1,1,5,3] y) {{
            a = MatMul (q, k)
            b = Sub (a, bias)
            w = Softmax (b)
            y = MatMul (w, v)
        }}""")
    result = fires(model, "mhsa:form=spelling")
    assert ops(result) == ["MatMul", "Mul", "Unsqueeze", "Add", "Softmax", "MatMul"]


@pytest.mark.parametrize("form", ["attention", "microsoft", "spelling", "function"])
@pytest.mark.parametrize("huge", [1e30, 1e-30])
def test_scales_whose_product_is_out_of_range_are_refused(form: str, huge: float) -> None:
    """Two numbers of the graph that one cannot stand for: 1e60 is infinite as a 32-bit float, and 1e-60 is 0."""
    changed = {"z": "Mul(s, huge)", "m": "Mul(z, huge)"}
    target = "onnxruntime" if form == "microsoft" else "onnx"
    found = rw.rewrite(attention(**changed, constants={"huge": np.float32(huge)}), f"mhsa:form={form}", target=target)
    (site,) = found.sites
    assert site.status == "refused"
    assert "overflow" in str(site.reason) or "out of the range" in str(site.reason)


@pytest.mark.parametrize("one", ["mhsa:form=spelling", "mhsa:form=function"])
@pytest.mark.parametrize("name", ["danet", "nonlocal", "psa"])
def test_pictures_of_any_size(name: str, one: str) -> None:
    """torch's exports of attention over pixels, height and width dynamic: the numbers of queries have several names."""
    result = rw.rewrite(MODELS / f"{name}_legacy_op13_dynamic.onnx", one, opset="keep")
    assert result.report.applied == 1
    assert result.report.passes[0].rolled_back == 0


@pytest.mark.parametrize("target", ["onnx", "tensorrt-8.6"])
def test_einsums_over_sizes_that_a_run_tells(target: str) -> None:
    """torch's export with dynamic batch and sequence: the channels of a head are the -1 of a Reshape."""
    result = fires(onnx.load(MODELS / "einsum_legacy_op17_dynamic.onnx"), FORMS.get(target, "mhsa"), target=target)
    assert "Einsum" not in ops(result)


def test_a_function_below_opset_9_gets_its_shapes_by_a_cast() -> None:
    """Constant gives floats only there, and a function has no initializers."""
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 8, "local" : 1]>
        g (float[2,3] x, float[1,3,4] k, float[4,5] v) => (float[2,5] y) { y = local.Part (x, k, v) }
        <domain: "local", opset_import: ["" : 8]>
        Part (x, k, v) => (y) {
            flat = Squeeze <axes = [0]> (k)
            s = MatMul (x, flat)
            p = Softmax <axis = -1> (s)
            y = MatMul (p, v)
        }""")
    result = rw.rewrite(model, "mhsa:form=spelling")
    assert result.report.applied == 1
    ort.InferenceSession(result.to_proto().SerializeToString(), providers=["CPUExecutionProvider"])


def test_scores_that_meet_themselves_are_refused() -> None:
    """s - s is exactly 0; the products are not computed twice alike."""
    is_left(attention(m="Sub(z, z)"), "mhsa", "combines the scores with themselves")
