"""Candidates that are simpler in the small: constants, dimensions, attributes, words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from onnx_rewrite.pipeline.minimising.cuts import all_nodes, copied
from onnx_rewrite.pipeline.minimising.knowledge import inferred
from onnx_rewrite.pipeline.minimising.weights import Weights

MODEL_WORDS = ("training_info", "metadata_props", "doc_string", "producer_name", "producer_version", "domain")
GRAPH_WORDS = ("quantization_annotation", "value_info", "metadata_props", "doc_string")
NODE_WORDS = ("metadata_props", "doc_string")


def bare(model: onnx.ModelProto) -> Iterator[onnx.ModelProto]:
    """Without all words and types that say nothing new, then without one kind of them."""
    kinds = (
        [("model", f) for f in MODEL_WORDS] + [("graph", f) for f in GRAPH_WORDS] + [("node", f) for f in NODE_WORDS]
    )
    for chosen in (kinds, *([kind] for kind in kinds)):
        made = copied(model)
        for of, field in chosen:
            nodes = all_nodes([*made.graph.node, *(n for f in made.functions for n in f.node)]) if of == "node" else ()
            for message in {"model": [made], "graph": [made.graph], "node": list(nodes)}[of]:
                message.ClearField(field)  # type: ignore[arg-type]
        yield made


def fillings(weights: Weights, tensor: onnx.TensorProto) -> Iterator[onnx.TensorProto]:
    """Simpler tensors of the same shape: all 0, all 1, rounded to one digit; nothing if it is that simple."""
    try:
        array = weights.array(tensor)
    except Exception:  # elements that numpy has no dtype for
        return
    if array.dtype.kind not in "fiu" or not array.size or (array == 0).all():
        return
    for value in (0, 1):
        if (array == value).all():
            return
        yield weights.put(np.full_like(array, value), tensor)
    rounded = _rounded(array)
    if not np.array_equal(rounded, array, equal_nan=array.dtype.kind == "f"):
        yield weights.put(rounded, tensor)


def _rounded(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "f":
        return array
    with np.errstate(all="ignore"):
        wide = array.astype(np.float64)
        digits = np.where(np.isfinite(wide) & (wide != 0), np.floor(np.log10(np.abs(np.where(wide == 0, 1, wide)))), 0)
        unit = 10.0**digits
        return np.asarray(np.where(np.isfinite(wide), np.round(wide / unit) * unit, wide).astype(array.dtype))


def with_tensor(model: onnx.ModelProto, tensor: onnx.TensorProto) -> onnx.ModelProto:
    """The model with another tensor of the same name."""
    made = copied(model)
    for held in made.graph.initializer:
        if held.name == tensor.name:
            held.CopyFrom(tensor)
    return made


def constants_lifted(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """What Constant nodes of the main graph hold, as initializers."""
    made = copied(model)
    lifted = False
    for node in [n for n in made.graph.node if n.op_type == "Constant" and n.domain in ("", "ai.onnx")]:
        tensor = _held(node)
        if tensor is not None:
            made.graph.initializer.append(tensor)
            made.graph.node.remove(node)
            lifted = True
    return made if lifted else None


def _held(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The tensor of a Constant node, whichever attribute it is written in; None if it is sparse or text."""
    attribute = node.attribute[0] if len(node.attribute) == 1 else None
    if attribute is None:
        return None
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
        return tensor
    dtypes = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    dtype = dtypes.get(attribute.name)
    return None if dtype is None else onnx.numpy_helper.from_array(np.asarray(value, dtype), node.output[0])


def resized(model: onnx.ModelProto, weights: Weights, number: int, axis: int, size: int) -> onnx.ModelProto | None:
    """One dimension of one input changed, wherever its symbol stands; outputs are inferred anew."""
    made = copied(model)
    dim = made.graph.input[number].type.tensor_type.shape.dim[axis]
    symbol = dim.dim_param
    dim.dim_value = size
    for value in (*made.graph.input, *made.graph.output):
        for other in value.type.tensor_type.shape.dim:
            if symbol and other.dim_param == symbol:
                other.dim_value = size
    return outputs_anew(made, weights)


def sizes(model: onnx.ModelProto) -> list[int]:
    """The sizes above 1 of inputs and weights, the largest first."""
    found = {d.dim_value for v in model.graph.input for d in v.type.tensor_type.shape.dim}
    found |= {d for t in model.graph.initializer for d in t.dims}
    return sorted((d for d in found if d > 1), reverse=True)


def everywhere(model: onnx.ModelProto, weights: Weights, old: int, new: int) -> onnx.ModelProto | None:
    """Every dimension of one size of inputs and weights gets a smaller one; so do integers of that value."""
    made = copied(model)
    for value in made.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value == old:
                dim.dim_value = new
    for tensor in made.graph.initializer:
        if old in tensor.dims:
            array = weights.array(tensor)
            cut = array[tuple(slice(new) if d == old else slice(None) for d in tensor.dims)]
            tensor.CopyFrom(weights.put(np.ascontiguousarray(cut), tensor))
        elif tensor.data_type == onnx.TensorProto.INT64 and len(tensor.dims) == 1:
            array = weights.array(tensor)
            if (array == old).any():
                tensor.CopyFrom(weights.put(np.where(array == old, new, array), tensor))
    return outputs_anew(made, weights)


def outputs_anew(made: onnx.ModelProto, weights: Weights) -> onnx.ModelProto | None:
    """Changes a model so that it states no shapes but those of its inputs, and for outputs those that are inferred."""
    made.graph.ClearField("value_info")
    for value in made.graph.output:
        value.type.tensor_type.ClearField("shape")
    values = inferred(weights.without(made))
    for value in made.graph.output:
        if value.name not in values:
            return None
        value.CopyFrom(values[value.name])
    return made


def without_attribute(model: onnx.ModelProto, index: int, name: str) -> onnx.ModelProto:
    """One node of the main graph with one attribute less."""
    made = copied(model)
    node = made.graph.node[index]
    node.attribute.remove(next(a for a in node.attribute if a.name == name))
    return made
