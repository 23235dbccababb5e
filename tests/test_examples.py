"""The example package, as its user has it: built into a wheel, installed into a folder, found by the program."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import onnx.parser
import pytest

import onnx_rewrite as rw

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "onnx-rewrite-hardswish"

MODEL = """<ir_version: 8, opset_import: ["": 13]> g (float[2, N, 5] x) => (float[2, N, 5] y, float[2, N, 5] z)
<float three = {3.0}, float zero = {0.0}, float six = {6.0}> {
    a = Add (x, three)
    c = Clip (a, zero, six)
    m = Mul (x, c)
    y = Div (m, six)
    s = HardSigmoid <alpha = 0.16666667, beta = 0.5> (y)
    z = Mul (y, s)
}"""


def python(*args: object, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs this interpreter, with `path` first in where it imports from."""
    env = {**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "120"}
    if path is not None:
        env["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the content of the example's wheel, built without network by the setuptools that is installed."""
    pytest.importorskip("setuptools", minversion="77")
    scratch = tmp_path_factory.mktemp("example")
    source = scratch / "source"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build", ".*"))
    python("-c", f"from setuptools import build_meta; build_meta.build_wheel({str(scratch)!r})", cwd=source)
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(scratch / "target")
    return scratch / "target"


def test_the_program_knows_the_pass(installed: Path, tmp_path: Path) -> None:
    listed = python("-m", "onnx_rewrite", "passes", cwd=tmp_path, path=installed)
    assert "hardswish" in listed.stdout
    assert listed.stderr == ""
    told = python("-m", "onnx_rewrite", "passes", "hardswish", cwd=tmp_path, path=installed).stdout
    for text in ("onnx-rewrite-hardswish 0.1.0", "14 or newer", "spelling  one of any, sigmoid, clip, default any"):
        assert text in told


@pytest.mark.parametrize(("option", "applied"), [("", 2), (":spelling=clip", 1), (":spelling=sigmoid", 1)])
def test_a_model_is_rewritten(installed: Path, tmp_path: Path, option: str, applied: int) -> None:
    onnx.save(onnx.parser.parse_model(MODEL), tmp_path / "m.onnx")
    command = ("-m", "onnx_rewrite", "m.onnx", "--passes", f"hardswish{option}", "-o", "o.onnx", "--report", "r.json")
    python(*command, cwd=tmp_path, path=installed)
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert [(entry["name"], entry["applied"]) for entry in report["passes"]] == [("hardswish", applied)]
    assert {site["verification"]["verdict"] for site in report["passes"][0]["sites"]} == {"equivalent"}
    assert report["verification"]["verdict"] == "equivalent"
    assert [node.op_type for node in onnx.load(tmp_path / "o.onnx").graph.node].count("HardSwish") == applied
    assert rw.check(tmp_path / "m.onnx", tmp_path / "o.onnx").verdict == "equivalent"


def test_the_examples_own_tests_pass(installed: Path, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    done = python(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "tests", cwd=tmp_path, path=installed
    )
    assert " passed" in done.stdout
