"""Reduces a model to the smallest that still shows something: delta debugging over all that a model is made of."""

from __future__ import annotations

from onnx_rewrite.pipeline.minimising.cuts import free_names
from onnx_rewrite.pipeline.minimising.minimiser import Minimiser, NotInteresting, Predicate, minimise

__all__ = ["Minimiser", "NotInteresting", "Predicate", "free_names", "minimise"]
