"""Whether two nodes compute the same value: exporters write a shared expression out more than once."""

from __future__ import annotations

import onnx_ir as ir

from onnx_rewrite.analysis.constants import Constants

# How far apart two copies may begin to be the same.
MAX_DEPTH = 8


def same_computation(a: ir.Node, b: ir.Node, constants: Constants, depth: int = MAX_DEPTH) -> bool:
    """Whether `a` and `b` have equal operators, attributes and operands (by value, constant, or recursively)."""
    if a is b:
        return True
    if depth == 0 or (a.op_type, a.domain, a.overload) != (b.op_type, b.domain, b.overload):
        return False
    if a.op_type.startswith("Random") or a.op_type in ("Multinomial", "Bernoulli"):
        return False
    if len(a.inputs) != len(b.inputs) or len(a.outputs) != len(b.outputs) or dict(a.attributes) != dict(b.attributes):
        return False
    return all(_same_value(x, y, constants, depth - 1) for x, y in zip(a.inputs, b.inputs, strict=True))


def _same_value(x: ir.Value | None, y: ir.Value | None, constants: Constants, depth: int) -> bool:
    if x is y:
        return True
    if x is None or y is None:
        return False
    if constants.is_constant(x) and constants.is_constant(y):
        if constants.size(x) != constants.size(y):
            return False
        p, q = constants.array(x), constants.array(y)
        return (
            p is not None and q is not None and p.dtype == q.dtype and p.shape == q.shape and p.tobytes() == q.tobytes()
        )
    m, n = x.producer(), y.producer()
    return m is not None and n is not None and x.index() == y.index() and same_computation(m, n, constants, depth)
