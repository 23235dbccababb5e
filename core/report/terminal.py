"""A report for a person at a terminal, or in a log file: the same text, without colours and with plain arrows.

A renderer gets a rich `Console`, and takes from it the width, the colours and the encoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from onnx_rewrite.report import wording
from onnx_rewrite.report.schema import PassReport, Report, SiteReport

SITES_SHOWN = 8
"""Sites of one pass and one status that are listed without `verbose`."""

STYLES: Final = {"equivalent": "green", "refused": "yellow", "rolled back": "red", "different": "red"}


class Glyphs:
    """The few characters beyond ASCII, replaced where the console's encoding lacks them."""

    def __init__(self, console: Console) -> None:
        rich_text = console.encoding.lower().startswith("utf")
        self.arrow = "→" if rich_text else "->"
        self.ellipsis = "…" if rich_text else "..."


def table(*columns: str, right: tuple[str, ...] = (), fold: str = "") -> Table:
    """An open table in the house's style: bold heads, no lines, two spaces at the left.

    Args:
        columns: The heads.
        right: Heads of the columns that are aligned right (numbers).
        fold: Head of the one column that takes the remaining width and breaks its lines.
    """
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in right else "left",
            no_wrap=column != fold,
            overflow="fold",
            ratio=1 if column == fold else None,
        )
    return made


def render(
    report: Report,
    console: Console,
    *,
    verbose: bool = False,
    program: str = "rewrite",
    missing_engines: Sequence[str] = (),
) -> None:
    """Prints the whole report.

    Args:
        report: What to print.
        console: Where to print it.
        verbose: Every site is listed; else `SITES_SHOWN` of each pass and status.
        program: How the program is started, for the commands that are suggested.
        missing_engines: What this machine lacks for `--bench auto`, one "name: reason" each.
    """
    glyphs = Glyphs(console)
    passes(report, console)
    sites(report, console, glyphs, verbose=verbose)
    summary(report, console, glyphs)
    if report.benchmark:
        from onnx_rewrite.report import measurements

        console.print()
        measurements.render(report.benchmark, console, missing=missing_engines)
    warnings(report, console)
    next_steps(wording.next_steps(report, program), console)


def passes(report: Report, console: Console) -> None:
    """Prints one row per pass."""
    rows = table(
        "pass", "applied", "refused", "rolled back", "seconds", right=("applied", "refused", "rolled back", "seconds")
    )
    for entry in report.passes:
        spent = entry.seconds.match + entry.seconds.apply + entry.seconds.verify
        rows.add_row(
            Text(entry.name),
            _number(entry.applied, "green"),
            _number(entry.refused, "yellow"),
            _number(entry.rolled_back, "red"),
            f"{spent:.2f}",
        )
    console.print(rows)


def times(report: Report, console: Console) -> None:
    """Prints where each pass's time went, in seconds, and what share of the run it was."""
    rows = table(
        "pass", "match", "apply", "verify", "total", "share", right=("match", "apply", "verify", "total", "share")
    )
    whole = report.seconds.total or 1.0
    rest = whole
    for entry in report.passes:
        spent = (entry.seconds.match, entry.seconds.apply, entry.seconds.verify)
        rest -= sum(spent)
        rows.add_row(
            Text(entry.name), *(f"{one:.3f}" for one in spent), f"{sum(spent):.3f}", f"{sum(spent) / whole:.0%}"
        )
    rows.add_row("[dim]everything else[/dim]", "", "", "", f"{rest:.3f}", f"{rest / whole:.0%}")
    console.print()
    console.print(rows)


def _number(value: int, style: str) -> Text:
    return Text(f"{value:,}", style=style if value else "dim")


def sites(report: Report, console: Console, glyphs: Glyphs, *, verbose: bool = False) -> None:
    """Prints one row per site: where it is, its verdict, its error and the bound of that error."""
    if not any(entry.sites for entry in report.passes):
        console.print("\nNo pass found anything to do.")
        return
    rows = table("site", "verdict", "error", "bound", "where", right=("error", "bound"), fold="where")
    hidden: list[str] = []
    for entry in report.passes:
        shown, left_out = choose(entry, verbose=verbose)
        for site in shown:
            rows.add_row(*_site_row(site, glyphs))
        hidden.extend(f"{n:,} more of {entry.name} {word}" for word, n in left_out)
    console.print()
    console.print(rows)
    if hidden:
        console.print(f"[dim]{glyphs.ellipsis} and {escape(', '.join(hidden))} (--verbose lists them)[/dim]")


def choose(entry: PassReport, *, verbose: bool = False) -> tuple[list[SiteReport], list[tuple[str, int]]]:
    """The sites of a pass that are listed, in their own order, and how many of each status are not."""
    if verbose:
        return entry.sites, []
    shown: set[int] = set()
    left_out: list[tuple[str, int]] = []
    for status, word in (("rolled_back", "rolled back"), ("refused", "refused"), ("applied", "applied")):
        of_status = [i for i, site in enumerate(entry.sites) if site.status == status]
        # One more row costs no more than the line that would say that it is missing.
        keep = SITES_SHOWN if len(of_status) > SITES_SHOWN + 1 else len(of_status)
        shown.update(of_status[:keep])
        if len(of_status) > keep:
            left_out.append((word, len(of_status) - keep))
    return [site for i, site in enumerate(entry.sites) if i in shown], left_out[::-1]


def _site_row(site: SiteReport, glyphs: Glyphs) -> list[Text]:
    verdict = wording.verdict(site)
    judged = site.verification
    ran = judged is not None and judged.feeds > 0
    place = Text(wording.where(site.nodes, ellipsis=glyphs.ellipsis))
    for words in (site.note, site.reason):
        if words:
            place.append(": " if place else "").append(words)
    return [
        Text(site.id),
        Text(verdict, style=STYLES.get(verdict, "yellow")),
        Text(wording.error(judged.error_after) if judged and ran else "-"),
        Text(wording.error(judged.bound) if judged and ran else "-"),
        place,
    ]


def summary(report: Report, console: Console, glyphs: Glyphs) -> None:
    """Prints the lines on the model as a whole: nodes, opset, verdict, time, file."""
    lines = Table.grid(padding=(0, 2, 0, 0), expand=False)
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column(overflow="fold")
    before, after = report.model, report.output
    saved = before.nodes - after.nodes
    change = f"{saved:,} fewer" if saved > 0 else f"{-saved:,} more" if saved else "as many"
    lines.add_row("nodes", f"{before.nodes:,} {glyphs.arrow} {after.nodes:,} ({change}; Constants aside)")
    old, new = wording.opsets(before.opset), wording.opsets(after.opset)
    lower = after.opset.get("", 0) < before.opset.get("", 0)
    why = " (the parser of TensorRT 8.6 misreads reductions of later ones)" if lower else ""
    lines.add_row("opset", Text(old if old == new else f"{old} {glyphs.arrow} {new}{why}"))
    verdict = report.verification.verdict if report.verification else ""
    lines.add_row("model", Text(wording.model_verdict(report), style=STYLES.get(verdict, "yellow")))
    memory = f", {report.peak_rss_mb:,.0f} MB of memory at most" if report.peak_rss_mb else ""
    lines.add_row("time", wording.seconds(report.seconds.total) + memory)
    written = {None: "nothing", "-": "to standard output"}.get(after.path, after.path)
    lines.add_row("written", Text(written or ""))
    console.print()
    console.print(lines)


def warnings(report: Report, console: Console) -> None:
    """Prints the warnings, if any."""
    if report.warnings:
        console.print()
    for text in report.warnings:
        console.print(Text.assemble(("warning: ", "bold yellow"), text), soft_wrap=False)


def next_steps(steps: Sequence[tuple[str, str]], console: Console) -> None:
    """Prints commands to try next, each below a line that says what it is for; a command is never broken."""
    if steps:
        console.print("\n[bold]next[/bold]")
    for purpose, command in steps:
        console.print(Text(f"  {purpose}:", style="dim"))
        console.print(Text(f"    {command}"), soft_wrap=True)
