"""Turns what the driver did into the report."""

from __future__ import annotations

import sys

import onnx_ir as ir

from onnx_rewrite.model import LoadedModel, count_nodes
from onnx_rewrite.pipeline.driving import PassRun
from onnx_rewrite.report.schema import (
    ModelInfo,
    ModelVerification,
    OutputInfo,
    PassReport,
    PassSeconds,
    SiteReport,
    SiteVerification,
)
from onnx_rewrite.rewriter.site import Site
from onnx_rewrite.verdict import Verification


def model_info(loaded: LoadedModel) -> ModelInfo:
    """The model as it was read; call it before anything is edited."""
    path = None if loaded.path is None else str(loaded.path)
    return ModelInfo(path, loaded.sha256, opsets(loaded.ir), count_nodes(loaded.ir))


def output_info(model: ir.Model) -> OutputInfo:
    """The rewritten model; it has no path until it is saved."""
    return OutputInfo(None, opsets(model), count_nodes(model))


def opsets(model: ir.Model) -> dict[str, int]:
    """Opset version by domain."""
    return dict(model.graph.opset_imports)


def pass_reports(driver: PassRun) -> list[PassReport]:
    """One report per pass, in the order in which they were given."""
    reports: list[PassReport] = []
    for one in driver.passes:
        sites, seconds = driver.sites[one.name], driver.seconds[one.name]
        report = PassReport(one.name, sites=[_site(s) for s in sites])
        report.applied = sum(s.status == "applied" for s in report.sites)
        report.refused = sum(s.status == "refused" for s in report.sites)
        report.rolled_back = sum(s.status == "rolled_back" for s in report.sites)
        report.seconds = PassSeconds(round(seconds.match, 6), round(seconds.apply, 6), round(seconds.verify, 6))
        reports.append(report)
    return reports


def _site(site: Site) -> SiteReport:
    seen = site.verification
    judged = site.status in ("applied", "rolled_back")
    return SiteReport(
        id=site.id,
        nodes=list(site.nodes),
        inputs=list(site.inputs),
        outputs=list(site.outputs),
        status="refused" if site.status == "skipped" else site.status,
        reason=site.reason or (seen.reason if judged and not seen.equivalent else None),
        verification=SiteVerification(seen.verdict, seen.error_before, seen.error_after, seen.bound, seen.feeds)
        if judged
        else None,
        note=site.note if site.status == "applied" else None,
    )


def model_verification(seen: Verification) -> ModelVerification:
    """The verdict on the whole model, as the report gives it."""
    return ModelVerification(seen.verdict, seen.feeds, seen.output, seen.error_after)


def peak_rss_mb() -> float:
    """Peak resident memory of this process in 1e6 bytes; 0 where the system does not say."""
    try:
        # Linux's getrusage remembers the size of the parent from before exec; this does not.
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return round(int(line.split()[1]) * 1024 / 1e6, 1)
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)
