"""What `pip install` gives: the wheel holds what the repository holds, and works from another folder.

Everything is built with the setuptools that is installed, in a copy of the repository, without network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import onnx_rewrite

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"core": "onnx_rewrite", "passes": "onnx_rewrite/passes", "plugins": "onnx_rewrite/plugins"}
OTHERS = ("pyproject.toml", "setup.py", "README.md", "LICENSE")


def in_repository() -> set[str]:
    """The files of the packages, named as the wheel should name them."""
    return {
        f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, package in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def python(*args: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs this interpreter, with `path` first in where it imports from."""
    env = {**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "120"}
    if path is not None:
        env["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *args], cwd=cwd, env=env, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution, so that what that one lacks is noticed too."""
    pytest.importorskip("setuptools", minversion="77")
    scratch = tmp_path_factory.mktemp("build")
    source = scratch / "source"
    source.mkdir()
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in OTHERS:
        shutil.copy(ROOT / name, source / name)
    python("-c", "from setuptools import build_meta; build_meta.build_sdist('..')", cwd=source)
    (archive,) = scratch.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(scratch / "unpacked", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (unpacked,) = (scratch / "unpacked").iterdir()
    python("-c", f"from setuptools import build_meta; build_meta.build_wheel({str(scratch)!r})", cwd=unpacked)
    (built,) = scratch.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to import the wheel's content from."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_wheel_holds_what_the_repository_holds(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == in_repository()
    assert "onnx_rewrite/demo/hybrid.onnx" in held
    assert "onnx_rewrite/py.typed" in held


def test_wheel_declares_the_program_and_the_passes(installed: Path) -> None:
    (info,) = installed.glob("*.dist-info")
    points = (info / "entry_points.txt").read_text(encoding="utf-8")
    assert "rewrite = onnx_rewrite.cli:main" in points
    for name in ("bn", "clip", "ln"):
        assert f"\n{name} = onnx_rewrite.passes.{name}:" in points
    assert (info / "licenses" / "LICENSE").is_file()
    assert f"\nVersion: {onnx_rewrite.__version__}\n" in (info / "METADATA").read_text(encoding="utf-8")


def test_installed_help(installed: Path, tmp_path: Path) -> None:
    done = python("-m", "onnx_rewrite", "--help", cwd=tmp_path, path=installed)
    assert done.stdout.startswith("Rewrites an ONNX model")
    where = python("-c", "import onnx_rewrite; print(onnx_rewrite.__file__)", cwd=tmp_path, path=installed)
    assert Path(where.stdout.strip()).is_relative_to(installed)


def test_installed_demo(installed: Path, tmp_path: Path) -> None:
    done = python("-m", "onnx_rewrite", "demo", "--dir", "here", cwd=tmp_path, path=installed)
    assert "equivalent" in done.stdout
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["hybrid.onnx", "hybrid.rewritten.onnx"]
