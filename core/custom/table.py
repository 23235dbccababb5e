"""Tables of adapters: JSON, or TOML from Python 3.11 on."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from onnx_rewrite.custom.operator import CustomOp
from onnx_rewrite.custom.spelling import Spelling
from onnx_rewrite.errors import UsageError

KEYS = ("op", "domain", "op_type", "inputs", "attributes", "present_if", "width_first", "standard")


def read_table(path: Path, ops: Mapping[str, CustomOp]) -> list[Spelling]:
    """The spellings of a file.

    Args:
        path: A .json or .toml file with a list "adapters".
        ops: Known operators by title.

    Raises:
        UsageError: It cannot be read, or says something that is not known; the entry and what would do are named.
    """
    entries = _content(path).get("adapters")
    if not isinstance(entries, list):
        raise UsageError(f"{path}: there is no list 'adapters'", hint="plugins/README.md shows one")
    return [_spelling(f"{path}: adapter {number}", entry, ops) for number, entry in enumerate(entries, 1)]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _content(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        if path.suffix.lower() == ".toml":
            try:
                import tomllib
            except ModuleNotFoundError:
                raise UsageError(
                    f"{path}: TOML needs Python 3.11", hint="the same table can be written as JSON"
                ) from None
            found: Any = tomllib.loads(text)
        else:
            found = json.loads(text)
    except ValueError as error:  # of both readers
        kind = "TOML" if path.suffix.lower() == ".toml" else "JSON"
        raise UsageError(f"{path}: is no {kind}: {error}", hint="plugins/README.md shows a table") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path}: is no table")
    return found  # pyright: ignore[reportUnknownVariableType]


def _spelling(where: str, entry: Any, ops: Mapping[str, CustomOp]) -> Spelling:
    if not isinstance(entry, dict):
        raise UsageError(f"{where} is no table")
    for key in entry:  # pyright: ignore[reportUnknownVariableType]
        if key not in KEYS:
            raise UsageError(f"{where} has '{key}', which is not known", hint=_near(str(key), KEYS))
    for key in ("op", "op_type", "inputs"):
        if key not in entry:
            raise UsageError(f"{where} has no '{key}'")
    title = str(entry["op"])
    op = ops.get(title)
    if op is None:
        raise UsageError(f"{where}: there is no operator '{title}'", hint=_near(title, ops))
    inputs = _texts(where, "inputs", entry["inputs"])
    known = (*op.inputs, *op.parameters)
    attributes = {
        str(name): _texts(where, f"attributes.{name}", value)
        for name, value in _mapping(where, "attributes", entry.get("attributes", {})).items()
    }
    present = {k: str(v) for k, v in _mapping(where, "present_if", entry.get("present_if", {})).items()}
    wide = _texts(where, "width_first", entry.get("width_first", []))
    switches = set(present.values())
    for name in (*inputs, *attributes, *present, *wide):
        if name.partition("[")[0] not in known and not (name in inputs and name in switches):
            raise UsageError(
                f"{where}: {title} has neither an input nor a parameter '{name}'", hint=f"it has {', '.join(known)}"
            )
    return Spelling(
        op,
        str(entry.get("domain", "")),
        str(entry["op_type"]),
        inputs,
        attributes,
        present,
        frozenset(wide),
        bool(entry.get("standard", False)),
    )


def _mapping(where: str, key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{where}: '{key}' is no table")
    return value  # pyright: ignore[reportUnknownVariableType]


def _texts(where: str, key: str, value: Any) -> tuple[str, ...]:
    """One name, or a list of names."""
    items: list[Any] = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(f"{where}: '{key}' is neither a name nor a list of names")
    return tuple(items)


def _near(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.4)
    return f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names)}"
