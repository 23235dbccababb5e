"""How names, numbers and counts are put into words, for every rendering of a report alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from onnx_rewrite.report.schema import Report, SiteReport


def count(n: int, noun: str) -> str:
    """A number with its noun: `count(1, "feed")` is "1 feed", `count(2, "feed")` "2 feeds"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def error(value: float) -> str:
    """An absolute error, short: "0", "2.1e-07", "0.13", "inf"."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(float(value))
    return f"{value:.2g}" if 1e-3 <= abs(value) < 1e3 else f"{value:.1e}"


def seconds(value: float) -> str:
    """A duration: milliseconds below one second ("21 ms"), else seconds ("1.3 s")."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def size(n_bytes: int) -> str:
    """A number of bytes in decimal units: "512 bytes", "35.4 kB", "1.2 GB"."""
    value = float(n_bytes)
    if value < 1000:
        return count(n_bytes, "byte")
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 1000:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} TB"


def opsets(opset: Mapping[str, int]) -> str:
    """Opset imports, the standard domain first and without a name: "17, com.microsoft 1"."""
    order = sorted(opset, key=lambda domain: (domain not in ("", "ai.onnx"), domain))
    return ", ".join(str(opset[d]) if d in ("", "ai.onnx") else f"{d} {opset[d]}" for d in order)


def where(names: Sequence[str], *, ellipsis: str = "…") -> str:
    """Where a match is, from the names of its nodes.

    The scope that they share, with the last parts of the names where they are few: "/blocks.0/norm1/ (9 nodes)",
    "/stem/ (Conv, BatchNormalization)". Without a shared scope the names themselves, the first and the last of many.
    """
    named = [name for name in names if name]
    if not named:
        return count(len(names), "unnamed node") if names else ""
    if len(names) == 1:
        return named[0]
    few = len(names) <= 3 and len(named) == len(names)
    scope = named[0].rpartition("/")[0]
    while scope and not all(name.startswith(scope + "/") for name in named):
        scope = scope.rpartition("/")[0]
    if not scope.strip("/"):
        return ", ".join(named) if few else f"{named[0]} {ellipsis} {named[-1]} ({count(len(names), 'node')})"
    leaves = ", ".join(name.rpartition("/")[2] for name in named)
    return f"{scope}/ ({leaves if few else count(len(names), 'node')})"


def verdict(site: SiteReport) -> str:
    """What became of a site, in one or two words: its verdict where it was applied, else its status."""
    if site.status == "refused":
        return "refused"
    if site.status == "rolled_back":
        return "rolled back"
    return site.verification.verdict if site.verification else "not verified"


def model_verdict(report: Report) -> str:
    """The verdict on the whole model in one sentence, with the numbers behind it."""
    judged = report.verification
    if judged is None:
        return "not verified as a whole"
    if judged.verdict == "not verified":
        return judged.verdict
    if judged.verdict == "equivalent" and not judged.feeds:
        return "unchanged"
    text = f"{judged.verdict} on {count(judged.feeds, 'feed')}, largest error {error(judged.max_abs_error)}"
    return text + (f" (output {judged.worst_output})" if judged.worst_output else "")


def next_steps(report: Report, program: str = "rewrite") -> list[tuple[str, str]]:
    """What to do next after this run.

    Args:
        report: Of the run.
        program: How the program is started, "uv run rewrite" for example.

    Returns:
        (what it is for, command), most useful first. Every command works as it stands.
    """
    source, output = report.model.path, report.output.path
    if source in (None, "-"):
        return []
    source = quoted(source)
    if not any(entry.sites for entry in report.passes):
        return [
            ("what the model is made of", f"{program} inspect {source}"),
            ("what every pass looks for", f"{program} passes"),
        ]
    if output in (None, "-"):
        return []
    purpose = "judge the result again, on your own data with --inputs FEEDS.npz"
    return [(purpose, f"{program} check {source} {quoted(output)}")]


def quoted(path: str) -> str:
    """A path as a shell takes it: in double quotes where it holds anything unusual."""
    plain = all(c.isalnum() or c in "._-+/\\:~" for c in path)
    return path if plain and path else f'"{path}"'
