"""Files, forms and failures: what is written appears whole or not at all, and weights stay where they are found."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from onnx_rewrite.errors import ModelError, UsageError
from onnx_rewrite.model import LoadedModel, external, formats, load, loading, save, to_proto

from .builders import (
    MODELS,
    chain,
    content,
    digest,
    external_model,
    replace,
    rich,
    weights_of,
    with_body,
    with_training,
)

REAL = MODELS / "exported" / "hybrid_legacy_op12_keep_bn.onnx"


def listing(folder: Path) -> dict[str, str]:
    """Every file below a folder with its digest, and every folder."""
    return {str(path.relative_to(folder)): digest(path) if path.is_file() else "" for path in folder.rglob("*")}


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# -- forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", [".textproto", ".pbtxt", ".json", ".onnxjson", ".onnx", ".pb", ".unheard-of"])
def test_every_form_holds_everything(tmp_path: Path, extension: str) -> None:
    model = with_training() if "json" in extension or "t" in extension else rich()
    first = save(load(model), tmp_path / f"first{extension}")
    loaded = load(first)
    assert content(loaded.proto) == content(model)
    assert save(loaded, tmp_path / f"second{extension}").read_bytes() == first.read_bytes()
    assert content(load(save(loaded, tmp_path / "third.onnx")).proto) == content(model)


def test_onnx_text_form(tmp_path: Path) -> None:
    path = save(load(REAL), tmp_path / "model.onnxtxt")
    assert path.read_text().startswith("<")
    loaded = load(path)
    assert loaded.format == "text"
    assert [node.op_type for node in loaded.ir.graph] == [node.op_type for node in load(REAL).ir.graph]
    assert save(loaded, tmp_path / "again.onnxtxt").read_bytes() == path.read_bytes()


def test_onnx_text_form_refuses_what_it_would_lose(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="training_info"):
        save(load(with_training()), tmp_path / "model.onnxtxt")
    model = chain("Relu")
    model.graph.node[0].doc_string = "d"
    model.graph.node[0].metadata_props.add(key="k", value="v")
    with pytest.raises(ModelError, match=r"graph\.node\.doc_string, graph\.node\.metadata_props"):
        save(load(model), tmp_path / "model.onnxtxt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("extension", [".json", ".textproto"])
def test_no_form_drops_fields_of_a_newer_onnx(tmp_path: Path, extension: str) -> None:
    with pytest.raises(ModelError, match="loses fields that this onnx does not know"):
        save(load(rich()), tmp_path / f"m{extension}")
    assert not list(tmp_path.iterdir())


class Pipe:
    def __init__(self, data: bytes = b"") -> None:
        self.buffer = io.BytesIO(data)


@pytest.mark.parametrize("extension", [".onnx", ".json", ".textproto", ".onnxtxt"])
def test_standard_input_of_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extension: str) -> None:
    path = save(load(chain("Relu")), tmp_path / f"m{extension}")
    monkeypatch.setattr(sys, "stdin", Pipe(path.read_bytes()))
    loaded = load("-")
    assert loaded.path is None
    assert [node.op_type for node in loaded.ir.graph] == ["Relu"]


def test_standard_output(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    out = Pipe()
    monkeypatch.setattr(sys, "stdout", out)
    loaded = load(REAL)
    assert save(loaded, "-") == Path("-")
    assert out.buffer.getvalue() == REAL.read_bytes()
    assert not list(tmp_path.iterdir())


# -- sources ----------------------------------------------------------------------------------------------------------


def test_sources_are_equal_and_not_mutated(tmp_path: Path) -> None:
    proto = onnx.load(REAL)
    before = content(proto)
    ir_model = ir.load(REAL)
    graph_text = str(ir_model)
    sources: list[Any] = [REAL, str(REAL), REAL.read_bytes(), proto, ir_model, io.BytesIO(REAL.read_bytes())]
    for source in sources:
        loaded = load(source)
        replace(loaded.ir.graph, "Relu" if any(n.op_type == "Relu" for n in loaded.ir.graph) else "Conv", "Neg")
        save(loaded, tmp_path / "out.onnx")
    assert content(proto) == before
    assert str(ir_model) == graph_text
    sources = [REAL, REAL.read_bytes(), io.BytesIO(REAL.read_bytes())]
    assert {load(source).sha256 for source in sources} == {digest(REAL)}
    assert load(proto).sha256 == load(proto).sha256


def test_tensors_of_an_ir_model_keep_their_names() -> None:
    model = ir.from_proto(chain("Relu"))
    tensor = ir.tensor(np.float32([1]))
    model.graph.register_initializer(value := ir.Value(name="w", const_value=tensor))
    loaded = load(model)
    assert loaded.ir.graph.initializers["w"].const_value.numpy().tolist() == [1]  # type: ignore[union-attr]
    assert (tensor.name, value.name) == (None, "w")


def test_external_weights_of_an_ir_model(tmp_path: Path) -> None:
    path = external_model(tmp_path / "in")
    (tmp_path / "out").mkdir()
    out = save(load(ir.load(path)), tmp_path / "out" / "m.onnx")
    assert weights_of(out) == weights_of(path)
    with pytest.raises(ModelError, match="missing") as caught:
        load(path.read_bytes())
    assert "path of the model" in str(caught.value.hint)


def test_a_graphsurgeon_graph_is_a_source() -> None:
    gs = pytest.importorskip("onnx_graphsurgeon")
    model = onnx.load(REAL)
    loaded = load(gs.import_onnx(model))
    assert [node.op_type for node in loaded.ir.graph] == [node.op_type for node in model.graph.node]


# -- the input is safe ------------------------------------------------------------------------------------------------


def test_the_input_is_not_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(REAL.read_bytes())
    loaded = load(path)
    link = tmp_path / "link.onnx"
    names = [path]
    try:
        link.symlink_to(path)
        names.append(link)
    except OSError:
        pass
    for name in names:
        with pytest.raises(UsageError, match="is the input"):
            save(loaded, name)
    replace(loaded.ir.graph, "Conv", "Neg")
    save(loaded, path, overwrite_input=True)
    assert path.read_bytes() == to_proto(loaded).SerializeToString(deterministic=True)
    if len(names) > 1:
        save(load(link), link, overwrite_input=True)
        assert link.is_symlink()


def test_the_weights_are_not_overwritten(tmp_path: Path) -> None:
    loaded = load(external_model(tmp_path))
    before = listing(tmp_path)
    with pytest.raises(UsageError, match="holds the input's weights"):
        save(loaded, tmp_path / "w.bin", overwrite_input=True)
    assert listing(tmp_path) == before


# -- failures ---------------------------------------------------------------------------------------------------------


def test_output_folders_that_cannot_be_written(tmp_path: Path) -> None:
    loaded = load(REAL)
    with pytest.raises(ModelError, match="does not exist"):
        save(loaded, tmp_path / "no" / "out.onnx")
    with pytest.raises(ModelError, match="it is a folder"):
        save(loaded, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="is not a folder"):
        save(loaded, tmp_path / "file" / "out.onnx")


def test_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(ModelError, match="read-only"):
        save(load(REAL), tmp_path / "out.onnx")


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("external_data", [False, True])
@pytest.mark.parametrize("failing", ["fsync", "replace", "chmod"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "full"), OSError(errno.EROFS, "ro"), KeyboardInterrupt()])
def test_no_failure_leaves_half_a_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    failing: str,
    external_data: bool,
    edited: bool,
) -> None:
    source = external_model(tmp_path / "in", locations=("data/w.bin",)) if external_data else REAL
    out = tmp_path / "out"
    out.mkdir()
    (out / "m.onnx").write_bytes(b"old")
    loaded = load(source)
    if edited:
        replace(loaded.ir.graph, "Relu" if external_data else "Conv", "Neg")
    before = listing(tmp_path)
    calls: list[object] = []
    real = getattr(os, failing)
    written = 2 if external_data else 1

    def fail(*args: object, **kwargs: object) -> object:
        calls.append(args)
        if len(calls) == failing_call:
            raise failure
        return real(*args, **kwargs)

    monkeypatch.setattr(os, failing, fail)
    for failing_call in range(1, written + 1):  # noqa: B007  (`fail` reads it)
        calls.clear()
        with pytest.raises(ModelError if isinstance(failure, OSError) else KeyboardInterrupt):
            save(loaded, out / "m.onnx")
        assert listing(tmp_path) == before
    failing_call = -1
    save(loaded, out / "m.onnx")
    assert onnx.load(out / "m.onnx").graph.node


def test_disk_full_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ModelError, match="disk is full"):
        save(load(REAL), tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_permissions_are_the_usual_ones(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        new = save(load(REAL), tmp_path / "new.onnx")
        assert stat.S_IMODE(new.stat().st_mode) == 0o644
        new.chmod(0o600)
        save(load(REAL), new)
        assert stat.S_IMODE(new.stat().st_mode) == 0o600
    finally:
        os.umask(old)


# -- weights in files of their own ------------------------------------------------------------------------------------

PLACES = [("w.bin",), ("a.bin", "b.bin", "c.bin"), ("data/a.bin", "data/deep/b.bin")]


def edit(loaded: LoadedModel) -> None:
    replace(loaded.ir.graph, "Relu", "Neg")


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("locations", PLACES)
def test_in_the_same_folder_no_weight_moves(tmp_path: Path, locations: tuple[str, ...], edited: bool) -> None:
    path = external_model(tmp_path, locations=locations)
    before = listing(tmp_path)
    loaded = load(path)
    if edited:
        edit(loaded)
    out = save(loaded, tmp_path / "out.onnx")
    after = listing(tmp_path)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"out.onnx"}
    assert weights_of(out) == weights_of(path)
    assert edited or out.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("locations", PLACES)
def test_in_another_folder_the_files_keep_their_names(tmp_path: Path, locations: tuple[str, ...], edited: bool) -> None:
    path = external_model(tmp_path / "in", locations=locations)
    (tmp_path / "out").mkdir()
    loaded = load(path)
    if edited:
        edit(loaded)
    for _ in range(2):  # a second time, everything is there already
        out = save(loaded, tmp_path / "out" / "m.onnx")
        assert files(tmp_path / "out") == {"m.onnx", *locations}
        assert weights_of(out) == weights_of(path)
    assert edited or out.read_bytes() == path.read_bytes()


def test_taken_names_are_left_alone(tmp_path: Path) -> None:
    path = external_model(tmp_path / "in", locations=("w.bin", "free.bin"))
    out = tmp_path / "out"
    out.mkdir()
    (out / "w.bin").write_bytes(b"somebody else's")
    (out / "m.data").write_bytes(b"somebody else's too")
    for _ in range(2):
        save(load(path), out / "m.onnx")
        assert (out / "w.bin").read_bytes() == b"somebody else's"
        assert (out / "m.data").read_bytes() == b"somebody else's too"
        assert listing(out).keys() == {"m.onnx", "w.bin", "free.bin", "m.data", "m.1.data"}
        assert weights_of(out / "m.onnx") == weights_of(path)


def test_standard_output_takes_the_weights_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = external_model(tmp_path / "in")
    out = Pipe()
    monkeypatch.setattr(sys, "stdout", out)
    save(load(path), "-")
    model = onnx.load_model_from_string(out.buffer.getvalue())
    assert {t.name: numpy_helper.to_array(t).tobytes() for t in model.graph.initializer} == weights_of(path)
    monkeypatch.chdir(tmp_path / "in")
    monkeypatch.setattr(sys, "stdout", again := Pipe())
    save(load("model.onnx"), "-")
    assert again.buffer.getvalue() == path.read_bytes()


def test_external_data_of_rare_places(tmp_path: Path) -> None:
    model = with_body()
    constant = onnx.helper.make_node("Constant", [], ["k2"], value=numpy_helper.from_array(np.arange(4.0), "k2"))
    then = next(a.g for a in model.graph.node[0].attribute if a.name == "then_branch")
    then.node.append(constant)
    then.initializer.append(numpy_helper.from_array(np.arange(6.0), "big"))
    expected = {}
    for tensor in external.tensors_of_model(model):
        expected[tensor.name] = numpy_helper.to_array(tensor).tobytes()
        (tmp_path / f"{tensor.name}.bin").write_bytes(expected[tensor.name])
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=f"{tensor.name}.bin")
    assert len(expected) == 3
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    loaded = load(path)
    replace(loaded.ir.graph, "Abs", "Neg")
    body = next(iter(loaded.ir.graph)).attributes["then_branch"].as_graph()
    assert body.initializers["big"].const_value.numpy().tolist() == list(range(6))  # type: ignore[union-attr]
    assert list(body)[-1].attributes["value"].as_tensor().numpy().tolist() == list(range(4))
    (tmp_path / "out").mkdir()
    written = onnx.load(save(loaded, tmp_path / "out" / "m.onnx"))
    assert {t.name: numpy_helper.to_array(t).tobytes() for t in external.tensors_of_model(written)} == expected


def test_above_the_limit_weights_move_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = chain("Relu")
    big, small = np.random.default_rng(0).standard_normal(5000).astype(np.float32), np.float32([1, 2])
    model.graph.initializer.append(numpy_helper.from_array(big, "big"))
    model.graph.initializer.append(numpy_helper.from_array(small, "small"))
    model.graph.initializer.append(onnx.helper.make_tensor("typed", onnx.TensorProto.FLOAT, [500], range(500)))
    monkeypatch.setattr(external, "MAX_PROTOBUF_BYTES", 10_000)
    loaded = load(model)
    replace(loaded.ir.graph, "Relu", "Neg")
    out = save(loaded, tmp_path / "m.onnx")
    assert listing(tmp_path).keys() == {"m.onnx", "m.data"}
    assert out.stat().st_size < 1000
    arrays = {name: np.frombuffer(data, np.float32) for name, data in weights_of(out).items()}
    assert np.array_equal(arrays["big"], big)
    assert np.array_equal(arrays["typed"], np.arange(500))
    onnx.checker.check_model(out)
    with pytest.raises(ModelError, match="2 GiB"):
        save(loaded, "-")


def test_above_the_limit_weights_in_attributes_move_out_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = chain("Relu")
    data = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    constant = onnx.helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(data, "k"))
    model.graph.node.append(constant)
    real = formats._protobuf_bytes

    def limited(proto: onnx.ModelProto) -> bytes:
        written = real(proto)
        if len(written) > 10_000:
            raise ValueError("too large")
        return written

    monkeypatch.setattr(formats, "_protobuf_bytes", limited)
    out = save(load(model), tmp_path / "m.onnx")
    assert files(tmp_path) == {"m.onnx", "m.data"}
    tensor = onnx.load(out).graph.node[1].attribute[0].t
    assert np.array_equal(numpy_helper.to_array(tensor), data)
    with pytest.raises(ModelError, match="at most 2 GiB"):
        save(load(model), "-")


def test_new_initializers_are_written_inline(tmp_path: Path) -> None:
    path = external_model(tmp_path)
    loaded = load(path)
    loaded.ir.graph.register_initializer(ir.Value(name="new", const_value=ir.tensor(np.float32([1, 2]), name="new")))
    out = save(loaded, tmp_path / "out.onnx")
    locations = [t.data_location for t in onnx.load(out, load_external_data=False).graph.initializer]
    assert locations == [onnx.TensorProto.EXTERNAL] * 2 + [onnx.TensorProto.DEFAULT]
    assert weights_of(out)["new"] == np.float32([1, 2]).tobytes()


def test_large_files_are_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "KEEP_RAW_BYTES", 10)
    path = tmp_path / "m.onnx"
    path.write_bytes(REAL.read_bytes())
    loaded = load(path)
    assert loaded.raw is None
    assert save(loaded, tmp_path / "out.onnx").read_bytes() == REAL.read_bytes()
    path.write_bytes(b"changed meanwhile")
    assert content(load(save(loaded, tmp_path / "out.onnx")).proto) == content(onnx.load(REAL))


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory with /proc")
def test_weights_are_mapped_not_read(tmp_path: Path) -> None:
    """A model with 256 MB of (sparse) weights is read, edited and written with a fraction of that in memory."""
    path = external_model(tmp_path, elements=1)
    model = onnx.load(path, load_external_data=False)
    for index, tensor in enumerate(model.graph.initializer):
        tensor.dims[0] = 32 * 2**20
        for entry, value in zip(tensor.external_data, ("w.bin", index * 128 * 2**20, 128 * 2**20), strict=True):
            entry.value = str(value)
    path.write_bytes(model.SerializeToString())
    os.truncate(tmp_path / "w.bin", 256 * 2**20)
    (tmp_path / "out").mkdir()
    program = (
        "import resource, sys\n"
        "import onnx_ir as ir\n"
        "from onnx_rewrite.model import load, save\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak()\n"
        "loaded = load(sys.argv[1])\n"
        "loaded.ir.graph.node(0).metadata_props['edited'] = '1'\n"
        "save(loaded, sys.argv[2]); save(loaded, sys.argv[3])\n"
        "print(peak() - before)\n"
    )
    import subprocess

    command = [sys.executable, "-c", program, path, tmp_path / "same.onnx", tmp_path / "out" / "m.onnx"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    assert int(done.stdout) < 64
    assert (tmp_path / "out" / "w.bin").stat().st_size == 256 * 2**20
