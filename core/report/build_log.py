"""The analysis of a build log for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from onnx_rewrite.engines.trt_log import Analysis
from onnx_rewrite.report import wording

_TOP = 12


def render(found: Analysis, console: Console) -> None:
    """Prints what a log says, the longest and most frequent first."""

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    def head(text: str) -> None:
        say(f"\n{text}", "bold")

    nodes = sum(found.nodes.values())
    operators = ", ".join(f"{count} {name}" for name, count in list(found.nodes.items())[:_TOP])
    say(f"{found.lines:,} records; {nodes:,} ONNX nodes parsed" + (f": {operators}" if nodes else ""))
    if found.stages:
        head("layers after each stage")
        last: int | None = None
        for stage, count in found.stages:
            if count != last:
                say(f"  {count:6,}  {stage}")
            last = count
    if found.fusions:
        head(f"{len(found.fusions)} fusions")
        rules = Counter((one.rule, one.stage) for one in found.fusions)
        for (rule, stage), count in rules.most_common():
            first = next(one for one in found.fusions if (one.rule, one.stage) == (rule, stage))
            example = f"{first.first} with {first.second}" if first.second else first.first
            say(f"  {count:6,}  {rule}" + (f" (before {stage})" if stage else "") + f", for example {example}")
    if found.choices:
        tried = sum(one.tried for one in found.choices)
        head(f"tactics: {tried:,} timed for {len(found.choices)} layers; the slowest layers")
        slowest = sorted(found.choices, key=lambda one: -(one.milliseconds or 0.0))
        for one in slowest[:_TOP]:
            time = "        - " if one.milliseconds is None else f"{one.milliseconds:7.4f} ms"
            say(f"  {time}  {one.layer}: {one.runner} {one.tactic}, best of {one.tried} ({', '.join(one.runners)})")
    if found.reformats:
        head(f"{len(found.reformats)} reformats")
        for one in found.reformats[:_TOP]:
            say(f"  {one.name} ({one.tensor}): {one.source} to {one.target}")
        _more(found.reformats, say)
    if found.layers:
        fused = sum(1 for one in found.layers if len(one.nodes) > 1)
        head(f"{len(found.layers)} layers in the engine, {fused} of several ONNX nodes")
        for layer in found.layers[:_TOP]:
            of = f" of {', '.join(layer.nodes[:4])}" if layer.nodes and layer.nodes != [layer.name] else ""
            more = f", and {len(layer.nodes) - 4} more" if len(layer.nodes) > 4 else ""
            name = "region" if layer.name.startswith("{ForeignNode[") and layer.nodes else layer.name
            say(f"  {layer.kind}: {name}, {layer.types}{of}{more}")
        _more(found.layers, say)
    if found.memory:
        head("memory")
        for what, size in found.memory.items():
            say(f"  {wording.size(size):>10}  {what}")
    if found.seconds:
        head("time")
        for what, seconds in sorted(found.seconds.items(), key=lambda item: -item[1])[:6]:
            say(f"  {wording.seconds(seconds):>10}  {what}")
    if found.warnings:
        head(f"{len(found.warnings)} warnings")
        for one in found.warnings[:_TOP]:
            if one.cause == "int64":  # of every model with a Slice or Reshape
                say(f"  {one.meaning}")
                continue
            times = f" ({one.count} times)" if one.count > 1 else ""
            say(f"  {one.text[:300]}{times}", "yellow" if one.cause else "")
            if one.meaning:
                say(f"      {one.meaning}")
        _more(found.warnings, say)
    for error in found.errors:
        say(f"error: {error}", "red")


def _more(items: Sequence[object], say: object) -> None:
    if len(items) > _TOP and callable(say):
        say(f"  and {len(items) - _TOP} more")
