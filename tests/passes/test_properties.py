"""Every property of the testing kit for every pass of ours: few examples here, 10,000 with ONNX_REWRITE_EXAMPLES."""

from __future__ import annotations

from onnx_rewrite.testing import PassTestSuite


class TestClip(PassTestSuite):
    pass_ = "clip"
    examples = 20
    seed = 1


class TestBatchNormalization(PassTestSuite):
    pass_ = "bn"
    examples = 20
    seed = 1


class TestLayerNormalization(PassTestSuite):
    pass_ = "ln"
    examples = 20
    seed = 1
