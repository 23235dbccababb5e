"""The passes of `--passes "mhsa:form=function,clip"`: names and options as text."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any

from onnx_rewrite.errors import UsageError


@dataclass(frozen=True)
class OptionInfo:
    """One option of a pass, as `rewrite passes` shows it."""

    name: str
    type: str
    default: Any
    help: str


def parse_list(text: str) -> list[tuple[str, dict[str, str]]]:
    """Splits "a:x=1:y=2,b" into names and options.

    Raises:
        UsageError: An option is not of the form key=value, or the list is empty.
    """
    found: list[tuple[str, dict[str, str]]] = []
    for item in (part.strip() for part in text.split(",")):
        if not item:
            continue
        name, *options = item.split(":")
        pairs: dict[str, str] = {}
        for option in options:
            key, equals, value = option.partition("=")
            if not equals or not key:
                raise UsageError(f"'{option}' in '{item}' is not of the form option=value")
            pairs[key.strip()] = value.strip()
        found.append((name.strip(), pairs))
    if not found:
        raise UsageError("the list of passes is empty", hint="rewrite passes lists them all")
    return found


def options_of(cls: type) -> list[OptionInfo]:
    """The options of a pass: the fields of its dataclass."""
    if not dataclasses.is_dataclass(cls):
        return []
    hints = typing.get_type_hints(cls)
    return [
        OptionInfo(
            f.name,
            getattr(hints[f.name], "__name__", str(hints[f.name])),
            None if f.default is dataclasses.MISSING else f.default,
            str(f.metadata.get("help", "")),
        )
        for f in dataclasses.fields(cls)
    ]


def make(cls: type, name: str, options: dict[str, str]) -> Any:
    """An instance of the pass with its options converted to the types of their fields.

    Raises:
        UsageError: An option is unknown, or its text does not fit the type.
    """
    known = {o.name: o for o in options_of(cls)}
    hints = typing.get_type_hints(cls) if known else {}
    values: dict[str, Any] = {}
    for key, text in options.items():
        if key not in known:
            raise UsageError(
                f"pass '{name}' has no option '{key}'",
                hint=f"its options: {', '.join(known)}" if known else "it has none",
            )
        values[key] = _converted(name, key, text, hints[key])
    return cls(**values)


def _converted(name: str, key: str, text: str, kind: Any) -> Any:
    choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
    if choices:
        if text not in choices:
            raise UsageError(f"option {key} of pass '{name}' is one of {', '.join(map(str, choices))}, not '{text}'")
        return text
    if kind is bool:
        if text.lower() not in ("true", "false", "yes", "no", "1", "0"):
            raise UsageError(f"option {key} of pass '{name}' is true or false, not '{text}'")
        return text.lower() in ("true", "yes", "1")
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError as error:
            raise UsageError(f"option {key} of pass '{name}' is a number, not '{text}'") from error
    return text
