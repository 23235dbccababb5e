"""What is wrong with the structure of a model, said with the name of the node where it is wrong.

These walks run only when something is known to be wrong (onnx-ir refused, or a node's input has no producer), so
they may be slow; a sound model never pays for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx
import onnx_ir as ir

from onnx_rewrite.errors import ModelError


def describe(name: str, op_type: str, index: int | None = None) -> str:
    """How a message calls a node: by name, or by its place when it has none."""
    if name:
        return f"node '{name}' ({op_type})"
    return f"the unnamed {op_type} node" + ("" if index is None else f" at position {index}")


def find_fault(proto: onnx.ModelProto, where: str) -> ModelError | None:
    """Returns the first fault of names in a model: declared twice, or used without being declared."""
    scopes: list[tuple[str, onnx.GraphProto | onnx.FunctionProto]] = [("", proto.graph)]
    identifiers: set[tuple[str, str, str]] = set()
    for function in proto.functions:
        identifier = (function.domain, function.name, getattr(function, "overload", ""))
        title = "::".join(part for part in identifier if part)
        if identifier in identifiers:
            return ModelError(f"{where} is not a valid model: the function {title} is defined twice")
        identifiers.add(identifier)
        scopes.append((f" in function {title}", function))
    for place, scope in scopes:
        fault = _fault_of_scope(scope, set(), f"{where} is not a valid model: ", place)
        if fault is not None:
            return fault
    return None


def _fault_of_scope(
    scope: onnx.GraphProto | onnx.FunctionProto, outer: set[str], prefix: str, place: str
) -> ModelError | None:
    declared: set[str] = set()
    if isinstance(scope, onnx.GraphProto):
        for info in scope.input:
            if info.name in declared:
                return ModelError(f"{prefix}the input '{info.name}' is declared twice{place}")
            declared.add(info.name)
        names = [t.name for t in scope.initializer] + [s.values.name for s in scope.sparse_initializer]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            return ModelError(f"{prefix}the initializer '{twice}' is declared twice{place}")
        if "" in names:
            return ModelError(f"{prefix}an initializer has no name{place}")
        declared.update(names)
        outputs = [info.name for info in scope.output]
    else:
        declared.update(scope.input)
        outputs = list(scope.output)
    for index, node in enumerate(scope.node):
        for name in node.output:
            if name and name in declared:
                return ModelError(
                    f"{prefix}{describe(node.name, node.op_type, index)}{place} writes '{name}', which already has a "
                    "producer (a value must be assigned once)",
                    hint="Rename one of the outputs, or export the model again.",
                )
            declared.add(name)
    visible = outer | declared
    for index, node in enumerate(scope.node):
        for name in node.input:
            if name and name not in visible:
                return ModelError(
                    f"{prefix}{describe(node.name, node.op_type, index)}{place} reads '{name}', which nothing produces",
                    hint="The file was edited or cut wrongly; export the model again.",
                )
        for attribute in node.attribute:
            bodies = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else list(attribute.graphs)
            for body in bodies:
                inside = f" in the body '{attribute.name}' of {describe(node.name, node.op_type, index)}"
                fault = _fault_of_scope(body, visible, prefix, inside)
                if fault is not None:
                    return fault
    for name in outputs:
        if name not in declared:
            captured = " in this graph (it comes from an outer one; add an Identity node)" if name in outer else ""
            return ModelError(f"{prefix}the output '{name}' is produced by nothing{captured}{place}")
    return None


def cycle_error(graphs: Iterable[ir.Graph], where: str) -> ModelError:
    """Names a node on a cycle of the first graph that has one."""
    for graph in graphs:
        node = _node_on_cycle(list(graph))
        if node is not None:
            return ModelError(
                f"{where} is not a valid model: {describe(node.name or '', node.op_type)} depends on its own output "
                "(the graph has a cycle)"
            )
    return ModelError(f"{where} is not a valid model: its graph has a cycle")


def _node_on_cycle(nodes: Sequence[ir.Node]) -> ir.Node | None:
    """Peels off nodes all of whose producers are peeled; then walks back from any left over until one repeats."""
    members = set(nodes)
    needs = {node: _producers(node, members) for node in nodes}
    users: dict[ir.Node, list[ir.Node]] = {node: [] for node in nodes}
    for node, producers in needs.items():
        for producer in producers:
            users[producer].append(node)
    open_needs = {node: len(producers) for node, producers in needs.items()}
    ready = [node for node in nodes if not open_needs[node]]
    while ready:
        for user in users[ready.pop()]:
            open_needs[user] -= 1
            if not open_needs[user]:
                ready.append(user)
    left = [node for node in nodes if open_needs[node]]
    if not left:
        return None
    node, seen = left[0], set[ir.Node]()
    while node not in seen:
        seen.add(node)
        node = next(producer for producer in needs[node] if open_needs[producer])
    return node


def _producers(node: ir.Node, members: set[ir.Node]) -> list[ir.Node]:
    """The nodes of ``members`` that a node reads from, what its bodies capture included; each once, in order."""
    found: dict[ir.Node, None] = {}
    stack = [node]
    while stack:
        current = stack.pop()
        for value in current.inputs:
            producer = None if value is None else value.producer()
            if producer is not None and producer in members:
                found[producer] = None
        for attribute in current.attributes.values():
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.GRAPH:
                stack.extend(attribute.as_graph())
            elif attribute.type == ir.AttributeType.GRAPHS:
                for graph in attribute.as_graphs():
                    stack.extend(graph)
    return list(found)
