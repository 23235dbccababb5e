"""The layers of a built engine: from the inspector's JSON, or from the list in a build log of TensorRT-RTX."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx

from onnx_rewrite.engines.protocol import Layer
from onnx_rewrite.engines.trt_regions import REGION, Border, attributed, steps_of

_LAYER = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*),(?P<rest>.*?)(?:Metadata: (?P<metadata>.*))?$")
_ONNX_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=[\x1e\x1f\[,; ]|$)")
_TYPE = re.compile(r"Datatype: ([A-Za-z0-9]+)")
_TACTIC = re.compile(r"TacticName: ([^,]*)")
_NO_TACTIC = re.compile(r"(0x)?0*")


def listed(text: str) -> tuple[Layer, ...]:
    """The layers in the message of a verbose build that begins with "Layers:"."""
    body = text.partition("Layers:\n")[2].partition("\nI/O Tensors:")[0]
    layers: list[Layer] = []
    for line in body.split("\n"):
        match = _LAYER.match(line)
        if match:
            rest = match["rest"]
            ins, _, outs = rest.partition("Outputs:")
            tactic = _TACTIC.search(outs)
            types = _arrow(_TYPE.findall(ins.partition("Constants:")[0]), _TYPE.findall(outs))
            nodes = tuple(dict.fromkeys(_ONNX_NODE.findall(match["metadata"] or "")))
            layers.append(Layer(match["name"], match["kind"], nodes, tactic[1].strip() if tactic else "", types))
    return tuple(layers)


def inspected(text: str, model: onnx.ModelProto) -> tuple[Layer, ...]:
    """The layers in what an engine inspector gives as JSON.

    Args:
        text: The JSON of 8.6, 10, 11 or RTX, whatever verbosity the engine was built with.
        model: What the engine was built from: older versions name nodes only in the names of layers.
    """
    try:
        document = json.loads(text, strict=False)
    except ValueError:
        return ()
    entries = document.get("Layers") if isinstance(document, dict) else None
    found = [_layer(entry) for entry in entries or []]
    return _attributed(found, [_tensors(entry) for entry in entries or []], model)


def readable(text: str, single: Callable[[int], str], count: int) -> str:
    """What an inspector gives, as JSON that any program reads.

    Version 8.6 writes control characters as they are between the nodes of a layer, and names as they are: where the
    whole cannot be read, every layer that can be is taken by itself, and the others have their number for a name.

    Args:
        text: Of the engine.
        single: Gives that of one layer.
        count: How many layers there are.
    """
    for strict in (True, False):
        with contextlib.suppress(ValueError):
            document = json.loads(text, strict=strict)
            return text if strict else json.dumps(document, indent=1)
    entries: list[Any] = []
    for i in range(count):
        try:
            entries.append(json.loads(single(i), strict=False))
        except (ValueError, RuntimeError):  # UnicodeDecodeError is a ValueError
            entries.append({"Name": f"layer {i}"})
    return json.dumps({"Layers": entries}, indent=1) if entries else ""


def _layer(entry: Any) -> Layer:
    if not isinstance(entry, Mapping):
        return Layer(str(entry), "", ())
    nodes = tuple(dict.fromkeys(_ONNX_NODE.findall(str(entry.get("Metadata") or ""))))
    kind = str(entry.get("LayerType") or "")
    parameter = entry.get("ParameterType")
    if parameter and parameter not in kind:
        kind = f"{kind} ({parameter})" if kind else str(parameter)
    tactic = str(entry.get("TacticName") or entry.get("TacticValue") or "")
    tactic = "" if _NO_TACTIC.fullmatch(tactic) else tactic  # of a region: its kernels have tactics, it has none
    types = _arrow(_types(entry.get("Inputs")), _types(entry.get("Outputs")))
    return Layer(str(entry.get("Name") or ""), kind, nodes, tactic, types)


def _tensors(entry: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of what goes in and what comes out."""
    if not isinstance(entry, Mapping):
        return (), ()
    sides = [entry.get(key) or [] for key in ("Inputs", "Outputs")]
    ins, outs = (tuple(str(one.get("Name") or "") for one in side if isinstance(one, Mapping)) for side in sides)
    return ins, outs


def _types(tensors: Any) -> list[str]:
    found: list[str] = []
    for tensor in tensors or []:
        if isinstance(tensor, Mapping):
            words = str(tensor.get("Datatype") or tensor.get("DataType") or tensor.get("Format/Datatype") or "")
            found.append(_short(words))
    return [one for one in found if one]


def _short(words: str) -> str:
    """The type in words such as "Row major linear FP16 format", which is what 8.6 says of one."""
    match = re.search(
        r"\b(FP32|FP16|BF16|FP8|INT8|INT32|INT64|BOOL|Float|Half|BFloat16|Int8|Int32|Int64|Bool)\b", words, re.I
    )
    names = {"float": "FP32", "half": "FP16", "bfloat16": "BF16"}
    return names.get(match[1].lower(), match[1].upper()) if match else ""


def _arrow(ins: Sequence[str], outs: Sequence[str]) -> str:
    sides = ["+".join(dict.fromkeys(filter(None, map(_short, side)))) for side in (ins, outs)]
    return " -> ".join(sides) if all(sides) else "".join(sides)


def _attributed(
    layers: Sequence[Layer], tensors: Sequence[tuple[tuple[str, ...], tuple[str, ...]]], model: onnx.ModelProto
) -> tuple[Layer, ...]:
    """Layers without metadata get the nodes that their tensors and names tell; a region what is between its ends."""
    order = {name: i for i, name in enumerate(_names(model))}
    told = {layer.name for layer in layers if layer.nodes}
    borders: list[Border] = []
    for layer, (reads, writes) in zip(layers, tensors, strict=True):
        nodes = layer.nodes
        if not nodes and not layer.reformats:
            nodes = tuple(dict.fromkeys(n for n in parts_of(layer.name) if n in order))
        borders.append(Border(layer.name, nodes, reads, writes, layer.reformats))
    placed = attributed(borders, *steps_of(model))
    found: list[Layer] = []
    for layer, border, nodes in zip(layers, borders, placed, strict=True):
        # Where a layer's tensors are none of the model's, its name is what there is.
        found.append(layer if layer.name in told else replace(layer, nodes=nodes or border.nodes))
    claimed = {node for layer in found for node in layer.nodes}
    for i, (layer, border) in enumerate(zip(found, borders, strict=True)):
        region = REGION.match(layer.name)
        if region is None or layer.name in told or layer.nodes != border.nodes:
            continue
        ends = [order[n] for n in (_node(region["first"], order), _node(region["last"], order)) if n is not None]
        if len(ends) == 2 and ends[0] <= ends[1]:
            between = (n for n, k in order.items() if ends[0] <= k <= ends[1])
            nodes = tuple(n for n in between if n in layer.nodes or n not in claimed)
            found[i] = replace(layer, nodes=nodes)
            claimed.update(nodes)
    return tuple(found)


def _names(model: onnx.ModelProto) -> list[str]:
    return [node.name for node in model.graph.node if node.name and node.op_type != "Constant"]


def parts_of(name: str) -> list[str]:
    """The names in "a + PWN(b, c) || d", which is how versions before metadata wrote a fused layer."""
    region = REGION.match(name)
    if region:
        return [*parts_of(region["first"]), *parts_of(region["last"])]
    text = re.sub(r"\b(PWN|PointWise)\(", "(", name)
    return [part.strip(" ()") for part in re.split(r" \+ |, | \|\| |\(", text) if part.strip(" ()")]


def _node(name: str, order: Mapping[str, int]) -> str | None:
    if name in order:
        return name
    # A layer that an importer made for a node carries a suffix, or the name of the value.
    return next((known for known in order if name.startswith(known)), None)
