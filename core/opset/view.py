"""One view of an operator across opsets: its operands, and its parameters by meaning.

`axes=[-1]` as an attribute, as an initializer and as a `Constant` node, `axes=[2]` on a value of rank 3, and an
omitted `keepdims` where the default is 1: all read the same through `read_parameter`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final

import onnx
import onnx_ir as ir

from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.opset.forms import (
    AXIS_OF_INPUT,
    AXIS_OF_OUTPUT,
    FLATTENING_BELOW_13,
    PARAMETERS,
    SETS_OF_AXES,
    TESTED_BELOW_7,
)


class _Sentinel:
    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


ABSENT: Final = _Sentinel("ABSENT")
"""The parameter is not given and has no default."""

UNKNOWN: Final = _Sentinel("UNKNOWN")
"""The parameter is computed when the model runs, or refers to an attribute of an enclosing function."""


def is_onnx(domain: str) -> bool:
    """Whether a domain is that of the standard operators, under either of its names."""
    return domain in ("", "ai.onnx")


@functools.lru_cache(maxsize=4096)
def defaults(op_type: str, version: int) -> dict[str, Any]:
    """Default values of the attributes of a standard operator at an opset; empty for an operator unknown there."""
    try:
        schema = onnx.defs.get_schema(op_type, min(version, onnx.defs.onnx_opset_version()), "")
    except onnx.defs.SchemaError:
        return {}
    found: dict[str, Any] = {}
    for name, attribute in schema.attributes.items():
        if attribute.default_value.type != onnx.AttributeProto.UNDEFINED:
            value = onnx.helper.get_attribute_value(attribute.default_value)
            found[name] = plain(value)
    return found


@functools.lru_cache(maxsize=4096)
def has_attribute(op_type: str, name: str, version: int) -> bool:
    """Whether a standard operator has an attribute of this name at an opset."""
    try:
        schema = onnx.defs.get_schema(op_type, min(version, onnx.defs.onnx_opset_version()), "")
    except onnx.defs.SchemaError:
        return False
    return name in schema.attributes


def plain(value: Any) -> Any:
    """Attribute values in one form: lists as tuples, bytes as text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (list, tuple)):
        return tuple(plain(v) for v in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return value


def operand_count(node: ir.Node, version: int) -> int:
    """How many of the node's inputs are data, and not parameters, at this opset."""
    forms = PARAMETERS.get(node.op_type)
    count = len(node.inputs)
    if forms is None or not is_onnx(node.domain):
        return count
    for form in forms.values():
        if version >= form.since:
            count = min(count, form.position)
    return count


def operands(node: ir.Node, version: int) -> Sequence[ir.Value | None]:
    """The inputs that are data; an omitted optional one is None, trailing omitted ones are left out."""
    inputs = node.inputs
    count = operand_count(node, version)
    while count and inputs[count - 1] is None:
        count -= 1
    return inputs if count == len(inputs) else inputs[:count]


def raw_parameter(node: ir.Node, name: str, version: int, constants: Constants) -> Any:
    """The parameter as written (a Python value, tuples for lists), ABSENT, or UNKNOWN."""
    if is_onnx(node.domain):
        forms = PARAMETERS.get(node.op_type)
        if forms is not None and name in forms and version >= forms[name].since:
            form = forms[name]
            value = node.inputs[form.position] if form.position < len(node.inputs) else None
            if value is None:
                return ABSENT
            if form.kind == "ints":
                array = constants.array(value)
                return UNKNOWN if array is None else tuple(int(i) for i in array.ravel())
            if form.kind == "floats":
                array = constants.array(value)
                return UNKNOWN if array is None else tuple(float(i) for i in array.ravel())
            scalar = constants.scalar(value)
            return UNKNOWN if scalar is None else scalar
    if name == "training_mode" and version < 7 and node.op_type in TESTED_BELOW_7 and is_onnx(node.domain):
        tested = raw_parameter(node, "is_test", version, constants)
        return tested if tested is UNKNOWN else int(not tested)
    attribute = node.attributes.get(name)
    if attribute is None:
        return defaults(node.op_type, version).get(name, ABSENT) if is_onnx(node.domain) else ABSENT
    if attribute.is_ref():
        return UNKNOWN
    return plain(attribute.value)


def read_parameter(node: ir.Node, name: str, version: int, constants: Constants) -> Any:
    """The parameter by meaning: as `raw_parameter`, axes counted from the front where the rank is known.

    Axes of a reduction that are not given mean all of them (unless `noop_with_empty_axes`).
    The axis of a Softmax below opset 13 has a meaning that no axis has today (UNKNOWN), unless it is the last.
    """
    value = raw_parameter(node, name, version, constants)
    if not is_onnx(node.domain) or value is UNKNOWN:
        return value
    if AXIS_OF_INPUT.get(node.op_type) == name:
        shape = node.inputs[0].shape if node.inputs and node.inputs[0] is not None else None
        rank = None if shape is None else len(shape)
    elif AXIS_OF_OUTPUT.get(node.op_type) == name:
        shape = node.outputs[0].shape
        rank = None if shape is None else len(shape)
    else:
        return value
    if node.op_type.startswith("Reduce") and value in (ABSENT, ()):
        if raw_parameter(node, "noop_with_empty_axes", version, constants) == 1:
            return ()
        return UNKNOWN if rank is None else tuple(range(rank))
    if value is ABSENT:
        return value
    value = normalised(node.op_type, value, rank)
    if version < 13 and node.op_type in FLATTENING_BELOW_13 and value != (-1 if rank is None else rank - 1):
        return UNKNOWN
    return value


def written(node: ir.Node, name: str, value: Any) -> Any:
    """A parameter that a pattern writes, in the form in which `read_parameter` gives the node's."""
    if not is_onnx(node.domain) or not isinstance(value, (int, tuple)):
        return value
    if AXIS_OF_INPUT.get(node.op_type) == name:
        return normalised(node.op_type, value, _rank(node.inputs[0] if node.inputs else None))
    if AXIS_OF_OUTPUT.get(node.op_type) == name:
        return normalised(node.op_type, value, _rank(node.outputs[0]))
    return value


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def normalised(op_type: str, value: Any, rank: int | None) -> Any:
    """An axis, or axes, counted from the front where `rank` is known; sorted where their order has no meaning."""
    if isinstance(value, tuple):
        axes = tuple(a + rank if rank is not None and a < 0 else a for a in value)  # pyright: ignore[reportUnknownVariableType]
        return tuple(sorted(axes)) if op_type in SETS_OF_AXES else axes
    return value + rank if rank is not None and value < 0 else value
