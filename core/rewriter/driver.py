"""Drives passes over a model until none of them finds anything more.

Each pass looks at the whole model once, afterwards only around what edits changed. Matches are collected from the
outputs towards the inputs, so that of two overlapping ones the larger is taken, and applied in the graph's order.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import Protocol

import onnx_ir as ir

from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.analysis.types import complete_types
from onnx_rewrite.analysis.vague import is_vague
from onnx_rewrite.collector import collector_eased
from onnx_rewrite.match import Blocked, Match, Matcher, Refused, Scope, Settled, blocked, key_of, raise_blocked
from onnx_rewrite.rewriter.apply import Applier, NeedsOpset, SpeltAlike
from onnx_rewrite.rewriter.circles import Circles
from onnx_rewrite.rewriter.edit import Edit, has_body, node_label
from onnx_rewrite.rewriter.functions import drop_functions, refresh_functions
from onnx_rewrite.rewriter.listing import Selection
from onnx_rewrite.rewriter.names import Names
from onnx_rewrite.rewriter.operators import Operators
from onnx_rewrite.rewriter.placing import refuse_entangled
from onnx_rewrite.rewriter.raising import CannotRaise, Raised, raise_opset
from onnx_rewrite.rewriter.rule import Rule
from onnx_rewrite.rewriter.runnable import Opens
from onnx_rewrite.rewriter.scopes import find_scopes
from onnx_rewrite.rewriter.site import Judge, Seconds, Site
from onnx_rewrite.rewriter.worklist import Worklist


class RulePass(Protocol):
    """What the driver needs of a pass."""

    @property
    def name(self) -> str:
        """What `--passes` calls it."""
        ...

    def rules(self) -> Sequence[Rule]:
        """The rules, the most wanted first."""
        ...


class Driver:
    """Applies passes to one model, in place.

    Args:
        model: The model; it is changed.
        passes: In the order in which they are tried.
        judge: Compares each replacement with what stood there; None: nothing is verified.
        opens: Tries whether a node has a kernel once the opset is raised; default: the judge's, if it has one.
        target: For whom the model is rewritten.
        opset: "keep", the opset that must not be exceeded, or None: raise as far as a pass needs.
        selection: Which sites may be applied.
        accept_inconclusive: Whether a replacement that could not be judged stays.
        denied: Replacements that must not be made, by pass name and names of the replaced outputs.
        kept: Names of values that something outside the graph refers to (a quantization annotation): they stay.
        learn: Finds types that nobody knows, by looking; returns whether it learned any.
        found: Told each site, as soon as its fate is known.
        after: Told the pass's name after each turn in which it changed something.
    """

    def __init__(
        self,
        model: ir.Model,
        passes: Sequence[RulePass],
        *,
        judge: Judge | None = None,
        opens: Opens | None = None,
        target: str = "onnx",
        opset: int | str | None = None,
        selection: Selection | None = None,
        accept_inconclusive: bool = False,
        denied: frozenset[tuple[str, tuple[str, ...]]] = frozenset(),
        kept: frozenset[str] = frozenset(),
        learn: Callable[[], bool] | None = None,
        found: Callable[[Site], None] | None = None,
        after: Callable[[str], None] | None = None,
    ) -> None:
        self.model = model
        self.passes = passes
        self.sites: dict[str, list[Site]] = {p.name: [] for p in passes}
        self.settled: dict[str, list[str]] = {p.name: [] for p in passes}  # why, where a pass has nothing to do
        self.seconds: dict[str, Seconds] = {p.name: Seconds() for p in passes}
        self.raised: list[Raised] = []
        self._constants = Constants()
        self._scopes: list[Scope] | None = None  # all graphs, until an edit removes or adds one
        self._names = Names(model)
        self._judge = judge
        self._opens: Opens | None = opens or getattr(judge, "opens", None)
        self._target = target
        self._opset = opset
        self._found = found
        self._after = after
        self._denied = denied
        self._kept = kept
        self._learn = learn
        self._learned = False
        self._overlapped = False
        self._edits = 0
        self._accept_inconclusive = accept_inconclusive
        self._selection = selection or Selection()
        self._compiled = [[(rule, rule.compile()) for rule in p.rules()] for p in passes]
        self._applier = Applier(model, self._names, self._constants, judge, accept_inconclusive)
        self._refused: dict[ir.Value, tuple[str, Site, frozenset[ir.Node]]] = {}
        self._covered: set[ir.Node] = set()  # nodes that were replaced, and those that took their names
        self._counters = {p.name: 0 for p in passes}
        self._cannot_raise: dict[int, str] = {}
        self._left: dict[str, set[ir.Node]] = {p.name: set() for p in passes}  # nodes of sites that were not applied
        self._made: dict[str, set[ir.Node]] = {p.name: set() for p in passes}
        self._circles = Circles()
        self._operators = Operators()

    def run(self) -> None:
        """Runs all passes to a common fixed point.

        Raises:
            CircularRewriteError: Passes undo each other.
        """
        with collector_eased():
            self._run()

    def _run(self) -> None:
        complete_types(self.model)
        worklist = Worklist(len(self.passes))
        fresh = [True] * len(self.passes)
        typed = 0
        while any(fresh) or any(worklist.pending(index) for index in range(len(self.passes))):
            for index in range(len(self.passes)):
                edits = self._edits
                while fresh[index] or worklist.pending(index):
                    region = None if fresh[index] else self._region(index, worklist)
                    worklist.skip(index)
                    fresh[index] = self._overlapped = False
                    done = self._edits
                    for edit in self._wave(index, region):
                        worklist.note(edit)
                    fresh[index] = self._overlapped and self._edits > done
                if self._edits > edits and self._after is not None:
                    refresh_functions(self.model)
                    self._after(self.passes[index].name)
            if self._learned or (self._edits > typed and self.model.functions):
                # What was learned, and what was replaced in a function, may have told types elsewhere, in the bodies of
                # functions too: all is looked at anew.
                self._learned, typed = False, self._edits
                complete_types(self.model)
                self._constants.forget_unknown()
                fresh = [True] * len(self.passes)
        refresh_functions(self.model)
        self._report_refused()

    def _region(self, index: int, worklist: Worklist) -> set[ir.Node]:
        """The nodes at which a pass's patterns may match otherwise than before."""
        matchers = [matcher for scope in self._found_scopes() for _, matcher in self._possible(index, scope)]
        if not matchers:
            return set()
        return worklist.take(index, max(m.depth for m in matchers), beside=any(m.outputs > 1 for m in matchers))

    def _found_scopes(self) -> list[Scope]:
        if self._scopes is None:
            self._operators.forget()
            self._scopes = find_scopes(self.model, self._constants, self._target, self._highest())
        return self._scopes

    def _highest(self) -> int:
        """The highest opset that a pass may count on."""
        if self._opset == "keep":
            return 0
        bounds = [self._opset] if isinstance(self._opset, int) else []
        return min([*bounds, *(version - 1 for version in self._cannot_raise)], default=sys.maxsize)

    def _possible(self, index: int, scope: Scope) -> list[tuple[Rule, Matcher]]:
        """The pass's rules all of whose necessary operators stand in the scope."""
        present = self._operators.present(scope.graph)
        return [
            (rule, matcher)
            for rule, matcher in self._compiled[index]
            if matcher.required <= present and (not rule.targets or self._target in rule.targets)
        ]

    # -- one pass, once over the model or a part of it

    def _wave(self, index: int, region: set[ir.Node] | None) -> Iterable[Edit]:
        name = self.passes[index].name
        began = perf_counter()
        planned = self._collect(index, region)
        self.seconds[name].match += perf_counter() - began
        if self._raised_for(name, planned):
            # Nodes may have changed form: everything is matched anew.
            return self._wave(index, region=None)
        replaced: dict[ir.Value, ir.Value] = {}
        edits: list[Edit] = []
        for rule, match in planned:
            match.rebound(replaced)
            edit = self._apply(name, rule, match)
            if edit is not None:
                edits.append(edit)
                self._operators.note(edit.added)
                if any(has_body(n) for n in edit.added):  # none that has a body is ever removed
                    self._scopes = None
                replaced.update(edit.replaced)
        return edits

    def _raised_for(self, name: str, planned: list[tuple[Rule, Match]]) -> bool:
        """Raises the model's opset if a match that may be applied needs it and its replacement is right."""
        for number, (rule, match) in enumerate(planned):
            if rule.opset_for(match) <= match.version or self._forbids(rule, match) is not None:
                continue
            site = self._site(name, match, self._counters[name] + number)
            if self._selection.reason_against(site.id, site.nodes) is not None:
                continue
            try:
                self._applier.apply(rule, match, site, self.seconds[name])
            except SpeltAlike:
                continue
            except NeedsOpset as wanted:
                self._raise(wanted.version, name)
                return True  # where it cannot be raised, the pass may do with less
        return False

    def _forbids(self, rule: Rule, match: Match) -> str | None:
        """Why the model cannot have the opset that the rule needs, or None."""
        needed, version = rule.opset_for(match), match.version
        if needed <= version:
            return None
        if self._opset == "keep":
            return f"needs opset {needed}, the model's is {version} and is to be kept"
        if isinstance(self._opset, int) and needed > max(version, self._opset):
            return f"needs opset {needed}, more than the {max(version, self._opset)} that --opset allows"
        reason = self._cannot_raise.get(needed)
        return None if reason is None else f"needs opset {needed}, and the model cannot be raised to it: {reason}"

    def _collect(self, index: int, region: set[ir.Node] | None) -> list[tuple[Rule, Match]]:
        """Disjoint matches of the pass's rules, in the order of the graph."""
        collected: list[tuple[Rule, Match]] = []
        for scope in self._found_scopes():
            collected += self._collect_in(index, scope, region)
        return collected

    def _collect_in(self, index: int, scope: Scope, region: set[ir.Node] | None) -> list[tuple[Rule, Match]]:
        name = self.passes[index].name
        by_anchor: dict[tuple[str, str], list[tuple[Rule, Matcher]]] = {}
        for rule, matcher in self._possible(index, scope):
            for key in matcher.anchors:
                by_anchor.setdefault(key, []).append((rule, matcher))
        if not by_anchor:
            return []
        claimed: set[ir.Node] = set()
        shared: set[ir.Node] = set()  # what views of accepted matches look through
        found: list[tuple[Rule, Match]] = []
        for node in self._operators.backwards(scope.graph, {op_type for _, op_type in by_anchor}):
            if node in claimed or (region is not None and node not in region):
                continue
            for rule, matcher in by_anchor.get(key_of(node), ()):
                accepted: list[Match] = []
                if matcher.match(scope, node, lambda m: self._accept(name, rule, m, (claimed, shared), accepted)):  # noqa: B023
                    claimed.update(accepted[0].private_nodes)
                    shared.update(accepted[0].viewed_nodes)
                    found.append((rule, accepted[0]))
                    break
        found.reverse()
        return found

    def _accept(
        self,
        name: str,
        rule: Rule,
        match: Match,
        taken: tuple[set[ir.Node], set[ir.Node]],
        accepted: list[Match],
    ) -> bool:
        claimed, shared = taken
        if not self._left[name].isdisjoint(match.private_nodes) or not claimed.isdisjoint(match.nodes):
            return False
        if not shared.isdisjoint(match.private_nodes):
            self._overlapped = True  # once the other match is replaced, it may no longer look through these nodes
            return False
        if self._learn is not None and any(is_vague(v) for node in match.nodes for v in node.inputs if v is not None):
            learn, self._learn = self._learn, None
            if learn():
                self._constants.forget_unknown()
                self._learned = True
        try:
            obstacle = self._obstacle(rule, match)
            if obstacle is not None and not obstacle.asks:
                raise_blocked(obstacle)
            if len(match.outputs) > 1:
                refuse_entangled(match)
            if self._kept:
                self._refuse_kept(match)
            seen = match.viewed_nodes
            rule.check(match)
            if match.viewed_nodes != seen:
                obstacle = self._obstacle(rule, match)
            if obstacle is not None:
                raise_blocked(obstacle)
            forbidden = self._forbids(rule, match)
            if forbidden is not None:  # a rule further down may do with the model's opset
                raise Refused(forbidden)
        except Settled as settled:
            self.settled[name].append(settled.reason)
            return False
        except Refused as refusal:
            self._refuse(name, match, refusal.reason)
            return False
        accepted.append(match)
        return True

    def _obstacle(self, rule: Rule, match: Match) -> Blocked | None:
        if rule.interior != "refuse":
            return None
        return blocked(match.nodes, match.outputs, self._constants, match.viewed_nodes)

    def _refuse_kept(self, match: Match) -> None:
        for node in match.nodes:
            for value in (*node.outputs, *node.inputs):
                if value is None or value in match.outputs or value.name not in self._kept:
                    continue
                if value.producer() in match.nodes or (value.is_initializer() and len(value.uses()) == 1):
                    raise Refused(f"a quantization annotation or training_info refers to value '{value.name}'", value)

    # -- outcomes

    def _apply(self, name: str, rule: Rule, match: Match) -> Edit | None:
        forbidden = self._forbids(rule, match)
        if forbidden is not None:
            self._refuse(name, match, forbidden)
            return None
        site = self._site(name, match, self._counters[name])
        self._counters[name] += 1
        against = self._selection.reason_against(site.id, site.nodes)
        if against is not None:
            site.status, site.reason = "skipped", against
            self._settle(name, match, site)
            return None
        if (name, site.outputs) in self._denied:
            site.status = "rolled_back"
            self._settle(name, match, site)
            return None
        site.note = rule.note(match)
        try:
            edit = self._applier.apply(rule, match, site, self.seconds[name])
        except SpeltAlike as already:
            # Of what the run itself made nothing is to be told.
            self._left[name].update(match.private_nodes)
            if self._made[name].isdisjoint(match.private_nodes):
                site.status, site.reason = "refused", already.reason
                self._settle(name, match, site)
            else:
                self._counters[name] -= 1
            return None
        site.number = self._edits
        if edit is not None:
            self._edits += 1
            labels = set(site.nodes)
            self._covered.update(match.nodes, (n for n in edit.added if node_label(n) in labels))
            self._made[name].update(edit.added)
            self._circles.note(site, edit)
        self._settle(name, match, site)
        return edit

    def _raise(self, version: int, name: str) -> None:
        began = perf_counter()
        drop_functions(self.model)  # they are written anew at the end, in the new opset
        try:
            self.raised.append(
                raise_opset(
                    self.model,
                    version,
                    judge=self._judge,
                    names=self._names,
                    constants=self._constants,
                    opens=self._opens,
                )
            )
            complete_types(self.model)
            self._scopes = None
        except CannotRaise as error:
            self._cannot_raise[version] = str(error)
            self._scopes = None
        finally:
            self.seconds[name].apply += perf_counter() - began

    def _site(self, name: str, match: Match, number: int) -> Site:
        return Site(
            id=f"{name}[{number}]",
            pass_name=name,
            nodes=tuple(node_label(n) for n in match.nodes),
            inputs=tuple(dict.fromkeys(_flowing(match))),
            outputs=tuple(v.name or "" for v in match.outputs),
            status="applied",
        )

    def _settle(self, name: str, match: Match, site: Site) -> None:
        self.sites[name].append(site)
        if site.status != "applied":
            self._left[name].update(match.private_nodes)
        if self._found is not None:
            self._found(site)

    def _refuse(self, name: str, match: Match, reason: str) -> None:
        known = self._refused.get(match.output)
        if known is None or known[0] != name:
            site = self._site(name, match, 0)
            site.status, site.reason = "refused", reason
            self._refused[match.output] = (name, site, frozenset(match.private_nodes))

    def _report_refused(self) -> None:
        """Refused matches that no applied one covers, the largest of those that overlap."""
        kept: dict[str, set[ir.Node]] = {}
        for name, site, nodes in sorted(self._refused.values(), key=lambda r: (-len(r[2]), r[1].outputs)):
            taken = kept.setdefault(name, set())
            # Not by their names: nodes may share one, and bodies beside each other often do.
            if nodes & self._covered or nodes & taken or any(n.graph is None for n in nodes):
                continue
            taken |= nodes
            site.id = f"{name}[{self._counters[name]}]"
            self._counters[name] += 1
            self.sites[name].append(site)


def _flowing(match: Match) -> list[str]:
    produced = {v for n in match.nodes for v in n.outputs}
    constants = match.scope.constants
    return [
        v.name or ""
        for n in match.nodes
        for v in n.inputs
        if v is not None and v not in produced and not constants.is_constant(v)
    ]
