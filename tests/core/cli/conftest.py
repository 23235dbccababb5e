"""Running commands in this process, and a pipeline that only pretends."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import onnx_rewrite
from onnx_rewrite.cli import main
from onnx_rewrite.report.schema import (
    BenchmarkReport,
    ModelInfo,
    ModelVerification,
    OutputInfo,
    PassReport,
    Report,
    SiteReport,
    SiteVerification,
)


@dataclass
class Ran:
    """What one command left behind."""

    status: int
    out: str
    err: str


Rewrite = Callable[..., Ran]


@pytest.fixture
def rewrite(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Rewrite:
    """Runs a command: `rewrite("passes", "ln")` is `rewrite passes ln` on a line of 120 columns."""
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("ONNX_REWRITE_DEBUG", "UV_RUN_RECURSION_DEPTH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["rewrite"])

    def run(*argv: object) -> Ran:
        capsys.readouterr()
        status = main([str(item) for item in argv])
        captured = capsys.readouterr()
        return Ran(status, captured.out, captured.err)

    return run


@dataclass
class FakePipeline:
    """Stands in for `onnx_rewrite.pipeline`: remembers the calls, answers with `report` or raises `error`."""

    report: Report
    error: BaseException | None = None
    save_error: BaseException | None = None
    calls: list[dict[str, Any]] = field(default_factory=list)
    saved: list[str] = field(default_factory=list)
    measured: list[dict[str, Any]] = field(default_factory=list)
    order: list[str] = field(default_factory=list)

    def run(self, source: Any, passes: Any, **options: Any) -> Any:
        self.calls.append({"source": source, "passes": passes, **options})
        if self.error is not None:
            raise self.error
        return types.SimpleNamespace(report=self.report, save=self._save, save_failures=lambda folder: [])

    def measure(self, result: Any, engines: str, **options: Any) -> None:
        self.measured.append({"engines": engines, **options})
        self.order.append("measure")
        result.report.benchmark = [
            BenchmarkReport(engines, "1.0", "nowhere", model="before", error="node Sub_1: no"),
            BenchmarkReport(engines, "1.0", "nowhere", model="after", built=True, layers=4),
        ]

    def _save(self, path: Any, **_options: Any) -> Path:
        self.order.append("save")
        if self.save_error is not None:
            raise self.save_error
        self.saved.append(str(path))
        self.report.output.path = str(path)
        return Path(path)


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> FakePipeline:
    """A pipeline that applies one `ln` and finds it equivalent."""
    site = SiteReport("ln[0]", ["Sub_1", "Div_2"], verification=SiteVerification("equivalent", 1e-7, 1e-7, 1e-6, 12))
    fake = FakePipeline(
        Report(
            model=ModelInfo("m.onnx", "ab", {"": 12}, 9),
            output=OutputInfo(None, {"": 17}, 1),
            passes=[PassReport("ln", 1, sites=[site])],
            verification=ModelVerification("equivalent", 4, "y", 1e-7),
        )
    )
    module = types.ModuleType("onnx_rewrite.pipeline")
    module.run = fake.run  # type: ignore[attr-defined]
    module.measure = fake.measure  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "onnx_rewrite.pipeline", module)
    monkeypatch.setattr(onnx_rewrite, "pipeline", module, raising=False)
    return fake


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the current folder, which the fake pipeline does not look into."""
    monkeypatch.chdir(tmp_path)
    path = Path("m.onnx")
    path.write_bytes(b"model")
    return path
