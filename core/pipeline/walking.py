"""Gives the values of a model's main graph batch by batch, running every node once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from onnx_rewrite.pipeline import boundary
from onnx_rewrite.verify.bindings import fed_inputs
from onnx_rewrite.verify.dtypes import Array

Evaluate = Callable[[onnx.ModelProto, Mapping[str, Array]], Sequence[Any]]
"""Gives the outputs of a model in its order, for arrays by input name."""


class Walk:
    """Walks through a model. Between two batches no more is kept than what later nodes, or later batches, need.

    Args:
        model: The model; its nodes are in topological order.
        feeds: Its inputs.
        wanted: All values that will be asked for.
        types: ONNX element types by name, as far as they are known.
        evaluate: Runs a part of it.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        feeds: Mapping[str, Array],
        wanted: Iterable[str],
        types: Mapping[str, int],
        evaluate: Evaluate,
    ) -> None:
        self._model, self._feeds, self._types, self._evaluate = model, dict(feeds), types, evaluate
        self._left = [(node, boundary.uses(node)) for node in model.graph.node]
        self._wanted = set(wanted)
        self._known: dict[str, Any] = dict(feeds)
        self._inputs = {v.name: v for v in model.graph.input}
        self._fed = {i.name for i in fed_inputs(model)}
        self._whole = False

    def __call__(self, names: Sequence[str]) -> dict[str, Any]:
        """Some values by name; where it raises, nothing has changed, and others can still be asked for.

        Raises:
            Exception: Whatever the evaluation raises.
        """
        if not self._whole:
            try:
                return self._step(names)
            except Exception:
                if len(names) > 1:
                    raise
                # Perhaps it is not this value but one that would have to be kept for later nodes: from now on every
                # batch begins at the inputs, and keeps nothing.
                self._whole = True
        part = boundary.part(self._model, [self._info(name) for name in names])
        feeds = {v.name: self._feeds[v.name] for v in part.graph.input if v.name in self._feeds}
        return dict(zip(names, self._evaluate(part, feeds), strict=True))

    def drop(self, names: set[str]) -> None:
        """Leaves out the nodes that give these values, and what depends on them is the caller's to leave out."""
        self._left = [(node, uses) for node, uses in self._left if names.isdisjoint(node.output)]
        self._wanted -= names

    def _step(self, names: Sequence[str]) -> dict[str, Any]:
        asked = [name for name in names if name not in self._known]
        needed = set(asked)
        run: list[onnx.NodeProto] = []
        rest: list[tuple[onnx.NodeProto, set[str]]] = []
        for node, uses in reversed(self._left):
            if needed.isdisjoint(node.output):
                rest.append((node, uses))
            else:
                run.append(node)
                needed |= uses
        run.reverse()
        rest.reverse()
        later = (self._wanted - set(names)).union(*(uses for _, uses in rest))
        made = [name for node in run for name in node.output if name]
        kept = [name for name in made if name in later and name not in needed.intersection(asked)]
        outputs = [*asked, *kept]
        found: dict[str, Any] = {name: self._known[name] for name in names if name in self._known}
        values: dict[str, Any] = {}
        if outputs:
            inputs = {name: self._known[name] for name in sorted(needed & set(self._known))}
            part = boundary.cut(self._model, run, self._given(inputs), [self._info(name) for name in outputs])
            values = dict(zip(outputs, self._evaluate(part, inputs), strict=True))
        found.update({name: values[name] for name in asked})
        if any(not isinstance(values[name], np.ndarray) for name in values if name in later):
            self._whole = True  # a sequence cannot be an input of the next part
            return found
        self._wanted -= set(names)
        self._known = {name: value for name, value in {**self._known, **values}.items() if name in later}
        self._left = rest
        return found

    def _given(self, inputs: Mapping[str, Array]) -> list[onnx.ValueInfoProto]:
        made: list[onnx.ValueInfoProto] = []
        for name, value in inputs.items():
            if name in self._fed:
                made.append(self._inputs[name])
                continue
            info = onnx.ValueInfoProto(name=name)
            kind = self._types.get(name) or int(onnx.helper.np_dtype_to_tensor_dtype(value.dtype))
            info.type.tensor_type.elem_type = kind
            made.append(info)
        return made

    def _info(self, name: str) -> onnx.ValueInfoProto:
        made = onnx.ValueInfoProto(name=name)
        if self._types.get(name):
            made.type.tensor_type.elem_type = self._types[name]
        return made
