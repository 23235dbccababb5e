"""Parts of a model that the IR does not hold, and what an edit elsewhere does to them."""

from __future__ import annotations

from collections.abc import Collection

import onnx

from onnx_rewrite.errors import ModelError


def write_annotations(
    target: onnx.GraphProto, original: onnx.GraphProto, before: set[str], now: Collection[str], where: str
) -> None:
    """Carries the quantization annotations of the tensors that are still there.

    Raises:
        ModelError: When a tensor is still there but a scale or zero point of it, which the file had, is not.
    """
    for annotation in original.quantization_annotation:
        if annotation.tensor_name in before and annotation.tensor_name not in now:
            continue
        for entry in annotation.quant_parameter_tensor_names:
            if entry.value in before and entry.value not in now:
                raise ModelError(
                    f"{where}: refused, because an edit removed '{entry.value}', the {entry.key} in the quantization "
                    f"annotation of '{annotation.tensor_name}'",
                    hint="Leave out the pass that removes it, or remove the annotation first.",
                )
        target.quantization_annotation.add().CopyFrom(annotation)


def check_training(proto: onnx.ModelProto, before: set[str], now: Collection[str], where: str) -> None:
    """Refuses a model whose training_info speaks of values of the main graph that an edit removed.

    Raises:
        ModelError: When it does.
    """
    for training in proto.training_info:
        for name in sorted(_names_outside(training) & before):
            if name not in now:
                raise ModelError(
                    f"{where}: refused, because an edit removed '{name}', which the model's training_info refers to",
                    hint="Rewrite the inference model: remove training_info first, or leave out the pass.",
                )


def kept_names(proto: onnx.ModelProto) -> frozenset[str]:
    """Returns the names of main-graph values that something besides nodes and outputs refers to.

    These are the scales and zero points of quantization annotations and what training_info takes from the graph. An
    edit that removes one of them cannot be written, even when no node uses it.
    """
    names = {
        entry.value
        for annotation in proto.graph.quantization_annotation
        for entry in annotation.quant_parameter_tensor_names
    }
    for training in proto.training_info:
        names |= _names_outside(training)
    return frozenset(names - {""})


def _names_outside(training: onnx.TrainingInfoProto) -> set[str]:
    """The names that training_info takes from the main graph: the bindings' and what its graphs read freely."""
    names = {
        text
        for binding in (*training.initialization_binding, *training.update_binding)
        for text in (binding.key, binding.value)
    }
    for graph in (training.initialization, training.algorithm):
        names |= _free_names(graph, set())
    return names


def _free_names(graph: onnx.GraphProto, outer: set[str]) -> set[str]:
    bound = outer | {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
    bound |= {sparse.values.name for sparse in graph.sparse_initializer}
    bound |= {name for node in graph.node for name in node.output}
    free = {info.name for info in graph.output if info.name not in bound}
    for node in graph.node:
        free.update(name for name in node.input if name and name not in bound)
        for attribute in node.attribute:
            bodies = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs
            for body in bodies:
                free |= _free_names(body, bound)
    return free
