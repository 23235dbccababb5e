"""What the parser of TensorRT 8.6 reads wrongly without a word: written as it understands it, or refused by name.

It does not know what came with opset 18, yet takes the nodes: of a ReduceMean whose axes are an input it makes one over
all axes. What is listed here was read in the sources of onnx-tensorrt (release/8.6-GA, `builtin_op_importers.cpp` and
`onnx2trt_utils.cpp`); version 10 reads or refuses all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from onnx_rewrite.engines.protocol import EngineError

_REDUCTIONS = frozenset(
    f"Reduce{name}" for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
)
_LEAVES = frozenset({"ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"})
"""Reductions that over no axes are the identity."""

LAST_OF_8 = 17
"""The last opset that the parser of 8.6 knows."""

Constants = Mapping[str, onnx.TensorProto]


def spelled_for_8(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with axes of reductions as attributes, which the parser of 8.6 reads whatever the opset.

    The result is for that parser alone: in opset 18 and above it is no valid ONNX.

    Args:
        proto: The model, which is not changed.

    Raises:
        EngineError: The parser would leave something out silently, and there is no other spelling; one line a node.
    """
    if not any(_touches(node) for node in _nodes(proto.graph)):
        return proto
    found = onnx.ModelProto()
    found.CopyFrom(proto)
    refused: list[str] = []
    _graph(found.graph, {}, refused)
    if refused:
        raise EngineError("TensorRT 8.6 would read the model wrongly:\n" + "\n".join(dict.fromkeys(refused)))
    return found


def misread(model: ir.Model) -> str | None:
    """A sentence about nodes of a file whose axes the parser of 8.6 overlooks; None if there are none."""
    found = [
        node
        for node in model.graph.all_nodes()
        if node.domain in ("", "ai.onnx")
        and node.op_type in _REDUCTIONS - {"ReduceSum"}  # of this one alone it reads the axes
        and len(node.inputs) > 1
        and node.inputs[1] is not None
    ]
    if not found:
        return None
    first, count = found[0], len(found)
    nodes = f"{first.op_type} '{first.name}'" + (f" and {count - 1} more" if count > 1 else "")
    return (
        f"the parser of TensorRT 8.6 overlooks the axes of {nodes}, an input since opset 18, and reduces over all axes:"
        " `rewrite bench` builds them rightly, for trtexec the model must be in opset 17"
    )


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _nodes(body)


def _touches(node: onnx.NodeProto) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return False
    return _lacks(node) is not None or (
        node.op_type in _REDUCTIONS and (_has(node, 1) or bool(_attribute(node, "noop_with_empty_axes", 0)))
    )


def _graph(graph: onnx.GraphProto, outer: Constants, refused: list[str]) -> None:
    constants = {**outer, **{tensor.name: tensor for tensor in graph.initializer}}
    for value in graph.input:  # a feed may take its place
        constants.pop(value.name, None)
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            tensor = _tensor(node)
            if tensor is not None:
                constants[node.output[0]] = tensor
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                if body.node:
                    _graph(body, constants, refused)
        if node.domain not in ("", "ai.onnx"):
            continue
        reason = _reduction(node, constants) if node.op_type in _REDUCTIONS else _lacks(node)
        if reason is not None:
            refused.append(f"  node {node.name or '?'} ({node.op_type}): {reason}")


def _reduction(node: onnx.NodeProto, constants: Constants) -> str | None:
    """Turns its axes into an attribute; why it cannot."""
    axes: list[int] | None = None
    if _has(node, 1):
        tensor = constants.get(node.input[1])
        if tensor is None:
            return f"its axes, {node.input[1]}, are computed, and it would reduce over all axes"
        axes = [int(axis) for axis in np.ravel(numpy_helper.to_array(tensor))]
    elif any(attribute.name == "axes" for attribute in node.attribute):
        axes = [int(axis) for axis in _attribute(node, "axes", [])]
    noop = bool(_attribute(node, "noop_with_empty_axes", 0))
    del node.input[1:]
    kept = [one for one in node.attribute if one.name not in ("axes", "noop_with_empty_axes")]
    del node.attribute[:]
    node.attribute.extend(kept)
    if axes:
        node.attribute.append(helper.make_attribute("axes", axes))
    elif noop and node.op_type in _LEAVES:
        node.op_type = "Identity"
        del node.attribute[:]
    elif noop:
        return "noop_with_empty_axes would not be seen, and it would reduce over all axes"
    return None


def _lacks(node: onnx.NodeProto) -> str | None:
    """What would be left out of it, silently."""
    if node.op_type in ("ScatterND", "ScatterElements"):
        how = bytes(_attribute(node, "reduction", b"none")).decode()
        return None if how == "none" else f"its reduction, {how}, would not be seen"
    if node.op_type == "Resize":
        for name, plain in (("antialias", 0), ("axes", []), ("keep_aspect_ratio_policy", b"stretch")):
            if _attribute(node, name, plain) != plain:
                return f"its {name} would not be seen"
    if node.op_type == "Pad" and _has(node, 3):
        return "its axes would not be seen"
    return None


def _has(node: onnx.NodeProto, i: int) -> bool:
    return len(node.input) > i and bool(node.input[i])


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


def _tensor(node: onnx.NodeProto) -> onnx.TensorProto | None:
    for attribute in node.attribute:
        if attribute.name == "value":
            return attribute.t
        if attribute.name in ("value_int", "value_ints"):
            return numpy_helper.from_array(np.array(helper.get_attribute_value(attribute), np.int64))
    return None
