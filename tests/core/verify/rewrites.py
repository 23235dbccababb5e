"""Pairs of models: nine kinds of correct rewrites and more kinds of wrong ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

RNG = np.random.default_rng(7)


def model(
    body: str,
    constants: dict[str, np.ndarray] | None = None,
    *,
    inputs: str = "float[b,s,16] x",
    outputs: str = "float[b,s,16] y",
    opset: int = 17,
    functions: str = "",
) -> onnx.ModelProto:
    """A model from the text form, with constants as initializers."""
    text = (
        f'<ir_version: 8, opset_import: ["":{opset}, "local":1]> g ({inputs}) => ({outputs}) {{ {body} }} {functions}'
    )
    made = parser.parse_model(text)
    if not functions:
        del made.opset_import[1:]
    for name, value in (constants or {}).items():
        made.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return made


def f32(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


SCALE, BIAS = f32(16), f32(16)
LN_BODY = """m = ReduceMean<axes=[-1]>(x) d = Sub(x, m) q = Mul(d, d) v = ReduceMean<axes=[-1]>(q)
             e = Add(v, eps) s = Sqrt(e) n = Div(d, s) w = Mul(n, scale) y = Add(w, bias)"""
LN = model(LN_BODY, {"eps": np.float32(1e-5), "scale": SCALE, "bias": BIAS})


def layer_norm(axis: int = -1, epsilon: float = 1e-5, bias: bool = True) -> onnx.ModelProto:
    given = "x, scale, bias" if bias else "x, scale"
    return model(f"y = LayerNormalization<axis={axis}, epsilon={epsilon}>({given})", {"scale": SCALE, "bias": BIAS})


GELU = model(
    "a = Div(x, r) e = Erf(a) p = Add(e, one) m = Mul(x, p) y = Mul(m, half)",
    {"r": np.float32(np.sqrt(2)), "one": np.float32(1), "half": np.float32(0.5)},
)
CLIP = model("a = Max(x, lo) y = Min(a, hi)", {"lo": np.float32(-1), "hi": np.float32(2)})
W, V = f32(16, 16), f32(16, 16)
MATMUL = model("a = MatMul(x, w) y = Add(a, c)", {"w": W, "c": BIAS})

IMAGE = {"inputs": "float[n,3,h,h] x", "outputs": "float[n,8,h,h] y"}
CONV_W, CONV_B = f32(8, 3, 3, 3, scale=0.3), f32(8)
GAMMA, BETA, MEAN, VAR = f32(8), f32(8), f32(8), np.abs(f32(8)) + np.float32(0.5)
BN = {"gamma": GAMMA, "beta": BETA, "mean": MEAN, "var": VAR}


def conv_bn(attributes: str = "") -> onnx.ModelProto:
    return model(
        f"a = Conv<pads=[1,1,1,1]>(x, w, b) y = BatchNormalization{attributes}(a, gamma, beta, mean, var)",
        {"w": CONV_W, "b": CONV_B, **BN},
        **IMAGE,
    )


def folded(pads: str = "1,1,1,1", gain: float = 1.0, drop_bias: bool = False) -> onnx.ModelProto:
    factor = (GAMMA.astype(np.float64) / np.sqrt(VAR.astype(np.float64) + np.float32(1e-5)) * gain).astype(np.float32)
    bias = ((CONV_B - MEAN) * factor + BETA).astype(np.float32)
    with np.errstate(over="ignore"):
        weight = CONV_W * factor[:, None, None, None]
    return model(f"y = Conv<pads=[{pads}]>(x, w{'' if drop_bias else ', b'})", {"w": weight, "b": bias}, **IMAGE)


def attention(fused: bool, opset: int = 17) -> onnx.ModelProto:
    """Two products with the same input against one product and a Split."""
    if not fused:
        return model(
            """q = MatMul(x, w) k = MatMul(x, v) t = Transpose<perm=[0,2,1]>(k) p = MatMul(q, t)
               y = Softmax<axis=-1>(p)""",
            {"w": W, "v": V},
            outputs="float[b,s,s] y",
        )
    return model(
        """a = MatMul(x, u) q, k = Split<axis=-1>(a, parts) t = Transpose<perm=[0,2,1]>(k) p = MatMul(q, t)
                    y = Softmax<axis=-1>(p)""",
        {"u": np.concatenate([W, V], 1), "parts": np.asarray([16, 16], np.int64)},
        outputs="float[b,s,s] y",
    )


Build = Callable[[], tuple[onnx.ModelProto, onnx.ModelProto]]


def cosine_scores(before: bool, gain: float = 10.0) -> onnx.ModelProto:
    """Scores multiplied by one number for each head, after or before the product that gives them."""
    body = "t = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, t) z = Mul(s, gain) m = Add(z, bias) w = Softmax(m) "
    return model(
        f"{body} y = MatMul(w, v)" if before else "u = Mul(q, gain) y = Attention<scale=1.0>(u, k, v, bias)",
        {"gain": np.full((2, 1, 1), gain, np.float32)},
        inputs="float[32,2,16,8] k, float[32,2,16,8] q, float[1,2,16,16] bias, float[32,2,16,8] v",
        outputs="float[32,2,16,8] y",
        opset=23,
    )


CORRECT: dict[str, Build] = {
    "layer norm fused": lambda: (LN, layer_norm()),
    "gelu with a product for the quotient": lambda: (
        GELU,
        model(
            "a = Mul(x, r) e = Erf(a) p = Add(e, one) m = Mul(half, x) y = Mul(p, m)",
            {"r": np.float32(np.sqrt(0.5)), "one": np.float32(1), "half": np.float32(0.5)},
        ),
    ),
    "clip": lambda: (CLIP, model("y = Clip(x, lo, hi)", {"lo": np.float32(-1), "hi": np.float32(2)})),
    "min of max is clip of crossed bounds": lambda: (
        model("a = Max(x, lo) y = Min(a, hi)", {"lo": np.float32(3), "hi": np.float32(2)}),
        model("y = Clip(x, lo, hi)", {"lo": np.float32(3), "hi": np.float32(2)}),
    ),
    "batch norm folded": lambda: (conv_bn(), folded()),
    "matmul as gemm": lambda: (
        model("a = MatMul(x, w) y = Add(a, c)", {"w": W, "c": BIAS}, inputs="float[n,16] x", outputs="float[n,16] y"),
        model(
            "y = Gemm<transB=1>(x, w, c)",
            {"w": np.ascontiguousarray(W.T), "c": BIAS},
            inputs="float[n,16] x",
            outputs="float[n,16] y",
        ),
    ),
    "projections packed": lambda: (attention(False), attention(True)),
    "transposes cancelled": lambda: (
        model("a = Transpose<perm=[0,2,1]>(x) b = Neg(a) y = Transpose<perm=[0,2,1]>(b)"),
        model("y = Neg(x)"),
    ),
    # On an offset of 1000 the last bit of a score decides; the original's rounding says so, not its luck.
    "scores scaled beforehand": lambda: (cosine_scores(True), cosine_scores(False)),
    "swish as a product": lambda: (
        model("s = Sigmoid(x) y = Mul(x, s)"),
        model("n = Neg(x) e = Exp(n) d = Add(e, one) r = Reciprocal(d) y = Mul(r, x)", {"one": np.float32(1)}),
    ),
}

WRONG: dict[str, Build] = {
    "layer norm with another epsilon": lambda: (LN, layer_norm(epsilon=1e-12)),
    "scores scaled by a little more": lambda: (cosine_scores(True), cosine_scores(False, 10.01)),
    "layer norm over another axis": lambda: (
        model(
            LN_BODY,
            {"eps": np.float32(1e-5), "scale": SCALE, "bias": BIAS},
            inputs="float[b,16,16] x",
            outputs="float[b,16,16] y",
        ),
        model(
            "t = Transpose<perm=[0,2,1]>(x) n = LayerNormalization(t, scale, bias) y = Transpose<perm=[0,2,1]>(n)",
            {"scale": SCALE, "bias": BIAS},
            inputs="float[b,16,16] x",
            outputs="float[b,16,16] y",
        ),
    ),
    "layer norm without its bias": lambda: (LN, layer_norm(bias=False)),
    "gelu by tanh": lambda: (
        GELU,
        model(
            """q = Mul(x, x) c = Mul(q, x) t = Mul(c, k) i = Add(x, t) a = Mul(i, r) e = Tanh(a)
               p = Add(e, one) m = Mul(x, p) y = Mul(m, half)""",
            {
                "k": np.float32(0.044715),
                "r": np.float32(np.sqrt(2 / np.pi)),
                "one": np.float32(1),
                "half": np.float32(0.5),
            },
        ),
    ),
    "clip with swapped bounds": lambda: (
        CLIP,
        model("y = Clip(x, lo, hi)", {"lo": np.float32(2), "hi": np.float32(-1)}),
    ),
    "relu lost before clip": lambda: (
        model("a = Relu(x) y = Clip(a, lo, hi)", {"lo": np.float32(-1), "hi": np.float32(2)}),
        model("y = Clip(x, lo, hi)", {"lo": np.float32(-1), "hi": np.float32(2)}),
    ),
    "clip that eats NaN": lambda: (
        CLIP,
        model("n = IsNaN(x) a = Where(n, lo, x) y = Clip(a, lo, hi)", {"lo": np.float32(-1), "hi": np.float32(2)}),
    ),
    "square weights transposed": lambda: (
        MATMUL,
        model("a = MatMul(x, w) y = Add(a, c)", {"w": np.ascontiguousarray(W.T), "c": BIAS}),
    ),
    "padding off by one": lambda: (conv_bn(), folded(pads="0,1,2,1")),
    "bias dropped": lambda: (conv_bn(), folded(drop_bias=True)),
    "batch norm in training folded": lambda: (
        model(
            """a = Conv<pads=[1,1,1,1]>(x, w, b)
                 y, m2, v2 = BatchNormalization<training_mode=1>(a, gamma, beta, mean, var)""",
            {"w": CONV_W, "b": CONV_B, **BN},
            **IMAGE,
        ),
        folded(),
    ),
    "a fold that overflows": lambda: (
        model(
            "a = Conv<pads=[1,1,1,1]>(x, w, b) c = Mul(a, big) y = Mul(c, small)",
            {"w": CONV_W * np.float32(1e-20), "b": CONV_B * 0, "big": np.float32(1e20), "small": np.float32(1e-3)},
            **IMAGE,
        ),
        model(
            "a = Conv<pads=[1,1,1,1]>(x, w) y = Mul(a, small)",
            {"w": np.full_like(CONV_W, np.inf), "small": np.float32(1e-3)},
            **IMAGE,
        ),
    ),
    "reduction keeps another shape": lambda: (
        model("y = ReduceMean<axes=[-1], keepdims=1>(x)", outputs="float[b,s,1] y"),
        model("y = ReduceMean<axes=[-1], keepdims=0>(x)", outputs="float[b,s] y"),
    ),
    "max pool over a zero padding": lambda: (
        model(
            "p = Pad(x, pads) y = MaxPool<kernel_shape=[3,3]>(p)",
            {"pads": np.asarray([0, 0, 1, 1, 0, 0, 1, 1], np.int64)},
            inputs="float[n,3,h,h] x",
            outputs="float[n,3,h,h] y",
        ),
        model(
            "y = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)", inputs="float[n,3,h,h] x", outputs="float[n,3,h,h] y"
        ),
    ),
}


def narrowed(source: onnx.ModelProto, elem_type: int) -> onnx.ModelProto:
    """The model with its fp32 tensors in another float type."""
    made = onnx.ModelProto()
    made.CopyFrom(source)
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.elem_type = elem_type
    for tensor in made.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    return made
