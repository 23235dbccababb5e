"""Carries what a graphsurgeon function changed over to a model, and touches nothing else of it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnx_rewrite.analysis.order import forget_order
from onnx_rewrite.analysis.skeleton import bodies
from onnx_rewrite.model import KEEP_VALUE_INFO
from onnx_rewrite.model.soundness import make_sound
from onnx_rewrite.pipeline.gs_reading import (
    After,
    CannotCarry,
    Key,
    NodeNow,
    Where,
    described,
    ir_scopes,
    is_constant,
    is_graph,
    node_key,
    same_attribute,
    same_values,
)
from onnx_rewrite.rewriter.builder import merged_metadata
from onnx_rewrite.rewriter.edit import PASS_KEY, SOURCES_KEY
from onnx_rewrite.rewriter.names import Names, all_graphs


@dataclass(eq=False)
class _Places:
    """The objects of a model by graph and name."""

    graphs: dict[Where, ir.Graph] = field(default_factory=dict[Where, ir.Graph])
    values: dict[Key, ir.Value] = field(default_factory=dict[Key, ir.Value])
    nodes: dict[Key, ir.Node] = field(default_factory=dict[Key, ir.Node])

    def value(self, key: Hashable) -> ir.Value | None:
        """A value of the graph or of one around it."""
        if not isinstance(key, tuple):
            return None
        where: Where = key[0]
        for depth in range(len(where), -1, -1):
            found = self.values.get((where[:depth], key[1]))
            if found is not None:
                return found
        return None


def places_of(model: ir.Model) -> _Places:
    """Looks a model's objects up."""
    found = _Places()
    for where, graph in ir_scopes(model):
        found.graphs[where] = graph
        for value in (*graph.inputs, *graph.initializers.values()):
            found.values[where, value.name or ""] = value
        for number, node in enumerate(graph):
            found.nodes[where, node_key([v.name or "" for v in node.outputs], number)] = node
            for value in node.outputs:
                if value.name:
                    found.values[where, value.name] = value
    return found


@dataclass(frozen=True)
class _Past:
    """What a value was before another takes its place."""

    name: str | None
    type: ir.TypeProtocol | None
    shape: ir.Shape | None
    doc_string: str | None
    metadata: dict[str, str]
    meta: dict[str, Any]

    @classmethod
    def of(cls, value: ir.Value) -> _Past:
        return cls(
            value.name, value.type, value.shape, value.doc_string, dict(value.metadata_props), dict(value.meta.items())
        )

    def give(self, value: ir.Value) -> None:
        value.name = self.name
        if self.type is not None:
            value.type = self.type
        if self.shape is not None:
            value.shape = self.shape
        value.doc_string = self.doc_string
        value.metadata_props.update(self.metadata)
        for key, entry in self.meta.items():
            value.meta[key] = entry


def apply(after: After, model: ir.Model, pass_name: str, kept: frozenset[str], where: str) -> None:
    """Edits a model so that it is what the function left.

    Nodes and values that the function left alone stay the objects that they are, in their order. New nodes record the
    pass and the nodes that they replace.

    Args:
        after: What the function left, of a graph made from this model.
        model: The model; where this raises, it is spoilt.
        pass_name: The pass.
        kept: Names of values that something outside the graph refers to.
        where: The model's name, for messages.

    Raises:
        CannotCarry: The graph is not sound, or holds what cannot be written.
        ModelError: Likewise.
    """
    _Application(after, model, pass_name, kept).run()
    for graph in all_graphs(model):
        forget_order(graph)
    make_sound(model, where)


class _Application:
    def __init__(self, after: After, model: ir.Model, pass_name: str, kept: frozenset[str]) -> None:
        self.after = after
        self.model = model
        self.pass_name = pass_name
        self.kept = kept
        self.places = places_of(model)
        self.names = Names(model)
        self.made: dict[Hashable, ir.Value] = {}
        self.ir_node: dict[int, ir.Node] = {}  # by id of the NodeNow
        self.pasts: dict[Hashable, _Past] = {}
        self.bodies: dict[int, ir.Graph] = {}  # new ones, by id of graphsurgeon's graph
        self.used_before = {
            value: where for (where, _), value in self.places.values.items() if value.is_initializer() and value.uses()
        }

    def run(self) -> None:
        self._note_pasts()
        notes = self._notes()
        for state in self.after.removed:
            self.names.release_node(state.name)
        for where, graph, nodes in self.after.scopes:
            self._open(where, graph)
            for now in nodes:
                self._outputs(now)
        self._rename()
        for where, graph, nodes in self.after.scopes:
            self._constants(where, graph, nodes)
        standing = {where for where, _, _ in self.after.scopes}
        for where, graph in self.places.graphs.items():
            if where not in standing:  # of a node that is gone; its values may have moved out
                graph.outputs.clear()
        # Innermost first: a new node is made with its bodies.
        for where, graph, nodes in reversed(self.after.scopes):
            for now in nodes:
                self._wire(now, notes)
            self._graph_outputs(where, graph)
        self._remove()
        for where, graph, nodes in reversed(self.after.scopes):
            self._place(where, graph, nodes)
        self._drop_unused()
        self._fields()

    # -- what stays of what goes

    def _note_pasts(self) -> None:
        """How values are called and typed whose producers change: read before anything is renamed."""
        for _, _, nodes in self.after.scopes:
            for now in nodes:
                if now.was is None or now.rewired:
                    for key in now.outputs:
                        self._note_past(key)
        for key in self.after.changed_values:
            self._note_past(key)

    def _note_past(self, key: Hashable) -> None:
        old = self.places.value(key)
        if old is not None:
            self.pasts[key] = _Past.of(old)

    def _notes(self) -> dict[int, dict[str, str]]:
        """The metadata of new and altered nodes, by id of the NodeNow."""
        found: dict[int, dict[str, str]] = {}
        for now, sources in sources_of(self.after).items():
            old = [self.places.nodes[state.where, state.key] for state in sources]
            found[id(now)] = {
                **merged_metadata(old),
                PASS_KEY: self.pass_name,
                SOURCES_KEY: ", ".join(state.label for state in sources),
            }
        return found

    # -- values

    def _open(self, where: Where, graph: Any) -> None:
        """Makes a new body's graph, with its inputs; a known one's inputs must be what they were."""
        known = self.places.graphs.get(where)
        if known is None:
            inputs: list[ir.Value] = []
            for tensor in graph.inputs:
                key = self.after.key(tensor)
                value = self.made[key] = self._value(key, tensor)
                value.name = self.names.value(tensor.name)
                inputs.append(value)
            made = ir.Graph(inputs, [], nodes=[], name=graph.name or self.pass_name)
            self.bodies[id(graph)] = self.places.graphs[where] = made
            if where[:1] == ("function",) and len(where) == 2:
                made.opset_imports.update({e.domain: e.version for e in graph.import_domains or ()})
                made.opset_imports.setdefault("", graph.opset)
            return
        if where == ():
            return  # compared already
        inputs = [v for v in known.inputs if not v.is_initializer()]
        if [self.places.value(self.after.key(t)) for t in graph.inputs] != inputs:
            raise CannotCarry(f"it changed the inputs of the graph '{graph.name}' inside a node or function")

    def _outputs(self, now: NodeNow) -> None:
        was = now.was
        if was is None:
            for tensor, key in zip(now.node.outputs, now.outputs, strict=True):
                if key is not None:
                    self._give(key, self._value(key, tensor))
            return
        node = self.ir_node[id(now)] = self.places.nodes[was.where, was.key]
        if now.rewired and len(node.outputs) < len(now.outputs):
            node.resize_outputs(len(now.outputs))
        for value, tensor, key in zip(node.outputs, now.node.outputs, now.outputs, strict=False):
            if key is not None:
                self._give(key, value)
                if not isinstance(key, tuple) and not tensor.is_empty():
                    _describe(value, tensor)

    def _give(self, key: Hashable, value: ir.Value) -> None:
        if key in self.made:
            raise CannotCarry(f"two nodes give '{self.after.tensors[key].name}'")
        self.made[key] = value

    def _value(self, key: Hashable, tensor: Any) -> ir.Value:
        value = ir.Value(name=None)
        if not isinstance(key, tuple):  # of any other, the model knows more
            _describe(value, tensor)
        return value

    def _rename(self) -> None:
        """Gives every value of a node its name: its predecessor's, the function's, or a free one."""
        changed = set(self.after.changed_values)
        for key, value in self.made.items():
            old = self.places.value(key)
            tensor = self.after.tensors[key]
            if old is value and key not in changed:
                continue
            past = self.pasts.get(key)
            if old is not value:
                if past is not None:
                    past.give(value)
                elif value.name is None or value.producer() is not None:
                    value.name = self.names.value(tensor.name)
            if key in changed:
                if past is not None and past.name != tensor.name:
                    value.name = self.names.value(tensor.name)
                self._retype(key, value, tensor)

    def _retype(self, key: Hashable, value: ir.Value, tensor: Any) -> None:
        state = self.after.before.by_key.get(key)  # type: ignore[arg-type]
        if not is_constant(tensor) and state is not None and described(tensor) != state.described:
            _describe(value, tensor)

    def _constants(self, where: Where, graph: Any, nodes: list[NodeNow]) -> None:
        read = [t for now in nodes for t in now.node.inputs]
        for tensor in (*read, *graph.outputs):
            key = self.after.key(tensor)
            if key is None or key in self.made or not is_constant(tensor):
                continue
            old, state = self.places.value(key), self.after.before.by_key.get(key)  # type: ignore[arg-type]
            if old is not None and old.is_initializer() and state is not None:
                if not same_values(state.values, tensor._values):
                    old.const_value = _tensor(tensor, old.name or tensor.name)
                    old.dtype, old.shape = old.const_value.dtype, ir.Shape(old.const_value.shape.numpy())
                if old.name != tensor.name:
                    old.name = self.names.value(tensor.name)
                home = self.used_before.get(old, where)
                if self.places.graphs.get(home) is not None and where[: len(home)] != home:
                    self._move_initializer(old, home, where)
                self.made[key] = old
                continue
            value = ir.Value(name=None)
            if key in self.pasts:
                self.pasts[key].give(value)
            else:
                value.name = self.names.value(tensor.name)
            value.const_value = _tensor(tensor, value.name or "")
            value.type, value.shape = ir.TensorType(value.const_value.dtype), ir.Shape(value.const_value.shape.numpy())
            self.made[key] = self._register(where, value)

    def _register(self, where: Where, value: ir.Value) -> ir.Value:
        graph = self.places.graphs[where]
        if where[:1] == ("function",):  # a function has no initializers
            assert value.const_value is not None
            node = ir.Node("", "Constant", [], [ir.AttrTensor("value", value.const_value)], num_outputs=1)
            node.name = self.names.node(f"{value.name}_Constant")
            node.metadata_props[PASS_KEY] = self.pass_name
            node.metadata_props[SOURCES_KEY] = ""
            node.outputs[0].name = value.name
            first = next(iter(graph), None)
            if first is None:
                graph.append(node)
            else:
                graph.insert_before(first, node)
            return node.outputs[0]
        graph.register_initializer(value)
        self.model.ir_version = max(self.model.ir_version, 4)
        return value

    def _move_initializer(self, value: ir.Value, home: Where, where: Where) -> None:
        self.places.graphs[home].initializers.pop(value.name)  # type: ignore[arg-type]
        self.places.graphs[where].register_initializer(value)

    # -- nodes

    def _wire(self, now: NodeNow, notes: dict[int, dict[str, str]]) -> None:
        inputs = [self._read(now, tensor, key) for tensor, key in zip(now.node.inputs, now.inputs, strict=True)]
        node = self.ir_node.get(id(now))
        if node is None:
            outputs = [ir.Value(name="") if key is None else self.made[key] for key in now.outputs]
            node = ir.Node(
                now.node.domain or "",
                now.node.op,
                inputs,
                self._attributes(now, now.node.attrs),
                outputs=outputs,
                name=self.names.node(now.node.name or f"{self.pass_name}_{now.node.op}"),
            )
            self.ir_node[id(now)] = node
        else:
            if now.rewired or any(a is not b for a, b in zip(node.inputs, inputs, strict=False)):
                node.resize_inputs(len(inputs))
                for index, value in enumerate(inputs):
                    if node.inputs[index] is not value:
                        node.replace_input_with(index, value)
                if len(node.outputs) > len(now.outputs):
                    node.resize_outputs(len(now.outputs))
            if now.altered:
                self._alter(now, node)
        node.metadata_props.update(notes.get(id(now), {}))

    def _read(self, now: NodeNow, tensor: Any, key: Hashable) -> ir.Value | None:
        if key is None:
            return None
        value = self.made.get(key)
        if value is None:
            value = self.places.value(key)
            if value is None or value.producer() is not None:
                raise CannotCarry(
                    f"node '{now.node.name or now.node.op}' reads '{tensor.name}', which no node of the graph gives"
                )
        return value

    def _alter(self, now: NodeNow, node: ir.Node) -> None:
        was = now.was
        assert was is not None
        node.op_type, node.domain = now.node.op, now.node.domain or ""
        if now.node.name != was.name:
            node.name = self.names.node(now.node.name)
        gone = [name for name in was.attrs if name not in now.node.attrs]
        if (was.op, was.domain) != (now.node.op, now.node.domain or ""):
            gone += [name for name in node.attributes if name not in now.node.attrs]
        for name in dict.fromkeys(gone):
            node.attributes.pop(name, None)
        other = {
            name: value
            for name, value in now.node.attrs.items()
            if name not in was.attrs or not same_attribute(was.attrs[name], value)
        }
        for attribute in self._attributes(now, other):
            node.attributes[attribute.name] = attribute

    def _attributes(self, now: NodeNow, attrs: dict[str, Any]) -> list[ir.Attr]:
        from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter  # type: ignore[import-not-found]

        found: list[ir.Attr] = []
        for name, value in attrs.items():
            if is_graph(value):
                body = self.bodies.get(id(value))  # it may be empty as yet, and so count as false
                body = self._orphan(value) if body is None else body
                if body is None:
                    raise CannotCarry(f"attribute {name} of '{now.node.name}' is a graph of another node: copy it")
                found.append(ir.AttrGraph(name, body))
            elif is_constant(value):
                found.append(ir.AttrTensor(name, _tensor(value, value.name)))
            else:
                found += [ir.serde.deserialize_attribute(p) for p in OnnxExporter.export_attributes({name: value})]
        return found

    def _orphan(self, graph: Any) -> ir.Graph | None:
        """A known body, if the node that held it is gone."""
        where = self.after.before.wheres.get(id(graph), ())
        free = len(where) >= 2 and any((s.where, s.key) == (where[:-2], where[-2]) for s in self.after.removed)
        return self.places.graphs.get(where) if free else None

    def _graph_outputs(self, where: Where, graph: Any) -> None:
        mine = self.places.graphs[where]
        values: list[ir.Value] = []
        for tensor in graph.outputs:
            key = self.after.key(tensor)
            value = self.made.get(key)
            value = self.places.value(key) if value is None else value
            if value is None:
                raise CannotCarry(f"nothing gives the output '{tensor.name}'")
            values.append(value)
        if len(values) != len(mine.outputs) or any(a is not b for a, b in zip(values, mine.outputs, strict=True)):
            mine.outputs[:] = values

    def _remove(self) -> None:
        gone = [self.places.nodes[state.where, state.key] for state in self.after.removed]
        for node in gone:
            for index in range(len(node.inputs)):
                node.replace_input_with(index, None)
        by_graph: dict[ir.Graph, list[ir.Node]] = {}
        for node in gone:
            if isinstance(node.graph, ir.Graph):
                by_graph.setdefault(node.graph, []).append(node)
        for graph, nodes in by_graph.items():
            graph.remove(nodes)

    def _place(self, where: Where, graph: Any, nodes: list[NodeNow]) -> None:
        """Puts new nodes, and those from other graphs, before the first that reads them; the others stay in place."""
        mine = self.places.graphs[where]
        fresh = [self.ir_node[id(now)] for now in nodes if self.ir_node[id(now)].graph is not mine]
        if not fresh:
            return
        for node in fresh:
            if isinstance(node.graph, ir.Graph):
                node.graph.remove(node)
        position = {node: number for number, node in enumerate(mine)}
        anchors: dict[ir.Node, ir.Node] = {}
        holder = self._holders(where, nodes)
        for node in reversed(fresh):
            readers = [holder.get(id(use.node), use.node) for value in node.outputs for use in value.uses()]
            found = [anchors.get(reader, reader) for reader in readers]
            found = [reader for reader in found if reader in position]
            if found:
                anchors[node] = min(found, key=position.__getitem__)
        groups: dict[ir.Node | None, list[ir.Node]] = {}
        for node in fresh:
            groups.setdefault(anchors.get(node), []).append(node)
        for anchor, group in groups.items():
            if anchor is None:
                mine.extend(group)
            else:
                mine.insert_before(anchor, group)

    def _holders(self, where: Where, nodes: list[NodeNow]) -> dict[int, ir.Node]:
        """For each node inside a body, by id, the node of this graph that holds it."""
        found: dict[int, ir.Node] = {}
        for now in nodes:
            node = self.ir_node[id(now)]
            waiting = list(bodies(node))
            while waiting:
                for inner in waiting.pop():
                    found[id(inner)] = node
                    waiting += bodies(inner)
        return found

    # -- the rest

    def _drop_unused(self) -> None:
        for value, where in self.used_before.items():
            graph = self.places.graphs.get(where)
            if (
                graph is not None
                and value.name is not None
                and not value.uses()
                and not (value.is_graph_input() or value.is_graph_output() or value.name in self.kept)
                and graph.initializers.get(value.name) is value
            ):
                graph.initializers.pop(value.name)

    def _fields(self) -> None:
        before, now = self.after.before.fields, self.after.fields
        model, graph = self.model, self.model.graph
        for name in ("name", "doc_string"):
            if before[name] != now[name]:
                setattr(graph, name, now[name])
        for name in ("producer_name", "producer_version", "ir_version"):
            if before[name] != now[name] and now[name] is not None:
                setattr(model, name, now[name])
        graph.opset_imports.update({d: v for d, v in now["imports"].items() if before["imports"].get(d) != v})
        if before["opset"] != now["opset"]:
            graph.opset_imports[""] = now["opset"]
        self._functions()
        for one in (*self.after.added, *self.after.altered):
            home: Any = graph
            if one.where[:1] == ("function",):
                home = self.places.graphs[one.where[:2]]
            home.opset_imports.setdefault(one.node.domain or "", 1)

    def _functions(self) -> None:
        known = list(self.model.functions.values())
        listed = [where for where, _, _ in self.after.scopes if where[:1] == ("function",) and len(where) == 2]
        graphs = {where: g for where, g, _ in self.after.scopes}
        for where in listed:
            if int(where[1]) >= len(known):
                g = graphs[where]
                attributes = [ir.Attr(name, ir.AttributeType.UNDEFINED, None) for name in g.attrs]
                made = ir.Function(g.domain or "", g.name, graph=self.places.graphs[where], attributes=attributes)
                self.model.functions[made.identifier()] = made
        for number, function in enumerate(known):
            if ("function", str(number)) not in graphs:
                del self.model.functions[function.identifier()]


def sources_of(after: After) -> dict[NodeNow, list[Any]]:
    """For each new or altered node, the nodes in whose place it stands, in the order of the model.

    Removed nodes that feed each other go together, new ones likewise; a group of new ones replaces the group of removed
    ones that gave the same values, else the one that read the same.
    """
    removed, added = after.removed, after.added
    consts = after.constants
    old_groups = _grouped([(set(s.inputs) - consts, {k for k in s.outputs if k}) for s in removed])
    new_groups = _grouped([(set(n.inputs), {k for k in n.outputs if k}) for n in added])
    found: dict[NodeNow, list[Any]] = {now: [now.was] for now in after.altered}
    order = {id(state): number for number, state in enumerate(after.before.nodes.values())}
    for new in new_groups:
        gives = {key for i in new for key in added[i].outputs if key}
        reads = {key for i in new for key in added[i].inputs if key} - consts
        chosen: list[int] = []
        for old_gives_too in (True, False):
            for old in old_groups:
                theirs = {key for i in old for key in (removed[i].outputs if old_gives_too else removed[i].inputs)}
                if theirs & (gives if old_gives_too else reads) - {None}:
                    chosen += old
            if chosen:
                break
        sources = sorted((removed[i] for i in chosen), key=lambda state: order[id(state)])
        for i in new:
            found[added[i]] = sources
    return found


def _grouped(items: Iterable[tuple[set[Hashable], set[Hashable]]]) -> list[list[int]]:
    """Indices of (reads, gives) that are linked by values which one gives and another reads."""
    listed = list(items)
    giver = {key: number for number, (_, gives) in enumerate(listed) for key in gives}
    root = list(range(len(listed)))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for number, (reads, _) in enumerate(listed):
        for key in reads:
            if key in giver:
                root[find(number)] = find(giver[key])
    groups: dict[int, list[int]] = {}
    for number in range(len(listed)):
        groups.setdefault(find(number), []).append(number)
    return list(groups.values())


def _describe(value: ir.Value, tensor: Any) -> None:
    """Gives a value the type and shape that the function stated."""
    if is_constant(tensor) or tensor.dtype is None:
        return
    from onnx_graphsurgeon.exporters.onnx_exporter import dtype_to_onnx  # type: ignore[import-not-found]

    if tensor.type == "tensor_type":
        value.type = ir.TensorType(ir.DataType(dtype_to_onnx(tensor.dtype)))
        value.shape = None if tensor.shape is None else ir.Shape(list(tensor.shape))
        value.meta.pop("onnx_rewrite.inferred", None)
        value.meta[KEEP_VALUE_INFO] = True


def _tensor(constant: Any, name: str) -> ir.TensorProtocol:
    """A constant's numbers as a tensor of the model."""
    from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter  # type: ignore[import-not-found]

    values = constant._values
    proto = getattr(values, "tensor", None)
    if isinstance(proto, onnx.SparseTensorProto):
        raise CannotCarry(f"'{constant.name}' is sparse, and was moved or renamed")
    if isinstance(proto, onnx.TensorProto):
        if proto.data_location == onnx.TensorProto.EXTERNAL:
            return ir.Tensor(np.asarray(values.load()), dtype=ir.DataType(proto.data_type), name=name)
        copy = onnx.TensorProto()
        copy.CopyFrom(proto)
        copy.name = name
        return ir.serde.deserialize_tensor(copy)
    message: onnx.TensorProto = OnnxExporter.export_tensor_proto(constant)
    message.name = name
    return ir.serde.deserialize_tensor(message)
