"""The layers of an engine for a person: which take longest, which ONNX nodes are in them, and where a node went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from onnx_rewrite.report.schema import BenchmarkReport, LayerReport

TOP = 15
_NODES = 4


@dataclass(frozen=True)
class Destination:
    """Where an ONNX node went.

    Attributes:
        node: Its name.
        layers: Names of the layers that it is in; empty: it was folded or removed, or the library does not tell.
        beside: Names of the other nodes in those layers: what it was fused with.
    """

    node: str
    layers: tuple[str, ...]
    beside: tuple[str, ...]


def destinations(nodes: Sequence[str], layers: Sequence[LayerReport]) -> list[Destination]:
    """Where each of some nodes went."""
    found: list[Destination] = []
    for node in nodes:
        homes = [layer for layer in layers if node in layer.nodes]
        beside = dict.fromkeys(other for layer in homes for other in layer.nodes if other != node)
        found.append(Destination(node, tuple(layer.name for layer in homes), tuple(beside)))
    return found


def reformats(layers: Sequence[LayerReport]) -> list[LayerReport]:
    """Layers that only change the layout or type of a tensor."""
    return [one for one in layers if "reformat" in one.kind.lower() or one.name.startswith("Reformatting CopyNode")]


def render(row: BenchmarkReport, console: Console, *, top: int = TOP) -> None:
    """Prints the layers that take longest, or the first ones where no times are known."""
    timed = [layer for layer in row.profile if layer.milliseconds is not None]
    total = sum(layer.milliseconds or 0.0 for layer in timed)
    shown = sorted(timed, key=lambda layer: -(layer.milliseconds or 0.0)) if timed else list(row.profile)
    console.print(Text.assemble(("\nlayers", "bold"), f" of the model {row.model}, {row.engine}, {row.precision}"))
    for layer in shown[:top]:
        ms = "" if layer.milliseconds is None else f"{layer.milliseconds:9.4f} ms"
        part = f"{100 * layer.milliseconds / total:5.1f} %" if layer.milliseconds and total else ""
        words = "  ".join(filter(None, (ms, part, _cut(title(layer), 60), layer.types, _cut(layer.tactic, 40))))
        console.print(Text(f"  {words}"), no_wrap=True, overflow="ellipsis")
        nodes = ", ".join(layer.nodes[:_NODES]) + (f", and {n} more" if (n := len(layer.nodes) - _NODES) > 0 else "")
        if nodes and nodes != layer.name:
            console.print(Text(f"      of {nodes}", style="dim"), no_wrap=True, overflow="ellipsis")
    rest = len(shown) - top
    if rest > 0:
        console.print(f"  and {rest} more layers")
    fused = sum(1 for layer in row.profile if len(layer.nodes) > 1)
    words = f"  {len(row.profile)} layers, {fused} of several ONNX nodes, {len(reformats(row.profile))} reformats"
    if timed:
        words += f"; times of layers add up to {total:.3f} ms, more than the engine takes without a profiler"
    console.print(words)


def title(layer: LayerReport) -> str:
    """The layer's name; a region, which the library names after two layers of its own, by its nodes."""
    if not layer.name.startswith("{ForeignNode["):
        return layer.name
    if not layer.nodes:
        return "a region of no ONNX node"
    return f"region of {len(layer.nodes)} node{'s' if len(layer.nodes) > 1 else ''}"


def render_destinations(row: BenchmarkReport, nodes: Sequence[str], console: Console) -> None:
    """Prints where some ONNX nodes went."""
    console.print(Text.assemble(("\nnodes", "bold"), f" of the model {row.model} in {row.engine}, {row.precision}"))
    known = {layer.name: layer for layer in row.profile}
    for one in destinations(nodes, row.profile):
        if not one.layers:
            console.print(Text(f"  {one.node}: in no layer (folded, removed, or not told)"))
            continue
        for name in one.layers:
            layer = known[name]
            words = ", ".join(filter(None, (layer.kind, layer.types, layer.tactic)))
            console.print(Text(f"  {one.node}: in {_cut(title(layer), 60)}" + (f" ({words})" if words else "")))
        if one.beside:
            more = f", and {n} more" if (n := len(one.beside) - _NODES) > 0 else ""
            console.print(Text(f"      fused with {', '.join(one.beside[:_NODES])}{more}"))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
