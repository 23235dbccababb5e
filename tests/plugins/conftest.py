from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

from onnx_rewrite.plugins.common import compiling


@pytest.fixture
def nvrtc() -> None:
    """Skips where NVRTC, CUDA's headers or cuda-core are not installed, and fails where CI asks for them."""
    lack = "cuda-core is not installed" if find_spec("cuda") is None else compiling.lack()
    if lack is not None:
        _missing(lack)


@pytest.fixture
def rtx() -> None:
    """Skips where TensorRT-RTX is not installed, and fails where CI asks for it."""
    if find_spec("tensorrt_rtx") is None:
        _missing("TensorRT-RTX is not installed")


def _missing(what: str) -> None:
    """ONNX_REWRITE_REQUIRE_RTX=1, set by CI on Linux x86-64, is for all that the `dev` group has there."""
    if os.environ.get("ONNX_REWRITE_REQUIRE_RTX") == "1":
        pytest.fail(f"{what}, and ONNX_REWRITE_REQUIRE_RTX=1 asks for it")
    pytest.skip(what)
