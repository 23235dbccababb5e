"""A model as an onnx-graphsurgeon graph, and what a function changed in it.

graphsurgeon's objects are mutable and forget much of the file. So the graph is only ever compared with what it was when
it was made: the difference is carried over to the model, and everything else of the model stays.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnx_rewrite.analysis.skeleton import bodies
from onnx_rewrite.errors import UsageError

Where = tuple[str, ...]
"""A graph: () is the main one, ("function", "0") the first function, then node and attribute for each body."""

Key = tuple[Where, str]
"""A value by its graph and name, or a node by its graph and first output."""


class CannotCarry(Exception):
    """What a function left cannot be made a model; the message says why."""


def graphsurgeon() -> Any:
    """The package.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import onnx_graphsurgeon as gs
    except ImportError as error:
        raise UsageError(
            "onnx-graphsurgeon is not installed", hint="pip install 'onnx-rewrite[graphsurgeon]'"
        ) from error
    return gs


def open_graph(proto: onnx.ModelProto, folder: Path | None, model: ir.Model | None = None) -> Any:
    """A model as a `gs.Graph`, whose constants are read from where they lie.

    Args:
        proto: The model; the graph's constants are its tensors.
        folder: Where its external data lies.
        model: The same model as IR: the graph is told the types that were inferred for it.

    Raises:
        UsageError: onnx-graphsurgeon is not installed.
    """
    graph = graphsurgeon().import_onnx(proto)
    inferred = {} if model is None else types_by_place(model)
    lazy = _lazy_class()
    for where, each in scopes(graph):
        constants = [value for node in each.nodes for value in node.attrs.values() if is_constant(value)]
        for tensor in tensors_of(each):
            if is_constant(tensor):
                constants.append(tensor)
            elif (where, tensor.name) in inferred:
                _complete(tensor, inferred[where, tensor.name])
        for constant in constants:
            data = getattr(constant._values, "tensor", None)
            if isinstance(data, onnx.TensorProto) and data.data_location == onnx.TensorProto.EXTERNAL:
                constant._values = lazy(data, folder)
    return graph


def _complete(tensor: Any, known: ir.Value) -> None:
    if tensor.type == "tensor_type":
        if tensor.dtype is None:
            tensor.dtype = _numpy_dtype(known.dtype)
        if tensor.shape is None and tensor.dtype is not None:
            tensor.shape = _shape(known)


@dataclass(eq=False)
class NodeState:
    """A node as it was before the function."""

    node: Any
    where: Where
    key: str
    op: str
    domain: str
    name: str
    inputs: list[Hashable]
    outputs: list[Hashable]
    attrs: dict[str, Any]

    @property
    def label(self) -> str:
        """Its name, or that of its first output."""
        return self.name or (self.key if not self.key.startswith("\0") else "")


@dataclass(eq=False)
class TensorState:
    """A value as it was before the function."""

    tensor: Any
    key: Key
    name: str
    values: Any  # of a constant
    described: Hashable  # dtype and shape of any other


def node_key(names: list[str], number: int) -> str:
    """What identifies a node in its graph: its first output, or its number."""
    return next((name for name in names if name), f"\0{number}")


class Before:
    """A graph for a function, with a record of all that is in it.

    Args:
        proto: The model. The graph's weights are its tensors.
        folder: Where its external data lies.
        model: The same model as IR: the function is told the types that were inferred for it.

    Attributes:
        graph: The `gs.Graph`.
        nodes: State by id of the node.
        tensors: State by id of the tensor.
        wheres: Place by id of the graph.
    """

    def __init__(self, proto: onnx.ModelProto, folder: Path | None, model: ir.Model) -> None:
        self.graph = open_graph(proto, folder, model)
        self.nodes: dict[int, NodeState] = {}
        self.tensors: dict[int, TensorState] = {}
        self.wheres: dict[int, Where] = {}
        self.by_key: dict[Key, TensorState] = {}
        self.at: dict[Key, NodeState] = {}
        for where, graph in scopes(self.graph):
            self._record(where, graph)
        self.fields = fields_of(self.graph)
        self.interface = interface(self.graph)

    def _record(self, where: Where, graph: Any) -> None:
        self.wheres[id(graph)] = where
        for tensor in tensors_of(graph):
            self._tensor(where, tensor)
        for number, node in enumerate(graph.nodes):
            state = NodeState(
                node=node,
                where=where,
                key=node_key([t.name for t in node.outputs], number),
                op=node.op,
                domain=node.domain or "",
                name=node.name,
                inputs=[self.key(t) for t in node.inputs],
                outputs=[self.key(t) for t in node.outputs],
                attrs={name: frozen(value) for name, value in node.attrs.items()},
            )
            self.nodes[id(node)] = state
            self.at[where, state.key] = state

    def _tensor(self, where: Where, tensor: Any) -> None:
        if id(tensor) in self.tensors or tensor.is_empty():
            return
        values = getattr(tensor, "_values", None)
        state = TensorState(
            tensor, (where, tensor.name), tensor.name, values, None if is_constant(tensor) else described(tensor)
        )
        self.tensors[id(tensor)] = state
        self.by_key.setdefault(state.key, state)

    def key(self, tensor: Any) -> Hashable:
        """The key of a value of the graph as it was; None for an optional one that is absent."""
        return None if tensor.is_empty() else self.tensors[id(tensor)].key


@dataclass(eq=False)
class NodeNow:
    """A node as the function left it.

    Attributes:
        node: graphsurgeon's.
        where: Its graph; of a new body, a place that no other has.
        was: What it was, None for a new one.
        altered: Whether operator, name or an attribute is another.
        rewired: Whether it reads or gives other values, or stands in another graph.
    """

    node: Any
    where: Where
    was: NodeState | None
    inputs: list[Hashable] = field(default_factory=list[Hashable])
    outputs: list[Hashable] = field(default_factory=list[Hashable])
    altered: bool = False
    rewired: bool = False


class After:
    """What a function left, beside what there was.

    Attributes:
        scopes: The graphs, outer before inner, with their nodes.
        removed: Nodes that are gone.
        changed_values: Keys of constants with other numbers, and of values with another name or type.
        tensors: A tensor for every key.
        fields: As `fields_of`.
    """

    def __init__(self, before: Before, graph: Any) -> None:
        self.before = before
        self.graph = graph
        self.scopes: list[tuple[Where, Any, list[NodeNow]]] = []
        self.tensors: dict[Hashable, Any] = {}
        self._keys: dict[int, Hashable] = {}
        self._new_graphs: list[Any] = []  # keeps them alive, so that their ids stay theirs
        listed = list(self._listed())
        present = {id(t) for _, g in listed for t in tensors_of(g)}
        standing = {id(node) for _, g in listed for node in g.nodes}
        self._taken: set[Key] = set()
        for where, g in listed:
            for tensor in tensors_of(g):
                self._settle(where, tensor, present)
        matched: set[int] = set()
        for where, g in listed:
            nodes = [self._node(where, node, standing, matched) for node in g.nodes]
            self.scopes.append((where, g, nodes))
        self.removed = [state for key, state in before.nodes.items() if key not in matched]
        self.changed_values = [key for key in self.tensors if self._value_changed(key)]
        self.fields = fields_of(graph)
        if graph is not before.graph:  # a copy forgets some of these
            for name in ("name", "doc_string", "producer_name", "producer_version", "ir_version"):
                self.fields[name] = self.fields[name] or before.fields[name]

    def key(self, tensor: Any) -> Hashable:
        """The key of a value, that of its predecessor where it has one; None for an absent one."""
        return None if tensor.is_empty() else self._keys[id(tensor)]

    @property
    def constants(self) -> set[Hashable]:
        """Keys of the values that were constants before, those of Constant nodes too."""
        before = self.before
        found: set[Hashable] = {key for key, state in before.by_key.items() if state.described is None}
        return found.union(key for state in before.nodes.values() if state.op == "Constant" for key in state.outputs)

    @property
    def added(self) -> list[NodeNow]:
        """New nodes."""
        return [now for _, _, nodes in self.scopes for now in nodes if now.was is None]

    @property
    def altered(self) -> list[NodeNow]:
        """Nodes with another operator, name or attribute."""
        return [now for _, _, nodes in self.scopes for now in nodes if now.altered]

    @property
    def rewired(self) -> list[NodeNow]:
        """Nodes that read or give other values."""
        return [now for _, _, nodes in self.scopes for now in nodes if now.rewired]

    @property
    def nothing(self) -> bool:
        """Whether the function changed nothing."""
        before = self.before
        wheres = [where for where, _, _ in self.scopes]
        same_graphs = len(wheres) == len(before.wheres) and set(wheres) == set(before.wheres.values())
        return (
            not (self.added or self.altered or self.rewired or self.removed or self.changed_values)
            and same_graphs
            and self.fields == before.fields
            and interface(self.graph) == before.interface
        )

    def _listed(self) -> Iterator[tuple[Where, Any]]:
        """The graphs with their places: a known one keeps its own."""
        for where, graph in scopes(self.graph):
            known = self.before.wheres.get(id(graph))
            if known is None and where not in self.before.wheres.values():
                self._new_graphs.append(graph)
            yield (where if known is None else known), graph

    def _settle(self, where: Where, tensor: Any, present: set[int]) -> None:
        if id(tensor) in self._keys or tensor.is_empty():
            return
        state = self.before.tensors.get(id(tensor))
        key: Hashable = id(tensor) if state is None else state.key
        if state is None:  # a copy, or what takes the place of a value that is gone
            for depth in range(len(where), -1, -1):
                old = self.before.by_key.get((where[:depth], tensor.name))
                if old is not None and id(old.tensor) not in present and old.key not in self._taken:
                    key = old.key
                    self._taken.add(old.key)
                    break
        self._keys[id(tensor)] = key
        self.tensors[key] = tensor

    def _node(self, where: Where, node: Any, standing: set[int], matched: set[int]) -> NodeNow:
        now = NodeNow(node, where, self.before.nodes.get(id(node)))
        now.inputs = [self.key(t) for t in node.inputs]
        now.outputs = [self.key(t) for t in node.outputs]
        if now.was is None:
            place = next((k for k in now.outputs if isinstance(k, tuple)), None)
            old = None if place is None else self.before.at.get((where, place[1]))
            if (
                old is not None
                and id(old.node) not in standing
                and id(old.node) not in matched
                and (old.op, old.domain, old.outputs) == (node.op, node.domain or "", now.outputs)
            ):
                now.was = old
        was = now.was
        if was is None:
            return now
        if id(was.node) in matched:
            raise CannotCarry(f"node '{was.label}' stands in the graph twice")
        matched.add(id(was.node))
        attributes = was.attrs.keys() == node.attrs.keys() and all(
            same_attribute(value, node.attrs[name]) for name, value in was.attrs.items()
        )
        now.altered = (was.op, was.domain, was.name) != (node.op, node.domain or "", node.name) or not attributes
        now.rewired = (was.where, was.inputs, was.outputs) != (where, now.inputs, now.outputs)
        return now

    def _value_changed(self, key: Hashable) -> bool:
        old, tensor = self.before.by_key.get(key), self.tensors[key]  # type: ignore[arg-type]
        if old is None:
            return False
        if old.name != tensor.name or is_constant(tensor) != (old.described is None):
            return True
        if is_constant(tensor):
            return not same_values(old.values, tensor._values)
        if tensor.dtype is None and id(tensor) not in self.before.tensors:  # a copy that went through a file
            return False
        return described(tensor) != old.described


def _lazy_class() -> Any:
    from onnx_graphsurgeon.ir.tensor import LazyValues  # type: ignore[import-not-found]

    class External(LazyValues):
        """Values in a file of their own, which graphsurgeon would look for in the working directory."""

        def __init__(self, tensor: onnx.TensorProto, folder: Path | None) -> None:
            super().__init__(tensor)
            self.folder = folder

        def load(self) -> Any:
            return np.array(onnx.numpy_helper.to_array(self.tensor, str(self.folder or ".")))

    return External


def types_by_place(model: ir.Model) -> dict[Key, ir.Value]:
    """The values of all graphs of a model."""
    return {
        (where, value.name): value
        for where, graph in ir_scopes(model)
        for value in (*graph.inputs, *(v for node in graph for v in node.outputs))
        if value.name
    }


def ir_scopes(model: ir.Model) -> Iterator[tuple[Where, ir.Graph]]:
    """The graphs of a model with their places, outer before inner, as `scopes` has them."""
    owners: list[tuple[Where, ir.Graph]] = [((), model.graph)]
    owners += [(("function", str(i)), function.graph) for i, function in enumerate(model.functions.values())]
    for owner in owners:
        waiting = [owner]
        while waiting:
            where, graph = waiting.pop(0)
            yield where, graph
            for number, node in enumerate(graph):
                if bodies(node):
                    key = node_key([v.name or "" for v in node.outputs], number)
                    waiting += [
                        ((*where, key, name), attribute.as_graph())
                        for name, attribute in node.attributes.items()
                        if not attribute.is_ref() and attribute.type == ir.AttributeType.GRAPH
                    ]


def scopes(graph: Any) -> Iterator[tuple[Where, Any]]:
    """The graphs of a `gs.Graph` with their places, outer before inner; functions are graphs too."""
    owners: list[tuple[Where, Any]] = [((), graph)]
    owners += [(("function", str(i)), function) for i, function in enumerate(graph.functions)]
    for owner in owners:
        waiting = [owner]
        while waiting:
            where, each = waiting.pop(0)
            yield where, each
            for number, node in enumerate(each.nodes):
                key = node_key([t.name for t in node.outputs], number)
                waiting += [((*where, key, name), value) for name, value in node.attrs.items() if is_graph(value)]


def is_graph(value: Any) -> bool:
    """Whether an attribute is a body."""
    return "nodes" in getattr(value, "__dict__", ())


def is_constant(value: Any) -> bool:
    """Whether something is a `gs.Constant`."""
    return "_values" in getattr(value, "__dict__", ())  # a graph's __getattr__ logs what it does not find


def tensors_of(graph: Any) -> Iterator[Any]:
    """The inputs and outputs of a graph and of its nodes, some of them twice."""
    yield from graph.inputs
    for node in graph.nodes:
        yield from node.inputs
        yield from node.outputs
    yield from graph.outputs


def described(tensor: Any) -> Hashable:
    """The dtype and shape of a variable, to compare."""
    shape = tensor.shape
    return str(tensor.dtype), tensor.type, None if shape is None else tuple(map(str, shape))


def fields_of(graph: Any) -> dict[str, Any]:
    """What a graph says beside its nodes and values."""
    imports = {entry.domain: entry.version for entry in graph.import_domains or ()}
    return {
        "name": graph.name,
        "doc_string": graph.doc_string or "",
        "opset": graph.opset,
        "imports": imports,
        "producer_name": graph.producer_name,
        "producer_version": graph.producer_version,
        "ir_version": graph.ir_version,
        "functions": [function.unique_id for function in graph.functions],
    }


def interface(graph: Any) -> dict[str, list[tuple[str, Hashable]]]:
    """Names and types of the graph's inputs and outputs."""
    return {
        kind: [(t.name, described(t) if not is_constant(t) else "constant") for t in getattr(graph, kind)]
        for kind in ("inputs", "outputs")
    }


@dataclass(frozen=True)
class _Numbers:
    """A tensor attribute: its values as they were."""

    values: Any


def frozen(value: Any) -> Any:
    """An attribute's value, safe from what is done to the list or array that holds it."""
    if is_constant(value):
        return _Numbers(value._values)
    if is_graph(value):
        return "body"  # its content is compared by itself
    return type(value).__name__, repr(value)


def same_attribute(before: Any, value: Any) -> bool:
    """Whether an attribute is what `frozen` made of it."""
    if isinstance(before, _Numbers):
        return is_constant(value) and same_values(before.values, value._values)
    return before == frozen(value)


def same_values(before: Any, values: Any) -> bool:
    """Whether a constant's numbers are the same; they may have been loaded meanwhile."""
    if before is values:
        return True
    if getattr(before, "tensor", None) is not None and getattr(before, "tensor", None) is getattr(values, "tensor", 0):
        return True
    one, other = array_of(before), array_of(values)
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def array_of(values: Any) -> np.ndarray[Any, np.dtype[Any]]:
    """A constant's numbers; graphsurgeon's object stays as lazy as it is."""
    return np.asarray(values.load() if hasattr(values, "load") else values)


def _numpy_dtype(dtype: ir.DataType | None) -> Any:
    if dtype is None or dtype == ir.DataType.UNDEFINED:
        return None
    from onnx_graphsurgeon.importers.onnx_importer import get_numpy_type  # type: ignore[import-not-found]

    return get_numpy_type(dtype.value) or dtype.value


def _shape(value: ir.Value) -> list[int | str | None] | None:
    return None if value.shape is None else [d if isinstance(d, int) else d.value for d in value.shape]
