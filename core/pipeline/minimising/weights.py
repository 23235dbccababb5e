"""Large weights held apart, so that a candidate is small to copy, to check and to compare."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import external_data_helper, numpy_helper

from onnx_rewrite.verify.dtypes import Array

LARGE = 4096
"""Bytes from which on a weight is held apart."""

_KEY = "onnx_rewrite_weight"


def nbytes(tensor: onnx.TensorProto) -> int:
    """The size of a tensor's elements in bytes, packed elements counted as bytes."""
    return math.prod(tensor.dims) * max(1, onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


class Weights:
    """The weights of one model and of what becomes of them; in a candidate, a placeholder stands for each.

    Args:
        folder: Where external data lie; None: none are external.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._held: dict[str, onnx.TensorProto] = {}

    def taken_from(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A copy of a model in which placeholders stand for its large weights."""
        made = onnx.ModelProto()
        made.CopyFrom(model)
        for tensor in made.graph.initializer:
            external = tensor.data_location == onnx.TensorProto.EXTERNAL
            if tensor.data_type != onnx.TensorProto.STRING and (external or nbytes(tensor) >= LARGE):
                kept = onnx.TensorProto()
                kept.CopyFrom(tensor)
                tensor.CopyFrom(self._placeholder(kept))
        return made

    def put(self, array: Array, like: onnx.TensorProto) -> onnx.TensorProto:
        """A tensor of new elements with another's name and type, or a placeholder if it is large."""
        tensor = numpy_helper.from_array(array, like.name)
        tensor.data_type = like.data_type
        return self._placeholder(tensor) if nbytes(tensor) >= LARGE else tensor

    def array(self, tensor: onnx.TensorProto) -> Array:
        """The elements of a tensor, or of what a placeholder stands for."""
        held = self._held[_key(tensor)] if _is_placeholder(tensor) else tensor
        if held.data_location == onnx.TensorProto.EXTERNAL:
            return np.asarray(numpy_helper.to_array(held, str(self._folder or "")))
        return np.asarray(numpy_helper.to_array(held))

    def filled(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A copy of a model with its weights in it."""
        made = onnx.ModelProto()
        made.CopyFrom(model)
        for tensor in made.graph.initializer:
            if not _is_placeholder(tensor):
                continue
            name, held = tensor.name, self._held[_key(tensor)]
            tensor.CopyFrom(held)
            tensor.name = name
            if held.data_location == onnx.TensorProto.EXTERNAL:
                external_data_helper.load_external_data_for_tensor(tensor, str(self._folder or ""))
                tensor.data_location = onnx.TensorProto.DEFAULT
                tensor.ClearField("external_data")
        return made

    def total(self, model: onnx.ModelProto) -> int:
        """Bytes of the weights of a model."""
        return sum(nbytes(t) for t in model.graph.initializer)

    def without(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A copy in which typed inputs stand for placeholders: what the checker and type inference need."""
        if not any(_is_placeholder(t) for t in model.graph.initializer):
            return model
        made = onnx.ModelProto()
        made.CopyFrom(model)
        given = {v.name for v in made.graph.input}
        del made.graph.initializer[:]
        for tensor in model.graph.initializer:
            if not _is_placeholder(tensor):
                made.graph.initializer.append(tensor)
            elif tensor.name not in given:
                made.graph.input.append(
                    onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
                )
        return made

    def _placeholder(self, tensor: onnx.TensorProto) -> onnx.TensorProto:
        key = f"{len(self._held)}"
        self._held[key] = tensor
        made = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        made.data_location = onnx.TensorProto.EXTERNAL
        made.external_data.add(key=_KEY, value=key)
        return made


def _is_placeholder(tensor: onnx.TensorProto) -> bool:
    return any(e.key == _KEY for e in tensor.external_data)


def _key(tensor: onnx.TensorProto) -> str:
    entries: Any = tensor.external_data
    return next(e.value for e in entries if e.key == _KEY)
