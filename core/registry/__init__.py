"""Passes by name: how they are declared, found and given options."""

from onnx_rewrite.registry.base import Pass, RuleSet
from onnx_rewrite.registry.registry import PassDescription, describe, load_class, names, register, resolve

__all__ = ["Pass", "PassDescription", "RuleSet", "describe", "load_class", "names", "register", "resolve"]
