"""What the text syntax of onnx would drop of a model without a word.

That syntax has no place for several fields (doc strings and metadata_props of many messages, quantization annotations,
training_info), and which ones differs between releases of onnx. So the text is read back and compared.
"""

from __future__ import annotations

from typing import Any

import onnx
import onnx.numpy_helper
import onnx.parser
from google.protobuf.message import Message

from onnx_rewrite.model.external import tensors_of_model


def what_onnxtxt_loses(proto: onnx.ModelProto, text: str) -> list[str]:
    """Returns the fields that a model and its text differ in, such as ``node.doc_string``; empty if none.

    Two spellings of the same tensor, or an empty string that is present in one of them only, are no difference.
    """
    return sorted(_differences(_plain(proto), _plain(onnx.parser.parse_model(text)), ""))


def _plain(proto: onnx.ModelProto) -> onnx.ModelProto:
    plain = onnx.ModelProto()
    plain.CopyFrom(proto)
    for tensor in tensors_of_model(plain):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.data_type == onnx.TensorProto.STRING:
            continue
        data = onnx.numpy_helper.to_array(tensor).tobytes()
        for field in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            tensor.ClearField(field)  # type: ignore[arg-type]
        tensor.raw_data = data
    _drop_empty_strings(plain)
    return plain


def _drop_empty_strings(message: Message) -> None:
    for descriptor, value in message.ListFields():
        if isinstance(value, Message):
            _drop_empty_strings(value)
        elif value == "":
            message.ClearField(descriptor.name)
        elif descriptor.message_type is not None:
            for item in value:
                _drop_empty_strings(item)


def _differences(first: Message, second: Message, place: str) -> set[str]:
    """The fields, by their path without indices, in which two messages differ."""
    found: set[str] = set()
    left: dict[str, Any] = {descriptor.name: value for descriptor, value in first.ListFields()}
    right: dict[str, Any] = {descriptor.name: value for descriptor, value in second.ListFields()}
    for name in left.keys() | right.keys():
        a: Any = left.get(name)
        b: Any = right.get(name)
        path = f"{place}.{name}" if place else name
        kind = first.DESCRIPTOR.fields_by_name[name].message_type
        if a is None or b is None:
            found.add(path)
        elif isinstance(a, Message):
            found |= _differences(a, b, path)
        elif kind is not None and len(a) == len(b):
            for item, other in zip(a, b, strict=True):
                found |= _differences(item, other, path)
        elif kind is not None or (a != b and str(a) != str(b)):  # as text, NaN is equal to itself
            found.add(path)
    return found
