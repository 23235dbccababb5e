"""Reading and writing models without losing anything that no edit touched."""

from __future__ import annotations

from onnx_rewrite.model.fidelity import KEEP_VALUE_INFO
from onnx_rewrite.model.loading import LoadedModel, load, reload
from onnx_rewrite.model.nodes import INFERRED_KEY, count_nodes, original_name
from onnx_rewrite.model.writing import is_edited, save, to_proto

__all__ = [
    "INFERRED_KEY",
    "KEEP_VALUE_INFO",
    "LoadedModel",
    "count_nodes",
    "is_edited",
    "load",
    "original_name",
    "reload",
    "save",
    "to_proto",
]
