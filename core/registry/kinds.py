"""The types that an option of a pass may have: how each is written on the command line, read and described."""

from __future__ import annotations

import difflib
import enum
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

JOINT = "+"
"""Stands between the items of a tuple: commas and colons separate passes and options."""

NONE = "none"
"""How None is written."""


class BadText(Exception):
    """A text does not fit an option; `hint` names what is nearest to it, or is None."""

    def __init__(self, hint: str | None = None) -> None:
        super().__init__(hint)
        self.hint = hint


class Kind(Protocol):
    """A type of options."""

    @property
    def words(self) -> str:
        """What a value is, in words that follow "is"."""
        ...

    def parse(self, text: str) -> Any:
        """The value that a text stands for; raises BadText."""
        ...


@dataclass(frozen=True)
class _Number:
    type: type[int] | type[float]

    @property
    def words(self) -> str:
        return "an integer" if self.type is int else "a number"

    def parse(self, text: str) -> Any:
        try:
            return self.type(text)
        except ValueError as error:
            raise BadText from error


@dataclass(frozen=True)
class _Text:
    words: str = "text"

    def parse(self, text: str) -> str:
        return text


@dataclass(frozen=True)
class _Choice:
    """One of a few values; `known` has every spelling, `shown` those that messages list."""

    known: Mapping[str, Any]
    shown: Sequence[str]

    @property
    def words(self) -> str:
        return self.shown[0] if len(self.shown) == 1 else f"one of {', '.join(self.shown)}"

    def parse(self, text: str) -> Any:
        found = self.known.get(text, self.known.get(text.lower(), _MISSING))
        if found is _MISSING:
            near = difflib.get_close_matches(text, self.shown, n=2, cutoff=0.5)
            raise BadText(f"did you mean {' or '.join(near)}?" if near else None)
        return found


@dataclass(frozen=True)
class _Bool(_Choice):
    @property
    def words(self) -> str:
        return "true or false"


@dataclass(frozen=True)
class _Union:
    """The first of several types that a text fits."""

    kinds: Sequence[Kind]

    @property
    def words(self) -> str:
        return " or ".join(kind.words for kind in self.kinds)

    def parse(self, text: str) -> Any:
        hint: str | None = None
        for kind in self.kinds:
            try:
                return kind.parse(text)
            except BadText as error:
                hint = hint or error.hint
        raise BadText(hint)


@dataclass(frozen=True)
class _Items:
    """A tuple; `count` is the number of its items, or None where any number will do."""

    kinds: Sequence[Kind]
    count: int | None

    @property
    def words(self) -> str:
        if self.count is None:
            return f"a list joined by {JOINT}, each {self.kinds[0].words}"
        return f"{self.count} values joined by {JOINT} ({'; '.join(kind.words for kind in self.kinds)})"

    def parse(self, text: str) -> tuple[Any, ...]:
        parts = text.split(JOINT) if text else []
        if self.count is None:
            return tuple(self.kinds[0].parse(part.strip()) for part in parts)
        if len(parts) != self.count:
            raise BadText(f"it has {len(parts)} values")
        return tuple(kind.parse(part.strip()) for kind, part in zip(self.kinds, parts, strict=True))


_MISSING: Any = object()
_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def kind_of(annotation: Any) -> Kind | None:
    """How values of a type are written: bool, int, float, str, Literal, Enum, tuples and unions of these, or None.

    Returns:
        None for any other type: such an option can only be given in Python.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return kind_of(args[0])
    if origin is typing.Literal:
        known = {show(value): value for value in args}
        return _Choice(known, tuple(known))
    if origin in (typing.Union, types.UnionType):
        # The text "none" is None, also where any other text would do; text takes whatever nothing else takes.
        ordered = sorted(args, key=lambda arg: (arg is str) - (arg is type(None)))
        kinds = [kind_of(arg) for arg in ordered]
        kinds = [*kinds[1:], kinds[0]] if type(None) in args and str not in args else kinds
        return None if None in kinds else _Union([kind for kind in kinds if kind is not None])
    if origin is tuple:
        endless = len(args) == 2 and args[1] is Ellipsis
        items = [kind_of(arg) for arg in (args[:1] if endless else args)]
        return None if None in items else _Items([i for i in items if i is not None], None if endless else len(items))
    return _simple(annotation)


def _simple(annotation: Any) -> Kind | None:
    if annotation is type(None):
        return _Choice({NONE: None}, (NONE,))
    if annotation is bool:
        return _Bool(_TRUTHS, ("true", "false"))
    if annotation in (int, float):
        return _Number(annotation)
    if annotation is str:
        return _Text()
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        members = list(annotation)
        shown = [show(member) for member in members]
        return _Choice({**{m.name: m for m in members}, **dict(zip(shown, members, strict=True))}, shown)
    return None


def show(value: Any) -> str:
    """A value as one writes it on the command line."""
    if isinstance(value, enum.Enum):
        return value.value if isinstance(value.value, str) else value.name
    if value is None:
        return NONE
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        items: Sequence[Any] = value  # pyright: ignore[reportUnknownVariableType]
        return JOINT.join(show(item) for item in items)
    return str(value)
