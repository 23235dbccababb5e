"""Writing single IR objects into protobuf messages that already hold what the file said, changing only what differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from onnx_rewrite.model.origin import TypeRecord


def copy_shell(target: Message, source: Message, without: Iterable[str]) -> None:
    """Copies a message except for the named (large) fields; fields that this onnx does not know are kept too."""
    if len(UnknownFieldSet(source)):
        target.CopyFrom(source)
        for name in without:
            if name in target.DESCRIPTOR.fields_by_name:
                target.ClearField(name)
        return
    skipped = frozenset(without)
    for descriptor, value in source.ListFields():
        name = descriptor.name
        if name in skipped:
            continue
        if isinstance(value, Message):
            getattr(target, name).CopyFrom(value)
        elif hasattr(value, "MergeFrom") or hasattr(value, "extend"):
            getattr(target, name).MergeFrom(value)
        else:
            setattr(target, name, value)


def set_text(message: Any, field: str, value: str | None) -> None:
    """Sets a string field, if it says something else; what is empty and was absent stays absent."""
    if value:
        if getattr(message, field) != value:
            setattr(message, field, value)
    elif getattr(message, field):
        message.ClearField(field)


def set_metadata(entries: Any, properties: Mapping[str, str]) -> None:
    """Makes a repeated field of StringStringEntryProto say what a mapping says, keeping the order of what stays."""
    if not entries and not properties:
        return
    if {entry.key: entry.value for entry in entries} == properties:
        return
    kept = [(entry.key, properties[entry.key]) for entry in entries if entry.key in properties]
    known = {key for key, _ in kept}
    added = [(key, properties[key]) for key in sorted(properties) if key not in known]
    del entries[:]
    for key, value in (*kept, *added):
        entries.add(key=key, value=value)


def set_opsets(entries: Any, before: Mapping[str, int], now: Mapping[str, int]) -> None:
    """Applies the changes of opset imports, leaving the file's spelling and order where nothing changed."""
    if before == now:
        return
    kept: list[onnx.OperatorSetIdProto] = []
    seen: set[str] = set()
    for entry in entries:
        domain = entry.domain
        if domain == "ai.onnx" and domain not in now:
            domain = ""
        seen.add(domain)
        if domain in now:
            copy = onnx.OperatorSetIdProto()
            copy.CopyFrom(entry)
            if now[domain] != before.get(domain):
                copy.version = now[domain]
            kept.append(copy)
    del entries[:]
    entries.extend(kept)
    for domain, version in now.items():
        # A model of IR version 1 or 2 has no imports, and the IR may have been given its implicit one.
        if domain not in seen and before.get(domain) != version:
            entries.add(domain=domain, version=version)


def write_tensor(target: onnx.TensorProto, tensor: ir.TensorProtocol, name: str | None, base_dir: object) -> None:
    """Writes a tensor under a name.

    An external tensor of the model's own folder stays external; one of another folder is taken in.
    """
    if type(tensor) is ir.serde.TensorProtoTensor:
        target.CopyFrom(tensor.raw)
    elif type(tensor) is ir.ExternalTensor and str(tensor.base_dir) != str(base_dir):
        target.data_type = tensor.dtype.value
        target.dims.extend(tensor.shape.numpy())
        target.raw_data = tensor.tobytes() if tensor.nbytes else b""
    else:
        ir.serde.serialize_tensor_into(target, tensor)
    if name is not None and target.name != name:
        target.name = name


def type_message(value: ir.Value) -> onnx.TypeProto:
    """The type and shape of a value as protobuf."""
    message = onnx.TypeProto()
    if value.type is not None:
        ir.serde.serialize_type_into(message, value.type)
        if value.shape is not None:
            ir.serde.serialize_shape_into(message, value.shape)
    return message


def write_value_info(
    target: onnx.ValueInfoProto,
    value: ir.Value,
    original: onnx.ValueInfoProto | None,
    before: TypeRecord | None,
    noted: tuple[Mapping[str, str], str | None] = ({}, None),
) -> None:
    """Writes a value's entry: what the file said, except where the value says something else now.

    A new value under an old name (a replacement's output) that knows less than the file did takes nothing away.

    Args:
        target: The empty message to fill.
        value: The value as it is.
        original: The file's entry for this name, if it had one.
        before: The type and shape objects that this very value was read with, None for a new value.
        noted: The properties and the doc string that it was read with.
    """
    if original is None:
        ir.serde.serialize_value_into(target, value)
        return
    target.CopyFrom(original)
    if target.name != value.name:
        target.name = value.name or ""
    if before is None:
        if _says_more(value, original.type):
            target.type.CopyFrom(type_message(value))
    elif not (value.type is before[0] and value.shape is before[2] and value.dtype == before[1]):
        message = type_message(value)
        if message.WhichOneof("value") is None:
            target.ClearField("type")
        else:
            target.type.CopyFrom(message)
    # Several entries of one name (an output's and its value_info) share a value, which then knows the notes of both:
    # what counts is the change.
    props, doc_string = noted
    if value.metadata_props != props:
        kept = {entry.key: entry.value for entry in target.metadata_props}
        for key in props.keys() - value.metadata_props.keys():
            kept.pop(key, None)
        kept.update((key, text) for key, text in value.metadata_props.items() if props.get(key) != text)
        set_metadata(target.metadata_props, kept)
    if value.doc_string != doc_string:
        set_text(target, "doc_string", value.doc_string)


def _says_more(value: ir.Value, original: onnx.TypeProto) -> bool:
    """Whether a new value's type contradicts or extends the file's."""
    message = type_message(value)
    if message.WhichOneof("value") is None:
        return False
    if value.shape is None and message.WhichOneof("value") == original.WhichOneof("value"):
        kind = message.WhichOneof("value")
        if kind in ("tensor_type", "sparse_tensor_type"):
            return getattr(message, kind).elem_type != getattr(original, kind).elem_type
    bare = onnx.TypeProto()
    bare.CopyFrom(original)
    for each in (bare, message):
        each.ClearField("denotation")
        if each.HasField("tensor_type"):
            for dim in each.tensor_type.shape.dim:
                dim.ClearField("denotation")
    return bare != message


def write_attribute(target: onnx.AttributeProto, attribute: ir.Attr) -> None:
    """Writes an attribute without bodies; one that onnx_ir cannot hold is the message that it carries."""
    value = attribute.value
    first = value[0] if isinstance(value, tuple) and value else value
    if attribute.is_ref():
        ir.serde.serialize_reference_attribute_into(target, attribute)
    elif isinstance(first, Message) or attribute.type == ir.AttributeType.STRINGS:
        target.name = attribute.name
        target.type = attribute.type.value  # type: ignore[assignment]
        set_text(target, "doc_string", attribute.doc_string)
        field = {
            ir.AttributeType.SPARSE_TENSOR: "sparse_tensor",
            ir.AttributeType.TYPE_PROTO: "tp",
            ir.AttributeType.SPARSE_TENSORS: "sparse_tensors",
            ir.AttributeType.TYPE_PROTOS: "type_protos",
            ir.AttributeType.STRINGS: "strings",
        }[attribute.type]
        if isinstance(value, Message):
            getattr(target, field).CopyFrom(value)
        elif field == "strings":
            target.strings.extend(text if isinstance(text, bytes) else text.encode() for text in value)
        else:
            getattr(target, field).extend(value)
    else:
        ir.serde.serialize_attribute_into(target, attribute)
