"""How an exporter writes an operator: a row of a table that users extend without code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnx_rewrite.custom.operator import PLUGIN_ATTRIBUTES, Call, CustomOp, Unreadable


@dataclass(frozen=True)
class Spelling:
    """How one node type says what an operator needs.

    Attributes:
        operator: What it means.
        domain: The node's domain.
        op_type: The node's type.
        inputs: For each input in order a role of the operator; one of its parameters, which is then a constant, or an
            element of one, "strides[0]"; or the name of a switch.
        attributes: For a parameter the node's attribute, or several that make up a tuple.
        present_if: For a role the switch, an attribute or a constant input, that is 0 where the input stands there and
            says nothing.
        width_first: Parameters whose tuples begin with the width, where the operator's begin with the height.
        standard: Whether it is an operator of ONNX itself.
    """

    operator: CustomOp
    domain: str
    op_type: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, tuple[str, ...]]
    present_if: Mapping[str, str] = field(default_factory=dict[str, str])
    width_first: frozenset[str] = frozenset()
    standard: bool = False

    @property
    def own(self) -> bool:
        """Whether it is the operator's own node."""
        return (self.domain, self.op_type) == (self.operator.domain, self.operator.name)

    @property
    def title(self) -> str:
        """Domain and type of the node in one."""
        return f"{self.domain}::{self.op_type}" if self.domain else self.op_type

    def position(self, role: str) -> int | None:
        """Which input has a role; None: there is none."""
        return self.inputs.index(role) if role in self.inputs else None

    def read(
        self,
        inputs: Sequence[Any],
        attributes: Mapping[str, Any],
        constant: Callable[[Any], Any],
        shape: Callable[[Any], Sequence[Any] | None],
    ) -> Call:
        """What a node says.

        Args:
            inputs: The node's inputs, None for one that is left out.
            attributes: Plain values by name; None for one that is not known before the model runs.
            constant: The elements of an input as an array, or None where it is no constant.
            shape: The dimensions of an input, or None.

        Raises:
            Unreadable: It does not say all that is needed.
        """
        required = [role for role in self.operator.inputs[: self.operator.required] if role in self.inputs]
        least = 1 + max(self.inputs.index(role) for role in required)
        if len(inputs) < least:
            raise Unreadable(
                f"{self.title} has {len(inputs)} inputs, and a node that can be read has at least {least}: "
                f"{', '.join(self.inputs[:least])}"
            )
        given = {name: value for name, value in zip(self.inputs, inputs, strict=False) if value is not None}
        if len(inputs) > len(self.inputs):
            raise Unreadable(f"{self.title} has {len(inputs)} inputs, and {len(self.inputs)} are known")
        for role, switch in self.present_if.items():
            told = self._scalar(switch, given, constant) if switch in given else attributes.get(switch, 1)
            if not told:
                given.pop(role, None)
        roles = self.operator.inputs
        operands = {role: given[role] for role in roles if role in given}
        missing = [role for role in roles[: self.operator.required] if role not in operands]
        if missing:
            raise Unreadable(f"{self.title} has no {' and '.join(missing)}")
        parameters: dict[str, Any] = {}
        for name, default in self.operator.parameters.items():
            found = self._parameter(name, given, attributes, constant)
            if found is None:
                found = default
            parameters[name] = found
        parameters = self.operator.complete(parameters, {role: shape(value) for role, value in operands.items()})
        unsaid = [name for name, value in parameters.items() if value is None]
        if unsaid:
            raise Unreadable(f"{self.title} does not say its {' and '.join(unsaid)}")
        return Call(self.operator, operands, parameters)

    def _parameter(
        self, name: str, given: Mapping[str, Any], attributes: Mapping[str, Any], constant: Callable[[Any], Any]
    ) -> Any:
        elements = sorted(key for key in given if key.startswith(f"{name}["))
        if name in given:
            value: Any = self._scalar(name, given, constant)
        elif elements:
            value = tuple(self._scalar(key, given, constant) for key in elements)
        else:
            names = self.attributes.get(name, ())
            parts = [attributes[one] for one in names if one in attributes]
            if any(part is None for part in parts):
                raise Unreadable(f"{name} of {self.title} is an attribute of the function around it")
            if not parts:
                return None
            if len(parts) < len(names):
                raise Unreadable(f"{self.title} has not all of {', '.join(names)}")
            value = parts[0] if len(names) == 1 else tuple(parts)
        if name in self.width_first and isinstance(value, (tuple, list)):
            items: list[Any] = list(value)  # pyright: ignore[reportUnknownArgumentType]
            half = len(items) // 2
            # Pads are begins and ends.
            value = tuple(reversed(items)) if len(items) == 2 else (*reversed(items[:half]), *reversed(items[half:]))
        return value

    def _scalar(self, name: str, given: Mapping[str, Any], constant: Callable[[Any], Any]) -> Any:
        """A constant input: a number, or a tuple of them."""
        array = constant(given[name])
        if array is None:
            raise Unreadable(f"{name} of {self.title} is computed when the model runs")
        return tuple(array.ravel().tolist()) if array.ndim else array.item()

    def written(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """A node's attributes for the operator's parameters; those that it has no attribute for are left out."""
        found: dict[str, Any] = {}
        for name, names in self.attributes.items():
            value = parameters.get(name)
            if value is None:
                continue
            if name in self.width_first and isinstance(value, tuple):
                value = value[::-1]
            if len(names) == 1:
                found[names[0]] = value
            else:
                found.update(zip(names, value, strict=True))
        return found


def own_spelling(operator: CustomOp) -> Spelling:
    """The operator's own node."""
    names = {name: (name,) for name in operator.parameters if name not in PLUGIN_ATTRIBUTES}
    return Spelling(operator, operator.domain, operator.name, operator.inputs, names)
