"""Runs a function on a `gs.Graph` as a pass: one site, judged as a whole model, kept or undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import onnx

from onnx_rewrite.errors import OnnxRewriteError
from onnx_rewrite.model import LoadedModel, reload, to_proto
from onnx_rewrite.model.origin import ModelOrigin
from onnx_rewrite.pipeline.gs_applying import apply
from onnx_rewrite.pipeline.gs_reading import After, Before, NodeNow, graphsurgeon, interface
from onnx_rewrite.registry import FunctionPass
from onnx_rewrite.rewriter.listing import Selection
from onnx_rewrite.rewriter.site import Seconds, Site
from onnx_rewrite.verdict import Verification, not_verified
from onnx_rewrite.verify import judge_models

# Models of a site that was undone are kept for a reproduction up to this size, in bytes.
KEEP_BYTES = 2**28


@dataclass(frozen=True)
class Conditions:
    """Under which a function's edit stays.

    Attributes:
        verify: Whether it is judged.
        feeds: The user's inputs, or None for drawn ones.
        shapes: Shapes by input name for drawn ones.
        seed: The source of randomness of drawn ones.
        opset: "keep", the opset that must not be exceeded, or None.
        selection: Which sites may be applied.
        accept_inconclusive: Whether an edit that could not be judged stays.
        denied: Edits that must not be made, by pass name and names of the replaced outputs.
        kept: Names of values that something outside the graph refers to.
    """

    verify: bool = True
    feeds: Sequence[Mapping[str, Any]] | None = None
    shapes: Mapping[str, Sequence[int]] | None = None
    seed: int = 0
    opset: int | str | None = None
    selection: Selection | None = None
    accept_inconclusive: bool = False
    denied: frozenset[tuple[str, tuple[str, ...]]] = frozenset()
    kept: frozenset[str] = frozenset()


def run_function(one: FunctionPass, loaded: LoadedModel, conditions: Conditions, seconds: Seconds) -> Site | None:
    """Runs a function on a model; the model is edited in place, or left as it was.

    The function gets a graph of its own. What it changed is carried over to a copy of the model, which is checked and
    judged; only then is the model itself edited in the same way.

    Returns:
        The site; None where the function changed nothing.

    Raises:
        UsageError: onnx-graphsurgeon is not installed.
        ModelError: The model cannot be written as it is.
    """
    graphsurgeon()
    began = perf_counter()
    proto = to_proto(loaded)
    site = Site(f"{one.name}[0]", one.name, (), (), (), "applied")
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)  # graphsurgeon writes into the tensors of its model
    try:
        before = Before(copy, loaded.base_dir, loaded.ir)
        try:
            left = one(before.graph)
        except Exception as error:
            return _undone(site, f"the function raised {type(error).__name__}: {error}")
        if not hasattr(left, "nodes") or not hasattr(left, "outputs"):
            return _undone(site, f"the function returned a {type(left).__name__}, not a graph")
        after = After(before, left)
        if after.nothing:
            return None
        _describe(site, after)
    except Exception as error:
        return _undone(site, f"what the function left cannot be read: {type(error).__name__}: {error}")
    finally:
        seconds.apply += perf_counter() - began
    return _settled(one, loaded, proto, after, site, conditions, seconds)


def _settled(
    one: FunctionPass,
    loaded: LoadedModel,
    proto: onnx.ModelProto,
    after: After,
    site: Site,
    conditions: Conditions,
    seconds: Seconds,
) -> Site:
    against = conditions.selection.reason_against(site.id, site.nodes) if conditions.selection is not None else None
    if against is not None:
        site.status, site.reason = "skipped", against
        return site
    if (one.name, site.outputs) in conditions.denied:
        site.status = "rolled_back"
        return site
    forbidden = _forbidden(after, conditions.opset)
    if forbidden is not None:
        site.status, site.reason = "refused", forbidden
        return site
    changed = _interface_change(after)
    if changed is not None:
        return _undone(site, changed)
    began = perf_counter()

    def edit(model: LoadedModel) -> None:
        apply(after, model.ir, one.name, conditions.kept, loaded.where)

    rewritten, reason = _tried(loaded, proto, edit)
    seconds.apply += perf_counter() - began
    if rewritten is None:
        return _undone(site, reason or "")
    began = perf_counter()
    site.verification = _judged(proto, rewritten, loaded.base_dir, conditions)
    seconds.verify += perf_counter() - began
    verdict = site.verification.verdict
    if verdict == "different" or (verdict == "inconclusive" and not conditions.accept_inconclusive):
        drawn = conditions.feeds is None and not conditions.shapes  # a reproduction draws the same feed again
        if drawn and not loaded.origin.externals and proto.ByteSize() < KEEP_BYTES:
            site.before, site.after = proto, rewritten
        return _undone(site, site.verification.reason or f"the outputs are {verdict}")
    began = perf_counter()
    edit(loaded)
    seconds.apply += perf_counter() - began
    return site


def _tried(
    loaded: LoadedModel, proto: onnx.ModelProto, edit: Callable[[LoadedModel], None]
) -> tuple[onnx.ModelProto | None, str | None]:
    """A copy of the model with the edit, or why there is none."""
    try:
        twin = reload(replace(loaded, origin=ModelOrigin(loaded.ir, proto)))
        edit(twin)
        rewritten = to_proto(twin)
    except OnnxRewriteError as error:
        return None, f"the model would not be sound: {error}"
    except Exception as error:  # whatever a function leaves, the model must survive it
        return None, f"what the function left cannot be written: {type(error).__name__}: {error}"
    unsound = _unsound(rewritten)
    if unsound is not None and _unsound(proto) is None:
        return None, f"the model would not be valid ONNX: {unsound}"
    return rewritten, None


def _judged(
    before: onnx.ModelProto, after: onnx.ModelProto, folder: Path | None, conditions: Conditions
) -> Verification:
    if not conditions.verify:
        return not_verified("verification is off")
    return judge_models(
        before,
        after,
        inputs=conditions.feeds,
        shapes=conditions.shapes,
        seed=conditions.seed,
        folder=folder,
    )


def _unsound(model: onnx.ModelProto) -> str | None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # ValidationError, InferenceError; ValueError above protobuf's limit
        return str(error).strip().splitlines()[0]
    return None


def _undone(site: Site, reason: str) -> Site:
    site.status, site.reason = "rolled_back", reason
    if site.verification.reason is None and site.verification.verdict == "not verified":
        site.verification = not_verified("it was not run")
    return site


def _forbidden(after: After, allowed: int | str | None) -> str | None:
    """Why the opset that the function wants may not be, or None."""
    graph, before = after.graph, after.before.fields
    wanted = graph.opset
    for entry in graph.import_domains or ():
        if entry.domain in ("", "ai.onnx") and entry.version != before["imports"].get(entry.domain):
            wanted = entry.version
    version = before["opset"]
    if wanted == version or allowed is None:
        return None
    if allowed == "keep":
        return f"sets opset {wanted}, the model's is {version} and is to be kept"
    return f"sets opset {wanted}, more than the {allowed} that --opset allows" if wanted > int(allowed) else None


def _interface_change(after: After) -> str | None:
    old, new = after.before.interface, interface(after.graph)
    for kind in ("inputs", "outputs"):
        if old[kind] == new[kind]:
            continue
        names = [[name for name, _ in side[kind]] for side in (old, new)]
        if names[0] != names[1]:
            return f"it changes the model's {kind}: {', '.join(names[0])} became {', '.join(names[1]) or 'none'}"
        name = next(a[0] for a, b in zip(old[kind], new[kind], strict=True) if a != b)
        return f"it changes the type of the model's {kind[:-1]} '{name}'"
    return None


def _describe(site: Site, after: After) -> None:
    """Names the nodes that the edit concerns, what flows into them, and what they give."""
    concerned = [*after.removed, *(now.was for now in after.altered if now.was is not None)]
    if not concerned:
        concerned = [now.was for now in after.rewired if now.was is not None]
    if not concerned:
        keys = set(after.changed_values)
        concerned = [state for state in after.before.nodes.values() if keys & {*state.inputs, *state.outputs}]
    order = {id(state): number for number, state in enumerate(after.before.nodes.values())}
    concerned.sort(key=lambda state: order[id(state)])
    site.nodes = tuple(state.label for state in concerned) or tuple(_labels(after.added))
    chosen = {id(state) for state in concerned}
    given = {key for state in concerned for key in state.outputs}
    constants = after.constants
    site.inputs = _names(key for s in concerned for key in s.inputs if key not in given and key not in constants)
    outside = {key for s in after.before.nodes.values() if id(s) not in chosen for key in s.inputs}
    outside |= {((), name) for name, _ in after.before.interface["outputs"]}
    site.outputs = _names(key for s in concerned for key in s.outputs if key in outside)


def _labels(nodes: Sequence[NodeNow]) -> list[str]:
    return [now.node.name or next((t.name for t in now.node.outputs), now.node.op) for now in nodes]


def _names(keys: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key[1] for key in keys if isinstance(key, tuple)))
