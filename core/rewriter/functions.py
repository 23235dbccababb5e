"""Model-local functions of custom operators: what their nodes mean, for whoever has no kernel."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnx_rewrite.analysis.foreign import spelling_of
from onnx_rewrite.analysis.skeleton import bodies
from onnx_rewrite.custom import Call, CustomOp, find
from onnx_rewrite.match import Refused
from onnx_rewrite.pattern.ops import recording
from onnx_rewrite.rewriter.builder import Builder, check_outputs

IR_OF_FUNCTIONS = 8

REFERENCES_SINCE = 12
"""The first opset in which a Constant takes its numbers from an attribute of the function."""


class NoBody(Exception):
    """The meaning cannot be written at this opset; the message says why."""


def make_function(
    op: CustomOp, opset: int, call: Call | None = None, *, domain: str | None = None, name: str | None = None
) -> ir.Function:
    """The function of an operator.

    Args:
        op: The operator.
        opset: Of the standard operators in its body.
        call: What it is made for: it has those inputs alone, and no attributes. None: all inputs, and all parameters
            as attributes.
        domain: Default: the operator's.
        name: Likewise.

    Raises:
        NoBody: The opset is too low.
    """
    since = op.since if call is not None or not op.parameters else max(op.since, REFERENCES_SINCE)
    if opset < since:
        raise NoBody(f"the meaning of {op.title} needs opset {since}, and the model's is {opset}")
    roles = [role for role in op.inputs if call is None or role in call.operands]
    inputs = {role: ir.Value(name=role) for role in roles}
    attributes = {key: _kind(value) for key, value in op.parameters.items()} if call is None else {}
    references = {key: ir.RefAttr(key, key, kind) for key, kind in attributes.items()}
    parameters = references if call is None else call.parameters
    builder = Builder(opset)
    token = recording.set(builder)
    try:
        (result,) = check_outputs(op.body({r: inputs.get(r) for r in op.inputs}, parameters, opset), 1)
    except Refused as refusal:
        raise NoBody(f"the meaning of {op.title} cannot be written: {refusal.reason}") from refusal
    finally:
        recording.reset(token)
    nodes = [*(_constant(value) for value in builder.initializers), *builder.nodes]
    result.name = "result"
    for number, node in enumerate(nodes):
        for place, value in enumerate(node.outputs):
            if value is not result:
                value.name = f"v{number}" if place == 0 else f"v{number}_{place}"
            value.type = value.shape = None
    imports = {"": opset}
    for node in nodes:
        if node.domain:
            imports.setdefault(node.domain, 1)
    graph = ir.Graph(list(inputs.values()), [result], nodes=nodes, opset_imports=imports, name=name or op.name)
    declared = [ir.Attr(key, kind, None) for key, kind in attributes.items()]
    return ir.Function(domain or op.domain, name or op.name, graph=graph, attributes=declared)


def _kind(value: Any) -> ir.AttributeType:
    """The type of a parameter by its default; what has none is a tuple of integers."""
    if isinstance(value, bool | int):
        return ir.AttributeType.INT
    if isinstance(value, float):
        return ir.AttributeType.FLOAT
    if isinstance(value, str):
        return ir.AttributeType.STRING
    if value is not None and any(isinstance(item, float) for item in value):
        return ir.AttributeType.FLOATS
    return ir.AttributeType.INTS


def _constant(value: ir.Value) -> ir.Node:
    tensor = value.const_value
    assert tensor is not None
    node = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], num_outputs=1)
    value.replace_all_uses_with(node.outputs[0])
    return node


def own_op(node: ir.Node) -> CustomOp | None:
    """The operator of a node that is its own, not an exporter's."""
    spelling = spelling_of(node) if node.domain not in ("", "ai.onnx") else None
    return spelling.operator if spelling is not None and spelling.own else None


def is_ours(function: ir.Function) -> bool:
    """Whether a function is the meaning of a known operator, which no pass is to rewrite."""
    spelling = find(function.domain, function.name)
    return spelling is not None and spelling.own and not function.overload


def drop_functions(model: ir.Model) -> None:
    """Takes the functions of known operators out of a model."""
    for identifier in [i for i, f in model.functions.items() if is_ours(f)]:
        del model.functions[identifier]


def refresh_functions(model: ir.Model) -> None:
    """Gives a model the function of every known operator that it has a node of, in the model's opset; takes out those
    that nothing calls. Functions that are right stay the objects that they are.

    A function has no optional inputs: an operator with a node that leaves some out gets none, as it was read.
    """
    opset = model.graph.opset_imports.get("", model.graph.opset_imports.get("ai.onnx", 1))
    wanted = {(op.domain, op.name, ""): op for op in _called(model)}
    for identifier in [i for i, f in model.functions.items() if is_ours(f)]:
        function = model.functions[identifier]
        if identifier not in wanted or function.opset_imports.get("", opset) != opset:
            del model.functions[identifier]
    for identifier, op in wanted.items():
        # Whoever inlines a function that calls this one reads the operator by the model's own imports.
        model.graph.opset_imports.setdefault(op.domain, 1)
        if identifier in model.functions:
            continue
        try:
            model.functions[identifier] = make_function(op, opset)
        except NoBody:  # the node stays without one, as it was written
            continue
        model.ir_version = max(model.ir_version, IR_OF_FUNCTIONS)


def _called(model: ir.Model) -> list[CustomOp]:
    found: dict[str, CustomOp] = {}
    incomplete: set[str] = set()
    graphs = [model.graph, *(f.graph for f in model.functions.values() if not is_ours(f))]
    while graphs:
        for node in graphs.pop():
            op = own_op(node)
            if op is not None:
                found.setdefault(op.title, op)
                if sum(value is not None for value in node.inputs) < len(op.inputs):
                    incomplete.add(op.title)
            graphs += bodies(node)
    return [found[title] for title in sorted(found.keys() - incomplete)]
