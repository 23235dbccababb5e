"""Small questions about nodes that several floors ask."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

INFERRED_KEY = "onnx_rewrite.inferred"
"""Key in `value.meta`: the type was inferred or observed, and is not to be written into the model."""


def count_nodes(model: ir.Model) -> int:
    """Returns the number of nodes, ``Constant`` aside, bodies of If, Loop, Scan and of functions included."""
    total = 0
    for owner in (model.graph, *model.functions.values()):
        for node in owner.all_nodes():
            if node.op_type != "Constant" or node.domain != "":
                total += 1
    return total


def tensor_in(attribute: ir.Attr) -> ir.TensorProtocol:
    """The tensor of an attribute of type TENSOR.

    `ir.Attr.as_tensor` asks whether it is one member of the protocol after the other, which takes 0.1 ms.
    """
    value: ir.TensorProtocol = attribute.value
    return value


def dense(sparse: onnx.SparseTensorProto) -> np.ndarray[Any, np.dtype[Any]]:
    """All elements of a sparse tensor, those that are not stored as 0; its indices count them all, or one axis each."""
    values, indices = onnx.numpy_helper.to_array(sparse.values), onnx.numpy_helper.to_array(sparse.indices)
    found = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 1:
        found.reshape(-1)[indices] = values
    else:
        found[tuple(indices.T)] = values
    return found


def original_name(node: ir.Node) -> str:
    """Returns the name that the node bears in the file, ``""`` if it has none."""
    return node.name or ""
