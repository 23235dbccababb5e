"""The kit for pass authors: strategies for hypothesis, and `PassTestSuite`.

It needs the extra `onnx-rewrite[testing]`; nothing else of the package imports it.
"""

from __future__ import annotations

from onnx_rewrite.testing.basics import constants, dims, dtypes, feeds, graphs, models, shapes, tensors
from onnx_rewrite.testing.draft import Draft, Node, Unfit, Value
from onnx_rewrite.testing.example import Example
from onnx_rewrite.testing.failures import Failure, replay, where
from onnx_rewrite.testing.mutations import MUTATIONS, mutation
from onnx_rewrite.testing.properties import PROPERTIES, Terms, Violation
from onnx_rewrite.testing.strategies import embed, instances, near_miss
from onnx_rewrite.testing.suite import PassTestSuite, Run
from onnx_rewrite.testing.tape import Tape

__all__ = [
    "MUTATIONS",
    "PROPERTIES",
    "Draft",
    "Example",
    "Failure",
    "Node",
    "PassTestSuite",
    "Run",
    "Tape",
    "Terms",
    "Unfit",
    "Value",
    "Violation",
    "constants",
    "dims",
    "dtypes",
    "embed",
    "feeds",
    "graphs",
    "instances",
    "models",
    "mutation",
    "near_miss",
    "replay",
    "shapes",
    "tensors",
    "where",
]
