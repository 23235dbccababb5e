"""One model, fed with numbers of any type: what two models of different precision are measured with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from onnx_rewrite.verify.bindings import fed_inputs
from onnx_rewrite.verify.dtypes import FLOATS, HALVES, Array, Tolerance, eps, largest, numpy_dtype
from onnx_rewrite.verify.judge import Subject
from onnx_rewrite.verify.promote import has_halves
from onnx_rewrite.verify.reference import Reference
from onnx_rewrite.verify.session import Session, Unsupported

BFLOAT16 = onnx.TensorProto.BFLOAT16


class Runner:
    """A model in its own precision where onnxruntime has the kernels; else fp16 and bf16 promoted to fp32, and fp64
    evaluated by the float64 reference.

    Args:
        subject: The model.

    Attributes:
        promoted: Whether fp16 and bf16 run as fp32: the rounding of their arithmetic is then not in the results.
        evaluated: Whether the reference stands in for onnxruntime, which has no fp64 kernels for some operators.

    Raises:
        Unsupported: onnxruntime cannot know the model.
        Exception: Whatever onnxruntime raises for a model that it finds invalid.
    """

    def __init__(self, subject: Subject) -> None:
        graph = subject.proto.graph
        self.outputs = [o.name for o in graph.output]
        self._types = {i.name: i.elem_type for i in fed_inputs(subject.proto)}
        # onnxruntime's Python interface takes and gives no bf16.
        ends = {*self._types.values(), *(o.type.tensor_type.elem_type for o in graph.output)}
        self.evaluated = False
        self._session: Session | None = None
        self.promoted = BFLOAT16 in ends
        if self.promoted:
            self._session = subject.promoted().open(0)
            return
        try:
            self._session = subject.open(0)
        except Unsupported:
            if onnx.TensorProto.DOUBLE in ends and onnx.TensorProto.FLOAT not in ends and not has_halves(subject.proto):
                self._reference = Reference(subject.proto, subject.folder)
                self.evaluated = True
                return
            if not has_halves(subject.proto):
                raise
            self.promoted = True
            self._session = subject.promoted().open(0)

    def __call__(self, values: Mapping[str, Array]) -> list[Any]:
        """The outputs in the model's order, for arrays of any number type by input name; others are left out."""
        if self._session is None:
            given = {name: self._cast(name, values[name]) for name in self._types if name in values}
            return list(self._reference(given))
        given = {name: self._cast(name, values[name]) for name in self._session.inputs if name in values}
        return self._session(given, self.outputs)

    def _cast(self, name: str, value: Array) -> Array:
        kind = self._types.get(name, 0)
        if not kind or kind == onnx.TensorProto.STRING:
            return value
        if self.promoted and kind in HALVES:
            return value.astype(np.float32)
        dtype = numpy_dtype(kind)
        return value if value.dtype == dtype else value.astype(dtype)


def coarser(a: int, b: int) -> int:
    """Of two ONNX float types the one with the larger eps."""
    return a if eps(a) >= eps(b) else b


def common(a: onnx.ModelProto, b: onnx.ModelProto, values: Mapping[str, Array]) -> dict[str, Array]:
    """Feeds in A's types whose floats both models can hold: rounded to the coarser type, within its range."""
    theirs = {i.name: i.elem_type for i in fed_inputs(b)}
    found = dict(values)
    for value in fed_inputs(a):
        other = theirs.get(value.name, value.elem_type)
        if value.elem_type in FLOATS and other in FLOATS and value.elem_type != other:
            coarse = coarser(value.elem_type, other)
            top = min(largest(value.elem_type), largest(other))
            array = values[value.name]
            inside = np.where(np.isfinite(array), np.clip(array, -top, top), array)
            found[value.name] = inside.astype(numpy_dtype(coarse)).astype(numpy_dtype(value.elem_type))
    return found


def mixed_bound(tolerance: Tolerance, a: int, b: int, error_a: float, scale: float) -> float:
    """What the judge would accept of A in the coarser of two float types.

    To first order the rounding errors of one algorithm grow in proportion to eps, so A's measured error is scaled by
    the ratio of the two; the floor is that of the coarser type. An extrapolation: sums that are kept in a wider type
    do better, ranges that are left do worse.
    """
    coarse = coarser(a, b)
    return tolerance.bound(coarse, error_a * max(1.0, eps(coarse) / eps(a)), scale)
