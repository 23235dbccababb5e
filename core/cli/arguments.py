"""The arguments that several commands share, and their conversion."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from onnx_rewrite.cli import STDIO_TOKEN
from onnx_rewrite.errors import UsageError


def _path(_type: Any, tokens: Sequence[Any]) -> str:
    value = str(tokens[0].value)
    return "-" if value == STDIO_TOKEN else value


PathOrStdio = Annotated[str, Parameter(converter=_path)]
"""A path, or "-" for standard input or output."""

PASS_GROUP = "onnx_rewrite.passes"
"""Group of the entry points that are passes."""

BUILT_IN = "onnx_rewrite.passes."
# Passes that run where they are named: what they gain depends on the target, and opset 23 is not for everybody yet.
ASKED_FOR = frozenset({"mask", "mhsa", "qkv"})
"""What the entry points of the passes that ship with this program begin with."""

Target = Literal["onnx", "onnxruntime", "tensorrt-8.6", "tensorrt-10", "tensorrt-11", "tensorrt-rtx"]


def parse_shapes(items: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shapes by input name from items like "x=1,3,224,224"; "x=" is the shape of a scalar.

    Raises:
        UsageError: An item has another form, or names an input a second time.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for item in items:
        name, equals, dims = item.rpartition("=")
        try:
            shape = tuple(int(dim) for dim in dims.split(",")) if dims.strip() else ()
        except ValueError:
            shape = (-1,)
        if not equals or not name or any(dim < 0 for dim in shape):
            raise UsageError(f"--shape {item}: not of the form NAME=DIMS", hint="for example --shape x=1,3,224,224")
        if name in shapes:
            raise UsageError(f"--shape gives the shape of {name} twice")
        shapes[name] = shape
    return shapes


def parse_opset(text: str | None) -> int | Literal["keep"] | None:
    """The value of `--opset`.

    Raises:
        UsageError: Neither "keep" nor a positive number.
    """
    if text is None or text == "keep":
        return text
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(f"--opset {text}: neither a number nor 'keep'", hint="for example --opset 17")
    return int(text)


def output_path(model: str, output: str | None, *, in_place: bool, suffix: str = ".rewritten.onnx") -> str:
    """Where the new model goes, checked before any work is done: a path, or "-".

    Args:
        model: The model that is read.
        output: What `-o` says.
        in_place: Whether the model is to be overwritten.
        suffix: What takes the place of the model's suffix where `-o` says nothing.

    Raises:
        UsageError: The options contradict each other, the output would overwrite the input unasked, or the
            output's folder does not exist or cannot be written to.
    """
    if in_place:
        if output is not None:
            raise UsageError("--in-place and -o exclude each other")
        if model == "-":
            raise UsageError("--in-place needs a file, not standard input")
        output = model
    elif output is None:
        if model == "-":
            raise UsageError("a model from standard input needs -o", hint="-o FILE, or -o - for standard output")
        output = str(Path(model).with_suffix(suffix))
    if output == "-":
        return output
    path = writable(output, "-o")
    if not in_place and model != "-" and path.exists() and os.path.exists(model) and path.samefile(model):
        raise UsageError(f"{output} is the model itself", hint="--in-place overwrites it; -o names another file")
    return output


def report_path(report: str | None) -> Path | None:
    """Where the report goes, checked before any work is done.

    Raises:
        UsageError: Another ending than .json and .html, or a folder that cannot be written to.
    """
    if report is None:
        return None
    path = writable(report, "--report")
    if path.suffix.lower() not in (".json", ".html", ".htm"):
        raise UsageError(f"--report {report}: the name must end in .json or .html")
    return path


def writable(name: str, option: str) -> Path:
    """The path `name`, if a file can be put there.

    Raises:
        UsageError: It is a folder, a device or a pipe, or its folder does not exist or cannot be written to.
    """
    path = Path(name)
    folder = path.parent
    if path.is_dir():
        raise UsageError(f"{option} {name}: is a folder", hint="give the name of a file in it")
    if path.exists() and not path.is_file():  # a file is replaced as a whole, which would destroy a device or a pipe
        raise UsageError(f"{option} {name}: is not a regular file", hint="-o - writes to standard output")
    if not folder.is_dir():
        raise UsageError(f"{option} {name}: the folder {folder} does not exist", hint=f"mkdir -p {folder}")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{option} {name}: the folder {folder} cannot be written to")
    return path


def default_passes() -> list[str]:
    """Names of the passes of a run without `--passes`: of those that ship with this program all but `ASKED_FOR`."""
    from importlib.metadata import entry_points

    points = entry_points(group=PASS_GROUP)
    others = {point.name for point in points if not point.value.startswith(BUILT_IN)}
    built_in = {point.name for point in points if point.value.startswith(BUILT_IN)} - ASKED_FOR
    return sorted(f"onnx-rewrite/{name}" if name in others else name for name in built_in)
