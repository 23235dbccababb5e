"""What is known of a model's values: their types, and the numbers of small integers.

Type inference says most of it. Where it says nothing (a shape that is computed, an operator that it does not know), the
model states it, or onnxruntime runs the part that it can run and the values are measured. What remains gets the
element type of a neighbour.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence

import numpy as np
import onnx

from onnx_rewrite.pipeline.minimising.cuts import Values, free_names
from onnx_rewrite.pipeline.minimising.weights import Weights
from onnx_rewrite.verify.dtypes import Array

_MOST_SERIALISED = 1 << 31
_SMALL = 64
"""Elements up to which integers are kept: they are shapes, axes and the like."""

_BINDINGS = 6
_INTEGERS = frozenset({onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL})


class Knowledge:
    """What is known of the values of a model and of what remains of it; names mean the same in all candidates.

    Args:
        model: The model, with placeholders for its weights.
        weights: The weights.
    """

    def __init__(self, model: onnx.ModelProto, weights: Weights) -> None:
        self._model, self._weights = model, weights
        self._stated = _stated(model.graph)
        self._measured: dict[str, Array] | None = None
        self._last: tuple[onnx.ModelProto, Values] | None = None

    def values(self, model: onnx.ModelProto) -> Values:
        """The values of a candidate whose types are known, or that may be guessed at."""
        if self._last is None or self._last[0] is not model:
            self._last = model, self._known(model)
        return self._last[1]

    def numbers(self, name: str) -> Array | None:
        """The measured elements of a small value of integers, or None."""
        if self._measured is None:
            self._measured = self._measure()
        found = self._measured.get(name)
        return found if found is not None and found.dtype.kind in "iub" and found.size <= _SMALL else None

    def again(self, model: onnx.ModelProto) -> None:
        """Names of the model are new, because functions were inlined: it is measured anew."""
        self._model, self._measured, self._last = model, None, None
        self._stated = _stated(model.graph)

    def _known(self, model: onnx.ModelProto) -> Values:
        found = inferred(self._weights.without(model))
        for name in _names(model):
            if not _has_rank(found.get(name)) and _has_rank(self._stated.get(name)):
                found[name] = self._stated[name]
        unknown = [name for name in _names(model) if not _has_rank(found.get(name))]
        if unknown:
            if self._measured is None:
                self._measured = self._measure()
            for name in unknown:
                array = self._measured.get(name)
                if array is not None:
                    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
                    found[name] = onnx.helper.make_tensor_value_info(name, kind, list(array.shape))
            _guess(model.graph.node, found)
        return found

    # -- by running it

    def _measure(self) -> dict[str, Array]:
        """Runs the nodes that onnxruntime can run, on drawn inputs; empty if it can run none."""
        with contextlib.suppress(Exception):  # nothing is measured then, and neighbours' types must do
            if self._weights.total(self._model) < _MOST_SERIALISED:
                return self._run()
        return {}

    def _run(self) -> dict[str, Array]:
        from onnx_rewrite.verify.feeds import Source
        from onnx_rewrite.verify.regimes import LOCAL
        from onnx_rewrite.verify.session import Session

        part, names = _runnable(self._model)
        types = inferred(self._weights.without(self._model))
        wanted = [n for n in names if not _has_rank(types.get(n)) or types[n].type.tensor_type.elem_type in _INTEGERS]
        if not wanted:
            return {}
        part.graph.ClearField("output")
        part.graph.ClearField("value_info")
        part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
        source = Source(part, 0)
        session = Session(self._weights.filled(part))
        for binding in itertools.islice(source.bindings(), _BINDINGS):
            with contextlib.suppress(Exception):  # sizes that do not go together
                found = session(source.draw(LOCAL[0], binding).values, wanted)
                return {n: a for n, a in zip(wanted, found, strict=True) if isinstance(a, np.ndarray)}
        return {}


def _runnable(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """The nodes that need nothing unknown, as a model, and what they give."""
    from onnx_rewrite.verify.session import DOMAINS

    bodies = {(f.domain, f.name) for f in model.functions}
    made = onnx.ModelProto()
    made.CopyFrom(model)
    there = {v.name for v in made.graph.input} | {t.name for t in made.graph.initializer}
    there |= {t.values.name for t in made.graph.sparse_initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if (node.domain in DOMAINS or (node.domain, node.op_type) in bodies) and free_names(node) <= there:
            nodes.append(node)
            there.update(name for name in node.output if name)
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made, [name for node in nodes for name in node.output if name]


# -- by inference


def inferred(model: onnx.ModelProto) -> Values:
    """The values whose types onnx infers, or the model states."""
    with contextlib.suppress(Exception):  # what cannot be inferred stays as it is
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return _stated(model.graph)


def _stated(graph: onnx.GraphProto) -> Values:
    found = {v.name: v for v in (*graph.value_info, *graph.output, *graph.input) if v.type.WhichOneof("value")}
    for tensor in graph.initializer:
        info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        found.setdefault(tensor.name, info)
    return found


def _has_rank(value: onnx.ValueInfoProto | None) -> bool:
    if value is None:
        return False
    tensor = value.type.tensor_type
    return not value.type.HasField("tensor_type") or (bool(tensor.elem_type) and tensor.HasField("shape"))


def _names(model: onnx.ModelProto) -> list[str]:
    return [name for node in model.graph.node for name in node.output if name]


def _guess(nodes: Sequence[onnx.NodeProto], found: Values) -> None:
    """Gives values without a type the element type of an operand, else of an operand beside them, without a shape."""
    for node in nodes:
        typed = [found[n] for n in node.input if n in found and found[n].type.HasField("tensor_type")]
        if not typed:
            continue
        kind = typed[0].type.tensor_type.elem_type
        for name in (*node.output, *node.input):
            if name and name not in found:
                found[name] = onnx.helper.make_tensor_value_info(name, kind, None)
