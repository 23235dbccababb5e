"""What `rewrite check` prints: the verdict, a table per kind of fact, a histogram per output; fits 80 columns."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from onnx_rewrite.report import terminal, wording
from onnx_rewrite.verify.measures import Checked, Layer, Layers, OutputMeasures

OUTPUTS_SHOWN = 12
"""Outputs that are listed; a model may have a hundred."""
HISTOGRAMS_SHOWN = 4
LAYERS_SHOWN = 10
_DECADES_SHOWN = 14


def render(found: Checked, before: str, after: str, console: Console) -> None:
    """Prints a comparison.

    Args:
        found: What was found.
        before: The name of A.
        after: The name of B.
        console: Where to print.
    """
    glyphs = terminal.Glyphs(console)
    _facts(found, before, after, console)
    shown = _worst_first(found.outputs)[:OUTPUTS_SHOWN]
    if shown:
        _outputs(shown, console)
        _metrics(shown, found, console)
        _worst(shown, console)
    if len(found.outputs) > len(shown):
        console.print(f"\n{len(found.outputs) - len(shown)} more outputs are nearer; --report F lists all of them")
    for output in shown[:HISTOGRAMS_SHOWN]:
        histogram(output, console)
    if found.layers is not None:
        _layers(found.layers, console, glyphs)
    for note in found.notes:
        console.print()
        console.print(Text.assemble(("note: ", "bold yellow"), note))


def verdict(found: Checked) -> str:
    """The verdict, and what it goes by."""
    if found.judged_by == "thresholds":
        limits = ", ".join(f"{name}={limit:g}" for name, limit in found.thresholds.items())
        return f"{found.verdict} (by the thresholds {limits})"
    return found.verdict


def ratio(value: float | None, digits: int = 2) -> str:
    """A measure, short; "-" where there is none."""
    if value is None:
        return "-"
    if math.isnan(value):
        return "nan"
    return wording.error(value) if digits == 2 else f"{value:.{digits}g}"


def measure(name: str, value: float) -> str:
    """A measure as it is shown: those near 1 with the distance from 1 that matters."""
    if name == "cosine" and 0.9 < value < 1:
        return f"1 - {wording.error(1 - value)}"
    if name == "top-1" and math.isfinite(value):
        # Rounding up to 100 % would hide the rows that differ.
        return "100 %" if value == 1 else f"{min(value * 100, 99.99):.4g} %"
    if name == "psnr" and math.isfinite(value):
        return f"{value:.1f} dB"
    if name == "ulp" and math.isfinite(value):
        return f"{value:,.0f}" if value < 1e6 else f"{value:.1e}"
    return ratio(value)


def _worst_first(outputs: Sequence[OutputMeasures]) -> list[OutputMeasures]:
    if len(outputs) <= OUTPUTS_SHOWN:
        return list(outputs)
    return sorted(outputs, key=_severity, reverse=True)


def _severity(output: OutputMeasures) -> float:
    if output.obstacle or output.not_finite:
        return math.inf
    if output.error_b is None or not output.bound:
        return output.metrics.get("abs", 0.0)
    return output.error_b / output.bound


def _facts(found: Checked, before: str, after: str, console: Console) -> None:
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("A", Text(before))
    facts.add_row("B", Text(after))
    facts.add_row("verdict", Text(verdict(found), style=terminal.STYLES.get(found.verdict, "yellow")))
    if found.reason:
        facts.add_row("reason", Text(found.reason))
    if found.feeds:
        facts.add_row("feeds", f"{found.feeds:,}")
    if found.feeds and found.judged_by == "float64":
        facts.add_row("error of A", f"{wording.error(found.error_before)} (against A in float64)")
        bound = f"(against A in float64; at most {wording.error(found.bound)} is accepted)"
        facts.add_row("error of B", f"{wording.error(found.error_after)} {bound}")
    if found.output:
        index = f" at {list(found.index)}" if found.index is not None else ""
        regime = f", feed: {found.regime}" if found.regime else ""
        facts.add_row("worst", Text(f"{found.output}{index}{regime}"))
    console.print(facts)


def _outputs(outputs: Sequence[OutputMeasures], console: Console) -> None:
    right = ("error of A", "error of B", "bound")
    made = terminal.table("output", "shape", "type", *right, right=right, fold="output")
    for output in outputs:
        kind = output.dtype_a if output.dtype_a == output.dtype_b else f"{output.dtype_a}/{output.dtype_b}"
        shape = "x".join(map(str, output.shape)) or "scalar"
        errors = (ratio(output.error_a), ratio(output.error_b), ratio(output.bound))
        made.add_row(Text(_named(output)), shape, kind, *errors)
    console.print()
    console.print(made)


def _named(output: OutputMeasures) -> str:
    return output.name if output.name == output.name_b else f"{output.name} (B: {output.name_b})"


def _metrics(outputs: Sequence[OutputMeasures], found: Checked, console: Console) -> None:
    names = list(outputs[0].metrics)
    made = terminal.table("B against A", *names, right=tuple(names), fold="B against A")
    for output in outputs:
        if output.obstacle:
            made.add_row(Text(f"{output.name}: {output.obstacle}"), *("-" for _ in names))
        else:
            made.add_row(Text(output.name), *(measure(name, output.metrics[name]) for name in names))
    console.print()
    console.print(made)


def _worst(outputs: Sequence[OutputMeasures], console: Console) -> None:
    made = terminal.table(
        "worst element", "A", "B", "A in float64", right=("A", "B", "A in float64"), fold="worst element"
    )
    for output in outputs:
        worst = output.worst
        if worst is not None and output.differing:
            index = f"[{', '.join(map(str, worst.index))}]" if worst.index else ""
            cells = (number(value) for value in (worst.a, worst.b, worst.reference))
            made.add_row(Text(f"{output.name}{index}"), *cells)
    if made.row_count:
        console.print()
        console.print(made)


def number(value: object) -> str:
    """An element of a tensor, with as many digits as tell two float32 apart."""
    if value is None:
        return "-"
    return f"{value:.9g}" if isinstance(value, float) else str(value)[:20]


def histogram(output: OutputMeasures, console: Console) -> None:
    """Prints the absolute errors of an output in decades, a bar per model."""
    found = {label: h for label, h in output.histograms.items() if h.total}
    if not found or all(h.zero == h.total for h in found.values()):
        return
    full = "█" if console.encoding.lower().startswith("utf") else "#"
    what = "absolute error against A in float64" if "A" in found else "absolute difference"
    console.print()
    console.print(Text(f"{output.name}: elements by {what}", style="bold"))
    decades = {label: h.per_decade() for label, h in found.items()}
    every = sorted({d for counts in decades.values() for d in counts})
    lowest = max(every[0], every[-1] - _DECADES_SHOWN + 1) if every else 0
    rows: list[tuple[str, list[int]]] = [("0", [h.zero for h in found.values()])]
    if every and every[0] < lowest:
        below = [sum(n for d, n in counts.items() if d < lowest) for counts in decades.values()]
        rows.append((f"below 1e{lowest:+03d}", below))
    if every:
        for decade in range(lowest, every[-1] + 1):
            rows.append((f"1e{decade:+03d} to 1e{decade + 1:+03d}", [c.get(decade, 0) for c in decades.values()]))
    if any(h.not_finite for h in found.values()):
        rows.append(("not finite", [h.not_finite for h in found.values()]))
    columns = len(found)
    counts_width = [max(len(f"{row[1][k]:,}") for row in rows) for k in range(columns)]
    room = min(console.width, 80) - 18 - sum(counts_width) - 4 * columns
    bar = max(6, room // columns)
    top = max(n for _, row in rows for n in row) or 1
    heads = "".join(label.ljust(bar + width + 4) for label, width in zip(found, counts_width, strict=True))
    console.print(Text((" " * 18 + heads).rstrip(), style="bold"), no_wrap=True)
    for label, row in rows:
        line = label.ljust(18)
        for n, width in zip(row, counts_width, strict=True):
            line += (full * _length(n, top, bar)).ljust(bar) + f" {n:>{width},}   "
        console.print(Text(line.rstrip()), no_wrap=True)


def _length(n: int, top: int, width: int) -> int:
    """Bars are linear; what is there is never nothing."""
    return 0 if n == 0 else max(1, round(width * n / top))


def born(layers: Layers) -> str:
    """Where the error is born, in a sentence."""
    by_name = {layer.name: layer for layer in layers.layers}
    first = by_name.get(layers.born or "")
    if first is None:
        if not layers.layers:
            return "the two have no value in common"
        if all(layer.exceeded is None for layer in layers.layers):
            return "no value has a float64 reference to be held against"
        beyond = [layer for layer in layers.layers if layer.exceeded]
        if beyond:
            count = wording.count(len(beyond), "value")
            return (
                f"{count} beyond the bound, the first {beyond[0].name!r}, but no output that follows from "
                "them is: the two models use a name for different values, or the difference cancels"
            )
        return "no value is beyond its bound"
    text = f"the error is born at {first.name!r} ({_nodes(first)}): "
    if first.reason and first.error_b == math.inf:
        text += first.reason
    else:
        text += f"{wording.error(first.error_b)} where {wording.error(first.bound or 0.0)} is accepted"
    if first.inputs:
        names = ", ".join(repr(name) for name in first.inputs[:3]) + (", ..." if len(first.inputs) > 3 else "")
        unknown = any(by_name[name].exceeded is None for name in first.inputs)
        state = "nothing is known against" if unknown else "within their bounds are"
        text += f"; {state} the values it is computed from: {names}"
    else:
        text += "; it is computed from nothing that both models have but their inputs"
    return text


def _nodes(layer: Layer) -> str:
    return layer.node_a if layer.node_a == layer.node_b else f"A: {layer.node_a}, B: {layer.node_b}"


def telling(layers: Layers, shown: int = LAYERS_SHOWN) -> list[Layer]:
    """The layers to show, in order: those around the first that is beyond its bound, and those nearest to theirs."""
    listed = layers.layers
    if len(listed) <= shown:
        return list(listed)
    names = [layer.name for layer in listed]
    chosen: set[int] = set()
    if layers.born is not None:
        middle = names.index(layers.born)
        chosen |= {names.index(name) for name in listed[middle].inputs[:3]}
        chosen |= set(range(max(0, middle - 1), min(len(names), middle + 4)))
    order = sorted(range(len(listed)), key=lambda i: _use(listed[i]), reverse=True)
    for i in order:
        if len(chosen) >= shown:
            break
        chosen.add(i)
    return [listed[i] for i in sorted(chosen)]


def _use(layer: Layer) -> float:
    """How much of its bound a value uses, or without one how large its error is relative to its size."""
    if layer.bound:
        return layer.error_b / layer.bound
    return layer.error_b / layer.scale if layer.scale else layer.error_b


def _layers(layers: Layers, console: Console, glyphs: terminal.Glyphs) -> None:
    console.print()
    count = f"{len(layers.layers):,} values that both have (feed: {layers.feed})"
    alone = f"{layers.only_a:,} only in A, {layers.only_b:,} only in B"
    console.print(Text(f"Layer by layer: {count}; {alone}", style="bold"))
    console.print(Text(born(layers), style="red" if layers.born else ""))
    if layers.skipped:
        name, reason = next(iter(layers.skipped.items()))
        console.print(Text(f"{wording.count(len(layers.skipped), 'value')} not compared, such as {name!r}: {reason}"))
    shown = telling(layers)
    if not shown:
        return
    right = ("error A", "error B", "bound", "growth")
    made = terminal.table("", "value", "op", *right, right=right, fold="value")
    op_width = max(len(_op(layer)) for layer in shown)
    room = max(16, min(console.width, 120) - 48 - op_width)
    for layer in shown:
        mark = glyphs.arrow if layer.name == layers.born else "!" if layer.exceeded else ""
        cells = (ratio(layer.error_a), ratio(layer.error_b), ratio(layer.bound))
        growth = "-" if layer.growth is None else f"{layer.growth:.2g}x"
        style = "red" if layer.exceeded else ""
        made.add_row(mark, Text(_tail(layer.name, room, glyphs)), _op(layer), *cells, growth, style=style)
    console.print()
    console.print(made)
    rest = len(layers.layers) - len(shown)
    if rest:
        console.print(f"{rest:,} more; --report F lists all of them")


def _op(layer: Layer) -> str:
    names = [text.partition(" ")[0] for text in (layer.node_a, layer.node_b)]
    text = names[0] if names[0] == names[1] else f"{names[0]}/{names[1]}"
    return text if len(text) <= 14 else text[:13] + "."


def _tail(name: str, width: int, glyphs: terminal.Glyphs) -> str:
    """The end of a name, where exporters put what tells one value from the next."""
    mark = glyphs.ellipsis
    return name if len(name) <= width else mark + name[len(mark) - width :]
