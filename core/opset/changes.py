"""Which adapter an operator needs between two opsets; for most of them none."""

from __future__ import annotations

import functools

import onnx

from onnx_rewrite.opset.adapters import ADAPTERS, Adapter, generic
from onnx_rewrite.opset.converter import convert
from onnx_rewrite.opset.forms import INPUT_FORMS

_Required = onnx.defs.OpSchema.FormalParameterOption.Single


@functools.lru_cache(maxsize=4096)
def adapter_for(op_type: str, source: int, target: int) -> Adapter | None:
    """What adapts nodes of a standard operator from opset `source` to `target`.

    None where nothing but the allowed types changed; operators that ONNX does not know stay as they are.
    """
    known = ADAPTERS.get(op_type)
    if known is not None and any(source < version <= target for version in known.versions):
        return known.adapt
    if any(source < form.since <= target for form in INPUT_FORMS.get(op_type, {}).values()):
        return generic
    old, new = schema_of(op_type, source), schema_of(op_type, target)
    if old is None or new is None or (old.since_version == new.since_version):
        return None
    return None if _compatible(old, new) else convert


def schema_of(op_type: str, version: int) -> onnx.defs.OpSchema | None:
    """The standard operator as opset `version` has it; None where it has none."""
    try:
        return onnx.defs.get_schema(op_type, min(version, onnx.defs.onnx_opset_version()), "")
    except onnx.defs.SchemaError:
        return None


def _compatible(old: onnx.defs.OpSchema, new: onnx.defs.OpSchema) -> bool:
    """Whether every node of the old form is one of the new form too, with the same parameters."""
    if new.deprecated or len(new.inputs) < len(old.inputs) or len(new.outputs) < len(old.outputs):
        return False
    for name, attribute in old.attributes.items():
        other = new.attributes.get(name)
        if other is None or other.type != attribute.type or other.default_value != attribute.default_value:
            return False
        if other.required and not attribute.required:
            return False
    if any(a.required and name not in old.attributes for name, a in new.attributes.items()):
        return False
    for index, parameter in enumerate(new.inputs):
        stricter = index >= len(old.inputs) or old.inputs[index].option != _Required
        if parameter.option == _Required and stricter:
            return False
    return True
