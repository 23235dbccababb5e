"""Matches the parameters of a node by meaning: as attribute or as input, given or by default."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from onnx_rewrite.match.conditions import unfulfilled
from onnx_rewrite.match.state import Goal, State
from onnx_rewrite.opset.forms import FLATTENING_BELOW_13, PARAMETERS
from onnx_rewrite.opset.view import ABSENT, UNKNOWN, defaults, has_attribute, is_onnx, plain, read_parameter, written
from onnx_rewrite.pattern.language import Apply, Optional, Var

ParamGoal = Callable[[State, ir.Node, Goal], bool]

# Attributes that say nothing about what an inference computes ("ratio" is Dropout's).
IGNORED = frozenset({"momentum", "seed", "consumed_inputs", "ratio"})

# Attributes are stored in float32, and a pass writes 1e-5.
FLOAT_TOLERANCE = 1e-6


def _name(node: ir.Node) -> str:
    return f"{node.op_type} '{node.name or node.outputs[0].name}'"


def is_bare(apply: Apply) -> bool:
    """Whether a node without attributes has nothing for the parameters' goal to look at."""
    looked_at = PARAMETERS.keys() | FLATTENING_BELOW_13
    return not apply.params and not (is_onnx(apply.domain) and any(name in looked_at for name in apply.op_types))


def compile_params(apply: Apply) -> ParamGoal:
    """A goal for the parameters that the pattern names, and for the defaults of those that it does not."""
    wanted = [(name, pattern) for name, pattern in apply.params.items()]
    named = frozenset(apply.params)
    lenient = apply.capture is not None

    def others_default(state: State, node: ir.Node) -> bool:
        version = state.scope.version_of(node)
        standard = is_onnx(node.domain)
        if standard and node.op_type in PARAMETERS:
            for name, form in PARAMETERS[node.op_type].items():
                if name in named or name in IGNORED or version < form.since or form.position >= len(node.inputs):
                    continue
                if node.inputs[form.position] is not None and not _is_default(state, node, name):
                    return _unasked(state, node, name)
        if not node.attributes:
            return not _flattens(state, node, version) or "axis" in named
        known = defaults(node.op_type, version) if standard else {}
        for name, attribute in node.attributes.items():
            if name in named or name in IGNORED:
                continue
            if name == "is_test" and version < 7 and "training_mode" in named:  # one and the same
                continue
            same = not attribute.is_ref() and name in known and known[name] == plain(attribute.value)
            if not same and not (standard and _is_default(state, node, name)):
                return state.fail(node, lambda: f"{_name(node)} has {name}={attribute.value}, not the default", name)  # noqa: B023
        return not _flattens(state, node, version) or "axis" in named

    def match(state: State, node: ir.Node, then: Goal) -> bool:
        if not lenient and not others_default(state, node):
            return False
        added: list[str] = []
        if all(_one(state, node, name, pattern, added) for name, pattern in wanted) and then(state):
            return True
        for key in added:
            del state.bound[key]
        return False

    return match


def _unasked(state: State, node: ir.Node, name: str) -> bool:
    return state.fail(node, lambda: f"{_name(node)} has {name}, of which the pattern says nothing", name)


def _flattens(state: State, node: ir.Node, version: int) -> bool:
    """Whether the node is a Softmax of an old kind, whose default is not today's."""
    if version >= 13 or node.op_type not in FLATTENING_BELOW_13 or not is_onnx(node.domain):
        return False
    if read_parameter(node, "axis", version, state.scope.constants) is not UNKNOWN:
        return False
    state.fail(node, lambda: f"{_name(node)} flattens its input, as opset {version} has it", "axis")
    return True


def _one(state: State, node: ir.Node, name: str, pattern: Any, added: list[str]) -> bool:
    value = read_parameter(node, name, state.scope.version_of(node), state.scope.constants)
    if value is UNKNOWN:
        return state.fail(node, lambda: f"{name} of {_name(node)} is not known before the model runs", name)
    if isinstance(pattern, Optional):
        if value is ABSENT:
            return True
        pattern = pattern.inner
    if isinstance(pattern, Var):
        if value is ABSENT:
            return state.fail(node, lambda: f"{_name(node)} has no {name}", name)
        wrong = unfulfilled(pattern, None, value) if pattern.predicates else None
        if wrong is not None:
            return state.fail(node, lambda: f"{name} of {_name(node)} is {value}, which {wrong}", name)
        bound = state.bound.get(pattern.name)
        if bound is None:
            state.bound[pattern.name] = value
            added.append(pattern.name)
            return True
        return same_parameter(bound, value) or _differs(state, node, name, value, bound)
    wanted = written(node, name, plain(pattern))
    if value is ABSENT:
        if wanted is None or _means_absent(state, node, name, wanted):
            return True
        return state.fail(node, lambda: f"{_name(node)} has no {name}; the pattern needs {wanted}", name)
    return same_parameter(value, wanted) or _differs(state, node, name, value, wanted)


def _differs(state: State, node: ir.Node, name: str, value: Any, wanted: Any) -> bool:
    verb = "are" if isinstance(value, tuple) else "is"
    return state.fail(
        node, lambda: f"{name} of {_name(node)} {verb} {_said(value)}; the pattern needs {_said(wanted)}", name
    )


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def same_parameter(a: Any, b: Any) -> bool:
    """Whether two parameters are equal: floats up to the rounding to float32, tuples element by element."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same_parameter, a, b))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if isinstance(a, (int, float)) and isinstance(b, (int, float)) and isinstance(a + b, float):
        return math.isclose(a, b, rel_tol=FLOAT_TOLERANCE)
    return type(a) is not ir.Value and bool(a == b)


def _is_default(state: State, node: ir.Node, name: str) -> bool:
    """Whether a parameter that is given says what leaving it out would say."""
    value = read_parameter(node, name, state.scope.version_of(node), state.scope.constants)
    return value is not ABSENT and value is not UNKNOWN and _means_absent(state, node, name, value)


def _means_absent(state: State, node: ir.Node, name: str, value: Any) -> bool:
    """Whether a node without the parameter computes as if it had `value` (ONNX operator specification)."""
    shape = node.inputs[0].shape if node.inputs and node.inputs[0] is not None else None
    rank = None if shape is None else len(shape)
    if isinstance(value, tuple):
        if name in ("strides", "dilations", "steps"):
            return all(v == 1 for v in value)  # pyright: ignore[reportUnknownVariableType]
        if name in ("pads", "output_padding"):
            return not any(value)
        if name == "perm":
            return value == tuple(reversed(range(len(value))))  # pyright: ignore[reportUnknownArgumentType]
        if name == "axes" and node.op_type == "Slice":
            return value == tuple(range(len(value)))  # pyright: ignore[reportUnknownArgumentType]
        if name == "axes" and (node.op_type == "Pad" or node.op_type.startswith("Reduce")):
            return rank is not None and value == tuple(range(rank))
        if name == "kernel_shape":
            weight = node.inputs[1].shape if len(node.inputs) > 1 and node.inputs[1] is not None else None
            return weight is not None and value == tuple(weight)[2:]
    if not is_onnx(node.domain):
        return False
    version = state.scope.version_of(node)
    usual = defaults(node.op_type, version).get(name, ABSENT)
    if node.op_type in FLATTENING_BELOW_13 and name == "axis":
        usual = -1
    if usual is not ABSENT:
        if rank is not None and name == "axis" and usual < 0:
            usual += rank
        return same_parameter(value, usual)
    if name in PARAMETERS.get(node.op_type, {}):
        return name in ("value", "training_mode") and not value
    # An attribute that came with a later opset: its default is what was always done.
    return not has_attribute(node.op_type, name, version) and value in (0, "")
