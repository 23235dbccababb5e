"""Whether a replacement is what stands there already: a pass that prefers one spelling must know it again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.match import Match
from onnx_rewrite.opset.forms import COMMUTATIVE
from onnx_rewrite.rewriter.builder import Builder


def spelt_alike(match: Match, builder: Builder, results: Sequence[ir.Value]) -> bool:
    """Whether the new nodes are equal to the matched ones, operand by operand; Identities apart."""
    new = set(builder.nodes)
    constants = match.scope.constants
    return bool(new) and all(
        _alike(old, made, new, constants) for old, made in zip(match.outputs, results, strict=True)
    )


def _alike(old: ir.Value | None, made: ir.Value | None, new: set[ir.Node], constants: Constants) -> bool:
    if old is made:
        return True
    if old is None or made is None:
        return False
    node, copy = old.producer(), made.producer()
    while node is not None and node.op_type == "Identity" and copy not in new:
        old = node.inputs[0]
        if old is made:
            return True
        node = None if old is None else old.producer()
    while node is not None and node.op_type == "Identity" and copy is not None and copy.op_type != "Identity":
        old = node.inputs[0]
        node = None if old is None else old.producer()
    if copy is None:
        return _same_constant(old, made, constants)
    if node is None or copy not in new or old is None or old.index() != made.index():
        return False
    if (node.op_type, node.domain, len(node.inputs)) != (copy.op_type, copy.domain, len(copy.inputs)):
        return False
    if dict(node.attributes) != dict(copy.attributes):
        return False
    pairs = list(zip(node.inputs, copy.inputs, strict=True))
    if all(_alike(a, b, new, constants) for a, b in pairs):
        return True
    swapped = zip(node.inputs, reversed(copy.inputs), strict=True)
    return node.op_type in COMMUTATIVE and len(pairs) == 2 and all(_alike(a, b, new, constants) for a, b in swapped)


def _same_constant(old: ir.Value | None, made: ir.Value, constants: Constants) -> bool:
    a = constants.array(old)
    b = None if made.const_value is None else made.const_value.numpy()
    return a is not None and b is not None and a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
