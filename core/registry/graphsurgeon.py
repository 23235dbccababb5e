"""Functions on an onnx-graphsurgeon graph as passes."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

from onnx_rewrite.errors import UsageError
from onnx_rewrite.registry.base import PassInfo
from onnx_rewrite.registry.registry import PASS_ATTRIBUTE, register
from onnx_rewrite.rewriter.rule import Rule

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True)
class FunctionPass(PassInfo):
    """A pass that is one function on a `gs.Graph`; its options, the fields, are the function's further parameters.

    It has no patterns. It is run once, in its place among the passes, and what it did is one site.

    Attributes:
        function: Takes the graph, and the options by name; returns the graph, another one, or None.
    """

    function: ClassVar[Callable[..., Any]]

    def rules(self) -> Sequence[Rule]:
        """None: nothing is matched."""
        return ()

    def __call__(self, graph: Any) -> Any:
        """What the function returns for a graph, None meaning the graph itself; whatever it raises is passed on."""
        options = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        found = type(self).function(graph, **options)
        return graph if found is None else found


def graphsurgeon_pass(name: str) -> Callable[[Function], Function]:
    """Decorator: makes a function on an `onnx_graphsurgeon.Graph` a pass, in this process.

    The function changes the graph, or returns another one. Its further parameters, each with a type, are the
    pass's options. It stays a function that a script can call. An installed package offers it with an entry point.

    Args:
        name: What `--passes` calls it.

    Raises:
        UsageError: Another pass has the name, or the function's parameters cannot be options.
    """

    def declared(function: Function) -> Function:
        cls = _pass_class(name, function)
        register(cls)
        setattr(function, PASS_ATTRIBUTE, cls)
        return function

    return declared


def _pass_class(name: str, function: Callable[..., Any]) -> type[FunctionPass]:
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].kind not in (parameters[0].POSITIONAL_ONLY, parameters[0].POSITIONAL_OR_KEYWORD):
        raise UsageError(f"{function.__qualname__} takes no graph", hint="its first parameter is the gs.Graph")
    annotations: dict[str, Any] = {}
    namespace: dict[str, Any] = {
        "name": name,
        "function": staticmethod(function),
        "__doc__": function.__doc__ or "",
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__annotations__": annotations,
    }
    options = parameters[1:]
    if options:
        hints = _hints(function)
        for one in options:
            taken = hasattr(FunctionPass, one.name)
            if taken or one.kind not in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY) or one.name not in hints:
                raise UsageError(
                    f"parameter '{one.name}' of {function.__qualname__} cannot be an option",
                    hint="it needs a type, as in `keep: bool = True`, and a name that no attribute of a pass has",
                )
            annotations[one.name] = hints[one.name]
            if one.default is not one.empty:
                namespace[one.name] = one.default
    made = type(function.__name__, (FunctionPass,), namespace)
    return dataclasses.dataclass(frozen=True, kw_only=True)(made)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError:  # the graph's type may be imported for type checkers only; the options' are plain
        bare = {key: text for key, text in function.__annotations__.items() if key not in ("graph", "return")}
        first = next(iter(inspect.signature(function).parameters))
        bare.pop(first, None)
        holder = type("Holder", (), {"__annotations__": bare, "__module__": function.__module__})
        try:
            return typing.get_type_hints(holder, vars(inspect.getmodule(function)), include_extras=True)
        except (NameError, TypeError) as error:
            raise UsageError(
                f"the options of {function.__qualname__} have types that cannot be read: {error}"
            ) from error
