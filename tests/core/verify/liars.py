"""Passes that lie, their honest twins of the same pattern, and the models in which they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser

import onnx_rewrite as rw
from onnx_rewrite.pattern import const, constant, op, scalar

Replacement = Callable[[rw.Match], Any]
Pattern = Callable[..., Any]

HERE = "here"
"""What the names of nodes contain at which a pass lies."""

RNG = np.random.default_rng(14)


def f32(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@dataclass(frozen=True)
class Lie:
    """A pattern with an honest and a lying replacement, and a piece of graph from x to y where it stands.

    Attributes:
        pattern: A method of the pass.
        honest: Builds what is right.
        lying: Builds what is wrong.
        body: Statements of onnx's text form that make y of x.
        constants: Initializers by name.
        shape: Of x.
        out: Type of y; None: x's.
        fp16: Whether the lie shows in half precision too.
        dynamic: Whether the first dimension may be a symbol.
        opset: Opset of the standard operators.
    """

    pattern: Pattern
    honest: Replacement
    lying: Replacement
    body: str
    constants: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (2, 8)
    out: tuple[int, tuple[int, ...]] | None = None
    fp16: bool = True
    dynamic: bool = True
    opset: int = 17

    def passes(self, name: str) -> type[rw.Pass]:
        """A pass that lies at nodes that bear `HERE` in their names, and nowhere else."""
        lie = self

        def replace(self: Any, m: rw.Match) -> Any:
            return (lie.lying if HERE in m.anchor.name else lie.honest)(m)

        return type("Liar", (rw.Pass,), {"name": name, "pattern": self.pattern, "replace": replace})


@dataclass
class Piece:
    """Part of a model: nodes and the weights that they read."""

    nodes: list[onnx.NodeProto]
    weights: list[onnx.TensorProto]


def piece(lie: Lie, prefix: str, x: str, y: str, elem_type: int = TensorProto.FLOAT) -> Piece:
    """The graph of a lie between two values; all its own names get a prefix, nodes those of what they make."""
    header = f'<ir_version: 8, opset_import: ["":{lie.opset}]>'
    parsed = parser.parse_model(f"{header} g (float[1] x) => (float[1] y) {{ {lie.body} }}")
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    weights: list[onnx.TensorProto] = []
    for name, array in lie.constants.items():
        array = np.asarray(array)
        weights.append(numpy_helper.from_array(array.astype(dtype) if array.dtype == np.float32 else array, name))
    own = {"x": x, "y": y, "": ""}
    for node in parsed.graph.node:
        for names in (node.input, node.output):
            names[:] = [own.setdefault(n, f"{prefix}_{n}") for n in names]
        node.name = f"{prefix}_{node.op_type}_{node.output[0]}"
    for weight in weights:
        weight.name = own.setdefault(weight.name, f"{prefix}_{weight.name}")
    return Piece(list(parsed.graph.node), weights)


def infos(lie: Lie, elem_type: int, dynamic: bool) -> tuple[Callable[[str], Any], Callable[[str], Any]]:
    """What makes the types of x and of y by name."""

    def of(kind: int, shape: tuple[int, ...]) -> Callable[[str], Any]:
        dims = ["n", *shape[1:]] if dynamic else list(shape)
        return lambda name: helper.make_tensor_value_info(name, kind, dims)

    kind, shape = lie.out or (elem_type, lie.shape)
    return of(elem_type, lie.shape), of(kind, shape)


def finished(
    lie: Lie,
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    inputs: list[Any],
    outputs: list[Any],
    functions: list[onnx.FunctionProto] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "liars", inputs, outputs, weights)
    imports = [helper.make_opsetid("", lie.opset)]
    if functions:
        imports.append(helper.make_opsetid("local", 1))
    model = helper.make_model(graph, opset_imports=imports, functions=functions or [])
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return model


def alone(lie: Lie, prefix: str = HERE, elem_type: int = TensorProto.FLOAT, dynamic: bool = False) -> onnx.ModelProto:
    """A model of nothing else."""
    x, y = infos(lie, elem_type, dynamic)
    part = piece(lie, prefix, "x", "y", elem_type)
    return finished(lie, part.nodes, part.weights, [x("x")], [y("y")])


def in_the_middle(lie: Lie) -> onnx.ModelProto:
    """Three sites one after the other, or side by side where y cannot be x again; the second is a place to lie at."""
    x, y = infos(lie, TensorProto.FLOAT, False)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    outputs: list[Any] = []
    current = "x"
    for prefix in ("first", HERE, "last"):
        nodes.append(helper.make_node("Neg", [current], [f"{prefix}_in"], name=f"{prefix}_before"))
        part = piece(lie, prefix, f"{prefix}_in", f"{prefix}_out")
        nodes += [*part.nodes, helper.make_node("Neg", [f"{prefix}_out"], [f"{prefix}_y"], name=f"{prefix}_behind")]
        weights += part.weights
        if lie.out is None:
            current = f"{prefix}_y"
        if lie.out is not None or prefix == "last":
            outputs.append(y(f"{prefix}_y"))
    return finished(lie, nodes, weights, [x("x")], outputs)


def in_a_branch(lie: Lie) -> onnx.ModelProto:
    """An If, in whose first branch a pass lies, and in whose other one it does not; weights lie in the graph around."""
    x, y = infos(lie, TensorProto.FLOAT, False)
    branches: dict[str, onnx.GraphProto] = {}
    weights: list[onnx.TensorProto] = []
    for name, prefix in (("then_branch", HERE), ("else_branch", "other")):
        part = piece(lie, prefix, "x", f"{prefix}_y")
        branches[name] = helper.make_graph(part.nodes, name, [], [y(f"{prefix}_y")])
        weights += part.weights
    condition = helper.make_tensor_value_info("condition", TensorProto.BOOL, [])
    node = helper.make_node("If", ["condition"], ["y"], name="if", **branches)
    return finished(lie, [node], weights, [condition, x("x")], [y("y")])


def in_a_function(lie: Lie) -> onnx.ModelProto:
    """Two functions with weights as Constants, in one of which a pass lies."""
    x, y = infos(lie, TensorProto.FLOAT, False)
    functions: list[onnx.FunctionProto] = []
    nodes: list[onnx.NodeProto] = []
    for prefix in (HERE, "other"):
        part = piece(lie, prefix, "a", "b")
        made = [helper.make_node("Constant", [], [w.name], value=w, name=f"{w.name}_c") for w in part.weights]
        imports = [helper.make_opsetid("", lie.opset)]
        functions.append(helper.make_function("local", f"F{prefix}", ["a"], ["b"], [*made, *part.nodes], imports))
        nodes.append(helper.make_node(f"F{prefix}", ["x"], [f"{prefix}_y"], domain="local", name=f"call_{prefix}"))
    return finished(lie, nodes, [], [x("x")], [y(f"{HERE}_y"), y("other_y")], functions)


def normalization(self: Any, x: Any, scale: Any, bias: Any, eps: Any, axes: Any) -> Any:
    centred = op.Sub(x, op.ReduceMean(x, axes=axes, keepdims=1))
    variance = op.ReduceMean(op.Mul(centred, centred), axes=axes, keepdims=1)
    normed = op.Div(centred, op.Sqrt(op.Add(variance, scalar(eps))))
    return op.Add(op.Mul(normed, constant(scale)), constant(bias))


def layer_norm(m: rw.Match, factor: float = 1.0, axis: int = -1, eps: float | None = None) -> Any:
    epsilon = float(m.eps) * factor if eps is None else eps
    return op.LayerNormalization(m.x, m.scale, m.bias, axis=axis, epsilon=epsilon)


def turned(m: rw.Match) -> Any:
    other = op.Transpose(m.x, perm=[0, 2, 1])
    normed = op.LayerNormalization(other, m.scale, m.bias, axis=-1, epsilon=float(m.eps))
    return op.Transpose(normed, perm=[0, 2, 1])


NORM = """m = ReduceMean<axes=[-1]>(x) d = Sub(x, m) q = Mul(d, d) v = ReduceMean<axes=[-1]>(q)
          e = Add(v, eps) s = Sqrt(e) n = Div(d, s) w = Mul(n, scale) y = Add(w, bias)"""
NORM_WEIGHTS = {"eps": np.float32(1e-5), "scale": f32(8), "bias": f32(8)}


def norm(honest: Replacement, lying: Replacement, shape: tuple[int, ...] = (2, 8), fp16: bool = True) -> Lie:
    return Lie(normalization, honest, lying, NORM, NORM_WEIGHTS, shape=shape, fp16=fp16)


def gelu(self: Any, x: Any, r: Any) -> Any:
    return op.Mul(op.Mul(x, op.Add(op.Erf(op.Div(x, scalar(r))), const(1))), const(0.5))


def number(m: rw.Match, value: float) -> np.ndarray:
    return np.asarray(value, np.float16 if m.x.dtype.name == "FLOAT16" else np.float32)


def erf(m: rw.Match) -> Any:
    inner = op.Add(op.Erf(op.Mul(m.x, number(m, np.sqrt(0.5)))), number(m, 1))
    return op.Mul(op.Mul(m.x, number(m, 0.5)), inner)


def tanh(m: rw.Match) -> Any:
    cube = op.Mul(op.Mul(m.x, m.x), m.x)
    inner = op.Mul(op.Add(m.x, op.Mul(cube, number(m, 0.044715))), number(m, np.sqrt(2 / np.pi)))
    return op.Mul(op.Mul(m.x, op.Add(op.Tanh(inner), number(m, 1))), number(m, 0.5))


def bounded(self: Any, x: Any, lo: Any, hi: Any) -> Any:
    return op.Min(op.Max(x, constant(lo)), constant(hi))


def saturation(lying: Replacement) -> Lie:
    return Lie(
        bounded,
        lambda m: op.Clip(m.x, min=m.lo.value, max=m.hi.value),
        lying,
        "a = Max(x, lo) y = Min(a, hi)",
        {"lo": np.float32(-1), "hi": np.float32(2)},
    )


def linear(self: Any, x: Any, weight: Any, bias: Any) -> Any:
    return op.Add(op.MatMul(x, constant(weight)), constant(bias))


def product(lying: Replacement, fp16: bool = True) -> Lie:
    return Lie(
        linear,
        lambda m: op.Gemm(m.x, m.weight, m.bias),
        lying,
        "a = MatMul(x, w) y = Add(a, b)",
        {"w": f32(8, 8), "b": f32(8)},
        fp16=fp16,
    )


def through_fp16(m: rw.Match) -> Any:
    narrow = [op.Cast(v, to=TensorProto.FLOAT16) for v in (m.x, m.weight.value, m.bias.value)]
    return op.Cast(op.Gemm(*narrow), to=TensorProto.FLOAT)


def padded(self: Any, x: Any, weight: Any, pads: Any) -> Any:
    return op.Conv(op.Pad(x, pads=pads, mode="constant"), constant(weight)).named("linear")


def normalized(self: Any, x: Any, scale: Any, bias: Any, mean: Any, var: Any, eps: Any) -> Any:
    parameters = [constant(c) for c in (scale, bias, mean, var)]
    return op.BatchNormalization(x, *parameters, epsilon=eps, training_mode=1, momentum=0.9).named("bn")


def channels(m: rw.Match, scale: Any, mean: Any, var: Any) -> Any:
    """(x - mean) / sqrt(var + epsilon) * scale + bias of statistics of shape [1, C, 1, 1]."""
    deviation = op.Sqrt(op.Add(var, number(m, m.eps)))
    bias = m.bias.array.reshape(1, -1, 1, 1)
    return op.Add(op.Mul(op.Div(op.Sub(m.x, mean), deviation), scale.reshape(1, -1, 1, 1)), bias)


def of_the_batch(m: rw.Match) -> Any:
    mean = op.ReduceMean(m.x, axes=[0, 2, 3], keepdims=1)
    away = op.Sub(m.x, mean)
    return channels(m, m.scale.array, mean, op.ReduceMean(op.Mul(away, away), axes=[0, 2, 3], keepdims=1))


def frozen(m: rw.Match) -> Any:
    return channels(m, m.scale.array, m.mean.array.reshape(1, -1, 1, 1), m.var.array.reshape(1, -1, 1, 1))


def softmax_by_hand(axis: int) -> Replacement:
    def replace(m: rw.Match) -> Any:
        raised = op.Exp(op.Sub(m.x, op.ReduceMax(m.x, axes=[axis], keepdims=1)))
        return op.Div(raised, op.ReduceSum(raised, axes=[axis], keepdims=1))

    return replace


def integers(m: rw.Match) -> Any:
    divisor = np.asarray(round(m.divisor), np.int64)
    return op.Cast(op.Div(op.Cast(m.x, to=TensorProto.INT64), divisor), to=TensorProto.FLOAT)


def average(less: int) -> Replacement:
    return lambda m: op.Div(op.ReduceSum(m.x, axes=[-1], keepdims=1), number(m, int(m.x.shape[-1]) - less))


def dequantized(zero_point: bool) -> Replacement:
    def replace(m: rw.Match) -> Any:
        coded = op.Cast(op.QuantizeLinear(m.x, m.scale, m.zero), to=TensorProto.FLOAT)
        zero = np.float32(m.zero.array) if zero_point else np.float32(0)
        return op.Mul(op.Sub(coded, zero), m.scale)

    return replace


def top(m: rw.Match) -> Any:
    return op.Unsqueeze(op.ArgMax(m.x, axis=-1, keepdims=0), axes=[-1])


def conv_transposed(m: rw.Match) -> Any:
    return op.Conv(m.x, np.ascontiguousarray(m.weight.array.swapaxes(0, 1)), pads=[1, 1, 1, 1])


PAD = "p = Pad(x, pads) y = Conv<kernel_shape=[3,3]>(p, w)"
PADS = {"pads": np.asarray([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "w": f32(4, 4, 3, 3)}
IMAGE = (2, 4, 5, 5)
BATCH = {"g": f32(4), "b": f32(4), "mu": f32(4), "va": np.abs(f32(4)) + np.float32(0.5)}

LIES: dict[str, Lie] = {
    "epsilon-vanishes": norm(layer_norm, lambda m: layer_norm(m, eps=1e-12)),
    "epsilon-doubles": norm(layer_norm, lambda m: layer_norm(m, factor=2)),
    "norm-of-another-axis": norm(layer_norm, turned, shape=(2, 8, 8)),
    "bias-dropped-in-norm": norm(
        layer_norm, lambda m: op.LayerNormalization(m.x, m.scale, axis=-1, epsilon=float(m.eps))
    ),
    "tanh-for-erf": Lie(
        gelu,
        erf,
        tanh,
        "a = Div(x, r) e = Erf(a) p = Add(e, one) m = Mul(x, p) y = Mul(m, half)",
        {"r": np.float32(np.sqrt(2)), "one": np.float32(1), "half": np.float32(0.5)},
        fp16=False,
    ),
    "bounds-swapped": saturation(lambda m: op.Clip(m.x, min=m.hi.value, max=m.lo.value)),
    "nan-eaten": saturation(
        lambda m: op.Clip(op.Where(op.IsNaN(m.x), number(m, 0), m.x), min=m.lo.value, max=m.hi.value)
    ),
    "weights-transposed": product(lambda m: op.Gemm(m.x, m.weight, m.bias, transB=1)),
    "bias-dropped": product(lambda m: op.MatMul(m.x, m.weight)),
    "through-fp16": product(through_fp16, fp16=False),
    "padding-off-by-one": Lie(
        padded,
        lambda m: op.like(m.linear, m.x, m.weight, pads=[1, 1, 1, 1]),
        lambda m: op.like(m.linear, m.x, m.weight, pads=[0, 1, 2, 1]),
        PAD,
        PADS,
        shape=IMAGE,
    ),
    "convolution-transposed": Lie(
        padded, lambda m: op.like(m.linear, m.x, m.weight, pads=[1, 1, 1, 1]), conv_transposed, PAD, PADS, shape=IMAGE
    ),
    "training-mode-ignored": Lie(
        normalized,
        of_the_batch,
        frozen,
        "y, mu2, va2 = BatchNormalization<training_mode=1>(x, g, b, mu, va)",
        BATCH,
        shape=IMAGE,
    ),
    "relu-for-leaky-relu": Lie(
        lambda self, x, alpha: op.LeakyRelu(x, alpha=alpha),
        lambda m: op.Max(m.x, op.Mul(m.x, number(m, m.alpha))),
        lambda m: op.Relu(m.x),
        "y = LeakyRelu<alpha=0.001>(x)",
    ),
    "softmax-of-another-axis": Lie(
        lambda self, x, axis: op.Softmax(x, axis=axis),
        softmax_by_hand(-1),
        softmax_by_hand(-2),
        "y = Softmax<axis=-1>(x)",
        shape=(2, 8, 8),
    ),
    "integer-division": Lie(
        lambda self, x, divisor: op.Div(x, scalar(divisor)),
        lambda m: op.Mul(m.x, number(m, 1 / m.divisor)),
        integers,
        "y = Div(x, three)",
        {"three": np.float32(3)},
        fp16=False,
    ),
    "mean-of-one-less": Lie(
        lambda self, x, axes: op.ReduceMean(x, axes=axes, keepdims=1),
        average(0),
        average(1),
        "y = ReduceMean<axes=[-1]>(x)",
        out=(TensorProto.FLOAT, (2, 1)),
        fp16=False,
    ),
    "power-of-a-short-e": Lie(
        lambda self, x: op.Exp(op.Mul(x, const(2))),
        lambda m: op.Exp(op.Add(m.x, m.x)),
        lambda m: op.Pow(number(m, 2.7182), op.Add(m.x, m.x)),
        "a = Mul(x, two) y = Exp(a)",
        {"two": np.float32(2)},
        fp16=False,
    ),
    "zero-point-dropped": Lie(
        lambda self, x, scale, zero: op.DequantizeLinear(
            op.QuantizeLinear(x, constant(scale), constant(zero)), constant(scale), constant(zero)
        ),
        dequantized(True),
        dequantized(False),
        "q = QuantizeLinear(x, sc, zp) y = DequantizeLinear(q, sc, zp)",
        {"sc": np.float32(0.05), "zp": np.uint8(7)},
        fp16=False,
    ),
    "negative-zero-lost": Lie(
        lambda self, x: op.Reciprocal(op.Mul(x, const(1))),
        lambda m: op.Reciprocal(m.x),
        lambda m: op.Reciprocal(op.Add(m.x, number(m, 0))),
        "a = Mul(x, one) y = Reciprocal(a)",
        {"one": np.float32(1)},
    ),
    "last-of-equal-maxima": Lie(
        lambda self, x, axis: op.ArgMax(x, axis=axis, keepdims=1, select_last_index=0),
        top,
        lambda m: op.ArgMax(m.x, axis=-1, keepdims=1, select_last_index=1),
        "y = ArgMax<axis=-1, keepdims=1>(x)",
        out=(TensorProto.INT64, (2, 1)),
        fp16=False,
    ),
}
