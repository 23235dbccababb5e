"""Tells whether two replacements are the same one over again, without building anything."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence

import onnx_ir as ir

from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.model.nodes import tensor_in


class Fingerprints:
    """Keys of replacements: equal keys mean equal operators, attributes, wiring, constants, dtypes and shapes.

    Args:
        constants: The model's resolver.
    """

    def __init__(self, constants: Constants) -> None:
        self._constants = constants
        self._digests: dict[ir.Value, Hashable] = {}
        self._numbers: dict[Hashable, int] = {}  # of each content of a constant: short keys are quickly compared

    def key(
        self,
        old: Sequence[ir.Node],
        outputs: Sequence[ir.Value],
        new: Sequence[ir.Node],
        results: Sequence[ir.Value],
        versions: tuple[Hashable, ...],
    ) -> Hashable | None:
        """A key of the replacement of `old` by `new`; None if it has none (a body, an attribute reference)."""
        numbers: dict[ir.Value, Hashable] = {}
        parts: list[Hashable] = [versions]
        for group in (old, new):
            for node in group:
                for value in node.outputs:
                    numbers[value] = len(numbers)
            for node in group:
                described = self._node(node, numbers)
                if described is None:
                    return None
                parts.append(described)
        parts.append(tuple(numbers.get(v) for v in outputs))
        parts.append(tuple(self._outer(v, numbers) for v in results))
        parts.append(tuple((v.dtype, _dims(v)) for v in outputs))
        return tuple(parts)

    def _node(self, node: ir.Node, numbers: dict[ir.Value, Hashable]) -> Hashable | None:
        inputs = tuple([None if v is None else self._outer(v, numbers) for v in node.inputs])
        given = node.attributes
        if not given:
            return (node.op_type, node.domain, len(node.outputs), inputs)
        attributes: list[Hashable] = []
        for name in sorted(given):
            attribute = given[name]
            if attribute.is_ref() or attribute.type in _UNHASHABLE:
                return None
            value = attribute.value
            if attribute.type == ir.AttributeType.TENSOR:
                tensor = tensor_in(attribute)
                value = (tensor.dtype, tuple(tensor.shape), tensor.tobytes())
            attributes.append((name, attribute.type, tuple(value) if isinstance(value, list) else value))
        return (node.op_type, node.domain, len(node.outputs), inputs, tuple(attributes))

    def _outer(self, value: ir.Value, numbers: dict[ir.Value, Hashable]) -> Hashable:
        known = numbers.get(value)
        if known is None:
            known = self._digests.get(value)
            if known is None and self._constants.is_constant(value):
                content = self._constant(value)
                number = self._numbers.setdefault(content, len(self._numbers))
                known = self._digests[value] = ("constant", number)
            if known is None:
                known = (len(numbers), value.dtype, _dims(value))
            numbers[value] = known
        return known

    def _constant(self, value: ir.Value) -> Hashable:
        tensor = value.const_value if value.producer() is None else None
        if tensor is not None:
            return (tensor.dtype, tuple(tensor.shape), hashlib.sha256(tensor.tobytes()).digest())
        array = self._constants.array(value)
        assert array is not None
        return (str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).digest())


_UNHASHABLE = frozenset(
    {
        ir.AttributeType.GRAPH,
        ir.AttributeType.GRAPHS,
        ir.AttributeType.TENSORS,
        ir.AttributeType.SPARSE_TENSOR,
        ir.AttributeType.SPARSE_TENSORS,
        ir.AttributeType.TYPE_PROTO,
        ir.AttributeType.TYPE_PROTOS,
    }
)


def _dims(value: ir.Value) -> Hashable:
    """The shape; symbols by name, since two dimensions of one name are equal."""
    if value.shape is None:
        return None
    return tuple([d if isinstance(d, int) else (d.value or "?") for d in value.shape])
