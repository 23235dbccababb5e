"""Cuts a replacement out of its model: what stood there before, and what would stand there, as two small models.

Both have the same inputs (the values that flow in, constants aside) and the same outputs. Names are canonical, so
that equal sites give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.match import Scope
from onnx_rewrite.model.messages import write_attribute
from onnx_rewrite.rewriter.functions import is_ours

# Written into both models: high enough for everything that a cut-out holds, low enough for every onnxruntime.
MINIMUM_IR = 8


class CannotCut(Exception):
    """The site cannot stand on its own; the message says why."""


def cut_out(
    nodes: Sequence[ir.Node],
    outputs: Sequence[ir.Value],
    inputs: Sequence[ir.Value],
    scope: Scope,
    opsets: dict[str, int],
    functions: Iterable[ir.Function],
    declared: Sequence[ir.Value] | None = None,
) -> onnx.ModelProto:
    """One model of `nodes`.

    Args:
        nodes: In an order in which they can run.
        outputs: The values to return, in order.
        inputs: The values to be fed, in order; everything else that is read must be constant.
        scope: Where the nodes stand.
        opsets: Opset versions to declare.
        functions: Model-local functions that the nodes may call.
        declared: Values whose dtypes and shapes the outputs must have; default: `outputs` themselves.

    Raises:
        CannotCut: A dtype is not known, or a node refers to an attribute of an enclosing function.
    """
    names: dict[ir.Value, str] = {}
    graph = onnx.GraphProto(name="site")
    for number, value in enumerate(inputs):
        names[value] = f"x{number}"
        graph.input.append(_value_info(value, names[value]))
    produced = {v for node in nodes for v in node.outputs}
    for number, node in enumerate(nodes):
        for index, value in enumerate(node.outputs):
            names[value] = f"y{outputs.index(value)}" if value in outputs else f"t{number}_{index}"
    for node in nodes:
        for value in node.inputs:
            if value is not None and value not in names:
                if value in produced:
                    raise CannotCut("the nodes are in no order in which they can run")
                names[value] = f"c{len(graph.initializer)}"
                graph.initializer.append(_initializer(value, names[value], scope.constants))
        graph.node.append(_node(node, names))
    for number, value in enumerate(outputs):
        if names.get(value) != f"y{number}":  # an input handed through, or one value twice
            if value not in names:
                names[value] = f"c{len(graph.initializer)}"
                graph.initializer.append(_initializer(value, names[value], scope.constants))
            graph.node.append(onnx.helper.make_node("Identity", [names[value]], [f"y{number}"]))
        graph.output.append(_output_info((declared or outputs)[number], f"y{number}"))
    called = {(node.domain, node.op_type) for node in nodes}
    model = onnx.ModelProto(ir_version=MINIMUM_IR, graph=graph)
    for function in functions:
        # What a known custom operator means is known to whoever runs the model.
        if (function.domain, function.name) in called and not is_ours(function):
            raise CannotCut(f"the site calls the model's function {function.domain}::{function.name}")
    used = {"" if d in ("", "ai.onnx") else d for d, _ in called} | {""}
    for domain in sorted(used):
        model.opset_import.append(onnx.helper.make_opsetid(domain, opsets.get(domain, 1)))
    return model


def flowing_in(nodes: Sequence[ir.Node], constants: Constants) -> list[ir.Value]:
    """The values that `nodes` read and neither produce nor know beforehand, in the order of their first use."""
    produced = {v for node in nodes for v in node.outputs}
    found: dict[ir.Value, None] = {}
    for node in nodes:
        for value in node.inputs:
            if value is not None and value not in produced and not constants.is_constant(value):
                found[value] = None
        for attribute in node.attributes.values():
            if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
                raise CannotCut(f"{node.op_type} '{node.name}' has a body")
    return list(found)


def _value_info(value: ir.Value, name: str) -> onnx.ValueInfoProto:
    if value.type is None or value.dtype is None or not isinstance(value.type, ir.TensorType):
        raise CannotCut(f"the type of value '{value.name}' is not known")
    if value.shape is None:
        raise CannotCut(f"the rank of value '{value.name}' is not known")
    dims: list[int | str | None] = [d if isinstance(d, int) else d.value for d in value.shape]
    return onnx.helper.make_tensor_value_info(name, value.dtype.value, dims)


def _output_info(value: ir.Value, name: str) -> onnx.ValueInfoProto:
    if value.dtype is None or not isinstance(value.type, ir.TensorType):
        raise CannotCut(f"the type of value '{value.name}' is not known")
    dims = None if value.shape is None else [d if isinstance(d, int) else d.value for d in value.shape]
    return onnx.helper.make_tensor_value_info(name, value.dtype.value, dims)


def ordered(nodes: Sequence[ir.Node]) -> list[ir.Node]:
    """The nodes of a match in an order in which they can run, the same whatever order they were found in."""
    inside, done = set(nodes), dict[ir.Node, None]()

    def visit(node: ir.Node) -> None:
        if node in done:
            return
        for value in node.inputs:
            producer = None if value is None else value.producer()
            if producer in inside:
                assert producer is not None
                visit(producer)
        done[node] = None

    for node in nodes:
        visit(node)
    return list(done)


def _initializer(value: ir.Value, name: str, constants: Constants) -> onnx.TensorProto:
    tensor = value.const_value if value.producer() is None else None
    if tensor is None:
        array = constants.array(value)
        if array is None:
            raise CannotCut(f"value '{value.name}' is neither an input of the site nor constant")
        tensor = ir.Tensor(np.array(array, order="C"))
    dims = [int(d) for d in tensor.shape.numpy()]
    return onnx.TensorProto(name=name, data_type=tensor.dtype.value, dims=dims, raw_data=tensor.tobytes())


def _node(node: ir.Node, names: dict[ir.Value, str]) -> onnx.NodeProto:
    proto = onnx.NodeProto(op_type=node.op_type, domain=node.domain, overload=node.overload)
    proto.input.extend("" if v is None else names[v] for v in node.inputs)
    proto.output.extend(names[v] if v.name != "" else "" for v in node.outputs)
    for attribute in node.attributes.values():
        if attribute.is_ref():
            raise CannotCut(f"{node.op_type} '{node.name}' refers to an attribute of the enclosing function")
        write_attribute(proto.attribute.add(), attribute)
    return proto
