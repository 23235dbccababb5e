"""Our own passes, each under every property of the test kit.

`ONNX_REWRITE_EXAMPLES=10000 pytest tests/passes/test_suites.py` draws more examples than a change can wait for.
"""

from __future__ import annotations

from onnx_rewrite.testing import PassTestSuite


class TestClip(PassTestSuite):
    pass_ = "clip"
    examples = 25
    seed = 1


class TestBatchNormalization(PassTestSuite):
    pass_ = "bn"
    examples = 25
    seed = 1


class TestLayerNormalization(PassTestSuite):
    pass_ = "ln"
    examples = 15
    seed = 1


class TestDeformConv(PassTestSuite):
    pass_ = "deform-conv:form=decomposition"
    examples = 12
    seed = 1
    nan = "onnxruntime's DeformConv multiplies pixels at the border by the zeros outside"
