"""The passes of `--passes "mhsa:form=function,clip"`: names and options as text."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from dataclasses import dataclass
from typing import Any

from onnx_rewrite.errors import OnnxRewriteError, UsageError
from onnx_rewrite.registry.kinds import BadText, kind_of, show


@dataclass(frozen=True)
class OptionInfo:
    """One option of a pass, as `rewrite passes` shows it.

    Attributes:
        name: The field.
        type: What its values are, in words.
        default: The value without the option, as it is written on the command line; None where it is required.
        help: The entry "help" of the field's metadata.
        required: Whether the pass cannot be made without it.
    """

    name: str
    type: str
    default: str | None
    help: str
    required: bool = False


def parse_list(text: str) -> list[tuple[str, dict[str, str]]]:
    """Splits "a:x=1:y=2,b" into names and options.

    Raises:
        UsageError: An option is not of the form key=value or given twice, or the list is empty.
    """
    found: list[tuple[str, dict[str, str]]] = []
    for item in (part.strip() for part in text.split(",")):
        if not item:
            continue
        name, *options = item.split(":")
        pairs: dict[str, str] = {}
        for option in options:
            key, equals, value = (part.strip() for part in option.partition("="))
            if not equals or not key:
                raise UsageError(f"'{option}' in '{item}' is not of the form option=value")
            if key in pairs:
                raise UsageError(f"'{item}' gives the option '{key}' twice")
            pairs[key] = value
        found.append((name.strip(), pairs))
    if not found:
        raise UsageError("the list of passes is empty", hint="rewrite passes lists them all")
    return found


def options_of(cls: Any) -> list[OptionInfo]:
    """The options of a pass: the fields of its dataclass.

    Raises:
        UsageError: The types of the fields cannot be read.
    """
    hints = _hints(cls)
    found: list[OptionInfo] = []
    for field in _fields(cls):
        default: Any = field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        required = default is dataclasses.MISSING
        kind = kind_of(hints[field.name])
        words = f"{_type_text(hints[field.name])}, in Python only" if kind is None else kind.words
        text = None if required else show(default)
        found.append(OptionInfo(field.name, words, text, str(field.metadata.get("help", "")), required))
    return found


def make(cls: Any, name: str, options: dict[str, str]) -> Any:
    """An instance of the pass with its options converted to the types of their fields.

    Raises:
        UsageError: An option is unknown or missing, its text does not fit the type, or the pass refuses it.
    """
    known = {field.name: field for field in _fields(cls)}
    hints = _hints(cls)
    values: dict[str, Any] = {}
    for key, text in options.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=2, cutoff=0.5)
            meant = f"did you mean {' or '.join(near)}? " if near else ""
            raise UsageError(
                f"pass '{name}' has no option '{key}'",
                hint=f"{meant}its options: {', '.join(known)}" if known else "it has none",
            )
        values[key] = _converted(name, key, text, hints[key])
    missing = [info.name for info in options_of(cls) if info.required and info.name not in values]
    if missing:
        raise UsageError(
            f"pass '{name}' needs the option '{missing[0]}'", hint=f"for example --passes {name}:{missing[0]}=VALUE"
        )
    try:
        return cls(**values)
    except OnnxRewriteError:
        raise
    except Exception as error:  # a pass may check its options itself
        raise UsageError(f"pass '{name}' cannot be made: {type(error).__name__}: {error}") from error


def _fields(cls: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(cls) if field.init] if dataclasses.is_dataclass(cls) else []


def _hints(cls: Any) -> dict[str, Any]:
    if not _fields(cls):
        return {}
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except Exception as error:  # a type that is imported for type checkers only, for example
        where = f"pass '{getattr(cls, 'name', '')}' ({cls.__module__}.{cls.__qualname__})"
        raise UsageError(f"{where} has options of types that cannot be read: {error}") from error


def _type_text(annotation: Any) -> str:
    return getattr(annotation, "__name__", str(annotation))


def _converted(name: str, key: str, text: str, annotation: Any) -> Any:
    kind = kind_of(annotation)
    if kind is None:
        raise UsageError(f"option {key} of pass '{name}' can only be given in Python: it is a {_type_text(annotation)}")
    try:
        return kind.parse(text)
    except BadText as error:
        raise UsageError(f"option {key} of pass '{name}' is {kind.words}, not '{text}'", hint=error.hint) from error
