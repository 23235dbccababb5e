"""Plots as inline SVG: how errors are distributed, and how they grow through a model. Colours are those of the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from onnx_rewrite.report import wording
from onnx_rewrite.verify.histogram import BINS_PER_DECADE, Histogram
from onnx_rewrite.verify.measures import Layers

STYLE = """
:root { --a: #2563c9; --b: #c2570c; --grid: #8883; }
@media (prefers-color-scheme: dark) { :root { --a: #7db1ff; --b: #ffa24d; } }
svg { max-width: 100%; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: currentColor; } svg .grid { stroke: var(--grid); } svg .axis { stroke: currentColor; opacity: .5; }
svg .a { stroke: var(--a); fill: var(--a); } svg .b { stroke: var(--b); fill: var(--b); }
svg line.a, svg line.b { stroke-width: 3; }
svg path.a, svg path.b { fill-opacity: .15; stroke-width: 1.5; } svg .line { fill: none; }
svg .bound { stroke: currentColor; stroke-dasharray: 4 3; fill: none; opacity: .7; }
svg .born { stroke: var(--bad); stroke-width: 1.5; }
"""

_LEFT, _TOP, _WIDTH, _HEIGHT = 64, 30, 640, 180


def _frame(title: str, parts: Sequence[str], height: int = _HEIGHT) -> str:
    size = f'viewBox="0 0 {_LEFT + _WIDTH + 20} {_TOP + height + 44}" width="{_LEFT + _WIDTH + 20}"'
    return (
        f'<svg {size} role="img" aria-label="{escape(title)}">\n<title>{escape(title)}</title>\n'
        + "\n".join(parts)
        + "\n</svg>"
    )


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _legend(entries: Mapping[str, str]) -> list[str]:
    parts: list[str] = []
    x = float(_LEFT)
    for kind, label in entries.items():
        parts.append(_line(x, 14, x + 22, 14, kind))
        parts.append(_text(x + 28, 18, label, "start"))
        x += 48 + 7 * len(label)
    return parts


def histogram(name: str, histograms: Mapping[str, Histogram]) -> str:
    """The absolute errors of an output, one outline per model; empty where there is no error above zero.

    Args:
        name: Of the output.
        histograms: By label: "A" and "B", or "B - A".
    """
    found = {label: h for label, h in histograms.items() if h.counts}
    if not found:
        return ""
    first = min(h.first for h in found.values()) // BINS_PER_DECADE * BINS_PER_DECADE
    last = -(-max(h.first + len(h.counts) for h in found.values()) // BINS_PER_DECADE) * BINS_PER_DECADE
    top = max(max(h.counts) for h in found.values())
    step = _WIDTH / (last - first)

    def x(position: float) -> float:
        return _LEFT + (position - first) * step

    def y(count: float) -> float:
        return _TOP + _HEIGHT * (1 - count / top)

    parts: list[str] = []
    decades = range(first // BINS_PER_DECADE, last // BINS_PER_DECADE + 1)
    every = max(1, len(decades) // 10)
    for decade in decades:
        parts.append(_line(x(decade * BINS_PER_DECADE), _TOP, x(decade * BINS_PER_DECADE), _TOP + _HEIGHT, "grid"))
        if (decade - decades[0]) % every == 0:
            parts.append(_text(x(decade * BINS_PER_DECADE), _TOP + _HEIGHT + 16, f"1e{decade}"))
    for share in (0.0, 0.5, 1.0):
        parts.append(_line(_LEFT, y(top * share), _LEFT + _WIDTH, y(top * share), "grid" if share else "axis"))
        parts.append(_text(_LEFT - 6, y(top * share) + 4, f"{top * share:,.0f}", "end"))
    kinds = dict(zip(found, ("b",) if len(found) == 1 else ("a", "b"), strict=False))
    for label, h in found.items():
        path = f"M{x(h.first):.1f} {y(0):.1f}"
        for position, n in enumerate(h.counts, h.first):
            path += f"V{y(n):.1f}H{x(position + 1):.1f}"
        parts.append(f'<path class="{kinds[label]}" d="{path}V{y(0):.1f}"/>')
    zeros = "; ".join(f"{label}: {h.zero:,} without error" for label, h in histograms.items() if h.zero)
    lost = "; ".join(f"{label}: {h.not_finite:,} not finite" for label, h in histograms.items() if h.not_finite)
    axis = "absolute error" + "".join(f" ({text})" for text in (zeros, lost) if text)
    parts.append(_text(_LEFT + _WIDTH / 2, _TOP + _HEIGHT + 36, axis))
    words = {"A": "A against A in float64", "B": "B against A in float64", "B - A": "B against A"}
    parts += _legend({kinds[label]: words.get(label, label) for label in found})
    return _frame(f"absolute errors of {name}", parts)


def layers(found: Layers) -> str:
    """The errors of A and B in the order of the graph, on a logarithmic axis, with what is accepted and a mark where
    the error is born; empty where there are no errors.
    """
    listed = found.layers
    # Bounds do not count: that of a mask of -1e38 would leave no room for the errors.
    numbers = [v for layer in listed for v in (layer.error_a, layer.error_b)]
    finite = [v for v in numbers if v is not None and 0 < v < math.inf]
    if len(listed) < 2 or not finite:
        return ""
    low, high = math.floor(math.log10(min(finite))), math.ceil(math.log10(max(finite)) + 1e-9) + 1
    height = 260

    def x(position: float) -> float:
        return _LEFT + _WIDTH * position / (len(listed) - 1)

    def y(value: float) -> float:
        # Zero is drawn at the lower edge, infinity at the upper one.
        exponent = low if value <= 0 else high if value == math.inf else math.log10(value)
        return _TOP + height * (high - max(low, min(high, exponent))) / (high - low)

    parts: list[str] = []
    every = max(1, (high - low) // 8)
    for decade in range(low, high + 1):
        if (decade - low) % every == 0:
            parts.append(_line(_LEFT, y(10.0**decade), _LEFT + _WIDTH, y(10.0**decade), "grid"))
            parts.append(_text(_LEFT - 6, y(10.0**decade) + 4, f"1e{decade}", "end"))
    reference = any(layer.error_a is not None for layer in listed)
    legend = {"a": "error of A", "b": "error of B", "bound": "accepted"} if reference else {"b": "B against A"}
    curves: list[tuple[str, Callable[[int], float | None]]] = [
        ("bound", lambda i: listed[i].bound),
        ("a", lambda i: listed[i].error_a),
        ("b", lambda i: listed[i].error_b),
    ]
    for kind, of in curves:
        path, down = "", False
        for i in range(len(listed)):
            value = of(i)
            if value is not None and not math.isnan(value):
                path += f"{'L' if down else 'M'}{x(i):.1f} {y(value):.1f}"
            down = value is not None
        if path:
            parts.append(f'<path class="{kind} line" d="{path}"/>')
    if found.born is not None:
        place = next(i for i, layer in enumerate(listed) if layer.name == found.born)
        parts.append(_line(x(place), _TOP, x(place), _TOP + height, "born"))
        left = place < len(listed) / 2
        label = found.born if len(found.born) <= 60 else "…" + found.born[-59:]
        parts.append(_text(x(place) + (6 if left else -6), _TOP + 12, label, "start" if left else "end"))
    parts.append(_line(_LEFT, _TOP + height, _LEFT + _WIDTH, _TOP + height, "axis"))
    caption = f"{wording.count(len(listed), 'value')} in the order of the graph (lower edge: no error)"
    parts.append(_text(_LEFT + _WIDTH / 2, _TOP + height + 24, caption))
    parts += _legend(legend)
    return _frame("errors in the order of the graph", parts, height)
