"""Engines that were built before, found again by what they were built from."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from onnx_rewrite.engines.protocol import Model, Profile

FORMAT = 2
"""Counts changes of how engines are built, and of what is noted of them."""

LIMIT = 8 << 30
"""Bytes that are kept; beyond them what was used longest ago goes."""


def folder() -> Path:
    """ONNX_REWRITE_CACHE, or a folder where caches belong."""
    own = os.environ.get("ONNX_REWRITE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or str(Path.home() / ".cache")
    return Path(own) / "engines" if own else Path(base) / "onnx-rewrite" / "engines"


def key(model: Model, options: Mapping[str, object], profiles: Mapping[str, Profile], *where: str) -> str:
    """A hash of the model with its external data, the options, plugins included, and what it is built with and for."""
    found = hashlib.sha256(model.proto.SerializeToString(deterministic=True))
    for name in sorted({_location(tensor) for tensor in _external(model.proto)}):
        _add_file(found, (model.folder or Path()) / name)
    for library in options.get("plugins") or ():  # pyright: ignore[reportGeneralTypeIssues]
        _add_file(found, Path(str(library)))
    shapes = {name: [one.min, one.opt, one.max] for name, one in sorted(profiles.items())}
    found.update(json.dumps([FORMAT, dict(options), shapes, where], default=str, sort_keys=True).encode())
    return found.hexdigest()


def read(name: str) -> tuple[bytes, dict[str, Any]] | None:
    """An engine and what was noted of it, or None."""
    path = folder() / f"{name}.engine"
    try:
        notes = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        data = path.read_bytes()
        os.utime(path)
    except (OSError, ValueError):
        return None
    return (data, notes) if notes.get("sha256") == hashlib.sha256(data).hexdigest() else None


def write(name: str, data: bytes, notes: Mapping[str, Any]) -> None:
    """Keeps an engine; a folder that cannot be written to keeps nothing."""
    path = folder() / f"{name}.engine"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        noted = {**notes, "sha256": hashlib.sha256(data).hexdigest()}
        for target, content in ((path, data), (path.with_suffix(".json"), json.dumps(noted).encode())):
            handle, temporary = tempfile.mkstemp(dir=path.parent)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(temporary, target)
        _prune(path.parent)
    except OSError:
        return


def knows(*where: str) -> bool:
    """Whether it was noted that a library works on a GPU."""
    return _note(where).is_file()


def note(*where: str) -> None:
    """Notes that a library works on a GPU; a folder that cannot be written to keeps nothing."""
    try:
        folder().mkdir(parents=True, exist_ok=True)
        _note(where).touch()
    except OSError:
        return


def _note(where: Sequence[str]) -> Path:
    return folder() / f"{hashlib.sha256(json.dumps([FORMAT, *where]).encode()).hexdigest()}.works"


def _prune(where: Path) -> None:
    engines = sorted(where.glob("*.engine"), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for path in engines:
        total += path.stat().st_size
        if total > LIMIT:
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)


def _external(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    found = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    for node in model.graph.node:
        found += [a.t for a in node.attribute if a.HasField("t") and a.t.data_location == onnx.TensorProto.EXTERNAL]
    return found


def _location(tensor: onnx.TensorProto) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _add_file(found: Any, path: Path) -> None:
    with path.open("rb") as file:
        while chunk := file.read(1 << 24):
            found.update(chunk)
