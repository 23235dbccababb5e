"""Operators without a kernel here: onnxruntime in double, the operator's own function body, or onnx.reference.

Each is tried for a single node; the first that can do it is remembered for the node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import onnx

from onnx_rewrite.verify.dtypes import Array, widen
from onnx_rewrite.verify.kernels import Node
from onnx_rewrite.verify.session import Session, first_line

_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
# onnx.reference takes 39 s for one small DeformConv; its loops over elements are of no use here.
_TOO_SLOW = frozenset({"DeformConv", "RoiAlign", "GridSample", "MaxRoiPool", "NonMaxSuppression"})

# Nothing but indices comes out; rounding what goes in to float32 moves a decision only where it is a tie.
_INDICES_ONLY = frozenset({"NonMaxSuppression"})


def evaluate(node: Node, values: Sequence[Array | None], opsets: dict[str, int]) -> list[Array]:
    """The outputs of a node by the best of the other evaluators.

    Raises:
        CannotEvaluate: None of them can, with the reason of the last one.
    """
    proto = node.proto
    if proto.op_type in _RANDOM and proto.domain in ("", "ai.onnx"):
        raise node.fail("it draws random numbers")
    types = tuple(None if v is None else onnx.helper.np_dtype_to_tensor_dtype(v.dtype) for v in values)
    bare = onnx.NodeProto()
    bare.CopyFrom(proto)
    del bare.input[:], bare.output[:], bare.metadata_props[:]
    bare.name = bare.doc_string = ""
    bare.input.extend("" if v is None else f"i{k}" for k, v in enumerate(values))
    bare.output.extend(f"o{k}" if name else "" for k, name in enumerate(proto.output))
    model = _model(bare.SerializeToString(deterministic=True), types, tuple(sorted(opsets.items())))
    feeds = {f"i{k}": v for k, v in enumerate(values) if v is not None}
    reasons: list[str] = []
    for attempt in (_by_onnxruntime, _by_single, _by_reference):
        try:
            found = attempt(model, feeds)
        except Exception as error:
            reasons.append(f"{attempt.__name__[4:]}: {first_line(error)}")
            continue
        named = iter(found)
        return [widen(np.asarray(next(named))) if name else np.empty(0) for name in bare.output]
    raise node.fail("; ".join(reasons))


@lru_cache(maxsize=512)
def _model(node: bytes, types: tuple[int | None, ...], opsets: tuple[tuple[str, int], ...]) -> _OneNode:
    return _OneNode(onnx.NodeProto.FromString(node), types, opsets)


class _OneNode:
    """A node as a model of its own, for given input types; sessions are opened when first asked for."""

    def __init__(
        self, node: onnx.NodeProto, types: tuple[int | None, ...], opsets: tuple[tuple[str, int], ...]
    ) -> None:
        self.node, self.types, self.opsets = node, types, opsets
        self._made: dict[str, Callable[[dict[str, Array]], list[Any]] | Exception] = {}

    def proto(self, double: bool) -> onnx.ModelProto:
        double_type, single_type = onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT
        inputs = [
            onnx.helper.make_tensor_value_info(f"i{k}", t if double or t != double_type else single_type, None)
            for k, t in enumerate(self.types) if t is not None
        ]  # fmt: skip
        outputs = [onnx.ValueInfoProto(name=name) for name in self.node.output if name]
        graph = onnx.helper.make_graph([self.node], "node", inputs, outputs)
        imports = [onnx.helper.make_opsetid(d, v) for d, v in self.opsets]
        return onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)

    def run(self, kind: str, feeds: dict[str, Array]) -> list[Any]:
        made = self._made.get(kind)
        if made is None:
            try:
                made = self._make(kind)
            except Exception as error:
                made = error
            self._made[kind] = made
        if isinstance(made, Exception):
            raise made
        return made(feeds)

    def _make(self, kind: str) -> Callable[[dict[str, Array]], list[Any]]:
        if kind != "reference":
            return Session(self.proto(double=kind == "double"))
        if self.node.op_type in _TOO_SLOW:
            raise ValueError("onnx.reference is too slow for it")
        from onnx.reference import ReferenceEvaluator

        evaluator = ReferenceEvaluator(self.proto(double=True))
        return lambda feeds: list(evaluator.run(None, feeds))  # type: ignore[arg-type]


def _by_onnxruntime(model: _OneNode, feeds: dict[str, Array]) -> list[Any]:
    return model.run("double", feeds)


def _by_single(model: _OneNode, feeds: dict[str, Array]) -> list[Any]:
    """Onnxruntime in float32 where that loses nothing: floats that are float32 numbers go in, no float comes out."""
    rounded = model.node.op_type in _INDICES_ONLY
    narrow = {name: v.astype(np.float32) if v.dtype == np.float64 else v for name, v in feeds.items()}
    for name, value in feeds.items():
        if (
            not rounded
            and value.dtype == np.float64
            and not np.array_equal(narrow[name].astype(np.float64), value, equal_nan=True)
        ):
            raise ValueError("no double kernel")
    found = model.run("single", narrow)
    if any(np.asarray(v).dtype.kind not in "iub" for v in found):
        raise ValueError("no double kernel")
    return found


def _by_reference(model: _OneNode, feeds: dict[str, Array]) -> list[Any]:
    return model.run("reference", feeds)
