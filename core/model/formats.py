"""The four spellings of a model file, and which one a file name or a file's first bytes ask for.

Parsing and printing are :mod:`onnx.serialization`'s; here are only the choice among its serializers and errors
that a user can act on.
"""

from __future__ import annotations

import warnings
from pathlib import PurePath
from typing import Literal

import google.protobuf.message
import onnx
import onnx.serialization

from onnx_rewrite.errors import ModelError
from onnx_rewrite.model.textual import what_onnxtxt_loses

Serializer = Literal["protobuf", "textproto", "onnxtxt", "json"]
Format = Literal["protobuf", "text", "json"]

FORMAT_OF: dict[Serializer, Format] = {"protobuf": "protobuf", "textproto": "text", "onnxtxt": "text", "json": "json"}

# What people hand over by mistake, by its first bytes.
_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive (perhaps a PyTorch checkpoint)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x7fELF", "an ELF binary"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file it stands for"),
    (b"<!DOCTYPE", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"\x89HDF", "an HDF5 file"),
)


def serializer_of_name(name: str | PurePath) -> Serializer:
    """Returns the serializer that a file's extension asks for; protobuf for every unknown extension."""
    found = onnx.serialization.registry.get_format_from_file_extension(PurePath(name).suffix.lower())
    return found if found in FORMAT_OF else "protobuf"  # type: ignore[return-value]


def serializer_of_content(data: bytes) -> Serializer:
    """Returns the serializer that data without a file name was written with.

    A protobuf model starts with the tag of one of ModelProto's fields, in practice 0x08 (ir_version).
    """
    head = data[:64].lstrip()
    if head.startswith(b"{"):
        return "json"
    if head.startswith(b"<") and not data.startswith((b"<!", b"<html")):
        return "onnxtxt"
    if head[:1].isalpha() and data[:64].isascii() and (b":" in data[:64] or b"{" in data[:64]):
        return "textproto"
    return "protobuf"


def parse(data: bytes, serializer: Serializer, where: str) -> onnx.ModelProto:
    """Parses a model.

    Args:
        data: The file's bytes.
        serializer: How they are written.
        where: The file's name, for messages.

    Raises:
        ModelError: When data is empty, cut off, of another kind, or no model.
    """
    if not data:
        raise ModelError(f"{where} is empty (0 bytes)", hint="Export or download the model again.")
    for magic, kind in _FOREIGN:
        if data.startswith(magic):
            hint = "Fetch the real file with `git lfs pull`." if "LFS" in kind else "Give an ONNX model."
            raise ModelError(f"{where} is not an ONNX model: it is {kind}", hint=hint)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # onnx warns that onnxtxt is experimental on every use
            proto = onnx.serialization.registry.get(serializer).deserialize_proto(data, onnx.ModelProto())
    except Exception as error:  # every serializer has its own exceptions; none of them may reach a user
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{where} cannot be read as an ONNX model ({serializer}, {len(data)} bytes): "
            f"the file is cut off or of another kind ({reason})",
            hint="Compare the file's size with its source, or export it again.",
        ) from error
    if not proto.HasField("graph") or not proto.ir_version:
        missing = "graph" if proto.ir_version else "ir_version"
        raise ModelError(
            f"{where} is not an ONNX model: it has no {missing}",
            hint="Give a file that holds a ModelProto (not a TensorProto or a bare GraphProto), whole.",
        )
    # Before IR version 3 a model had no opset_import and meant opset 1.
    if not proto.opset_import and proto.ir_version >= 3:
        raise ModelError(
            f"{where} is not a valid ONNX model: it has no opset_import", hint="Export it again, or add the opset."
        )
    return proto


class TooLargeError(ModelError):
    """A model that protobuf cannot hold in one message."""


def serialize(proto: onnx.ModelProto, serializer: Serializer, where: str) -> bytes:
    """Returns the model's bytes; the same proto gives the same bytes.

    Raises:
        TooLargeError: When the model is above protobuf's 2 GiB.
        ModelError: When the form cannot hold the model (fields that onnxtxt has no syntax for).
    """
    try:
        if serializer == "protobuf":
            return _protobuf_bytes(proto)
        data = onnx.serialization.registry.get(serializer).serialize_proto(proto)
        if serializer == "onnxtxt":
            lost = what_onnxtxt_loses(proto, data.decode())
        else:
            lost = [] if _holds(proto, data, serializer) else ["fields that this onnx does not know"]
    except (google.protobuf.message.EncodeError, ValueError) as error:
        if serializer != "protobuf":
            raise _unwritable(where, serializer, error) from error
        raise TooLargeError(
            f"{where} cannot be written: protobuf holds at most 2 GiB ({error})",
            hint="Write to a file with -o FILE.onnx; large weights then go beside it.",
        ) from error
    except Exception as error:
        raise _unwritable(where, serializer, error) from error
    if lost:
        raise ModelError(
            f"{where} cannot be written as {serializer}: this form loses {', '.join(lost)}",
            hint="Write .onnx (or, unless it was that, .textproto or .json), which holds everything.",
        )
    return data


def _protobuf_bytes(proto: onnx.ModelProto) -> bytes:
    return proto.SerializeToString(deterministic=True)


def _unwritable(where: str, serializer: Serializer, error: Exception) -> ModelError:
    reason = " ".join(str(error).split())[:200]
    return ModelError(f"{where} cannot be written as {serializer}: {reason}", hint="Write an .onnx file.")


def _holds(proto: onnx.ModelProto, data: bytes, serializer: Serializer) -> bool:
    back = onnx.serialization.registry.get(serializer).deserialize_proto(data, onnx.ModelProto())
    return back.SerializeToString(deterministic=True) == proto.SerializeToString(deterministic=True)
