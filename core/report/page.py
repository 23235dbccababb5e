"""A report as one HTML page that needs nothing else: no script, no font, no picture from anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from onnx_rewrite.report import wording
from onnx_rewrite.report.schema import BenchmarkReport, PassReport, Report, SiteReport

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --warn: #9a6700; --bad: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --good: #57ab5a; --warn: #d4a72c; --bad: #f47067; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: .5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
code, td.w { font-family: ui-monospace, monospace; font-size: .9em; overflow-wrap: anywhere; }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); }
"""

_CLASSES = {"equivalent": "good", "rolled back": "bad", "different": "bad"}


def render(report: Report) -> str:
    """The whole report as an HTML document; every site is listed."""
    title = f"onnx-rewrite: {report.model.path or 'model'}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        _facts(report),
        "".join(f'<p class="warn">warning: {escape(text)}</p>' for text in report.warnings),
        "<h2>Passes</h2>",
        _table(
            ("pass", "applied #", "refused #", "rolled back #", "match s #", "apply s #", "verify s #"),
            (_pass_row(entry) for entry in report.passes),
        ),
    ]
    for entry in report.passes:
        if entry.sites:
            parts.append(f"<h2>Sites of {escape(entry.name)}</h2>")
            head = ("site", "verdict", "error before #", "error after #", "bound #", "feeds #", "nodes", "reason")
            parts.append(_table(head, (_site_row(site) for site in entry.sites)))
    if report.benchmark:
        parts.append("<h2>Engines</h2>")
        head = ("engine", "device", "precision", "model", "median ms #", "p99 ms #", "layers #", "size #")
        head += ("build s #", "max error #", "failure")
        parts.append(_table(head, (_engine_row(entry) for entry in report.benchmark)))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def _coloured(text: str, verdict: str) -> str:
    kind = _CLASSES.get(verdict, "warn")
    return f'<span class="{kind}">{escape(text)}</span>'


def _facts(report: Report) -> str:
    before, after = report.model, report.output
    verdict = report.verification.verdict if report.verification else ""
    facts = [
        ("nodes", f"{before.nodes:,} → {after.nodes:,} (Constants aside)"),
        ("opset", f"{wording.opsets(before.opset)} → {wording.opsets(after.opset)}"),
        ("model", _coloured(wording.model_verdict(report), verdict)),
        ("time", wording.seconds(report.seconds.total)),
        ("written", f"<code>{escape(after.path or 'nothing')}</code>"),
        ("SHA-256", f"<code>{escape(before.sha256)}</code>"),
    ]
    return "<table>" + "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in facts) + "</table>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a head that ends in "#" makes a column of numbers."""
    classes = [' class="n"' if head.endswith("#") else "" for head in heads]

    def line(tag: str, cells: Sequence[str]) -> str:
        inner = (f"<{tag}{kind}>{cell}</{tag}>" for cell, kind in zip(cells, classes, strict=True))
        return f"<tr>{''.join(inner)}</tr>"

    head = line("th", [escape(text.rstrip("# ")) for text in heads])
    return "<table>\n" + "\n".join([head, *(line("td", row) for row in rows)]) + "\n</table>"


def _pass_row(entry: PassReport) -> list[str]:
    spent = entry.seconds
    counts = [f"{n:,}" for n in (entry.applied, entry.refused, entry.rolled_back)]
    return [escape(entry.name), *counts, *(f"{s:.3f}" for s in (spent.match, spent.apply, spent.verify))]


def _site_row(site: SiteReport) -> list[str]:
    verdict = wording.verdict(site)
    judged = site.verification
    numbers = ["-"] * 4
    if judged and judged.feeds:
        errors = (judged.error_before, judged.error_after, judged.bound)
        numbers = [*map(wording.error, errors), f"{judged.feeds:,}"]
    nodes = f"<code>{escape(', '.join(site.nodes))}</code>"
    return [escape(site.id), _coloured(verdict, verdict), *numbers, nodes, escape(site.reason or "")]


def _engine_row(entry: BenchmarkReport) -> list[str]:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    return [
        escape(f"{entry.engine} {entry.version}".strip()),
        escape(entry.device),
        escape(entry.precision),
        entry.model,
        number(entry.latency_ms.median),
        number(entry.latency_ms.p99),
        f"{entry.layers:,}" if entry.layers else "-",
        wording.size(entry.engine_bytes) if entry.engine_bytes else "-",
        f"{entry.build_seconds:.2f}" if entry.built else "-",
        "-" if entry.max_abs_error is None else wording.error(entry.max_abs_error),
        escape(entry.error or ""),
    ]
