"""Reduces a model to the smallest that still shows something: delta debugging over nodes, outputs, constants and dims.

The reduction of sets follows Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input" (2002): chunks
are taken away, the largest first, and halved where none can go.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import monotonic

import numpy as np
import onnx
from onnx import numpy_helper

Predicate = Callable[[onnx.ModelProto], bool]


class NotInteresting(ValueError):
    """The predicate does not hold for the model as it was given: there is nothing to keep while reducing."""


class Minimiser:
    """Reduces one model. Where shape inference finds no type, a value cannot become an input, and more remains.

    Args:
        model: The model; it is not changed. Weights must be in it.
        predicate: Whether a model still shows what is looked for. It is asked about valid models only; what it raises
            counts as no.
        seconds: When to stop and return the smallest found so far; None: at the end.
        progress: Told the number of nodes after each success.

    Attributes:
        asked: How often the predicate was asked.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        predicate: Predicate,
        *,
        seconds: float | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._best = _copy(model)
        self._predicate = predicate
        self._until = None if seconds is None else monotonic() + seconds
        self._progress = progress
        self._strict = False
        self._known: dict[bytes, bool] = {}
        self._inferred: tuple[onnx.ModelProto, Values] | None = None
        self.asked = 0

    def run(self) -> onnx.ModelProto:
        """The smallest model found.

        Raises:
            NotInteresting: The predicate does not hold for the model itself.
        """
        if not self._holds(self._best):
            raise NotInteresting("the model as it is does not show what is looked for")
        self._strict = _is_valid(self._best, full=True)
        before = b""
        while before != (before := self._best.SerializeToString(deterministic=True)) and not self._late():
            self._reduce_nodes()
            self._reduce_outputs()
            self._bypass()
            self._simplify_constants()
            self._shrink_dims()
        self._try(_bare(self._best))
        return self._best

    # -- asking

    def _values(self) -> Values:
        """Types of the best model's values, inferred once."""
        if self._inferred is None or self._inferred[0] is not self._best:
            self._inferred = self._best, _values(self._best)
        return self._inferred[1]

    def _late(self) -> bool:
        return self._until is not None and monotonic() > self._until

    def _holds(self, candidate: onnx.ModelProto) -> bool:
        key = hashlib.sha256(candidate.SerializeToString(deterministic=True)).digest()
        if key not in self._known:
            self.asked += 1
            try:
                self._known[key] = bool(self._predicate(candidate))
            except Exception:  # a candidate that breaks the predicate does not show what is looked for
                self._known[key] = False
        return self._known[key]

    def _try(self, candidate: onnx.ModelProto | None) -> bool:
        """Takes a candidate that is valid, differs, and still shows it."""
        if candidate is None or self._late():
            return False
        if candidate == self._best or not _is_valid(candidate, full=self._strict) or not self._holds(candidate):
            return False
        self._best = candidate
        if self._progress is not None:
            self._progress(len(candidate.graph.node))
        return True

    # -- steps

    def _reduce_nodes(self) -> None:
        """Takes chunks of nodes out; what they gave becomes an input."""
        size = max(1, len(self._best.graph.node) // 2)
        while not self._late():
            start = 0
            while start < len(self._best.graph.node):
                kept = [i for i in range(len(self._best.graph.node)) if not start <= i < start + size]
                if not (kept and self._try(_subgraph(self._best, kept, self._values()))):
                    start += size
            if size == 1:
                return
            size = max(1, size // 2)

    def _reduce_outputs(self) -> None:
        for name in [o.name for o in self._best.graph.output]:
            names = [o.name for o in self._best.graph.output if o.name != name]
            if names:
                self._try(_with_outputs(self._best, names, self._values()))

    def _bypass(self) -> None:
        """Lets readers of a node's output read one of its inputs of the same type."""
        for node in list(self._best.graph.node):
            types = _types(self._values())
            for source in node.input:
                target = node.output[0] if node.output else ""
                alike = bool(source) and target in types and types.get(source) == types[target]
                if alike and self._try(_redirected(self._best, target, source, self._values())):
                    break

    def _simplify_constants(self) -> None:
        for name in [t.name for t in self._best.graph.initializer]:
            for value in (0, 1):
                if self._try(_filled(self._best, name, value)):
                    break

    def _shrink_dims(self) -> None:
        """Makes free dimensions of inputs smaller; what does not fit any longer is not valid and not taken."""
        for number, value in enumerate(self._best.graph.input):
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                for size in (1, 2):
                    larger = dim.dim_value > size or bool(dim.dim_param)
                    if larger and self._try(_resized(self._best, number, axis, size)):
                        break


def minimise(
    model: onnx.ModelProto,
    predicate: Predicate,
    *,
    seconds: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> onnx.ModelProto:
    """Reduces a model to the smallest found for which the predicate still holds; see `Minimiser`.

    Raises:
        NotInteresting: It does not hold for the model itself.
    """
    return Minimiser(model, predicate, seconds=seconds, progress=progress).run()


# -- candidates: each a new model, or None where there is none


def _is_valid(model: onnx.ModelProto, *, full: bool) -> bool:
    try:
        onnx.checker.check_model(model, full_check=full)
    except Exception:  # onnx raises more kinds than its own
        return False
    return True


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made


def _bare(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without words and types that say nothing new."""
    made = _copy(model)
    for field in ("metadata_props", "doc_string", "producer_name", "producer_version", "training_info"):
        made.ClearField(field)  # type: ignore[arg-type]
    for field in ("value_info", "doc_string", "metadata_props", "quantization_annotation"):
        made.graph.ClearField(field)  # type: ignore[arg-type]
    for node in made.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    return made


def free_names(node: onnx.NodeProto) -> set[str]:
    """What a node reads: its inputs, and what its bodies take from outside."""
    found = {name for name in node.input if name}
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            inside = {v.name for v in graph.input} | {t.name for t in graph.initializer}
            for inner in graph.node:
                found |= free_names(inner) - inside
                inside.update(inner.output)
            found |= {v.name for v in graph.output} - inside
    return found


Values = dict[str, onnx.ValueInfoProto]


def _types(values: Values) -> dict[str, bytes]:
    return {name: value.type.SerializeToString(deterministic=True) for name, value in values.items()}


def _values(model: onnx.ModelProto) -> Values:
    """The values whose types are known."""
    with contextlib.suppress(Exception):  # what cannot be inferred stays as it is
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    graph = model.graph
    found = {v.name: v for v in (*graph.value_info, *graph.output, *graph.input) if v.type.WhichOneof("value")}
    for tensor in graph.initializer:
        found.setdefault(
            tensor.name, onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )
    return found


def _subgraph(model: onnx.ModelProto, kept: Sequence[int], values: Values) -> onnx.ModelProto | None:
    """The model of some of its nodes: what they read and do not make becomes an input, what others read an output."""
    graph = model.graph
    nodes = [graph.node[i] for i in kept]
    chosen = set(kept)
    made = {name for node in nodes for name in node.output if name}
    read = set().union(*(free_names(node) for node in nodes))
    outside = {name for i, node in enumerate(graph.node) if i not in chosen for name in free_names(node)}
    weights = {t.name for t in graph.initializer}
    wanted = [n for n in _in_order(nodes) if n in outside or n in {o.name for o in graph.output}]
    ends = wanted or [n for n in _in_order(nodes) if n not in read]
    return _assembled(
        model, nodes, [n for n in _ordered(graph, read) if n not in made and n not in weights], ends, values
    )


def _with_outputs(model: onnx.ModelProto, names: Sequence[str], values: Values) -> onnx.ModelProto | None:
    """The model with some of its outputs, and the nodes that they need."""
    needed, nodes = set(names), list[onnx.NodeProto]()
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed |= free_names(node)
    nodes.reverse()
    inputs = [v.name for v in model.graph.input if v.name in needed]
    return _assembled(model, nodes, inputs, names, values) if nodes else None


def _redirected(model: onnx.ModelProto, old: str, new: str, values: Values) -> onnx.ModelProto | None:
    made = _copy(model)
    for node in made.graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new
    if any(o.name == old for o in made.graph.output) or any(old in free_names(n) for n in made.graph.node):
        return None
    return _with_outputs(made, [o.name for o in made.graph.output], values)


def _filled(model: onnx.ModelProto, name: str, value: int) -> onnx.ModelProto | None:
    made = _copy(model)
    for tensor in made.graph.initializer:
        if tensor.name == name:
            array = numpy_helper.to_array(tensor)
            if array.dtype.kind not in "fiu" or (array == 0).all() or (array == value).all():
                return None
            tensor.CopyFrom(numpy_helper.from_array(np.full_like(array, value), name))
    return made


def _resized(model: onnx.ModelProto, number: int, axis: int, size: int) -> onnx.ModelProto | None:
    """The model with one dimension of one input changed, wherever its symbol stands; outputs are inferred anew."""
    made = _copy(model)
    dim = made.graph.input[number].type.tensor_type.shape.dim[axis]
    symbol = dim.dim_param
    dim.dim_value = size
    for value in (*made.graph.input, *made.graph.output):
        for other in value.type.tensor_type.shape.dim:
            if symbol and other.dim_param == symbol:
                other.dim_value = size
    made.graph.ClearField("value_info")
    for value in made.graph.output:
        value.type.tensor_type.ClearField("shape")
    values = _values(made)
    for value in made.graph.output:
        if value.name not in values:
            return None
        value.CopyFrom(values[value.name])
    return made


def _assembled(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[str],
    outputs: Sequence[str],
    values: Values,
) -> onnx.ModelProto | None:
    if not outputs or any(name not in values for name in (*inputs, *outputs)):
        return None
    made = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    made.graph.name = model.graph.name
    read = {name for node in nodes for name in free_names(node)} | set(outputs)
    tensors = [t for t in model.graph.initializer if t.name in read]
    made.graph.node.extend(nodes)
    made.graph.initializer.extend(tensors)
    made.graph.input.extend(values[name] for name in inputs)
    made.graph.output.extend(values[name] for name in outputs)
    ends = {*inputs, *outputs}
    made.graph.value_info.extend(values[n] for n in _in_order(nodes) if n in values and n not in ends)
    called = {(n.domain, n.op_type) for n in _all_nodes([*nodes, *(n for f in model.functions for n in f.node)])}
    made.functions.extend(f for f in model.functions if (f.domain, f.name) in called)
    return made


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _all_nodes(graph.node)


def _in_order(nodes: Iterable[onnx.NodeProto]) -> list[str]:
    return [name for node in nodes for name in node.output if name]


def _ordered(graph: onnx.GraphProto, names: set[str]) -> list[str]:
    """Names in the order of the graph: its inputs first."""
    order = [*(v.name for v in graph.input), *_in_order(graph.node)]
    return [name for name in dict.fromkeys(order) if name in names]
