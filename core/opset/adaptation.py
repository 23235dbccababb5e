"""What an adapter sees of a node that is to be read under a newer opset, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.analysis.dtypes import numpy_dtype
from onnx_rewrite.opset.forms import INPUT_FORMS, InputForm
from onnx_rewrite.opset.view import plain

# From these opsets on, Constant takes plain attributes, and there is CastLike.
_CONSTANTS_OF_ATTRIBUTES = 12
_CAST_LIKE = 15

# The attribute of `Constant` that holds what an attribute of each type holds.
_CONSTANT_ATTRIBUTES = {
    ir.AttributeType.FLOAT: "value_float",
    ir.AttributeType.FLOATS: "value_floats",
    ir.AttributeType.INT: "value_int",
    ir.AttributeType.INTS: "value_ints",
}


class NotAdaptable(Exception):
    """The node has no equal in the newer opset; the message says why."""


class Maker(Protocol):
    """Builds nodes aside, parameters as attributes or as inputs by the opset that it writes."""

    def make(
        self, op_type: str, domain: str, inputs: tuple[Any, ...], params: dict[str, Any], outputs: int
    ) -> ir.Value | tuple[ir.Value, ...]:
        """A new node's output, or a tuple of them if there are several."""
        ...


@dataclass(frozen=True)
class Change:
    """How a node is to be written under the newer opset.

    Attributes:
        outputs: The values that take the places of the node's outputs, None for an unused one that is dropped; or
            None as a whole: the node stays as it is, but its meaning was reworded and must be judged.
        form_only: Whether the same operator does the same with the same parameters, and only their place or the
            operator's name changed.
    """

    outputs: tuple[ir.Value | None, ...] | None
    form_only: bool = False


@dataclass(frozen=True)
class OldNode:
    """A node of opset `source` that is to be read under opset `target`."""

    node: ir.Node
    source: int
    target: int
    constants: Constants
    maker: Maker

    def crosses(self, version: int) -> bool:
        """Whether the operator's version `version` comes into force."""
        return self.source < version <= self.target

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute's value (tuples for lists), or `default`.

        Raises:
            NotAdaptable: It refers to an attribute of the enclosing function.
        """
        attribute = self.node.attributes.get(name)
        if attribute is None:
            return default
        if attribute.is_ref():
            raise NotAdaptable(f"its {name} is an attribute of the enclosing function")
        return plain(attribute.value)

    def input(self, index: int) -> ir.Value | None:
        """An input, or None where it is omitted."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def needed(self, index: int) -> bool:
        """Whether anything uses output `index`."""
        if index >= len(self.node.outputs):
            return False
        value = self.node.outputs[index]
        return bool(value.uses()) or value.is_graph_output()

    def dims(self, index: int) -> list[int | None] | None:
        """The shape of an input, None for what is not known."""
        value = self.input(index)
        if value is None or value.shape is None:
            return None
        return [d if isinstance(d, int) else None for d in value.shape]

    def make(self, op_type: str, inputs: Sequence[Any], params: Mapping[str, Any] | None = None) -> ir.Value:
        """A new node with one output."""
        made = self.maker.make(op_type, "", tuple(inputs), dict(params or {}), 1)
        assert isinstance(made, ir.Value)
        return made

    def rewritten(
        self,
        op_type: str | None = None,
        *,
        inputs: Sequence[Any] | None = None,
        drop: Sequence[str] = (),
        outputs: int | None = None,
        form_only: bool = True,
        **params: Any,
    ) -> Change:
        """The node again, its parameters in the newer form.

        Args:
            op_type: Another operator.
            inputs: Other inputs.
            drop: Attributes to leave out.
            outputs: How many outputs to keep.
            form_only: See `Change`.
            params: Further parameters, or other values for those that are there.
        """
        node = self.node
        moving = self.moving()
        given: dict[str, Any] = {n: a for n, a in node.attributes.items() if n not in drop and n not in moving}
        given.update(params)
        operands: list[Any] = list(node.inputs if inputs is None else inputs)
        for name, form in moving.items():
            if name not in drop:
                operands += [None] * (form.position + 1 - len(operands))
                operands[form.position] = self._moved(name, form)
        count = len(node.outputs) if outputs is None else outputs
        made = self.maker.make(op_type or node.op_type, "", tuple(operands), given, count)
        new: tuple[ir.Value | None, ...] = (made,) if isinstance(made, ir.Value) else made
        return Change(new + (None,) * (len(node.outputs) - count), form_only)

    def moving(self) -> dict[str, InputForm]:
        """The parameters that are attributes of this node and inputs at the newer opset."""
        forms = INPUT_FORMS.get(self.node.op_type)
        if forms is None:
            return {}
        return {n: f for n, f in forms.items() if self.crosses(f.since) and n in self.node.attributes}

    def _moved(self, name: str, form: InputForm) -> Any:
        """The operand that an attribute becomes: an array, or a value where it can only be computed."""
        attribute = self.node.attributes[name]
        operand = self.input(0)
        dtype = np.dtype(np.int64) if form.kind in ("int", "ints") else np.dtype(np.float32)
        wanted: np.dtype[Any] | None = dtype
        if form.kind == "bound":
            wanted = None if operand is None or operand.dtype is None else numpy_dtype(operand.dtype)
        if attribute.is_ref():
            spelling = _CONSTANT_ATTRIBUTES.get(attribute.type)
            source = attribute.ref_attr_name
            if spelling is None or source is None or self.target < _CONSTANTS_OF_ATTRIBUTES:
                raise NotAdaptable(f"its {name} is an attribute of the enclosing function")
            made = self.make("Constant", (), {spelling: ir.RefAttr(spelling, source, attribute.type)})
            if form.kind == "int":
                made = self.make("Reshape", [made, np.asarray([1], np.int64)])
            return made if wanted == dtype else self._cast_like(made, operand)
        value = plain(attribute.value)
        if form.kind == "ints" and value == () and self.node.op_type.startswith("Reduce"):
            return None  # no axes and no input both mean all axes
        if form.kind == "int":
            value = (value,)
        if wanted is None:
            return self._cast_like(np.asarray(value, dtype), operand)
        with np.errstate(over="ignore"):
            return np.asarray(value, wanted)

    def _cast_like(self, value: Any, operand: ir.Value | None) -> ir.Value:
        if self.target < _CAST_LIKE:
            name = "" if operand is None else operand.name
            raise NotAdaptable(f"the dtype of its input '{name}' is not known")
        return self.make("CastLike", [value, operand])
