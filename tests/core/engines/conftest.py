from __future__ import annotations

import os

import pytest

from onnx_rewrite.engines import registry


@pytest.fixture
def rtx() -> None:
    """Skips where TensorRT-RTX is not installed; ONNX_REWRITE_REQUIRE_RTX=1 (set by CI) turns that into a failure.

    The library is part of the `dev` group on Linux x86-64.
    """
    lack = registry.get("tensorrt-rtx").unavailable()
    if lack is not None:
        if os.environ.get("ONNX_REWRITE_REQUIRE_RTX") == "1":
            pytest.fail(f"{lack.reason}, and ONNX_REWRITE_REQUIRE_RTX=1 asks for it")
        pytest.skip(lack.reason)
