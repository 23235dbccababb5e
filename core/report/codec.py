"""Dataclasses to JSON values and back, for the few types that a report is made of."""

from __future__ import annotations

import math
import types
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode(value: Any) -> Any:
    """`value` with dataclasses as dicts, tuples as lists, and floats that JSON lacks as strings.

    Numbers of other libraries (numpy's scalars) become Python's by way of `item()`.

    Raises:
        TypeError: A value of a type that JSON has nothing for.
    """
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if is_dataclass(value):
        return {f.name: encode(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {str(k): encode(v) for k, v in cast("dict[Any, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in cast("list[Any]", value)]
    if hasattr(value, "item"):
        return encode(value.item())
    raise TypeError(f"a report cannot hold a {type(value).__name__}")


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def decode(cls: type[T], data: Any, where: str = "report") -> T:
    """An instance of the dataclass `cls` from what `encode` made of one.

    Args:
        cls: A dataclass whose fields are str, int, float, bool, literals, dataclasses, optionals, lists and dicts.
        data: The value to read. Unknown keys are ignored; missing ones take the field's default.
        where: Path of `data` for messages.

    Raises:
        ValueError: A value has the wrong type, or a key without default is missing.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{where} must be an object, not {_kind(data)}")
    items = cast("dict[str, Any]", data)
    hints = _hints(cls)
    known = {name: _value(hints[name], items[name], f"{where}.{name}") for name in hints if name in items}
    try:
        return cls(**known)
    except TypeError as error:
        raise ValueError(f"{where} lacks a key: {error}") from None


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _value(hint: Any, data: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if data is None:
            return None
        (hint,) = [option for option in get_args(hint) if option is not type(None)]
        return _value(hint, data, where)
    if origin is Literal:
        if data not in get_args(hint):
            raise ValueError(f"{where} must be one of {', '.join(map(repr, get_args(hint)))}, not {data!r}")
        return data
    if origin is list:
        if not isinstance(data, list):
            raise ValueError(f"{where} must be a list, not {_kind(data)}")
        (item,) = get_args(hint)
        return [_value(item, entry, f"{where}[{i}]") for i, entry in enumerate(cast("list[Any]", data))]
    if origin is dict:
        if not isinstance(data, dict):
            raise ValueError(f"{where} must be an object, not {_kind(data)}")
        _, item = get_args(hint)
        return {key: _value(item, entry, f"{where}.{key}") for key, entry in cast("dict[str, Any]", data).items()}
    if is_dataclass(hint):
        return decode(cast("type[Any]", hint), data, where)
    if hint is float:
        if isinstance(data, str) and data in _NOT_FINITE:
            return _NOT_FINITE[data]
        if isinstance(data, (int, float)) and not isinstance(data, bool):
            return float(data)
    elif isinstance(data, hint) and (hint is bool or not isinstance(data, bool)):
        return data
    raise ValueError(f"{where} must be of type {hint.__name__}, not {_kind(data)}")
