"""Saves a replacement that was not equivalent, so that anybody can see it fail with onnxruntime and numpy alone."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from onnx_rewrite.verdict import Verification
from onnx_rewrite.verify.dtypes import Array
from onnx_rewrite.verify.reference import CannotEvaluate, Reference

SCRIPT = '''"""{title}

{reason}
Run it in this folder; it needs onnxruntime and numpy.
"""
import numpy as np
import onnxruntime as ort

feeds = dict(np.load("feeds.npz"))
expected = dict(np.load("expected.npz"))  # the original, evaluated in float64
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
for name in ("before", "after"):
    session = ort.InferenceSession(name + ".onnx", options, providers=["CPUExecutionProvider"])
    for output, found in zip(session.get_outputs(), session.run(None, feeds)):
        error = np.abs(found.astype(np.float64) - expected[output.name]).max() if output.name in expected else found
        print(name, output.name, "largest error", error)
'''


def save_reproduction(
    folder: Path,
    title: str,
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    feeds: Mapping[str, Array],
    seen: Verification,
) -> Path:
    """Writes `before.onnx`, `after.onnx`, `feeds.npz`, `expected.npz` and `reproduce.py`.

    Args:
        folder: Is made if it does not exist.
        title: First line of the script.
        before: The nodes as they were, as a model of their own.
        after: What was to replace them.
        feeds: The feed on which they differ.
        seen: The verdict.

    Returns:
        The script.

    Raises:
        OSError: It cannot be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "before.onnx").write_bytes(before.SerializeToString(deterministic=True))
    (folder / "after.onnx").write_bytes(after.SerializeToString(deterministic=True))
    _save_arrays(folder / "feeds.npz", feeds)
    try:
        reference = Reference(before)
        expected = dict(zip(reference.outputs, reference(feeds), strict=True))
    except CannotEvaluate:
        expected = {}
    _save_arrays(folder / "expected.npz", expected)
    script = folder / "reproduce.py"
    script.write_text(SCRIPT.format(title=title, reason=seen.reason or ""), encoding="utf-8")
    return script


def _save_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """What numpy.savez writes, for any names: "file" and "allow_pickle" are parameters of savez."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
