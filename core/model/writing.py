"""Writing a model: the very bytes that were read when nothing changed, and never half a file."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

import onnx

from onnx_rewrite.collector import collector_paused
from onnx_rewrite.errors import ModelError, UsageError
from onnx_rewrite.model import external, formats
from onnx_rewrite.model.edits import Edits
from onnx_rewrite.model.fidelity import Rebuild
from onnx_rewrite.model.files import (
    check_output_folder,
    explain_oserror,
    removed_on_failure,
    same_content,
    same_file,
    share_blocks,
    write_atomically,
)
from onnx_rewrite.model.loading import LoadedModel
from onnx_rewrite.model.soundness import make_sound


def is_edited(loaded: LoadedModel) -> bool:
    """Whether anything in ``loaded.ir`` differs from what was read."""
    return Edits(loaded.origin, loaded.ir).any


def to_proto(loaded: LoadedModel) -> onnx.ModelProto:
    """Returns the model with its edits, a message of its own; external tensors stay external in it.

    What no edit touched is field by field what was read. Nodes are in topological order as soon as anything was edited.

    Raises:
        ModelError: When the edits left a value without a producer, or removed what training_info or a quantization
            annotation refers to.
    """
    with collector_paused():
        return _message_with(Edits(loaded.origin, loaded.ir), loaded)


def _message_with(edits: Edits, loaded: LoadedModel) -> onnx.ModelProto:
    if not edits.any:
        proto = onnx.ModelProto()
        proto.CopyFrom(loaded.proto)
        return proto
    if make_sound(loaded.ir, loaded.where):
        edits = Edits(loaded.origin, loaded.ir)
    return Rebuild(edits, loaded.base_dir, loaded.where).model()


def save(
    loaded: LoadedModel,
    path: str | os.PathLike[str],
    *,
    overwrite_input: bool = False,
    external_data: external.ExternalData = "keep",
) -> Path:
    """Writes the model with its edits; when nothing changed, the very bytes that were read.

    The form follows the extension. Files appear whole or not at all, weights before the model. In the input's folder,
    or a folder above it, the output refers to the same weight files; elsewhere they are copied beside it under their
    own names, or, where those names are taken, packed into ``<stem>.data``. A model above 2 GiB gets its weights moved
    into such a file. On standard output, unless it is in the input's folder, weights are put into the model.

    Args:
        loaded: The model.
        path: The output file; ``"-"`` is standard output, always protobuf.
        overwrite_input: Allow the output to be the file that the model was read from.
        external_data: What becomes of weights in files of their own. "keep" is as above; copies share their blocks
            with the originals where the file system can (reflinks). "link" insists on that: no byte of a weight is
            written. "copy" gives the output files of its own in the input's folder too. No hard or symbolic links:
            onnx refuses to load through them.

    Returns:
        The path.

    Raises:
        UsageError: When path is the input and ``overwrite_input`` is False, or a file with the input's weights.
        ModelError: When it cannot be written, or the edits broke the model (as in :func:`to_proto`).
    """
    output = Path(path)
    to_stdout = os.fspath(path) == "-"
    if not to_stdout:
        check_output_folder(output)
        _spare_input(loaded, output, overwrite_input)
    serializer = "protobuf" if to_stdout else formats.serializer_of_name(output)
    with collector_paused():
        return _save(loaded, output, serializer, to_stdout, external_data)


def _save(
    loaded: LoadedModel, output: Path, serializer: formats.Serializer, to_stdout: bool, how: external.ExternalData
) -> Path:
    edits = Edits(loaded.origin, loaded.ir)
    unchanged = not edits.any and serializer == loaded.serializer and _has_raw(loaded)
    where = "standard output" if to_stdout else str(output)

    proto: onnx.ModelProto | None = None
    placement = external.Placement([], [])
    if loaded.origin.externals:
        assert loaded.base_dir is not None
        proto = _message_with(edits, loaded)
        if not to_stdout:
            placement = external.place(proto, loaded.base_dir, output, how)
        elif not same_file(loaded.base_dir, Path.cwd()):
            external.embed(proto, loaded.base_dir, where)
            unchanged = False
        unchanged = unchanged and not placement.changes_model
    if not unchanged:
        proto = _message_with(edits, loaded) if proto is None else proto
        if external.inline_bytes(proto) > external.MAX_PROTOBUF_BYTES and serializer == "protobuf":
            if to_stdout:
                raise ModelError(
                    "a model of more than 2 GiB cannot be written to standard output", hint="Use -o FILE.onnx."
                )
            placement.packed.extend(external.move_out(proto))

    made: list[Path] = []
    with removed_on_failure(made):
        _write_weights(placement, output, made, must_share=how == "link")
        if unchanged:
            _write_same(loaded, output, to_stdout, edited_proto=proto)
            return output
        assert proto is not None
        try:
            data = formats.serialize(proto, serializer, where)
        except formats.TooLargeError:
            # What was estimated leaves out nodes, and weights that are attributes.
            moved = [] if to_stdout else external.move_out(proto)
            if not moved:
                raise
            _write_packed(moved, output, made)
            data = formats.serialize(proto, serializer, where)
        if to_stdout:
            _to_stdout(data)
        else:
            write_atomically(output, lambda file: _ignore(file.write(data)))
    return output


def _spare_input(loaded: LoadedModel, output: Path, overwrite_input: bool) -> None:
    if loaded.path is not None and same_file(loaded.path, output) and not overwrite_input:
        raise UsageError(f"{output} is the input; it is not overwritten", hint="Use --in-place, or another -o.")
    for location in {os.fspath(tensor.location) for tensor in loaded.origin.externals}:
        assert loaded.base_dir is not None
        if same_file(loaded.base_dir / location, output):
            raise UsageError(f"{output} holds the input's weights; it is not overwritten", hint="Use another -o.")


def _has_raw(loaded: LoadedModel) -> bool:
    return loaded.raw is not None or loaded.path is not None


def _write_same(loaded: LoadedModel, output: Path, to_stdout: bool, *, edited_proto: onnx.ModelProto | None) -> None:
    """Writes the bytes that were read; a large file is read again, and serialized if it is no longer the same."""
    if loaded.raw is not None:
        data = loaded.raw
        if to_stdout:
            _to_stdout(data)
        else:
            write_atomically(output, lambda file: _ignore(file.write(data)))
        return
    assert loaded.path is not None
    data = loaded.path.read_bytes() if loaded.path.exists() else b""
    if hashlib.sha256(data).hexdigest() != loaded.sha256:
        data = formats.serialize(edited_proto or loaded.proto, loaded.serializer, str(output))
    if to_stdout:
        _to_stdout(data)
    else:
        write_atomically(output, lambda file: _ignore(file.write(data)))


def _write_weights(placement: external.Placement, output: Path, made: list[Path], *, must_share: bool) -> None:
    if must_share and placement.packed:
        name = placement.packed[0][0].name
        raise ModelError(
            f"cannot share the weights of {output}: the name of the file with '{name}' is taken in that folder",
            hint="Choose another folder, or --external-data copy.",
        )
    for source, target in placement.copies:
        _make_folders(target.parent, made)
        made.append(target)
        _copy(source, target, must_share=must_share)
    if placement.packed:
        _write_packed(placement.packed, output, made)


def _copy(source: Path, target: Path, *, must_share: bool = False) -> None:
    def fill(out: BinaryIO) -> None:
        if share_blocks(file, out):
            return
        if must_share:
            raise ModelError(
                f"cannot share the weights in {source} with {target}: the file system has no reflinks between them",
                hint="Write into the input's folder, or use --external-data copy.",
            )
        shutil.copyfileobj(file, out, 1 << 22)

    try:
        with open(source, "rb") as file:
            write_atomically(target, fill)
    except OSError as error:
        raise explain_oserror(error, source, "read") from error


def _write_packed(packed: list[tuple[onnx.TensorProto, external.WholeTensor]], output: Path, made: list[Path]) -> None:
    """Writes the packed weights under the first name that is free, or that holds the same bytes already."""
    with _scratch_file(output) as (scratch, file):
        offsets = external.write_packed(packed, file)
        file.close()
        for count in itertools.count():
            name = f"{output.stem}.data" if not count else f"{output.stem}.{count}.data"
            target = output.parent / name
            if not os.path.lexists(target):
                made.append(target)
                _copy(scratch, target)
            elif not (target.is_file() and same_content(scratch, target)):
                continue
            external.refer(packed, offsets, name)
            return


@contextlib.contextmanager
def _scratch_file(output: Path) -> Generator[tuple[Path, BinaryIO], None, None]:
    try:
        handle, name = tempfile.mkstemp(prefix=f".{output.name[:100]}.", suffix=".data.tmp", dir=output.parent)
    except OSError as error:
        raise explain_oserror(error, output, "write") from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield Path(name), file
    except OSError as error:
        raise explain_oserror(error, output, "write the weights of") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name)


def _make_folders(folder: Path, made: list[Path]) -> None:
    if folder.is_dir():
        return
    _make_folders(folder.parent, made)
    try:
        folder.mkdir()
    except OSError as error:
        raise explain_oserror(error, folder, "create") from error
    made.append(folder)


def _to_stdout(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise explain_oserror(error, Path("standard output"), "write to") from error


def _ignore(_: object) -> None:
    """A writer's count of bytes is of no use."""
