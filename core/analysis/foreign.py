"""Custom operators in the IR: what a node that is no standard operator says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_rewrite.custom import Call, Spelling, Unreadable, find

Constant = Callable[[ir.Value], "np.ndarray[Any, np.dtype[Any]] | None"]

_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def spelling_of(node: ir.Node) -> Spelling | None:
    """How a node is read, if it is one of a known custom operator, or of ONNX's own spelling of one."""
    return find(node.domain, node.op_type)


def read(node: ir.Node, constant: Constant, outer: Mapping[str, ir.Attr] | None = None) -> Call:
    """What a node of a known operator says.

    Args:
        node: The node; `spelling_of` must know it.
        constant: The elements of a value, or None where it is no constant.
        outer: Attributes of the function around it, where they are known.

    Raises:
        Unreadable: It does not say all that is needed.
    """
    spelling = spelling_of(node)
    if spelling is None:
        raise Unreadable(f"{node.op_type} is no custom operator that is known")
    attributes: dict[str, Any] = {}
    for name, attribute in node.attributes.items():
        given = (outer or {}).get(attribute.ref_attr_name or "") if attribute.is_ref() else attribute
        attributes[name] = None if given is None or given.type in _GRAPHS else _plain(given.value)
    return spelling.read(node.inputs, attributes, constant, _shape)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _shape(value: ir.Value) -> tuple[Any, ...] | None:
    if value.const_value is not None and value.producer() is None:
        return tuple(int(d) for d in value.const_value.shape.numpy())
    return None if value.shape is None else tuple(value.shape)


def alike(node: ir.Node, outer: Mapping[str, ir.Attr]) -> tuple[str, list[ir.Value], Mapping[str, Any]] | None:
    """For a custom operator a standard one whose result has the same dtype and shape, its operands and attributes.

    None for standard operators, for unknown ones, and for those that do not say enough.
    """
    spelling = spelling_of(node)
    if spelling is None or spelling.standard or len(node.outputs) != 1:
        return None
    try:
        call = read(node, _known, outer)
    except Unreadable:
        return None
    found = call.operator.alike(call)
    return found.op_type, [call.operands[role] for role in found.operands], found.attributes


def _known(value: ir.Value) -> np.ndarray[Any, np.dtype[Any]] | None:
    tensor = value.const_value
    node = value.producer()
    if node is not None and node.op_type == "Constant" and not node.domain:
        attribute = node.attributes.get("value")
        tensor = None if attribute is None or attribute.is_ref() else attribute.as_tensor()
    return None if tensor is None or value.is_graph_input() else tensor.numpy()
