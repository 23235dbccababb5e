"""One replacement as a transaction: built aside, checked, judged, and only then committed."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from time import perf_counter

import onnx
import onnx_ir as ir

from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.match import Match, Refused
from onnx_rewrite.pattern.ops import recording
from onnx_rewrite.rewriter.alike import spelt_alike
from onnx_rewrite.rewriter.builder import Builder, check_outputs
from onnx_rewrite.rewriter.cutout import CannotCut, cut_out, flowing_in, ordered
from onnx_rewrite.rewriter.edit import Edit, commit
from onnx_rewrite.rewriter.fingerprint import Fingerprints
from onnx_rewrite.rewriter.inner_types import NodeTypes, give_types, inner_types
from onnx_rewrite.rewriter.names import Names
from onnx_rewrite.rewriter.placing import refuse_entangled, refuse_misplaced
from onnx_rewrite.rewriter.rule import Rule, Unlike
from onnx_rewrite.rewriter.site import Judge, Seconds, Site
from onnx_rewrite.rewriter.standing_in import resolved
from onnx_rewrite.verdict import Verification, not_verified

# From this IR version on an initializer need not be an input too.
IR_OF_FREE_INITIALIZERS = 4


class SpeltAlike(Refused):
    """The replacement is what stands there."""


class NeedsOpset(Exception):
    """The replacement is right, and the model must be raised before it can be committed."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version


class Applier:
    """Applies matches to one model."""

    def __init__(
        self,
        model: ir.Model,
        names: Names,
        constants: Constants,
        judge: Judge | None,
        accept_inconclusive: bool,
    ) -> None:
        self._model = model
        self._names = names
        self._judge = judge
        self._accept_inconclusive = accept_inconclusive
        self._fingerprints = Fingerprints(constants)
        self._found: dict[Hashable, _Found] = {}

    def apply(self, rule: Rule, match: Match, site: Site, seconds: Seconds) -> Edit | None:
        """Replaces the match, or leaves the model as it was and says why in `site`.

        Raises:
            NeedsOpset: It would be applied, but the model's opset is too low; nothing was changed.
        """
        began = perf_counter()
        version = max(match.version, rule.opset_for(match))
        builder = Builder(version)
        try:
            results = self._build(rule, match, builder)
        except SpeltAlike:
            builder.discard()
            raise
        except Refused as refusal:
            site.status, site.reason = "refused", refusal.reason
            builder.discard()
            return None
        except Exception as error:  # whatever a pass does wrong, the model must survive it
            site.status = "rolled_back"
            site.reason = f"the replacement raised {type(error).__name__}: {error}"
            builder.discard()
            return None
        finally:
            seconds.apply += perf_counter() - began
        began = perf_counter()
        old = ordered(match.nodes)
        good, types = self._verified(match, old, builder, results, site, version, dict(rule.unlike(match)))
        seconds.verify += perf_counter() - began
        began = perf_counter()
        try:
            if not good:
                builder.discard()
                return None
            if version > match.version:
                builder.discard()
                raise NeedsOpset(version)
            give_types(builder.nodes, types)
            for node in builder.nodes:
                match.scope.import_domain(node.domain)
            if builder.initializers:
                self._model.ir_version = max(self._model.ir_version, IR_OF_FREE_INITIALIZERS)
            return commit(match, old, builder, results, site.pass_name, self._names)
        finally:
            seconds.apply += perf_counter() - began

    def _build(self, rule: Rule, match: Match, builder: Builder) -> tuple[ir.Value, ...]:
        if len(match.outputs) > 1:  # an edit since the match was found may have entangled it
            refuse_entangled(match)
        token = recording.set(builder)
        try:
            results = check_outputs(rule.replace(match), len(match.outputs))
        finally:
            recording.reset(token)
        refuse_misplaced(match, builder.nodes, results)
        _refuse_itself(match, results)
        if spelt_alike(match, builder, results) or rule.settled(match, builder.nodes):
            raise SpeltAlike("it is spelt so already", match.anchor)
        return results

    def _verified(
        self,
        match: Match,
        old: list[ir.Node],
        builder: Builder,
        results: tuple[ir.Value, ...],
        site: Site,
        version: int,
        unlike: dict[Unlike, str],
    ) -> tuple[bool, NodeTypes]:
        """Whether the replacement may be committed, and its types; says in `site` what was found."""
        key = None
        if not getattr(self._judge, "by_place", False):  # else equal sites are judged apart
            key = self._fingerprints.key(
                old, match.outputs, builder.nodes, results, (match.version, version, *unlike.items())
            )
        found = None if key is None else self._found.get(key)
        if found is None:
            found = self._examined(match, old, builder, results, version, unlike)
            if key is not None:
                self._found[key] = found
        site.verification = found.verification
        verdict = found.verification.verdict
        if found.unsound is not None:
            site.status, site.reason = "rolled_back", f"the replacement is not valid ONNX: {found.unsound}"
        elif verdict == "different" or (verdict == "inconclusive" and not self._accept_inconclusive):
            site.status = "rolled_back"
            site.reason = found.verification.reason or f"the outputs are {verdict}"
        else:
            return True, found.types
        site.before, site.after = found.models or (None, None)
        return False, ()

    def _examined(
        self,
        match: Match,
        old: list[ir.Node],
        builder: Builder,
        results: tuple[ir.Value, ...],
        version: int,
        unlike: dict[Unlike, str],
    ) -> _Found:
        """Cuts the site out, has the checker look at the replacement, and the judge compare the two."""
        new = [*_kept(old, builder.nodes, results), *builder.nodes]
        try:
            before, after = self._models(match, old, new, results, version)
        except CannotCut as reason:
            return _Found(not_verified(str(reason)))
        unsound = _unsound(resolved(after))
        if unsound is not None:
            return _Found(not_verified("it was not run"), unsound, (before, after))
        types = inner_types(after, new, results)[len(new) - len(builder.nodes) :]
        if self._judge is None:
            return _Found(not_verified("verification is off"), types=types)
        sparing = getattr(self._judge, "sparing", None) if unlike else None
        verification = self._judge(before, after) if sparing is None else sparing(before, after, unlike)
        return _Found(verification, None, None if verification.equivalent else (before, after), types)

    def _models(
        self, match: Match, old: list[ir.Node], new: list[ir.Node], results: tuple[ir.Value, ...], version: int
    ) -> tuple[onnx.ModelProto, onnx.ModelProto]:
        scope, constants = match.scope, match.scope.constants
        if version > scope.version and any(node.graph is not None for node in new):
            raise CannotCut(f"nodes of opset {scope.version} stay beside new ones of opset {version}")
        inputs = list(dict.fromkeys([*flowing_in(old, constants), *flowing_in(new, constants)]))
        functions = self._model.functions.values()
        before = cut_out(old, match.outputs, inputs, scope, scope.opsets, functions)
        if getattr(self._judge, "by_place", False):
            for value, info in zip(inputs, before.graph.input, strict=True):
                info.doc_string = value.name or ""
        raised = {**scope.opsets, "": version}
        for node in new:
            raised.setdefault(node.domain, 1)
        after = cut_out(new, results, inputs, scope, raised, functions, declared=match.outputs)
        return before, after


def _refuse_itself(match: Match, results: tuple[ir.Value, ...]) -> None:
    """An Identity that gives an output of the graph its name would be replaced by an Identity, for ever.

    Raises:
        Refused: The match is one.
    """
    alone = len(match.nodes) == 1 and match.anchor.op_type == "Identity"
    if alone and match.output.is_graph_output() and results == tuple(match.anchor.inputs):
        raise Refused(f"Identity gives output '{match.output.name}' of the graph its name", match.anchor)


@dataclass(frozen=True)
class _Found:
    """What was found out about a replacement, and about all that are the same."""

    verification: Verification
    unsound: str | None = None
    models: tuple[onnx.ModelProto, onnx.ModelProto] | None = None
    types: NodeTypes = ()


def _kept(old: list[ir.Node], new: list[ir.Node], results: tuple[ir.Value, ...]) -> list[ir.Node]:
    """The matched nodes whose values the replacement goes on using."""
    inside, needed = set(old), set[ir.Node]()
    waiting = [*results, *(v for node in new for v in node.inputs if v is not None)]
    while waiting:
        node = waiting.pop().producer()
        if node is not None and node in inside and node not in needed:
            needed.add(node)
            waiting += [v for v in node.inputs if v is not None]
    return [node for node in old if node in needed]


def _unsound(model: onnx.ModelProto) -> str | None:
    """What the checker says of the replacement: structure, types and shapes of its outputs; None if all is well."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return str(error).strip().splitlines()[0]
    return None
