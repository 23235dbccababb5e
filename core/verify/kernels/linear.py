"""Matrix products."""

from __future__ import annotations

import numpy as np

from onnx_rewrite.verify.dtypes import Array
from onnx_rewrite.verify.kernels import Node, kernel


@kernel("MatMul")
def matmul(node: Node, a: Array, b: Array) -> Array:
    return np.matmul(a, b)


@kernel("Gemm")
def gemm(node: Node, a: Array, b: Array, c: Array | None = None) -> Array:
    a = a.T if node.get("transA", 0) else a
    b = b.T if node.get("transB", 0) else b
    out = node.get("alpha", 1.0) * (a @ b)
    if c is not None:
        out = out + node.get("beta", 1.0) * c
    return np.asarray(out, dtype=a.dtype)


@kernel("Einsum")
def einsum(node: Node, *values: Array) -> Array:
    return np.einsum(node.get("equation").replace(" ", ""), *values, optimize=len(values) > 2)
