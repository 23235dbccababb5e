"""Batch normalization: folded where that is right, in every layout; left where it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import onnx_rewrite as rw

from . import building
from .building import attributes, bfloat16, constant, f32, fires, is_left, node, ops

OUT = 6
BN = "BatchNormalization({}, g, be, mu, va)"


def statistics(channels: int, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    arrays = {
        "g": f32(channels),
        "be": f32(channels),
        "mu": f32(channels),
        "va": np.abs(f32(channels)) + np.float32(0.5),
    }
    return {k: v.astype(dtype) for k, v in arrays.items()}


def bn(
    body: str,
    constants: dict[str, Any] | None = None,
    *,
    kind: str = "float",
    x: str = "2,4,7,7",
    y: str | None = None,
    channels: int = OUT,
    opset: int = 13,
    extra: str = "",
    **options: Any,
) -> onnx.ModelProto:
    """A model of `body`, in which {bn(v)} stands for a BatchNormalization of value v."""
    given = {**statistics(channels), "w": f32(OUT, 4, 3, 3, scale=0.3), "b": f32(OUT), **(constants or {})}
    dtype = building.DTYPES.get(kind, np.float32)
    given = {k: v.astype(dtype) if isinstance(v, np.ndarray) and v.dtype == np.float32 else v for k, v in given.items()}
    if kind == "bfloat16":
        given = {k: bfloat16(v) if isinstance(v, np.ndarray) and v.dtype == np.float32 else v for k, v in given.items()}
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    used = {k: v for k, v in given.items() if k in words}
    rank = x.count(",") + 1
    free = {2: "n,o", 3: "n,o,l", 4: "n,o,h,w", 5: "n,o,d,h,w"}[rank]
    outputs = f"{kind}[{free if y is None else y}] y{extra}"
    return building.model(body, used, inputs=f"{kind}[{x}] x", outputs=outputs, opset=opset, **options)


def folded(made: onnx.ModelProto, left: list[str], sites: int = 1, **options: Any) -> onnx.ModelProto:
    proto = fires(made, "bn", sites, **options)
    assert [o for o in ops(proto) if o != "Identity"] == left
    return proto


CONV = f"a = Conv(x, w, b) y = {BN.format('a')}"

# -- behind Conv and ConvTranspose

CONVS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "2d": ("", {}, {}),
    "2d padded": ("<pads=[1,1,1,1], strides=[2,1], dilations=[1,2]>", {}, {}),
    "2d SAME": ('<auto_pad="SAME_UPPER">', {}, {}),
    "2d dynamic": ("", {}, {"x": "n,4,h,w"}),
    "1d": ("", {"w": f32(OUT, 4, 3)}, {"x": "2,4,7"}),
    "3d": ("", {"w": f32(OUT, 4, 2, 2, 2)}, {"x": "1,4,3,3,3"}),
    "1x1": ("", {"w": f32(OUT, 4, 1, 1)}, {}),
    "groups": ("<group=2>", {"w": f32(OUT, 2, 3, 3)}, {}),
    "depthwise": ("<group=4>", {"w": f32(4, 1, 3, 3), "b": f32(4)}, {"channels": 4}),
    "depthwise, two each": ("<group=4>", {"w": f32(8, 1, 3, 3), "b": f32(8)}, {"channels": 8}),
    "one channel": ("", {"w": f32(1, 4, 3, 3), "b": f32(1)}, {"channels": 1}),
}


@pytest.mark.parametrize(("how", "constants", "options"), CONVS.values(), ids=CONVS)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_conv(how: str, constants: dict[str, Any], options: dict[str, Any], bias: bool) -> None:
    body = f"a = Conv{how}(x, w{', b' if bias else ''}) y = {BN.format('a')}"
    proto = folded(bn(body, constants, **options), ["Conv"])
    assert len(node(proto, "Conv").input) == 3
    assert list(node(proto, "Conv").output) == ["y"]


TRANSPOSED: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "2d": ("", f32(4, OUT, 3, 3), {}),
    "strided": ("<strides=[2,2], output_padding=[1,1]>", f32(4, OUT, 3, 3), {}),
    "groups": ("<group=2>", f32(4, 3, 3, 3), {}),
    "as many groups as channels": ("<group=4>", f32(4, 2, 3, 3), {"channels": 8}),
    "1d": ("<group=2>", f32(4, 3, 3), {"x": "2,4,7"}),
    "square": ("<group=2>", f32(4, 2, 3, 3), {"channels": 4}),
}


@pytest.mark.parametrize(("how", "weight", "options"), TRANSPOSED.values(), ids=TRANSPOSED)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_conv_transpose(how: str, weight: Any, options: dict[str, Any], bias: bool) -> None:
    body = f"a = ConvTranspose{how}(x, w{', b' if bias else ''}) y = {BN.format('a')}"
    folded(bn(body, {"w": weight, "b": f32(options.get("channels", OUT))}, **options), ["ConvTranspose"])


# -- behind Gemm and MatMul

GEMMS = {
    "plain": ("", (4, OUT)),
    "transB": ("<transB=1>", (OUT, 4)),
    "transA": ("<transA=1>", (2, OUT)),
    "alpha and beta": ("<alpha=0.5, beta=2.0>", (4, OUT)),
    "all of them": ("<alpha=2.0, beta=0.25, transA=1, transB=1>", (OUT, 2)),
    "beta is zero": ("<beta=0.0>", (4, OUT)),
}


BIASES: list[tuple[int, ...] | None] = [(OUT,), (1, OUT), (), (1,), (2, 1), None]


@pytest.mark.parametrize(("how", "shape"), GEMMS.values(), ids=GEMMS)
@pytest.mark.parametrize("bias", BIASES, ids=str)
def test_gemm(how: str, shape: tuple[int, ...], bias: tuple[int, ...] | None) -> None:
    if bias == (2, 1) and "transA" in how:
        bias = (4, 1)  # one number per row
    body = f"a = Gemm{how}(x, w{'' if bias is None else ', b'}) y = {BN.format('a')}"
    proto = folded(bn(body, {"w": f32(*shape), "b": f32(*(bias or ()))}, x="2,4"), ["Gemm"])
    assert attributes(node(proto, "Gemm"))["beta"] == 1


MATMULS = {
    "no bias": "y = " + BN.format("a"),
    "bias last": "c = Add(a, b) y = " + BN.format("c"),
    "bias first": "c = Add(b, a) y = " + BN.format("c"),
}


@pytest.mark.parametrize("rest", MATMULS.values(), ids=MATMULS)
@pytest.mark.parametrize("bias", [(OUT,), (1, OUT), ()], ids=str)
def test_matmul_of_rank_2(rest: str, bias: tuple[int, ...]) -> None:
    folded(bn(f"a = MatMul(x, w) {rest}", {"w": f32(4, OUT), "b": f32(*bias)}, x="n,4"), ["MatMul", "Add"])


def test_matmul_of_rank_3_is_refused() -> None:
    """The channels of its result are on the last axis, the normalization's on axis 1."""
    made = bn(f"a = MatMul(x, w) y = {BN.format('a')}", {"w": f32(4, 5)}, x="2,6,4", y="2,6,5")
    is_left(made, "bn", "rank 2")
    stacked = bn(f"a = MatMul(x, w) y = {BN.format('a')}", {"w": f32(2, 4, OUT)}, x="2,6,4", y="2,6,6")
    is_left(stacked, "bn", "rank 2")


def test_bias_of_a_matmul_that_differs_from_row_to_row_is_refused() -> None:
    body = f"a = MatMul(x, w) c = Add(a, b) y = {BN.format('c')}"
    is_left(bn(body, {"w": f32(4, OUT), "b": f32(2, OUT)}, x="2,4"), "bn", "row to row")
    folded(bn(body, {"w": f32(4, OUT), "b": f32(1, OUT)}, x="2,4"), ["MatMul", "Add"])


def test_matmul_and_add_with_another_consumer() -> None:
    body = f"a = MatMul(x, w) c = Add(a, b) n = {BN.format('c')} y = Add(n, {{}})"
    constants = {"w": f32(4, OUT), "b": f32(OUT)}
    is_left(bn(body.format("c"), constants, x="2,4"), "bn", "value 'c' is also used by Add")
    is_left(bn(body.format("a"), constants, x="2,4"), "bn", "value 'a' is also used by Add")
    folded(bn(body.format("b"), constants, x="2,4"), ["MatMul", "Add", "Add"])


# -- dtypes and numbers


@pytest.mark.parametrize("kind", ["float16", "float", "double", "bfloat16"])
@pytest.mark.parametrize("opset", [13, 15])
def test_dtypes(kind: str, opset: int) -> None:
    opset = 22 if kind == "bfloat16" else opset  # Conv takes bfloat16 from then on
    verdict = "not verified" if kind == "double" else "equivalent"  # onnxruntime has no such Conv
    proto = folded(bn(CONV, kind=kind, opset=opset, ir=10), ["Conv"], verdict=verdict)
    kinds = {t.data_type for t in proto.graph.initializer}
    assert kinds == {proto.graph.input[0].type.tensor_type.elem_type}


def test_half_model_with_statistics_in_float() -> None:
    """Allowed from opset 15 on."""
    stats = {k: np.asarray(v, np.float64).astype(np.float32) for k, v in statistics(OUT).items()}
    made = bn(CONV, kind="float16", opset=15)
    for tensor in made.graph.initializer:
        if tensor.name in ("mu", "va"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(stats[tensor.name], tensor.name))
    onnx.checker.check_model(made, full_check=True)
    proto = folded(made, ["Conv"])
    assert {t.data_type for t in proto.graph.initializer} == {onnx.TensorProto.FLOAT16}


OVERFLOWS: dict[str, tuple[dict[str, Any], str, str, dict[str, Any]]] = {
    "float": ({"g": np.full(OUT, 1e30, np.float32), "va": np.full(OUT, 1e-20, np.float32)}, "float", "FLOAT", {}),
    "half": ({"g": np.full(OUT, 6e4, np.float32), "w": f32(OUT, 4, 3, 3) + 3}, "float16", "FLOAT16", {}),
    "no room for sums": (
        {"w": np.full((OUT, 4, 3, 3), 1e35, np.float32), "g": np.ones(OUT, np.float32)},
        "float",
        "FLOAT",
        {},
    ),
    "the bias alone": (
        {
            "be": np.full(OUT, 3e38, np.float32),
            "b": np.full(OUT, 3e38, np.float32),
            "g": np.ones(OUT, np.float32),
            "mu": np.zeros(OUT, np.float32),
            "va": np.ones(OUT, np.float32),
        },
        "float",
        "FLOAT",
        {},
    ),
}


@pytest.mark.parametrize(("constants", "kind", "name", "_"), OVERFLOWS.values(), ids=OVERFLOWS)
def test_a_fold_that_overflows_is_refused(constants: dict[str, Any], kind: str, name: str, _: Any) -> None:
    attribute = "<epsilon=0.0>" if kind == "float" else ""
    body = CONV.replace("BatchNormalization(", f"BatchNormalization{attribute}(")
    is_left(bn(body, constants, kind=kind), "bn", f"does not fit into {name}")
    folded(bn(CONV, kind=kind), ["Conv"])


@pytest.mark.parametrize("value", [-1.0, -1e-5, np.nan, 0.0])
def test_a_variance_without_a_root_is_refused(value: float) -> None:
    variance = np.full(OUT, 1, np.float32)
    variance[3] = value
    body = CONV.replace("BatchNormalization(", "BatchNormalization<epsilon=0.0>(")
    is_left(bn(body, {"va": variance}), "bn", "variance")
    folded(bn(body), ["Conv"])


def test_zero_variance_with_an_epsilon() -> None:
    folded(bn(CONV, {"va": np.zeros(OUT, np.float32)}), ["Conv"])
    folded(bn(CONV, {"va": np.zeros(OUT, np.float32), "g": np.zeros(OUT, np.float32)}), ["Conv"])


@pytest.mark.parametrize("epsilon", ["", "<epsilon=1e-5>", "<epsilon=0.1>", "<epsilon=0.1, momentum=0.5>"])
def test_epsilon_given_or_not(epsilon: str) -> None:
    body = CONV.replace("BatchNormalization(", f"BatchNormalization{epsilon}(")
    folded(bn(body, {"va": np.full(OUT, 1e-3, np.float32)}), ["Conv"])


@pytest.mark.parametrize("opset", [7, 8, 9, 11, 12, 13, 14, 15, 18, 22, 26])
def test_opsets(opset: int) -> None:
    proto = folded(bn(CONV, opset=opset, ir=10), ["Conv"])
    assert proto.opset_import[0].version == opset


def test_below_opset_7_what_broadcasts_says_so() -> None:
    """Add did by an attribute then; without it the operands must have one shape."""
    text = """<ir_version: 3, opset_import: ["" : 6]>
        g (float[4,3] x) => (float[4,2] y)
        <float[3,2] w = {1,2,3,4,5,6}, float[2] a = {1,2}, float[2] b = {1,2}, float[2] c = {1,2}, float[2] d = {1,2}>
        { m = MatMul(x, w) y = BatchNormalization<is_test=1>(m, a, b, c, d) }"""
    result = rw.rewrite(onnx.parser.parse_model(text), "bn").to_proto()
    product, add = result.graph.node
    assert (product.op_type, add.op_type) == ("MatMul", "Add")
    assert onnx.helper.get_node_attr_value(add, "broadcast") == 1


# -- modes


def test_training_mode_is_left() -> None:
    training = CONV.replace("y = BatchNormalization(", "y, m1, v1 = BatchNormalization<training_mode=1>(")
    is_left(bn(training, opset=14), "bn")
    folded(bn(CONV.replace("BatchNormalization(", "BatchNormalization<training_mode=0>("), opset=14), ["Conv"])


def test_statistics_of_the_batch_are_refused() -> None:
    """Below opset 14 it is the number of outputs that says so."""
    training = CONV.replace("y = BatchNormalization(", "y, m1, v1, m2, v2 = BatchNormalization(")
    is_left(bn(training, opset=9), "bn", "training mode")
    is_left(bn(training, opset=9, extra=f", float[{OUT}] m1"), "bn", "value 'm1' is an output")
    folded(bn(CONV, opset=9), ["Conv"])


def test_statistics_of_each_position_are_refused() -> None:
    spatial = CONV.replace("BatchNormalization(", "BatchNormalization<spatial={}>(")
    per = {k: f32(OUT, 5, 5) for k in ("g", "be", "mu")} | {"va": np.abs(f32(OUT, 5, 5)) + 1}
    made = bn(spatial.format(0), per, opset=7, valid=False)
    is_left(made, "bn", "spatial=0", verify="local")
    folded(bn(spatial.format(1), opset=7), ["Conv"])


# -- where weights come from

SOURCES = {
    "Identity": "w1 = Identity(w) g1 = Identity(g) a = Conv(x, w1, b) y = BatchNormalization(a, g1, be, mu, va)",
    "Constant nodes": "be1 = Constant<value = float[6] {1., 2., 3., 4., 5., 6.}>() "
    "a = Conv(x, w, b) y = BatchNormalization(a, g, be1, mu, va)",
    "Cast": "w1 = Cast<to=1>(wd) a = Conv(x, w1) y = " + BN.format("a"),
    "Reshape": "w1 = Reshape(flat, shape) a = Conv(x, w1) y = " + BN.format("a"),
    "Transpose": "w1 = Transpose<perm=[3,2,0,1]>(wt) a = Conv(x, w1) y = " + BN.format("a"),
    "ConstantOfShape": "g1 = ConstantOfShape<value = float[1] {2.0}>(six) "
    "a = Conv(x, w, b) y = BatchNormalization(a, g1, be, mu, va)",
    "Expand of a CastLike": "z = CastLike(zero, x) s = Shape(g) b1 = Expand(z, s) "
    "a = Conv(x, w, b1) y = " + BN.format("a"),
    "a frozen normalization that nobody folded": "e = Add(va, eps) s = Sqrt(e) r = Reciprocal(s) k = Mul(g, r) "
    "t = Mul(mu, k) u = Sub(be, t) k2 = Reshape(k, four) u2 = Reshape(u, four) "
    "a = Conv(x, w) m = Mul(a, k2) y = Add(m, u2)",
    "Unsqueeze and Squeeze": "g1 = Unsqueeze(g, axis) g2 = Squeeze(g1, axis) "
    "a = Conv(x, w) y = BatchNormalization(a, g2, be, mu, va)",
}


@pytest.mark.parametrize("body", SOURCES.values(), ids=SOURCES)
def test_weights_wherever_they_come_from(body: str) -> None:
    constants = {
        "wd": np.asarray(f32(OUT, 4, 3, 3), np.float64),
        "flat": f32(OUT * 36),
        "shape": np.asarray([OUT, 4, 3, 3]),
        "wt": f32(3, 3, 4, OUT),
        "six": np.asarray([OUT]),
        "zero": np.float64(0),
        "axis": np.asarray([0]),
        "eps": np.float32(1e-5),
        "four": np.asarray([1, OUT, 1, 1]),
    }
    folded(bn(body, constants, opset=15), ["Conv"])


@pytest.mark.parametrize("name", ["w", "b", "g", "be", "mu", "va"])
def test_weights_that_the_caller_may_override_are_left(name: str) -> None:
    is_left(bn(CONV, overridable=(name,)), "bn")
    folded(bn(CONV), ["Conv"])


def test_a_weight_that_is_computed_is_left() -> None:
    is_left(bn(f"w1 = Sin(w) a = Conv(x, w1) y = {BN.format('a')}"), "bn")


def test_behind_and_before_dequantize_linear_is_left() -> None:
    scale = {"s": np.float32(0.1), "z": np.int8(0), "q": np.ones((OUT, 4, 3, 3), np.int8)}
    is_left(bn(f"w1 = DequantizeLinear(q, s, z) a = Conv(x, w1, b) y = {BN.format('a')}", scale), "bn")
    quantized = f"a = Conv(x, w, b) i = QuantizeLinear(a, s, z) o = DequantizeLinear(i, s, z) y = {BN.format('o')}"
    is_left(bn(quantized, scale), "bn")
    folded(
        bn(f"i = QuantizeLinear(x, s, z) o = DequantizeLinear(i, s, z) a = Conv(o, w, b) y = {BN.format('a')}", scale),
        ["QuantizeLinear", "DequantizeLinear", "Conv"],
    )


def test_a_weight_that_two_convs_share_is_folded_for_each() -> None:
    body = f"a = Conv(x, w, b) c = {BN.format('a')} d = Conv(x, w, b) e = BatchNormalization(d, be, g, mu, va) "
    body += "y = Sub(c, e)"
    proto = folded(bn(body), ["Conv", "Conv", "Sub"], 2)
    first, second = (n for n in proto.graph.node if n.op_type == "Conv")
    assert not np.array_equal(constant(proto, first.input[1]), constant(proto, second.input[1]))


def test_a_weight_that_another_conv_needs_as_it_was() -> None:
    proto = folded(
        bn(f"a = Conv(x, w, b) c = {BN.format('a')} d = Conv(x, w, b) y = Sub(c, d)"), ["Conv", "Conv", "Sub"]
    )
    assert "w" in {t.name for t in proto.graph.initializer}


# -- frozen spellings

PER_CHANNEL = {"[1,C,1,1]": (1, OUT, 1, 1), "[C,1,1]": (OUT, 1, 1)}
FROZEN = {
    "Mul, Add": "m = Mul(a, f) y = Add(m, s)",
    "constants first": "m = Mul(f, a) y = Add(s, m)",
    "Mul alone": "y = Mul(a, f)",
    "Mul, Sub": "m = Mul(a, f) y = Sub(m, s)",
    "Div, Add": "m = Div(a, f) y = Add(m, s)",
    "Sub, Mul, Add": "c = Sub(a, p) m = Mul(c, f) y = Add(m, s)",
    "Sub, Div, Mul, Add": "c = Sub(a, p) d = Div(c, q) m = Mul(d, f) y = Add(m, s)",
    "Add, Mul": "c = Add(a, p) y = Mul(c, f)",
}


@pytest.mark.parametrize("rest", FROZEN.values(), ids=FROZEN)
@pytest.mark.parametrize("shape", PER_CHANNEL.values(), ids=PER_CHANNEL)
@pytest.mark.parametrize("linear", ["Conv", "ConvTranspose"])
def test_frozen_spellings(rest: str, shape: tuple[int, ...], linear: str) -> None:
    constants = {"f": np.abs(f32(*shape)) + 1, "s": f32(*shape), "p": f32(*shape), "q": np.abs(f32(*shape)) + 1}
    constants["w"] = f32(OUT, 4, 3, 3) if linear == "Conv" else f32(4, OUT, 3, 3)
    made = bn(f"a = {linear}(x, w, b) {rest}", constants)
    result = rw.rewrite(made, "bn")
    assert result.report.verification.verdict == "equivalent"
    assert result.report.passes[0].rolled_back == 0
    assert ops(result.to_proto()) == [linear], building.told(result)


FROZEN_NEAR_MISSES: dict[str, tuple[dict[str, Any], dict[str, Any], str | None]] = {
    "along the width": ({"f": f32(5)}, {}, "not one number per channel"),
    "along the height": ({"f": f32(5, 1)}, {}, "not one number per channel"),
    "along the batch": ({"f": f32(2, 1, 1, 1)}, {}, "not one number per channel"),
    "everywhere": ({"f": f32(1, OUT, 5, 5)}, {}, "not one number per channel"),
    "a higher rank": ({"f": f32(1, 1, OUT, 1, 1)}, {"y": "1,2,6,5,5"}, "not one number per channel"),
    "more channels": ({"f": f32(1, 3, 1, 1), "w": f32(1, 4, 3, 3), "b": f32(1)}, {}, "enlarges"),
    "one number": ({"f": np.float32(3)}, {}, "one number for all channels"),
}


@pytest.mark.parametrize(("constants", "options", "reason"), FROZEN_NEAR_MISSES.values(), ids=FROZEN_NEAR_MISSES)
def test_frozen_near_misses(constants: dict[str, Any], options: dict[str, Any], reason: str) -> None:
    is_left(bn("a = Conv(x, w, b) y = Mul(a, f)", constants, **options), "bn", reason)
    folded(bn("a = Conv(x, w, b) y = Mul(a, f)", {"f": f32(1, OUT, 1, 1)}), ["Conv"])


def test_frozen_the_wrong_way_round_is_left() -> None:
    shape = (1, OUT, 1, 1)
    is_left(bn("a = Conv(x, w, b) y = Div(f, a)", {"f": f32(*shape)}), "bn")
    made = bn("a = Conv(x, w, b) m = Mul(a, f) y = Sub(s, m)", {"f": f32(*shape), "s": f32(*shape)})
    folded(made, ["Conv", "Sub"])


def test_a_shift_that_does_not_fit_stays() -> None:
    made = bn("a = Conv(x, w, b) m = Mul(a, f) y = Add(m, s)", {"f": f32(1, OUT, 1, 1), "s": f32(1, 1, 5, 5)})
    folded(made, ["Conv", "Add"])


def test_division_by_zero_is_refused() -> None:
    zero = np.ones((1, OUT, 1, 1), np.float32)
    zero[0, 2] = 0
    is_left(bn("a = Conv(x, w, b) y = Div(a, f)", {"f": zero}), "bn", "does not fit")


# -- before a Conv

BEFORE = "n = BatchNormalization(x, g, be, mu, va) y = Conv{}(n, w{})"
UNPADDED = {
    "plain": ("", {}),
    "VALID": ('<auto_pad="VALID">', {}),
    "zero pads": ("<pads=[0,0,0,0], strides=[2,2], dilations=[2,1]>", {}),
    "groups": ("<group=2>", {"w": f32(OUT, 2, 3, 3)}),
    "depthwise": ("<group=4>", {"w": f32(8, 1, 3, 3), "b": f32(8)}),
}


@pytest.mark.parametrize(("how", "constants"), UNPADDED.values(), ids=UNPADDED)
@pytest.mark.parametrize("bias", [", b", ""], ids=["bias", "no bias"])
def test_before_an_unpadded_conv(how: str, constants: dict[str, Any], bias: str) -> None:
    folded(bn(BEFORE.format(how, bias), constants, channels=4), ["Conv"])


PADDED = ["<pads=[1,1,1,1]>", "<pads=[0,0,1,0]>", '<auto_pad="SAME_UPPER">', '<auto_pad="SAME_LOWER">']


@pytest.mark.parametrize("how", PADDED)
def test_before_a_padded_conv_is_refused(how: str) -> None:
    is_left(bn(BEFORE.format(how, ", b"), channels=4), "bn", "pads with zeros")


def test_before_a_conv_in_training_or_needed_elsewhere_is_left() -> None:
    body = BEFORE.format("", ", b")
    is_left(
        bn(
            body.replace("n = BatchNormalization(", "n, m1, v1 = BatchNormalization<training_mode=1>("),
            channels=4,
            opset=14,
        ),
        "bn",
    )
    is_left(bn(body, channels=4, extra=", float[2,4,7,7] n"), "bn", "value 'n' is an output")


def test_between_two_convs_it_goes_into_one_of_them() -> None:
    body = f"a = Conv(x, w, b) n = {BN.format('a')} y = Conv(n, v)"
    proto = folded(bn(body, {"v": f32(5, OUT, 1, 1)}), ["Conv", "Conv"])
    assert (proto.graph.node[0].input[1] == "w") != (proto.graph.node[1].input[1] == "v")


def test_between_a_needed_conv_and_another_it_goes_into_the_second() -> None:
    body = f"a = Conv(x, w, b) n = {BN.format('a')} y = Conv(n, v)"
    proto = folded(bn(body, {"v": f32(5, OUT, 1, 1)}, extra=", float[n,6,h,w] a"), ["Conv", "Conv"])
    assert proto.graph.node[0].input[1] == "w"


# -- structure


def test_a_conv_that_is_needed_is_refused() -> None:
    is_left(bn(CONV, extra=", float[2,6,5,5] a"), "bn", "value 'a' is an output of the graph")
    is_left(
        bn(f"a = Conv(x, w, b) n = {BN.format('a')} r = Relu(a) y = Add(n, r)"), "bn", "value 'a' is also used by Relu"
    )


def test_no_linear_operator_before_it_is_left() -> None:
    is_left(bn(f"r = Relu(x) y = {BN.format('r')}", channels=4), "bn")
    is_left(bn(f"a = Conv(x, w, b) r = Relu(a) y = {BN.format('r')}"), "bn")


def test_two_in_a_row_both_fold() -> None:
    folded(bn(f"a = Conv(x, w, b) n = {BN.format('a')} y = BatchNormalization(n, be, g, mu, va)"), ["Conv"], 2)


def branched(then: str, **options: Any) -> onnx.ModelProto:
    text = f"""y = If(flag) <then_branch = t () => (float[2,6,5,5] p) {{ {then} }},
                             else_branch = e () => (float[2,6,5,5] q) {{ c = Conv(x, w) q = Relu(c) }}>"""
    constants = {**statistics(OUT), "w": f32(OUT, 4, 3, 3), "b": f32(OUT)}
    return building.model(
        text, constants, inputs="float[2,4,7,7] x, bool flag", outputs="float[2,6,5,5] y", opset=13, **options
    )


def test_inside_a_body_with_weights_of_the_outer_graph() -> None:
    proto = fires(branched(f"a = Conv(x, w, b) p = {BN.format('a')}"), "bn")
    branches = {a.name: ops(a.g) for a in proto.graph.node[0].attribute}
    assert branches == {"then_branch": ["Conv"], "else_branch": ["Conv", "Relu"]}


def in_a_function(linear: str, weight: tuple[int, ...], call: str, rank: int = 4) -> onnx.ModelProto:
    """A normalization of 4 channels behind `linear` in a function whose attribute is called "how"."""
    arrays = {**statistics(4), "w": f32(*weight)}
    constants = " ".join(
        f"{k} = Constant<value = float{list(v.shape)} {{{', '.join(map(str, v.ravel().tolist()))}}}>()"
        for k, v in arrays.items()
    )
    function = f"""<domain: "local", opset_import: ["":13]> f <how> (x) => (y)
                   {{ {constants} a = {linear} y = BatchNormalization(a, g, be, mu, va) }}"""
    shape = "2,4,3,3" if rank == 4 else "2,4"
    text = f"y = local.f<how={call}>(x)"
    return building.model(text, inputs=f"float[{shape}] x", outputs=f"float[{shape}] y", opset=13, functions=function)


REFERENCES = {
    "group": ("ConvTranspose<group: int = @how>(x, w)", (4, 2, 1, 1), "2", 4),
    "transB of a square weight": ("Gemm<transB: int = @how>(x, w)", (4, 4), "1", 2),
}


@pytest.mark.parametrize(("linear", "weight", "call", "rank"), REFERENCES.values(), ids=REFERENCES)
def test_attributes_that_a_call_gives_are_refused(linear: str, weight: Any, call: str, rank: int) -> None:
    is_left(in_a_function(linear, weight, call, rank), "bn", "is an attribute of the function")
    name = linear.partition("<")[2].partition(":")[0]
    fixed = linear.replace(f"{name}: int = @how", f"{name} = {call}")
    proto = fires(in_a_function(fixed, weight, call, rank), "bn")
    assert "BatchNormalization" not in [n.op_type for n in proto.functions[0].node]


def test_a_weight_that_is_a_graph_output_stays() -> None:
    made = bn(CONV, extra=", float[6,4,3,3] w")
    proto = folded(made, ["Conv"])
    assert [o.name for o in proto.graph.output] == ["y", "w"]


def test_a_conv_whose_output_a_body_captures_is_refused() -> None:
    text = f"""{CONV} z = If(flag) <then_branch = t () => (float[2,6,5,5] p) {{ p = Neg(a) }},
                                   else_branch = e () => (float[2,6,5,5] q) {{ q = Abs(y) }}>"""
    constants = {**statistics(OUT), "w": f32(OUT, 4, 3, 3), "b": f32(OUT)}
    outputs = "float[2,6,5,5] y, float[2,6,5,5] z"
    inputs = "float[2,4,7,7] x, bool flag"
    is_left(building.model(text, constants, inputs=inputs, outputs=outputs, opset=13), "bn", "also used by Neg")
    text = text.replace("Neg(a)", "Neg(y)")
    fires(building.model(text, constants, inputs=inputs, outputs=outputs, opset=13), "bn")


def test_names_of_new_weights_are_new() -> None:
    made = bn(CONV + " z = Add(y_bn_0, y_bn_1)", {"y_bn_0": f32(3), "y_bn_1": f32(3)}, extra=", float[3] z")
    folded(made, ["Conv", "Add"])


def test_a_second_run_changes_nothing() -> None:
    is_left(folded(bn(CONV), ["Conv"]), "bn")
