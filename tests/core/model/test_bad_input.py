"""Every bad input ends with one clear ModelError that names the file, and writes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from onnx_rewrite.errors import ModelError, UsageError
from onnx_rewrite.model import load, save

from .builders import MODELS, chain, external_model, info, rich, with_body

WHOLE = MODELS / "exported" / "hybrid_legacy_op12_keep_bn.onnx"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(200), "JPEG"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "PNG"),
        (b"PK\x03\x04" + bytes(50), "ZIP"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (b"hello, world, I am no model", "cannot be read"),
        (b"\x08\x07", "no graph"),
        (onnx.TensorProto(name="t", dims=[1]).SerializeToString(), "not an ONNX model|cannot be read"),
        (WHOLE.read_bytes()[: WHOLE.stat().st_size // 2], "cut off"),
        (WHOLE.read_bytes()[:-1], "cut off"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_model(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "some.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=reason) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert caught.value.hint


@given(st.binary(max_size=200))
def test_rubbish_is_refused_politely(data: bytes) -> None:
    with pytest.raises(ModelError):
        load(data)


def test_every_cut_is_refused_or_read_politely() -> None:
    data = rich().SerializeToString()
    for length in range(0, len(data), 37):
        with pytest.raises(ModelError):
            load(data[:length])


def test_missing_file_and_folder(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(WHOLE.read_bytes())
    with pytest.raises(ModelError, match="no such file") as caught:
        load(tmp_path / "modle.onnx")
    assert caught.value.hint == f"Did you mean {tmp_path / 'model.onnx'}?"
    with pytest.raises(ModelError, match="no such file"):
        load(tmp_path / "no" / "model.onnx")
    with pytest.raises(ModelError, match="is a folder") as caught:
        load(tmp_path)
    assert "model.onnx" in str(caught.value.hint)


def test_what_cannot_be_a_source() -> None:
    with pytest.raises(UsageError, match="int"):
        load(42)
    with pytest.raises(ModelError, match="no graph"):
        load(onnx.ModelProto())


def test_no_opset() -> None:
    model = chain("Relu")
    del model.opset_import[:]
    with pytest.raises(ModelError, match="no opset_import"):
        load(model.SerializeToString())
    model.ir_version = 2
    assert load(model.SerializeToString()).ir.opset_imports == {"": 1}


def _twice(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Abs", ["x"], ["v0"], name="again"))


def _unknown(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[0] = "nowhere"


def _unnamed(model: onnx.ModelProto) -> None:
    model.graph.node[1].name = ""
    model.graph.node[1].input[0] = "nowhere"


def _cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "y"


def _self(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "v0"


def _output(model: onnx.ModelProto) -> None:
    model.graph.output.append(info("lost"))


def _initializer(model: onnx.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.float32([1]), "w")
    model.graph.initializer.extend([tensor, tensor])


def _produced_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.float32([1]), "v0"))


def _input(model: onnx.ModelProto) -> None:
    model.graph.input.append(info("x"))


def _function(model: onnx.ModelProto) -> None:
    for _ in range(2):
        nodes = [helper.make_node("Abs", ["a"], ["b"])]
        model.functions.append(helper.make_function("d", "F", ["a"], ["b"], nodes, [helper.make_opsetid("", 17)]))


def _inside_function(model: onnx.ModelProto) -> None:
    nodes = [helper.make_node("Abs", ["q"], ["b"], name="inside")]
    model.functions.append(helper.make_function("d", "F", ["a"], ["b"], nodes, [helper.make_opsetid("", 17)]))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_twice, r"node 'again' \(Abs\) writes 'v0'"),
        (_unknown, r"node 'n1' \(Abs\) reads 'nowhere'"),
        (_unnamed, r"the unnamed Abs node at position 1 reads 'nowhere'"),
        (_cycle, r"node 'n\d' \(\w+\) depends on its own output"),
        (_self, r"node 'n0' \(Relu\) depends on its own output"),
        (_output, r"the output 'lost' is produced by nothing"),
        (_initializer, r"the initializer 'w' is declared twice"),
        (_produced_initializer, r"node 'n0' \(Relu\) writes 'v0', which already has"),
        (_input, r"the input 'x' is declared twice"),
        (_function, r"the function d::F is defined twice"),
        (_inside_function, r"node 'inside' \(Abs\) in function d::F reads 'q'"),
    ],
)
def test_unsound_structure_names_the_node(
    damage: Callable[[onnx.ModelProto], None], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = chain("Relu", "Abs")
    damage(model)
    with pytest.raises(ModelError, match=reason):
        load(model)
    assert not caplog.records  # onnx_ir's own warnings are not for users


def test_unsound_bodies_say_where() -> None:
    model = with_body()
    then = next(a.g for a in model.graph.node[0].attribute if a.name == "then_branch")
    then.node[1].input[1] = "nowhere"
    with pytest.raises(ModelError, match="in the body 'then_branch' of node 'if'"):
        load(model)
    model = with_body()
    next(a.g for a in model.graph.node[0].attribute if a.name == "then_branch").output[0].name = "x"
    with pytest.raises(ModelError, match="add an Identity node"):
        load(model)


def test_newer_than_anything_known_is_read_and_written(tmp_path: Path) -> None:
    model = chain("Relu")
    model.ir_version, model.opset_import[0].version = 99, 999
    path = tmp_path / "new.onnx"
    path.write_bytes(model.SerializeToString())
    loaded = load(path)
    assert (loaded.ir.ir_version, loaded.ir.opset_imports[""]) == (99, 999)
    assert save(loaded, tmp_path / "out.onnx").read_bytes() == path.read_bytes()


def test_unknown_tensor_type() -> None:
    model = chain("Relu")
    model.graph.initializer.add(name="w", data_type=97, dims=[1], raw_data=b"x")
    try:
        load(model)
    except ModelError as error:
        assert "97" in str(error)  # noqa: PT017  (an onnx_ir that knows more may read it)


# -- external data ----------------------------------------------------------------------------------------------------


def test_missing_external_data(tmp_path: Path) -> None:
    path = external_model(tmp_path)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ModelError, match=r"'w0'.*missing: .*w\.bin"):
        load(path)


def test_short_external_data(tmp_path: Path) -> None:
    path = external_model(tmp_path)
    os.truncate(tmp_path / "w.bin", 3000)
    with pytest.raises(ModelError, match=r"'w1' needs bytes 2400 to 4800.*only 3000"):
        load(path)


def test_external_data_that_declares_too_little(tmp_path: Path) -> None:
    path = external_model(tmp_path)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[2].value = "8"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="needs 2400 bytes, but its external data declares 8"):
        load(path)


@pytest.mark.parametrize(
    "location", ["../secret.bin", "sub/../../secret.bin", "/etc/passwd", "", "C:\\w.bin", "\\w.bin"]
)
def test_path_traversal_is_refused(tmp_path: Path, location: str) -> None:
    path = external_model(tmp_path / "model")
    (tmp_path / "secret.bin").write_bytes(bytes(9999))
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"path traversal|names no data file"):
        load(path)


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    path = external_model(tmp_path / "model")
    data = tmp_path / "model" / "w.bin"
    outside = tmp_path / "outside.bin"
    data.rename(outside)
    try:
        data.symlink_to(outside)
    except OSError:
        pytest.skip("no symbolic links here")
    with pytest.raises(ModelError, match="path traversal"):
        load(path)
    data.unlink()
    os.link(outside, data)
    with pytest.raises(ModelError, match="hard links"):
        load(path)


def test_external_data_of_bad_numbers(tmp_path: Path) -> None:
    path = external_model(tmp_path)
    model = onnx.load(path, load_external_data=False)
    for value in ("-1", "many"):
        model.graph.initializer[0].external_data[1].value = value
        with pytest.raises(ModelError):
            load(model.SerializeToString())
