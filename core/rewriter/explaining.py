"""Why a pass did not fire: near misses, the closest first, each with the first thing that failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.analysis.types import complete_types
from onnx_rewrite.match import Blocked, Failure, Match, Matcher, Refused, Scope, blocked, key_of, raise_blocked
from onnx_rewrite.rewriter.edit import node_label
from onnx_rewrite.rewriter.placing import refuse_entangled
from onnx_rewrite.rewriter.rule import Rule
from onnx_rewrite.rewriter.scopes import find_scopes

# Below this share of the pattern a miss says nothing about it; if there are no others, a few of these are told.
LEAST_SHARE = 0.4
FEW = 3

# One node of these stands everywhere.
EVERYDAY = frozenset(
    {"Add", "Cast", "Concat", "Conv", "Div", "Gemm", "MatMul", "Mul", "Relu", "Reshape", "Sub", "Transpose"}
)


@dataclass(frozen=True)
class NearMiss:
    """A place where a part of a pattern stands.

    Attributes:
        rule: Which of the pass's rules.
        anchor: The node at which the pattern was tried.
        nodes: Names of the nodes that matched, the anchor first.
        wanted: How many nodes the pattern has at least.
        node: The node at which it failed; where a value is not as it should be, the node that reads it.
        operator: The operator of that node.
        value: The value that is the reason, or None.
        attribute: The parameter of the node that is the reason, or None.
        consumer: The node outside the match that needs an interior value, or None.
        reason: What failed, in words.
        hint: What would help, or None.
        complete: Whether the whole pattern stands there, and a condition of the pass refused it.
        about: The node of which it is told, where the pass says what its sites are known by (`Rule.about`), or None.
    """

    rule: str
    anchor: str
    nodes: tuple[str, ...]
    wanted: int
    node: str
    operator: str
    value: str | None
    attribute: str | None
    consumer: str | None
    reason: str
    hint: str | None
    complete: bool
    about: str | None = None

    @property
    def share(self) -> float:
        """How much of the pattern matched, between 0 and 1."""
        return min(1.0, len(self.nodes) / max(1, self.wanted))


@dataclass
class Explanation:
    """What a pass finds in a model, and what it nearly finds.

    Attributes:
        pass_name: The pass.
        found: Names of the nodes of each site that would be tried, the anchor first.
        near: Near misses, the closest first; one per place.
        absent: Operators that the pattern needs and the model does not have, where nothing could be tried.
    """

    pass_name: str
    found: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])
    near: list[NearMiss] = field(default_factory=list[NearMiss])
    absent: list[str] = field(default_factory=list[str])


def explain_pass(
    model: ir.Model, name: str, rules: Sequence[Rule], *, node: str | None = None, target: str = "onnx"
) -> Explanation:
    """Tries a pass everywhere, or around one node, and says what happened; nothing is changed.

    Args:
        model: The model; types that it does not state are inferred.
        name: The pass's name.
        rules: Its rules.
        node: Name of a node (or of its output): only attempts that looked at it are told.
        target: For whom the model would be rewritten.
    """
    complete_types(model)
    scopes = find_scopes(model, Constants(), target)
    explanation = Explanation(name)
    misses: list[tuple[NearMiss, frozenset[ir.Node]]] = []
    taken: set[ir.Node] = set()
    absent: set[str] = set()
    tried = False
    for scope in scopes:
        nodes = list(scope.graph)
        present = {key_of(n) for n in nodes}
        for rule in rules:
            if rule.targets and target not in rule.targets:
                continue
            matcher = rule.compile()
            missing = sorted(op for _, op in matcher.required - present)
            if missing and node is None:
                absent.update(missing)
                continue
            for anchor in reversed(nodes):
                if key_of(anchor) not in matcher.anchors or anchor in taken:
                    continue
                tried = True
                attempt = _Attempt(rule, matcher, scope, anchor)
                if attempt.found is not None:
                    taken.update(attempt.found.private_nodes)
                    if node is None or _is_about(node, attempt.found.nodes):
                        explanation.found.append(tuple(node_label(n) for n in attempt.found.nodes))
                elif attempt.miss is not None and (node is None or attempt.looked_at(node)):
                    misses.append((attempt.miss, frozenset(attempt.matched)))
    explanation.found.reverse()
    misses.reverse()  # anchors were tried from the end of the graph
    about = frozenset[str]().union(*(rule.about for rule in rules))
    if about and node is None:
        known = [n for scope in scopes for n in scope.graph if n.op_type in about and n not in taken]
        explanation.near = [_nearest(n, misses) for n in known]
    else:
        explanation.near = list(_closest(misses, taken, everything=node is not None))
    if not tried:
        explanation.absent = sorted(absent)
    return explanation


class _Attempt:
    """One anchor under one rule."""

    def __init__(self, rule: Rule, matcher: Matcher, scope: Scope, anchor: ir.Node) -> None:
        self._rule, self._matcher, self._scope, self._anchor = rule, matcher, scope, anchor
        self.found: Match | None = None
        self.miss: NearMiss | None = None
        self.matched: tuple[ir.Node, ...] = ()
        self._journal: list[Failure] = []
        self._refusal: tuple[Match, Refused] | None = None
        matcher.match(scope, anchor, self._accept, self._journal)
        if self.found is None:
            self._conclude()

    def _accept(self, match: Match) -> bool:
        try:
            obstacle = self._obstacle(match)
            if obstacle is not None and not obstacle.asks:
                raise_blocked(obstacle)
            if len(match.outputs) > 1:
                refuse_entangled(match)
            self._rule.check(match)
            obstacle = self._obstacle(match)
            if obstacle is not None:
                raise_blocked(obstacle)
        except Refused as refusal:
            # The first is the largest: alternatives are tried in the order of preference.
            self._refusal = self._refusal or (match, refusal)
            return False
        self.found = match
        return True

    def _obstacle(self, match: Match) -> Blocked | None:
        if self._rule.interior != "refuse":
            return None
        return blocked(match.nodes, match.outputs, self._scope.constants, match.viewed_nodes)

    def _conclude(self) -> None:
        if self._refusal is not None:
            match, refusal = self._refusal
            self.matched = match.nodes
            failure = Failure(
                len(match.nodes), refusal.blame, refusal.reason, refusal.attribute, refusal.consumer, match.nodes
            )
        elif self._journal:
            failure = max(self._journal, key=lambda f: f.depth)  # the first of the deepest
            self.matched = failure.nodes
        else:
            return
        if not self.matched:
            return
        where = failure.where
        node = where if isinstance(where, ir.Node) else _reader(where, self.matched, self._anchor)
        self.miss = NearMiss(
            rule=type(self._rule).__name__,
            anchor=node_label(self._anchor),
            nodes=tuple(node_label(n) for n in self.matched),
            wanted=self._matcher.least,
            node=node_label(node),
            operator=node.op_type,
            value=where.name if isinstance(where, ir.Value) else None,
            attribute=failure.attribute,
            consumer=None if failure.consumer is None else node_label(failure.consumer),
            reason=failure.reason,
            hint=hint_for(failure),
            complete=self._refusal is not None,
        )

    def looked_at(self, name: str) -> bool:
        """Whether the attempt came as far as the named node."""
        seen = [*self.matched, *(f.where for f in self._journal if isinstance(f.where, ir.Node))]
        return _is_about(name, seen)


def hint_for(failure: Failure) -> str | None:
    """What a user could do about a failure, where that can be told."""
    value = failure.where if isinstance(failure.where, ir.Value) else None
    if value is not None and value.is_graph_output() and "output of the graph" in failure.reason:
        return f"take '{value.name}' off the model's outputs, if nobody reads it there"
    if failure.consumer is not None:
        return f"{failure.consumer.op_type} '{node_label(failure.consumer)}' would have to go, or take another value"
    if value is not None and value.is_graph_input() and value.const_value is not None:
        return (
            f"'{value.name}' is an initializer and a graph input, so that callers may override it; "
            "export without keep_initializers_as_inputs"
        )
    if value is not None and value.producer() is None and value.is_graph_input() and "constant" in failure.reason:
        return f"'{value.name}' is fed by the caller; a weight in its place would have to be an initializer"
    if "not known" in failure.reason:
        return "give the inputs fixed shapes when exporting, or run onnx's shape inference"
    return None


def _closest(
    misses: list[tuple[NearMiss, frozenset[ir.Node]]], taken: set[ir.Node], *, everything: bool
) -> Iterator[NearMiss]:
    """The closest misses first; of those that overlap the closest, and none inside a site that is found."""
    told: set[ir.Node] = set()
    operators = {node_label(node): node.op_type for _, nodes in misses for node in nodes}
    ranked = sorted(misses, key=lambda m: (not m[0].complete, -m[0].share, -len(m[0].nodes)))
    if everything:
        yield from (miss for miss, _ in ranked)
        return
    telling = [m for m in ranked if m[0].share >= LEAST_SHARE and not _alone(m[0], operators)] or ranked[:FEW]
    for miss, nodes in telling:
        if nodes & told or nodes & taken:
            continue
        told |= nodes
        yield miss


def _nearest(node: ir.Node, misses: Sequence[tuple[NearMiss, frozenset[ir.Node]]]) -> NearMiss:
    """The closest of the misses that have a node, or where its result goes."""
    label = node_label(node)
    those = [miss for miss, nodes in misses if node in nodes]
    if those:
        return replace(min(those, key=lambda miss: (not miss.complete, -miss.share, -len(miss.nodes))), about=label)
    value = node.outputs[0]
    readers = list(dict.fromkeys(use.node for use in value.uses()))
    if value.is_graph_output() or not readers:
        reason = "what it gives is an output of the graph, or nobody reads it"
    else:
        reader = f"{readers[0].op_type} '{node_label(readers[0])}'"
        reason = f"what it gives goes to {reader}, and nothing of the pattern comes after that"
    return NearMiss("", label, (label,), 1, label, node.op_type, value.name, None, None, reason, None, False, label)


def _alone(miss: NearMiss, operators: Mapping[str, str]) -> bool:
    """Whether nothing but an anchor of an everyday operator stands there: a Relu is not half a pattern that ends so."""
    return len(miss.nodes) == 1 and not miss.complete and operators.get(miss.anchor) in EVERYDAY


def _is_about(name: str, nodes: Sequence[ir.Node]) -> bool:
    return any(name == n.name or any(name == v.name for v in n.outputs) for n in nodes)


def _reader(value: ir.Value | None, matched: Sequence[ir.Node], anchor: ir.Node) -> ir.Node:
    """The matched node that reads a value, or gives it; the last that matched where nothing tells."""
    for node in reversed(matched):
        if value is not None and value in node.inputs:
            return node
    producer = None if value is None else value.producer()
    return producer or (matched[-1] if matched else anchor)
