"""Writes a draft as a model: constants in every spelling, dimensions as numbers or symbols."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx_rewrite.testing.draft import Draft, Node, Value

SPELLINGS = (
    "initializer",
    "Constant",
    "Identity of an initializer",
    "Identity of a Constant",
    "Constant of numbers",
    "sparse Constant",
)
"""The ways to write a constant in one graph; "overridable" is one more, which makes it no constant."""


def tensor(value: Value) -> onnx.TensorProto:
    """A constant's elements."""
    assert value.array is not None
    found = numpy_helper.from_array(value.array, value.name)
    found.data_type = value.dtype
    return found


def info(value: Value, symbolic: int = 0) -> onnx.ValueInfoProto:
    """Name, type and shape; dimensions of equal size get one symbol."""
    dims: list[int | str] = list(value.shape)
    for axis in range(len(dims) if symbolic == 2 else min(symbolic, len(dims))):
        if value.shape[axis] > 1:
            dims[axis] = f"d{value.shape[axis]}"
    return helper.make_tensor_value_info(value.name, value.dtype, dims)


def constant_nodes(value: Value, opset: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The nodes and initializers that spell a constant."""
    spelling, inner = value.spelling, value.name + "_raw"
    if opset < 9 and value.dtype not in (1, 10, 11):  # Constant gave floats only
        spelling = "initializer"
    if spelling == "Constant of numbers":
        spelling = "Constant"
        assert value.array is not None
        if opset >= 12 and value.array.ndim <= 1 and value.dtype in (1, 7) and value.array.size:
            kind = "float" if value.dtype == 1 else "int"
            if value.array.ndim == 0:
                attribute = helper.make_attribute(f"value_{kind}", value.array.item())
            else:
                attribute = helper.make_attribute(f"value_{kind}s", value.array.tolist())
            return [onnx.NodeProto(op_type="Constant", output=[value.name], attribute=[attribute])], []
    if spelling == "sparse Constant":
        made = _sparse_constant(value) if opset >= 11 else None
        if made is not None:
            return [made], []
        spelling = "Constant"
    if spelling in ("initializer", "overridable"):
        return [], [tensor(value)]
    made = tensor(value)
    if spelling == "Constant":
        return [helper.make_node("Constant", [], [value.name], value=made)], []
    made.name = inner
    identity = helper.make_node("Identity", [inner], [value.name])
    if spelling == "Identity of an initializer":
        return [identity], [made]
    return [helper.make_node("Constant", [], [inner], value=made), identity], []


def _sparse_constant(value: Value) -> onnx.NodeProto | None:
    """A Constant that stores what is not 0; None for numbers of which there is no sparse form, or no use."""
    array = value.array
    if array is None or value.dtype not in (1, 10, 11) or not array.ndim or not array.size:
        return None
    # A zero keeps its sign, and something must be stored.
    kept = np.flatnonzero((array.reshape(-1) != 0) | np.signbit(array.reshape(-1)))
    if not kept.size:
        return None
    sparse = onnx.SparseTensorProto(dims=array.shape)
    sparse.values.CopyFrom(numpy_helper.from_array(array.reshape(-1)[kept], f"{value.name}_values"))
    sparse.indices.CopyFrom(numpy_helper.from_array(kept.astype(np.int64), f"{value.name}_indices"))
    return helper.make_node("Constant", [], [value.name], sparse_value=sparse)


def node_proto(node: Node) -> onnx.NodeProto:
    """One node; its name is derived from its first output."""
    proto = onnx.NodeProto(op_type=node.op_type, domain=node.domain, name=f"n_{node.outputs[0].name}")
    proto.input.extend(v.name if v is not None else "" for v in node.inputs)
    proto.output.extend(v.name for v in node.outputs)
    for name, value in node.attributes.items():
        proto.attribute.append(helper.make_attribute(name, value))
    return proto


def graph_of(draft: Draft, name: str, *, symbolic: int = 0) -> onnx.GraphProto:
    """The whole draft as a graph.

    Args:
        draft: The draft.
        name: The graph's name.
        symbolic: As `Draft.symbolic`.
    """
    graph = onnx.GraphProto(name=name)
    nodes = draft.live()
    for value in draft.read(nodes):
        if value.constant:
            spelt, initializers = constant_nodes(value, draft.opset)
            graph.node.extend(spelt)
            graph.initializer.extend(initializers)
            if value.spelling == "overridable":
                graph.input.append(info(value))
        else:
            graph.input.append(info(value, symbolic))
    graph.node.extend(node_proto(node) for node in nodes)
    if draft.inferred and not symbolic:
        returned = {id(v) for v in draft.outputs}
        graph.value_info.extend(info(v) for node in nodes for v in node.outputs if id(v) not in returned)
    graph.output.extend(info(value) for value in draft.outputs)
    return graph


def ir_version(draft: Draft) -> int:
    """Old enough for every onnxruntime, new enough for the draft."""
    return max(8, _least_ir_version(draft.opset))


@functools.lru_cache(maxsize=64)
def _least_ir_version(opset: int) -> int:
    return helper.find_min_ir_version_for([helper.make_opsetid("", opset)], ignore_unknown=True)


def model_of(draft: Draft, graph: onnx.GraphProto, functions: Sequence[onnx.FunctionProto] = ()) -> onnx.ModelProto:
    """A model of a graph, with the imports that the draft needs."""
    model = onnx.ModelProto(ir_version=ir_version(draft), producer_name="onnx_rewrite.testing", graph=graph)
    model.opset_import.append(helper.make_opsetid("", draft.opset))
    for domain in sorted({node.domain for node in draft.nodes} - {""}):
        model.opset_import.append(helper.make_opsetid(domain, draft.versions.get(domain, 1)))
    for function in functions:
        model.functions.append(function)
        model.opset_import.append(helper.make_opsetid(function.domain, 1))
    return model


def array_of(values: object, dtype: int) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """Numbers in the numpy dtype of an element type."""
    with np.errstate(over="ignore"):  # a very low number is minus infinity among halves
        return np.asarray(values).astype(helper.tensor_dtype_to_np_dtype(dtype))
