"""The float64 kernels against onnxruntime in fp32, on random cases."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnx_rewrite.verify.kernels import load
from onnx_rewrite.verify.reference import CannotEvaluate, Reference
from onnx_rewrite.verify.session import Session

OLD_ONNXRUNTIME = tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 24)


def one(
    op: str, inputs: dict[str, np.ndarray | None], opset: int = 17, outputs: int = 1, **attrs: object
) -> onnx.ModelProto:
    names = ["" if v is None else k for k, v in inputs.items()]
    node = helper.make_node(op, names, [f"o{i}" for i in range(outputs)], **attrs)
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for k, v in inputs.items()
            if v is not None
        ],
        [onnx.ValueInfoProto(name=f"o{i}") for i in range(outputs)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def agree(
    op: str, inputs: dict[str, np.ndarray | None], opset: int = 17, outputs: int = 1, tol: float = 2e-5, **attrs: object
) -> None:
    """Holds the reference against onnxruntime; a case that onnxruntime refuses is not one."""
    made = one(op, inputs, opset, outputs, **attrs)
    feeds = {k: v for k, v in inputs.items() if v is not None}
    try:
        expected = Session(made)(feeds)
    except Exception:
        assume(False)
        raise
    for got, want in zip(Reference(made)(feeds), expected, strict=True):
        assert got.shape == want.shape
        if want.dtype.kind == "f":
            assert got.dtype == np.float64
            scale = max(1.0, float(np.abs(want[np.isfinite(want)]).max(initial=0.0)))
            np.testing.assert_allclose(got, want, rtol=0, atol=tol * scale)
        else:
            assert got.dtype == want.dtype
            np.testing.assert_array_equal(got, want)


seeds = st.integers(0, 2**16)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@st.composite
def windows(draw: st.DrawFn) -> dict[str, object]:
    rank = draw(st.integers(1, 3))
    small = st.lists(st.integers(1, 3), min_size=rank, max_size=rank)
    attrs: dict[str, object] = {"strides": draw(small), "dilations": draw(small)}
    kernel = draw(small)
    how = draw(st.sampled_from(["pads", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if how == "pads":
        attrs["pads"] = draw(st.lists(st.integers(0, 2), min_size=2 * rank, max_size=2 * rank))
    else:
        attrs["auto_pad"] = how
        if how != "VALID":
            attrs["dilations"] = [1] * rank
    size = draw(st.lists(st.integers(7, 9), min_size=rank, max_size=rank))
    return {"kernel": kernel, "size": size, "attrs": attrs}


@given(windows(), st.sampled_from([(1, 2, 3), (2, 1, 1), (2, 2, 1), (3, 1, 2)]), st.booleans(), seeds)
@settings(max_examples=120)
def test_conv(w: dict, channels: tuple[int, int, int], bias: bool, seed: int) -> None:
    group, per, out = channels
    x = normal(seed, 2, group * per, *w["size"])
    weight = normal(seed + 1, group * out, per, *w["kernel"])
    b = normal(seed + 2, group * out) if bias else None
    agree("Conv", {"x": x, "w": weight, "b": b}, group=group, **w["attrs"])


@given(windows(), st.sampled_from([(1, 2, 3), (2, 1, 1), (2, 2, 1)]), st.booleans(), seeds, st.data())
@settings(max_examples=120)
def test_conv_transpose(w: dict, channels: tuple[int, int, int], bias: bool, seed: int, data: st.DataObject) -> None:
    group, per, out = channels
    attrs = dict(w["attrs"])
    strides = attrs["strides"]
    if data.draw(st.booleans()):
        attrs["output_padding"] = [data.draw(st.integers(0, s - 1)) for s in strides]
    if "auto_pad" in attrs:
        attrs["output_padding"] = [0] * len(strides)
        # A kernel smaller than its stride would need negative padding, where onnxruntime clamps.
        assume(all(k >= s for k, s in zip(w["kernel"], strides, strict=True)))
    x = normal(seed, 1, group * per, *w["size"])
    weight = normal(seed + 1, group * per, out, *w["kernel"])
    b = normal(seed + 2, group * out) if bias else None
    agree("ConvTranspose", {"x": x, "w": weight, "b": b}, group=group, **attrs)


@given(windows(), st.sampled_from(["MaxPool", "AveragePool"]), st.booleans(), st.booleans(), seeds)
@settings(max_examples=120)
def test_pooling(w: dict, op: str, ceil: bool, include: bool, seed: int) -> None:
    attrs = dict(w["attrs"])
    assume("pads" not in attrs or all(p < k for p, k in zip(attrs["pads"], [*w["kernel"], *w["kernel"]], strict=True)))
    # A kernel smaller than its stride would need negative padding, which the specification leaves open.
    assume("auto_pad" not in attrs or all(k >= s for k, s in zip(w["kernel"], attrs["strides"], strict=True)))
    if op == "AveragePool":
        assume(not (OLD_ONNXRUNTIME and (include or "auto_pad" in attrs)))  # 1.23 divides by wrong counts there
        attrs["count_include_pad"] = int(include)
        del attrs["dilations"]
    ceil = ceil and "auto_pad" not in attrs
    agree(op, {"x": normal(seed, 2, 2, *w["size"])}, opset=19, kernel_shape=w["kernel"], ceil_mode=int(ceil), **attrs)


UNARY = [
    "Abs",
    "Neg",
    "Sign",
    "Ceil",
    "Floor",
    "Round",
    "Exp",
    "Sin",
    "Cos",
    "Tan",
    "Atan",
    "Sinh",
    "Cosh",
    "Tanh",
    "Asinh",
    "Erf",
    "Sigmoid",
    "Softplus",
    "Relu",
    "Softsign",
    "LeakyRelu",
    "Elu",
    "Selu",
    "Celu",
    "ThresholdedRelu",
    "HardSigmoid",
    "HardSwish",
    "Mish",
    "Identity",
    "IsNaN",
    "IsInf",
]


@given(st.sampled_from(UNARY), seeds, st.sampled_from([1e-3, 1.0, 30.0]))
@settings(max_examples=150)
def test_unary(op: str, seed: int, amplitude: float) -> None:
    x = normal(seed, 3, 5) * np.float32(amplitude)
    agree(op, {"x": np.clip(x, -60, 60)}, opset=18)


@given(st.sampled_from(["none", "tanh"]), seeds)
def test_gelu(approximate: str, seed: int) -> None:
    agree("Gelu", {"x": normal(seed, 4, 7)}, opset=20, approximate=approximate)


@given(st.sampled_from(["Sqrt", "Log", "Reciprocal"]), seeds)
def test_roots(op: str, seed: int) -> None:
    agree(op, {"x": np.abs(normal(seed, 11)) + np.float32(0.1)})


BROADCAST = st.sampled_from([((3, 4), (4,)), ((2, 1, 4), (3, 1)), ((5,), ()), ((2, 3), (2, 3))])


@given(
    st.sampled_from(
        ["Add", "Sub", "Mul", "Div", "Min", "Max", "Greater", "LessOrEqual", "Equal", "PRelu", "Sum", "Mean"]
    ),
    BROADCAST,
    seeds,
)
def test_binary(op: str, shapes: tuple, seed: int) -> None:
    agree(op, {"a": normal(seed, *shapes[0]), "b": normal(seed + 1, *shapes[1]) + np.float32(0.01)}, tol=1e-4)


@given(st.sampled_from(["Div", "Mod", "Add", "Mul", "Min", "Max"]), seeds)
def test_integers(op: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-20, 20, (2, 30))
    agree(op, {"a": a, "b": np.where(b == 0, 3, b)})


@given(st.sampled_from([np.float32, np.int64]), st.floats(-2, 2, width=32), st.floats(-2, 2, width=32), seeds)
def test_clip_with_crossed_bounds(dtype: type, low: float, high: float, seed: int) -> None:
    x = (normal(seed, 20) * 3).astype(dtype)
    agree("Clip", {"x": x, "lo": np.asarray(low, dtype), "hi": np.asarray(high, dtype)})
    if dtype is np.float32:
        agree("Clip", {"x": x}, opset=6, min=float(low), max=float(high))


REDUCE = ["Sum", "Mean", "Prod", "Max", "Min", "L1", "L2", "SumSquare", "LogSumExp"]


@given(
    st.sampled_from(REDUCE),
    st.sampled_from([None, [0], [-1], [0, 2], [1]]),
    st.booleans(),
    seeds,
    st.sampled_from([12, 18]),
)
@settings(max_examples=120)
def test_reductions(op: str, axes: list[int] | None, keepdims: bool, seed: int, opset: int) -> None:
    x = normal(seed, 2, 3, 4)
    by_input = opset == 18
    inputs = {"x": x, "axes": np.asarray(axes, np.int64)} if by_input and axes is not None else {"x": x}
    attrs = {"axes": axes} if not by_input and axes is not None else {}
    agree(f"Reduce{op}", inputs, opset=opset, keepdims=int(keepdims), **attrs)


@given(st.sampled_from(["Softmax", "LogSoftmax", "Hardmax"]), st.sampled_from([11, 13]), st.integers(-3, 2), seeds)
def test_softmax_by_opset(op: str, opset: int, axis: int, seed: int) -> None:
    agree(op, {"x": normal(seed, 2, 3, 4)}, opset=opset, axis=axis)


@given(st.integers(-3, 2), st.booleans(), seeds)
def test_layer_normalization(axis: int, bias: bool, seed: int) -> None:
    shape = (2, 3, 4)
    tail = shape[axis:]
    b = normal(seed + 2, *tail) if bias else None
    agree("LayerNormalization", {"x": normal(seed, *shape), "s": normal(seed + 1, *tail), "b": b}, outputs=3, axis=axis)


@given(st.booleans(), seeds, st.integers(2, 5))
def test_batch_normalization(training: bool, seed: int, rank: int) -> None:
    c = 3
    names = {k: normal(seed + i + 1, c) for i, k in enumerate(["s", "b", "m", "v"])}
    names["v"] = np.abs(names["v"]) + np.float32(0.1)
    agree("BatchNormalization", {"x": normal(seed, 4, c, *[3] * (rank - 2)), **names}, outputs=3 if training else 1,
          tol=1e-4, training_mode=int(training))  # fmt: skip


@given(st.sampled_from(["InstanceNormalization", "LRN", "LpNormalization", "MeanVarianceNormalization"]), seeds)
def test_other_normalizations(op: str, seed: int) -> None:
    x = normal(seed, 2, 3, 4, 4)
    more = {"s": normal(seed + 1, 3), "b": normal(seed + 2, 3)} if op == "InstanceNormalization" else {}
    agree(op, {"x": x, **more}, tol=1e-4, **({"size": 3} if op == "LRN" else {}))


@given(seeds, st.integers(1, 3), st.booleans(), st.booleans(), st.sampled_from([0.0, 0.5, 1.0]))
def test_products(seed: int, rank: int, ta: bool, tb: bool, beta: float) -> None:
    agree("MatMul", {"a": normal(seed, *[2] * (rank - 1), 3, 4), "b": normal(seed + 1, 4, 5)})
    a, b = normal(seed, *((4, 3) if ta else (3, 4))), normal(seed + 1, *((5, 4) if tb else (4, 5)))
    agree("Gemm", {"a": a, "b": b, "c": normal(seed + 2, 5)}, transA=int(ta), transB=int(tb), alpha=0.5, beta=beta)


@given(st.integers(-9, 9), st.integers(-9, 9), st.sampled_from([-3, -2, -1, 1, 2, 3]), st.integers(-2, 1))
@settings(max_examples=150)
def test_slice(start: int, end: int, step: int, axis: int) -> None:
    i = {k: np.asarray([v], np.int64) for k, v in {"s": start, "e": end, "a": axis, "t": step}.items()}
    agree("Slice", {"x": normal(0, 5, 6), **i})


@given(st.lists(st.integers(-1, 3), min_size=4, max_size=4), st.sampled_from(["constant", "edge", "reflect"]))
def test_pad(pads: list[int], mode: str) -> None:
    assume(mode == "constant" or min(pads) >= 0)
    agree("Pad", {"x": normal(0, 5, 6), "p": np.asarray(pads, np.int64), "v": np.asarray(0.5, np.float32)}, mode=mode)


RESIZE = st.sampled_from(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])


@given(RESIZE, st.sampled_from(["nearest", "linear", "cubic"]), st.floats(0.5, 3.0, width=32), st.booleans())
@settings(max_examples=100)
def test_resize(transform: str, mode: str, scale: float, outside: bool) -> None:
    # onnxruntime copies where no size changes, even if the scale is not 1; the specification interpolates.
    assume(scale == 1 or math.floor(5 * scale) != 5 or math.floor(6 * scale) != 6)
    x = normal(0, 1, 2, 5, 6)
    attrs = {"exclude_outside": 1} if outside and mode == "cubic" else {}
    scales = np.asarray([1, 1, scale, scale], np.float32)
    # Where a coordinate is a tie, fp32 and float64 may pick other neighbours; align_corners takes the output's length,
    # which the specification leaves unrounded and onnxruntime rounds.
    if mode == "nearest" or transform == "align_corners":
        scales[2:] = np.float32(math.ceil(scale))
    agree(
        "Resize",
        {"x": x, "roi": None, "s": scales},
        tol=1e-4,
        mode=mode,
        coordinate_transformation_mode=transform,
        **attrs,
    )


@given(seeds, st.integers(-2, 1))
def test_indexing(seed: int, axis: int) -> None:
    rng = np.random.default_rng(seed)
    x = normal(seed, 4, 5)
    index = rng.integers(-4, 4, (4, 5))
    agree("Gather", {"x": x, "i": index[:2]}, axis=axis)
    agree("GatherElements", {"x": x, "i": index}, axis=axis)
    agree("GatherND", {"x": x, "i": index[:, :2]})
    agree("TopK", {"x": x, "k": np.asarray([3])}, outputs=2, axis=axis, largest=seed % 2)
    agree("ArgMax", {"x": np.round(x)}, axis=axis, select_last_index=seed % 2)
    agree("CumSum", {"x": x, "a": np.asarray(axis)}, exclusive=seed % 2, reverse=seed // 2 % 2)
    agree("ScatterND", {"x": x, "i": rng.permutation(4)[:, None], "u": normal(seed + 1, 4, 5)})


@given(st.sampled_from([np.int8, np.uint8]), seeds, st.booleans())
def test_quantization(dtype: type, seed: int, per_axis: bool) -> None:
    x = normal(seed, 4, 3)
    scale = np.asarray([0.25, 0.5, 1.0] if per_axis else 0.25, np.float32)  # Powers of two: no ties that fp32 moves.
    zero = np.asarray([1, 2, 3] if per_axis else 3, dtype)
    agree("QuantizeLinear", {"x": x, "s": scale, "z": zero}, axis=1)
    levels = np.random.default_rng(seed).integers(0, 100, (4, 3)).astype(dtype)
    agree("DequantizeLinear", {"x": levels, "s": scale, "z": zero}, axis=1)


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_what_is_left_to_onnxruntime_is_computed_in_double(name: str) -> None:
    """Nothing may be rounded to fp32 on the way."""
    gates = {"LSTM": 4, "GRU": 3}[name]
    inputs = {"x": normal(0, 3, 2, 4), "w": normal(1, 1, gates * 5, 4), "r": normal(2, 1, gates * 5, 5)}
    agree(name, inputs, hidden_size=5)
    found = Reference(one(name, inputs, hidden_size=5))(inputs)[0]
    assert np.mean(found == found.astype(np.float32)) < 0.1


def test_a_node_without_evaluation_is_named() -> None:
    made = one("RandomNormalLike", {"x": normal(0, 2)})
    made.graph.node[0].name = "noise"
    with pytest.raises(CannotEvaluate, match="'noise'") as caught:
        Reference(made)({"x": normal(0, 2)})
    assert caught.value.node.op_type == "RandomNormalLike"


def test_constants_keep_their_fp32_value() -> None:
    node = helper.make_node("Add", ["x", "c"], ["y"])
    constant = numpy_helper.from_array(np.asarray(1e-5, np.float32), "c")
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy"]
    made = helper.make_model(helper.make_graph([node], "g", value[:1], value[1:], [constant]))
    assert Reference(made)({"x": np.zeros(1, np.float32)})[0][0] == float(np.float32(1e-5)) != 1e-5


def test_the_table_covers_what_onnxruntime_has_no_double_kernel_for() -> None:
    needed = (
        "Conv ConvTranspose Erf Gelu LeakyRelu Elu Selu Softplus Softsign HardSigmoid HardSwish Mish PRelu Tan Atan "
        "InstanceNormalization AveragePool GlobalAveragePool GlobalMaxPool Resize MeanVarianceNormalization LRN"
    )
    assert set(needed.split()) <= set(load())
