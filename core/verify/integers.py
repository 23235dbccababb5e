"""What a graph input of integers may hold: found by following it to where it is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx

from onnx_rewrite.verify.dtypes import FLOATS, Array, numpy_dtype
from onnx_rewrite.verify.regimes import Regime, generator

Role = Literal["data", "index", "count", "shape", "axis"]

# Operators through which an index stays the same index, by the inputs that carry it.
_CARRY: dict[str, tuple[int, ...]] = {
    "Cast": (0,),
    "Identity": (0,),
    "Unsqueeze": (0,),
    "Squeeze": (0,),
    "Reshape": (0,),
    "Transpose": (0,),
    "Flatten": (0,),
    "Expand": (0,),
    "Slice": (0,),
    "Tile": (0,),
    "Split": (0,),
    "Gather": (0,),
    "Where": (1, 2),
    "Concat": tuple(range(64)),
    "Pad": (0,),
}
_INDEX = {
    "Gather": 1,
    "GatherElements": 1,
    "GatherND": 1,
    "ScatterElements": 1,
    "ScatterND": 1,
    "OneHot": 0,
    "Scatter": 1,
}
_NO_INTEGER = frozenset({*FLOATS, onnx.TensorProto.BOOL})
# Inputs that are sizes, and what they may be in a graph of unknown purpose.
_SHAPE = {"Reshape": 1, "Expand": 1, "ConstantOfShape": 0, "Tile": 1, "Resize": 3}
_COUNT = {"TopK": 1, "OneHot": 1, "Loop": 0}
_AXIS = {"Unsqueeze": 1, "Squeeze": 1, "CumSum": 1}


@dataclass(frozen=True)
class Use:
    """How an integer input is used.

    Attributes:
        role: "index" (into an axis), "shape", "count", "axis", or "data" for anything else.
        limit: For an index: the size of the axis, or the name of its symbol, or None if unknown.
        divides: Whether it may become a divisor, so that zero is illegal.
        masks: Whether it is only compared or cast to a bool or float, as masks are.
    """

    role: Role = "data"
    limit: int | str | None = None
    divides: bool = False
    masks: bool = False


def uses(model: onnx.ModelProto) -> dict[str, Use]:
    """The use of every integer graph input, by name; of several uses the narrowest."""
    graph = model.graph
    shapes = _shapes(model)
    followers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    _collect(graph, followers)
    divisors = {n.input[1] for pairs in followers.values() for n, _ in pairs if n.op_type in ("Div", "Mod")}
    found: dict[str, Use] = {}
    for value in graph.input:
        if value.type.HasField("tensor_type") and numpy_dtype(value.type.tensor_type.elem_type).kind in "iu":
            found[value.name] = _follow(value.name, followers, shapes, divisors)
    return found


def _collect(graph: onnx.GraphProto, followers: dict[str, list[tuple[onnx.NodeProto, int]]]) -> None:
    for node in graph.node:
        for i, name in enumerate(node.input):
            followers.setdefault(name, []).append((node, i))
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _collect(attribute.g, followers)


def _shapes(model: onnx.ModelProto) -> dict[str, list[int | str | None]]:
    graph = model.graph
    shapes: dict[str, list[int | str | None]] = {t.name: list(t.dims) for t in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            shapes[value.name] = [
                d.dim_value if d.HasField("dim_value") else d.dim_param or None
                for d in value.type.tensor_type.shape.dim
            ]
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            shapes[node.output[0]] = list(node.attribute[0].t.dims)
    return shapes


def _follow(
    start: str,
    followers: dict[str, list[tuple[onnx.NodeProto, int]]],
    shapes: dict[str, list[int | str | None]],
    divisors: set[str],
) -> Use:
    todo, seen = [start], {start}
    best = Use(masks=True)
    divides = False
    while todo:
        name = todo.pop()
        divides = divides or name in divisors
        for node, i in followers.get(name, ()):
            op = node.op_type
            if _INDEX.get(op) == i:
                attrs = {a.name: a for a in node.attribute}
                axis = attrs["axis"].i if "axis" in attrs else 0
                data = shapes.get(node.input[0])
                limit = data[axis] if data and op != "OneHot" and -len(data) <= axis < len(data) else None
                if op in ("GatherND", "ScatterND"):
                    known = [d for d in data or () if isinstance(d, int)]
                    limit = min(known) if known and data and len(known) == len(data) else None
                if best.role != "index" or _narrower(limit, best.limit):
                    best = Use("index", limit)
            elif _SHAPE.get(op) == i and best.role != "index":
                best = Use("shape")
            elif _COUNT.get(op) == i and best.role == "data":
                best = Use("count")
            elif _AXIS.get(op) == i and best.role == "data":
                best = Use("axis")
            elif op == "Cast" and next((a.i for a in node.attribute if a.name == "to"), 0) in _NO_INTEGER:
                continue  # It stays a mask: as a number it goes on only as 0 or 1.
            elif i in _CARRY.get(op, ()):
                todo.extend(o for o in node.output if o and o not in seen)
                seen.update(node.output)
            elif best.role == "data" and op not in ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Not"):
                best = Use(masks=False)
    if best.masks and best.role == "data":
        # Carried on to nothing but comparisons; a Cast to bool or float ends in the same place.
        best = Use(masks=True)
    return Use(best.role, best.limit, divides, best.masks)


def _narrower(a: int | str | None, b: int | str | None) -> bool:
    return isinstance(a, int) and (not isinstance(b, int) or a < b)


def draw_integers(
    use: Use, regime: Regime, elem_type: int, shape: tuple[int, ...], seed: int, position: int, sizes: dict[str, int]
) -> Array:
    """Integers that are legal for a use.

    Args:
        use: What they are used for.
        regime: The kind of feed.
        elem_type: ONNX element type, an integer one.
        shape: Their shape.
        seed: The only source of randomness, together with regime, type, shape and position.
        position: Which input of the model it is.
        sizes: The values of the symbols, for indices into symbolic axes.

    Returns:
        For an index 0 to limit - 1 (0 or 1 where the limit is unknown); for a shape ones and a last -1; 1 for a
        count; 0 for an axis; for 8-bit data the type's whole range; for other data -9 to 9, or in the integer and
        larger regimes 0 to 1 and -1000 to 1000, and never less than 1 where it divides.
    """
    dtype = numpy_dtype(elem_type)
    rng = generator("integers", seed, regime.name, elem_type, shape, position)
    match use.role:
        case "index":
            limit = sizes.get(use.limit, 2) if isinstance(use.limit, str) else use.limit
            return np.asarray(rng.integers(0, max(1, 2 if limit is None else limit), shape)).astype(dtype)
        case "shape":
            out = np.ones(shape, dtype=dtype)
            out.reshape(-1)[-1:] = -1
            return out
        case "count":
            return np.ones(shape, dtype=dtype)
        case "axis":
            return np.zeros(shape, dtype=dtype)
        case "data":
            pass
    info = np.iinfo(dtype) if dtype.kind in "iu" else None
    if info is not None and info.bits == 8:
        low, high = int(info.min), int(info.max)
    elif regime.amplitude >= 1e3:
        low, high = -1000, 1000
    elif use.masks or regime.special in ("integers", "zeros"):
        low, high = 0, 1
    else:
        low, high = -9, 9
    if use.divides:
        low = 1
    if info is not None and info.min == 0:
        low = max(low, 0)
    return np.asarray(rng.integers(low, max(low, high) + 1, shape)).astype(dtype)
