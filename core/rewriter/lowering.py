"""Lowers a model's opset, where every node means the same below: for a parser that misreads what came later.

The counterpart of `raising`, and much narrower: nothing is written otherwise but axes of reductions, which go from an
input to an attribute. Every node whose operator has another version below is judged, at its place.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir

from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.match import Scope
from onnx_rewrite.opset.changes import schema_of
from onnx_rewrite.opset.forms import INPUT_FORMS
from onnx_rewrite.opset.view import ABSENT, UNKNOWN, is_onnx, operands, plain, raw_parameter
from onnx_rewrite.rewriter.builder import Builder
from onnx_rewrite.rewriter.edit import node_label
from onnx_rewrite.rewriter.names import Names
from onnx_rewrite.rewriter.raising import CannotRaise, Court, Plan, Raised, commit_plans
from onnx_rewrite.rewriter.site import Judge

_LATER_VALUES: dict[tuple[str, str], frozenset[str]] = {
    ("GridSample", "mode"): frozenset({"linear", "cubic"}),
    ("Pad", "mode"): frozenset({"wrap"}),
    ("Resize", "coordinate_transformation_mode"): frozenset({"half_pixel_symmetric"}),
    ("ScatterElements", "reduction"): frozenset({"max", "min"}),
    ("ScatterND", "reduction"): frozenset({"max", "min"}),
}
"""What attributes may say since opset 18, 19 or 20 (docs/Changelog.md of onnx); onnxruntime takes some of it below."""


def lower_opset(model: ir.Model, target: int, *, judge: Judge | None, names: Names, constants: Constants) -> Raised:
    """Lowers the standard operators of a model to opset `target`, in place. It must have no functions.

    Args:
        model: The model.
        target: The wanted opset, below the model's.
        judge: Compares a node's forms; None: nothing is verified.
        names: The model's names.
        constants: The model's constants.

    Raises:
        CannotRaise: A node has no equal below, or is not shown to be equivalent. The model is as it was.
    """
    if model.functions:
        raise CannotRaise("the model has functions")
    imports = model.graph.opset_imports
    source = imports.get("", imports.get("ai.onnx", 0))
    opsets = {"" if domain == "ai.onnx" else domain: version for domain, version in imports.items()}
    plans: list[Plan] = []
    try:
        for graph in (model.graph, *model.graph.subgraphs()):
            plans += _plans(Scope(graph, opsets, constants), target)
        verdicts = Court(judge, target, accept_inconclusive=False).judge_all(plans)
        for plan, verdict in zip(plans, verdicts, strict=True):
            if judge is not None and not plan.form_only and verdict.verdict != "equivalent":
                raise CannotRaise(f"is {verdict.verdict} in opset {target}", plan.node)
    except BaseException:
        for plan in plans:
            plan.builder.discard()
        raise
    commit_plans(model, plans, names, target, lower=True)
    changed = tuple((node_label(p.node), v) for p, v in zip(plans, verdicts, strict=True) if p.pairs)
    return Raised(source, target, changed)


def _plans(scope: Scope, target: int) -> Iterator[Plan]:
    for node in scope.graph:
        if not is_onnx(node.domain):
            continue
        old, new = schema_of(node.op_type, scope.version), schema_of(node.op_type, target)
        if old is None or new is None:
            raise CannotRaise(f"opset {target} does not have it", node)
        if old.since_version == new.since_version:
            continue
        form = INPUT_FORMS.get(node.op_type, {}).get("axes")
        if form is not None and target < form.since <= scope.version:
            yield _with_attribute(node, scope, target)
            continue
        reason = _obstacle(node, old, new)
        if reason is not None:
            raise CannotRaise(f"{reason} in opset {target}", node)
        yield Plan(node, scope, Builder(target), [], form_only=False)


def _with_attribute(node: ir.Node, scope: Scope, target: int) -> Plan:
    """A reduction whose axes are an attribute; one over no axes would become one over all."""
    axes = raw_parameter(node, "axes", scope.version, scope.constants)
    if axes is UNKNOWN:
        raise CannotRaise("its axes are computed", node)
    none = axes is ABSENT or not axes
    if none and node.attributes.get_int("noop_with_empty_axes", 0):
        raise CannotRaise(f"it reduces over nothing, which opset {target} cannot say", node)
    builder = Builder(target)
    data = operands(node, scope.version)[0]
    keepdims = node.attributes.get_int("keepdims", 1)
    made = builder.make(node.op_type, "", (data,), {"axes": None if none else axes, "keepdims": keepdims}, 1)
    assert isinstance(made, ir.Value)
    new = made.producer()
    assert new is not None
    new.doc_string = node.doc_string
    new.meta.update(node.meta)
    return Plan(node, scope, builder, [(node.outputs[0], made)], form_only=True)


def _obstacle(node: ir.Node, old: onnx.defs.OpSchema, new: onnx.defs.OpSchema) -> str | None:
    """Why a node cannot be written below as it is."""
    for name, attribute in node.attributes.items():
        if name not in new.attributes:
            return f"{name} is not known"
        if plain(attribute.value) in _LATER_VALUES.get((node.op_type, name), ()):
            return f"{name}={plain(attribute.value)} is not known"
    for name, attribute in old.attributes.items():
        other = new.attributes.get(name)
        if name not in node.attributes and other is not None and other.default_value != attribute.default_value:
            return f"{name} has another default"
    if len(node.inputs) > new.max_input:
        return "so many inputs are not known"
    for values, parameters in ((node.inputs, new.inputs), (node.outputs, new.outputs)):
        for i, value in enumerate(values):
            if value is None or not parameters:
                continue
            allowed = parameters[min(i, len(parameters) - 1)].types
            dtype = value.dtype if isinstance(value.type, ir.TensorType) else None
            kind = None if dtype is None else f"tensor({dtype.name.lower()})"
            if kind is None or kind not in allowed:
                return f"{value.name} may not be {kind or 'of that type, or of an unknown one,'}"
    return None
