"""Raises a model's opset, as a rewrite like any other: planned aside, judged site by site, all or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.match import Match, Scope
from onnx_rewrite.opset.adaptation import NotAdaptable, OldNode
from onnx_rewrite.opset.changes import adapter_for
from onnx_rewrite.opset.view import is_onnx
from onnx_rewrite.rewriter.builder import Builder
from onnx_rewrite.rewriter.cutout import CannotCut, cut_out, flowing_in
from onnx_rewrite.rewriter.edit import commit, node_label
from onnx_rewrite.rewriter.names import Names
from onnx_rewrite.rewriter.runnable import Opens, stranded
from onnx_rewrite.rewriter.site import Judge
from onnx_rewrite.verdict import Verification, not_verified

PASS_NAME = "opset"

OLDEST = 7
"""The lowest opset that can be raised: before, Add and its like broadcast by attributes."""

# From this IR version on an initializer need not be an input too.
_IR_OF_FREE_INITIALIZERS = 4


class CannotRaise(Exception):
    """The model stays at its opset.

    Attributes:
        node: The node that has no equal at the wanted opset, or None.
        reason: Why.
    """

    def __init__(self, reason: str, node: ir.Node | None = None) -> None:
        super().__init__(reason if node is None else f"{node.op_type} '{node_label(node)}': {reason}")
        self.node = node
        self.reason = reason


@dataclass(frozen=True)
class Raised:
    """What raising changed.

    Attributes:
        source: The opset of the model's graph before.
        target: The opset now.
        changed: The label of each node that got another form, and the verdict on it.
    """

    source: int
    target: int
    changed: tuple[tuple[str, Verification], ...]


@dataclass
class Plan:
    """The new form of one node, not yet in the graph; `pairs` is empty where the node stays."""

    node: ir.Node
    scope: Scope
    builder: Builder
    pairs: list[tuple[ir.Value, ir.Value]]
    form_only: bool


def raise_opset(
    model: ir.Model,
    target: int,
    *,
    judge: Judge | None,
    names: Names,
    constants: Constants,
    accept_inconclusive: bool = False,
    opens: Opens | None = None,
) -> Raised:
    """Raises the standard operators of a model, its functions included, to opset `target`, in place.

    Nodes that mean the same under both opsets stay the same objects. Each other one is written anew, and judged
    against its old form; one whose parameters only moved from an attribute to an input may go unjudged where it
    cannot stand on its own (unknown types). Functions that are above `target` already stay there.

    Args:
        model: The model.
        target: The wanted opset.
        judge: Compares a node's forms; None: nothing is verified.
        names: The model's names.
        constants: The model's constants.
        accept_inconclusive: Whether "inconclusive" is good enough.
        opens: Why a model cannot be opened for lack of a kernel, or None; None: not asked of nodes that stay.

    Raises:
        CannotRaise: A node has no equal, is not equivalent, or would run no more; or `target` is lower than the
            model's opset, or unknown to the installed onnx. The model is as it was.
    """
    source = _version(model.graph.opset_imports)
    if source is None:
        raise CannotRaise("the model imports no standard operators")
    if target < source:
        raise CannotRaise(f"its opset is {source}, and opset {target} is lower: an opset is only ever raised")
    if target > onnx.defs.onnx_opset_version():
        raise CannotRaise(f"opset {target} is newer than the installed onnx knows ({onnx.defs.onnx_opset_version()})")
    plans: list[Plan] = []
    try:
        for scope in _scopes(model, constants, target):
            _plan(scope, target, plans)
        verdicts = Court(judge, target, accept_inconclusive).judge_all(plans) if plans else []
        if opens is not None:
            _refuse_stranded(model, constants, target, plans, opens)
    except BaseException:
        for plan in plans:
            plan.builder.discard()
        raise
    commit_plans(model, plans, names, target)
    changed = ((node_label(p.node), v) for p, v in zip(plans, verdicts, strict=True) if p.pairs)
    return Raised(source, target, tuple(changed))


def _refuse_stranded(model: ir.Model, constants: Constants, target: int, plans: list[Plan], opens: Opens) -> None:
    changed = {plan.node for plan in plans if plan.pairs}
    found = stranded(_scopes(model, constants, target), target, lambda node: node not in changed, opens)
    if found is not None:
        node, reason = found
        raise CannotRaise(f"it runs as it is, and not at opset {target}: {reason}", node)


def _version(imports: Mapping[str, int]) -> int | None:
    return imports.get("", imports.get("ai.onnx"))


def _scopes(model: ir.Model, constants: Constants, target: int) -> Iterator[Scope]:
    """The graphs whose standard operators are below `target`."""
    owners = [(model.graph, model.graph.opset_imports, False)]
    owners += [(f.graph, f.opset_imports, True) for f in model.functions.values()]
    for graph, imports, is_function in owners:
        version = _version(imports)
        if version is None or version >= target:
            continue
        if version < OLDEST:
            raise CannotRaise(f"opset {version}: operators broadcast otherwise below {OLDEST}, which is not supported")
        opsets = {"" if domain == "ai.onnx" else domain: v for domain, v in imports.items()}
        yield Scope(graph, opsets, constants, is_function=is_function)
        for body in graph.subgraphs():
            yield Scope(body, opsets, constants)


def _plan(scope: Scope, target: int, plans: list[Plan]) -> None:
    source = scope.version
    shared: dict[tuple[object, ...], ir.Value] = {}
    adapters = {op_type: adapter_for(op_type, source, target) for op_type in {n.op_type for n in scope.graph}}
    if not any(adapters.values()):
        return
    for node in scope.graph:
        adapt = adapters[node.op_type]
        if adapt is None or not is_onnx(node.domain):
            continue
        builder = Builder(target)
        try:
            change = adapt(OldNode(node, source, target, scope.constants, builder))
        except NotAdaptable as error:
            builder.discard()
            raise CannotRaise(str(error), node) from error
        except BaseException:
            builder.discard()
            raise
        if change is None:
            builder.discard()
            continue
        pairs: list[tuple[ir.Value, ir.Value]] = []
        if change.outputs is not None:
            pairs = [(o, n) for o, n in zip(node.outputs, change.outputs, strict=True) if n is not None]
            _inherit(node, pairs[0][1])
            _share(builder, shared)
        plans.append(Plan(node, scope, builder, pairs, change.form_only))


def _inherit(node: ir.Node, value: ir.Value) -> None:
    """What `commit` does not carry over."""
    new = value.producer()
    assert new is not None
    new.doc_string = node.doc_string
    new.meta.update(node.meta)


def _share(builder: Builder, shared: dict[tuple[object, ...], ir.Value]) -> None:
    """A thousand nodes with the same axes need one constant."""
    own: list[ir.Value] = []
    for value in builder.initializers:
        tensor = value.const_value
        assert tensor is not None
        key = (tensor.dtype, tuple(tensor.shape.numpy()), tensor.tobytes())
        known = shared.setdefault(key, value)
        if known is value:
            own.append(value)
        else:
            value.replace_all_uses_with(known)
    builder.initializers[:] = own


class Court:
    """Judges the plans; what was judged once is not judged again."""

    def __init__(self, judge: Judge | None, target: int, accept_inconclusive: bool) -> None:
        self._judge = judge
        self._target = target
        self._good = {"equivalent", "inconclusive"} if accept_inconclusive else {"equivalent"}
        self._known: dict[object, Verification] = {}

    def judge_all(self, plans: list[Plan]) -> list[Verification]:
        """A verdict for each plan.

        Raises:
            CannotRaise: One of them is not good enough.
        """
        verdicts = [self._verdict(plan) for plan in plans]
        for plan, verdict in zip(plans, verdicts, strict=True):
            if self._judge is None or verdict.verdict in self._good:
                continue
            if verdict.verdict == "not verified" and plan.form_only:
                continue
            if verdict.verdict != "different" and not plan.pairs:  # it stays, and is not known to be wrong
                continue
            detail = f": {verdict.reason}" if verdict.reason else ""
            raise CannotRaise(f"its form at opset {self._target} is {verdict.verdict}{detail}", plan.node)
        return verdicts

    def _verdict(self, plan: Plan) -> Verification:
        if self._judge is None:
            return not_verified("verification is off")
        key: object = _likeness(plan) if plan.form_only else None
        if key in self._known:
            return self._known[key]
        try:
            before, after = self._cut(plan)
        except CannotCut as error:
            note = "; only its form changed" if plan.form_only else ""
            verdict = not_verified(f"{error}{note}")
        else:
            site = (before.SerializeToString(deterministic=True), after.SerializeToString(deterministic=True))
            if site not in self._known:
                self._known[site] = self._judge(before, after)
            verdict = self._known[site]
        if key is not None:
            self._known[key] = verdict
        return verdict

    def _cut(self, plan: Plan) -> tuple[onnx.ModelProto, onnx.ModelProto]:
        node, scope = plan.node, plan.scope
        old = [v for v in node.outputs if v.name != "" and (v.uses() or v.is_graph_output())] or [node.outputs[0]]
        renamed = dict(plan.pairs)
        inputs = flowing_in([node], scope.constants)
        data = node.inputs[0] if node.inputs else None
        if plan.form_only and data is not None and data not in inputs:
            # A mask of -inf says nothing about the form: constant data is fed like any other.
            inputs.insert(0, data)
        opsets = {**scope.opsets, "": self._target}
        before = cut_out([node], old, inputs, scope, scope.opsets, ())
        new = [renamed[v] for v in old] if plan.pairs else old
        nodes = plan.builder.nodes if plan.pairs else [node]
        return before, cut_out(nodes, new, inputs, scope, opsets, (), declared=old)


def _likeness(plan: Plan) -> object:
    """Equal for nodes that differ in nothing but names, dimensions and constants."""
    node = plan.node
    attributes = tuple(sorted((n, str(a.type), str(a.value), a.is_ref()) for n, a in node.attributes.items()))
    inputs = tuple(None if v is None else (v.dtype, None if v.shape is None else len(v.shape)) for v in node.inputs)
    return node.op_type, plan.scope.version, attributes, inputs, tuple(v.name != "" for v in node.outputs)


def commit_plans(model: ir.Model, plans: list[Plan], names: Names, target: int, *, lower: bool = False) -> None:
    """Puts the new forms into the graph, and writes the new opset; of functions above it only where `lower`."""
    for plan in plans:
        if plan.pairs:
            old, new = zip(*plan.pairs, strict=True)
            commit(
                Match(plan.scope, frozenset(), {}, [plan.node], old), [plan.node], plan.builder, new, PASS_NAME, names
            )
    for imports in (model.graph.opset_imports, *(f.opset_imports for f in model.functions.values())):
        for domain in ("", "ai.onnx"):
            if domain in imports:
                imports[domain] = target if lower else max(imports[domain], target)
    lowest = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", target)])
    model.ir_version = max(model.ir_version, lowest, _IR_OF_FREE_INITIALIZERS)
