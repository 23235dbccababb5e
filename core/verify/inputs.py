"""A user's own feeds: reading them, and saying what is wrong with them."""

from __future__ import annotations

import difflib
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_rewrite.errors import UsageError
from onnx_rewrite.verify.bindings import fed_inputs
from onnx_rewrite.verify.dtypes import Array, numpy_dtype, type_name


def load_inputs(path: str | Path, names: Sequence[str] = ()) -> list[dict[str, Array]]:
    """Feeds from a file or folder.

    Args:
        path: An ``.npz`` file (one feed, an array per input), a folder of them (one feed each, in the order of their
            names), or a folder with ``test_data_set_N/input_K.pb`` (the layout of the ONNX model zoo), or one such
            ``test_data_set_N``.
        names: The model's inputs in order; protobuf files are matched to them by position.

    Raises:
        UsageError: Nothing is there, or it cannot be read.
    """
    path = Path(path)
    if path.is_file():
        return [_npz(path)]
    if not path.is_dir():
        raise UsageError(
            f"{path}: no such file or folder",
            hint="give an .npz file, a folder of them, or a folder with test_data_set_N",
        )
    archives = sorted(path.glob("*.npz"), key=_natural)
    if archives:
        return [_npz(file) for file in archives]
    sets = sorted((p for p in path.glob("test_data_set_*") if p.is_dir()), key=_natural)
    if not sets and list(path.glob("input_*.pb")):
        sets = [path]
    if not sets:
        raise UsageError(f"{path} holds neither .npz files nor test_data_set_N folders")
    return [_protobufs(folder, names) for folder in sets]


def _natural(path: Path) -> tuple[list[int], str]:
    return [int(n) for n in re.findall(r"\d+", path.name)], path.name


def _npz(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if isinstance(archive, np.ndarray):
                raise UsageError(
                    f"{path} holds one array without a name", hint="save it with numpy.savez(path, input_name=array)"
                )
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UsageError(f"{path} cannot be read as .npz: {error}") from error


def _protobufs(folder: Path, names: Sequence[str]) -> dict[str, Array]:
    feeds: dict[str, Array] = {}
    for file in sorted(folder.glob("input_*.pb"), key=_natural):
        position = int(re.findall(r"\d+", file.name)[0]) if re.findall(r"\d+", file.name) else len(feeds)
        try:
            tensor = onnx.TensorProto.FromString(file.read_bytes())
            value = numpy_helper.to_array(tensor)
        except Exception as error:
            raise UsageError(f"{file} is no TensorProto: {error}") from error
        if position < len(names):
            feeds[names[position]] = value
        elif tensor.name and not names:
            feeds[tensor.name] = value
        else:
            raise UsageError(f"{file}: the model has {len(names)} inputs, there is none at position {position}")
    return feeds


def check_feeds(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> None:
    """Holds feeds against the model's inputs.

    Raises:
        UsageError: A name is unknown (with the nearest one), an input is missing, or has the wrong dtype, rank or size.
    """
    inputs = {i.name: i for i in fed_inputs(model)}
    known = [*inputs, *(i.name for i in model.graph.input if i.name not in inputs)]
    for name in feeds:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"the inputs are {', '.join(map(repr, inputs))}"
            raise UsageError(f"the model has no input {name!r}", hint=hint)
    sizes: dict[str, tuple[int, str]] = {}
    for name, wanted in inputs.items():
        if name not in feeds:
            raise UsageError(f"input {name!r} is not fed", hint=f"fed are {', '.join(map(repr, feeds)) or 'none'}")
        value = np.asarray(feeds[name])
        if wanted.elem_type:
            dtype = numpy_dtype(wanted.elem_type)
            strings = wanted.elem_type == onnx.TensorProto.STRING and value.dtype.kind in "OUS"
            if value.dtype != dtype and not strings:
                raise UsageError(
                    f"input {name!r} is {type_name(wanted.elem_type)}, the array fed is {value.dtype}",
                    hint=f"convert it with array.astype({dtype.name!r})",
                )
        if wanted.dims is None:
            continue
        shape = f"[{', '.join(map(str, wanted.dims))}]"
        if value.ndim != len(wanted.dims):
            raise UsageError(
                f"input {name!r} has rank {len(wanted.dims)} {shape}, the array fed has shape {list(value.shape)}"
            )
        for axis, (size, have) in enumerate(zip(wanted.dims, value.shape, strict=True)):
            if isinstance(size, int) and size != have:
                raise UsageError(
                    f"input {name!r} is {shape}, the array fed has {have} on axis {axis}: {list(value.shape)}"
                )
            if isinstance(size, str):
                was, where = sizes.setdefault(size, (have, name))
                if was != have:
                    raise UsageError(f"dimension {size!r} is {was} in input {where!r} and {have} in {name!r}")


def check_shapes(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> None:
    """Holds shapes given by the user against the model's inputs.

    Raises:
        UsageError: An unknown name (with the nearest one), another rank, or another size than a fixed one.
    """
    inputs = {i.name: i for i in fed_inputs(model)}
    for name, shape in shapes.items():
        wanted = inputs.get(name)
        if wanted is None:
            near = difflib.get_close_matches(name, list(inputs), 1)
            hint = f"did you mean {near[0]!r}?" if near else f"the inputs are {', '.join(map(repr, inputs))}"
            raise UsageError(f"the model has no input {name!r}", hint=hint)
        dims = wanted.dims
        fits = dims is None or (
            len(dims) == len(shape) and all(isinstance(d, str) or d == s for d, s in zip(dims, shape, strict=True))
        )
        if not fits or any(s < 0 for s in shape):
            raise UsageError(f"input {name!r} is [{', '.join(map(str, dims or ()))}], which {list(shape)} does not fit")
