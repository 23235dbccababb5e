from __future__ import annotations

import io
from html.parser import HTMLParser

import pytest
from rich.console import Console

from onnx_rewrite.report import page, terminal
from onnx_rewrite.report.schema import ModelInfo, OutputInfo, PassReport, Report, SiteReport

VOID = {"meta", "br", "link"}


def text_of(report: Report, *, width: int = 80, encoding: str = "utf-8", verbose: bool = False) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    terminal.render(report, Console(file=stream, width=width), verbose=verbose)
    stream.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [80, 120])
def test_fits_the_width_and_is_plain_where_there_is_no_terminal(report: Report, width: int) -> None:
    text = text_of(report, width=width)
    assert "\033" not in text
    lines, commands = text.split("\nnext\n")
    assert max(map(len, lines.splitlines())) <= width
    assert "    rewrite check models/hybrid.onnx models/hybrid.rewritten.onnx\n" in commands


def test_says_what_happened(report: Report) -> None:
    text = text_of(report, width=120)
    for fact in (
        "/blocks/blocks.0/norm1/ (9 nodes)",
        "3.2e-07   3.8e-06",
        "refused",
        "computed by node 'ReduceMin_12'",
        "rolled back       0.31   2.0e-05",
        "Conv_3, BatchNormalization_4: error 0.31 exceeds the bound",
        "146 → 98 (48 fewer; Constants aside)",
        "12 → 17, com.microsoft 1",
        "equivalent on 6 feeds, largest error 4.8e-07 (output logits)",
        "1.3 s, 188 MB",
        "models/hybrid.rewritten.onnx",
        "warning: clip[2] was not verified: onnxruntime has no kernel for [Frobnicate]",
    ):
        assert fact in text


def test_long_lists_are_cut_unless_verbose(report: Report) -> None:
    short, full = text_of(report), text_of(report, verbose=True)
    assert "4 more of ln applied (--verbose lists them)" in short
    assert "ln[7]" in short
    assert "ln[8]" not in short
    assert "more of" not in full
    assert all(f"ln[{i}]" in full for i in range(12))


def test_what_went_wrong_is_never_hidden_by_what_went_well() -> None:
    sites = [SiteReport(f"ln[{i}]", ["n"]) for i in range(50)]
    sites.append(SiteReport("ln[50]", ["n"], status="rolled_back", reason="wrong"))
    shown, left_out = terminal.choose(PassReport("ln", 50, 0, 1, sites))
    assert [site.id for site in shown] == [*(f"ln[{i}]" for i in range(8)), "ln[50]"]
    assert left_out == [("applied", 42)]


def test_an_encoding_without_arrows(report: Report) -> None:
    text = text_of(report, encoding="ascii")
    assert "146 -> 98" in text


def test_nothing_found() -> None:
    nothing = Report(model=ModelInfo("my model.onnx", "", {"": 12}, 3), output=OutputInfo(None, {"": 12}, 3))
    nothing.passes = [PassReport("ln")]
    text = text_of(nothing)
    assert "No pass found anything to do." in text
    assert "3 → 3 (as many; Constants aside)" in text
    assert 'rewrite inspect "my model.onnx"' in text


class Page(HTMLParser):
    """Checks that every element is closed, and collects the text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not {name for name, _ in attrs} & {"src", "onload", "onclick"}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_is_whole_and_lists_every_site(report: Report) -> None:
    found = Page(page.render(report))
    assert "script" not in found.tags
    for entry in report.passes:
        for site in entry.sites:
            assert site.id in found.text
            assert (site.reason or "") in found.text


def test_page_escapes_names() -> None:
    nasty = "<script>alert('x')</script>&"
    report = Report(model=ModelInfo(nasty), warnings=[nasty])
    report.passes = [PassReport(nasty, 1, sites=[SiteReport(nasty, [nasty], reason=nasty)])]
    found = Page(page.render(report))
    assert "script" not in found.tags
    assert found.text.count(nasty) >= 6
