"""Weights that lie in files of their own: found, checked without reading them, and placed beside an output.

The rules are ONNX's (docs/ExternalData.md): ``location`` is a POSIX path relative to the model's folder, inside it;
``offset`` and ``length`` are bytes; without a length the tensor takes what its dtype and dims need.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO, Literal, TypeAlias, cast

import onnx
import onnx_ir as ir

from onnx_rewrite.errors import ModelError
from onnx_rewrite.model.files import same_content, same_file

# What protobuf can hold in one message (onnx.checker.MAXIMUM_PROTOBUF). A name of this module, so that tests reach it.
MAX_PROTOBUF_BYTES = 2**31 - 1

# A tensor that can be written to a file piece by piece.
WholeTensor: TypeAlias = "ir.ExternalTensor | ir.serde.TensorProtoTensor"

ExternalData: TypeAlias = Literal["keep", "link", "copy"]
"""What becomes of weights in files of their own: the output refers to them where it can, shares their blocks on the
disk, or gets files of its own."""

# Smaller tensors stay in the model when weights are moved out of it: onnx's own default.
MIN_EXTERNAL_BYTES = 1024


def tensors_of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yields every tensor of a graph and of the bodies in it: initializers, sparse ones, attributes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _tensors_of_nodes(graph.node)


def tensors_of_model(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yields every tensor of a model, functions and training_info included."""
    yield from tensors_of_graph(proto.graph)
    for function in proto.functions:
        yield from _tensors_of_nodes(function.node)
    for training in proto.training_info:
        yield from tensors_of_graph(training.initialization)
        yield from tensors_of_graph(training.algorithm)


def _tensors_of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    kinds = onnx.AttributeProto
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == kinds.TENSOR:
                yield attribute.t
            elif attribute.type == kinds.GRAPH:
                yield from tensors_of_graph(attribute.g)
            elif attribute.type == kinds.TENSORS:
                yield from attribute.tensors
            elif attribute.type == kinds.GRAPHS:
                for graph in attribute.graphs:
                    yield from tensors_of_graph(graph)
            elif attribute.type in (kinds.SPARSE_TENSOR, kinds.SPARSE_TENSORS):
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    yield sparse.values
                    yield sparse.indices


def check_external(tensors: Sequence[ir.ExternalTensor], base_dir: Path, where: str) -> None:
    """Checks that the data of every tensor is there, by the file system's word alone: nothing is read.

    Raises:
        ModelError: For a location outside ``base_dir`` (absolute, ``..``, through a symbolic link, or a hard link,
            which onnx and onnx-ir refuse too), a file that is missing, or one shorter than the tensor needs.
    """
    sizes: dict[str, int] = {}
    for tensor in tensors:
        location = os.fspath(tensor.location)
        if location not in sizes:
            sizes[location] = _size_inside(location, base_dir, f"{where}: tensor '{tensor.name}'")
        offset = tensor.offset or 0
        length = tensor.length if tensor.length is not None else tensor.nbytes
        if length < tensor.nbytes:
            raise ModelError(
                f"{where}: tensor '{tensor.name}' needs {tensor.nbytes} bytes, but its external data declares {length}",
                hint="The model file is damaged; export it again.",
            )
        if offset + length > sizes[location]:
            raise ModelError(
                f"{where}: tensor '{tensor.name}' needs bytes {offset} to {offset + length} of {base_dir / location}, "
                f"which has only {sizes[location]}",
                hint="The data file is cut off or belongs to another model; copy it again.",
            )


def _size_inside(location: str, base_dir: Path, subject: str) -> int:
    """The size of a data file, once it is sure that it lies inside the model's folder."""
    outside = ModelError(
        f"{subject} refers to external data outside the model's folder: {location!r} (path traversal, refused)",
        hint=f"Copy the data file into {base_dir} and refer to it by a relative path.",
    )
    if not location:
        raise ModelError(f"{subject} is external but names no data file", hint="Export the model again.")
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    if posix.is_absolute() or windows.drive or windows.root:
        raise outside
    if not Path(os.path.normpath(base_dir / location)).is_relative_to(os.path.normpath(base_dir)):
        raise outside
    path = base_dir / location
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(base_dir)):
        raise outside
    try:
        status = path.stat()
    except OSError as error:
        raise ModelError(
            f"{subject} refers to external data that is missing: {path}",
            hint="Put the data file beside the model; it has to travel with it.",
        ) from error
    if not path.is_file():
        raise ModelError(f"{subject} refers to external data that is no file: {path}")
    if status.st_nlink > 1:
        raise ModelError(
            f"{subject} refers to external data with several hard links: {path} (refused, as onnx does: "
            "it may be a file from outside the model's folder)",
            hint="Replace the link by a copy: cp FILE FILE.copy && mv FILE.copy FILE.",
        )
    return status.st_size


def external_tensor(proto: onnx.TensorProto, base_dir: Path) -> ir.ExternalTensor:
    """The lazily mapped tensor behind a TensorProto whose data is external."""
    tensor = ir.serde.deserialize_tensor(proto, base_dir)
    assert isinstance(tensor, ir.ExternalTensor)
    return tensor


def inline_bytes(proto: onnx.ModelProto) -> int:
    """About how many bytes the weights take that lie in the model itself (from dtypes and dims, nothing is read)."""
    total = 0
    for tensor in proto.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            total += _nbytes(tensor)
    return total


def _nbytes(tensor: onnx.TensorProto) -> int:
    size = 1
    for dim in tensor.dims:
        size *= dim
    try:
        return int(size * ir.DataType(tensor.data_type).itemsize)
    except (ValueError, TypeError, KeyError):  # strings and dtypes without a size
        return 0


@dataclass
class Placement:
    """What has to be written beside a model so that its weights are found: whole copies, and one packed file."""

    copies: list[tuple[Path, Path]]  # (from, to)
    packed: list[tuple[onnx.TensorProto, WholeTensor]]  # to be written into one new file, then referred to
    moved: bool = False  # whether locations in the message were changed

    @property
    def changes_model(self) -> bool:
        """Whether the model's own references have to be rewritten."""
        return self.moved or bool(self.packed)


def place(proto: onnx.ModelProto, base_dir: Path, output: Path, how: ExternalData = "keep") -> Placement:
    """Plans where the external weights go when ``proto`` is written to ``output``; touches no file.

    In the folder of the input nothing moves, and from a folder above it the output refers down to the same files,
    unless a copy is asked for. Elsewhere the data files keep their relative names where those are free (or hold the
    same bytes already); the tensors of the other files are packed into one new file.
    """
    placement = Placement([], [])
    folder = output.parent
    if how == "keep" and same_file(folder, base_dir):
        return placement
    if how == "keep" and _refer_down(proto, base_dir, folder, placement):
        return placement
    decided: dict[str, bool] = {}
    beside = same_file(folder, base_dir)
    for tensor in tensors_of_model(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        source = external_tensor(tensor, base_dir)
        location = os.fspath(source.location)
        if beside:
            if how == "copy":
                placement.packed.append((tensor, source))
            continue
        if location not in decided:
            origin, target = base_dir / location, folder / location
            free = not os.path.lexists(target) and os.path.normpath(target) != os.path.normpath(output)
            decided[location] = free or (
                target.is_file() and not same_file(target, output) and same_content(origin, target)
            )
            if free:
                placement.copies.append((origin, target))
        if not decided[location]:
            placement.packed.append((tensor, source))
    return placement


def _refer_down(proto: onnx.ModelProto, base_dir: Path, folder: Path, placement: Placement) -> bool:
    """Makes locations relative to ``folder`` if the input lies below it; a location may not leave its folder."""
    try:
        below = base_dir.resolve().relative_to(folder.resolve())
    except ValueError:
        return False
    for tensor in tensors_of_model(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = (below / entry.value).as_posix()
    placement.moved = True
    return True


def move_out(proto: onnx.ModelProto) -> list[tuple[onnx.TensorProto, WholeTensor]]:
    """The tensors to pack into a data file because the model is too large for protobuf with them inside."""
    chosen: list[tuple[onnx.TensorProto, WholeTensor]] = []
    for tensor in tensors_of_model(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL and _nbytes(tensor) >= MIN_EXTERNAL_BYTES:
            chosen.append((tensor, cast("WholeTensor", ir.serde.deserialize_tensor(tensor))))
    return chosen


def write_packed(packed: Sequence[tuple[onnx.TensorProto, WholeTensor]], file: BinaryIO) -> list[int]:
    """Writes the tensors one after the other, in bounded memory; returns their offsets."""
    offsets: list[int] = []
    for _, tensor in packed:
        offsets.append(file.tell())
        tensor.tofile(file)
        if isinstance(tensor, ir.ExternalTensor):
            tensor.release()
    return offsets


def refer(packed: Sequence[tuple[onnx.TensorProto, WholeTensor]], offsets: Sequence[int], location: str) -> None:
    """Makes the TensorProtos refer to the packed file."""
    for (proto, tensor), offset in zip(packed, offsets, strict=True):
        for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            proto.ClearField(field)  # type: ignore[arg-type]
        del proto.external_data[:]
        proto.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", tensor.nbytes)):
            proto.external_data.add(key=key, value=str(value))


def embed(proto: onnx.ModelProto, base_dir: Path, where: str) -> None:
    """Puts every external tensor's bytes into the model itself (standard output has no folder for files).

    Raises:
        ModelError: When the model would exceed what protobuf holds.
    """
    external = [t for t in tensors_of_model(proto) if t.data_location == onnx.TensorProto.EXTERNAL]
    total = sum(_nbytes(tensor) for tensor in external) + inline_bytes(proto)
    if total > MAX_PROTOBUF_BYTES:
        raise ModelError(
            f"{where}: the weights take {total} bytes, and a model of more than 2 GiB cannot be written in one stream",
            hint="Write to a file with -o FILE.onnx; the weights then go beside it.",
        )
    for tensor in external:
        source = external_tensor(tensor, base_dir)
        data = source.tobytes() if source.nbytes else b""
        source.release()
        tensor.raw_data = data[: source.nbytes]
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
