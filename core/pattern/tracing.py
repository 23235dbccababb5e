"""Runs a pattern function once and checks what it describes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from onnx_rewrite.pattern.errors import PatternError
from onnx_rewrite.pattern.language import (
    Apply,
    Conditional,
    ConstantPattern,
    Either,
    Optional,
    Output,
    Pattern,
    Repeat,
    Rest,
    Traced,
    Var,
    View,
    children,
    key_in,
    leaves,
    own_names,
    shown_name,
    step_of,
    walk,
)

__all__ = ["PatternError", "trace"]

# What a name may stand for; a number is a number, whether an operand or a parameter holds it.
_NODE, _VALUE, _CONSTANT, _NUMBER = "a node", "a value", "a constant", "a number or parameter"
_TUPLE, _DIM, _EACH = "a tuple of operands", "a dimension", "what is captured in each step or operand"


def trace(function: Callable[..., Any], source: str) -> Traced:
    """Calls `function` with one `Var` per parameter.

    Args:
        function: A bound method or a function that returns a pattern or a tuple of patterns, one per output.
        source: What to call the pattern in errors.

    Raises:
        PatternError: The result is no pattern, a parameter is used nowhere, an output is a bare capture, outputs
            have nothing in common, or a name stands for different things.
    """
    parameters = [
        p for p in inspect.signature(function).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    try:
        result = function(*[Var(p.name) for p in parameters])
        outputs: tuple[Any, ...] = result if isinstance(result, tuple) else (result,)
        roots = _checked_roots(outputs)
        names = _checked_names(roots, frozenset(p.name for p in parameters))
        _check_nodes(roots)
        _check_connected(roots)
    except PatternError as error:
        raise PatternError(f"{source}: {error}") from None
    return Traced(roots, names, source)


def _checked_roots(outputs: tuple[Any, ...]) -> tuple[Output | Either | Repeat, ...]:
    roots: list[Output | Either | Repeat] = []
    for root in outputs:
        good = isinstance(root, (Output, Either, Repeat)) and all(isinstance(leaf, Output) for leaf in leaves(root))
        if not good:
            more = "; say least=1" if isinstance(root, Repeat) else ""
            raise PatternError(f"every output of a pattern must be the result of an operator, not {root!r}{more}")
        roots.append(root)
    if not roots:
        raise PatternError("the pattern has no outputs")
    if len(set(map(id, roots))) < len(roots) or len({_end(root) for root in roots}) < len(roots):
        raise PatternError("two outputs of the pattern are one and the same")
    return tuple(roots)


def _end(root: Output | Either | Repeat) -> object:
    """What tells one output from another: a node of the pattern and which of its outputs."""
    return (id(root.apply), root.index) if isinstance(root, Output) else id(root)


def _everything(roots: tuple[Pattern, ...]) -> list[Pattern]:
    seen: set[int] = set()
    return [part for root in roots for part in walk(root, seen)]


# -- names


def _checked_names(roots: tuple[Output | Either | Repeat, ...], parameters: frozenset[str]) -> frozenset[str]:
    """The names that a match has."""
    everything = _everything(roots)
    kinds: dict[str, str] = {}
    for name, kind in _uses(everything):
        known = kinds.setdefault(name, kind)
        if known != kind:
            name = shown_name(name)
            raise PatternError(f"'{name}' stands for {known} and for {kind}; give one of them another name")
    unused = [name for name in sorted(parameters) if name not in kinds]
    if unused:
        raise PatternError(f"the pattern never uses {', '.join(unused)}")
    for target in (target for part in everything if isinstance(part, Var) for target in part.targets):
        if kinds.get(target.name) not in (_VALUE, _CONSTANT):
            raise PatternError(f"nothing can broadcast to '{target.name}', which is no value of the pattern")
    _check_steps(roots, everything, kinds)
    return frozenset(name for name in kinds if "@" not in name)


def _uses(everything: list[Pattern]) -> Iterator[tuple[str, str]]:
    """Every mention of a name, with what it stands for there."""
    outputs = [part for part in everything if isinstance(part, Output)]
    params = {id(p) for part in outputs for p in part.apply.params.values()}
    for part in everything:
        if isinstance(part, Conditional):
            yield from ((d, _DIM) for dims in part.shapes for d in dims if isinstance(d, str))
        if isinstance(part, Output):
            if part.apply.capture is not None:
                yield key_in(part.apply.home, part.apply.capture), _NODE
            yield from _parameters(part.apply)
        elif isinstance(part, ConstantPattern) and part.var is not None:
            yield part.var.name, _NUMBER if part.single else _CONSTANT
        elif isinstance(part, Rest):
            yield part.var.name, _TUPLE
            if part.var.predicates or part.var.shapes or part.var.targets:
                raise PatternError(
                    f"'{part.var.name}' is a tuple; what each operand must be is said in rest(..., each)"
                )
        elif isinstance(part, View):
            yield part.var.name, _TUPLE
        step = step_of(part)
        if step is not None:
            yield from ((key_in(step.home, name), _EACH) for name in own_names(step))
        for operand in () if id(part) in params else _operands(part):
            if isinstance(operand, Var):
                yield operand.name, _VALUE
            elif isinstance(operand, Rest) and not isinstance(part, Output):
                raise PatternError("rest(...) belongs among the operands of an operator")


def _operands(part: Pattern) -> tuple[Any, ...]:
    """The patterns of values that a pattern consists of directly."""
    if isinstance(part, Output):
        return part.apply.inputs
    if isinstance(part, View):
        return (part.inner,)
    if isinstance(part, (Either, Optional, Repeat)):
        return tuple(children(part))
    return (part.each.body,) if isinstance(part, Rest) and part.each is not None else ()


def _parameters(apply: Apply) -> Iterator[tuple[str, str]]:
    called = "/".join(sorted(apply.op_types))
    for name, param in apply.params.items():
        inner: Any = param.inner if isinstance(param, Optional) else param
        if isinstance(inner, Var):
            yield inner.name, _NUMBER
            if inner.shapes or inner.targets or any(p.typed for p in inner.predicates):
                raise PatternError(f"{name} of {called} is a parameter, without dtype and shape; use where(...)")
        elif isinstance(inner, Pattern):
            raise PatternError(f"{name} of {called} is a parameter: a value or a capture, not a pattern of an operand")


# -- steps


def _check_steps(roots: tuple[Pattern, ...], everything: list[Pattern], kinds: dict[str, str]) -> None:
    """What a step makes stays within it, and is used there."""
    for step in (s for part in everything if (s := step_of(part)) is not None):
        for name in step.names:
            if key_in(step, name) not in kinds:
                raise PatternError(f"a step never uses '{name}'")
        seen = {id(step.body)}
        for part in (part for root in roots for part in walk(root, seen)):
            own = isinstance(part, Output) and part.apply.home is step
            if own or (isinstance(part, Var) and part.name == step.hole.name):
                raise PatternError("a part that is made within repeat(...) or rest(...) is used outside of it")


# -- nodes


def _check_nodes(roots: tuple[Pattern, ...]) -> None:
    """Two nodes that are both part of every match cannot bear one name."""
    named: dict[str, Apply] = {}
    for apply in (apply for root in roots for apply in _certain(root, {})):
        if apply.capture is not None and named.setdefault(apply.capture, apply) is not apply:
            raise PatternError(f"two nodes of the pattern are called '{apply.capture}'; rename one of them")


def _certain(pattern: Any, known: dict[int, frozenset[Apply]]) -> frozenset[Apply]:
    """The nodes that are part of every match."""
    if id(pattern) not in known:
        if isinstance(pattern, Output):
            found = frozenset({pattern.apply}).union(*(_certain(i, known) for i in pattern.apply.inputs))
        elif isinstance(pattern, Either):
            first, *others = (_certain(branch, known) for branch in pattern.branches)
            found = first.intersection(*others)
        elif isinstance(pattern, (Repeat, View)):
            found = _certain(pattern.inner, known)
        else:
            found = frozenset[Apply]()
        known[id(pattern)] = found
    return known[id(pattern)]


def _check_connected(roots: tuple[Pattern, ...]) -> None:
    """Every output after the first must be found from those before it, through a value or a node of both."""
    seen: set[object] = set()
    for number, root in enumerate(roots):
        links = _links(root)
        if number and links.isdisjoint(seen):
            raise PatternError(
                f"output {number + 1} has no operator and no captured value in common with those before it; "
                "constants alone do not lead from one to the other"
            )
        seen |= links


def _links(root: Pattern) -> set[object]:
    """What leads from one output to another: captured values by name, nodes that depend on one by identity."""
    found: set[object] = set()
    known: dict[int, bool] = {}
    for part in walk(root):
        for operand in _operands(part):
            if isinstance(operand, Var) and "@" not in operand.name:
                found.add(operand.name)
        if isinstance(part, Rest) and part.each is None:
            found.add(part.var.name)
        if isinstance(part, Output) and _depends(part, known):
            found.add(part.apply)
    return found


def _depends(part: Pattern, known: dict[int, bool]) -> bool:
    """Whether a value that is captured is among what a pattern is computed from."""
    if id(part) not in known:
        known[id(part)] = any(isinstance(o, (Var, Rest)) or _depends(o, known) for o in _operands(part))
    return known[id(part)]
