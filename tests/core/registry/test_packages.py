"""Passes of installed packages: found without being imported, and nothing that one of them does wrong harms others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import onnx_rewrite as rw
from onnx_rewrite.registry import registry

MODEL = Path(__file__).parents[2] / "models" / "exported" / "minmax_legacy_op12.onnx"

GOOD = '''
from dataclasses import dataclass
from enum import Enum
from typing import Literal
from onnx_rewrite import Pass, op, constant

class Mode(Enum):
    FAST = "fast"

@dataclass(frozen=True)
class Good(Pass):
    """Does nothing, well."""
    name = "{name}"
    form: Literal["core", "function"] = "core"
    depth: int | None = None
    def pattern(self, x): return op.Erf(x)
    def replace(self, m): return op.Erf(m.x)
'''


class Packages:
    """A folder of installed packages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, package: str, source: str, **points: str) -> None:
        module = package.replace("-", "_")
        (self.folder / f"{module}.py").write_text(
            f"open({str(self.folder / package)!r} + '.loaded', 'w').close()\n{source}"
        )
        info = self.folder / f"{module}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n")
        lines = [f"{name} = {module}:{target}" for name, target in points.items()]
        (info / "entry_points.txt").write_text("[onnx_rewrite.passes]\n" + "\n".join(lines) + "\n")

    def rewrite(self, *argv: object) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(self.folder), "COLUMNS": "160", "PYTHONIOENCODING": "utf-8"}
        command = [sys.executable, "-m", "onnx_rewrite", *map(str, argv)]
        return subprocess.run(command, env=env, capture_output=True, text=True, encoding="utf-8", check=False)

    @property
    def loaded(self) -> set[str]:
        return {path.stem for path in self.folder.glob("*.loaded")}


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    return Packages(tmp_path)


def test_nothing_is_imported_before_it_is_asked_for(packages: Packages, tmp_path: Path) -> None:
    packages.add("good-one", GOOD.format(name="good"), good="Good")
    packages.add("bad-one", "raise RuntimeError('no GPU')", bad="Bad")
    ran = packages.rewrite(MODEL, "--passes", "clip", "-o", tmp_path / "o.onnx", "--verify", "off")
    assert (ran.returncode, packages.loaded) == (0, set()), ran.stderr
    ran = packages.rewrite(MODEL, "-o", tmp_path / "o.onnx", "--verify", "off")  # those of a run without --passes
    assert (ran.returncode, packages.loaded) == (0, set()), ran.stderr
    ran = packages.rewrite(MODEL, "--passes", "good", "-o", tmp_path / "o.onnx", "--verify", "off")
    assert (ran.returncode, packages.loaded) == (0, {"good-one"}), ran.stderr


BROKEN = {
    "raises": ("raise RuntimeError('no GPU')", "X", "RuntimeError: no GPU"),
    "exits": ("raise SystemExit(3)", "X", "SystemExit: 3"),
    "imports": ("import no_such_module", "X", "No module named 'no_such_module'"),
    "lacks": ("", "X", "has no attribute 'X'"),
    "number": ("X = 5", "X", "is none: number_package:X is a int"),
    "class": ("class X: pass", "X", "is none: class_package:X is a class X"),
    "factory": ("def X(): return 5", "X", "makes a int"),
    "abstract": ("from onnx_rewrite import Pass\nclass X(Pass):\n  name = 'abstract'", "X", "cannot be made"),
    "misnamed": (GOOD.format(name="other"), "Good", "calls itself 'other'"),
    "argument": (GOOD.format(name="argument") + "\n  \n    def __init__(self, n): ...", "Good", "argument"),
    "usage": ("from onnx_rewrite import UsageError\nraise UsageError('too old')", "X", "too old"),
    "typed": (GOOD.format(name="typed").replace("int | None", "'Missing'"), "Good", "of types that cannot be read"),
}


def test_what_is_broken_is_named_and_the_others_are_listed(packages: Packages, tmp_path: Path) -> None:
    packages.add("good-one", GOOD.format(name="good"), good="Good")
    for name, (source, target, _) in BROKEN.items():
        packages.add(f"{name}-package", source, **{name: target})
    ran = packages.rewrite("passes")
    assert ran.returncode == 0, ran.stderr
    for name in ("bn", "clip", "ln", "good"):
        assert f"\n{name} " in ran.stdout
    warnings = ran.stderr.splitlines()
    assert len(warnings) == len(BROKEN), ran.stderr
    for name, (_, _, message) in BROKEN.items():
        (line,) = [line for line in warnings if f"pass '{name}'" in line]
        assert line.startswith("warning: ")
        assert message in line
    assert {entry["name"] for entry in json.loads(packages.rewrite("passes", "--json").stdout)} == {
        "bn", "clip", "deform-conv", "good", "ln", "mask", "mhsa", "qkv", "relu-sigmoid",
    }  # fmt: skip
    ran = packages.rewrite("inspect", MODEL, "--json")
    assert set(json.loads(ran.stdout)["sites"]) == {
        "bn", "clip", "deform-conv", "good", "ln", "mask", "mhsa", "qkv", "relu-sigmoid",
    }  # fmt: skip
    ran = packages.rewrite(MODEL, "--passes", "raises", "-o", tmp_path / "o.onnx")
    assert ran.returncode == 2
    assert "pass 'raises' of raises-package 1.5" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_clash_names_both_packages_and_a_way_out(packages: Packages, tmp_path: Path) -> None:
    packages.add("one-package", GOOD.format(name="same"), same="Good")
    packages.add("two-package", GOOD.format(name="same"), same="Good")
    packages.add("grabber", GOOD.format(name="clip"), clip="Good")
    ran = packages.rewrite("passes")
    assert ran.returncode == 0
    assert "LayerNormalization" in ran.stdout
    clashes = ran.stderr.splitlines()
    assert len(clashes) == 2
    assert all(word in clashes[1] for word in ("one-package 1.5", "two-package 1.5", "one-package/same"))
    ran = packages.rewrite(MODEL, "--passes", "same", "--dry-run")
    assert ran.returncode == 2
    assert "one-package 1.5 (one_package:Good) and two-package 1.5 (two_package:Good)" in ran.stderr
    assert packages.loaded == set()
    ran = packages.rewrite(MODEL, "--passes", "two_package/same:depth=3", "--dry-run", "--verify", "off")
    assert (ran.returncode, packages.loaded) == (0, {"two-package"}), ran.stderr
    # The built-in passes are still those of a run that names none.
    ran = packages.rewrite(MODEL, "-o", tmp_path / "o.onnx", "--report", tmp_path / "r.json", "--verify", "off")
    assert ran.returncode == 0, ran.stderr
    report = {entry["name"]: entry["applied"] for entry in json.loads((tmp_path / "r.json").read_text())["passes"]}
    assert report["clip"] > 0
    assert packages.loaded == {"two-package"}


def test_a_package_may_decorate_and_offer_the_same_pass(packages: Packages) -> None:
    source = GOOD.format(name="good").replace("@dataclass", "import onnx_rewrite as rw\n@rw.register\n@dataclass")
    packages.add("good-one", source, good="Good")
    function = (
        "import onnx_rewrite as rw\n@rw.graphsurgeon_pass('strip')\ndef strip(graph, *, depth: int = 1):\n  'Strips.'"
    )
    packages.add("gs-one", function, strip="strip")
    ran = packages.rewrite("passes")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Strips." in ran.stdout
    assert "an integer, default 1" in packages.rewrite("passes", "strip").stdout


def test_a_declared_pass_may_not_take_an_installed_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_declared", {})

    class Ln(rw.Pass):
        name = "ln"

    with pytest.raises(rw.UsageError, match=r"onnx-rewrite \d.*and .*Ln"):
        rw.register(Ln)

    class Spaced(rw.Pass):
        name = "a,b"

    with pytest.raises(rw.UsageError, match="no name for a pass"):
        rw.register(Spaced)


def test_options_are_shown(packages: Packages) -> None:
    packages.add("good-one", GOOD.format(name="good"), good="Good")
    shown = packages.rewrite("passes", "good").stdout
    for text in (
        "good-one 1.5",
        "form  one of core, function, default core",
        "depth  an integer or none, default none",
        "--passes good:form=core",
    ):
        assert text in shown
    ran = packages.rewrite(MODEL, "--passes", "good:form=cor", "--dry-run")
    assert ran.returncode == 2
    assert "one of core, function, not 'cor'" in ran.stderr
    assert "did you mean core?" in ran.stderr
