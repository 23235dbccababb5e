"""Matches the parameters of a node by meaning: as attribute or as input, given or by default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from onnx_rewrite.match.state import Goal, State
from onnx_rewrite.opset.forms import INPUT_FORMS
from onnx_rewrite.opset.view import ABSENT, UNKNOWN, defaults, is_onnx, plain, read_parameter
from onnx_rewrite.pattern.language import Apply, Optional, Var

ParamGoal = Callable[[State, ir.Node, Goal], bool]

# Attributes that say nothing about what an inference computes.
IGNORED = frozenset({"momentum", "seed", "consumed_inputs"})


def _name(node: ir.Node) -> str:
    return f"{node.op_type} '{node.name or node.outputs[0].name}'"


def compile_params(apply: Apply) -> ParamGoal | None:
    """A goal for the parameters that the pattern names, and for the defaults of those that it does not."""
    wanted = [(name, pattern) for name, pattern in apply.params.items()]
    named = frozenset(apply.params)
    lenient = apply.capture is not None

    def others_default(state: State, node: ir.Node) -> bool:
        version = state.scope.version_of(node)
        forms = INPUT_FORMS.get(node.op_type, {}) if is_onnx(node.domain) else {}
        for name, form in forms.items():
            if (
                name not in named
                and version >= form.since
                and form.position < len(node.inputs)
                and node.inputs[form.position]
            ):
                return state.fail(node, lambda: f"{_name(node)} has {name}, of which the pattern says nothing")  # noqa: B023
        if not node.attributes:
            return True
        known = defaults(node.op_type, version) if is_onnx(node.domain) else {}
        for name, attribute in node.attributes.items():
            if name in named or name in IGNORED:
                continue
            if attribute.is_ref() or name not in known or known[name] != plain(attribute.value):
                return state.fail(node, lambda: f"{_name(node)} has {name}={attribute.value}, not the default")  # noqa: B023
        return True

    def match(state: State, node: ir.Node, then: Goal) -> bool:
        if not lenient and not others_default(state, node):
            return False
        added: list[str] = []
        for name, pattern in wanted:
            if not _one(state, node, name, pattern, added):
                for key in added:
                    del state.bound[key]
                return False
        if then(state):
            return True
        for key in added:
            del state.bound[key]
        return False

    return match


def _one(state: State, node: ir.Node, name: str, pattern: Any, added: list[str]) -> bool:
    value = read_parameter(node, name, state.scope.version_of(node), state.scope.constants)
    if value is UNKNOWN:
        return state.fail(node, lambda: f"{name} of {_name(node)} is not known before the model runs")
    if isinstance(pattern, Optional):
        if value is ABSENT:
            return True
        pattern = pattern.inner
    if isinstance(pattern, Var):
        if value is ABSENT:
            return state.fail(node, lambda: f"{_name(node)} has no {name}")
        bound = state.bound.get(pattern.name)
        if bound is None:
            state.bound[pattern.name] = value
            added.append(pattern.name)
            return True
        return bound == value or state.fail(
            node, lambda: f"{name} of {_name(node)} is {value}; the pattern needs {bound}"
        )
    wanted = plain(pattern)
    if value is ABSENT and wanted in (0, None, ""):
        return True
    return value == wanted or state.fail(
        node, lambda: f"{name} of {_name(node)} is {value}; the pattern needs {wanted}"
    )
