"""Where a drawn graph may stand: in the main graph, in a body of If or Loop, or in a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx
from onnx import helper, shape_inference

from onnx_rewrite.testing.draft import Draft, Unfit
from onnx_rewrite.testing.spelling import graph_of, model_of

CONTAINERS = ("main", "If", "If with constants outside", "Loop", "function", "If in a Loop")
"""Where the nodes stand."""

COPIES = {"If": 2, "If with constants outside": 2, "If in a Loop": 2}
"""How often the nodes are there, if not once: both branches of an If hold them."""

_FLOATS = frozenset({1, 10, 11})


def build(draft: Draft) -> onnx.ModelProto:
    """The model of a draft, in its container."""
    if draft.container != "main":
        draft.symbolic = 0  # outputs of a body must state their shapes
    made = placed(model_of(draft, graph_of(draft, "main", symbolic=draft.symbolic)), draft.container)
    if draft.symbolic:
        made = _with_inferred_outputs(made)
        if draft.inferred:
            made.graph.value_info.extend(shape_inference.infer_shapes(made).graph.value_info)
    return made


def _with_inferred_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    found = {o.name: o for o in shape_inference.infer_shapes(model).graph.output}
    for output in model.graph.output:
        output.CopyFrom(found[output.name])
        if not output.type.tensor_type.HasField("shape"):
            raise Unfit("the shape of an output is not known")
    return model


def placed(model: onnx.ModelProto, container: str) -> onnx.ModelProto:
    """A model whose nodes stand elsewhere.

    Args:
        model: A model whose nodes stand in the main graph, and whose outputs state their shapes. It is not changed.
        container: One of `CONTAINERS`.

    Returns:
        A model that computes the same, twice in a Loop; its outputs have other names.

    Raises:
        Unfit: They cannot stand there.
    """
    if container == "main":
        return model
    parts = _Parts.of(model.graph)
    if not parts.nodes or not {o.name for o in model.graph.output} <= {n for p in parts.nodes for n in p.output}:
        raise Unfit("a body gives values of its own")
    made = onnx.ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    made.opset_import.extend(model.opset_import)
    made.functions.extend(model.functions)
    made.graph.name = model.graph.name
    made.graph.input.extend(model.graph.input)
    made.graph.initializer.extend(parts.overridable)
    _BUILDERS[container](model, parts, made)
    return made


@dataclass
class _Parts:
    """The main graph, taken apart.

    Attributes:
        overridable: Initializers that are inputs, too: they stay outside.
        initializers: The others.
        constants: Constant nodes, and Identity of constants.
        nodes: The other nodes.
    """

    overridable: list[onnx.TensorProto]
    initializers: list[onnx.TensorProto]
    constants: list[onnx.NodeProto]
    nodes: list[onnx.NodeProto]

    @classmethod
    def of(cls, graph: onnx.GraphProto) -> _Parts:
        """Takes a graph apart."""
        inputs = {i.name for i in graph.input}
        parts = cls([], [], [], [])
        for tensor in graph.initializer:
            (parts.overridable if tensor.name in inputs else parts.initializers).append(tensor)
        known = {t.name for t in parts.initializers}
        for node in graph.node:
            constant = node.op_type == "Constant" or (node.op_type == "Identity" and node.input[0] in known)
            known.update(node.output if constant else ())
            (parts.constants if constant else parts.nodes).append(node)
        return parts


def _body(model: onnx.ModelProto, parts: _Parts, name: str, *, constants: bool) -> onnx.GraphProto:
    body = onnx.GraphProto(name=name)
    if constants:
        body.initializer.extend(parts.initializers)
        body.node.extend(parts.constants)
    body.node.extend(parts.nodes)
    body.output.extend(model.graph.output)
    body.value_info.extend(model.graph.value_info)
    return body


def _returned(model: onnx.ModelProto, made: onnx.ModelProto, ending: str, *, first: tuple[int, ...] = ()) -> list[str]:
    """Outputs of the outer graph, for the node that holds the body."""
    names = [f"{o.name}_{ending}" for o in model.graph.output]
    for name, output in zip(names, model.graph.output, strict=True):
        kind = output.type.tensor_type
        shape = [*first, *(d.dim_value if d.HasField("dim_value") else d.dim_param for d in kind.shape.dim)]
        made.graph.output.append(helper.make_tensor_value_info(name, kind.elem_type, shape))
    return names


def _branches(model: onnx.ModelProto, parts: _Parts, made: onnx.ModelProto, *, constants_inside: bool) -> None:
    graph = made.graph
    if not constants_inside:
        graph.initializer.extend(parts.initializers)
        graph.node.extend(parts.constants)
    graph.input.append(helper.make_tensor_value_info("condition", onnx.TensorProto.BOOL, []))
    node = graph.node.add(op_type="If", name="choice", input=["condition"], output=_returned(model, made, "chosen"))
    for name in ("then", "else"):
        attribute = node.attribute.add(name=f"{name}_branch", type=onnx.AttributeProto.GRAPH)
        attribute.g.CopyFrom(_body(model, parts, name, constants=constants_inside))


def _if_in_a_loop(model: onnx.ModelProto, parts: _Parts, made: onnx.ModelProto) -> None:
    """What the branches read, they capture through two bodies."""
    inner = onnx.ModelProto()
    inner.CopyFrom(made)
    _branches(model, parts, inner, constants_inside=False)
    made.graph.input.append(inner.graph.input[-1])
    _loop(inner, _Parts.of(inner.graph), made, constants_inside=False)


def _loop(model: onnx.ModelProto, parts: _Parts, made: onnx.ModelProto, *, constants_inside: bool = True) -> None:
    if next(o.version for o in model.opset_import if not o.domain) < 11:
        raise Unfit("a Loop below opset 11 is not drawn")
    body = _body(model, parts, "body", constants=constants_inside)
    if not constants_inside:
        made.graph.initializer.extend(parts.initializers)
        made.graph.node.extend(parts.constants)
    outputs = list(body.output)
    del body.output[:]
    body.input.append(helper.make_tensor_value_info("turn", onnx.TensorProto.INT64, []))
    body.input.append(helper.make_tensor_value_info("going", onnx.TensorProto.BOOL, []))
    body.node.append(helper.make_node("Identity", ["going"], ["going_on"], name="goes_on"))
    body.output.append(helper.make_tensor_value_info("going_on", onnx.TensorProto.BOOL, []))
    body.output.extend(outputs)
    made.graph.initializer.append(helper.make_tensor("turns", onnx.TensorProto.INT64, [], [2]))
    names = _returned(model, made, "gathered", first=(2,))
    made.graph.node.append(helper.make_node("Loop", ["turns", ""], names, name="loop", body=body))


def _function(model: onnx.ModelProto, parts: _Parts, made: onnx.ModelProto) -> None:
    opset = next(o.version for o in model.opset_import if not o.domain)
    function = made.functions.add(name="Part", domain="local")
    function.opset_import.extend(model.opset_import)
    function.input.extend(i.name for i in model.graph.input)
    function.output.extend(o.name for o in model.graph.output)
    for tensor in parts.initializers:  # a function has none
        if opset < 9 and tensor.data_type not in _FLOATS:
            raise Unfit("a Constant node gives floats only, and a function has no initializers")
        held = onnx.TensorProto()
        held.CopyFrom(tensor)
        function.node.append(helper.make_node("Constant", [], [tensor.name], value=held))
    function.node.extend(parts.constants)
    function.node.extend(parts.nodes)
    called = _returned(model, made, "called")
    made.graph.node.append(helper.make_node("Part", list(function.input), called, domain="local", name="call"))
    made.opset_import.append(helper.make_opsetid("local", 1))


_BUILDERS: dict[str, Callable[[onnx.ModelProto, _Parts, onnx.ModelProto], None]] = {
    "If": lambda model, parts, made: _branches(model, parts, made, constants_inside=True),
    "If with constants outside": lambda model, parts, made: _branches(model, parts, made, constants_inside=False),
    "Loop": _loop,
    "If in a Loop": _if_in_a_loop,
    "function": _function,
}
