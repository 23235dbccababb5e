"""What rounding alone may do to the outputs of a model: a running error analysis, node by node.

Every value is followed by an error: what a right computation of it, in its own type, may be off by. A node adds one
rounding of its own result to what the errors of its operands move that result by; the latter is measured, on operands
that err at random and independently of each other (Higham, Accuracy and Stability of Numerical Algorithms, 3.3; the
errors are drawn and not bounded, so that sums err like sqrt(n)). Since errors are drawn anew at every node, nothing
cancels between nodes which only the original's way of computing would cancel: two normalizations in a row err by the
product of their condition numbers, although the second one forgets most of what moves the input of the first.

An element is *undetermined* where the errors decide whether it is finite: a root of what may be below zero, a quotient
by what may be zero, an interior value beyond the range of its type, which onnxruntime may or may not keep in a wider
one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnx
from onnx.inliner import inline_local_functions

from onnx_rewrite.verify.dtypes import FLOATS, Array, eps, largest, widen
from onnx_rewrite.verify.kernels import Node
from onnx_rewrite.verify.kernels.fallback import evaluate as evaluate_elsewhere
from onnx_rewrite.verify.reference import Body, CannotEvaluate, Reference

LANES = 6
"""How many computations that err run beside the exact one. The first is 0 where the errors allow it: on one side of a
pole there is nothing to see. The last two err by all they may, in either direction. Of each pair one leaves the range
of its type where the other goes on in double."""

_TINY = {1: 2.0**-149, 10: 2.0**-24, 11: 2.0**-1074, 16: 2.0**-133}

_MOVES = frozenset(
    {
        "Abs", "Clip", "Concat", "Expand", "Flatten", "Gather", "Identity", "Max", "MaxPool", "Min", "Neg", "Pad",
        "ReduceMax", "ReduceMin", "Relu", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
        "Where",
    }
)  # fmt: skip
"""Operators whose results are among their operands, so that nothing is rounded."""


_THROUGH_ONE = frozenset({"Celu", "Elu", "Erf", "Gelu", "Mish", "Selu", "Sigmoid", "Softplus", "Swish"})
"""Operators that are computed as 1 (or a half) and something, so that a small result errs by a rounding of that."""


@dataclass
class Erring:
    """A value, and what it may be instead.

    Attributes:
        exact: Floats as float64.
        lanes: The same with errors; the value itself where it cannot err.
        kind: ONNX element type that it is rounded to; 0: of no float, or a constant's.
    """

    exact: Array
    lanes: Sequence[Array]
    kind: int = 0

    @property
    def error(self) -> Array:
        """How far the lanes are from the exact value, per element; infinite where they are not finite and it is."""
        worst = np.zeros(self.exact.shape)
        if self.exact.dtype.kind not in "fiub":
            return worst
        exact = self.exact.astype(np.float64)
        for lane in self.lanes:
            if lane.shape != exact.shape:
                return np.full(exact.shape, np.inf)
            same = (lane == exact) | (np.isnan(lane) & np.isnan(exact))
            with np.errstate(all="ignore"):
                gap = np.where(same, 0.0, np.abs(lane.astype(np.float64) - exact))
            worst = np.maximum(worst, np.where(np.isnan(gap), np.inf, gap))
        return worst


def errors(model: onnx.ModelProto, feed: Mapping[str, Array]) -> list[Erring]:
    """The outputs of a model in float64, with what rounding may make of them.

    Args:
        model: The model; its functions are inlined.
        feed: Its inputs, and initializers that are inputs, by name.

    Raises:
        CannotEvaluate: A node has no evaluation in float64.
    """
    flat = inline_local_functions(model) if model.functions else model
    reference = Reference(flat)
    with np.errstate(all="ignore"):
        return _Analysis(flat).outputs(reference.body, feed)


class _Analysis:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._rng = np.random.default_rng(0)
        ends = [v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)]
        self._coarsest = max((kind for kind in ends if kind in FLOATS), key=eps, default=onnx.TensorProto.FLOAT)
        self._constants = dict(_types(model.graph))

    def outputs(self, body: Body, feed: Mapping[str, Array]) -> list[Erring]:
        given: dict[str, Erring] = {}
        for name, array in feed.items():
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            given[name] = self._rounded(widen(np.asarray(array)), None, kind if kind in FLOATS else 0, own=True)
        return self._run(body, given, {})

    def _run(self, body: Body, given: Mapping[str, Erring], outer: Mapping[str, Erring]) -> list[Erring]:
        constants = {name: self._constant(name, array) for name, array in body.constants.items() if name not in given}
        values = {**outer, **constants, **given}
        for step in body.steps:
            node = step.node
            operands = [self._find(body, values, name) if name else None for name in node.proto.input]
            while operands and operands[-1] is None:
                operands.pop()
            for name, value in zip(node.proto.output, self._step(node, step.kernel, operands, values), strict=False):
                values[name] = value
        return [self._find(body, values, name) for name in body.outputs]

    def _find(self, body: Body, values: dict[str, Erring], name: str) -> Erring:
        if name not in values:
            values[name] = self._constant(name, body.value({}, name))
        return values[name]

    def _constant(self, name: str, array: Array) -> Erring:
        """A number of the model: another may stand in its place that is it but for a rounding, in a folded weight."""
        kind = self._constants.get(name, self._coarsest) if array.dtype.kind == "f" else 0
        made = self._rounded(array, None, kind if kind in FLOATS else 0, own=True)
        return Erring(made.exact, made.lanes)

    def _step(
        self, node: Node, kernel: Any, operands: list[Erring | None], values: Mapping[str, Erring]
    ) -> list[Erring]:
        op_type = node.proto.op_type
        if op_type == "If":
            return self._run(node.get("then_branch" if _true(operands[0]) else "else_branch"), {}, values)
        if op_type == "Loop":
            return self._loop(node, operands, values)
        if op_type == "Scan":
            raise node.fail("the errors of a Scan are not followed")
        exact = self._evaluate(node, kernel, [None if v is None else v.exact for v in operands])
        lanes: list[list[Array]] = []
        for number in range(LANES):
            mine = [None if v is None else _lane(v, number) for v in operands]
            if op_type == "Pow" and (power := operands[1]) is not None and power.kind == 0:
                mine[1] = power.exact  # an exponent of 2 is no measured number
            lanes.append(self._evaluate(node, kernel, mine))
        kind = self._kind(node, operands)
        own, least = op_type not in _MOVES, 1.0 if op_type in _THROUGH_ONE else 0.0
        return [
            self._rounded(value, [lane[at] for lane in lanes], kind, own=own, least=least)
            for at, value in enumerate(exact)
        ]

    def _kind(self, node: Node, operands: Sequence[Erring | None]) -> int:
        """The type of a node's result, where it is a float."""
        if node.proto.op_type == "Cast":
            return node.get("to") if node.get("to") in FLOATS else 0
        floats = [v for v in operands if v is not None and v.exact.dtype.kind == "f"]
        return next((v.kind for v in floats if v.kind), 0)

    @staticmethod
    def _evaluate(node: Node, kernel: Any, operands: Sequence[Array | None]) -> list[Array]:
        try:
            found: Any = NotImplemented if kernel is None else kernel(node, *operands)
            if found is NotImplemented:
                found = evaluate_elsewhere(node, list(operands), {"": node.version})
        except CannotEvaluate:
            raise
        except Exception as error:
            raise CannotEvaluate(node.proto, f"{type(error).__name__}: {error}") from error
        return [np.asarray(v) for v in (found if isinstance(found, tuple | list) else (found,))]

    def _rounded(
        self, exact: Array, moved: Sequence[Array] | None, kind: int, *, own: bool, least: float = 0.0
    ) -> Erring:
        """A value with the errors of its operands and, if it is its `own`, one rounding more, of at least `least`."""
        if exact.dtype.kind != "f" or any(lane.shape != exact.shape for lane in moved or ()):
            return Erring(exact, moved or (), kind)
        worst = np.zeros(exact.shape)
        for lane in moved or ():
            worst = np.maximum(worst, np.where(np.isfinite(lane) & np.isfinite(exact), np.abs(lane - exact), 0.0))
        if kind and own:
            worst = worst + eps(kind) * np.maximum(np.abs(exact), least) + _TINY[kind]
        lanes: list[Array] = []
        for number in range(LANES):
            size = (1.0 if number % 2 else -1.0) if number >= LANES - 2 else self._rng.uniform(-1.0, 1.0, exact.shape)
            lane = exact + worst * size
            if not number and moved is not None:
                lane = np.where(np.abs(exact) <= worst, 0.0, lane)
            other = exact if moved is None else moved[number]
            lane = np.where(np.isfinite(exact) & np.isfinite(other), lane, other)
            if kind and number % 2:
                lane = np.where(np.abs(lane) > largest(kind), np.copysign(np.inf, lane), lane)
            lanes.append(lane)
        return Erring(exact, lanes, kind)

    def _loop(self, node: Node, operands: list[Erring | None], values: Mapping[str, Erring]) -> list[Erring]:
        body = cast(Body, node.get("body"))
        limit, go, *carried = [*operands, None, None][: max(2, len(operands))]
        turns = np.inf if limit is None else int(limit.exact.ravel()[0])
        state = [v for v in carried if v is not None]
        rows: list[list[Erring]] = [[] for _ in range(len(body.outputs) - 1 - len(state))]
        on, turn = _true(go), 0
        while on and turn < turns:
            given = [Erring(np.asarray(turn, np.int64), ()), Erring(np.asarray(on), ()), *state]
            found = self._run(body, dict(zip(body.inputs, given, strict=True)), values)
            on, state = _true(found[0]), found[1 : 1 + len(state)]
            for row, value in zip(rows, found[1 + len(state) :], strict=True):
                row.append(value)
            turn += 1
        if not turn and rows:
            raise node.fail("no iteration ran, so the shapes of its scan outputs are unknown")
        return [*state, *(_stacked(row) for row in rows)]


def _types(graph: onnx.GraphProto) -> Iterator[tuple[str, int]]:
    """Element types of the constants of a graph and its bodies, by name."""
    for tensor in graph.initializer:
        yield tensor.name, tensor.data_type
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _types(attribute.g)
            elif node.op_type == "Constant" and attribute.type == onnx.AttributeProto.TENSOR:
                yield node.output[0], attribute.t.data_type


def _true(value: Erring | None) -> bool:
    return value is None or bool(value.exact.ravel()[0])


def _lane(value: Erring, number: int) -> Array:
    return value.lanes[number] if value.lanes else value.exact


def _stacked(rows: list[Erring]) -> Erring:
    lanes = [np.stack([_lane(row, number) for row in rows]) for number in range(LANES)]
    return Erring(np.stack([row.exact for row in rows]), lanes, rows[0].kind)
