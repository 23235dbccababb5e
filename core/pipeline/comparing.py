"""`diff`: what changed between two models, structurally. Whether they compute the same is for `check`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from onnx_rewrite.model import LoadedModel, load
from onnx_rewrite.pipeline.contents import attribute_text, type_text
from onnx_rewrite.pipeline.differing import Change, Difference, OperatorCount
from onnx_rewrite.pipeline.pairing import changes, compare_graphs, operator
from onnx_rewrite.rewriter.names import all_graphs


def diff(a: Any, b: Any) -> Difference:
    """What differs between two models: interface, opsets, nodes, weights, functions, metadata.

    Nodes are paired by the names of what they give, then by their own names. Weights are compared by content; external
    ones at the same place of the same file are not read. What passes of this program recorded on new nodes
    (`metadata_props`) says which replacement accounts for what.

    Args:
        a: The one model: a path ("-" is standard input), bytes, a ModelProto, an onnx_ir.Model or a gs.Graph.
        b: The other.

    Raises:
        ModelError: One of them cannot be read.
    """
    one, other = load(a), load(b)
    found = Difference(identical=one.sha256 == other.sha256)
    found.properties = changes(_properties(one), _properties(other)) + _unseen(one, other)
    found.opsets = changes(_opsets(one.ir.opset_imports), _opsets(other.ir.opset_imports))
    found.metadata = changes(_metadata(one.ir), _metadata(other.ir))
    found.inputs = _interface(one.ir.graph.inputs, other.ir.graph.inputs)
    found.outputs = _interface(one.ir.graph.outputs, other.ir.graph.outputs)
    before, after = _histogram(one.ir), _histogram(other.ir)
    found.nodes_before, found.nodes_after = before.total(), after.total()
    found.operators = [
        OperatorCount(name, before[name], after[name])
        for name in sorted({*before, *after}, key=lambda n: (before[n] - after[n], n), reverse=True)
        if before[name] != after[name]
    ]
    found.initializers_before = sum(len(graph.initializers) for graph in all_graphs(one.ir))
    found.initializers_after = sum(len(graph.initializers) for graph in all_graphs(other.ir))
    compare_graphs(one.ir.graph, other.ir.graph, "", found)
    _compare_functions(one.ir, other.ir, found)
    found.same = found.identical or not any(
        (
            found.properties,
            found.opsets,
            found.inputs,
            found.outputs,
            found.metadata,
            found.nodes_added,
            found.nodes_removed,
            found.nodes_changed,
            found.initializers,
            found.functions,
            found.value_types,
        )
    )
    return found


def _properties(loaded: LoadedModel) -> dict[str, str]:
    model = loaded.ir
    found: dict[str, object] = {
        "IR version": model.ir_version,
        "producer": " ".join(filter(None, (model.producer_name, model.producer_version))),
        "domain": model.domain,
        "model version": model.model_version,
        "doc string": model.doc_string,
        "graph": model.graph.name,
        "graph's doc string": model.graph.doc_string,
    }
    return {name: str(value) for name, value in found.items() if value not in (None, "", 0)}


def _unseen(a: LoadedModel, b: LoadedModel) -> list[Change]:
    """Differences in what the IR does not hold; their content is compared, not shown."""
    before, after = _messages(a), _messages(b)
    found: list[Change] = []
    for name in dict.fromkeys((*before, *after)):
        if name not in before or name not in after:
            found.append(Change(name, *("present" if name in messages else None for messages in (before, after))))
        elif before[name] != after[name]:
            found.append(Change(name, "present", "present, but other"))
    return found


def _messages(loaded: LoadedModel) -> dict[str, bytes]:
    proto = loaded.proto
    found = {f"training_info {i}": t.SerializeToString(deterministic=True) for i, t in enumerate(proto.training_info)}
    for sparse in proto.graph.sparse_initializer:
        found[f"sparse initializer '{sparse.values.name}'"] = sparse.SerializeToString(deterministic=True)
    for annotation in proto.graph.quantization_annotation:
        entries = sorted((entry.key, entry.value) for entry in annotation.quant_parameter_tensor_names)
        found[f"quantization annotation of '{annotation.tensor_name}'"] = repr(entries).encode()
    return found


def _opsets(imports: Mapping[str, int]) -> dict[str, str]:
    return {domain or "ai.onnx": str(version) for domain, version in imports.items()}


def _metadata(model: ir.Model) -> dict[str, str]:
    graph = {f"graph: {key}": text for key, text in model.graph.metadata_props.items()}
    return {**model.metadata_props, **graph}


def _interface(before: Any, after: Any) -> list[Change]:
    old: dict[str, str] = {value.name: type_text(value) for value in before}
    new: dict[str, str] = {value.name: type_text(value) for value in after}
    found = changes(old, new)
    if list(old) != list(new) and set(old) == set(new):
        found.append(Change("order", ", ".join(old), ", ".join(new)))
    return found


def _histogram(model: ir.Model) -> Counter[str]:
    return Counter(operator(node) for graph in all_graphs(model) for node in graph)


def _compare_functions(a: ir.Model, b: ir.Model, found: Difference) -> None:
    for key in dict.fromkeys((*a.functions, *b.functions)):
        one, other = a.functions.get(key), b.functions.get(key)
        name = f"{key[0]}::{key[1]}" + (f":{key[2]}" if key[2] else "")
        if one is None or other is None:
            before, after = (None if each is None else _length(each) for each in (one, other))
            found.functions.append(Change(name, before, after))
            continue
        shell = changes(_shell(one), _shell(other))
        for change in shell:
            change.name = f"{name} {change.name}"
        differs = compare_graphs(one.graph, other.graph, f"{name}/", found)
        if differs and not shell:
            shell = [Change(name, _length(one), _length(other))]
        found.functions += shell


def _length(function: ir.Function) -> str:
    count = len(list(function))
    return f"{count:,} node{'' if count == 1 else 's'}"


def _shell(function: ir.Function) -> dict[str, str]:
    found = {
        "inputs": ", ".join(value.name or "" for value in function.inputs),
        "outputs": ", ".join(value.name or "" for value in function.outputs),
        "doc string": function.doc_string or "",
    }
    found.update((f"opset {domain}", version) for domain, version in _opsets(function.opset_imports).items())
    for name, attribute in function.attributes.items():
        found[f"attribute {name}"] = "required" if attribute.value is None else attribute_text(attribute) or ""
    found.update((f"metadata {key}", text) for key, text in function.metadata_props.items())
    return {name: text for name, text in found.items() if text}
