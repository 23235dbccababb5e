"""Attention: every spelling is found, what only looks like it is left, and each target gets its form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnx_rewrite as rw
from onnx_rewrite.passes.mhsa import operator
from onnx_rewrite.pattern import op

from . import building
from .attention_recipe import B, D, E, H, S, attention
from .building import attributes, fires, is_left, node, ops

ORT = tuple(int(n) for n in ort.__version__.split(".")[:2])
MODELS = Path(__file__).parents[1] / "models" / "exported"

# One packed projection, cut up in the ways of several exporters.
STACK = {"q0": "MatMul(x, wp)", "q1": "Add(q0, bp)", "q2": "Reshape(q1, five); Transpose<perm=[2,0,3,1,4]>(q2a)"}
TURNED = {"k": "Transpose<perm=[0,1,3,2]>(k2)", "drop": ("k0", "k1", "v0", "v1", "v2")}

SPELLINGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "scale as a division": {"z": "Div(s, inverse)"},
    "scale on Q": {"q": "Transpose<perm=[0,2,1,3]>(q2); Mul(qa, scale)", "z": "Identity(s)"},
    "no scale": {"z": "Identity(s)"},
    "scale before heads": {"q2": "Mul(q1, scale); Reshape(q2a, split)", "z": "Mul(s, one)"},
    "kt by two transposes": {"k": "Transpose<perm=[0,2,1,3]>(k2); Transpose<perm=[0,1,3,2]>(ka)"},
    "causal Where": {"m": "Where(causal, z, lowest)"},
    "hidden Where": {"m": "Where(hidden, lowest, z)"},
    "two terms": {"m": "Add(z, bias); Add(padding, ma)"},
    "a term subtracted": {"m": "Sub(z, bias)"},
    "a term, then the scale": {"z": "Add(s, bias); Mul(za, scale)"},
    "a padding mask that is an input": {"m": "Add(z, given)", "inputs": "float[2,5,8] x, float[2,1,1,5] given"},
    "NaN made 0": {"o": "IsNaN(p); Where(oa, zero, p)"},
    "NaN made 0 under an endless mask": {
        "m": "Where(given, zero, endless); Add(z, ma)",
        "o": "IsNaN(p); Where(oa, zero, p)",
        "inputs": "float[2,5,8] x, bool[2,1,5,5] given",
    },
    "dropout left over": {"o": "Dropout(p)"},
    "a factor per head": {"z": "Mul(s, perhead)"},
    "windows": {"m": "Add(z, bias); Reshape(ma, fivescores); Add(mb, windowmask); Reshape(mc, fourscores)"},
    "heads folded into the batch": {
        "q": "Transpose<perm=[0,2,1,3]>(q2); Reshape(qa, folded)",
        "k": "Transpose<perm=[0,2,3,1]>(k2); Reshape(ka, foldedkeys)",
        "v": "Transpose<perm=[0,2,1,3]>(v2); Reshape(va, folded)",
        "c": "MatMul(o, v); Reshape(ca, unfolded)",
    },
    "no biases": {"q1": "Identity(q0)", "k1": "Identity(k0)", "v1": "Identity(v0)"},
    "cross attention": {
        "k0": "MatMul(z2, wk)",
        "v0": "MatMul(z2, wv)",
        "k2": "Reshape(k1, splitkeys)",
        "v2": "Reshape(v1, splitkeys)",
        "inputs": "float[2,5,8] x, float[2,7,8] z2",
    },
    "values of another width": {
        "v1": "MatMul(x, wide3)",
        "v2": "Reshape(v1, splitwide)",
        "y": "Reshape(t, joinwide)",
        "constants": {
            "wide3": np.ones((E, H * 3), np.float32),
            "splitwide": np.array([0, S, H, 3], np.int64),
            "joinwide": np.array([0, S, H * 3], np.int64),
        },
        "out": "float[2,5,6] y",
        "drop": ("v0",),
    },
    "keys that heads share": {
        "k1": "MatMul(x, wk1)",
        "k2": "Reshape(k1, split1)",
        "k": "Transpose<perm=[0,2,1,3]>(k2); Unsqueeze(ka, axis2); Expand(kb, kvwide); Reshape(kc, wide); "
        "Transpose<perm=[0,1,3,2]>(kd)",
        "v1": "MatMul(x, wv1)",
        "v2": "Reshape(v1, split1)",
        "v": "Transpose<perm=[0,2,1,3]>(v2); Unsqueeze(va, axis2); Expand(vb, kvwide); Reshape(vc, wide)",
        "drop": ("k0", "v0"),
    },
    "one head of keys by broadcasting": {
        "k1": "MatMul(x, wk1)",
        "k2": "Reshape(k1, split1)",
        "v1": "MatMul(x, wv1)",
        "v2": "Reshape(v1, split1)",
        "drop": ("k0", "v0"),
    },
    "a stack, gathered": {
        **STACK,
        **TURNED,
        "q": "Gather<axis=0>(q2, i0)",
        "k2": "Gather<axis=0>(q2, i1)",
        "v": "Gather<axis=0>(q2, i2)",
    },
    "a stack, split and squeezed": {
        **STACK,
        **TURNED,
        "q": "qa, ka, va = Split<axis=0>(q2); Squeeze(qa, axis0)",
        "k2": "Squeeze(ka, axis0)",
        "v": "Squeeze(va, axis0)",
    },
    "a stack, sliced and squeezed": {
        **STACK,
        **TURNED,
        "q": "Slice(q2, first, second, axis0); Squeeze(qa, axis0)",
        "k2": "Slice(q2, second, third, axis0); Squeeze(k2a, axis0)",
        "v": "Slice(q2, third, fourth, axis0); Squeeze(va, axis0)",
    },
    "sqrt on both": {
        "q": "Transpose<perm=[0,2,1,3]>(q2); Mul(qa, root)",
        "k": "Transpose<perm=[0,2,3,1]>(k2); Mul(ka, root)",
        "z": "Identity(s)",
    },
    "a term that takes the shape of the scores": {
        "m": "Shape(z); Reshape(fivebias, ma); Add(z, mb)",
        "constants": {"fivebias": (np.arange(B * H * S * S, dtype=np.float32) % 7).reshape(B, H, S, 1, S)},
    },
    "half": {"kind": "float16"},
    "channels before positions": {
        "v": "Transpose<perm=[0,2,3,1]>(v2)",
        "c": "ca = Transpose<perm=[0,1,3,2]>(o); MatMul(v, ca)",
        "t": "Transpose<perm=[0,3,1,2]>(c)",
    },
    "products by Einsum": {
        "q": "Identity(q2)",
        "k": "Identity(k2)",
        "v": "Identity(v2)",
        "s": 'Einsum<equation="bqhd,bkhd->bhqk">(q, k)',
        "c": 'Einsum<equation="bhqk,bkhd->bqhd">(o, v)',
        "t": "Identity(c)",
    },
    "Einsum, the keys first": {
        "q": "Identity(q2)",
        "k": "Identity(k2)",
        "v": "Identity(v2)",
        "s": 'Einsum<equation="aecd, abcd -> acbe">(k, q)',
        "c": 'Einsum<equation="acbe,aecd->abcd">(o, v)',
        "t": "Identity(c)",
    },
    "Einsum with an ellipsis": {
        "k": "Transpose<perm=[0,2,1,3]>(k2)",
        "s": 'Einsum<equation="...id,...jd->...ij">(q, k)',
        "c": 'Einsum<equation="...ij,...jd->...id">(o, v)',
    },
    "Einsum, heads before the batch": {
        "q": "Identity(q2)",
        "k": "Identity(k2)",
        "v": "Identity(v2)",
        "s": 'Einsum<equation="nlhd,nmhd->hnlm">(q, k)',
        "c": 'Einsum<equation="hnlm,nmhd->nlhd">(o, v)',
        "t": "Identity(c)",
    },
    "Einsum, one head of keys": {
        "k1": "MatMul(x, wk1)",
        "k": "Identity(k1)",
        "v1": "MatMul(x, wv1)",
        "v": "Identity(v1)",
        "q": "Identity(q2)",
        "s": 'Einsum<equation="bihd,bjd->bhij">(q, k)',
        "c": 'Einsum<equation="bhij,bjd->bihd">(o, v)',
        "t": "Identity(c)",
        "drop": ("k0", "k2", "v0", "v2"),
    },
}


def named(changes: dict[str, Any]) -> dict[str, Any]:
    """Gives the statements of a step the names that the others use: the step's own and a letter."""
    found: dict[str, Any] = {}
    for step, text in changes.items():
        if not isinstance(text, str) or step in ("inputs", "out", "kind"):
            found[step] = text
            continue
        *first, last = text.split("; ")
        lines = [f"{step}{'abcdefg'[i]} = {part}" if " = " not in part else part for i, part in enumerate(first)]
        found[step] = "; ".join([*lines, last])
    return found


def made(spelling: str, **more: Any) -> onnx.ModelProto:
    return attention(**{**named(SPELLINGS[spelling]), **more})


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_becomes_the_operator(spelling: str) -> None:
    result = fires(made(spelling), "mhsa")
    assert ops(result).count("Attention") == 1
    assert "Softmax" not in ops(result)


SOME = ("scale on Q", "two terms", "causal Where", "NaN made 0 under an endless mask", "windows", "a stack, gathered")
SOME += ("heads folded into the batch", "cross attention", "keys that heads share", "a factor per head", "half")


FORMS = {"tensorrt-8.6": "mhsa:form=spelling"}
"""There the pass by itself leaves what no mask is added to."""


@pytest.mark.parametrize("target", ["tensorrt-8.6", "onnxruntime"])
@pytest.mark.parametrize("spelling", SOME)
def test_every_spelling_has_a_form_for_each_target(spelling: str, target: str) -> None:
    # Mul on the scores is what TensorRT gets: without another change the spelling is left as it is.
    divided = {} if "z" in SPELLINGS[spelling] or "m" in SPELLINGS[spelling] else {"z": "Div(s, inverse)"}
    one = FORMS.get(target, "mhsa")
    result = fires(made(spelling, **divided), one, target=target)
    again = rw.rewrite(result, one, target=target, verify="off")
    assert not again.changed, [(s.status, s.reason) for s in again.sites]


# Each look-alike is left; its twin, one edit away, is found.
LOOK_ALIKES: dict[str, tuple[dict[str, Any], dict[str, Any], str | None]] = {
    "Softmax over the queries": ({"p": "Softmax<axis=-2>(m)"}, {"p": "Softmax<axis=-1>(m)"}, None),
    "the weights are read elsewhere": (
        {"out": "float[2,5,8] y, float[2,2,5,5] p"},
        {"out": "float[2,5,8] y"},
        "is an output of the graph",
    ),
    "a classifier and a table": (
        {"s": "MatMul(x, table)", "c": "MatMul(o, rows)", "t": "Identity(c)", "y": "Identity(t)", "drop": tuple("qkv")},
        {
            "k": "Transpose<perm=[0,2,1]>(x)",
            "s": "MatMul(x, k)",
            "c": "MatMul(o, x)",
            "t": "Identity(c)",
            "y": "Identity(t)",
        },
        "are constant",
    ),
    "a gate, no Softmax": ({"p": "Sigmoid(m)"}, {"p": "Softmax<axis=-1>(m)"}, None),
    "a mask that hides nothing": (
        {"m": "Where(causal, z, minus)"},
        {"m": "Where(causal, z, lowest)"},
        "writes other numbers",
    ),
    "a mask after Softmax": ({"o": "Where(causal, p, scale)"}, {"o": "Identity(p)"}, None),
    "a factor for each key": (
        {
            "z": "Mul(s, perkey)",
            "constants": {"perkey": np.full((1, 1, 1, S), 0.5, np.float32) * np.arange(1, S + 1, dtype=np.float32)},
        },
        {"z": "Mul(s, perkey)", "constants": {"perkey": np.full((1, 1, S, 1), 0.5, np.float32)}},
        "weights the keys",
    ),
    "a mask before Tanh": (
        {"m": "Add(z, bias); Tanh(ma)"},
        {"m": "Tanh(z)"},
        "Tanh bounds the scores after a term is added",
    ),
    "an Einsum that sums more": (
        {"k": "Transpose<perm=[0,2,1,3]>(k2)", "s": 'Einsum<equation="bhid,bgjd->bhij">(q, k)'},
        {"k": "Transpose<perm=[0,2,1,3]>(k2)", "s": 'Einsum<equation="bhid,bhjd->bhij">(q, k)'},
        None,
    ),
    "the scores vanish": ({"z": "Mul(s, zero)"}, {"z": "Mul(s, scale)"}, "multiplied by 0"),
    "products of single elements": (
        {
            "s": "Mul(q, q)",
            "c": "Mul(o, q)",
            "k": "Identity(q)",
            "v": "Identity(q)",
            "t": "Transpose<perm=[0,2,1,3]>(c)",
            "drop": ("k0", "k1", "k2", "v0", "v1", "v2"),
        },
        {},
        None,
    ),
    "the logarithm of Softmax": ({"p": "LogSoftmax<axis=-1>(m)"}, {"p": "Softmax<axis=-1>(m)"}, None),
    "heads mixed before Softmax": (
        {
            "m": "Reshape(z, mixed); ReduceMean<axes=[1], keepdims=0>(ma)",
            "constants": {"mixed": np.array([B, 1, H, S, S], np.int64)},
        },
        {
            "m": "Reshape(z, mixed); Squeeze(ma, one1)",
            "constants": {"mixed": np.array([B, 1, H, S, S], np.int64), "one1": np.array([1], np.int64)},
        },
        None,
    ),
}


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_what_only_looks_like_attention_is_left_and_its_twin_is_found(name: str) -> None:
    odd, twin, reason = LOOK_ALIKES[name]
    is_left(attention(**named(odd)), "mhsa", reason)
    assert "Attention" in ops(fires(attention(**named(twin)), "mhsa"))


def test_a_scale_that_overflows_is_refused() -> None:
    """Attention multiplies Q and K by its root first; half of that would have been the graph's own overflow."""
    big = {"constants": {"scale": np.float32(4.0)}}
    is_left(attention(kind="float16", **big), "mhsa", "may overflow")
    fires(attention(kind="float", **big), "mhsa")
    is_left(attention(constants={"scale": np.float32(1e20)}), "mhsa", "may overflow")
    # What the graph multiplies Q and K by itself, it may be given again.
    roots = {
        "q": "Transpose<perm=[0,2,1,3]>(q2); Mul(qa, inverse)",
        "k": "Transpose<perm=[0,2,3,1]>(k2); Mul(ka, inverse)",
    }
    fires(attention(kind="float16", **named({**roots, "z": "Identity(s)"})), "mhsa")


NOT_A_NUMBER = {
    "q": "qa = Transpose<perm=[0,2,1,3]>(q2); Div(one, qa)",
    "o": "oa = IsNaN(p); Where(oa, zero, p)",
}


@pytest.mark.parametrize("target", ["onnx", "onnxruntime", "tensorrt-8.6"])
@pytest.mark.parametrize("spelling", ["as it is", "keys that heads share"])
def test_nan_among_the_weights_is_made_0_as_in_the_graph(spelling: str, target: str) -> None:
    """Also where finite numbers give it: 1 / 0 in Q; and what is infinite in V stays seen."""
    changes = {**named(SPELLINGS[spelling]), **NOT_A_NUMBER, "q1": "qz = Mul(q0, zero); Add(qz, zero)"}
    result = rw.rewrite(attention(**changes), FORMS.get(target, "mhsa"), target=target)
    (site,) = (s for s in result.sites if s.status != "refused")
    assert (site.status, site.verification.verdict, site.verification.reason) == ("applied", "equivalent", None)
    assert result.report.verification.verdict == "equivalent"


WRONG_CLEAN_UPS: dict[str, Any] = {
    "what is not finite in V is hidden": lambda m, a, y, v, *_: op.Where(op.IsNaN(y), np.float32(0), y),
    "none at all": lambda m, a, y, v, *_: y,
}


@pytest.mark.parametrize("wrong", WRONG_CLEAN_UPS)
def test_a_wrong_clean_up_is_caught(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator, "cleaned", WRONG_CLEAN_UPS[wrong])
    (site,) = rw.rewrite(made("NaN made 0"), "mhsa").sites
    assert site.status == "rolled_back"
    assert "nan" in (site.reason or "")


def test_nan_is_made_0_where_several_heads_share_keys() -> None:
    body = """
    k5 = Unsqueeze(k, two) kx = Expand(k5, times) k4 = Reshape(kx, all) kt = Transpose<perm=[0,1,3,2]>(k4)
    v5 = Unsqueeze(v, two) vx = Expand(v5, times) v4 = Reshape(vx, all)
    s = MatMul(q, kt) p = Softmax<axis=-1>(s) nan = IsNaN(p) o = Where(nan, zero, p) y = MatMul(o, v4)
    """
    constants = {
        "two": np.array([2], np.int64),
        "times": np.array([1, 1, 3, 1, 1], np.int64),
        "all": np.array([0, 6, 5, 4], np.int64),
        "zero": np.float32(0),
    }
    inputs, out = "float[N,6,3,4] q, float[N,2,5,4] k, float[N,2,5,4] v", "float[N,6,3,4] y"
    shared = building.model(body, constants, inputs=inputs, outputs=out, opset=13)
    result = rw.rewrite(shared, "mhsa")
    (site,) = result.sites
    assert site.status == "applied", site.reason
    assert "special" not in str(site.verification.reason)
    assert "Reshape" in ops(result.to_proto())


def test_numbers_of_64_bits_are_left_to_the_spelling() -> None:
    double = attention(kind="double", z="Div(s, inverse)")
    assert ops(fires(double, "mhsa:form=spelling", target="tensorrt-8.6")).count("Softmax") == 1


def test_tensorrt_gets_the_operator_where_that_is_fewer_kernels() -> None:
    result = fires(made("two terms"), "mhsa", target="tensorrt-rtx")
    assert ops(result).count("Attention") == 1
    computed = made("a padding mask that is an input")
    is_left(computed, "mhsa", "the mask is computed", target="tensorrt-rtx")
    fires(computed, "mhsa:form=attention", target="tensorrt-rtx")


def test_a_mask_computed_of_constants_is_no_computed_mask() -> None:
    """Of swin's shifted windows: TensorRT computes it when it builds."""
    result = rw.rewrite(MODELS / "swin_dynamo_op18.onnx", "mhsa", target="tensorrt-rtx", verify="local")
    assert result.report.applied == 4


def test_levels() -> None:
    for level, kept in (("core", "Transpose"), ("heads", "MatMul"), ("block", "Split")):
        result = fires(made("as it is"), f"mhsa:level={level}")
        assert kept in ops(result)
        assert ("Transpose" in ops(result)) == (level == "core")
    assert ops(result) == ["MatMul", "Add", "Split", "Attention"]
    assert attributes(node(result, "Attention"))["q_num_heads"] == H


@pytest.mark.parametrize("form", ["spelling", "function"])
def test_a_block_is_spelt_with_one_product_for_its_projections(form: str) -> None:
    one = f"mhsa:form={form}:level=block"
    result = fires(made("two terms"), one)
    assert ops(result)[:3] == ["MatMul", "Add", "Split"]
    assert ops(result).count("MatMul") == (3 if form == "spelling" else 1)
    assert not rw.rewrite(result, one, verify="off").changed
    is_left(made("cross attention"), one, "projections of different values")


def test_onnxruntime_takes_in_the_projections_where_its_rules_allow() -> None:
    whole = fires(made("as it is"), "mhsa", target="onnxruntime")
    assert ops(whole) == ["Attention"]
    assert node(whole, "Attention").domain == "com.microsoft"
    apart = fires(made("cross attention"), "mhsa", target="onnxruntime")
    assert ops(apart).count("MultiHeadAttention") == 1
    shared = fires(made("keys that heads share"), "mhsa", target="onnxruntime")
    assert node(shared, "Attention").domain == ""


def test_keys_that_heads_share_are_not_repeated() -> None:
    for spelling in ("keys that heads share", "one head of keys by broadcasting"):
        result = fires(made(spelling), "mhsa")
        assert attributes(node(result, "Attention"))["kv_num_heads"] == 1
        assert "Expand" not in ops(result)


def test_both_terms_of_shifted_windows_become_one_mask() -> None:
    result = fires(made("windows"), "mhsa")
    assert ops(result).count("Add") == len("qkv")
    mask = next(t for t in result.graph.initializer if t.name == node(result, "Attention").input[3])
    assert list(mask.dims) == [B, H, S, S]


@pytest.mark.parametrize("batch", ["N", "2"])
def test_batch_and_sequence_may_be_dynamic(batch: str) -> None:
    zeros = np.array([0, 0, H, D], np.int64)
    result = fires(
        attention(
            inputs=f"float[{batch},L,8] x",
            out="float[M,K,8] y",
            constants={"split": zeros, "join": np.array([0, 0, E], np.int64)},
        ),
        "mhsa",
    )
    assert "Attention" in ops(result)


def test_without_a_newer_opset_it_says_so() -> None:
    is_left(made("as it is"), "mhsa:form=attention", "needs opset 23", opset="keep")


def test_a_model_that_has_the_operator_is_left() -> None:
    result = fires(made("as it is"), "mhsa")
    is_left(result, "mhsa")


def test_what_is_spelt_so_already_is_left() -> None:
    """Also where the shapes of its Reshapes are written otherwise than they would be."""
    is_left(made("cross attention"), "mhsa:form=spelling", "it is spelt so already", target="tensorrt-8.6")


def test_what_is_not_masked_is_left_for_tensorrt_8() -> None:
    """Whole models were no faster for another spelling; who asks for one gets it."""
    other = {"z": "Div(s, inverse)"}
    is_left(attention(**other), "mhsa", "without a mask or bias", target="tensorrt-8.6")
    fires(attention(**other), "mhsa:form=spelling", target="tensorrt-8.6")
    fires(attention(**other), "mhsa:keys=twice", target="tensorrt-8.6")
    fires(attention(**other, m="Add(z, bias)"), "mhsa", target="tensorrt-8.6")


BOUNDED = {"m": "Div(z, three); Tanh(ma); Mul(mb, three)", "constants": {"three": np.float32(3)}}


def test_scores_that_tanh_bounds_get_the_attribute_for_it() -> None:
    """What the graph multiplies by after Tanh is the bound, whatever it divides by before."""
    found = attributes(node(fires(attention(**named(BOUNDED)), "mhsa"), "Attention"))
    assert (found["softcap"], found["scale"]) == (3.0, 0.5)
    plain = attributes(node(fires(attention(m="Tanh(z)"), "mhsa"), "Attention"))
    assert (plain["softcap"], plain["scale"]) == (1.0, 0.5)
    masked = attention(**named({**BOUNDED, "m": f"{BOUNDED['m']}; Add(mc, padding)"}))
    result = rw.rewrite(masked, "mhsa")
    (site,) = result.sites
    # Until 1.26 onnxruntime adds the mask before it bounds, against the specification.
    assert site.status == ("applied" if ORT >= (1, 27) else "rolled_back")


@pytest.mark.parametrize(
    ("one", "target", "reason"),
    [
        ("mhsa", "tensorrt-rtx", "TensorRT has no form"),
        ("mhsa:form=attention", "tensorrt-11", "TensorRT has no form"),
        ("mhsa", "tensorrt-8.6", "only Attention, since opset 23"),
        ("mhsa:form=function", "onnx", "only Attention, since opset 23"),
        ("mhsa:form=microsoft", "onnxruntime", "com.microsoft's MultiHeadAttention has no form"),
    ],
)
def test_who_cannot_bound_scores_is_told_so(one: str, target: str, reason: str) -> None:
    is_left(attention(**named(BOUNDED)), one, reason, target=target)


def test_what_differs_on_special_numbers_is_said() -> None:
    (site,) = rw.rewrite(made("causal Where"), "mhsa").sites
    assert site.verification.verdict == "equivalent"
    assert "no NaN and no infinities were fed" in (site.verification.reason or "")
    (site,) = rw.rewrite(made("two terms"), "mhsa").sites
    assert site.verification.reason is None


def test_styles_of_the_spelling() -> None:
    base = "mhsa:form=spelling"
    found = {
        style: ops(fires(made("a stack, gathered", z="Div(s, inverse)"), f"{base}:{style}"))
        for style in ("scale=q", "scale=both", "keys=twice", "packed=stacked", "rank=3")
    }
    assert found["scale=both"].count("Mul") == 2
    assert found["keys=twice"].count("Transpose") == found["scale=q"].count("Transpose") + 1
    assert found["packed=stacked"].count("Gather") == 3
    assert "Split" in found["scale=q"]
    terms = made("two terms", z="Div(s, inverse)")
    apart = ops(fires(terms, f"{base}:mask=apart"))
    assert apart.count("Add") == ops(fires(terms, base)).count("Add") + 1


def test_projections_are_packed() -> None:
    result = fires(made("as it is"), "qkv")
    assert ops(result).count("Split") == 1
    assert ops(result).count("MatMul") == 3
    crossed = fires(made("cross attention"), "qkv")
    assert ops(crossed).count("Split") == 1
    is_left(made("a stack, gathered"), "qkv")
    both = rw.rewrite(made("as it is"), "qkv,mhsa")
    assert [p.applied for p in both.report.passes] == [1, 1]
    assert ops(both.to_proto()) == ["MatMul", "Add", "Split", "Attention"]


def test_constant_terms_are_added_up() -> None:
    result = fires(made("two terms"), "mask")
    assert ops(result).count("Add") == ops(made("two terms")).count("Add") - 1
    result = fires(made("windows"), "mask")
    assert ops(result).count("Add") == ops(made("windows")).count("Add") - 1
    is_left(attention(m="Add(z, bias)"), "mask")


def test_why_not_is_told() -> None:
    (miss, *_) = rw.explain(attention(m="ma = Add(z, bias); Tanh(ma)"), "mhsa").near
    assert "Tanh" in miss.reason
    assert miss.complete


def test_explain_looks_at_shapes_that_only_a_run_tells() -> None:
    """The causal mask of GPT-2 is cut out by sizes that are computed."""
    assert len(rw.explain(MODELS / "gpt2_legacy_op12.onnx", "mhsa").found) == 2


def test_explain_has_one_line_for_each_softmax_that_is_not_taken() -> None:
    both = attention(
        m="ma = Add(z, bias); Tanh(ma)",
        t="ta = Softmax<axis=-1>(c); Transpose<perm=[0,2,1,3]>(ta)",
        out="float[2,5,8] y",
    )
    bounded, gate = rw.explain(both, "mhsa").near
    assert (bounded.about, gate.about) == ("p", "ta")
    assert bounded.complete
    assert gate.reason == "what it gives goes to Transpose 't', and nothing of the pattern comes after that"
    assert not rw.explain(attention(), "mhsa").near
