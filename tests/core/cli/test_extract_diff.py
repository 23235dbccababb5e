"""`rewrite extract` and `rewrite diff` from the command line."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest

from onnx_rewrite import demo


@pytest.fixture
def hybrid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo's model in the current folder."""
    monkeypatch.chdir(tmp_path)
    demo.copy_model(Path())
    return Path(demo.MODEL)


def test_extract_between_values(rewrite, hybrid: Path) -> None:
    ran = rewrite("extract", hybrid, "--from", "/Transpose_output_0", "--to", "/ln1/Sub_output_0,/ln1/Add_1_output_0")
    assert (ran.status, ran.err) == (0, "")
    model = onnx.load("hybrid.extracted.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["/Transpose_output_0"]
    assert [value.name for value in model.graph.output] == ["/ln1/Sub_output_0", "/ln1/Add_1_output_0"]
    for fact in ("float[1, 64, 24]", "9 of 72", "hybrid.extracted.onnx"):
        assert fact in ran.out


def test_extract_says_what_else_is_needed(rewrite, hybrid: Path) -> None:
    ran = rewrite("extract", hybrid, "--from", "/ln1/Add_1_output_0", "-o", "p.onnx")
    assert ran.status == 0
    assert "note: 'x' stays an input" in ran.out
    assert [value.name for value in onnx.load("p.onnx").graph.input] == ["/ln1/Add_1_output_0", "x"]


def test_extract_a_site(rewrite, hybrid: Path) -> None:
    ran = rewrite("extract", hybrid, "--match", "ln[1]", "-o", "site.onnx")
    assert ran.status == 0
    assert "/ln2/ (9 nodes)" in ran.out
    assert rewrite("site.onnx", "--passes", "ln", "--strict").status == 0


def test_extract_through_standard_input_and_output(rewrite, hybrid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(hybrid.read_bytes()), isatty=lambda: False))
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stdout)
    ran = rewrite("extract", "-", "--to", "/ln1/Add_1_output_0", "-o", "-")
    assert ran.status == 0
    assert "to standard output" in ran.err
    model = onnx.load_model_from_string(stdout.buffer.getvalue())
    assert [value.name for value in model.graph.output] == ["/ln1/Add_1_output_0"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "either a site, or values"),
        ("--to nothing", "no value 'nothing'"),
        ("--to /ln1/Add_1_output_9", "/ln1/Add_1_output_0"),
        ("--to y --match ln[0]", "--match excludes"),
        ("--to y --passes ln", "--passes needs --match"),
        ("--match ln[7]", "ln[0] to ln[2]"),
        ("--match clop[0]", "did you mean clip"),
        ("--to y -o hybrid_legacy_op12_keep_bn.onnx", "the model itself"),
        ("--to y -o no/folder.onnx", "does not exist"),
    ],
)
def test_extract_with_options_that_do_not_fit(rewrite, hybrid: Path, options: str, message: str) -> None:
    options = options.replace("hybrid_legacy_op12_keep_bn.onnx", demo.MODEL)
    ran = rewrite("extract", hybrid, *options.split())
    assert (ran.status, ran.out) == (2, "")
    assert message in ran.err
    assert "internal error" not in ran.err
    assert os.listdir() == [demo.MODEL]


def test_extract_leaves_nothing_when_the_disk_is_full(rewrite, hybrid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "replace", full)
    ran = rewrite("extract", hybrid, "--to", "/ln1/Add_1_output_0")
    assert (ran.status, ran.out) == (2, "")
    assert "disk is full" in ran.err
    assert os.listdir() == [demo.MODEL]


def test_diff_of_identical_models(rewrite, hybrid: Path) -> None:
    ran = rewrite("diff", hybrid, hybrid)
    assert (ran.status, ran.err) == (0, "")
    assert "identical: the same bytes" in ran.out


def test_diff_of_the_same_model_in_another_format(rewrite, hybrid: Path) -> None:
    onnx.save(onnx.load(hybrid), "m.json")
    ran = rewrite("diff", hybrid, "m.json")
    assert ran.status == 0
    assert "the same, in other bytes" in ran.out
    assert json.loads(rewrite("diff", hybrid, "m.json", "--json").out)["same"] is True


@pytest.mark.parametrize("width", ["80", "120"])
def test_diff_after_a_run(rewrite, hybrid: Path, monkeypatch: pytest.MonkeyPatch, width: str) -> None:
    assert rewrite(hybrid, "--passes", "ln,clip", "--verify", "off", "--quiet").status == 0
    monkeypatch.setenv("COLUMNS", width)
    ran = rewrite("diff", hybrid, "hybrid.rewritten.onnx")
    assert (ran.status, ran.err) == (1, "")
    assert max(map(len, ran.out.splitlines())) <= int(width)
    for fact in ("12 → 17", "9 nodes, 2 Constants → LayerNormalization '/ln1/Add_1'", "Clip '/Max'"):
        assert fact in ran.out
    assert "other nodes" not in ran.out

    found = json.loads(rewrite("diff", hybrid, "hybrid.rewritten.onnx", "--json").out)
    assert found["same"] is False
    assert len([r for r in found["replacements"] if r["pass_name"] == "ln"]) == 3
    assert {"operator": "LayerNormalization", "before": 0, "after": 3} in found["operators"]


def test_diff_lists_everything_if_asked(rewrite, hybrid: Path) -> None:
    model = onnx.load(hybrid)
    for node in model.graph.node:
        node.name = ""
    onnx.save(model, "b.onnx")
    short, full = rewrite("diff", hybrid, "b.onnx"), rewrite("diff", hybrid, "b.onnx", "--all")
    assert (short.status, full.status) == (1, 1)
    assert "and 83 more (--all lists them)" in short.out
    assert full.out.count("name: ") == 93


def test_diff_with_what_is_no_model(rewrite, hybrid: Path) -> None:
    Path("empty.onnx").write_bytes(b"")
    for argv in ((hybrid, "missing.onnx"), (hybrid, "empty.onnx"), ("-", "-")):
        ran = rewrite("diff", *argv)
        assert (ran.status, ran.out) == (2, "")
        assert ran.err.startswith("error: ")
