"""Our own passes, each under every property of the test kit.

`ONNX_REWRITE_EXAMPLES=10000 pytest tests/passes/test_suites.py` draws more examples than a change can wait for.
"""

from __future__ import annotations

from typing import ClassVar

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


class TestAttention(PassTestSuite):
    pass_ = "mhsa"
    examples = 15
    seed = 1


class TestAttentionSpelt(PassTestSuite):
    pass_ = "mhsa:form=spelling"
    examples = 15
    seed = 1


class TestProjections(PassTestSuite):
    pass_ = "qkv"
    examples = 8
    seed = 1
    fires_at_least = 0.0  # a few products of matrices are no attention: instances are refused for that
    relaxed: ClassVar = {"every_copy_is_found": "no copy is a site"}


class TestMasks(PassTestSuite):
    pass_ = "mask"
    examples = 12
    seed = 1
    relaxed: ClassVar = {
        "equivalent_by_rounding": "terms of opposite signs are added up exactly, where the original lost digits"
    }
