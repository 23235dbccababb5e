"""Finds passes by name: those declared in this process, and entry points, loaded when they are asked for."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any, TypeVar

from onnx_rewrite.errors import OnnxRewriteError, UsageError
from onnx_rewrite.registry.installed import of_package, offered, only_one, title_of
from onnx_rewrite.registry.options import OptionInfo, make, options_of, parse_list

PassClass = TypeVar("PassClass", bound=type)

PASS_ATTRIBUTE = "__onnx_rewrite_pass__"
"""Where a decorated function keeps the class of the pass that it became."""

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
        origin: The class or function that it is.
        package: The installed package that offers it, with its version; "" for one declared in this process.
    """

    name: str
    summary: str
    needs_opset: int
    options: tuple[OptionInfo, ...]
    doc: str
    origin: str
    package: str = ""


def register(cls: PassClass) -> PassClass:
    """Class decorator: makes a pass known under its `name`, in this process.

    Raises:
        UsageError: It has no name, one that cannot be written in a list of passes, or one that another pass has.
    """
    name = getattr(cls, "name", "")
    if not isinstance(name, str) or not name:
        raise UsageError(f"{cls.__qualname__} has no name", hint='give it a class attribute: name = "my-pass"')
    if any(sign in name for sign in ",:=/[] "):
        raise UsageError(f"'{name}' is no name for a pass", hint="letters, digits, dots, hyphens and underscores")
    other = _declared.get(name)
    if other is not None and _origin(other) != _origin(cls):
        raise UsageError(f"two passes are called '{name}': {_origin(other)} and {_origin(cls)}")
    for point in offered().get(name, ()):
        if _top(point.value) != _top(cls.__module__):
            raise UsageError(
                f"two passes are called '{name}': {point.value} of {title_of(point)} and {_origin(cls)}",
                hint="give yours another name",
            )
    _declared[name] = cls
    return cls


def names() -> list[str]:
    """Names of all passes, in alphabetical order; loads none of them."""
    return sorted({*_declared, *offered()})


def load_class(name: str) -> Any:
    """The class of a pass, or the function without parameters that makes one.

    Args:
        name: Its name; "PACKAGE/NAME" where several packages have one of that name.

    Raises:
        UsageError: There is no such pass (with the nearest names), several packages have one, or it cannot be loaded.
    """
    if name in _declared:
        return _declared[name]
    point = _entry_point(name)
    where = f"pass '{name}' of {title_of(point)}"
    try:
        found = point.load()
    except OnnxRewriteError as error:
        raise UsageError(f"{where} cannot be loaded: {error}", hint=error.hint) from error
    except (Exception, SystemExit) as error:  # a broken plugin must not look like an error of ours
        raise UsageError(f"{where} cannot be loaded from {point.value}: {type(error).__name__}: {error}") from error
    found = getattr(found, PASS_ATTRIBUTE, found)
    is_class = isinstance(found, type)
    if not callable(found) or (is_class and not callable(getattr(found, "rules", None))):
        kind = f"class {found.__qualname__}" if is_class else type(found).__name__
        raise UsageError(
            f"{where} is none: {point.value} is a {kind}", hint="a pass is a subclass of onnx_rewrite.Pass or RuleSet"
        )
    if is_class:
        _check_name(found.name, point.name, where)
    return found


def describe(name: str) -> PassDescription:
    """All about one pass.

    Raises:
        UsageError: As `load_class`; or the pass cannot be made.
    """
    cls = load_class(name)
    options = tuple(options_of(cls))
    needed: Any = getattr(cls, "needs_opset", 1)
    if not any(option.required for option in options):
        needed = _needed(make_one(cls, name, {}), name, needed)
    doc = inspect.getdoc(cls) or ""
    points = [] if name in _declared else [_entry_point(name)]
    return PassDescription(
        name=name.rpartition("/")[2],
        summary=doc.splitlines()[0] if doc else "",
        needs_opset=needed,
        options=options,
        doc=doc,
        origin=_origin(cls),
        package="".join(map(title_of, points)),
    )


def _needed(made: Any, name: str, default: int) -> int:
    try:
        return max((rule.needs_opset for rule in made.rules()), default=default)
    except OnnxRewriteError:
        raise
    except Exception as error:
        raise UsageError(f"pass '{name}' cannot list its rules: {type(error).__name__}: {error}") from error


def make_one(cls: Any, name: str, options: dict[str, str]) -> Any:
    """An instance of a pass.

    Raises:
        UsageError: An option does not fit, or what is made is no pass of this name.
    """
    found = make(cls, name, options)
    if not _is_pass(found):
        raise UsageError(f"pass '{name}' is none: {_origin(cls)} makes a {type(found).__name__}")
    _check_name(found.name, name.rpartition("/")[2], f"pass '{name}'")
    return found


def usable() -> list[Any]:
    """An instance of every pass that can be made without options; those that cannot be loaded are left out."""
    found: list[Any] = []
    for name in names():
        try:
            found.append(make_one(load_class(name), name, {}))
        except OnnxRewriteError:  # `rewrite passes` says which
            continue
    return found


def resolve(wanted: str | Any | Iterable[str | Any]) -> list[Any]:
    """Instances of the passes that somebody asked for.

    Args:
        wanted: "ln,clip", "mhsa:form=core", a pass, a pass class, a function that `graphsurgeon_pass` decorates, or
            several of these.

    Raises:
        UsageError: A pass or an option is unknown, or a pass is named twice.
    """
    alone = isinstance(wanted, str) or hasattr(wanted, "rules") or hasattr(wanted, PASS_ATTRIBUTE)
    items: Sequence[Any] = [wanted] if alone else list(wanted)
    found: list[Any] = []
    for item in items:
        given = getattr(item, PASS_ATTRIBUTE, item)
        if isinstance(given, str):
            found += [make_one(load_class(name), name, options) for name, options in parse_list(given)]
        elif isinstance(given, type) and hasattr(given, "rules"):
            found.append(make(given, getattr(given, "name", ""), {}))
        elif _is_pass(given):
            found.append(given)
        else:
            raise UsageError(f"{item!r} is no pass", hint="a pass is a name, or an instance of a subclass of Pass")
    seen: set[str] = set()
    for one in found:
        if one.name in seen:
            raise UsageError(f"pass '{one.name}' is named twice")
        seen.add(one.name)
    return found


def _entry_point(name: str) -> EntryPoint:
    package, slash, bare = name.rpartition("/")
    points = offered().get(bare, [])
    if points and not slash:
        return only_one(name, points)
    found = of_package(package, bare)
    if found is not None:
        return found
    known = names()
    near = difflib.get_close_matches(bare, known, n=3, cutoff=0.4)
    raise UsageError(
        f"there is no pass '{name}'",
        hint=f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}",
    )


def _check_name(own: Any, name: str, where: str) -> None:
    if own != name:
        raise UsageError(f"{where} calls itself '{own}'", hint="the entry point and the pass must have one name")


def _is_pass(value: Any) -> bool:
    return callable(getattr(value, "rules", None)) and isinstance(getattr(value, "name", None), str)


def _top(module: str) -> str:
    return module.partition(":")[0].partition(".")[0]


def _origin(cls: Any) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
