"""The model of `rewrite demo`: a small convolutional stem, a transformer block and a head, exported at opset 12."""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path

MODEL = "hybrid.onnx"
PASSES = "ln,clip,bn"


def copy_model(folder: Path) -> Path:
    """Copies the demo's model into `folder` and returns where it is.

    Raises:
        OSError: It cannot be written there.
    """
    target = folder / MODEL
    with as_file(files(__name__) / MODEL) as source:
        shutil.copyfile(source, target)
    return target
