"""What must hold of a pass, each as a check of one example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import compose, shape_inference

from onnx_rewrite.rewriter.edit import PASS_KEY, SOURCES_KEY
from onnx_rewrite.testing.comparing import CannotRun, Pair
from onnx_rewrite.testing.containers import COPIES, placed
from onnx_rewrite.testing.draft import Unfit
from onnx_rewrite.testing.example import Example
from onnx_rewrite.testing.renaming import NOTE
from onnx_rewrite.verify import LocalJudge, Tolerance
from onnx_rewrite.verify.dtypes import Array

JUDGED_FEEDS = 6
"""On how many feeds the judge compares one example."""


@dataclass(frozen=True)
class Terms:
    """What a pass may do otherwise, each with the reason why.

    Attributes:
        nan: Why NaN may come out elsewhere; empty: it may not.
        tolerance: How far results may be apart.
    """

    nan: str = ""
    tolerance: Tolerance = field(default_factory=Tolerance)


class Violation(AssertionError):
    """A property does not hold.

    Args:
        reason: In words.
        feed: Inputs that show it, if any are needed.
    """

    def __init__(self, reason: str, feed: Mapping[str, Array] | None = None) -> None:
        super().__init__(reason)
        self.feed = dict(feed or {})


Check = Callable[[Example, Terms], "str | None"]
"""Raises `Violation`, or returns what is worth counting, or None."""


@dataclass(frozen=True)
class Property:
    """One property.

    Attributes:
        name: As the test is called, without "test_".
        of: The strategy: "instances", "embed" or "near_miss".
        check: The check.
        of_any: Whether it must hold for any model, not only for instances of the pattern: then a part of a model that
            breaks it is as good an example.
    """

    name: str
    of: str
    check: Check
    of_any: bool = True

    @property
    def about(self) -> str:
        """What must hold."""
        return (self.check.__doc__ or "").strip().splitlines()[0]


PROPERTIES: dict[str, Property] = {}


def _property(of: str, *, of_any: bool = True) -> Callable[[Check], Check]:
    def known(check: Check) -> Check:
        name = check.__name__
        PROPERTIES[name] = Property(name, of, check, of_any)
        return check

    return known


def bytes_of(model: onnx.ModelProto) -> bytes:
    """The model's bytes, the same for equal models."""
    return model.SerializeToString(deterministic=True)


def need(holds: bool, reason: str) -> None:
    """Raises `Violation` unless something holds."""
    if not holds:
        raise Violation(reason)


# -- what is found


@_property("instances", of_any=False)
def fires_or_says_why(example: Example, terms: Terms) -> str | None:
    """An instance of the pattern is replaced, or refused with a reason; it is never passed over."""
    outcome = example.outcome
    if outcome.settled and not outcome.sites:  # what stands there is what the pass would make of it
        return "settled"
    need(bool(outcome.sites), "the pattern was not found, although this graph was made from it")
    return "fires" if outcome.applied else "refused"


@_property("instances")
def every_copy_is_found(example: Example, terms: Terms) -> str | None:
    """Several disjoint copies of an instance give as many sites."""
    once = example.outcome.applied
    if not once:
        return None
    copies = 3 if len(example.model.graph.node) % 4 == 0 else 2
    found = example.subject.run(_repeated(example.model, copies)).applied
    need(found == once * copies, f"{copies} copies of what gives {once} sites give {found}")
    return "copied"


def _repeated(model: onnx.ModelProto, copies: int) -> onnx.ModelProto:
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    for number in range(1, copies):
        other = compose.add_prefix(model, f"copy{number}_", rename_functions=False)
        for field_name in ("node", "initializer", "input", "output", "value_info"):
            getattr(whole.graph, field_name).extend(getattr(other.graph, field_name))
    return whole


@_property("instances", of_any=False)
def bodies_are_rewritten_too(example: Example, terms: Terms) -> str | None:
    """What is replaced in the main graph is replaced in bodies and functions, or refused there with a reason."""
    if example.container != "main" or not example.outcome.applied or not _sizes_known(example.model):
        return None
    try:
        inside = example.subject.run(placed(example.model, example.elsewhere))
    except Unfit:
        return "cannot stand there"
    wanted = example.outcome.applied * COPIES.get(example.elsewhere, 1)
    if inside.count("refused"):  # less is known of types there, and the pass says so
        return f"refused in {example.elsewhere}"
    need(
        inside.applied == wanted,
        f"{wanted} sites are expected in {example.elsewhere}, and there are {inside.applied} ({inside.told()})",
    )
    return f"in {example.elsewhere}"


def _sizes_known(model: onnx.ModelProto) -> bool:
    """Whether all outputs state their sizes, as those of a body must."""
    return all(d.HasField("dim_value") for o in model.graph.output for d in o.type.tensor_type.shape.dim)


@_property("instances", of_any=False)
def names_and_order_do_not_matter(example: Example, terms: Terms) -> str | None:
    """With other names and another order of the nodes the same sites are found."""
    other = example.disguised.applied
    need(other == example.outcome.applied, f"{example.outcome.applied} sites, and {other} under other names")
    return None


# -- what comes of it


@_property("embed")
def result_is_valid(example: Example, terms: Terms) -> str | None:
    """The checker accepts the result, and inputs and outputs are what they were."""
    outcome = example.outcome
    _no_illegal_replacement(example)
    _valid(example)
    before, after = example.model.graph, outcome.model.graph
    need(list(before.output) == list(after.output), "the outputs changed their names, types or order")
    need(
        list(after.input)[: len(before.input)] == list(before.input) and len(after.input) == len(before.input),
        "the inputs changed",
    )
    return f"{min(outcome.applied, 3)} sites"


def _no_illegal_replacement(example: Example) -> None:
    for site in example.outcome.sites:
        need(site.status != "rolled_back", f"the replacement at {site.id} is not legal: {site.reason}")


def _valid(example: Example) -> None:
    try:
        onnx.checker.check_model(example.outcome.model, full_check=True)
    except (onnx.checker.ValidationError, shape_inference.InferenceError) as error:
        raise Violation(f"the checker refuses the result: {error}") from error


@_property("embed")
def stated_types_are_right(example: Example, terms: Terms) -> str | None:
    """Types and shapes that the result states are those that inference finds."""
    after = example.outcome.model
    # onnx (1.23) takes sizes of Attention's operands that it does not know for 0, so that it must be told these.
    operands = {name for g in _graphs(after.graph) for n in g.node if n.op_type == "Attention" for name in n.input}
    for told in ({*operands}, set[str]()) if operands else (set[str](),):
        bare = onnx.ModelProto()
        bare.CopyFrom(after)
        for graph in _graphs(bare.graph):
            kept = [value for value in graph.value_info if value.name in told]
            del graph.value_info[:]
            graph.value_info.extend(kept)
        for graph, other in zip(_graphs(after.graph), _graphs(shape_inference.infer_shapes(bare).graph), strict=True):
            inferred = {v.name: v for v in other.value_info}
            for value in graph.value_info:
                found = inferred.get(value.name)
                if found is None or (operands and not told and (value.name not in operands or _has_zero(found))):
                    continue
                _agree(value, found)
    return None


def _has_zero(value: onnx.ValueInfoProto) -> bool:
    return any(d.HasField("dim_value") and d.dim_value == 0 for d in value.type.tensor_type.shape.dim)


def _graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    """A graph and all bodies in it."""
    inner = [a.g for node in graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return [graph, *(deeper for body in inner for deeper in _graphs(body))]


def _agree(value: onnx.ValueInfoProto, found: onnx.ValueInfoProto) -> None:
    mine, theirs = value.type.tensor_type, found.type.tensor_type
    need(mine.elem_type == theirs.elem_type, f"value '{value.name}' states another element type")
    if not mine.HasField("shape") or not theirs.HasField("shape"):
        return
    stated = [d.dim_value for d in mine.shape.dim if d.HasField("dim_value")]
    known = [d.dim_value for d in theirs.shape.dim if d.HasField("dim_value")]
    need(len(mine.shape.dim) == len(theirs.shape.dim), f"value '{value.name}' states another rank")
    if len(stated) == len(known) == len(mine.shape.dim):
        need(stated == known, f"value '{value.name}' states {stated}, and is {known}")


@_property("embed")
def second_run_changes_nothing(example: Example, terms: Terms) -> str | None:
    """The pass leaves its own result alone."""
    after = example.outcome.model
    again = example.subject.run(after)
    need(not again.applied, f"a second run replaces {again.applied} sites more: {again.told()}")
    need(bytes_of(again.model) == bytes_of(after), "a second run changes the bytes")
    return None


@_property("embed")
def same_bytes_twice(example: Example, terms: Terms) -> str | None:
    """The same model gives the same bytes, and is not changed itself."""
    original = bytes_of(example.model)
    first = bytes_of(example.outcome.model)
    need(bytes_of(example.subject.run(example.model).model) == first, "two runs give different bytes")
    need(bytes_of(example.model) == original, "the pass changed the model that it was given")
    return None


@_property("near_miss")
def refused_is_untouched(example: Example, terms: Terms) -> str | None:
    """A model in which nothing is replaced keeps its bytes."""
    outcome = example.outcome
    if outcome.applied:
        return "applied"
    need(bytes_of(outcome.model) == bytes_of(example.model), "nothing was replaced, and the bytes changed")
    return "untouched"


@_property("instances")
def opset_is_raised_as_declared(example: Example, terms: Terms) -> str | None:
    """The opset rises only for a replacement, only as far as `needs_opset` says, and never where it is to be kept."""
    outcome, had = example.outcome, _opset(example.model)
    now = _opset(outcome.model)
    if not outcome.applied:
        need(now == had, f"nothing was replaced, and opset {had} became {now}")
    need(now in (had, max(had, example.subject.needs_opset)), f"opset {had} became {now}, which no rule declares")
    if had >= example.subject.needs_opset:
        return "new enough"
    kept = example.subject.run(example.model, opset="keep")
    need(_opset(kept.model) == had, f"opset {had} was to be kept, and became {_opset(kept.model)}")
    return "raised" if now != had else "kept"


def _opset(model: onnx.ModelProto) -> int:
    return next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))


@_property("instances")
def origin_is_recorded(example: Example, terms: Terms) -> str | None:
    """New nodes say which pass made them of which nodes, and keep their metadata."""
    if not example.outcome.applied:
        return None
    for node in _nodes(example.disguised.model):
        props = {p.key: p.value for p in node.metadata_props}
        if PASS_KEY in props and node.op_type not in ("Constant", "Identity"):
            need(bool(props.get(SOURCES_KEY)), f"node '{node.name}' does not say what it was made of")
            need(NOTE in props, f"node '{node.name}' lost the metadata of the nodes that it replaced")
    return None


def _nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    graphs: list[Any] = [model.graph, *model.functions]
    found: list[onnx.NodeProto] = []
    while graphs:
        for node in graphs.pop().node:
            found.append(node)
            graphs += [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return found


# -- whether it is right


@_property("embed")
def equivalent_by_the_judge(example: Example, terms: Terms) -> str | None:
    """The judge, which holds both models against the original in float64, finds no difference."""
    if not example.outcome.applied:
        return None
    return judged(example, terms)


@_property("embed")
def equivalent_by_rounding(example: Example, terms: Terms) -> str | None:
    """The result differs by no more than rounding of the inputs explains."""
    if not example.outcome.applied:
        return None
    return compared(example, terms)


@_property("near_miss")
def near_misses_are_right(example: Example, terms: Terms) -> str | None:
    """A near miss is left alone, or what replaces it is legal and equivalent."""
    _no_illegal_replacement(example)
    if not example.outcome.applied:
        return "left"
    _valid(example)
    told = judged(example, terms)
    compared(example, terms)
    return told


def judged(example: Example, terms: Terms) -> str:
    """The judge's verdict.

    Raises:
        Violation: It is "different".
    """
    after = example.outcome.model
    judge = LocalJudge(feeds=JUDGED_FEEDS, tolerance=terms.tolerance)
    verdict = judge(example.model, after)
    if verdict.verdict == "different":
        feed = judge.feed(example.model, verdict.regime) if verdict.regime else None
        explained = None if feed is None else _explained(example, feed)
        if explained is not None:
            return explained
        raise Violation(f"the result is not equivalent: {verdict.reason}", feed)
    return verdict.verdict


def _explained(example: Example, feed: Mapping[str, Array]) -> str | None:
    """In words, that what the judge found is no more than rounding explains on that feed; None if it is more.

    On a few numbers the original may be exact by luck, and then its own error is no measure.
    """
    if not all(np.isfinite(a).all() for a in feed.values() if a.dtype.kind == "f"):
        return None
    try:
        pair = Pair(example.model, example.outcome.model)
        with np.errstate(all="ignore"):
            if pair.difference(feed, "the judge's") is not None:
                return None
    except CannotRun:
        return None
    return "undetermined in part" if pair.undetermined else "explained by rounding"


def compared(example: Example, terms: Terms) -> str:
    """The independent comparison.

    Raises:
        Violation: They differ.
    """
    try:
        pair = Pair(example.model, example.outcome.model, nan=not terms.nan)
        with np.errstate(all="ignore"):
            found = pair.disagreement()
    except CannotRun:
        return "does not run"
    if found is not None:
        raise Violation(found.reason, found.feed)
    return "compared, undetermined in part" if pair.undetermined else "compared"
