"""Where a drawn graph may stand: in the main graph, in a body of If or Loop, or in a function."""

from __future__ import annotations

from collections.abc import Callable

import onnx
from onnx import helper, shape_inference

from onnx_rewrite.testing.draft import Draft, Unfit, Value
from onnx_rewrite.testing.spelling import constant_nodes, graph_of, info, model_of, node_proto

CONTAINERS = ("main", "If", "If with constants outside", "Loop", "function")
"""Where the nodes stand."""

COPIES = {"If": 2, "If with constants outside": 2}
"""How often the nodes are there, if not once: both branches of an If hold them."""


def build(draft: Draft) -> onnx.ModelProto:
    """The model of a draft, in its container."""
    if draft.container != "main":
        draft.symbolic = 0  # outputs of a body must state their shapes
    made = _BUILDERS[draft.container](draft)
    if draft.symbolic:
        made = _with_inferred_outputs(made)
    if draft.inferred:
        inferred = shape_inference.infer_shapes(made)
        del made.graph.value_info[:]
        made.graph.value_info.extend(inferred.graph.value_info)
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


def _main(draft: Draft) -> onnx.ModelProto:
    return model_of(draft, graph_of(draft, "main", symbolic=draft.symbolic))


def _outer(draft: Draft, inside: Callable[[Value], bool]) -> onnx.GraphProto:
    """The graph around a body: inputs, and the constants that are not inside."""
    graph = onnx.GraphProto(name="main")
    for value in draft.read():
        if value.constant and not inside(value):
            nodes, initializers = constant_nodes(value, draft.opset)
            graph.node.extend(nodes)
            graph.initializer.extend(initializers)
            if value.spelling == "overridable":
                graph.input.append(info(value))
        elif not value.constant:
            graph.input.append(info(value, draft.symbolic))
    return graph


def _needs_nodes(draft: Draft) -> None:
    if not draft.live() or any(v.given or v.constant for v in draft.outputs):
        raise Unfit("a body gives values of its own")


def _branches(draft: Draft, *, constants_inside: bool) -> onnx.ModelProto:
    _needs_nodes(draft)

    def inside(value: Value) -> bool:
        return value.constant and constants_inside and value.spelling != "overridable"

    graph = _outer(draft, inside)
    graph.input.append(helper.make_tensor_value_info("condition", onnx.TensorProto.BOOL, []))
    outputs = [f"{v.name}_chosen" for v in draft.outputs]
    branches = [graph_of(draft, name, keep=inside) for name in ("then", "else")]
    graph.node.append(
        helper.make_node("If", ["condition"], outputs, name="choice", then_branch=branches[0], else_branch=branches[1])
    )
    for name, value in zip(outputs, draft.outputs, strict=True):
        graph.output.append(helper.make_tensor_value_info(name, value.dtype, value.shape))
    return model_of(draft, graph)


def _loop(draft: Draft) -> onnx.ModelProto:
    _needs_nodes(draft)
    if draft.opset < 11:
        raise Unfit("a Loop below opset 11 is not drawn")

    def inside(value: Value) -> bool:
        return value.constant and value.spelling != "overridable"

    graph = _outer(draft, inside)
    body = graph_of(draft, "body", keep=inside)
    inputs = [
        helper.make_tensor_value_info("turn", onnx.TensorProto.INT64, []),
        helper.make_tensor_value_info("going", onnx.TensorProto.BOOL, []),
    ]
    outputs = list(body.output)
    del body.output[:]
    body.input.extend(inputs)
    body.node.append(helper.make_node("Identity", ["going"], ["going_on"], name="goes_on"))
    body.output.append(helper.make_tensor_value_info("going_on", onnx.TensorProto.BOOL, []))
    body.output.extend(outputs)
    graph.initializer.append(helper.make_tensor("turns", onnx.TensorProto.INT64, [], [2]))
    names = [f"{v.name}_gathered" for v in draft.outputs]
    graph.node.append(helper.make_node("Loop", ["turns", ""], names, name="loop", body=body))
    for name, value in zip(names, draft.outputs, strict=True):
        graph.output.append(helper.make_tensor_value_info(name, value.dtype, (2, *value.shape)))
    return model_of(draft, graph)


def _function(draft: Draft) -> onnx.ModelProto:
    _needs_nodes(draft)
    if draft.opset < 9 and any(v.constant and v.dtype not in (1, 10, 11) for v in draft.read()):
        raise Unfit("a Constant node gives floats only, and a function has no initializers")
    graph = onnx.GraphProto(name="main")
    body: list[onnx.NodeProto] = []
    inputs: list[str] = []
    for value in draft.read():
        if not value.constant or value.spelling == "overridable":
            graph.input.append(info(value, draft.symbolic))
            inputs.append(value.name)
            if value.constant:
                graph.initializer.extend(constant_nodes(value, draft.opset)[1])
            continue
        spelling = value.spelling
        value.spelling = {"initializer": "Constant", "Identity of an initializer": "Identity of a Constant"}.get(
            spelling, spelling
        )
        body += constant_nodes(value, draft.opset)[0]
        value.spelling = spelling
    body += [node_proto(node) for node in draft.live()]
    domains = sorted({node.domain for node in draft.nodes} | {""})
    imports = [helper.make_opsetid(d, draft.opset if d == "" else draft.versions.get(d, 1)) for d in domains]
    names = [v.name for v in draft.outputs]
    function = helper.make_function("local", "Part", inputs, names, body, imports)
    called = [f"{name}_called" for name in names]
    graph.node.append(helper.make_node("Part", inputs, called, domain="local", name="call"))
    for name, value in zip(called, draft.outputs, strict=True):
        graph.output.append(helper.make_tensor_value_info(name, value.dtype, value.shape))
    return model_of(draft, graph, [function])


_BUILDERS: dict[str, Callable[[Draft], onnx.ModelProto]] = {
    "main": _main,
    "If": lambda draft: _branches(draft, constants_inside=True),
    "If with constants outside": lambda draft: _branches(draft, constants_inside=False),
    "Loop": _loop,
    "function": _function,
}
