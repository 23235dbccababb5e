"""The onnx package's own node cases, with the outputs they expect, through the float64 reference (a sample of them)."""

from __future__ import annotations

import functools
import importlib
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_rewrite.verify.dtypes import widen
from onnx_rewrite.verify.reference import CannotEvaluate, Reference

# Modules of onnx.backend.test.case.node; importing one builds its cases (all of them take ten seconds).
MODULES = [
    "batch_normalization", "clip", "conv", "convtranspose", "cumsum", "dequantizelinear", "depthtospace", "einsum",
    "expand", "gather", "gemm", "groupnormalization", "hardmax", "if_", "instance_normalization",
    "layernormalization", "loop", "lstm", "onehot", "pad", "quantizelinear", "reduce_log_sum_exp", "reducemean",
    "resize", "rmsnormalization", "scan", "scatterelements", "slice", "softmax", "split", "topk", "trilu",
]  # fmt: skip


def value(given: object) -> np.ndarray:
    return numpy_helper.to_array(given) if isinstance(given, onnx.TensorProto) else np.asarray(given)


@functools.cache
def cases(module: str) -> list:
    from onnx.backend.test.case import node

    known = len(node._NodeTestCases)
    name = f"onnx.backend.test.case.node.{module}"
    sys.modules.pop(name, None)  # importing it anew makes its cases anew, whoever imported it before
    node._existing_names.clear()
    importlib.import_module(name)
    return node._NodeTestCases[known:]


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.filterwarnings("ignore")
def test_agrees_with_the_expected_outputs(module: str) -> None:
    evaluated = 0
    for case in cases(module):
        model = case.model
        if not all(v.type.HasField("tensor_type") for v in (*model.graph.input, *model.graph.output)):
            continue
        inputs, expected = case.data_sets[0]
        feeds = {i.name: value(v) for i, v in zip(model.graph.input, inputs, strict=False)}
        try:
            found = Reference(model)(feeds)
        except CannotEvaluate:
            continue
        evaluated += 1
        for got, want in zip(found, map(value, expected), strict=True):
            wide = widen(want)
            assert got.shape == wide.shape, case.name
            if wide.dtype.kind == "f":
                rtol = {"float16": 2e-3, "bfloat16": 2e-2}.get(want.dtype.name, 1e-4)
                np.testing.assert_allclose(got, wide, rtol=rtol, atol=rtol * 0.3, err_msg=case.name)
            else:
                np.testing.assert_array_equal(got, wide, err_msg=case.name)
    assert evaluated, f"no case of {module} was evaluated"
