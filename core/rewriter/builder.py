"""Builds a replacement aside: nodes that belong to no graph until they are committed."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnx_rewrite.analysis.dtypes import numpy_dtype
from onnx_rewrite.match import Constant, Refused
from onnx_rewrite.model.nodes import INFERRED_KEY
from onnx_rewrite.opset.forms import PARAMETERS, InputForm
from onnx_rewrite.opset.view import is_onnx

# What broadcasts its second operand only where an attribute says so (ONNX, "Broadcasting in ONNX", opsets below 7).
_BROADCAST_BY_ATTRIBUTE = frozenset({"Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor"})

# The dtypes of parameters that are inputs; bounds and the like have the first operand's.
_DTYPES: dict[str, Any] = {"ints": np.int64, "int": np.int64, "bool": np.bool_, "floats": np.float32}


class Builder:
    """Records the nodes of one replacement.

    Args:
        version: Opset of the standard operators that the replacement is written in; parameters become attributes
            or inputs accordingly.
    """

    def __init__(self, version: int) -> None:
        self.version = version
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []

    def make(
        self, op_type: str, domain: str, inputs: tuple[Any, ...], params: dict[str, Any], outputs: int
    ) -> ir.Value | tuple[ir.Value, ...]:
        """A new node.

        Args:
            op_type: The operator.
            domain: Its domain.
            inputs: Operands: values, captured constants, arrays, numbers (of the first operand's dtype), or None.
            params: Parameters by name; None leaves one out.
            outputs: Number of outputs.

        Returns:
            The output, or a tuple of them if there are several.
        """
        dtype = _first_dtype(inputs)
        values = [self._operand(i, dtype) for i in inputs]
        if self.version < 7 and op_type in _BROADCAST_BY_ATTRIBUTE and is_onnx(domain):
            params = {"broadcast": 1, **params}
        attributes = self._parameters(values, self._input_forms(op_type, domain), params, dtype)
        return self._node(op_type, domain, values, attributes, outputs)

    def like(self, node: ir.Node, inputs: tuple[Any, ...], params: dict[str, Any]) -> ir.Value | tuple[ir.Value, ...]:
        """A node with the operator and the parameters of `node`, attributes or inputs, on other operands."""
        dtype = _first_dtype(inputs)
        values = [self._operand(i, dtype) for i in inputs]
        kept = [attribute for name, attribute in node.attributes.items() if name not in params]
        forms = self._input_forms(node.op_type, node.domain)
        given = {
            name: node.inputs[form.position]
            for name, form in forms.items()
            if name not in params and form.position < len(node.inputs)
        }
        attributes = self._parameters(values, forms, {**given, **params}, dtype)
        return self._node(node.op_type, node.domain, values, [*kept, *attributes], 1, node.overload)

    def _input_forms(self, op_type: str, domain: str) -> dict[str, InputForm]:
        """The parameters that are inputs at this opset."""
        forms = PARAMETERS.get(op_type, {}) if is_onnx(domain) else {}
        return {name: form for name, form in forms.items() if self.version >= form.since}

    def _parameters(
        self,
        values: list[ir.Value | None],
        forms: Mapping[str, InputForm],
        params: Mapping[str, Any],
        dtype: ir.DataType | None,
    ) -> list[ir.Attr]:
        """Puts those parameters that are inputs among `values`, and returns the others as attributes."""
        attributes: list[ir.Attr] = []
        for name, param in params.items():
            if param is None:
                continue
            form = forms.get(name)
            if form is None:
                attributes.append(_attribute(name, param))
                continue
            values += [None] * (form.position + 1 - len(values))
            kind = _DTYPES.get(form.kind)
            if kind is not None and not isinstance(param, (Constant, ir.Value)):
                param = np.asarray(param, kind)
                if form.kind == "int":  # such as the k of TopK: a vector of one element
                    param = param.reshape(1)
            values[form.position] = self._operand(param, dtype)
        return attributes

    def _node(
        self,
        op_type: str,
        domain: str,
        values: list[ir.Value | None],
        attributes: list[ir.Attr],
        outputs: int,
        overload: str = "",
    ) -> ir.Value | tuple[ir.Value, ...]:
        while values and values[-1] is None:
            values.pop()
        node = ir.Node(domain, op_type, values, attributes, overload=overload, num_outputs=outputs)
        self.nodes.append(node)
        for value, dtype in zip(node.outputs, _result_dtypes(node, self.version), strict=False):
            if dtype is not None:
                value.type, value.meta[INFERRED_KEY] = ir.TensorType(dtype), True
        return node.outputs[0] if outputs == 1 else tuple(node.outputs)

    def _operand(self, operand: Any, dtype: ir.DataType | None) -> ir.Value | None:
        if isinstance(operand, Constant):
            return operand.value
        if operand is None or isinstance(operand, ir.Value):
            return operand
        if isinstance(operand, (bool, int, float)):
            target = None if dtype is None else numpy_dtype(dtype)
            if target is None:
                raise Refused(f"the dtype that {operand} should have is not known")
            operand = np.asarray(operand, target)
        if not isinstance(operand, (np.ndarray, np.generic)):
            raise TypeError(f"an operand is a value, a captured constant, an array or a number, not {operand!r}")
        # ascontiguousarray would turn a scalar into a vector.
        array = np.array(operand, order="C", copy=True)
        tensor = ir.Tensor(array)
        value = ir.Value(name=None, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
        self.initializers.append(value)
        return value

    def discard(self) -> None:
        """Takes the nodes off the values they read, as if they had never been."""
        for node in self.nodes:
            for index in range(len(node.inputs)):
                node.replace_input_with(index, None)
        self.nodes.clear()
        self.initializers.clear()


def _first_dtype(operands: Iterable[Any]) -> ir.DataType | None:
    return next((dtype for operand in operands if (dtype := _dtype(operand)) is not None), None)


def _dtype(operand: Any) -> ir.DataType | None:
    # The likely types first: asking whether something else is an ir.Value, which is a protocol's, takes long.
    return operand.dtype if isinstance(operand, (Constant, ir.Value)) else None


def _result_dtypes(node: ir.Node, version: int) -> list[ir.DataType | None]:
    """The outputs' dtypes where an operator's schema ties them to an operand's, so that the next node's numbers know
    theirs; everything else is inferred once the replacement stands.
    """
    target = node.attributes.get("to")
    if node.op_type == "Cast" and target is not None:
        return [ir.DataType(target.as_int())]
    return [
        None if place is None or place >= len(node.inputs) else _dtype(node.inputs[place])
        for place in (_tied(node.op_type, version) if is_onnx(node.domain) else ())
    ]


@functools.lru_cache(maxsize=1024)
def _tied(op_type: str, version: int) -> tuple[int | None, ...]:
    """For each output of a standard operator, the input of the same type variable, or None."""
    try:
        schema = onnx.defs.get_schema(op_type, min(version, onnx.defs.onnx_opset_version()), "")
    except onnx.defs.SchemaError:
        return ()
    variables = [parameter.type_str for parameter in schema.inputs]
    return tuple(variables.index(o.type_str) if o.type_str in variables else None for o in schema.outputs)


def _attribute(name: str, value: Any) -> ir.Attr:
    if isinstance(value, ir.Attr):
        source = value.ref_attr_name
        return value if value.name == name or source is None else ir.RefAttr(name, source, value.type)
    if isinstance(value, bool):
        return ir.AttrInt64(name, int(value))
    if isinstance(value, (int, np.integer)):
        return ir.AttrInt64(name, int(value))
    if isinstance(value, (float, np.floating)):
        return ir.AttrFloat32(name, float(value))
    if isinstance(value, str):
        return ir.AttrString(name, value)
    if isinstance(value, np.ndarray):
        return ir.AttrTensor(name, ir.Tensor(value))
    if isinstance(value, (list, tuple)):
        items: list[Any] = list(value)  # pyright: ignore[reportUnknownArgumentType]
        if all(isinstance(i, (int, np.integer)) for i in items):
            return ir.AttrInt64s(name, [int(i) for i in items])
        if all(isinstance(i, (int, float, np.number)) for i in items):
            return ir.AttrFloat32s(name, [float(i) for i in items])
        if all(isinstance(i, str) for i in items):
            return ir.AttrStrings(name, items)
    raise TypeError(f"attribute {name}: cannot write {value!r}")


def check_outputs(result: Any, wanted: int) -> tuple[ir.Value, ...]:
    """What `replace` returned, as one value per output of the pattern.

    Raises:
        Refused: `replace` returned None: it declines.
        TypeError: It returned something else than values.
    """
    if result is None:
        raise Refused("the pass declined")
    values: tuple[Any, ...] = result if isinstance(result, tuple) else (result,)
    if len(values) != wanted or not all(isinstance(v, ir.Value) for v in values):
        raise TypeError(f"replace must return {wanted} value(s), one per output of the pattern, not {result!r}")
    return values


def merged_metadata(nodes: Iterable[ir.Node]) -> dict[str, str]:
    """The metadata of several nodes in one: equal entries once, different ones joined by '; '."""
    merged: dict[str, list[str]] = {}
    for node in nodes:
        for key, text in node.metadata_props.items():
            known = merged.setdefault(key, [])
            if text not in known:
                known.append(text)
    return {key: "; ".join(texts) for key, texts in merged.items()}
