"""Random models around the patterns of the passes: many spellings, near misses, taps, bodies, shared constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, ...]
CHANNELS = 4
ROWS: Shape = (2, 3, CHANNELS)
FLAT: Shape = (3, CHANNELS)
IMAGE: Shape = (2, CHANNELS, 5, 5)
KINDS = (TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.DOUBLE)


class Scope:
    """A graph or a body being drawn: its nodes, weights, and the values that may be used, by shape."""

    def __init__(self, outer: Scope | None = None) -> None:
        self.outer = outer
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.values: dict[Shape, list[str]] = {} if outer is None else {k: list(v) for k, v in outer.values.items()}
        self.shared: dict[bytes, str] = {} if outer is None else dict(outer.shared)


class Corpus:
    """Draws one model.

    Args:
        seed: The only source of randomness.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([20, seed])
        self.opset = self.one(11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21)
        self.kind = self.one(*KINDS)
        # Opset 12 brought Clip, Min and Max to doubles in onnxruntime; batch normalization has none there at all.
        if self.opset < 13:
            self.kind = TensorProto.FLOAT
        self.dtype = helper.tensor_dtype_to_np_dtype(self.kind)
        self.dynamic = self.chance(30)
        self.count = 0
        self.scope = Scope()
        self.branches = 0
        self.functions: list[onnx.FunctionProto] = []

    # -- choices

    def one(self, *choices: Any) -> Any:
        """One of several."""
        return choices[int(self.rng.integers(len(choices)))]

    def chance(self, percent: int) -> bool:
        """True this often."""
        return bool(self.rng.random() * 100 < percent)

    # -- values, nodes, constants

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """A node of one output; now and then without a name, or with a doc string."""
        if op_type in ("Add", "Mul", "Max", "Min") and len(inputs) == 2 and self.chance(40):
            inputs = inputs[::-1]
        made = self.name()
        name = "" if self.chance(20) else f"{op_type}_{made}"
        node = helper.make_node(op_type, list(inputs), [made], name=name, **attributes)
        if self.chance(5):
            node.doc_string = "drawn"
        self.scope.nodes.append(node)
        return made

    def constant(self, array: Any, dtype: Any = None) -> str:
        """A constant in some spelling: an initializer, here or further out, a Constant, an Identity; shared or not."""
        array = np.asarray(array, self.dtype if dtype is None else dtype)
        key = array.tobytes() + str((array.shape, array.dtype)).encode()
        if key in self.scope.shared and self.chance(50):
            return self.scope.shared[key]
        made = self.name()
        tensor = numpy_helper.from_array(array, made)
        if self.chance(30):
            self.scope.nodes.append(helper.make_node("Constant", [], [made], name=f"c_{made}", value=tensor))
        else:
            home = self.scope.outer if self.scope.outer is not None and self.chance(50) else self.scope
            home.weights.append(tensor)
        if self.chance(10):
            made = self.node("Identity", made)
        self.scope.shared[key] = made
        return made

    def take(self, shape: Shape) -> str:
        """A value of a shape, more likely one of the last."""
        values = self.scope.values[shape]
        return values[-1 - min(int(self.rng.geometric(0.5)) - 1, len(values) - 1)]

    def put(self, shape: Shape, value: str) -> str:
        self.scope.values.setdefault(shape, []).append(value)
        return value

    def tapped(self, shape: Shape, value: str) -> str:
        """An interior value, which others may use now and then."""
        return self.put(shape, value) if self.chance(4) else value

    def numbers(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape)

    # -- layer normalization

    def mean(self, x: str, axes: list[int], keepdims: int = 1) -> str:
        spelling = self.one("mean", "mean", "mean", "sum")
        length = float(np.prod([ROWS[a] for a in axes]))
        if spelling == "sum":
            total = self.reduced("ReduceSum", x, axes, keepdims, self.opset >= 13)
            return self.one(
                lambda: self.node("Div", total, self.constant(length)),
                lambda: self.node("Mul", total, self.constant(1 / length)),
            )()
        return self.reduced("ReduceMean", x, axes, keepdims, self.opset >= 18)

    def reduced(self, op_type: str, x: str, axes: list[int], keepdims: int, as_input: bool) -> str:
        axes = [a - 3 if self.chance(50) else a for a in axes]
        if as_input:
            return self.node(op_type, x, self.constant(axes, np.int64), keepdims=keepdims)
        return self.node(op_type, x, axes=axes, keepdims=keepdims)

    def square(self, x: str, again: Callable[[], str]) -> str:
        spelling = self.one("pow", "mul", "twice")
        if spelling == "pow":
            return self.node("Pow", x, self.constant(2))
        return self.node("Mul", x, again() if spelling == "twice" else x)

    def normalization(self) -> None:
        """A layer normalization in one of many spellings; one of six is none, by one detail."""
        x = self.take(ROWS)
        axes = self.one([2], [2], [2], [1, 2])
        miss = self.one(None, None, None, None, None, "axis", "other", "scale", "power")
        if miss == "axis":
            axes = [1]
        mean = self.mean(x, axes)

        def centre() -> str:
            return self.node("Sub", x, mean)

        centred = self.tapped(ROWS, centre())
        flat = self.chance(25)
        eps = self.constant(self.one(1e-3, 1e-2, 1.0, 1e-5))
        if flat:  # E[x²] - E[x]²
            squares = self.mean(self.square(x, lambda: x), axes)
            variance = self.node("Sub", squares, self.square(mean, lambda: mean))
            variance = self.node("Max", variance, self.constant(0))
        else:
            squared = self.square(centred, centre)
            if miss == "power":
                squared = self.node("Pow", centred, self.constant(4))
            variance = self.mean(squared, [1] if miss == "other" and axes == [2] else axes)
        shifted = self.node("Add", variance, eps)
        own = [3, 1] if axes == [1] else [ROWS[a] for a in axes]
        scale = self.constant(self.numbers(*([3, 1] if miss == "scale" else own)))
        if flat or self.chance(30):
            factor = self.node("Mul", self.reciprocal(shifted), scale)
            made = self.node("Mul", centred if flat or self.chance(50) else centre(), factor)
        else:
            made = self.tapped(ROWS, self.divided(centred, shifted))
            if self.chance(75):
                made = self.node("Mul", made, scale)
        if self.chance(75):
            made = self.node("Add", made, self.constant(self.numbers(*own)))
        self.put(ROWS, made)

    def reciprocal(self, shifted: str) -> str:
        return self.one(
            lambda: self.node("Reciprocal", self.node("Sqrt", shifted)),
            lambda: self.node("Div", self.constant(1), self.node("Sqrt", shifted)),
            lambda: self.node("Pow", shifted, self.constant(-0.5)),
        )()

    def divided(self, centred: str, shifted: str) -> str:
        if self.chance(60):
            return self.node("Div", centred, self.node("Sqrt", shifted))
        return self.node("Mul", centred, self.reciprocal(shifted))

    # -- clip

    def saturation(self) -> None:
        """One to four bounds in a row, which may cross."""
        shape = self.one(*self.scope.values)
        made = self.take(shape)
        for _ in range(self.one(1, 2, 2, 2, 3, 4)):
            made = self.tapped(shape, self.bound(made))
        self.put(shape, made)

    def bound(self, x: str) -> str:
        number = self.one(-1.0, -0.5, 0.0, 0.25, 1.0, 6.0)

        def constant() -> str:
            return self.constant(np.full(self.one((), (), (1,), (1, 1)), number))

        spelling = self.one("Max", "Min", "Max", "Min", "Relu", "Clip", "half")
        if spelling == "Relu":
            return self.node("Relu", x)
        if spelling in ("Max", "Min"):
            return self.node(spelling, x, constant())
        low, high = self.constant(number), self.constant(number + self.one(0.5, 2.0))
        if spelling == "half":
            return self.node("Clip", x, low) if self.chance(50) else self.node("Clip", x, "", high)
        return self.node("Clip", x, low, high)

    # -- batch normalization

    def folding(self) -> None:
        """A linear operator and a normalization per channel behind it, or before it."""
        if self.kind != TensorProto.FLOAT:
            return self.plain()
        linear = self.one("Conv", "Conv", "ConvTranspose", "Gemm", "MatMul", "before")
        channels = CHANNELS
        if linear in ("Gemm", "MatMul"):
            x, weight = self.take(FLAT), self.constant(self.numbers(channels, channels) / 2)
            if linear == "Gemm":
                given = {"transB": 1} if self.chance(50) else {}
                given |= {"beta": 0.5} if self.chance(20) else {}
                made = self.node("Gemm", x, weight, self.constant(self.numbers(channels)), **given)
            else:
                made = self.node("MatMul", x, weight)
                if self.chance(60):
                    made = self.node("Add", made, self.constant(self.numbers(channels)))
            self.put(FLAT, self.per_channel(self.tapped(FLAT, made), 2))
            return None
        group = self.one(1, 1, 2, 4)
        weight = self.constant(self.numbers(channels, channels // group, 3, 3) / 3)
        bias = [self.constant(self.numbers(channels))] if self.chance(70) else []
        pads: dict[str, Any] = {"pads": [1, 1, 1, 1]} if linear != "before" or self.chance(40) else {}
        x = self.take(IMAGE)
        if linear == "before":
            made = self.node("Conv", self.per_channel(x, 4), weight, *bias, group=group, **pads)
            if not pads:  # back to the shape that all images have
                padding = self.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
                made = self.node("Pad", made, padding)
            self.put(IMAGE, made)
            return None
        made = self.tapped(IMAGE, self.node(linear, x, weight, *bias, group=group, **pads))
        self.put(IMAGE, self.per_channel(made, 4))
        return None

    def per_channel(self, x: str, rank: int) -> str:
        if rank == 2 or self.chance(65):
            scale, offset, mean = (self.constant(self.numbers(CHANNELS)) for _ in range(3))
            var = self.constant(np.abs(self.numbers(CHANNELS)) + 0.5)
            return self.node("BatchNormalization", x, scale, offset, mean, var, epsilon=self.one(1e-5, 1e-3))
        shape = self.one((1, CHANNELS, 1, 1), (CHANNELS, 1, 1), (1, CHANNELS, 1, 1), (1,), (1, 1, 5, 5))
        divides = self.chance(30)
        factor = np.abs(self.numbers(*shape)) + 0.5 if divides else self.numbers(*shape)
        made = self.node("Div" if divides else "Mul", x, self.constant(factor))
        if self.chance(80):
            made = self.node(self.one("Add", "Sub"), made, self.constant(self.numbers(*shape)))
        return made

    # -- everything else

    def plain(self) -> None:
        """An operator of no pattern, or one that might be a part of one."""
        shape = self.one(*self.scope.values)
        x, y = self.take(shape), self.take(shape)
        kind = self.one("Neg", "Abs", "Tanh", "Sigmoid", "Identity", "Add", "Sub", "Mul", "Relu")
        if kind in ("Add", "Sub"):
            made = self.node(kind, x, y)
        elif kind == "Mul":
            made = self.node("Tanh", self.node("Mul", x, y))
        elif kind in ("Sigmoid", "Tanh") and self.kind != TensorProto.FLOAT:
            made = self.node("Neg", x)
        else:
            made = self.node(kind, x)
        self.put(shape, made)

    def branch(self) -> None:
        """An If whose branches hold patterns, too."""
        if self.scope.outer is not None or not self.branches:
            return self.plain()
        shape = self.one(*self.scope.values)
        outer, bodies = self.scope, dict[str, onnx.GraphProto]()
        for which in ("then_branch", "else_branch"):
            self.scope = Scope(outer)
            for _ in range(self.one(1, 2, 3)):
                self.step()
            last = self.scope.values[shape][-1]
            # A body's result must be its own.
            result = self.node("Neg", last)
            info = helper.make_tensor_value_info(result, self.kind, self.dims(shape))
            bodies[which] = helper.make_graph(self.scope.nodes, which, [], [info], self.scope.weights)
        self.scope = outer
        self.put(shape, self.node("If", "condition", **bodies))
        return None

    def call(self) -> None:
        """A model-local function with a saturation and a normalization, called once or more."""
        if self.scope.outer is not None:
            return self.plain()
        if not self.functions:
            outer, self.scope = self.scope, Scope()
            self.put(ROWS, "a")
            self.saturation()
            self.normalization()
            made = [helper.make_node("Constant", [], [w.name], value=w) for w in self.scope.weights]
            imports = [helper.make_opsetid("", self.opset)]
            nodes = [*made, *self.scope.nodes]
            result = self.scope.values[ROWS][-1]
            self.functions.append(helper.make_function("local", "F", ["a"], [result], nodes, imports))
            self.scope = outer
        self.put(ROWS, self.node("F", self.take(ROWS), domain="local"))
        return None

    def step(self) -> None:
        """Something."""
        self.one(
            self.normalization,
            self.normalization,
            self.saturation,
            self.saturation,
            self.folding,
            self.folding,
            self.plain,
            self.plain,
            self.branch,
            self.call if self.opset >= 15 and self.kind == TensorProto.FLOAT else self.plain,
        )()

    def dims(self, shape: Shape) -> list[int | str]:
        # One symbol is one length, and flat values have another number of rows.
        return ["m" if shape == FLAT else "n", *shape[1:]] if self.dynamic else list(shape)

    def model(self) -> onnx.ModelProto:
        """The model: one float input of each shape, and a condition where there are branches."""
        inputs: list[onnx.ValueInfoProto] = []
        for name, shape in (("rows", ROWS), ("flat", FLAT), ("image", IMAGE)):
            self.put(shape, name)
            inputs.append(helper.make_tensor_value_info(name, self.kind, self.dims(shape)))
        self.branches = self.chance(30)
        if self.branches:
            inputs.append(helper.make_tensor_value_info("condition", TensorProto.BOOL, []))
        for _ in range(int(self.rng.integers(2, 9))):
            self.step()
        outputs: list[onnx.ValueInfoProto] = []
        for shape, values in self.scope.values.items():
            made = [v for v in values if v not in ("rows", "flat", "image")]
            for value in {*made[-1:], *(v for v in made if self.chance(8))}:
                outputs.append(helper.make_tensor_value_info(value, self.kind, self.dims(shape)))
        outputs.sort(key=lambda v: v.name)
        if not outputs:
            made_of = self.node("Neg", "rows")
            outputs.append(helper.make_tensor_value_info(made_of, self.kind, self.dims(ROWS)))
        graph = helper.make_graph(self.scope.nodes, "drawn", inputs, outputs, self.scope.weights)
        imports = [helper.make_opsetid("", self.opset)]
        if self.functions:
            imports.append(helper.make_opsetid("local", 1))
        return helper.make_model(graph, opset_imports=imports, functions=self.functions, ir_version=8)


def draw(seed: int) -> onnx.ModelProto:
    """The model of a seed."""
    return Corpus(seed).model()


def feeds(model: onnx.ModelProto, seed: int) -> list[dict[str, np.ndarray]]:
    """Two feeds: unit normal numbers of the drawn shapes, and others with another length of what is dynamic."""
    rng = np.random.default_rng([21, seed])
    found: list[dict[str, np.ndarray]] = []
    for turn, lengths in enumerate(({"n": 2, "m": 3}, {"n": 5, "m": 1})):
        feed: dict[str, np.ndarray] = {}
        for value in model.graph.input:
            tensor = value.type.tensor_type
            if tensor.elem_type == TensorProto.BOOL:
                feed[value.name] = np.asarray(turn == 0)
                continue
            shape = [lengths[d.dim_param] if d.dim_param else d.dim_value for d in tensor.shape.dim]
            feed[value.name] = rng.standard_normal(shape).astype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        found.append(feed)
    return found
