"""Plugins for TensorRT that ship with this package: what there is, building them, and finding what was built."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_rewrite.engines import cache
from onnx_rewrite.errors import OnnxRewriteError, UsageError

ARCHITECTURES = ("75", "80", "86", "89", "90a", "100", "120")
"""What a library is built for on a machine without a GPU: the compute capabilities of Turing to Blackwell."""

_HEADER = "NvInferRuntime.h"
_PLACES = (
    "/usr/include",
    "/usr/include/x86_64-linux-gnu",
    "/usr/include/aarch64-linux-gnu",
    "/usr/local/tensorrt/include",
)


@dataclass(frozen=True)
class Plugin:
    """A folder with the source of a plugin.

    Attributes:
        name: What the folder, and `rewrite plugins build`, calls it.
        op: The operator's name, which is the plugin's.
        domain: The operator's domain, which is the plugin's namespace.
        summary: One line.
        folder: Where the sources are.
        sources: The files to compile.
        runtime: Its description in Python, "MODULE:CLASS", where it can be compiled at run time instead.
    """

    name: str
    op: str
    domain: str
    summary: str
    folder: Path
    sources: tuple[Path, ...]
    runtime: str | None = None


class PluginError(OnnxRewriteError):
    """A plugin that could not be built."""


def plugins() -> list[Plugin]:
    """All plugins of this package, by name."""
    root = Path(__file__).resolve().parent.parent / "plugins"
    if not root.is_dir():  # in the repository the packages lie side by side
        root = Path(__file__).resolve().parent.parent.parent / "plugins"
    found: list[Plugin] = []
    for description in sorted(root.glob("*/plugin.json")):
        told: dict[str, Any] = json.loads(description.read_text(encoding="utf-8"))
        folder = description.parent
        sources = tuple(folder / name for name in told["sources"])
        found.append(
            Plugin(folder.name, told["op"], told["domain"], told["summary"], folder, sources, told.get("runtime"))
        )
    return found


def named(names: Sequence[str]) -> list[Plugin]:
    """The plugins of these names; all, if there are none.

    Raises:
        UsageError: There is no such plugin.
    """
    known = {plugin.name: plugin for plugin in plugins()}
    for name in names:
        if name not in known:
            raise UsageError(f"there is no plugin '{name}'", hint=f"one of: {', '.join(known)}")
    return [known[name] for name in names] if names else list(known.values())


def library(plugin: Plugin, major: int) -> Path:
    """Where the library of a plugin lies for a major version of TensorRT, once it is built."""
    return folder() / f"libonnx_rewrite_{plugin.name}.trt{major}.{digest(plugin)}.so"


def folder() -> Path:
    """ONNX_REWRITE_PLUGINS, or a folder beside the kept engines."""
    own = os.environ.get("ONNX_REWRITE_PLUGINS")
    return Path(own) if own else cache.folder().parent / "plugins"


def used(model: Any) -> list[Plugin]:
    """The plugins whose operators a model has, a ModelProto."""
    return [plugin for plugin in plugins() if any(_uses(graph, plugin) for graph in (model.graph, *model.functions))]


def needed(model: Any, major: int) -> tuple[str, ...]:
    """Libraries that were built for operators of a model.

    Args:
        model: A ModelProto.
        major: Of TensorRT.
    """
    found = (library(plugin, major) for plugin in used(model))
    return tuple(str(path) for path in found if path.is_file())


def version_of(headers: Path) -> tuple[int, int, int]:
    """The version of TensorRT that a folder of headers belongs to.

    Raises:
        UsageError: It has no headers.
    """
    try:
        text = (headers / "NvInferVersion.h").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"{headers} has no NvInferVersion.h", hint=_ADVICE) from error
    # 8 to 10 give the numbers by these names, 11 by others.
    numbers = [re.search(rf"define (?:NV_TENSORRT|TRT)_{part}(?:_ENTERPRISE)? (\d+)", text) for part in _PARTS]
    if not (headers / _HEADER).is_file() or not all(numbers):
        raise UsageError(f"{headers} has no headers of TensorRT", hint=_ADVICE)
    major, minor, patch = (int(number[1]) for number in numbers if number is not None)
    return major, minor, patch


_PARTS = ("MAJOR", "MINOR", "PATCH")
_ADVICE = (
    "give the folder with NvInferRuntime.h as --tensorrt-include DIR or TENSORRT_INCLUDE_DIR; the headers of every "
    "release are in include/ of github.com/NVIDIA/TensorRT, at the release's tag"
)


def headers(given: str | None) -> Path:
    """The folder of TensorRT's headers: the one given, TENSORRT_INCLUDE_DIR, or where packages install them.

    Raises:
        UsageError: There is none.
    """
    wanted = given or os.environ.get("TENSORRT_INCLUDE_DIR")
    if wanted:
        version_of(Path(wanted))
        return Path(wanted).resolve()
    for place in map(Path, _PLACES):
        if (place / _HEADER).is_file():
            return place
    raise UsageError("the headers of TensorRT were not found", hint=_ADVICE)


def compiler() -> str:
    """The path of nvcc.

    Raises:
        UsageError: There is none.
    """
    homes = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    for candidate in (
        shutil.which("nvcc"),
        *(f"{home}/bin/nvcc" for home in homes if home),
        "/usr/local/cuda/bin/nvcc",
    ):
        if candidate and Path(candidate).is_file():
            return candidate
    raise UsageError("nvcc was not found", hint="install the CUDA toolkit, or set CUDA_HOME")


def build(plugin: Plugin, include: Path, architectures: Sequence[str] = (), output: Path | None = None) -> Path:
    """Compiles a plugin; a whole library appears, or none.

    Args:
        plugin: Which.
        include: The folder of TensorRT's headers; its version is the one that the library is for.
        architectures: Compute capabilities without the dot, such as "90a"; none: the GPU of this machine, or all of
            `ARCHITECTURES`.
        output: The folder for the library; None: where it is found by itself.

    Returns:
        The library.

    Raises:
        UsageError: There is no compiler, or an architecture is none.
        PluginError: The compiler fails; with what it said.
    """
    nvcc, major = compiler(), version_of(include)[0]
    wanted = [_full(one.removeprefix("sm_")) for one in architectures] or here() or list(ARCHITECTURES)
    for one in wanted:
        if not re.fullmatch(r"\d{2,3}[af]?", one):
            raise UsageError(f"'{one}' is no architecture", hint="such as sm_80 or sm_90a")
    target = library(plugin, major) if output is None else output / f"libonnx_rewrite_{plugin.name}.so"
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [nvcc, "-std=c++17", "-O3", "--threads", "0", "-shared", "-Xcompiler", "-fPIC"]
    command += ["-Xcompiler", "-Wno-deprecated-declarations", "-isystem", str(include)]
    command += [f"-gencode=arch=compute_{one},code=sm_{one}" for one in wanted]
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = Path(scratch) / target.name
        done = subprocess.run(
            [*command, *map(str, plugin.sources), "-o", str(made)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0:
            said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-12:])
            raise PluginError(f"nvcc cannot build {plugin.name}:\n{said}", hint=f"with {nvcc}, for {', '.join(wanted)}")
        os.replace(made, target)
    return target


def here() -> list[str]:
    """The architecture of this machine's GPUs, as nvcc calls it; nothing where there is none."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    found = sorted({line.strip().replace(".", "") for line in done.stdout.splitlines() if line.strip()})
    return [_full(one) for one in found if one.isdecimal()]


def _full(architecture: str) -> str:
    """Hopper with the instructions that only it has: the kernels without them take two and a half times as long."""
    return "90a" if architecture == "90" else architecture


def digest(plugin: Plugin) -> str:
    """Of all files that a library is made of: one of another version is not taken for it."""
    found = hashlib.sha256()
    for path in sorted([*plugin.folder.iterdir(), *(plugin.folder.parent / "common").iterdir()]):
        if path.suffix in (".cu", ".cuh", ".cpp", ".h"):
            found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:12]


def _uses(graph: Any, plugin: Plugin) -> bool:
    """Whether a graph or function, or one inside it, has a node of the plugin's operator."""
    for node in graph.node:
        if node.op_type == plugin.op and node.domain in (plugin.domain, ""):
            return True
        for attribute in node.attribute:
            inner = [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
            if any(_uses(each, plugin) for each in inner):
                return True
    return False
