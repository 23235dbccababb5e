"""A report with every kind of site."""

from __future__ import annotations

import pytest

from onnx_rewrite.report.schema import (
    ModelInfo,
    ModelVerification,
    OutputInfo,
    PassReport,
    PassSeconds,
    Report,
    SiteReport,
    SiteVerification,
    TotalSeconds,
)

NORM = ("ReduceMean", "Sub", "Pow", "ReduceMean_1", "Add", "Sqrt", "Div", "Mul", "Add_1")


@pytest.fixture
def report() -> Report:
    """Twelve sites applied by ln; one applied, one refused, one not verified by clip; one rolled back by bn."""
    norms = [
        SiteReport(
            id=f"ln[{i}]",
            nodes=[f"/blocks/blocks.{i}/norm1/{name}" for name in NORM],
            inputs=["x"],
            outputs=["y"],
            verification=SiteVerification("equivalent", 2.1e-7, 3.2e-7, 3.8e-6, 24),
        )
        for i in range(12)
    ]
    clips = [
        SiteReport(
            "clip[0]", ["Max_14", "Min_15"], ["x"], ["y"], verification=SiteVerification("equivalent", feeds=24)
        ),
        SiteReport(
            "clip[1]",
            ["Max_114", "Min_215"],
            status="refused",
            reason="the lower bound is computed by node 'ReduceMin_12', so it is not a constant",
        ),
        SiteReport(
            "clip[2]",
            ["Max_3", "Min_4"],
            reason="onnxruntime has no kernel for [Frobnicate]",
            verification=SiteVerification(),
        ),
    ]
    folds = [
        SiteReport(
            "bn[0]",
            ["Conv_3", "BatchNormalization_4"],
            status="rolled_back",
            reason="error 0.31 exceeds the bound 2.0e-05",
            verification=SiteVerification("different", 1e-7, 0.31, 2e-5, 24),
        )
    ]
    return Report(
        model=ModelInfo("models/hybrid.onnx", "ab12", {"": 12}, 146),
        output=OutputInfo("models/hybrid.rewritten.onnx", {"": 17, "com.microsoft": 1}, 98),
        passes=[
            PassReport("ln", 12, 0, 0, norms, PassSeconds(0.01, 0.02, 0.4)),
            PassReport("clip", 2, 1, 0, clips),
            PassReport("bn", 0, 0, 1, folds),
        ],
        verification=ModelVerification("equivalent", 6, "logits", 4.8e-7),
        warnings=["clip[2] was not verified: onnxruntime has no kernel for [Frobnicate]"],
        seconds=TotalSeconds(1.34),
        peak_rss_mb=188.2,
    )
