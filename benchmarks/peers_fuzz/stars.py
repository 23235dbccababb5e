"""The hard cases that were once reproduced by hand: whether a finding is one of them.

Nothing here is drawn from: a case is recognised afterwards, in a model that was made as small as the failure allows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.peers_fuzz.adapters import RULES
from benchmarks.peers_fuzz.drawing import Drawn

WRONG = frozenset({"equal", "nan", "valid", "interface", "answers"})


@dataclass
class Seen:
    """What a recogniser looks at.

    Attributes:
        peer: Who.
        property: What does not hold.
        reason: In words.
        before: The model.
        after: What became of it, or None.
        rule: The rule that went with it.
    """

    peer: str
    property: str
    reason: str
    before: onnx.ModelProto
    after: onnx.ModelProto | None
    rule: dict[str, Any]

    @property
    def wrong(self) -> bool:
        """Whether the result is wrong, and not only untidy."""
        return self.property in WRONG

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        return list(self.before.graph.node)

    @property
    def result(self) -> list[onnx.NodeProto]:
        return list(self.after.graph.node) if self.after is not None else []

    def has(self, *op_types: str) -> bool:
        """Whether the model has these operators."""
        return set(op_types) <= {n.op_type for n in self.nodes}

    def gives(self, *op_types: str) -> bool:
        """Whether the result has operators that the model does not have."""
        return set(op_types) <= {n.op_type for n in self.result} - {n.op_type for n in self.nodes}

    def normalizes(self) -> bool:
        """Whether a layer normalization, of any kind, is in the result and not in the model."""
        had, has = ({n.op_type for n in nodes} for nodes in (self.nodes, self.result))
        return any(name.endswith("LayerNormalization") for name in has - had)

    def attribute(self, node: onnx.NodeProto, name: str, usual: Any) -> Any:
        return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), usual)

    def constant(self, name: str) -> np.ndarray | None:
        """A constant's elements."""
        for tensor in self.before.graph.initializer:
            if tensor.name == name:
                return numpy_helper.to_array(tensor)
        for node in self.nodes:
            if name in node.output and node.op_type == "Constant" and node.attribute[0].name == "value":
                return numpy_helper.to_array(node.attribute[0].t)
            if name in node.output and node.op_type == "Identity":
                return self.constant(node.input[0])
        return None

    def types(self) -> set[int]:
        return {v.type.tensor_type.elem_type for v in (*self.before.graph.input, *self.before.graph.output)}

    def rank(self) -> int:
        """Of the first output."""
        return len(self.before.graph.output[0].type.tensor_type.shape.dim)

    @property
    def opset(self) -> int:
        return next(o.version for o in self.before.opset_import if o.domain in ("", "ai.onnx"))


@dataclass(frozen=True)
class Star:
    """One hard case.

    Attributes:
        name: As the list of hard cases has it.
        test: Whether something is it.
    """

    name: str
    test: Callable[[Seen], bool]

    def holds(self, peer: str, property: str, reason: str, drawn: Drawn, after: onnx.ModelProto | None) -> bool:
        """Whether a failure is it."""
        try:
            return self.test(Seen(peer, property, reason, drawn.model, after, drawn.rule))
        except Exception:  # a model of another kind than the recogniser has in mind
            return False


def of(peer: str, property: str, reason: str, drawn: Drawn, after: onnx.ModelProto | None) -> str:
    """The first hard case that a failure is, or ""."""
    return next((s.name for s in STARS if s.holds(peer, property, reason, drawn, after)), "")


def _keepdims(s: Seen) -> bool:
    reductions = [n for n in s.nodes if n.op_type == "ReduceMean"]
    return s.wrong and s.normalizes() and any(s.attribute(n, "keepdims", 1) == 0 for n in reductions)


def _rank_1(s: Seen) -> bool:
    """Also where what it makes is no model, so that there is no result to look at."""
    normalizes = s.normalizes() or (s.after is None and s.has("ReduceMean", "Sqrt", "Div"))
    return s.wrong and normalizes and s.rank() == 1


def _training(s: Seen) -> bool:
    trained = [n for n in s.nodes if n.op_type == "BatchNormalization" and s.attribute(n, "training_mode", 0) == 1]
    left = [n for n in s.result if n.op_type == "BatchNormalization" and s.attribute(n, "training_mode", 0) == 1]
    return s.wrong and len(left) < len(trained)


def _overflow(s: Seen) -> bool:
    linear = {n.op_type for n in s.nodes} & {"Conv", "ConvTranspose", "Gemm", "MatMul"}
    large = [t for t in s.before.graph.initializer if t.data_type in (1, 10, 11)]
    huge = any(np.abs(numpy_helper.to_array(t).astype(np.float64)).max(initial=0) > 1e4 for t in large)
    folded = {"BatchNormalization", "Mul", "Div", "Add", "Sub"}
    fewer = sum(n.op_type in folded for n in s.result) < sum(n.op_type in folded for n in s.nodes)
    return s.property == "equal" and "not finite" in s.reason and bool(linear) and huge and fewer


def _negative_pad(s: Seen) -> bool:
    return s.property == "equal" and s.has("Pad", "MaxPool") and not any(n.op_type == "Pad" for n in s.result)


def _relu_clip(s: Seen) -> bool:
    return s.wrong and s.has("Relu", "Clip") and bool(s.types() & {10, 11})


def _clip_rank(s: Seen) -> bool:
    bounds = [s.constant(n) for node in s.nodes if node.op_type in ("Min", "Max") for n in node.input]
    ranked = any(b is not None and b.ndim > 0 for b in bounds)
    return (
        s.wrong
        and s.gives("Clip")
        and ranked
        and ("became" in s.reason or "declared" in s.reason or "rank" in s.reason)
    )


def _old_clip(s: Seen) -> bool:
    return s.wrong and s.opset < 11 and any(n.op_type == "Clip" and len(n.input) > 1 for n in s.result)


def _reshape_zero(s: Seen) -> bool:
    shapes = [s.constant(n.input[1]) for n in s.nodes if n.op_type == "Reshape"]
    fewer = sum(n.op_type == "Reshape" for n in s.result) < len(shapes)
    return (
        s.wrong
        and len(shapes) > 1
        and (fewer or not s.result)
        and any(c is not None and (c == 0).any() for c in shapes)
    )


def _order(s: Seen) -> bool:
    return s.peer in RULES and "sorted" in s.reason and len(s.rule["outputs"]) > 1 and not _cyclic(s.result)


def _cycle(s: Seen) -> bool:
    return s.peer in RULES and s.property in ("valid", "equal") and _cyclic(s.result)


def _cyclic(nodes: list[onnx.NodeProto]) -> bool:
    made = {name: i for i, node in enumerate(nodes) for name in node.output}
    left = {i: {made[n] for n in node.input if n in made} for i, node in enumerate(nodes)}
    while ready := [i for i, before in left.items() if not before & left.keys()]:
        for i in ready:
            del left[i]
    return bool(left)


def _taken(s: Seen) -> bool:
    """Also where a name of a rule's own initializer is made up for a second one."""
    had = {t.name for t in s.before.graph.initializer} | {n for node in s.nodes for n in (*node.input, *node.output)}
    new = [t.name for t in s.after.graph.initializer if t.name not in had] if s.after is not None else []
    return s.property == "names" and bool(new)


def _diamond(s: Seen) -> bool:
    """A value of the pattern that two of its nodes read, or one of them twice, below a single output."""
    read = [v for node in s.rule["nodes"] for v in node[1:] if isinstance(v, int)]
    return s.property == "found" and "not found" in s.reason and len(set(read)) < len(read)


STARS = (
    Star("ReduceMean with keepdims=0 still fused", _keepdims),
    Star("rank-1 LayerNorm takes Div's output for the scale", _rank_1),
    Star("BN with training_mode=1 folded", _training),
    Star("weight that is an initializer and a graph input", lambda s: s.property == "overridable"),
    Star("a fold that overflows", _overflow),
    Star("Pad(0) into MaxPool on negative data", _negative_pad),
    Star("Relu then Clip in float64", _relu_clip),
    Star("Clip bounds of rank > 0 change the output's rank", _clip_rank),
    Star("Clip in input form written at opset 10", _old_clip),
    Star("Reshape of Reshape with 0 in the shape", _reshape_zero),
    Star("a match that is not convex gives a cycle", _cycle),
    Star("multi-output insertion breaks the order", _order),
    Star("two pattern nodes bound to one graph node", lambda s: s.property == "found" and "a match of" in s.reason),
    Star("name of a new initializer that is taken", _taken),
    Star("a diamond is not matched", _diamond),
    Star("sparse initializers dropped", lambda s: s.property == "kept" and "sparse" in s.reason),
    Star("training_info dropped", lambda s: s.property == "kept" and "training_info" in s.reason),
    Star(
        "metadata and doc strings dropped",
        lambda s: s.property == "kept" and any(w in s.reason for w in ("words", "doc string", "metadata")),
    ),
    Star("time grows faster than the graph", lambda s: s.property == "growth"),
)
"""In the order of the list of hard cases. Seconds at 50,000 nodes are for `python -m benchmarks scaling`."""
