"""A model in float64: every float tensor is widened exactly, every node computed in double, nothing rounded in between.

Constants keep their value (an epsilon of float32(1e-5) stays that number). Casts between float types do nothing
unless they are asked to round; casts to integers truncate as ever. What is discrete by definition (comparisons, ArgMax,
rounding, quantization) stays discrete.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_rewrite.analysis.layout import MOVERS
from onnx_rewrite.rewriter.standing_in import resolved
from onnx_rewrite.verify.dtypes import HALVES, Array, numpy_dtype, widen
from onnx_rewrite.verify.kernels import CannotEvaluate, IllegalFeed, Kernel, Node, load
from onnx_rewrite.verify.kernels.fallback import evaluate as evaluate_elsewhere

__all__ = ["CannotEvaluate", "Jitter", "Reference"]

# Constants that are smaller than this altogether are widened once and kept; larger ones at every use.
_KEEP_BYTES = 256 << 20

DISCRETE = frozenset(
    {
        "ArgMax",
        "ArgMin",
        "TopK",
        "Floor",
        "Ceil",
        "Round",
        "Sign",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "QuantizeLinear",
        "DynamicQuantizeLinear",
        "Hardmax",
        "NonZero",
        "Unique",
        "NonMaxSuppression",
        "IsInf",
        "Mod",
        "OneHot",
        "ThresholdedRelu",
        "Shrink",
    }
)
"""Operators whose output jumps where their input moves a little (and Cast from a float to an integer)."""


EXACT = MOVERS | frozenset(
    {
        "Abs",
        "Clip",
        "Concat",
        "DepthToSpace",
        "GatherElements",
        "GatherND",
        "Max",
        "MaxPool",
        "Min",
        "Neg",
        "Pad",
        "ReduceMax",
        "ReduceMin",
        "Relu",
        "SpaceToDepth",
        "Tile",
        "Where",
    }
)
"""Operators that give elements of what they are given, or their opposites: nothing is rounded."""


@dataclass
class Jitter:
    """Noise on what discrete operators decide upon, which shows which of their outcomes are ties; or on every result.

    Attributes:
        amount: Relative to the largest element of the operand of a discrete operator (no unit).
        rng: Where the signs come from.
        rounding: Relative to each element of each result that is rounded (no unit).
    """

    amount: float
    rng: np.random.Generator
    rounding: float = 0.0

    def rounded(self, x: Array) -> Array:
        """A result with noise."""
        return x * (1.0 + self.rounding * self.rng.uniform(-1.0, 1.0, x.shape))

    def __call__(self, x: Array) -> Array:
        """The operand with noise."""
        size = np.max(np.abs(x), where=np.isfinite(x), initial=0.0)
        return x + self.amount * size * self.rng.uniform(-1.0, 1.0, x.shape)


@dataclass
class Step:
    node: Node
    kernel: Kernel | None
    free: tuple[str, ...]


class Body:
    """A graph, compiled: its constants, its steps, and after which step each value is no longer needed."""

    def __init__(self, graph: onnx.GraphProto, opsets: dict[str, int], folder: str, narrow: bool = False) -> None:
        self.inputs = [i.name for i in graph.input]
        self.outputs = [o.name for o in graph.output]
        self.largest = 0
        """Elements of the largest value so far."""
        self.most: int | None = None
        """A feed that makes a value of more elements is not taken; None: any is."""
        self._opsets, self._folder, self._narrow = opsets, folder, narrow
        self._tensors: dict[str, onnx.TensorProto] = {}
        self.constants: dict[str, Array] = {}
        for sparse in graph.sparse_initializer:
            self.constants[sparse.values.name] = _dense(sparse)
        keep = sum(len(t.raw_data) for t in graph.initializer) <= _KEEP_BYTES
        for tensor in graph.initializer:
            external = tensor.data_location == onnx.TensorProto.EXTERNAL
            if keep and not external:
                self.constants[tensor.name] = widen(numpy_helper.to_array(tensor))
            else:
                self._tensors[tensor.name] = tensor
        self.steps: list[Step] = []
        self.captured: set[str] = set()
        self._compile(graph)

    def _compile(self, graph: onnx.GraphProto) -> None:
        known = set(self.inputs) | set(self.constants) | set(self._tensors)
        made: list[tuple[Node, set[str]]] = []
        for proto in graph.node:
            node = self._node(proto)
            uses = {name for name in proto.input if name}
            for value in node.attrs.values():
                for body in value if isinstance(value, list) else [value]:  # pyright: ignore[reportUnknownVariableType]
                    if isinstance(body, Body):
                        uses |= body.captured
            self.captured |= uses - known
            known.update(proto.output)
            if proto.op_type == "Constant" and proto.domain in ("", "ai.onnx"):
                self.constants[proto.output[0]] = _constant(node)
                continue
            made.append((node, uses))
        self.captured |= set(self.outputs) - known
        last: dict[str, int] = {}
        for i, (node, uses) in enumerate(made):
            for name in (*uses, *node.proto.output):
                last[name] = i
        ends: dict[int, list[str]] = {}
        for name, i in last.items():
            if name not in self.outputs and name not in self.constants:
                ends.setdefault(i, []).append(name)
        table = load()
        for i, (node, _) in enumerate(made):
            standard = node.proto.domain in ("", "ai.onnx")
            found = _CONTROL.get(node.proto.op_type) or table.get(node.proto.op_type) if standard else None
            if self._narrow and standard and node.proto.op_type == "Cast" and node.get("to") in HALVES:
                found = _rounding_cast
            self.steps.append(Step(node, found, tuple(ends.get(i, ()))))

    def _node(self, proto: onnx.NodeProto) -> Node:
        attrs: dict[str, Any] = {}
        for attribute in proto.attribute:
            value = onnx.helper.get_attribute_value(attribute)
            kind = attribute.type
            if kind == onnx.AttributeProto.GRAPH:
                value = Body(attribute.g, self._opsets, self._folder, self._narrow)
            elif kind == onnx.AttributeProto.TENSOR:
                value = widen(numpy_helper.to_array(attribute.t, self._folder))
            elif kind == onnx.AttributeProto.STRING:
                value = value.decode("utf-8", "replace")
            elif kind in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
                value = list(value)
            attrs[attribute.name] = value
        outputs = max((i + 1 for i, name in enumerate(proto.output) if name), default=0)
        version = self._opsets.get("" if proto.domain == "ai.onnx" else proto.domain, 1)
        return Node(proto, version, attrs, outputs)

    def run(
        self, values: Sequence[Array] | Mapping[str, Array], outer: Mapping[str, Array], jitter: Jitter | None
    ) -> list[Array]:
        """The outputs, for values of the inputs and of what the body captures."""
        env: dict[str, Array] = dict(outer)
        env.update(self.constants)
        if isinstance(values, Mapping):
            env.update(values)
        else:
            env.update(zip(self.inputs, values, strict=False))
        for step in self.steps:
            self._step(step, env, jitter)
        return [self.value(env, name) for name in self.outputs]

    def value(self, env: dict[str, Array], name: str) -> Array:
        if name in env:
            return env[name]
        if name in self._tensors:
            return widen(numpy_helper.to_array(self._tensors[name], self._folder))
        raise KeyError(f"the value {name!r} is not defined")

    def _step(self, step: Step, env: dict[str, Array], jitter: Jitter | None) -> None:
        node, proto = step.node, step.node.proto
        inputs = [self.value(env, name) if name else None for name in proto.input]
        while inputs and inputs[-1] is None:
            inputs.pop()
        if jitter is not None and jitter.amount and (proto.op_type in DISCRETE or _truncates(node)):
            inputs = [jitter(v) if v is not None and v.dtype == np.float64 else v for v in inputs]
        if self.most is not None and proto.op_type == "MatMul":
            self._refuse_beyond(proto, _product_size(*inputs))
        found: Any = NotImplemented
        try:
            if step.kernel in _CONTROL.values():
                found = step.kernel(node, inputs, env, jitter)  # type: ignore[misc]
            elif step.kernel is not None:
                found = step.kernel(node, *inputs)
            if found is NotImplemented:
                found = evaluate_elsewhere(node, inputs, self._opsets)
        except CannotEvaluate:
            raise
        except Exception as error:
            raise CannotEvaluate(proto, f"{type(error).__name__}: {error}") from error
        outputs = found if isinstance(found, tuple | list) else (found,)
        rounds = jitter is not None and jitter.rounding and proto.op_type not in EXACT
        for name, value in zip(proto.output, outputs, strict=False):
            if name:
                made = value if isinstance(value, np.ndarray) else np.asarray(value)
                self.largest = max(self.largest, made.size)
                self._refuse_beyond(proto, made.size)
                env[name] = jitter.rounded(made) if rounds and jitter and made.dtype == np.float64 else made
        for name in step.free:
            env.pop(name, None)

    def _refuse_beyond(self, proto: onnx.NodeProto, size: int) -> None:
        if self.most is not None and size > self.most:
            raise IllegalFeed(proto, f"{size:,} elements are more than {self.most:,}")


def _product_size(left: Array | None, right: Array | None) -> int:
    """Elements of a product, at least, before it is computed; 0 where that is not told here."""
    if left is None or right is None or left.ndim < 2 or right.ndim < 2:
        return 0
    return max(math.prod(left.shape[:-2]), math.prod(right.shape[:-2])) * left.shape[-2] * right.shape[-1]


class Reference:
    """Evaluates a model in float64.

    Args:
        model: The model; model-local functions are inlined first.
        folder: Where its external data lies.
        narrow: Whether a Cast to fp16 or bf16 rounds; everything else stays in double.

    Raises:
        CannotEvaluate: From a call, where a node has no evaluation in float64, or fails on these feeds.
    """

    def __init__(self, model: onnx.ModelProto, folder: str | Path = "", *, narrow: bool = False) -> None:
        model = resolved(model, exact=True)
        if model.functions:
            from onnx import inliner

            model = inliner.inline_local_functions(model)
        opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}
        self.body = Body(model.graph, opsets, str(folder), narrow)
        self.outputs = self.body.outputs

    def __call__(self, feeds: Mapping[str, Array], jitter: Jitter | None = None) -> list[Array]:
        """The outputs in the model's order: floats as float64, other types as they are."""
        with np.errstate(all="ignore"):
            return self.body.run({name: widen(np.asarray(v)) for name, v in feeds.items()}, {}, jitter)


def _truncates(node: Node) -> bool:
    return node.proto.op_type == "Cast" and node.get("to") not in (1, 10, 11, 16)


def _rounding_cast(node: Node, x: Array) -> Array:
    return widen(x.astype(numpy_dtype(node.get("to"))))


def _constant(node: Node) -> Array:
    """The value of a Constant in any spelling."""
    name, value = next(iter(node.attrs.items()))
    if name == "value":
        return value
    if name == "sparse_value":
        return _dense(value)
    if name in ("value_string", "value_strings"):
        return np.asarray(value, dtype=object)
    return np.asarray(value, dtype=np.float64 if name.startswith("value_float") else np.int64)


def _dense(sparse: onnx.SparseTensorProto) -> Array:
    values, indices = widen(numpy_helper.to_array(sparse.values)), numpy_helper.to_array(sparse.indices)
    out = np.zeros(tuple(sparse.dims), dtype=values.dtype)
    if indices.ndim == 1:
        out.reshape(-1)[indices] = values
    else:
        out[tuple(indices.T)] = values
    return out


def _if(node: Node, inputs: list[Array | None], env: dict[str, Array], jitter: Jitter | None) -> tuple[Array, ...]:
    condition = inputs[0]
    assert condition is not None
    branch = node.get("then_branch") if bool(condition.ravel()[0]) else node.get("else_branch")
    return tuple(branch.run([], env, jitter))


def _loop(node: Node, inputs: list[Array | None], env: dict[str, Array], jitter: Jitter | None) -> tuple[Array, ...]:
    body: Body = node.get("body")
    padded = [*inputs, None, None][: max(2, len(inputs))]
    limit = np.inf if padded[0] is None else int(padded[0].ravel()[0])
    go = True if padded[1] is None else bool(padded[1].ravel()[0])
    carried = [v for v in padded[2:] if v is not None]
    scans: list[list[Array]] = [[] for _ in range(len(body.outputs) - 1 - len(carried))]
    turn = 0
    while go and turn < limit:
        found = body.run([np.asarray(turn, np.int64), np.asarray(go), *carried], env, jitter)
        go = bool(found[0].ravel()[0])
        for rows, row in zip(scans, found[1 + len(carried) :], strict=True):
            rows.append(row)
        carried = list(found[1 : 1 + len(carried)])
        turn += 1
    if not turn and scans:
        raise node.fail("no iteration ran, so the shapes of its scan outputs are unknown")
    return (*carried, *(np.stack(rows) for rows in scans))


def _scan(node: Node, inputs: list[Array | None], env: dict[str, Array], jitter: Jitter | None) -> tuple[Array, ...]:
    body: Body = node.get("body")
    count = node.get("num_scan_inputs")
    if node.version < 9:
        return NotImplemented  # type: ignore[return-value]
    state = [v for v in inputs[: len(inputs) - count] if v is not None]
    rows = [v for v in inputs[len(inputs) - count :] if v is not None]
    axes = node.get("scan_input_axes") or [0] * count
    back = node.get("scan_input_directions") or [0] * count
    rows = [np.moveaxis(v, a, 0) for v, a in zip(rows, axes, strict=True)]
    rows = [v[::-1] if b else v for v, b in zip(rows, back, strict=True)]
    outs: list[list[Array]] = [[] for _ in range(len(body.outputs) - len(state))]
    for i in range(len(rows[0])):
        found = body.run([*state, *(v[i] for v in rows)], env, jitter)
        state = list(found[: len(state)])
        for part, value in zip(outs, found[len(state) :], strict=True):
            part.append(value)
    out_axes = node.get("scan_output_axes") or [0] * len(outs)
    out_back = node.get("scan_output_directions") or [0] * len(outs)
    stacked = [np.stack(part[::-1] if b else part, axis=a) for part, a, b in zip(outs, out_axes, out_back, strict=True)]
    return (*state, *stacked)


_CONTROL: dict[str, Any] = {"If": _if, "Loop": _loop, "Scan": _scan}
