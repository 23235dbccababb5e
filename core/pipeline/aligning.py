"""Gives two models one interface: names by name or by position, chosen outputs, sizes and types that fit both."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import onnx_ir as ir

from onnx_rewrite.analysis.types import complete_types
from onnx_rewrite.errors import UsageError
from onnx_rewrite.model import LoadedModel
from onnx_rewrite.pipeline import boundary
from onnx_rewrite.pipeline.boundary import described
from onnx_rewrite.verify.bindings import Input, fed_inputs
from onnx_rewrite.verify.dtypes import FLOATS, type_name

_WHOLE_NUMBERS = frozenset(
    {
        onnx.TensorProto.INT8,
        onnx.TensorProto.INT16,
        onnx.TensorProto.INT32,
        onnx.TensorProto.INT64,
        onnx.TensorProto.UINT8,
        onnx.TensorProto.UINT16,
        onnx.TensorProto.UINT32,
        onnx.TensorProto.UINT64,
    }
)
_BY_POSITION = "--by-position maps them in their order, whatever they are called"


@dataclass(frozen=True)
class Aligned:
    """Two models with one interface.

    Attributes:
        a: The reference.
        b: The other one, its inputs and outputs under A's names.
        folder_a: Where A's external data lies, or None.
        folder_b: The same for B.
        names_b: What B itself calls each output, by A's name.
        mixed: Why the two have no common precision to be judged by, or None.
        notes: What is to be known besides.
    """

    a: onnx.ModelProto
    b: onnx.ModelProto
    folder_a: Path | None
    folder_b: Path | None
    names_b: dict[str, str]
    mixed: str | None = None
    notes: list[str] = field(default_factory=list[str])


def align(
    first: LoadedModel, second: LoadedModel, *, by_position: bool = False, outputs: Sequence[str] | None = None
) -> Aligned:
    """Aligns B's interface with A's.

    Args:
        first: The reference, A.
        second: The other one, B.
        by_position: Inputs and outputs belong together by their order, not by their names.
        outputs: What to compare, by A's names: outputs, or values inside both models; None: all outputs.

    Raises:
        UsageError: Names, types, ranks or sizes do not agree; the message names the value, the hint a way out.
    """
    a, b = first.proto, second.proto
    inputs = _input_names(a, b, by_position)
    ends = _output_names(a, b, by_position, outputs)
    names_b = {theirs_of: own for own, theirs_of in ends.items()}
    if by_position:
        _fit_outputs(a, b, {n: o for n, o in names_b.items() if outputs is None or n in outputs})
    if any(new != old for old, new in inputs.items()) or any(new != old for old, new in ends.items()):
        b = boundary.renamed(b, inputs, ends)
    if outputs is not None:
        wanted = list(dict.fromkeys(outputs))
        a = boundary.part(a, value_infos(first, a, wanted))
        # Renaming has moved B's own values aside where they were in the way.
        b = boundary.part(b, value_infos(second, b, wanted, {n: names_b.get(n, n) for n in wanted}))
        names_b = {name: names_b.get(name, name) for name in wanted}
    notes: list[str] = []
    missing = [i.name for i in fed_inputs(a) if i.name not in {v.name for v in b.graph.input}]
    if missing:
        notes.append(f"B has no input {described(missing)}; it is fed to A alone")
    a, b, mixed = _types_and_sizes(a, b)
    mixed = mixed or _mixed_outputs(a, b)
    if mixed is None:
        notes.extend(_narrower_inside(a, b))
    return Aligned(a, b, first.base_dir, second.base_dir, names_b, mixed, notes)


def _input_names(a: onnx.ModelProto, b: onnx.ModelProto, by_position: bool) -> dict[str, str]:
    """A's names of B's inputs, by B's."""
    ours, theirs = [i.name for i in fed_inputs(a)], [i.name for i in fed_inputs(b)]
    if by_position:
        if len(ours) != len(theirs):
            raise UsageError(
                f"A has {len(ours)} inputs ({described(ours)}), B has {len(theirs)} ({described(theirs)})",
                hint="--by-position needs as many in both; rename them, or cut the models with `rewrite extract`",
            )
        return dict(zip(theirs, ours, strict=True))
    known = {v.name for v in a.graph.input}
    new = [name for name in theirs if name not in known]
    if new:
        gone = [name for name in ours if name not in theirs]
        raise UsageError(
            f"B has an input that A lacks: {described(new)}; in A alone: {described(gone)}",
            hint=_BY_POSITION if len(ours) == len(theirs) else "give the two models the same inputs",
        )
    return {name: name for name in theirs}


def _output_names(
    a: onnx.ModelProto, b: onnx.ModelProto, by_position: bool, outputs: Sequence[str] | None
) -> dict[str, str]:
    """A's names of B's outputs, by B's."""
    ours, theirs = [o.name for o in a.graph.output], [o.name for o in b.graph.output]
    if outputs is not None and not outputs:
        raise UsageError("no output is named", hint=f"A's outputs: {described(ours)}")
    if by_position:
        if outputs is None and len(ours) != len(theirs):
            raise UsageError(
                f"A has {len(ours)} outputs ({described(ours)}), B has {len(theirs)} ({described(theirs)})",
                hint="name those to be compared with --outputs",
            )
        found = dict(zip(theirs, ours, strict=False))
    else:
        found = {name: name for name in theirs if name in ours}
        if outputs is None:
            if not found:
                raise UsageError(
                    f"A and B have no output in common: A has {described(ours)}, B has {described(theirs)}",
                    hint=_BY_POSITION if len(ours) == len(theirs) else "name values of both with --outputs",
                )
            gone, new = ([n for n in x if n not in y] for x, y in ((ours, theirs), (theirs, ours)))
            if gone or new:
                only = [f"{described(n)} only in {m}" for n, m in ((gone, "A"), (new, "B")) if n]
                way = f"--outputs {','.join(found)} compares the common ones"
                hint = f"{way}; {_BY_POSITION}" if len(ours) == len(theirs) else way
                raise UsageError(f"the outputs differ: {'; '.join(only)}", hint=hint)
    if outputs is not None:
        targets = {ours_of: own for own, ours_of in found.items()}
        names = [("A", boundary.names_of(a)), ("B", boundary.names_of(b))]
        for name in outputs:
            for model, known in names:
                if name not in known and not (model == "B" and name in targets):
                    near = difflib.get_close_matches(name, known, 1)
                    hint = f"did you mean {near[0]!r}?" if near else f"the outputs are {described(ours)}"
                    raise UsageError(f"{model} has no value {name!r}", hint=hint)
        if by_position:
            # A's output without a counterpart must not be taken for a value of B that happens to bear its name.
            lonely = [n for n in outputs if n in ours and n not in targets]
            if lonely:
                raise UsageError(f"output {lonely[0]!r} of A has none at its position in B, which has {len(theirs)}")
    return found


def value_infos(
    loaded: LoadedModel, model: onnx.ModelProto, names: Sequence[str], own: dict[str, str] | None = None
) -> list[onnx.ValueInfoProto]:
    """Declarations of values, with the element type where it is declared or can be inferred.

    Args:
        loaded: The model as it was loaded.
        model: The same, perhaps renamed; its declared outputs go before anything inferred.
        names: The values, by their names in `model`.
        own: What they are called in `loaded`, where that differs.

    Raises:
        UsageError: A value stands inside a body, where it cannot be seen.
    """
    declared = {v.name: v for v in (*model.graph.value_info, *model.graph.input, *model.graph.output)}
    outside = {n for node in model.graph.node for n in node.output} | set(declared)
    outside |= {t.name for t in model.graph.initializer}
    inferred: dict[str, int] | None = None
    found: list[onnx.ValueInfoProto] = []
    for name in names:
        if name not in outside:
            raise UsageError(
                f"{name!r} is a value inside the body of a node and cannot be an output",
                hint="name a value of the main graph",
            )
        made = onnx.ValueInfoProto(name=name)
        if name in declared and declared[name].HasField("type"):
            made.CopyFrom(declared[name])
        else:
            inferred = inferred if inferred is not None else element_types(loaded)
            kind = inferred.get((own or {}).get(name, name), 0)
            if kind:
                made.type.tensor_type.elem_type = kind
        found.append(made)
    return found


def element_types(loaded: LoadedModel) -> dict[str, int]:
    """ONNX element types of the tensors of the main graph, by name, as far as they are declared or can be inferred."""
    complete_types(loaded.ir)
    found: dict[str, int] = {}
    for node in loaded.ir.graph:
        for value in node.outputs:
            if value.name and isinstance(value.type, ir.TensorType):
                found[value.name] = int(value.type.dtype)
    return found


def _types_and_sizes(a: onnx.ModelProto, b: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto, str | None]:
    mixed: str | None = None
    casts: dict[str, int] = {}
    sizes: dict[str, tuple[int, str]] = {}
    ours = {i.name: i for i in fed_inputs(a)}
    for theirs in fed_inputs(b):
        mine = ours.get(theirs.name)
        if mine is None:
            continue
        if mine.elem_type != theirs.elem_type and mine.elem_type and theirs.elem_type:
            kinds = f"{type_name(mine.elem_type)} in A and {type_name(theirs.elem_type)} in B"
            if {mine.elem_type, theirs.elem_type} <= FLOATS:
                mixed = mixed or f"input {mine.name!r} is {kinds}"
            elif {mine.elem_type, theirs.elem_type} <= _WHOLE_NUMBERS:
                casts[mine.name] = mine.elem_type
            else:
                raise UsageError(
                    f"input {mine.name!r} is {kinds}: no values fit both", hint="check which inputs belong together"
                )
        _fit(mine, theirs, sizes)
    if casts:
        b = boundary.casting(b, casts)
    if sizes:
        a = boundary.binding(a, {symbol: size for symbol, (size, _) in sizes.items()})
    return a, b, mixed


def _fit(mine: Input, theirs: Input, sizes: dict[str, tuple[int, str]]) -> None:
    """Holds two shapes against each other; sizes that B fixes and A leaves open are added to `sizes`."""
    if mine.dims is None or theirs.dims is None:
        return
    shapes = f"[{', '.join(map(str, mine.dims))}] in A and [{', '.join(map(str, theirs.dims))}] in B"
    if len(mine.dims) != len(theirs.dims):
        raise UsageError(f"input {mine.name!r} has another rank: {shapes}", hint="check which inputs belong together")
    for have, want in zip(mine.dims, theirs.dims, strict=True):
        if isinstance(want, str):
            continue
        if isinstance(have, int):
            if have != want:
                raise UsageError(
                    f"input {mine.name!r} has another shape: {shapes}, so no input fits both",
                    hint="export both with the same sizes, or with dynamic ones",
                )
            continue
        known, where = sizes.setdefault(have, (want, mine.name))
        if known != want:
            raise UsageError(
                f"dimension {have!r} of A is {known} in B's input {where!r} and {want} in {mine.name!r}",
                hint="export both with the same sizes, or with dynamic ones",
            )


def _fit_outputs(a: onnx.ModelProto, b: onnx.ModelProto, names_b: dict[str, str]) -> None:
    """Holds the declared types and ranks of outputs, which only their positions pair, against each other."""
    theirs = {o.name: o.type.tensor_type for o in b.graph.output}
    for value in a.graph.output:
        if value.name not in names_b:
            continue
        pair = value.type.tensor_type, theirs[names_b[value.name]]
        who = f"output {value.name!r} of A, and {names_b[value.name]!r}, which is at its position in B"
        way = "--outputs chooses those to compare; without --by-position they belong together by name"
        kinds = {t.elem_type for t in pair}
        if 0 not in kinds and len(kinds) > 1 and not kinds <= FLOATS and not kinds <= _WHOLE_NUMBERS:
            raise UsageError(f"{who}, are {' and '.join(type_name(t.elem_type) for t in pair)}", hint=way)
        ranks = [len(t.shape.dim) for t in pair if t.HasField("shape")]
        if len(set(ranks)) > 1:
            raise UsageError(f"{who}, have ranks {ranks[0]} and {ranks[1]}", hint=way)


def _mixed_outputs(a: onnx.ModelProto, b: onnx.ModelProto) -> str | None:
    theirs = {o.name: o.type.tensor_type.elem_type for o in b.graph.output}
    for value in a.graph.output:
        pair = value.type.tensor_type.elem_type, theirs.get(value.name, 0)
        if pair[0] != pair[1] and (set(pair) <= FLOATS or set(pair) <= _WHOLE_NUMBERS):
            return f"output {value.name!r} is {type_name(pair[0])} in A and {type_name(pair[1])} in B"
    return None


def _narrower_inside(a: onnx.ModelProto, b: onnx.ModelProto) -> list[str]:
    """A note where B computes in a float type that A does not know."""
    ours, theirs = ({t.data_type for t in m.graph.initializer} & FLOATS for m in (a, b))
    for model, found in ((a, ours), (b, theirs)):
        for node in model.graph.node:
            found |= {x.i for x in node.attribute if x.name == "to" and x.i in FLOATS}
    new = sorted(theirs - ours)
    if not new or not ours:
        return []
    names = ", ".join(type_name(kind) for kind in new)
    return [f"B computes partly in {names}, A does not: --threshold judges by another measure than A's own rounding"]
