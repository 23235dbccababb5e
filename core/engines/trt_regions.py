"""Which ONNX nodes a layer computes, told by the tensors that go into it and come out.

TensorRT before version 10 names a region of its compiler after two of its layers, which need not be of ONNX; with the
tensors at its borders the nodes in it are those on the way from its inputs to its outputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx

REGION = re.compile(r"^\{ForeignNode\[(?P<first>.+?)\.\.\.(?P<last>.+)\]\}$")

# They read nothing of a tensor but its shape, which is known when an engine is built, or computed by the host.
_OF_SHAPES = ("Shape", "Size", "Constant")


@dataclass(frozen=True)
class Step:
    """An ONNX node: its name and operator, and its tensors."""

    name: str
    operator: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True)
class Border:
    """A layer: its name, the nodes that are known to be in it, and its tensors."""

    name: str
    nodes: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    reformats: bool = False


def steps_of(model: onnx.ModelProto) -> tuple[list[Step], set[str]]:
    """The nodes of a model's graph, and the names of its initializers."""
    steps = [Step(n.name, n.op_type, tuple(filter(None, n.input)), tuple(n.output)) for n in model.graph.node]
    return steps, {tensor.name for tensor in model.graph.initializer}


def attributed(layers: Sequence[Border], steps: Sequence[Step], constants: Iterable[str]) -> list[tuple[str, ...]]:
    """The nodes of each layer, in the order of the model; those that are known already lead where nothing is found."""
    order = {step.name: i for i, step in enumerate(steps) if step.name}
    makers = {name: step for step in steps for name in step.writes}
    still = _still(steps, constants)
    tensors = {*makers, *(name for step in steps for name in step.reads)}
    same = _aliases(layers, tensors)
    borders = {_real(name, same) for layer in layers if not layer.reformats for name in (*layer.reads, *layer.writes)}
    found: list[tuple[str, ...]] = []
    for layer in layers:
        nodes = set(layer.nodes)
        if not layer.reformats:
            nodes |= _between(layer, makers, still, same, borders)
        known = [name for name in nodes if name in order]
        found.append(tuple(sorted(known, key=order.__getitem__)) or layer.nodes)
    return found


def _between(
    layer: Border, makers: Mapping[str, Step], still: set[str], same: Mapping[str, str], borders: set[str]
) -> set[str]:
    writes = [_real(name, same) for name in layer.writes]
    waiting = [name for name in writes if name in makers]
    nodes: set[str] = set()
    seen = set(waiting)
    while waiting:
        step = makers[waiting.pop()]
        if step.operator in _OF_SHAPES or all(name in still for name in step.writes):
            continue
        if step.name:
            nodes.add(step.name)
        for name in step.reads:
            # What another layer writes, or this one reads, lies outside.
            if name in makers and name not in seen and name not in borders:
                seen.add(name)
                waiting.append(name)
    return nodes


def _still(steps: Sequence[Step], constants: Iterable[str]) -> set[str]:
    """Tensors that do not depend on the values of inputs: no layer computes them."""
    still = set(constants)
    for step in steps:
        if step.operator in _OF_SHAPES or (step.reads and all(name in still for name in step.reads)):
            still.update(step.writes)
    return still


def _aliases(layers: Sequence[Border], tensors: set[str]) -> dict[str, str]:
    """By the name of a tensor that only layouts tell apart from one of the model: that one."""
    found: dict[str, str] = {}
    for layer in layers:
        if layer.reformats and len(layer.reads) == len(layer.writes) == 1:
            source, target = layer.reads[0], layer.writes[0]
            if target in tensors:
                found[source] = target
            else:
                found[target] = source
    return found


def _real(name: str, same: Mapping[str, str]) -> str:
    seen: set[str] = set()
    while name in same and name not in seen:
        seen.add(name)
        name = same[name]
    return name
