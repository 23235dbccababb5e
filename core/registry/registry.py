"""Finds passes by name: those declared in this process, and entry points, loaded when they are asked for."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from onnx_rewrite.errors import OnnxRewriteError, UsageError
from onnx_rewrite.registry.options import OptionInfo, make, options_of, parse_list

GROUP = "onnx_rewrite.passes"
"""Entry points of this group are passes: a name, and a class or a function without parameters that makes one."""

PassClass = TypeVar("PassClass", bound=type)

_declared: dict[str, Any] = {}


@dataclass(frozen=True)
class PassDescription:
    """What is known of a pass without running it.

    Attributes:
        name: What `--passes` calls it.
        summary: One line.
        needs_opset: Lowest opset that its replacements can be written in; lower models are raised.
        options: Its options.
        doc: The whole docstring.
        origin: The module or distribution that it comes from.
    """

    name: str
    summary: str
    needs_opset: int
    options: tuple[OptionInfo, ...]
    doc: str
    origin: str


def register(cls: PassClass) -> PassClass:
    """Class decorator: makes a pass known under its `name`, in this process.

    Raises:
        UsageError: It has no name, or another pass has it already.
    """
    name = getattr(cls, "name", "")
    if not isinstance(name, str) or not name:
        raise UsageError(f"{cls.__qualname__} has no name", hint='give it a class attribute: name = "my-pass"')
    other = _declared.get(name)
    if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
        raise UsageError(f"two passes are called '{name}': {_origin(other)} and {_origin(cls)}")
    if name in _entry_points():
        raise UsageError(f"'{name}' is the name of a pass of {_entry_points()[name].value} already")
    _declared[name] = cls
    return cls


def names() -> list[str]:
    """Names of all passes, in alphabetical order; loads none of them."""
    return sorted({*_declared, *_entry_points()})


def load_class(name: str) -> Any:
    """The class of a pass.

    Raises:
        UsageError: There is no such pass (with the nearest names), or its package fails to import.
    """
    if name in _declared:
        return _declared[name]
    found = _entry_points().get(name)
    if found is None:
        near = difflib.get_close_matches(name, names(), n=3, cutoff=0.4)
        raise UsageError(
            f"there is no pass '{name}'",
            hint=f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names())}",
        )
    try:
        return found.load()
    except OnnxRewriteError:
        raise
    except Exception as error:  # a broken plugin must not look like an error of ours
        raise UsageError(
            f"pass '{name}' cannot be loaded from {found.value}: {type(error).__name__}: {error}"
        ) from error


def describe(name: str) -> PassDescription:
    """All about one pass.

    Raises:
        UsageError: As `load_class`.
    """
    cls = load_class(name)
    doc = inspect.getdoc(cls) or ""
    rules = cls().rules() if not options_required(cls) else ()
    return PassDescription(
        name=name,
        summary=doc.splitlines()[0] if doc else "",
        needs_opset=max((rule.needs_opset for rule in rules), default=getattr(cls, "needs_opset", 1)),
        options=tuple(options_of(cls)),
        doc=doc,
        origin=_origin(cls),
    )


def options_required(cls: Any) -> bool:
    """Whether a pass cannot be made without an option."""
    return any(o.default is None for o in options_of(cls))


def resolve(wanted: str | Any | Iterable[str | Any]) -> list[Any]:
    """Instances of the passes that somebody asked for.

    Args:
        wanted: "ln,clip", "mhsa:form=core", a pass, a pass class, or several of these.

    Raises:
        UsageError: A pass or an option is unknown, or a pass is named twice.
    """
    items: Sequence[Any] = [wanted] if isinstance(wanted, str) or hasattr(wanted, "rules") else list(wanted)
    found: list[Any] = []
    for item in items:
        if isinstance(item, str):
            found += [make(load_class(name), name, options) for name, options in parse_list(item)]
        elif isinstance(item, type) and hasattr(item, "rules"):
            found.append(item())
        elif hasattr(item, "rules") and hasattr(item, "name"):
            found.append(item)
        else:
            raise UsageError(f"{item!r} is no pass", hint="a pass is a name, or an instance of a subclass of Pass")
    seen: set[str] = set()
    for one in found:
        if one.name in seen:
            raise UsageError(f"pass '{one.name}' is named twice")
        seen.add(one.name)
    return found


def _entry_points() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        other = found.get(point.name)
        if other is not None and other.value != point.value:
            raise UsageError(f"two installed packages have a pass '{point.name}': {other.value} and {point.value}")
        found[point.name] = point
    return found


def _origin(cls: Callable[..., Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
