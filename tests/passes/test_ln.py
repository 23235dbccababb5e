"""LayerNormalization: every spelling is found, and what only looks like one is left."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_rewrite as rw

from . import building
from .building import attributes, constant, f32, fires, is_left, node, ops, steps

C = 8
SCALE, BIAS = f32(C), f32(C)
CONSTANTS: dict[str, Any] = {
    "two": np.float32(2),
    "eps": np.float32(1e-5),
    "scale": SCALE,
    "bias": BIAS,
    "one": np.float32(1),
    "zero": np.float32(0),
    "half": np.float32(0.5),
    "minus_half": np.float32(-0.5),
    "eighth": np.float32(1 / C),
    "eight": np.float32(C),
    "two_int": np.int64(2),
}
TORCH = {
    "m": "ReduceMean<axes=[-1]>(x)",
    "d": "Sub(x, m)",
    "q": "Pow(d, two)",
    "v": "ReduceMean<axes=[-1]>(q)",
    "e": "Add(v, eps)",
    "s": "Sqrt(e)",
    "n": "Div(d, s)",
    "w": "Mul(n, scale)",
    "y": "Add(w, bias)",
}


def ln(
    constants: dict[str, Any] | None = None,
    *,
    shape: str = "2,5,8",
    kind: str = "float",
    out: str | None = None,
    recipe: dict[str, str] = TORCH,
    opset: int = 12,
    options: dict[str, Any] | None = None,
    **changed: str,
) -> onnx.ModelProto:
    """A decomposed layer normalization, some of its steps spelt otherwise, with constants of dtype `kind`."""
    dtype = building.DTYPES[kind]
    given = {k: np.asarray(v).astype(dtype) if np.asarray(v).dtype == np.float32 else v for k, v in CONSTANTS.items()}
    text = steps(recipe, changed)
    used = {
        k: v
        for k, v in {**given, **(constants or {})}.items()
        if k in text.replace("(", " ").replace(")", " ").replace(",", " ").split()
    }
    outputs = f"{kind}[{shape}] y" if out is None else out
    return building.model(text, used, inputs=f"{kind}[{shape}] x", outputs=outputs, opset=opset, **(options or {}))


def fused(made: onnx.ModelProto, **options: Any) -> onnx.ModelProto:
    """Fuses all of it: nothing but one LayerNormalization is left."""
    proto = fires(made, "ln", **options)
    assert [o for o in ops(proto) if o != "Identity"] == ["LayerNormalization"]
    return proto


# -- spellings


def test_torch_spelling_keeps_scale_bias_axis_and_epsilon() -> None:
    found = node(fused(ln()), "LayerNormalization")
    assert attributes(found)["axis"] == -1
    assert attributes(found)["epsilon"] == pytest.approx(1e-5)
    assert list(found.input) == ["x", "scale", "bias"]
    assert list(found.output) == ["y"]


RECIPROCALS = {
    "Reciprocal of Sqrt": {"n": "r = Reciprocal(s); Mul(d, r)"},
    "Reciprocal first": {"n": "r = Reciprocal(s); Mul(r, d)"},
    "Div(1, Sqrt)": {"n": "r = Div(one, s); Mul(d, r)"},
    "Pow(-0.5)": {"s": "Pow(e, minus_half)", "n": "Mul(d, s)"},
    "Reciprocal of Pow(0.5)": {"s": "Pow(e, half)", "n": "r = Reciprocal(s); Mul(d, r)"},
    "Sqrt of Reciprocal": {"s": "r = Reciprocal(e); Sqrt(r)", "n": "Mul(d, s)"},
    "Div by Pow(0.5)": {"s": "Pow(e, half)"},
}


@pytest.mark.parametrize("changed", RECIPROCALS.values(), ids=RECIPROCALS)
def test_every_way_to_divide(changed: dict[str, str]) -> None:
    fused(ln(**changed))


SQUARES = {
    "Mul of itself": {"q": "Mul(d, d)"},
    "Mul of two equal Subs": {"q": "d2 = Sub(x, m); Mul(d2, d)"},
    "a Sub of its own": {"q": "d2 = Sub(x, m); Pow(d2, two)"},
    "exponent of int64": {"q": "Pow(d, two_int)"},
    "exponent from a Cast": {"q": "p = Cast<to=1>(two_int); Pow(d, p)"},
    "ReduceSumSquare": {"q": "ReduceSumSquare<axes=[-1]>(d)", "v": "Mul(q, eighth)"},
    "ReduceSum divided": {"v": "t = ReduceSum<axes=[-1]>(q); Div(t, eight)"},
    "sums for both": {
        "m": "t = ReduceSum<axes=[-1]>(x); Mul(eighth, t)",
        "v": "t2 = ReduceSum<axes=[-1]>(q); Mul(t2, eighth)",
    },
}


@pytest.mark.parametrize("changed", SQUARES.values(), ids=SQUARES)
def test_every_way_to_square_and_average(changed: dict[str, str]) -> None:
    fused(ln(**changed))


def test_operands_in_the_other_order() -> None:
    fused(ln(e="Add(eps, v)", w="Mul(scale, n)", y="Add(bias, w)"))


EPSILONS: dict[str, tuple[str, Any]] = {
    "Constant node": ("e0 = Constant<value = float {1e-5}>(); Add(v, e0)", None),
    "Constant value_float": ("e0 = Constant<value_float = 1e-5>(); Add(v, e0)", None),
    "Constant value_floats": ("e0 = Constant<value_floats = [1e-5]>(); Add(v, e0)", None),
    "shape [1]": ("Add(v, eps)", np.full(1, 1e-5, np.float32)),
    "shape [1,1,1]": ("Add(v, eps)", np.full((1, 1, 1), 1e-5, np.float32)),
    "Identity": ("e0 = Identity(eps); Add(v, e0)", np.float32(1e-5)),
    "Cast": ("e0 = Cast<to=1>(eps); Add(e0, v)", np.float64(1e-5)),
    "Unsqueeze": ("e0 = Unsqueeze<axes=[0]>(eps); Add(e0, v)", np.float32(1e-5)),
    "ConstantOfShape": ("e0 = ConstantOfShape<value = float[1] {1e-5}>(eps); Add(e0, v)", np.ones(1, np.int64)),
    "zero": ("Add(v, eps)", np.float32(0)),
    "1e-12": ("Add(v, eps)", np.float32(1e-12)),
    "2": ("Add(v, eps)", np.float32(2)),
}


@pytest.mark.parametrize(("text", "eps"), EPSILONS.values(), ids=EPSILONS)
def test_epsilon_wherever_it_lives(text: str, eps: Any) -> None:
    found = node(fused(ln({} if eps is None else {"eps": eps}, e=text)), "LayerNormalization")
    wanted = 1e-5 if eps is None or np.asarray(eps).dtype.kind == "i" else float(np.ravel(eps)[0])
    assert attributes(found)["epsilon"] == pytest.approx(wanted, rel=1e-6)


def test_epsilon_shared_among_norms() -> None:
    text = (
        steps(TORCH, {})
        + " "
        + steps(
            {k + "_": v for k, v in TORCH.items()},
            {
                "m_": "ReduceMean<axes=[-1]>(y)",
                "d_": "Sub(y, m_)",
                "q_": "Pow(d_, two)",
                "v_": "ReduceMean<axes=[-1]>(q_)",
                "e_": "Add(v_, eps)",
                "s_": "Sqrt(e_)",
                "n_": "Div(d_, s_)",
                "w_": "Mul(n_, scale)",
                "y_": "Add(w_, bias)",
            },
        )
    )
    made = building.model(
        text,
        {k: CONSTANTS[k] for k in ("two", "eps", "scale", "bias")},
        inputs="float[2,5,8] x",
        outputs="float[2,5,8] y_",
    )
    assert ops(fires(made, "ln", 2)) == ["LayerNormalization"] * 2


AXES_OF_OLD: dict[str, str] = {"negative": "[-1]", "positive": "[2]"}


@pytest.mark.parametrize("mean", AXES_OF_OLD)
@pytest.mark.parametrize("variance", AXES_OF_OLD)
def test_axes_as_attribute(mean: str, variance: str) -> None:
    fused(
        ln(m=f"ReduceMean<axes={AXES_OF_OLD[mean]}, keepdims=1>(x)", v=f"ReduceMean<axes={AXES_OF_OLD[variance]}>(q)")
    )


@pytest.mark.parametrize("axes", [[-1], [2], [1, 2], [-1, -2], [-2, 2], [0, 1, 2], None], ids=str)
def test_axes_as_input(axes: list[int] | None) -> None:
    given = {"axes": np.asarray(axes, np.int64)} if axes is not None else {}
    operands = "x, axes" if axes is not None else "x"
    proto = fused(
        ln(
            given,
            opset=18,
            m=f"ReduceMean({operands})",
            v=f"ReduceMean({operands.replace('x,', 'q,') if axes is not None else 'q'})",
        )
    )
    found = attributes(node(proto, "LayerNormalization"))
    assert found["axis"] == (-3 if axes is None else -len(axes))
    scale = constant(proto, node(proto, "LayerNormalization").input[1])
    assert list(scale.shape) == [2, 5, 8][found["axis"] :]


@pytest.mark.parametrize("opset", [*range(7, 18)])
def test_opsets_with_axes_as_attribute(opset: int) -> None:
    proto = fused(ln(opset=opset))
    assert proto.opset_import[0].version == 17


@pytest.mark.parametrize("opset", [*range(18, 27)])
def test_opsets_with_axes_as_input(opset: int) -> None:
    made = ln(
        {"axes": np.asarray([-1])}, opset=opset, m="ReduceMean(x, axes)", v="ReduceMean(q, axes)", options={"ir": 10}
    )
    assert fused(made).opset_import[0].version == opset


def test_axes_as_constant_node() -> None:
    axes = "a{0} = Constant<value_ints = [-1]>(); ReduceMean<keepdims=1>({1}, a{0})"
    fused(ln(opset=20, m=axes.format(0, "x"), v=axes.format(1, "q"), options={"ir": 10}))


def test_keep_refuses_to_raise_the_opset() -> None:
    is_left(ln(), "ln", "needs opset 17", opset="keep")
    fused(ln(opset=17), opset="keep")


# -- scale and bias


def test_no_scale_and_no_bias_gets_ones_of_the_right_length() -> None:
    proto = fused(ln(recipe={k: v for k, v in TORCH.items() if k not in "wy"}, n="Div(d, s)", out="float[2,5,8] n"))
    found = node(proto, "LayerNormalization")
    assert len(found.input) == 2
    assert (constant(proto, found.input[1]) == np.ones(C, np.float32)).all()


def test_bias_without_scale() -> None:
    proto = fused(ln(recipe={k: v for k, v in TORCH.items() if k != "w"}, y="Add(n, bias)"))
    found = node(proto, "LayerNormalization")
    assert (constant(proto, found.input[1]) == 1).all()
    assert found.input[2] == "bias"


def test_scale_without_bias() -> None:
    proto = fused(ln(recipe={k: v for k, v in TORCH.items() if k != "y"}, out="float[2,5,8] w"))
    assert list(node(proto, "LayerNormalization").input) == ["x", "scale"]


@pytest.mark.parametrize("recipe", [{k: v for k, v in TORCH.items() if k not in "wy"}], ids=["no scale"])
def test_no_scale_and_unknown_length_is_refused(recipe: dict[str, str]) -> None:
    is_left(
        ln(recipe=recipe, shape="2,5,c", out="float[2,5,c] n"), "ln", "the length of the normalized axes is not known"
    )
    fused(ln(recipe=recipe, shape="b,s,8", out="float[b,s,8] n"))


PARAMETERS: dict[str, tuple[Any, str]] = {
    "[1,1,C]": (SCALE.reshape(1, 1, C), "scale"),
    "[1,C]": (SCALE.reshape(1, C), "scale"),
    "one number": (np.float32(3), "scale"),
    "[1]": (np.full(1, 3, np.float32), "scale"),
    "[1,1,1]": (np.full((1, 1, 1), 3, np.float32), "scale"),
    "Identity": (SCALE, "p"),
}


@pytest.mark.parametrize(("array", "name"), PARAMETERS.values(), ids=PARAMETERS)
@pytest.mark.parametrize("which", ["scale", "bias"])
def test_parameters_in_other_shapes(array: np.ndarray, name: str, which: str) -> None:
    text = "Mul(n, {})" if which == "scale" else "Add(w, {})"
    step = "w" if which == "scale" else "y"
    spelt = text.format(which) if name == "scale" else f"p = Identity({which}); " + text.format("p")
    proto = fused(ln({which: array}, **{step: spelt}))
    index = 1 if which == "scale" else 2
    found = constant(proto, node(proto, "LayerNormalization").input[index])
    assert found.shape == (C,)
    assert (found == np.broadcast_to(array.reshape(-1), C)).all()


def test_scale_of_one_of_two_normalized_axes_is_spread_over_both() -> None:
    two = {"m": "ReduceMean<axes=[1,2]>(x)", "v": "ReduceMean<axes=[1,2]>(q)"}
    for array in (f32(8), f32(5, 1), f32(1, 8), f32(5, 8), f32(1, 5, 8)):
        proto = fused(ln({"scale": array}, **two))
        found = constant(proto, node(proto, "LayerNormalization").input[1])
        assert (found == np.broadcast_to(array, (1, 5, 8))[0]).all()


def test_dynamic_batch_and_sequence() -> None:
    fused(ln(shape="b,s,8"))


def test_dynamic_batch_and_sequence_with_positive_axes() -> None:
    fused(ln(shape="b,s,8", m="ReduceMean<axes=[2]>(x)"))


# -- other dtypes


@pytest.mark.parametrize("kind", ["float16", "float"])
def test_dtypes(kind: str) -> None:
    found = node(fused(ln(kind=kind, opset=13)), "LayerNormalization")
    assert attributes(found)["epsilon"] == pytest.approx(float(building.DTYPES[kind](1e-5)), rel=1e-6)


def test_epsilon_of_a_double_model_must_fit_the_attribute() -> None:
    """LayerNormalization's epsilon is a 32-bit float: 1e-5 in double precision is another number there."""
    is_left(ln({"eps": np.float64(1e-5)}, kind="double", opset=13), "ln", "no 32-bit float")
    fused(ln({"eps": np.float64(2.0**-17)}, kind="double", opset=13))


def test_casts_around_the_norm_of_a_half_model() -> None:
    made = ln(
        kind="float16",
        opset=13,
        constants={k: np.float32(CONSTANTS[k]) for k in ("two", "eps")},
        m="c = Cast<to=1>(x); ReduceMean<axes=[-1]>(c)",
        d="Sub(c, m)",
        w="h = Cast<to=10>(n); Mul(h, scale)",
    )
    assert ops(fires(made, "ln")) == ["Cast", "LayerNormalization", "Cast", "Mul", "Add"]


def test_squares_in_float_of_a_half_model() -> None:
    """Mixed precision of PyTorch: the difference is widened before it is squared."""
    made = ln(
        kind="float16",
        opset=13,
        out="float[2,5,8] y",
        constants={k: CONSTANTS[k] for k in ("two", "eps", "scale", "bias")},
        d="d0 = Sub(x, m); Cast<to=1>(d0)",
    )
    assert ops(fires(made, "ln")) == ["Cast", "LayerNormalization"]


# -- TensorFlow, Keras, Flax

KERAS = {
    "m": "ReduceMean<axes=[-1]>(x)",
    "d": "Sub(x, m)",
    "q": "Mul(d, d)",
    "v": "ReduceMean<axes=[-1]>(q)",
    "e": "Add(v, eps)",
    "s": "Sqrt(e)",
    "r": "Reciprocal(s)",
    "f": "Mul(r, scale)",
    "a": "Mul(x, f)",
    "b": "Mul(m, f)",
    "c": "Sub(bias, b)",
    "y": "Add(a, c)",
}
KERAS_SPELLINGS = {
    "as tf2onnx writes it": {},
    "operands swapped": {"f": "Mul(scale, r)", "a": "Mul(f, x)", "b": "Mul(f, m)", "y": "Add(c, a)"},
    "the other association of the mean": {"b": "mr = Mul(m, r); Mul(mr, scale)"},
    "the mean times the scale first": {"b": "mr = Mul(m, scale); Mul(mr, r)"},
    "the other association of x": {"a": "xr = Mul(x, r); Mul(xr, scale)"},
    "x times the scale first": {"a": "xr = Mul(x, scale); Mul(xr, r)"},
    "both": {"a": "xr = Mul(x, r); Mul(xr, scale)", "b": "mr = Mul(m, r); Mul(mr, scale)"},
    "the mean subtracted, then the offset": {"c": "Sub(a, b)", "y": "Add(c, bias)"},
    "the mean's share less the offset": {"c": "Sub(b, bias)", "y": "Sub(a, c)"},
    "negated mean": {"c": "k = Neg(b); Add(k, bias)"},
    "squares less the squared mean": {
        "d": "Mul(x, x)",
        "q": "Mul(m, m)",
        "v": "u = ReduceMean<axes=[-1]>(d); Sub(u, q)",
    },
    "StopGradient and SquaredDifference": {"d": "g = Identity(m); Sub(x, g)"},
    "Pow(-0.5)": {"r": "Pow(e, minus_half)"},
    "Div(1, Sqrt)": {"r": "Div(one, s)"},
}


@pytest.mark.parametrize("changed", KERAS_SPELLINGS.values(), ids=KERAS_SPELLINGS)
def test_keras_spellings(changed: dict[str, str]) -> None:
    text = " ".join({**KERAS, **changed}.values())
    recipe = {k: v for k, v in KERAS.items() if k == "y" or re.search(rf"\b{k}\b", text)}
    found = node(fused(ln(recipe=recipe, **changed)), "LayerNormalization")
    assert list(found.input) == ["x", "scale", "bias"]


def test_keras_without_scale() -> None:
    fused(ln(recipe={k: v for k, v in KERAS.items() if k != "f"}, a="Mul(x, r)", b="Mul(m, r)"))


def test_keras_without_offset() -> None:
    fused(ln(recipe=KERAS, c="Neg(b)"))
    fused(ln(recipe={k: v for k, v in KERAS.items() if k != "c"}, y="Sub(a, b)"))


FLAX = {
    "m": "t = ReduceSum<keepdims=1>(x, last); Mul(t, eighth)",
    "u": "xx = Mul(x, x); t2 = ReduceSum<keepdims=1>(xx, last); Mul(t2, eighth)",
    "mm": "Mul(m, m)",
    "v0": "Sub(u, mm)",
    "v": "Max(zero, v0)",
    "e": "Add(v, eps)",
    "s": "Sqrt(e)",
    "r": "Reciprocal(s)",
    "f": "Mul(r, scale)",
    "d": "Sub(x, m)",
    "n": "Mul(d, f)",
    "y": "Add(n, bias)",
}
LAST = {"last": np.asarray([-1], np.int64)}
# As jax2tf and tf2onnx write it: the sums drop the axis, and Reshape and Expand bring it back.
DROPPED = {
    "m": "t = ReduceSum<keepdims=0, noop_with_empty_axes=1>(x, last); Mul(t, eighth)",
    "u": "xx = Mul(x, x); t2 = ReduceSum<keepdims=0, noop_with_empty_axes=1>(xx, last); Mul(t2, eighth)",
}


def test_flax_with_kept_axes() -> None:
    fused(ln(LAST, recipe=FLAX, opset=13))
    fused(ln(LAST, recipe=FLAX, opset=13, v="Identity(v0)"))
    fused(ln(LAST, recipe={k: v for k, v in FLAX.items() if k != "f"}, opset=13, n="g = Mul(d, r); Mul(g, scale)"))


BROUGHT_BACK = {
    "Reshape and Expand": "{0}1 = Reshape({0}, kept); {0}2 = Expand({0}1, kept)",
    "Reshape": "{0}2 = Reshape({0}, kept)",
    "Unsqueeze": "{0}2 = Unsqueeze({0}, last)",
}


def dropped(spelt: str, constants: dict[str, Any] | None = None, **options: Any) -> onnx.ModelProto:
    """Flax's spelling where the sums drop the axis, and `spelt` brings it back."""
    given = {**LAST, "kept": np.asarray([2, 5, 1]), **(constants or {})}
    changed = {"e": spelt.format("v") + "; Add(v2, eps)", "d": spelt.format("m") + "; Sub(x, m2)"}
    return ln(given, recipe=FLAX, opset=13, **{**DROPPED, **changed}, **options)


@pytest.mark.parametrize("spelt", BROUGHT_BACK.values(), ids=BROUGHT_BACK)
def test_flax_with_dropped_axes(spelt: str) -> None:
    fused(dropped(spelt))


def test_expand_to_a_scalar_is_left() -> None:
    """Expand's shape is a vector; the checker lets a scalar pass, and so may a model."""
    is_left(
        dropped("{0}1 = Reshape({0}, kept); {0}2 = Expand({0}1, flat)", {"flat": np.asarray(1, np.int64)}),
        "ln",
        "Expand",
    )


def test_flax_with_dropped_axes_and_a_dynamic_batch() -> None:
    """As magika has it: the shape is computed from the input's, and onnx cannot tell that it is the same."""
    shape = "h = Shape(x) h1 = Cast<to=6>(h) h2 = Slice(h1, zeros, ones, zeros) "
    shape += "h3 = Concat<axis=0>(h2, ones32) kept = Cast<to=7>(h3)"
    given = {"zeros": np.zeros(1, np.int64), "ones": np.ones(1, np.int64), "ones32": np.ones(1, np.int32), **LAST}
    given |= {k: CONSTANTS[k] for k in ("eighth", "zero", "eps", "scale", "bias")}
    changed = {**DROPPED}
    for name, use in (("e", "v"), ("d", "m")):
        changed[name] = BROUGHT_BACK["Reshape and Expand"].format(use) + (
            "; Add(v2, eps)" if use == "v" else "; Sub(x, m2)"
        )
    text = shape + " " + steps(FLAX, changed)
    made = building.model(text, given, inputs="float[n,8] x", outputs="float[n,8] y", opset=15)
    result = rw.rewrite(made, "ln")
    assert result.report.passes[0].applied == 1, building.told(result)
    assert result.report.verification.verdict == "equivalent"
    assert ops(result.to_proto()) == ["LayerNormalization"]


# -- what a value in the middle is used for


def test_fuses_up_to_a_value_that_is_a_graph_output() -> None:
    proto = fires(ln(out="float[2,5,8] y, float[2,5,8] n"), "ln")
    assert ops(proto) == ["LayerNormalization", "Mul", "Add"]
    assert [o.name for o in proto.graph.output] == ["y", "n"]


def test_fuses_up_to_a_value_that_is_used_elsewhere() -> None:
    assert ops(fires(ln(y="z = Relu(w); a = Add(w, bias); Mul(a, z)"), "ln")) == [
        "LayerNormalization",
        "Relu",
        "Add",
        "Mul",
    ]


@pytest.mark.parametrize("value", ["m", "d", "q", "v", "e", "s"])
def test_a_value_before_the_division_that_is_needed_forbids_it(value: str) -> None:
    shape = "2,5,1" if value in "mves" else "2,5,8"
    is_left(ln(out=f"float[2,5,8] y, float[{shape}] {value}"), "ln", f"value '{value}' is an output of the graph")


BRANCHES = """If(flag) <then_branch = t () => (float[2,5,8] p) {{ p = Neg({0}) }},
                        else_branch = f () => (float[2,5,8] p1) {{ p1 = Abs({0}) }}>"""


def test_a_value_that_a_body_captures() -> None:
    """The scaled value is captured: what comes before it is fused, and the body reads the new value."""
    constants = {k: CONSTANTS[k] for k in ("two", "eps", "scale", "bias")}
    inputs = "float[2,5,8] x, bool flag"
    for captured, left in (
        ("w", ["LayerNormalization", "Add", "If"]),
        ("n", ["LayerNormalization", "Mul", "Add", "If"]),
    ):
        text = steps(TORCH, {}) + " z = " + BRANCHES.format(captured)
        made = building.model(text, constants, inputs=inputs, outputs="float[2,5,8] y, float[2,5,8] z", opset=13)
        assert ops(fires(made, "ln")) == left
    text = steps(TORCH, {}) + " z = " + BRANCHES.format("d")
    made = building.model(text, constants, inputs=inputs, outputs="float[2,5,8] y, float[2,5,8] z", opset=13)
    is_left(made, "ln", "value 'd' is also used by Neg 'p'")


def test_inside_an_if_body_with_constants_of_the_outer_graph() -> None:
    inner = steps(TORCH, {})
    text = f"""z = If(flag) <then_branch = t () => (float[2,5,8] y) {{ {inner} }},
                             else_branch = f () => (float[2,5,8] o) {{ o = Neg(x) }}>"""
    constants = {k: CONSTANTS[k] for k in ("two", "eps", "scale", "bias")}
    made = building.model(text, constants, inputs="float[2,5,8] x, bool flag", outputs="float[2,5,8] z", opset=13)
    proto = fires(made, "ln")
    branches = {a.name: a.g for a in proto.graph.node[0].attribute}
    assert ops(branches["then_branch"]) == ["LayerNormalization"]


def test_inside_a_loop_body() -> None:
    inner = steps({**TORCH, "m": "ReduceMean<axes=[-1]>(state)", "d": "Sub(state, m)"}, {})
    text = f"""z = Loop(trips, go, x) <body = b (int64 i, bool c, float[2,5,8] state) => (bool c2, float[2,5,8] y)
               {{ c2 = Identity(c) {inner} }}>"""
    constants = {k: CONSTANTS[k] for k in ("two", "eps", "scale", "bias")} | {
        "trips": np.int64(2),
        "go": np.bool_(True),
    }
    made = building.model(text, constants, inputs="float[2,5,8] x", outputs="float[2,5,8] z", opset=13)
    proto = fires(made, "ln")
    assert ops(proto.graph.node[0].attribute[0].g) == ["Identity", "LayerNormalization"]


def test_inside_a_function() -> None:
    text = steps({k: v for k, v in TORCH.items() if k not in "wy"}, {})
    constants = "two = Constant<value = float {2.0}>() eps = Constant<value = float {1e-5}>() "
    constants += "scale = Constant<value = float[8] {1.,2.,3.,4.,5.,6.,7.,8.}>()"
    function = f'<domain: "local", opset_import: ["":13]> norm (x) => (w) {{ {constants} {text} w = Mul(n, scale) }}'
    made = building.model(
        "y = local.norm(x)", inputs="float[2,5,8] x", outputs="float[2,5,8] y", opset=13, functions=function
    )
    proto = fires(made, "ln")
    assert [n.op_type for n in proto.functions[0].node if n.op_type != "Constant"] == ["LayerNormalization"]


# -- near misses: left, or refused for a reason; each has a twin, one edit away, that fires

NEAR_MISSES: dict[str, tuple[dict[str, Any], str | None, dict[str, Any]]] = {
    "mean without keepdims": (
        {"shape": "8,8", "m": "ReduceMean<axes=[-1], keepdims=0>(x)"},
        None,
        {"shape": "8,8", "m": "ReduceMean<axes=[-1], keepdims=1>(x)"},
    ),
    "variance without keepdims": (
        {"shape": "8,8", "v": "ReduceMean<axes=[-1], keepdims=0>(q)"},
        None,
        {"shape": "8,8", "v": "ReduceMean<axes=[-1], keepdims=1>(q)"},
    ),
    "both without keepdims": (
        {"shape": "8,8", "m": "ReduceMean<axes=[-1], keepdims=0>(x)", "v": "ReduceMean<axes=[-1], keepdims=0>(q)"},
        None,
        {"shape": "8,8"},
    ),
    "rank 1 without keepdims": (
        {"shape": "8", "m": "ReduceMean<axes=[0], keepdims=0>(x)", "v": "ReduceMean<axes=[0], keepdims=0>(q)"},
        None,
        {"shape": "8", "m": "ReduceMean<axes=[0]>(x)", "v": "ReduceMean<axes=[0]>(q)"},
    ),
    "power of three": ({"constants": {"two": np.float32(3)}}, None, {}),
    "product of two things": ({"q": "Mul(d, x)"}, None, {"q": "Mul(d, d)"}),
    "square of x, no difference": ({"q": "Mul(x, x)"}, None, {"q": "Mul(d, d)"}),
    "difference the wrong way round": ({"d": "Sub(m, x)"}, None, {"d": "Sub(x, m)"}),
    "divided the wrong way round": ({"n": "Div(s, d)"}, None, {"n": "Div(d, s)"}),
    "epsilon outside the root": ({"e": "Sqrt(v)", "s": "Add(e, eps)"}, None, {}),
    "epsilon is a vector": ({"constants": {"eps": np.full(8, 1e-5, np.float32)}}, None, {}),
    "epsilon is negative": ({"constants": {"eps": np.float32(-1e-5)}}, "epsilon is -9.99", {}),
    "epsilon is NaN": ({"constants": {"eps": np.float32("nan")}}, "epsilon is nan", {}),
    "epsilon raises the rank": (
        {"constants": {"eps": np.full((1, 1, 1, 1), 1e-5, np.float32)}, "out": "float[1,2,5,8] y"},
        "another rank",
        {"constants": {"eps": np.full((1, 1, 1), 1e-5, np.float32)}},
    ),
    "exponent raises the rank": (
        {"constants": {"two": np.full((1, 1, 1, 1), 2, np.float32)}, "out": "float[1,2,5,8] y"},
        None,
        {"constants": {"two": np.full((1, 1, 1), 2, np.float32)}},
    ),
    "axes that are not the last": (
        {"m": "ReduceMean<axes=[1]>(x)", "v": "ReduceMean<axes=[1]>(q)"},
        "the mean is taken over axis 1; LayerNormalization needs the last ones",
        {"m": "ReduceMean<axes=[2]>(x)", "v": "ReduceMean<axes=[2]>(q)"},
    ),
    "axes with a gap": (
        {"m": "ReduceMean<axes=[0,2]>(x)", "v": "ReduceMean<axes=[0,2]>(q)"},
        "the mean is taken over axes 0, 2",
        {"m": "ReduceMean<axes=[1,2]>(x)", "v": "ReduceMean<axes=[1,2]>(q)"},
    ),
    "different axes": ({"v": "ReduceMean<axes=[1]>(q)"}, None, {"v": "ReduceMean<axes=[2]>(q)"}),
    "mean of something else": (
        {"m": "z = Abs(x); ReduceMean<axes=[-1]>(z)"},
        None,
        {},
    ),
    "maximum for the mean": ({"m": "ReduceMax<axes=[-1]>(x)"}, None, {}),
    "variance with N-1": (
        {"v": "t = ReduceSum<axes=[-1]>(q); Div(t, n1)", "constants": {"n1": np.float32(7)}},
        "a sum of 8 terms is divided by 7",
        {"v": "t = ReduceSum<axes=[-1]>(q); Div(t, eight)"},
    ),
    "sum times the wrong share": (
        {"v": "t = ReduceSum<axes=[-1]>(q); Mul(t, n1)", "constants": {"n1": np.float32(1 / 9)}},
        "a sum of 8 terms is divided by 9",
        {"v": "t = ReduceSum<axes=[-1]>(q); Mul(t, eighth)"},
    ),
    "sum of doubles times a share of 32 bits": (
        {
            "v": "t = ReduceSum<axes=[-1]>(q); Mul(t, third)",
            "constants": {"third": np.float64(np.float32(1 / 3)), "scale": np.ones(3), "bias": np.ones(3)},
            "shape": "2,5,3",
            "kind": "double",
        },
        "a sum of 3 terms is divided by 2.99999991",
        {
            "v": "t = ReduceSum<axes=[-1]>(q); Mul(t, third)",
            "constants": {"third": np.float64(1 / 3), "scale": np.ones(3), "bias": np.ones(3)},
            "shape": "2,5,3",
            "kind": "double",
        },
    ),
    "sum without a division": ({"v": "ReduceSum<axes=[-1]>(q)"}, None, {}),
    "cast to fewer bits": (
        {
            "d": "d0 = Sub(x, m); Cast<to=10>(d0)",
            "constants": {k: np.asarray(CONSTANTS[k]).astype(np.float16) for k in ("two", "eps", "scale", "bias")},
            "out": "float16[2,5,8] y",
            "opset": 13,
        },
        "the difference is cast to FLOAT16",
        {"d": "d0 = Sub(x, m); Cast<to=1>(d0)", "opset": 13},
    ),
}


@pytest.mark.parametrize(("wrong", "reason", "twin"), NEAR_MISSES.values(), ids=NEAR_MISSES)
def test_near_miss_is_left_and_its_twin_fires(wrong: dict[str, Any], reason: str | None, twin: dict[str, Any]) -> None:
    is_left(ln(**wrong), "ln", reason)
    fires(ln(**twin), "ln")


# Scales and biases that do not fit: the norm is fused up to them.
UNFIT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "scale per row": ({"constants": {"scale": f32(5, 1)}}, {"constants": {"scale": f32(1, 1)}}),
    "scale per row and column": ({"constants": {"scale": f32(5, 8)}}, {"constants": {"scale": f32(1, 8)}}),
    "scale of a higher rank": (
        {"constants": {"scale": f32(1, 1, 1, 8)}, "out": "float[1,2,5,8] y"},
        {"constants": {"scale": f32(1, 1, 8)}},
    ),
    "scale that enlarges one column": (
        {"shape": "2,1", "constants": {"scale": f32(2)}, "out": "float[2,2] y"},
        {"shape": "2,2", "constants": {"scale": f32(2), "bias": f32(2)}},
    ),
    "scale that is computed": ({"w": "g = Sin(x); Mul(n, g)"}, {"w": "g = Identity(scale); Mul(n, g)"}),
    "scale that the caller may override": ({"options": {"ir": 8, "overridable": ("scale",)}}, {}),
}


@pytest.mark.parametrize(("wrong", "twin"), UNFIT.values(), ids=UNFIT)
def test_a_scale_that_does_not_fit_stays_and_its_twin_does_not(wrong: dict[str, Any], twin: dict[str, Any]) -> None:
    wrong = {**wrong, "constants": {"bias": f32(1), **wrong.get("constants", {})}}
    assert [o for o in ops(fires(ln(**wrong), "ln")) if o != "Sin"] == ["LayerNormalization", "Mul", "Add"]
    fused(ln(**twin))


def test_a_scale_of_unknown_fit_is_refused() -> None:
    """Nobody knows whether a factor of 8 numbers enlarges the axis: it is 1 or 8 long."""
    is_left(ln(shape="b,s,c", out="float[b,s,o] y"), "ln", "not known")
    fused(ln(shape="b,s,8"))


def test_a_bias_that_enlarges_stays() -> None:
    assert ops(fires(ln({"bias": f32(3, 1, 1, 8)}, out="float[3,2,5,8] y"), "ln")) == ["LayerNormalization", "Add"]


def test_epsilon_that_the_caller_may_override_is_no_constant() -> None:
    is_left(ln(options={"ir": 8, "overridable": ("eps",)}), "ln")


def test_rms_norm_is_none() -> None:
    recipe = {k: v for k, v in TORCH.items() if k not in "md"}
    is_left(ln(recipe=recipe, q="Pow(x, two)", n="Div(x, s)"), "ln")


KERAS_NEAR_MISSES: dict[str, dict[str, str]] = {
    "scale missing at the mean": {"b": "Mul(m, r)"},
    "scale missing at x": {"a": "Mul(x, r)"},
    "sign of the mean": {"c": "Add(bias, b)"},
    "mean of the squares used as the mean": {"b": "Mul(v, f)"},
    "another x": {"a": "z = Relu(x); Mul(z, f)"},
    "squared mean added": {"d": "Mul(x, x)", "q": "Mul(m, m)", "v": "u = ReduceMean<axes=[-1]>(d); Add(u, q)"},
    "mean less its square": {"d": "Mul(x, x)", "q": "Mul(m, m)", "v": "u = ReduceMean<axes=[-1]>(d); Sub(q, u)"},
}


@pytest.mark.parametrize("changed", KERAS_NEAR_MISSES.values(), ids=KERAS_NEAR_MISSES)
def test_keras_near_misses_are_left(changed: dict[str, str]) -> None:
    is_left(ln(recipe=KERAS, **changed), "ln")


def test_flax_near_misses_are_left() -> None:
    swapped = "{0}1 = Reshape({0}, other); {0}2 = Expand({0}1, kept)"
    shapes = {"kept": np.asarray([4, 5, 1]), "other": np.asarray([1, 5, 1])}
    is_left(dropped(swapped, shapes, shape="1,5,8", out="float[4,5,8] y"), "ln", "may enlarge")
    shapes["kept"] = np.asarray([5, 1])
    fused(dropped(swapped, shapes, shape="1,5,8"))
    kept = {"kept": np.asarray([5, 2, 1])}
    is_left(
        dropped("{0}2 = Reshape({0}, kept)", kept, shape="2,5,8", out="float[2,5,8] y", options={"valid": False}),
        "ln",
        "axes back",
    )
    wrong = ln(LAST, recipe=FLAX, opset=13, v="Max(one, v0)")
    is_left(wrong, "ln")
    fused(ln(LAST, recipe=FLAX, opset=13, v="Max(v0, zero)"))


def test_axes_back_in_the_wrong_place() -> None:
    """[1,3] becomes [3,1,1], not [1,3,1]: the difference would be [3,3,8]."""
    kept = {"kept": np.asarray([3, 1, 1])}
    is_left(dropped("{0}2 = Reshape({0}, kept)", kept, shape="1,3,8", out="float[3,3,8] y"), "ln", "axes back")
    fused(dropped("{0}2 = Reshape({0}, kept)", {"kept": np.asarray([1, 3, 1])}, shape="1,3,8"))


# -- structure


def test_names_that_are_taken_are_not_taken_again() -> None:
    made = ln(
        {"y_ln_0": f32(8), "y_ln_1": f32(8)},
        recipe={k: v for k, v in TORCH.items() if k not in "w"},
        y="a = Add(n, y_ln_0); Add(a, y_ln_1)",
    )
    assert ops(fires(made, "ln")) == ["LayerNormalization", "Add"]


def test_a_second_run_changes_nothing() -> None:
    proto = fused(ln())
    is_left(proto, "ln")


def test_unnamed_and_equally_named_nodes() -> None:
    made = ln()
    for one in made.graph.node:
        one.name = "same" if one.op_type in ("Sub", "Div") else ""
    result = rw.rewrite(made, "ln", verify="local")  # onnxruntime refuses models with names used twice
    assert ops(result.to_proto()) == ["LayerNormalization"]


def test_an_unsorted_answer_names_the_replaced_nodes() -> None:
    made = ln()
    for number, one in enumerate(made.graph.node):
        one.name = f"node{number}"
        one.metadata_props.add(key="source", value=f"line {number}")
    found = node(fused(made), "LayerNormalization")
    props = {p.key: p.value for p in found.metadata_props}
    assert props["onnx_rewrite.pass"] == "ln"
    assert sorted(props["onnx_rewrite.sources"].split(", ")) == [f"node{i}" for i in range(9)]
    assert "line 3" in props["source"]
