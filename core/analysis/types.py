"""Fills in the types and shapes that a model does not state, by onnx's own shape inference.

Weights stay where they are: inference sees a skeleton of the model in which every value bears a name of its own, so
that results find their way back whatever names the scopes of the model share.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import onnx
import onnx_ir as ir

from onnx_rewrite.analysis.skeleton import Skeleton, bodies
from onnx_rewrite.collector import collector_paused
from onnx_rewrite.model.nodes import INFERRED_KEY

_Attributes = Mapping[str, ir.Attr]
_Identifier = tuple[str, str, str]


def is_incomplete(value: ir.Value) -> bool:
    """Whether the type, or the rank of a tensor, is not known."""
    kind = value.type
    return kind is None or (value.shape is None and isinstance(kind, ir.TensorType))


def complete_types(model: ir.Model) -> int:
    """Gives every value that has no type, or no rank, those that `onnx.shape_inference` finds.

    Bodies of If, Loop and Scan are covered, and bodies of model-local functions where all calls agree on dtypes and
    ranks. What the model states is never changed. Each value that was filled in has `INFERRED_KEY` in its `meta`.
    Symbols that inference invents ("unk__0") are kept apart from the model's own and from those of earlier calls.

    Returns:
        How many values were filled in. Where inference fails, the values stay as they are.
    """
    if not _any_missing(model.graph) and not any(_any_missing(f.graph) for f in model.functions.values()):
        return 0
    with collector_paused():
        work = _Completion(model)
        work.scope(model.graph, model.opset_imports, {})
        for function in _callers_first(model):
            work.function(function)
    return work.filled


def _any_missing(graph: ir.Graph) -> bool:
    if any(is_incomplete(v) for v in graph.inputs):
        return True
    for node in graph:  # spelled out: this is asked of every node of every model
        for value in node.outputs:
            if (value.type is None or value.shape is None) and value.name != "" and is_incomplete(value):
                return True
        if node.attributes and any(_any_missing(body) for body in bodies(node)):
            return True
    return False


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    """All values of a graph and of its bodies that inference can say something about."""
    yield from graph.inputs
    for node in graph:
        for value in node.outputs:
            if value.name != "":
                yield value
        for body in bodies(node):
            yield from _values(body)


def _all_nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    for node in graph:
        yield node
        for body in bodies(node):
            yield from _all_nodes(body)


def _calls(model: ir.Model) -> dict[_Identifier, list[tuple[ir.Node, _Identifier | None]]]:
    """The nodes that call each model-local function, with the function that they stand in (None: the main graph)."""
    found: dict[_Identifier, list[tuple[ir.Node, _Identifier | None]]] = {i: [] for i in model.functions}
    places: list[tuple[ir.Graph, _Identifier | None]] = [(model.graph, None)]
    places += [(f.graph, i) for i, f in model.functions.items()]
    for graph, caller in places:
        for node in _all_nodes(graph):
            if node.op_identifier() in found:
                found[node.op_identifier()].append((node, caller))
    return found


def _callers_first(model: ir.Model) -> list[ir.Function]:
    if not model.functions:
        return []
    callers = {i: {c for _, c in calls if c is not None} for i, calls in _calls(model).items()}
    done: dict[_Identifier, None] = {}
    # At most as many rounds as functions; a cycle of calls, which is not valid, is left out.
    for _ in callers:
        for identifier, needed in callers.items():
            if identifier not in done and all(c in done for c in needed):
                done[identifier] = None
    return [model.functions[i] for i in done]


class _Completion:
    """One run over a model."""

    def __init__(self, model: ir.Model) -> None:
        self.filled = 0
        self._model = model
        self._functions: list[onnx.FunctionProto] | None = None
        self._symbols: set[str] | None = None
        self._next = 0
        self._calls = _calls(model) if model.functions else {}

    def scope(self, graph: ir.Graph, opsets: Mapping[str, int], attributes: _Attributes) -> None:
        """A graph, then those of its bodies that inference of the whole said nothing about."""
        if not _any_missing(graph):
            return
        self._infer(graph, opsets, attributes)
        for node in graph:
            for body in bodies(node):
                self.scope(body, opsets, attributes)

    def function(self, function: ir.Function) -> None:
        """A function's body, with the types and attributes that its calls agree on."""
        calls = [node for node, _ in self._calls[function.identifier()]]
        if not calls:
            return
        for index, value in enumerate(function.inputs):
            if is_incomplete(value):
                _agree(value, [c.inputs[index] if index < len(c.inputs) else None for c in calls])
                self.filled += not is_incomplete(value)
        agreed: dict[str, ir.Attr] = {}
        for name, default in function.attributes.items():
            given = [call.attributes.get(name, default) for call in calls]
            first = given[0]
            same = all(not a.is_ref() and a.type == first.type and a.value == first.value for a in given)
            if same and first.value is not None:
                agreed[name] = first
        self.scope(function.graph, function.opset_imports, agreed)

    def _infer(self, graph: ir.Graph, opsets: Mapping[str, int], attributes: _Attributes) -> None:
        skeleton = Skeleton(graph, attributes, opsets)
        if self._functions is None:
            self._functions = [p for f in self._model.functions.values() if (p := _message(f)) is not None]
        imports = [onnx.helper.make_opsetid(domain, version) for domain, version in skeleton.opsets.items()]
        proto = onnx.ModelProto(
            ir_version=max(self._model.ir_version, 8),
            graph=skeleton.proto,
            opset_import=imports,
            functions=self._functions,
        )
        try:
            inferred = onnx.shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)
        except Exception:  # a C++ error of any kind: nothing was learnt, and nothing is changed
            return
        types = dict(_types(inferred.graph))
        symbols = {name: name for name in skeleton.symbols}
        for name, value in skeleton.values.items():
            if name in types and is_incomplete(value):
                self._fill(value, types[name], symbols)

    def _fill(self, value: ir.Value, proto: onnx.TypeProto, symbols: dict[str, str]) -> None:
        kind, shape = _read(proto)
        if kind is None:
            return
        if value.type is None:
            value.type = kind
        elif value.type != kind or shape is None:
            return
        if value.shape is None and shape is not None:
            value.shape = ir.Shape([self._own(d, symbols) if isinstance(d, str) else d for d in shape])
        value.meta[INFERRED_KEY] = True
        self.filled += 1

    def _own(self, name: str, symbols: dict[str, str]) -> str:
        """The symbol; if this inference invented it, under a name that is new: others invent the same ones."""
        if name in symbols:
            return symbols[name]
        if self._symbols is None:
            self._symbols = _symbols(self._model)
        own = name
        if own in self._symbols:
            own = next(n for n in (f"unk__{i}" for i in itertools.count(self._next)) if n not in self._symbols)
            self._next = int(own.removeprefix("unk__")) + 1
        self._symbols.add(own)
        symbols[name] = own
        return own


def _message(function: ir.Function) -> onnx.FunctionProto | None:
    """A function for inference; None if onnx_ir cannot write it, because of a sparse constant: its calls stay open."""
    try:
        return ir.serde.serialize_function(function)
    except ir.serde.SerdeError:
        return None


def _read(proto: onnx.TypeProto) -> tuple[ir.TypeProtocol | None, list[int | str | None] | None]:
    """A type and a shape; None for what is not known, and for map types, which onnx_ir has not."""
    if proto.WhichOneof("value") != "tensor_type":
        try:
            kind = ir.serde.deserialize_type_proto_for_type(proto)
        except Exception:
            return None, None
        return kind, None
    tensor = proto.tensor_type
    if not tensor.elem_type:
        return None, None
    kind = ir.TensorType(ir.DataType(tensor.elem_type))
    if not tensor.HasField("shape"):
        return kind, None
    return kind, [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim]


def _symbols(model: ir.Model) -> set[str]:
    graphs = [model.graph, *(f.graph for f in model.functions.values())]
    shapes = (v.shape for g in graphs for v in _values(g) if v.shape is not None)
    return {d.value for s in shapes for d in s if isinstance(d, ir.SymbolicDim) and d.value is not None}


def _agree(value: ir.Value, given: list[ir.Value | None]) -> None:
    """Types a function's input, if all calls give it the same dtype and rank."""
    known = [v for v in given if v is not None and v.shape is not None and isinstance(v.type, ir.TensorType)]
    if len(known) != len(given):
        return
    shapes = [list(v.shape) for v in known if v.shape is not None]
    if any(v.type != known[0].type for v in known) or any(len(s) != len(shapes[0]) for s in shapes):
        return
    value.type = known[0].type
    # Symbols belong to the caller: they say nothing here, unless there is only one call.
    value.shape = ir.Shape([d[0] if all(e == d[0] for e in d) else None for d in zip(*shapes, strict=True)])
    value.meta[INFERRED_KEY] = True


def _types(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TypeProto]]:
    for info in itertools.chain(graph.input, graph.value_info, graph.output):
        if info.HasField("type"):
            yield info.name, info.type
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _types(attribute.g)
            elif attribute.type == onnx.AttributeProto.GRAPHS:
                for inner in attribute.graphs:
                    yield from _types(inner)
