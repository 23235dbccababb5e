"""`extract`: a part of a model as a model of its own."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from onnx_rewrite import registry
from onnx_rewrite.analysis.types import complete_types, is_incomplete
from onnx_rewrite.errors import UsageError
from onnx_rewrite.model import LoadedModel, count_nodes, load, reload, save, to_proto
from onnx_rewrite.pipeline.carving import Part, carve, depending, enclosing, needed
from onnx_rewrite.pipeline.probing import Probe
from onnx_rewrite.rewriter.driver import Driver
from onnx_rewrite.rewriter.edit import node_label
from onnx_rewrite.rewriter.names import all_graphs
from onnx_rewrite.rewriter.site import Site

_SITE = re.compile(r"([\w.-]+)\[\d+\]")


@dataclass
class Extracted:
    """A part of a model, as a model of its own.

    Attributes:
        inputs: Names of what must be fed.
        outputs: Names of what it gives.
        nodes: How many nodes it has, Constants aside, bodies and functions included.
        nodes_before: How many the whole model has.
        notes: What differs from what was asked for, in words: a graph input that is needed too, for example.
        site: The site whose cut-out it is, or None.
    """

    inputs: list[str]
    outputs: list[str]
    nodes: int
    nodes_before: int
    notes: list[str] = field(default_factory=list[str])
    site: Site | None = None
    _loaded: LoadedModel = field(kw_only=True, repr=False)

    @property
    def model(self) -> ir.Model:
        """The part."""
        return self._loaded.ir

    def to_proto(self) -> onnx.ModelProto:
        """The part as protobuf; external data stays external, in the folder where it is."""
        return to_proto(self._loaded)

    def save(self, path: str | os.PathLike[str], *, overwrite_input: bool = False) -> Path:
        """Writes the part, whole or not at all; "-" is standard output.

        Args:
            path: The suffix chooses the format: protobuf, or the text and JSON forms that onnx reads.
            overwrite_input: Allows `path` to be the file that was read.

        Raises:
            ModelError: It cannot be written there.
        """
        return save(self._loaded, path, overwrite_input=overwrite_input)


def extract(
    model: Any,
    *,
    from_: Sequence[str] | str | None = None,
    to: Sequence[str] | str | None = None,
    match: str | None = None,
    passes: Any = None,
) -> Extracted:
    """The part of a model between some values and others, or the nodes of one site; names stay.

    It holds the nodes and initializers that its outputs need and no others. Everything else is the model's: opset
    imports, IR version, metadata, functions that are called, the types that it states, external data.

    Args:
        model: A path ("-" is standard input), bytes, `onnx.ModelProto`, `onnx_ir.Model` or `gs.Graph`; it is not
            changed.
        from_: Names of the values that become inputs: one, several separated by commas, or a sequence; None: the
            model's inputs. An initializer among them becomes an input without a default.
        to: Names of the values that become outputs; None: the model's outputs that depend on `from_`.
        match: Instead of both, the id of a site ("ln[3]"), in a body or a function too: what flows into it becomes
            the inputs, constants aside, and what it gives the outputs.
        passes: With `match`, the passes of the run that the id is from; None: the site's pass alone.

    Raises:
        ModelError: The model cannot be read.
        UsageError: A value, a pass or a site does not exist, nothing lies between the values, or the type of an input
            or output is not known.
    """
    if (match is None) == (from_ is None and to is None):
        raise UsageError(
            "what is to be extracted: either a site, or values to cut at",
            hint="--from A,B and --to C name values; --match 'ln[3]' names a site",
        )
    loaded = load(model)
    before = count_nodes(loaded.ir)
    site: Site | None = None
    notes: list[str] = []
    if match is not None:
        site, scopes, inputs, outputs = _of_site(loaded, match, passes)
    else:
        scopes = [loaded.ir.graph]
        inputs, outputs = _named(loaded.ir, from_, "--from"), _named(loaded.ir, to, "--to")
        if to is None:
            outputs = _outputs_after(inputs, loaded.ir.graph)
        _refuse_uncomputed(outputs, inputs)
    part = needed(outputs, set(inputs), scopes)
    if from_ is not None:
        inputs = _settled(part, inputs, outputs, notes)
    if site is not None and _differs(part, inputs, site):
        notes.append(f"earlier replacements made nodes of {site.id}: the part is what the model has in their place")
    chosen = set(inputs)
    everything = dict.fromkeys((*loaded.ir.graph.inputs, *(v for scope in scopes for v in scope.inputs)))
    inputs += [v for v in everything if v not in chosen and (v in part.reached or v in part.defaults)]
    _require_types(loaded.ir, [v for v in inputs if v not in part.defaults], outputs)
    notes += carve(loaded, part, inputs, outputs)
    fed = [value.name or "" for value in loaded.ir.graph.inputs if not value.is_initializer()]
    given = [value.name or "" for value in outputs]
    return Extracted(fed, given, count_nodes(loaded.ir), before, notes, site, _loaded=loaded)


def _settled(part: Part, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value], notes: list[str]) -> list[ir.Value]:
    """The chosen inputs that are needed; the notes tell of the others, and of graph inputs needed besides."""
    wanted, given = _quoted(inputs), _quoted(outputs)
    if not part.used:
        raise UsageError(
            f"{given} {'does' if len(outputs) == 1 else 'do'} not depend on {wanted}",
            hint="give --from alone for everything that depends on it, or --to alone for everything up to the inputs",
        )
    idle = [value for value in inputs if value not in part.used]
    if idle:
        notes.append(f"{_quoted(idle)} {'is' if len(idle) == 1 else 'are'} left out: not needed for {given}")
    used = [value for value in inputs if value in part.used]
    if part.reached:
        stay = "stays an input" if len(part.reached) == 1 else "stay inputs"
        notes.append(f"{_quoted(part.reached)} {stay}: --from {_quoted(used)} does not cut {given} off")
    return used


def _quoted(values: Any) -> str:
    names = [f"'{value.name}'" for value in values]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# -- values by name ---------------------------------------------------------------------------------------------------


def _values(graph: ir.Graph) -> dict[str, ir.Value]:
    found = {value.name: value for value in (*graph.inputs, *graph.initializers.values())}
    found.update((value.name, value) for node in graph for value in node.outputs)
    return {name: value for name, value in found.items() if name}


def _named(model: ir.Model, wanted: Sequence[str] | str | None, option: str) -> list[ir.Value]:
    if wanted is None:
        return []
    values = _values(model.graph)
    names: dict[str, None] = {}
    for text in [wanted] if isinstance(wanted, str) else wanted:
        parts = [text] if text in values else [name.strip() for name in text.split(",")]
        names.update(dict.fromkeys(name for name in parts if name))
    if not names:
        raise UsageError(f"{option} names no value")
    for name in names:
        if name not in values:
            raise UsageError(f"{option}: the model has no value '{name}'", hint=_way_to(name, values, model))
    return [values[name] for name in names]


def _way_to(name: str, values: dict[str, ir.Value], model: ir.Model) -> str:
    for node in model.graph:
        if node.name == name:
            outputs = " and ".join(f"'{value.name}'" for value in node.outputs if value.name)
            return f"that is a node ({node.op_type}); the value that it gives is {outputs}"
    for graph in all_graphs(model):
        if graph is not model.graph and name in _values(graph):
            return "it is a value of a body or of a function, where only --match reaches"
    near = difflib.get_close_matches(name, values, n=3)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return "the values are the names of inputs and of the nodes' outputs; `rewrite inspect` lists the model's inputs"


def _outputs_after(inputs: Sequence[ir.Value], graph: ir.Graph) -> list[ir.Value]:
    after = depending(inputs, graph)
    outputs = list(dict.fromkeys(value for value in graph.outputs if value in after))
    if not outputs:
        raise UsageError(
            f"no output of the model depends on {_quoted(inputs)}", hint="--to says what is to become an output"
        )
    return outputs


def _refuse_uncomputed(outputs: Sequence[ir.Value], inputs: Sequence[ir.Value]) -> None:
    for value in outputs:
        if value in inputs:
            raise UsageError(
                f"'{value.name}' is named by --from and by --to: nothing lies between", hint="name it in one of them"
            )
        if value.producer() is None:
            kind = "an initializer" if value.is_initializer() else "an input of the model"
            raise UsageError(
                f"--to: '{value.name}' is {kind}: nothing computes it", hint="name the output of a node in --to"
            )


# -- sites ------------------------------------------------------------------------------------------------------------


def _of_site(
    loaded: LoadedModel, match: str, passes: Any
) -> tuple[Site, list[ir.Graph], list[ir.Value], list[ir.Value]]:
    site, rank = _find_site(loaded, match, passes)
    fitting = [graph for graph in all_graphs(loaded.ir) if _holds(graph, site)]
    if not fitting:
        raise UsageError(
            f"{match} is no part of the model as it stands: an earlier edit made nodes of it",
            hint=f"rewrite the model with --skip '{match}' first, and extract from what that gives",
        )
    graph = fitting[min(rank, len(fitting) - 1)]
    scopes = enclosing(graph, loaded.ir)
    values = {name: value for scope in scopes for name, value in _values(scope).items()}
    missing = [name for name in site.inputs if name not in values]
    if missing:
        raise UsageError(
            f"{match} reads '{missing[0]}', which an earlier replacement made",
            hint=f"rewrite the model with --skip '{match}' first, and extract from what that gives",
        )
    # An initializer that is an input too stays both: a default.
    inputs = [values[name] for name in site.inputs if not values[name].is_initializer()]
    return site, scopes, inputs, [values[name] for name in site.outputs]


def _find_site(loaded: LoadedModel, match: str, passes: Any) -> tuple[Site, int]:
    """The site, and how many before it look the same (in other bodies or functions with the same names)."""
    parsed = _SITE.fullmatch(match)
    if parsed is None:
        raise UsageError(f"'{match}' is no id of a site", hint="for example --match 'ln[3]'; --dry-run lists the ids")
    name = parsed[1]
    chosen = registry.resolve(name if passes is None else passes)
    if all(one.name != name for one in chosen):
        raise UsageError(f"'{match}' is a site of '{name}', which --passes does not name")
    twin = reload(loaded)
    learn: Callable[[], bool] = Probe(loaded, twin.ir, None, None, 0)
    driver = Driver(twin.ir, chosen, kept=loaded.kept_names, learn=learn)
    driver.run()
    sites = driver.sites[name]
    site = next((one for one in sites if one.id == match), None)
    if site is None:
        raise UsageError(
            f"there is no site {match}: {name} finds {f'{name}[0] to {name}[{len(sites) - 1}]' if sites else 'none'}",
            hint="`rewrite MODEL --dry-run --verbose` lists them",
        )
    before = sites[: sites.index(site)]
    return site, sum((s.nodes, s.inputs, s.outputs) == (site.nodes, site.inputs, site.outputs) for s in before)


def _holds(graph: ir.Graph, site: Site) -> bool:
    labels = {node_label(node) for node in graph}
    produced = {value.name for node in graph for value in node.outputs}
    return labels.issuperset(site.nodes) and produced.issuperset(site.outputs)


def _differs(part: Part, inputs: Sequence[ir.Value], site: Site) -> bool:
    """Whether a part has nodes that the site has not, constant ones aside."""
    after = depending(inputs, part.scopes[-1])
    computing = [node for node in part.nodes if any(value in after for value in node.outputs)]
    return any(node_label(node) not in site.nodes for node in computing)


# -- types ------------------------------------------------------------------------------------------------------------


def _require_types(model: ir.Model, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> None:
    interface = (*inputs, *outputs)
    if any(is_incomplete(value) for value in interface):
        complete_types(model)
    for value in interface:
        kind = value.type
        if kind is None or (isinstance(kind, ir.TensorType) and kind.dtype == ir.DataType.UNDEFINED):
            raise UsageError(
                f"the type of '{value.name}' is not known: neither does the model state it, nor can it be inferred",
                hint=_typed_instead(value, model) or "state it in the model's value_info first",
            )


def _typed_instead(value: ir.Value, model: ir.Model) -> str | None:
    """Values next to this one where a cut is possible."""
    near: dict[str, None] = {}
    producer = value.producer()
    around = list(producer.inputs) if producer is not None else []
    around += [output for node, _ in value.uses() for output in node.outputs]
    for each in around:
        if each is not None and each.type is not None and each.name and not each.is_initializer():
            near[each.name] = None
    if not near:
        return None
    return f"cut at {' or '.join(f'{name!r}' for name in list(near)[:3])}, whose type is known, or state its value_info"
