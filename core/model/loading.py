"""Reading a model from wherever it is, with everything that writing it back faithfully will need."""

from __future__ import annotations

import difflib
import hashlib
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from onnx_rewrite.collector import collector_paused
from onnx_rewrite.errors import ModelError, UsageError
from onnx_rewrite.model import formats
from onnx_rewrite.model.carried import kept_names
from onnx_rewrite.model.deserializing import deserialize
from onnx_rewrite.model.external import MAX_PROTOBUF_BYTES, check_external, inline_bytes
from onnx_rewrite.model.files import explain_oserror
from onnx_rewrite.model.origin import ModelOrigin, UnknownValueError, record
from onnx_rewrite.model.structure import cycle_error, find_fault

# A larger file is not kept in memory beside the message parsed from it; writing it unchanged reads it again.
KEEP_RAW_BYTES = 64 * 2**20


@dataclass(eq=False)
class LoadedModel:
    """A model as the engine edits it, beside the model as it was read.

    Attributes:
        ir: What the engine edits. Nodes are in topological order.
        path: The file it came from, None for a model that came from memory or a stream.
        format: How it was written: ``protobuf``, ``text`` (both text forms) or ``json``.
        base_dir: The folder that relative external data lies in; None if there is none.
        raw: The bytes it was read from, unless it came from memory or is large.
        was_sorted: Whether the nodes were in topological order when read. An unsorted model is written back unsorted
            as long as nothing is edited.
        where: What messages call the model.
    """

    ir: ir.Model
    path: Path | None
    format: formats.Format
    base_dir: Path | None
    raw: bytes | None = field(repr=False)
    was_sorted: bool
    where: str
    serializer: formats.Serializer = field(repr=False)
    origin: ModelOrigin = field(repr=False)
    digest: str | None = field(default=None, repr=False)

    @property
    def proto(self) -> onnx.ModelProto:
        """The model as it was read; nobody may change it. External tensors are external in it."""
        self.origin.restore_names()
        return self.origin.proto

    @property
    def kept_names(self) -> frozenset[str]:
        """The names of values that quantization annotations or training_info refer to: no edit may remove them."""
        return kept_names(self.origin.proto)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the bytes read, in hexadecimal (for a model from memory, of its deterministic bytes)."""
        if self.digest is None:
            self.digest = _digest_of_message(self.proto)
        return self.digest


def load(source: Any) -> LoadedModel:
    """Reads a model.

    Args:
        source: A path (the extension says protobuf, text or JSON), ``"-"`` for standard input, bytes, an open binary
            file, an ``onnx.ModelProto``, an ``onnx_ir.Model`` or an onnx-graphsurgeon graph. It is not changed.
            Relative external data is looked for beside the file, for the others in the working directory.

    Returns:
        The model. Weights in files of their own are mapped, not read.

    Raises:
        ModelError: When there is no such file, it is no ONNX model, or the model is not sound: a value without a
            producer or with two, a cycle, external data that is missing, too short, or outside the model's folder.
        UsageError: When source is of another type.
    """
    path: Path | None = None
    data = b""
    base_dir = Path.cwd()
    serializer: formats.Serializer = "protobuf"
    where = "the model"
    if isinstance(source, onnx.ModelProto):
        proto = onnx.ModelProto()
        proto.CopyFrom(source)
        _require_model(proto)
    elif isinstance(source, ir.Model):
        base_dir = _base_dir_of(source) or base_dir
        proto = _message_of(source)
    elif type(source).__module__.startswith("onnx_graphsurgeon"):
        import onnx_graphsurgeon as gs  # type: ignore[import-not-found]

        try:
            proto = gs.export_onnx(source)
        except Exception as error:
            raise ModelError(f"the gs.Graph cannot be written as ONNX: {' '.join(str(error).split())[:200]}") from error
    else:
        if isinstance(source, (bytes, bytearray, memoryview)):
            data = bytes(source)
        elif source == "-":
            data, where = sys.stdin.buffer.read(), "standard input"
        elif isinstance(source, (str, os.PathLike)):
            path = Path(os.fspath(source))
            data, where, base_dir = _read(path), str(path), path.parent
        elif callable(getattr(source, "read", None)):
            data, where = _read_stream(source)
        else:
            raise UsageError(
                f"cannot load a model from {type(source).__name__}",
                hint="Give a path, bytes, a binary file, an onnx.ModelProto, an onnx_ir.Model or a gs.Graph.",
            )
        named = path is not None and path.suffix
        serializer = formats.serializer_of_name(path) if named and path else formats.serializer_of_content(data)
        proto = formats.parse(data, serializer, where)
    digest = hashlib.sha256(data).hexdigest() if data else None
    raw = data if data and (len(data) <= KEEP_RAW_BYTES or path is None) else None
    with collector_paused():
        origin = _interpret(proto, where)
    for tensor in origin.externals:
        tensor.base_dir = base_dir
    try:
        check_external(origin.externals, base_dir, where)
    except ModelError as error:
        if path is None:
            error.hint = "Give the path of the model, or run in its folder: nothing else says where its weights are."
        raise
    return LoadedModel(
        ir=origin.model,
        path=path,
        format=formats.FORMAT_OF[serializer],
        base_dir=base_dir if path is not None or origin.externals else None,
        raw=raw,
        was_sorted=origin.was_sorted,
        where=where,
        serializer=serializer,
        origin=origin,
        digest=digest,
    )


def reload(loaded: LoadedModel) -> LoadedModel:
    """Returns the same model as it was read, without edits, ready for other ones; no file is read again.

    The two share the protobuf messages, and so the weights, but no object of the IR.
    """
    with collector_paused():
        origin = _interpret(loaded.proto, loaded.where)
    for tensor in origin.externals:
        tensor.base_dir = loaded.base_dir or Path.cwd()
    return replace(loaded, ir=origin.model, origin=origin)


def _interpret(proto: onnx.ModelProto, where: str) -> ModelOrigin:
    """Builds the IR and its record, and sorts the IR."""
    model, stand_in = deserialize(proto, where)
    try:
        origin = record(model, proto, where, stand_in=stand_in)
    except UnknownValueError:
        fault = find_fault(proto, where)
        if fault is not None or stand_in:
            raise fault or ModelError(f"{where} is not a valid model: a value in it has no producer") from None
        # Nothing is wrong with the names: a body has sparse initializers, which onnx_ir does not see.
        model, stand_in = deserialize(proto, where, stand_in=True)
        try:
            origin = record(model, proto, where, stand_in=True)
        except UnknownValueError:
            raise ModelError(f"{where} is not a valid model: a value in it has no producer") from None
    if not origin.was_sorted:
        owners = [model.graph, *(function.graph for function in model.functions.values())]
        try:
            for graph in owners:
                graph.sort()
        except ValueError as error:
            raise cycle_error(owners, where) from error
        for graph, found in origin.graphs.items():
            found.order = list(graph)
    if not model.graph.opset_imports and proto.ir_version < 3:
        model.graph.opset_imports[""] = 1
        origin.graphs[model.graph].opset_imports = {"": 1}
    return origin


def _read(path: Path) -> bytes:
    if path.is_dir():
        models = sorted(child.name for child in path.glob("*.onnx"))
        hint = f"Give a file in it, such as {models[0]}." if models else "Give a model file."
        raise ModelError(f"{path} is a folder, not a model", hint=hint)
    try:
        size = path.stat().st_size
        if size > MAX_PROTOBUF_BYTES and formats.serializer_of_name(path) == "protobuf":
            raise ModelError(
                f"{path} has {size} bytes; a protobuf model holds at most 2 GiB, so this is no ONNX model",
                hint="If it is a weights file, give the .onnx file that refers to it.",
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        siblings = [child.name for child in path.parent.glob("*")] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, siblings, n=1)
        hint = f"Did you mean {path.parent / near[0]}?" if near else "Check the path."
        raise ModelError(f"cannot read {path}: no such file", hint=hint) from error
    except OSError as error:
        raise explain_oserror(error, path, "read") from error


def _read_stream(stream: Any) -> tuple[bytes, str]:
    data = stream.read()
    if not isinstance(data, bytes):
        raise UsageError("cannot load a model from a text stream", hint="Open the file in binary mode, 'rb'.")
    name = getattr(stream, "name", None)
    return data, name if isinstance(name, str) else "the stream"


def _require_model(proto: onnx.ModelProto) -> None:
    if not proto.HasField("graph"):
        raise ModelError("the onnx.ModelProto has no graph", hint="Build it with onnx.helper.make_model.")


def _base_dir_of(model: ir.Model) -> Path | None:
    """The one folder that the external tensors of an IR model lie in."""
    folders: set[str] = set()
    for graph in model.graphs():
        for value in graph.initializers.values():
            if type(value.const_value) is ir.ExternalTensor:
                folders.add(os.path.abspath(value.const_value.base_dir or "."))
    if len(folders) > 1:
        raise ModelError(
            f"the model's external data lies in several folders: {', '.join(sorted(folders))}",
            hint="Save the model with onnx_ir.save and give the path.",
        )
    return Path(folders.pop()) if folders else None


def _message_of(model: ir.Model) -> onnx.ModelProto:
    # onnx_ir gives tensors the names of their values when it writes; the caller's model stays as it is.
    tensors = [value.const_value for graph in model.graphs() for value in graph.initializers.values()]
    names = [None if tensor is None else tensor.name for tensor in tensors]
    try:
        return ir.serde.serialize_model(model)
    except Exception as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise ModelError(f"the onnx_ir.Model cannot be written as ONNX: {reason}") from error
    finally:
        for tensor, name in zip(tensors, names, strict=True):
            if tensor is not None and tensor.name != name:
                tensor.name = name


def _digest_of_message(proto: onnx.ModelProto) -> str:
    if inline_bytes(proto) < MAX_PROTOBUF_BYTES // 2:
        return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()
    # Near protobuf's limit: the parts one after the other.
    digest = hashlib.sha256()
    for tensor in proto.graph.initializer:
        digest.update(tensor.SerializeToString(deterministic=True))
    for node in proto.graph.node:
        digest.update(node.SerializeToString(deterministic=True))
    return digest.hexdigest()
