"""Normalisation: what looks like one and is none, and what is one and does not look it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnxruntime
import pytest

from tests.passes import building
from tests.passes.building import attributes, constant, f32, node, ops

from .building import drawn, fires, initializers, is_left, outputs_of

STEPS = {
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
    *,
    shape: str = "2,5,8",
    out: str | None = None,
    kind: str = "float",
    constants: dict[str, Any] | None = None,
    opset: int = 12,
    extra: str = "",
    more: str = "",
    **changed: str,
) -> onnx.ModelProto:
    """A decomposed layer normalization over the last of 8, some of its steps spelt otherwise."""
    length = int(shape.split(",")[-1])
    given = {"two": np.float32(2), "eps": np.float32(1e-5), "scale": f32(length), "bias": f32(length)}
    dtype = building.DTYPES[kind]
    given = {k: np.asarray(v).astype(dtype) for k, v in given.items()} | (constants or {})
    text = building.steps(STEPS, changed) + more
    words = text.replace("(", " ").replace(")", " ").replace(",", " ").split()
    return building.model(
        text,
        {k: v for k, v in given.items() if k in words},
        inputs=f"{kind}[{shape}] x",
        outputs=f"{kind}[{shape if out is None else out}] y{extra}",
        opset=opset,
    )


def left_of(proto: onnx.ModelProto) -> list[str]:
    return [o for o in ops(proto) if o not in ("Identity", "Cast")]


@pytest.mark.parametrize("step", ["m", "v"])
def test_reduce_mean_with_keepdims_0(step: str) -> None:
    """On a square input the means broadcast along the wrong axis, and nothing complains."""
    axes = STEPS[step].replace("<axes=[-1]>", "<axes=[-1], keepdims={}>")
    is_left(ln(shape="8,8", **{step: axes.format(0)}), "ln")
    assert left_of(fires(ln(shape="8,8", **{step: axes.format(1)}), "ln")) == ["LayerNormalization"]


@pytest.mark.parametrize("product", ["Mul(n, scale)", "Mul(scale, n)"])
def test_rank_1_takes_the_quotient_for_the_scale(product: str) -> None:
    """The scale and the quotient have one shape here: only one of them is a constant."""
    proto = fires(ln(shape="8", w=product), "ln")
    assert left_of(proto) == ["LayerNormalization"]
    assert list(node(proto, "LayerNormalization").input[1:]) == ["scale", "bias"]
    # A second factor that is computed is no scale: the norm is fused without one, and the product stays.
    proto = fires(ln(shape="8", w=product.replace("scale", "g"), n="g = Sin(x); Div(d, s)"), "ln")
    assert left_of(proto) == ["Sin", "LayerNormalization", "Mul", "Add"]
    assert (constant(proto, node(proto, "LayerNormalization").input[1]) == 1).all()


@pytest.mark.parametrize("shape", [(5, 8), (5, 1), (2, 1, 8), (2, 5, 8)], ids=str)
def test_gamma_broadcastable_but_not_of_the_normalized_shape(shape: tuple[int, ...]) -> None:
    """It multiplies like a scale, but varies along an axis that LayerNormalization's scale does not have."""
    proto = fires(ln(constants={"scale": f32(*shape)}), "ln")
    assert left_of(proto) == ["LayerNormalization", "Mul", "Add"]
    assert constant(proto, node(proto, "LayerNormalization").input[1]).shape == (8,)
    twin = fires(ln(constants={"scale": f32(*[1] * (len(shape) - 1), shape[-1])}), "ln")
    assert left_of(twin) == ["LayerNormalization"]
    assert constant(twin, node(twin, "LayerNormalization").input[1]).shape == (8,)


@pytest.mark.skipif(
    tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 24),
    reason="this onnxruntime normalises no axis of length 1",
)
def test_scale_that_enlarges_the_output() -> None:
    """[1, 1] times [2] is [1, 2]."""
    enlarging = ln(shape="1,1", out="1,2", constants={"scale": f32(2), "bias": f32(2)})
    assert left_of(fires(enlarging, "ln")) == ["LayerNormalization", "Mul", "Add"]
    assert left_of(fires(ln(shape="1,2"), "ln")) == ["LayerNormalization"]


@pytest.mark.parametrize("axis", [0, 1])
def test_axes_that_are_not_the_last(axis: int) -> None:
    mean = {"m": f"ReduceMean<axes=[{axis}]>(x)", "v": f"ReduceMean<axes=[{axis}]>(q)"}
    is_left(ln(shape="8,8,8", **mean), "ln", f"the mean is taken over axis {axis}; LayerNormalization needs the last")
    last = {k: v.replace(f"[{axis}]", "[2]") for k, v in mean.items()}
    assert left_of(fires(ln(shape="8,8,8", **last), "ln")) == ["LayerNormalization"]


@pytest.mark.parametrize("shape", [(8,), (5, 1), (1,), (5, 8)], ids=str)
def test_several_axes_with_a_scale_of_another_size(shape: tuple[int, ...]) -> None:
    """LayerNormalization wants the scale in the size of all normalized axes: it is spread over them."""
    both = {"m": "ReduceMean<axes=[1,2]>(x)", "v": "ReduceMean<axes=[1,2]>(q)"}
    proto = fires(ln(constants={"scale": f32(*shape), "bias": f32(*shape)}, **both), "ln")
    assert left_of(proto) == ["LayerNormalization"]
    found = node(proto, "LayerNormalization")
    assert attributes(found)["axis"] == -2
    assert constant(proto, found.input[1]).shape == (5, 8)
    # One more axis, and the scale spans what is not normalized.
    spanning = fires(ln(constants={"scale": f32(2, *[1] * (2 - len(shape)), *shape)}, **both), "ln")
    assert left_of(spanning) == ["LayerNormalization", "Mul", "Add"]


@pytest.mark.parametrize("spelt", ["Pow(d, k)", "p = Cast<to=1>(k); Pow(d, p)"], ids=["int64", "Cast"])
def test_pow_with_an_int64_exponent_or_one_from_a_cast(spelt: str) -> None:
    assert left_of(fires(ln(constants={"k": np.int64(2)}, q=spelt), "ln")) == ["LayerNormalization"]
    is_left(ln(constants={"k": np.int64(3)}, q=spelt), "ln")


def test_mul_of_the_difference_with_itself_for_pow() -> None:
    assert left_of(fires(ln(q="Mul(d, d)"), "ln")) == ["LayerNormalization"]
    assert left_of(fires(ln(q="d2 = Sub(x, m); Mul(d, d2)"), "ln")) == ["LayerNormalization"]
    is_left(ln(q="Mul(d, x)"), "ln")


@pytest.mark.parametrize("mean", [-1, 2])
@pytest.mark.parametrize("variance", [-1, 2])
@pytest.mark.parametrize("form", ["attribute", "input"])
def test_axes_as_attribute_or_input_negative_or_positive(mean: int, variance: int, form: str) -> None:
    """The two means may spell one axis in two ways; two axes of one length are still two."""

    def model(first: int, second: int) -> onnx.ModelProto:
        if form == "attribute":
            return ln(shape="8,8,8", m=f"ReduceMean<axes=[{first}]>(x)", v=f"ReduceMean<axes=[{second}]>(q)")
        axes = {"a": np.asarray([first]), "b": np.asarray([second])}
        return ln(shape="8,8,8", opset=18, constants=axes, m="ReduceMean(x, a)", v="ReduceMean(q, b)")

    assert left_of(fires(model(mean, variance), "ln")) == ["LayerNormalization"]
    is_left(model(mean, variance - 1), "ln")


def test_epsilon_inside_or_outside_the_root_and_shared() -> None:
    is_left(ln(e="Sqrt(v)", s="Add(e, eps)"), "ln")
    proto = fires(ln(constants={"eps": np.float32(0.1)}), "ln")
    assert attributes(node(proto, "LayerNormalization"))["epsilon"] == pytest.approx(0.1)
    second = building.steps({k + "2": v for k, v in STEPS.items()}, {})
    for name in "mdqvesnw":
        second = second.replace(f"({name}", f"({name}2").replace(f" {name})", f" {name}2)")
    second = " " + second.replace("(x", "(y")
    shared = ln(extra=", float[2,5,8] y2", more=second)
    assert left_of(fires(shared, "ln", 2)) == ["LayerNormalization"] * 2
    # The one outside its root stays, and so does the constant that it reads.
    mixed = ln(
        extra=", float[2,5,8] y2", more=second.replace("Add(v2, eps)", "Sqrt(v2)").replace("Sqrt(e2)", "Add(e2, eps)")
    )
    proto = fires(mixed, "ln")
    assert ops(proto).count("LayerNormalization") == 1
    assert "eps" in initializers(proto)


def test_pow_overflows_in_half_precision() -> None:
    """Squares of halves above 256 are infinite: the fused norm is the better one, and is accepted for that.

    Where a model widens nothing and narrows for the square alone, its overflow is what it asks for.
    """
    made = ln(kind="float16", opset=13)
    proto = fires(made, "ln")
    assert left_of(proto) == ["LayerNormalization"]
    x = (drawn(made)["x"].astype(np.float32) * 300).astype(np.float16)
    with np.errstate(over="ignore"):  # the reference rounds after every operator, as an engine in halves does
        (was,) = onnx.reference.ReferenceEvaluator(made).run(None, {"x": x})
    (now,) = outputs_of(proto, {"x": x})
    wide = ln(constants={k: v.astype(np.float32) for k, v in initializers(made).items()})
    (exact,) = outputs_of(wide, {"x": x.astype(np.float32)})
    assert np.abs(was - exact).max() > 0.1
    assert np.abs(now - exact).max() < 0.01
    last = {"opset": 13, "y": "w1 = Cast<to=1>(w); Add(w1, bias)"}
    halves = {k: v for k, v in initializers(made).items() if k != "bias"}
    is_left(
        ln(constants=halves, d="d0 = Sub(x, m); Cast<to=10>(d0)", **last),
        "ln",
        "the difference is cast to FLOAT16 before it is squared",
    )
    twin = fires(ln(d="d0 = Sub(x, m); Cast<to=1>(d0)", **last), "ln")
    assert left_of(twin) == ["LayerNormalization", "Add"]
