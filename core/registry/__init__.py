"""Passes by name: how they are declared, found and given options."""

from onnx_rewrite.registry.base import Pass, RuleSet
from onnx_rewrite.registry.graphsurgeon import FunctionPass, graphsurgeon_pass
from onnx_rewrite.registry.registry import PassDescription, describe, load_class, names, register, resolve, usable

__all__ = [
    "FunctionPass",
    "Pass",
    "PassDescription",
    "RuleSet",
    "describe",
    "graphsurgeon_pass",
    "load_class",
    "names",
    "register",
    "resolve",
    "usable",
]
