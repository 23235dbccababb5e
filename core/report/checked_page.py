"""A comparison of two models as one HTML page that needs nothing else; its plots are inline SVG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from onnx_rewrite.report import plots
from onnx_rewrite.report.checked import born, measure, number, ratio, verdict
from onnx_rewrite.verify.measures import Checked, Layer, Layers, OutputMeasures
from onnx_rewrite.verify.metrics import METRICS

PLOTS = 24
"""Outputs that get a plot; all are in the tables."""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --warn: #9a6700; --bad: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --good: #57ab5a; --warn: #d4a72c; --bad: #f47067; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; } h3 { font-size: 1rem; margin-bottom: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
code { font-family: ui-monospace, monospace; font-size: .9em; overflow-wrap: anywhere; }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); }
tr.bad td:first-child { font-weight: 600; }
"""
_CLASSES = {"equivalent": "good", "different": "bad"}


def render(found: Checked, before: str, after: str) -> str:
    """The whole comparison as an HTML document: every output, and every layer if they were compared.

    Args:
        found: What was found.
        before: The name of A.
        after: The name of B.
    """
    title = f"{before} against {after}"
    parts = [f"<h1>{escape(title)}</h1>", _facts(found, before, after)]
    parts += [f'<p class="warn">note: {escape(note)}</p>' for note in found.notes]
    if found.outputs:
        parts += ["<h2>Outputs</h2>", _outputs(found.outputs), _metrics(found.outputs)]
        parts += [_plot(output) for output in found.outputs[:PLOTS]]
    if found.layers is not None:
        parts += _layers(found.layers)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}{plots.STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def _facts(found: Checked, before: str, after: str) -> str:
    kind = _CLASSES.get(found.verdict, "warn")
    facts = [
        ("A", f"<code>{escape(before)}</code>"),
        ("B", f"<code>{escape(after)}</code>"),
        ("verdict", f'<span class="{kind}">{escape(verdict(found))}</span>'),
    ]
    if found.reason:
        facts.append(("reason", escape(found.reason)))
    if found.feeds:
        facts.append(("feeds", f"{found.feeds:,}"))
    if found.output:
        index = f" at {list(found.index)}" if found.index is not None else ""
        regime = f", feed: {found.regime}" if found.regime else ""
        facts.append(("worst", f"<code>{escape(found.output)}</code>{escape(index + regime)}"))
    return "<table>" + "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in facts) + "</table>"


def _table(heads: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """A table; a head that ends in "#" makes a column of numbers. A row is its class and its cells."""
    classes = [' class="n"' if head.endswith("#") else "" for head in heads]

    def line(tag: str, cells: Sequence[str], kind: str = "") -> str:
        inner = "".join(f"<{tag}{c}>{cell}</{tag}>" for cell, c in zip(cells, classes, strict=True))
        return f'<tr class="{kind}">{inner}</tr>' if kind else f"<tr>{inner}</tr>"

    head = line("th", [escape(text.rstrip("# ")) for text in heads])
    body = [line("td", cells, kind) for kind, cells in rows]
    return '<div class="scroll"><table>\n' + "\n".join([head, *body]) + "\n</table></div>"


def _outputs(outputs: Sequence[OutputMeasures]) -> str:
    def row(output: OutputMeasures) -> tuple[str, list[str]]:
        name = f"<code>{escape(output.name)}</code>"
        if output.name != output.name_b:
            name += f" (B: <code>{escape(output.name_b)}</code>)"
        kind = output.dtype_a if output.dtype_a == output.dtype_b else f"{output.dtype_a} / {output.dtype_b}"
        errors = (ratio(output.error_a), ratio(output.error_b), ratio(output.bound))
        counts = (f"{output.elements:,}", f"{output.differing:,}", f"{output.not_finite:,}")
        beyond = output.error_b is not None and output.bound is not None and not output.error_b <= output.bound
        shape = "×".join(map(str, output.shape)) or "scalar"
        return "bad" if beyond or output.obstacle else "", [name, shape, escape(kind), *counts, *errors]

    heads = ("output", "shape", "type", "elements #", "differing #", "not finite in one #")
    return _table((*heads, "error of A #", "error of B #", "bound #"), map(row, outputs))


def _metrics(outputs: Sequence[OutputMeasures]) -> str:
    names = list(outputs[0].metrics)

    def row(output: OutputMeasures) -> tuple[str, list[str]]:
        name = f"<code>{escape(output.name)}</code>"
        if output.obstacle:
            return "bad", [f"{name}: {escape(output.obstacle)}", *("-" for _ in names), "", "-", "-", "-"]
        cells = [measure(metric, output.metrics[metric]) for metric in names]
        worst = output.worst
        if worst is None or not output.differing:
            return "", [name, *cells, "", "-", "-", "-"]
        place = f"<code>[{', '.join(map(str, worst.index))}]</code> {escape(worst.feed)}"
        return "", [name, *cells, place, *(escape(number(v)) for v in (worst.a, worst.b, worst.reference))]

    heads = ("output", *(f"{name} #" for name in names), "worst element", "A #", "B #", "A in float64 #")
    words = "; ".join(f"{name}: {METRICS[name].text}" for name in names)
    return "<h2>B against A</h2>" + _table(heads, map(row, outputs)) + f"<p>{escape(words)}.</p>"


def _plot(output: OutputMeasures) -> str:
    plot = plots.histogram(output.name, output.histograms)
    return f"<h3>Errors of <code>{escape(output.name)}</code></h3>\n{plot}" if plot else ""


def _layers(layers: Layers) -> list[str]:
    count = f"{len(layers.layers):,} values that both models have (feed: {layers.feed}); "
    count += f"{layers.only_a:,} only in A, {layers.only_b:,} only in B."
    parts = ["<h2>Layer by layer</h2>", f"<p>{escape(count)}</p>"]
    kind = ' class="bad"' if layers.born else ""
    parts.append(f"<p{kind}>{escape(born(layers))}.</p>")
    parts.append(plots.layers(layers))
    parts += [
        f'<p class="warn">not compared: <code>{escape(name)}</code>: {escape(reason)}</p>'
        for name, reason in list(layers.skipped.items())[:20]
    ]
    heads = ("value", "A", "B", "shape", "type", "error of A #", "error of B #", "bound #", "growth #")
    parts.append(_table(heads, map(_layer, layers.layers)))
    return parts


def _layer(layer: Layer) -> tuple[str, list[str]]:
    kind = layer.dtype_a if layer.dtype_a == layer.dtype_b else f"{layer.dtype_a} / {layer.dtype_b}"
    growth = "-" if layer.growth is None else f"{layer.growth:.2g}×"
    numbers = [ratio(layer.error_b), ratio(layer.bound)]
    return "bad" if layer.exceeded else "", [
        f"<code>{escape(layer.name)}</code>",
        escape(layer.node_a.partition(" ")[0]),
        escape(layer.node_b.partition(" ")[0]),
        "×".join(map(str, layer.shape)) or "scalar",
        escape(kind),
        ratio(layer.error_a),
        *numbers,
        growth,
    ]
