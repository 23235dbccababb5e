"""Faults of onnxruntime's own optimiser are told as such."""

from __future__ import annotations

import onnx
import pytest

import onnx_rewrite as rw
from onnx_rewrite.verify import deployment
from onnx_rewrite.verify.session import Session

TEXT = """
<ir_version: 8, opset_import: ["": 17]>
g (float[2, 4] x) => (float[2, 4] y) <float lo = {-1}, float hi = {1}>
{
    a = Max (x, lo)
    [upper] y = Min (a, hi)
}
"""


def test_nothing_to_tell() -> None:
    assert deployment.optimiser_fault(onnx.parser.parse_model(TEXT)) is None


def test_the_node_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(model: onnx.ModelProto, *, optimise: bool = False, folder: str | None = None) -> Session:
        if optimise:
            raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : Exception in fusion at node 'upper': no such input")
        return Session(model, folder=folder)

    monkeypatch.setattr(deployment, "Session", opened)
    told = deployment.optimiser_fault(onnx.parser.parse_model(TEXT))
    assert told is not None
    assert "at node 'upper'" in told
    assert "the fault is its optimiser's" in told
    result = rw.rewrite(onnx.parser.parse_model(TEXT), "clip", strict=True)
    assert any("ORT_ENABLE_ALL" in warning for warning in result.report.warnings)


def test_a_model_that_opens_in_neither_way_is_not_the_optimisers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Session:
        raise RuntimeError("no")

    monkeypatch.setattr(deployment, "Session", refuse)
    assert deployment.optimiser_fault(onnx.parser.parse_model(TEXT)) is None
