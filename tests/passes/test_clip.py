"""Clip: bounds in a row become one, exactly; what would change a number or a shape is left."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnx_rewrite as rw

from . import building
from .building import bfloat16, bounds, fires, is_left, node, ops

LO, HI = np.float32(-1), np.float32(2)
INF, NAN = np.float32("inf"), np.float32("nan")


def clip(
    body: str,
    constants: dict[str, Any] | None = None,
    *,
    kind: str = "float",
    shape: str = "2,5",
    out: str | None = None,
    opset: int = 13,
    **options: Any,
) -> onnx.ModelProto:
    """A model of bounds; those called lo and hi are -1 and 2 of dtype `kind`."""
    dtype = building.DTYPES.get(kind, np.dtype(kind) if "int" in kind else np.float32)
    known = {"lo": LO.astype(dtype), "hi": HI.astype(dtype)} if "uint" not in kind else {}
    used = {k: v for k, v in {**known, **(constants or {})}.items() if k in body}
    outputs = f"{kind}[{shape}] y" if out is None else out
    return building.model(body, used, inputs=f"{kind}[{shape}] x", outputs=outputs, opset=opset, **options)


def fused(made: onnx.ModelProto, sites: int = 1, **options: Any) -> tuple[float | None, float | None]:
    """Fuses all of it into one Clip; returns its bounds."""
    proto = fires(made, "clip", sites, **options)
    assert ops(proto) == ["Clip"]
    assert list(node(proto, "Clip").output) == ["y"]
    return bounds(proto)


MAX_MIN, MIN_MAX = "a = Max(x, lo) y = Min(a, hi)", "a = Min(x, hi) y = Max(a, lo)"

# -- spellings

SPELLINGS = {
    "Max then Min": MAX_MIN,
    "Min then Max": MIN_MAX,
    "constants first": "a = Max(lo, x) y = Min(hi, a)",
    "half-open Clips": "a = Clip(x, lo) y = Clip(a, , hi)",
    "half-open Clips the other way": "a = Clip(x, , hi) y = Clip(a, lo)",
    "Max then Clip": "a = Max(x, lo) y = Clip(a, , hi)",
    "Clip then Min": "a = Clip(x, lo) y = Min(a, hi)",
    "Identity in between": "a = Max(x, lo) b = Identity(a) y = Min(b, hi)",
    "Identity of bounds": "l = Identity(lo) h = Identity(hi) a = Max(x, l) y = Min(a, h)",
    "Identity of Clip's bounds": "l = Identity(lo) h = Identity(hi) a = Clip(x, l) y = Clip(a, , h)",
    "Constant nodes": "l = Constant<value = float {-1.0}>() h = Constant<value_float = 2.0>() "
    "a = Max(x, l) y = Min(a, h)",
    "Constant nodes of one element": "l = Constant<value_floats = [-1.0]>() a = Max(x, l) y = Min(a, hi)",
    "bounds from a Cast": "l = Cast<to=1>(lo64) a = Max(x, l) y = Min(a, hi)",
}


@pytest.mark.parametrize("body", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings(body: str) -> None:
    found = fused_without_identity(clip(body, {"lo64": np.int64(-1)}))
    assert found == (-1, 2)


def fused_without_identity(made: onnx.ModelProto) -> tuple[float | None, float | None]:
    proto = fires(made, "clip")
    assert set(ops(proto)) - {"Identity"} == {"Clip"}
    return bounds(proto)


@pytest.mark.parametrize("body", [MAX_MIN, MIN_MAX])
@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 18, 26])
def test_opsets_write_the_form_of_their_time(body: str, opset: int) -> None:
    shape = (2, 5) if opset < 8 else ()  # Min and Max broadcast from opset 8 on
    made = clip(body, {"lo": np.full(shape, LO), "hi": np.full(shape, HI)}, opset=opset, ir=10)
    proto = fires(made, "clip")
    found = node(proto, "Clip")
    assert bounds(proto) == (-1, 2)
    assert bool(found.attribute) == (opset < 11)
    assert len(found.input) == (1 if opset < 11 else 3)
    assert proto.opset_import[0].version == opset


def test_new_bounds_are_scalars() -> None:
    proto = fires(clip(MAX_MIN, {"lo": np.full((1, 1), LO), "hi": np.full(1, HI)}), "clip")
    assert [list(t.dims) for t in proto.graph.initializer] == [[], []]


CHAINS: dict[str, tuple[str, int, tuple[float | None, float | None]]] = {
    "three": ("a = Max(x, lo) b = Min(a, hi) y = Max(b, half)", 2, (0.5, 2)),
    "four": ("a = Max(x, lo) b = Min(a, hi) c = Max(b, half) y = Min(c, one)", 3, (0.5, 1)),
    "five with Relu": ("a = Relu(x) b = Min(a, hi) c = Clip(b, half) d = Clip(c, lo, one) y = Max(d, lo)", 4, (0.5, 1)),
}


@pytest.mark.parametrize(("body", "sites", "wanted"), CHAINS.values(), ids=CHAINS)
def test_chains_become_one(body: str, sites: int, wanted: tuple[float, float]) -> None:
    assert fused(clip(body, {"half": np.float32(0.5), "one": np.float32(1)}), sites) == wanted


PAIRS: dict[str, tuple[str, tuple[float | None, float | None]]] = {
    "Clip of Clip, nested": ("a = Clip(x, lo, hi) y = Clip(a, zero, half)", (0, 0.5)),
    "Clip of Clip, overlapping": ("a = Clip(x, zero, hi) y = Clip(a, lo, half)", (0, 0.5)),
    "Clip of Clip, apart above": ("a = Clip(x, lo, zero) y = Clip(a, half, hi)", (0.5, 0.5)),
    "Clip of Clip, apart below": ("a = Clip(x, half, hi) y = Clip(a, lo, zero)", (0, 0)),
    "Relu of Clip": ("a = Clip(x, lo, hi) y = Relu(a)", (0, 2)),
    "Clip of Relu": ("a = Relu(x) y = Clip(a, lo, hi)", (0, 2)),
    "Relu of a Clip below zero": ("a = Clip(x, , lo) y = Relu(a)", (0, 0)),
    "Relu then Min": ("a = Relu(x) y = Min(a, hi)", (0, 2)),
    "Min then Relu": ("a = Min(x, hi) y = Relu(a)", (0, 2)),
    "Relu of half-open Clip": ("a = Clip(x, lo) y = Relu(a)", (0, None)),
    "half-open twice": ("a = Clip(x, lo) y = Clip(a, half)", (0.5, None)),
    "half-open twice, above": ("a = Clip(x, , hi) y = Clip(a, , half)", (None, 0.5)),
    "Clip without bounds": ("a = Clip(x) y = Clip(a, , half)", (None, 0.5)),
    "Clips without bounds": ("a = Clip(x) y = Clip(a)", (None, None)),
}


@pytest.mark.parametrize(("body", "wanted"), PAIRS.values(), ids=PAIRS)
def test_pairs(body: str, wanted: tuple[float, float]) -> None:
    assert fused(clip(body, {"zero": np.float32(0), "half": np.float32(0.5)})) == wanted


# An absent bound of Clip is the largest finite number: infinities pass Max and Relu, but not Clip(x, lo).
ONE_SIDED: dict[str, tuple[str, tuple[float | None, float | None]]] = {
    "Max of Max": ("a = Max(x, lo) y = Max(a, hi)", (2, math.inf)),
    "Min of Min": ("a = Min(x, lo) y = Min(a, hi)", (-math.inf, -1)),
    "Relu then Max": ("a = Relu(x) y = Max(a, hi)", (2, math.inf)),
    "Max then Relu": ("a = Max(x, lo) y = Relu(a)", (0, math.inf)),
    "Max then half-open Clip": ("a = Max(x, lo) y = Clip(a, hi)", (2, None)),
    "half-open Clip then Max": ("a = Clip(x, lo) y = Max(a, hi)", (2, None)),
}


@pytest.mark.parametrize(("body", "wanted"), ONE_SIDED.values(), ids=ONE_SIDED)
def test_infinities_pass_where_they_passed(body: str, wanted: tuple[float, float]) -> None:
    assert fused(clip(body)) == wanted


def test_attribute_form_of_one_sided_bounds() -> None:
    assert fused(clip("a = Relu(x) y = Max(a, hi)", opset=10)) == (2, math.inf)
    assert fused(clip("a = Clip<min=-1.0>(x) y = Clip<max=2.0>(a)", opset=10)) == (-1, 2)
    assert fused(clip("a = Clip<min=-1.0>(x) y = Relu(a)", opset=6 + 1)) == (0, None)
    assert fused(clip("a = Clip<max=6.0>(x) y = Relu(a)", opset=9)) == (0, 6)


def test_equal_vectors_are_one_bound() -> None:
    assert fused(clip(MAX_MIN, {"lo": np.full(5, LO), "hi": np.full((2, 5), HI)})) == (-1, 2)


# -- dtypes


@pytest.mark.parametrize("kind", ["float16", "float", "double"])
@pytest.mark.parametrize("opset", [13, 18])
def test_float_types(kind: str, opset: int) -> None:
    made = clip(MAX_MIN, kind=kind, opset=opset)
    proto = fires(made, "clip")
    assert {t.data_type for t in proto.graph.initializer} == {made.graph.input[0].type.tensor_type.elem_type}


def test_bfloat16() -> None:
    assert fused(clip(MAX_MIN, {"lo": bfloat16(LO), "hi": bfloat16(HI)}, kind="bfloat16")) == (-1, 2)


@pytest.mark.parametrize("kind", ["int8", "int32", "int64", "uint8", "uint32", "uint64"])
@pytest.mark.parametrize("opset", [12, 13])
def test_integer_types_from_opset_12(kind: str, opset: int) -> None:
    low, high = (np.asarray(v, kind) for v in (1, 3))
    assert fused(clip(MAX_MIN, {"lo": low, "hi": high}, kind=kind, opset=opset)) == (1, 3)
    assert fused(clip("a = Max(x, lo) y = Max(a, hi)", {"lo": low, "hi": high}, kind=kind, opset=opset)) == (3, None)
    assert fused(clip("a = Clip(x, , hi) y = Min(a, lo)", {"lo": low, "hi": high}, kind=kind, opset=opset)) == (None, 1)


def test_int64_bounds_beyond_float64_stay_exact() -> None:
    big = 2**63 - 3
    assert fused(clip(MAX_MIN, {"lo": np.int64(-big), "hi": np.int64(big)}, kind="int64")) == (-big, big)


@pytest.mark.parametrize("opset", [8, 11])
def test_integers_before_opset_12_are_refused(opset: int) -> None:
    made = clip(MAX_MIN, {"lo": np.int32(-1), "hi": np.int32(2)}, kind="int32", opset=opset, valid=False)
    is_left(made, "clip", f"Clip takes INT32 from opset 12 on; the model's is {opset}")
    fused(clip(MAX_MIN, {"lo": np.int32(-1), "hi": np.int32(2)}, kind="int32", opset=12))


def test_double_bounds_must_fit_the_attributes_of_old_clips() -> None:
    tenth = {"lo": np.float64(0.1), "hi": np.float64(2)}
    is_left(clip(MAX_MIN, tenth, kind="double", opset=10), "clip", "no 32-bit float")
    assert fused(clip(MAX_MIN, tenth, kind="double", opset=12)) == (0.1, 2)


def test_relu_then_clip_in_double() -> None:
    assert fused(clip("a = Relu(x) y = Clip(a, lo, hi)", {"hi": np.float64(0.1)}, kind="double")) == (0, 0.1)


# -- bounds that cross, infinite ones, NaN


@pytest.mark.parametrize(
    ("body", "wanted"),
    [(MAX_MIN, (-1, -1)), (MIN_MAX, (2, 2)), ("y0 = Clip(x, lo, hi) y = Relu(y0)", (0, 0))],
    ids=["Max then Min", "Min then Max", "Clip"],
)
def test_bounds_that_cross_give_what_they_gave(body: str, wanted: tuple[float, float]) -> None:
    """Max(Min(x, -1), 2) is 2 everywhere, Min(Max(x, 2), -1) is -1, and so is Clip(x, 2, -1)."""
    assert fused(clip(body, {"lo": HI, "hi": LO})) == wanted


BOUND = st.sampled_from([-math.inf, -3.4028234663852886e38, -2.0, -0.0, 0.0, 0.5, 3.0, 3.4028234663852886e38, math.inf])
STEP = st.one_of(
    st.tuples(st.sampled_from(["Max({x}, {a})", "Min({x}, {a})", "Max({a}, {x})"]), BOUND, st.none()),
    st.tuples(st.just("Relu({x})"), st.none(), st.none()),
    st.tuples(st.just("Clip({x}, {a}, {b})"), BOUND, BOUND),
    st.tuples(st.just("Clip({x}, {a})"), BOUND, st.none()),
    st.tuples(st.just("Clip({x}, , {b})"), st.none(), BOUND),
)


@settings(max_examples=80)
@given(st.lists(STEP, min_size=2, max_size=4))
def test_any_chain_maps_every_number_as_before(chain: list[tuple[str, float | None, float | None]]) -> None:
    """Against onnxruntime itself, infinities and NaN included, bit for bit but for the sign of zero."""
    import onnxruntime as ort

    body, constants, before = "", {}, "x"
    for number, (text, a, b) in enumerate(chain):
        names = {"a": f"a{number}", "b": f"b{number}"}
        constants |= {names[k]: np.float32(v) for k, v in (("a", a), ("b", b)) if v is not None}
        body += f"t{number} = {text.format(x=before, **names)} "
        before = f"t{number}"
    made = building.model(
        body + f"y = Identity({before})", constants, inputs="float[11] x", outputs="float[11] y", opset=13
    )
    result = rw.rewrite(made, "clip", accept=["inconclusive"])  # a chain that gives nothing but infinities is one
    assert result.report.passes[0].rolled_back == 0, building.told(result)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    big = 3.4028234663852886e38
    feed = {"x": np.asarray([-math.inf, -big, -5, -2, -0.0, 0.0, 0.25, 1, big, math.inf, math.nan], np.float32)}
    runs = [
        ort.InferenceSession(m.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feed)[0]
        for m in (made, result.to_proto())
    ]
    assert np.array_equal(*runs, equal_nan=True)


@pytest.mark.parametrize("body", [MAX_MIN, MIN_MAX, "a = Clip(x, lo) y = Clip(a, , hi)"])
@pytest.mark.parametrize("which", ["lo", "hi"])
def test_nan_bounds_are_refused(body: str, which: str) -> None:
    is_left(clip(body, {which: NAN}), "clip", "a bound is NaN")
    fused(clip(body))


def test_vectors_of_nan_are_refused() -> None:
    is_left(clip(MAX_MIN, {"lo": np.full(5, NAN)}), "clip", "a bound is NaN")


def test_infinite_bounds_bound_nothing() -> None:
    assert fused(clip(MAX_MIN, {"lo": -INF})) == (-math.inf, 2)
    assert fused(clip(MAX_MIN, {"hi": INF})) == (-1, math.inf)
    assert fused(clip(MAX_MIN, {"lo": np.float32(0.0), "hi": np.float32(-0.0)})) == (0, 0)


# -- shapes

SHAPES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "different numbers": (
        {"constants": {"lo": np.asarray([-1, -1, -1, -1, -2], np.float32)}},
        "holds different numbers",
        {"constants": {"lo": np.full(5, LO)}},
    ),
    "a higher rank": (
        {"constants": {"lo": np.full((1, 1, 1), LO)}, "out": "float[1,2,5] y"},
        "may give the result another rank",
        {"constants": {"lo": np.full((1, 1), LO)}},
    ),
    "a longer axis": (
        {"constants": {"lo": np.full(5, LO)}, "shape": "2,1", "out": "float[2,5] y"},
        "may enlarge the result",
        {"constants": {"lo": np.full(1, LO)}, "shape": "2,1"},
    ),
    "an axis of unknown length": (
        {"constants": {"lo": np.full(5, LO)}, "shape": "2,n", "out": "float[2,5] y"},
        "may enlarge the result",
        {"constants": {"lo": np.full(1, LO)}, "shape": "2,n"},
    ),
    "no number at all": (
        {"constants": {"lo": np.zeros(0, np.float32)}, "shape": "2,1", "out": "float[2,0] y"},
        "holds different numbers",
        {"shape": "2,1"},
    ),
}


@pytest.mark.parametrize(("wrong", "reason", "twin"), SHAPES.values(), ids=SHAPES)
def test_bounds_that_broadcast_are_refused_and_their_twins_fire(
    wrong: dict[str, Any], reason: str, twin: dict[str, Any]
) -> None:
    is_left(clip(MAX_MIN, **wrong), "clip", reason)
    fused(clip(MAX_MIN, **twin))


def test_clip_bounds_that_are_no_scalars_are_refused() -> None:
    """The checker accepts them, onnxruntime does not."""
    is_left(clip("a = Clip(x, lo) y = Clip(a, , hi)", {"lo": np.full((1, 1), LO)}), "clip", "no scalar")
    fused(clip("a = Clip(x, lo) y = Clip(a, , hi)", {"lo": np.full(1, LO)}))


# -- constants

NO_CONSTANTS = {
    "Max": "b = ReduceMax<keepdims=0>(x) a = Max(x, b) y = Min(a, hi)",
    "Clip": "b = ReduceMax<keepdims=0>(x) a = Clip(x, b) y = Clip(a, , hi)",
}


@pytest.mark.parametrize("body", NO_CONSTANTS.values(), ids=NO_CONSTANTS)
def test_computed_bounds_are_left(body: str) -> None:
    is_left(clip(body), "clip")


def test_bounds_that_the_caller_may_override_are_left() -> None:
    is_left(clip(MAX_MIN, overridable=("lo",)), "clip")
    is_left(clip("a = Clip(x, lo) y = Clip(a, , hi)", overridable=("hi",)), "clip")
    fused(clip(MAX_MIN))


def test_one_bound_alone_is_left() -> None:
    for body in ("y = Min(x, hi)", "y = Max(lo, x)", "y = Clip(x, lo, hi)", "y = Relu(x)", "a = Neg(x) y = Min(a, hi)"):
        is_left(clip(body), "clip")


def test_relu_of_relu_is_refused() -> None:
    is_left(clip("a = Relu(x) y = Relu(a)"), "clip", "Relu after Relu")
    fused(clip("a = Relu(x) b = Relu(a) y = Min(b, hi)"), 2)


def test_min_and_max_of_two_values_and_of_one_are_left() -> None:
    is_left(clip("a = Max(x, x) y = Min(a, hi)"), "clip")
    is_left(clip("b = Neg(x) a = Max(x, b) y = Min(a, hi)"), "clip")
    is_left(clip("a = Max(x) y = Min(a, hi)"), "clip")


def test_three_operands_are_right() -> None:
    """Whether or not they are merged, they are not mistaken for two."""
    made = clip("a = Max(x, lo, z) y = Min(a, hi, h2)", {"z": np.float32(0), "h2": np.float32(1)})
    result = rw.rewrite(made, "clip")
    assert result.report.passes[0].rolled_back == 0
    assert result.report.verification.verdict == "equivalent"
    made = clip("b = Neg(x) a = Max(x, lo, b) y = Min(a, hi)")
    is_left(made, "clip")


def test_a_vector_for_a_scalar_is_refused() -> None:
    made = clip("n = ReduceSum<keepdims=0>(x) a = Max(n, lo) y = Min(a, hi)", {"hi": np.full(1, HI)}, out="float[1] y")
    is_left(made, "clip", "may give the result another rank")


# -- structure


def test_a_value_in_the_middle_that_is_needed_is_refused() -> None:
    is_left(clip(MAX_MIN, out="float[2,5] y, float[2,5] a"), "clip", "value 'a' is an output of the graph")
    is_left(clip("a = Max(x, lo) y0 = Min(a, hi) b = Neg(a) y = Add(y0, b)"), "clip", "value 'a' is also used by Neg")
    fused(clip(MAX_MIN))


def branched(text: str, then: str, other: str, **options: Any) -> onnx.ModelProto:
    body = f"""{text} z = If(flag) <then_branch = t () => (float[2,5] p) {{ {then} }},
                                    else_branch = e () => (float[2,5] q) {{ {other} }}>"""
    constants = {"lo": LO, "hi": HI}
    inputs = "float[2,5] x, bool flag"
    return building.model(
        body, constants, inputs=inputs, outputs=options.pop("outputs", "float[2,5] z"), opset=13, **options
    )


def test_a_value_that_a_body_captures_stays() -> None:
    made = branched(MAX_MIN, "p = Neg(a)", "q = Abs(x)", outputs="float[2,5] z, float[2,5] y")
    is_left(made, "clip", "value 'a' is also used by Neg")
    made = branched(MAX_MIN, "p = Neg(y)", "q = Abs(x)", outputs="float[2,5] z, float[2,5] y")
    assert ops(fires(made, "clip")) == ["Clip", "If"]


def test_inside_a_body_with_bounds_of_the_outer_graph() -> None:
    made = branched("n = Neg(x)", "b = Max(n, lo) p = Min(b, hi)", "c = Min(n, hi) q = Max(c, lo)")
    proto = fires(made, "clip", 2)
    for attribute in proto.graph.node[1].attribute:
        assert ops(attribute.g) == ["Clip"]


def test_a_bound_that_a_body_captures_stays() -> None:
    made = branched(MAX_MIN, "p = Add(y, lo)", "q = Sub(y, hi)")
    proto = fires(made, "clip")
    assert ops(proto) == ["Clip", "If"]
    assert {"lo", "hi"} <= {t.name for t in proto.graph.initializer}


def test_two_chains_that_share_their_bounds() -> None:
    made = clip("a = Max(x, lo) b = Min(a, hi) c = Neg(b) d = Max(c, lo) y = Min(d, hi)")
    assert ops(fires(made, "clip", 2)) == ["Clip", "Neg", "Clip"]


def test_inside_a_function() -> None:
    bounds = "l = Constant<value = float {-1.0}>() h = Constant<value = float {2.0}>()"
    function = f"""<domain: "local", opset_import: ["":13]> bound (x) => (y)
                   {{ {bounds} a = Max(x, l) y = Min(a, h) }}"""
    made = building.model(
        "y = local.bound(x)", inputs="float[2,5] x", outputs="float[2,5] y", opset=13, functions=function
    )
    proto = fires(made, "clip")
    assert [n.op_type for n in proto.functions[0].node if n.op_type != "Constant"] == ["Clip"]


def test_a_loop_with_only_captured_inputs() -> None:
    body = f"(int64 i, bool c) => (bool c2, float[2,5] y) {{ c2 = Identity(c) {MAX_MIN} }}"
    text = f"z = Loop(trips, go) <body = b {body}>"
    constants = {"lo": LO, "hi": HI, "trips": np.int64(2), "go": np.bool_(True)}
    made = building.model(text, constants, inputs="float[2,5] x", outputs="float[2,2,5] z", opset=13)
    assert ops(fires(made, "clip").graph.node[0].attribute[0].g) == ["Identity", "Clip"]


def test_names_used_again_in_a_body() -> None:
    """The body's own "a" and "y" have nothing to do with those outside."""
    made = branched(MAX_MIN, "a = Neg(y) p = Abs(a)", "a = Max(x, lo) y0 = Min(a, hi) q = Neg(y0)", valid=False)
    result = rw.rewrite(made, "clip", verify="local")  # onnxruntime refuses such names
    assert ops(result.to_proto()) == ["Clip", "If"]
    assert [s.verification.verdict for s in result.sites] == ["equivalent", "equivalent"]


def test_a_branch_that_returns_a_bound() -> None:
    text = f"""{MAX_MIN} z = If(flag) <then_branch = t () => (float p) {{ p = Identity(lo) }},
                                      else_branch = e () => (float q) {{ q = Identity(hi) }}>"""
    inputs, outputs = "float[2,5] x, bool flag", "float[2,5] y, float z"
    fires(building.model(text, {"lo": LO, "hi": HI}, inputs=inputs, outputs=outputs, opset=13), "clip")


def test_an_identity_between_an_input_and_an_output_stays() -> None:
    made = clip("o = Identity(x) a = Max(x, lo) y = Min(a, hi)", out="float[2,5] y, float[2,5] o")
    proto = fires(made, "clip")
    assert sorted(ops(proto)) == ["Clip", "Identity"]
    assert [o.name for o in proto.graph.output] == ["y", "o"]


def test_a_bound_that_is_a_graph_output_stays() -> None:
    proto = fires(clip(MAX_MIN, out="float[2,5] y, float lo"), "clip")
    assert "lo" in {t.name for t in proto.graph.initializer}


def test_a_second_run_changes_nothing() -> None:
    proto = fires(clip(MAX_MIN), "clip")
    is_left(proto, "clip")


def test_dynamic_shapes() -> None:
    assert fused(clip(MAX_MIN, shape="n,m")) == (-1, 2)


def test_unknown_rank_with_scalar_bounds() -> None:
    made = clip(MAX_MIN)
    for value in (made.graph.input[0], made.graph.output[0]):
        value.type.tensor_type.ClearField("shape")
    result = rw.rewrite(made, "clip", verify="off")
    assert ops(result.to_proto()) == ["Clip"]
    made.graph.initializer[0].dims.append(1)
    is_left(made, "clip", "another rank", verify="off")
