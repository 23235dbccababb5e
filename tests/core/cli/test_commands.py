"""The commands on real models, without pretending anything."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from onnx_rewrite import demo
from onnx_rewrite.report.schema import Report

COUNTS = {"ln": 3, "clip": 2, "bn": 2}


@pytest.fixture
def hybrid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo's model in the current folder."""
    monkeypatch.chdir(tmp_path)
    demo.copy_model(Path())
    return Path(demo.MODEL)


def spoiled(path: Path, name: str) -> Path:
    """A copy with one weight changed."""
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if "head" in t.name and "bias" in t.name)
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[0] += 0.01
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, name)
    return Path(name)


def test_rewrite_then_check_then_rewrite_again(rewrite, hybrid: Path) -> None:
    ran = rewrite(hybrid, "--passes", "ln,clip,bn", "--report", "r.json")
    assert (ran.status, ran.err) == (0, "")
    report = Report.from_json(Path("r.json").read_text(encoding="utf-8"))
    assert {entry.name: entry.applied for entry in report.passes} == COUNTS
    assert report.verification is not None
    assert report.verification.verdict == "equivalent"
    for entry in report.passes:
        for site in entry.sites:
            assert site.id in ran.out
            assert site.verification is not None
            assert site.verification.verdict == "equivalent"
    written = onnx.load("hybrid.rewritten.onnx")
    onnx.checker.check_model(written, full_check=True)
    assert report.output.nodes == sum(node.op_type != "Constant" for node in written.graph.node)

    judged = rewrite("check", hybrid, "hybrid.rewritten.onnx")
    assert judged.status == 0
    assert "equivalent" in judged.out

    again = rewrite("hybrid.rewritten.onnx", "--passes", "ln,clip,bn", "-o", "twice.onnx", "--quiet")
    assert again.status == 0
    assert Path("twice.onnx").read_bytes() == Path("hybrid.rewritten.onnx").read_bytes()


def test_all_built_in_passes_are_the_default(rewrite, hybrid: Path) -> None:
    ran = rewrite(hybrid, "--dry-run", "--verify", "off", "--report", "r.json")
    assert ran.status == 0
    assert "nothing was verified" in ran.out
    report = Report.from_json(Path("r.json").read_text(encoding="utf-8"))
    assert [entry.name for entry in report.passes] == sorted(entry.name for entry in report.passes)
    found = {entry.name: entry.applied for entry in report.passes}
    assert {name: found[name] for name in COUNTS} == COUNTS
    assert not Path("hybrid.rewritten.onnx").exists()


def test_standard_input_and_output(rewrite, hybrid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = SimpleNamespace(buffer=io.BytesIO(hybrid.read_bytes()), isatty=lambda: False)
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(sys, "stdout", stdout)
    ran = rewrite("-", "--passes", "clip", "-o", "-")
    assert ran.status == 0
    assert "clip[1]" in ran.err
    model = onnx.load_model_from_string(stdout.buffer.getvalue())
    assert not {"Min", "Max"} & {node.op_type for node in model.graph.node}


def test_in_place(rewrite, hybrid: Path) -> None:
    assert rewrite(hybrid, "--passes", "clip", "--in-place", "--quiet").status == 0
    assert "Clip" in {node.op_type for node in onnx.load(hybrid).graph.node}
    assert os.listdir() == [demo.MODEL]


def test_only_and_skip(rewrite, hybrid: Path) -> None:
    options = ("--passes", "ln", "--dry-run", "--verify", "off", "--report", "r.json")
    assert rewrite(hybrid, *options, "--only", "ln[1]").status == 0
    assert Report.from_json(Path("r.json").read_text(encoding="utf-8")).applied == 1
    assert rewrite(hybrid, *options, "--skip", "/ln[12]/").status == 0
    assert Report.from_json(Path("r.json").read_text(encoding="utf-8")).applied == 1


def test_opset_keep_says_why_nothing_was_done(rewrite, hybrid: Path) -> None:
    ran = rewrite(hybrid, "--passes", "ln", "--opset", "keep", "--dry-run")
    assert ran.status == 0
    assert "12 → 17" not in ran.out
    assert "opset" in ran.out


def test_check_finds_a_difference(rewrite, hybrid: Path) -> None:
    spoiled(hybrid, "b.onnx")
    ran = rewrite("check", hybrid, "b.onnx")
    assert ran.status == 1
    assert "different" in ran.out
    found = json.loads(rewrite("check", hybrid, "b.onnx", "--json").out)
    assert found["verdict"] == "different"
    assert found["error_after"] > found["bound"]


def test_check_on_inputs_of_a_user(rewrite, hybrid: Path) -> None:
    np.savez("feeds.npz", x=np.zeros((1, 3, 32, 32), np.float32))
    assert rewrite("check", hybrid, hybrid, "--inputs", "feeds.npz").status == 0


def test_inspect(rewrite, hybrid: Path) -> None:
    ran = rewrite("inspect", hybrid)
    assert ran.status == 0
    for fact in ("pytorch", "12 (IR 7)", "72 and 21 Constants", "ReduceMean", "[1, 3, 32, 32]", "float"):
        assert fact in ran.out
    found = json.loads(rewrite("inspect", hybrid, "--passes", "ln,clip", "--json").out)
    assert found["sites"] == {"ln": {"applied": 3, "refused": 0}, "clip": {"applied": 2, "refused": 0}}
    assert found["histogram"]["Conv"] == 2
    assert [value["name"] for value in found["inputs"]] == ["x"]


def test_passes(rewrite) -> None:
    ran = rewrite("passes")
    assert ran.status == 0
    for name in COUNTS:
        assert name in ran.out
    described = rewrite("passes", "ln")
    assert "17 or newer" in described.out
    assert "--passes ln" in described.out
    listed = json.loads(rewrite("passes", "--json").out)
    assert {entry["name"] for entry in listed} >= set(COUNTS)
    assert json.loads(rewrite("passes", "ln", "--json").out)["needs_opset"] == 17


def test_a_broken_pass_of_another_package_does_not_hide_the_others(rewrite, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx_rewrite import registry
    from onnx_rewrite.errors import UsageError

    describe = registry.describe

    def broken(name: str) -> registry.PassDescription:
        if name == "clip":
            raise UsageError("pass 'clip' cannot be loaded")
        return describe(name)

    monkeypatch.setattr(registry, "describe", broken)
    ran = rewrite("passes")
    assert ran.status == 0
    assert "LayerNormalization" in ran.out
    assert ran.err == "warning: pass 'clip' cannot be loaded\n"


def test_demo(rewrite, tmp_path: Path) -> None:
    ran = rewrite("demo", "--dir", tmp_path / "new" / "folder")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.count("equivalent") > sum(COUNTS.values())
    for fact in ("ln[2]", "clip[1]", "bn[1]", "72 → ", "12 → 17"):
        assert fact in ran.out
    # What it suggests works, but for the last one, whose model is the reader's.
    commands = [
        line.split() for line in ran.out.partition("\nnext\n")[2].splitlines() if line.startswith("    rewrite")
    ]
    assert len(commands) >= 5
    for command in commands[:-1]:
        assert rewrite(*(word.strip('"') for word in command[1:])).status == 0


def test_demo_makes_a_folder_of_its_own(rewrite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert rewrite("demo", "--verbose").status == 0
    (folder,) = tmp_path.glob("onnx-rewrite-demo-*")
    assert (folder / "hybrid.rewritten.onnx").is_file()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.onnx", b"", "empty.onnx"),
        ("photo.onnx", b"\xff\xd8\xff\xe0" + bytes(64), "JPEG"),
        ("noise.onnx", bytes(range(256)), "noise.onnx"),
        ("cut.onnx", None, "cut.onnx"),
    ],
)
@pytest.mark.parametrize("command", ["", "inspect", "check"])
def test_what_is_no_model(rewrite, hybrid: Path, command: str, name: str, content: bytes | None, message: str) -> None:
    Path(name).write_bytes(hybrid.read_bytes()[:20000] if content is None else content)
    ran = rewrite(*filter(None, [command, name, hybrid if command == "check" else ""]))
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert message in ran.err
    assert not Path(name).with_suffix(".rewritten.onnx").exists()


def test_a_folder_is_no_model(rewrite, hybrid: Path) -> None:
    Path("folder.onnx").mkdir()
    ran = rewrite("folder.onnx")
    assert ran.status == 2
    assert ran.err.startswith("error: ")
    assert "folder.onnx" in ran.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--passes lnn", "did you mean ln"),
        ("--passes ln:depth=2", "no option 'depth'"),
        ("--passes ln,ln", "named twice"),
        ("--inputs missing.npz", "missing.npz"),
        ("--shape z=1,3", "z"),
        ("--shape x=1,3", "x"),
        ("--only [", "["),
    ],
)
def test_options_that_do_not_fit(rewrite, hybrid: Path, options: str, message: str) -> None:
    ran = rewrite(hybrid, *options.split())
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert "internal error" not in ran.err
    assert message in ran.err
    assert os.listdir() == [demo.MODEL]


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [("y", (1, 3, 32, 32), "float32"), ("x", (1, 3, 32), "float32"), ("x", (1, 3, 32, 32), "int64")],
)
def test_feeds_that_do_not_fit(rewrite, hybrid: Path, name: str, shape: tuple[int, ...], dtype: str) -> None:
    np.savez("f.npz", **{name: np.zeros(shape, dtype)})
    ran = rewrite(hybrid, "--inputs", "f.npz")
    assert (ran.status, ran.out) == (2, "")
    assert "x" in ran.err


def test_nothing_partial_is_left_when_the_disk_is_full(rewrite, hybrid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "replace", full)
    ran = rewrite(hybrid, "--passes", "clip", "--verify", "off")
    assert ran.status == 2
    assert "disk is full" in ran.err
    assert os.listdir() == [demo.MODEL]
