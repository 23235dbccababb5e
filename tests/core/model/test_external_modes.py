"""What becomes of weights in files of their own: referred to, shared or copied, and never half."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnx_rewrite as rw
from onnx_rewrite.errors import ModelError
from onnx_rewrite.model import files

TEXT = """
<ir_version: 8, opset_import: ["": 13]>
g (float[2, 300] x) => (float[2, 300] y) <float lo = {-1}, float hi = {1}>
{
    w = Add (x, weight)
    a = Max (w, lo)
    y = Min (a, hi)
}
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    proto = onnx.parser.parse_model(TEXT)
    weight = np.arange(300, dtype=np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "weight"))
    folder = tmp_path / "in" / "deep"
    folder.mkdir(parents=True)
    onnx.save(proto, folder / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=1024)
    return folder / "m.onnx"


def location(path: Path) -> str:
    proto = onnx.load(path, load_external_data=False)
    return next(e.value for t in proto.graph.initializer for e in t.external_data if e.key == "location")


def works(path: Path) -> None:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.zeros((2, 300), np.float32)})
    np.testing.assert_array_equal(y[1], np.minimum(np.arange(300), 1))


@pytest.mark.parametrize("passes", ["clip", "ln"])  # one that changes the model, and one that does not
def test_keep_refers_to_the_file_beside_it_and_below_it(model: Path, tmp_path: Path, passes: str) -> None:
    before = sorted(p.name for p in tmp_path.rglob("*.bin"))
    result = rw.rewrite(model, passes)
    beside = result.save(model.parent / "out.onnx")
    above = result.save(tmp_path / "out.onnx")
    assert (location(beside), location(above)) == ("weights.bin", "in/deep/weights.bin")
    assert sorted(p.name for p in tmp_path.rglob("*.bin")) == before
    works(beside)
    works(above)


@pytest.mark.parametrize("how", ["keep", "copy"])
def test_elsewhere_the_file_is_copied(model: Path, tmp_path: Path, how: str) -> None:
    (tmp_path / "other").mkdir()
    out = rw.rewrite(model, "clip").save(tmp_path / "other" / "out.onnx", external_data=how)  # type: ignore[arg-type]
    assert location(out) == "weights.bin"
    assert (out.parent / "weights.bin").read_bytes() == (model.parent / "weights.bin").read_bytes()
    works(out)


def test_copy_makes_the_output_independent_in_the_same_folder(model: Path) -> None:
    out = rw.rewrite(model, "clip").save(model.parent / "out.onnx", external_data="copy")
    assert location(out) == "out.data"
    (model.parent / "weights.bin").unlink()
    works(out)


def test_link_refers_in_the_same_folder(model: Path) -> None:
    out = rw.rewrite(model, "clip").save(model.parent / "out.onnx", external_data="link")
    assert location(out) == "weights.bin"
    works(out)


def test_link_elsewhere_shares_or_fails_and_leaves_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.setattr("onnx_rewrite.model.writing.share_blocks", lambda source, target: False)
    with pytest.raises(ModelError, match="no reflinks"):
        rw.rewrite(model, "clip").save(tmp_path / "other" / "out.onnx", external_data="link")
    assert not list((tmp_path / "other").iterdir())

    def share(source, target) -> bool:
        target.write(source.read())
        return True

    monkeypatch.setattr("onnx_rewrite.model.writing.share_blocks", share)
    works(rw.rewrite(model, "clip").save(tmp_path / "other" / "out.onnx", external_data="link"))


def test_blocks_are_shared_or_not_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"weights")
    with open(tmp_path / "a", "rb") as source, open(tmp_path / "b", "wb") as target:
        shared = files.share_blocks(source, target)
    assert (tmp_path / "b").read_bytes() == (b"weights" if shared else b"")


def test_a_device_is_not_replaced(model: Path, tmp_path: Path) -> None:
    import os

    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes with names")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="not a regular file"):
        rw.rewrite(model, "clip").save(tmp_path / "pipe")
