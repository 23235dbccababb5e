"""The model after every turn of a pass that changed it, one file each."""

from __future__ import annotations

from pathlib import Path

from onnx_rewrite.errors import UsageError
from onnx_rewrite.model import LoadedModel, save


class Stages:
    """A folder that gets the model as it is read, and after each turn: "00.input.onnx", "01.ln.onnx", ...

    Args:
        folder: Is made; must be empty if it exists.

    Raises:
        UsageError: It is a file, not empty, or cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            taken = any(folder.iterdir())
        except OSError as error:
            raise UsageError(f"--print-between-passes {folder}: {error.strerror or error}") from error
        if taken:
            raise UsageError(f"--print-between-passes {folder}: the folder is not empty")
        self._folder = folder
        self._count = 0

    def write(self, loaded: LoadedModel, name: str) -> Path:
        """Writes the model as it is now under the next number.

        Raises:
            ModelError: It cannot be written.
        """
        path = self._folder / f"{self._count:02}.{name}.onnx"
        self._count += 1
        return save(loaded, path)
