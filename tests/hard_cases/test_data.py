"""Data: weights, wherever they are kept, and whatever else a model carries, come out as they went in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_rewrite as rw
from onnx_rewrite.errors import ModelError
from onnx_rewrite.match import Match
from onnx_rewrite.pattern import constant, op
from onnx_rewrite.registry import Pass
from onnx_rewrite.verify.session import Session
from onnx_rewrite.verify.sparse import without_sparse_in_functions
from tests.passes import building
from tests.passes.building import f32, node, ops

from .building import agree, assert_same, drawn, fires, initializers, is_judged_wrong, is_left, outputs_of

BOUND = "a = Max(v, lo) y = Min(a, hi)"
BOUNDS = {"lo": np.float32(-1), "hi": np.float32(2)}


def model(
    text: str,
    constants: dict[str, Any] | None = None,
    *,
    x: str = "4,300",
    y: str | None = None,
    outputs: str | None = None,
    **options: Any,
) -> onnx.ModelProto:
    """`text`, whose constants lo and hi are -1 and 2."""
    words = text.replace("(", " ").replace(")", " ").replace(",", " ").split()
    used = {k: v for k, v in (BOUNDS | (constants or {})).items() if k in (constants or {}) or k in words}
    declared = outputs or f"float[{y or x}] y"
    return building.model(text, used, inputs=f"float[{x}] x", outputs=declared, opset=17, **options)


# -- external data


def on_disk(folder: Path, location: str = "weights.bin", *, bounds: bool = False) -> Path:
    """A model whose weights, and perhaps the bounds too, lie in one file beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    made = model(f"u = MatMul(x, w) v = Sub(u, w2) {BOUND}", {"w": f32(300, 300), "w2": f32(1, 300)})
    file = folder / location
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "wb") as out:
        for tensor in made.graph.initializer:
            if bounds or tensor.name.startswith("w"):
                entries = {"location": location, "offset": str(out.tell()), "length": str(len(tensor.raw_data))}
                out.write(tensor.raw_data)
                tensor.ClearField("raw_data")
                tensor.data_location = TensorProto.EXTERNAL
                for key, value in entries.items():
                    tensor.external_data.add(key=key, value=value)
    path = folder / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def saved(path: Path, out: Path, one: Any = "clip", sites: int = 1) -> Path:
    """Rewrites, saves to `out`, and holds the file against the original, both opened where they lie."""
    result = rw.rewrite(path, one)
    assert [s.status for s in result.sites] == ["applied"] * sites
    assert {s.verification.verdict for s in result.sites} <= {"equivalent"}
    assert result.report.verification.verdict == "equivalent"
    out.parent.mkdir(parents=True, exist_ok=True)
    written = result.save(out)
    onnx.checker.check_model(str(written), full_check=True)
    proto = onnx.load(path, load_external_data=False)
    for seed in range(2):
        feed = drawn(proto, seed)
        assert_same(outputs_of(str(written), feed), outputs_of(str(path), feed))
    return written


def test_external_data_is_not_lost(tmp_path: Path) -> None:
    path = on_disk(tmp_path)
    before = (tmp_path / "weights.bin").read_bytes()
    out = saved(path, tmp_path / "out.onnx")
    assert (tmp_path / "weights.bin").read_bytes() == before
    assert [initializers(onnx.load(p))["w"].tobytes() for p in (path, out)] == [before[: 300 * 300 * 4]] * 2
    # What a pass folds is read from there too.
    inside = on_disk(tmp_path / "bounds", bounds=True)
    folded = onnx.load(saved(inside, tmp_path / "bounds" / "out.onnx"))
    assert sorted(v.item() for v in initializers(folded).values() if v.size == 1) == [-1, 2]
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"weights\.bin"):
        rw.rewrite(path, "clip")


def test_external_data_is_not_duplicated(tmp_path: Path) -> None:
    """In one folder, both models refer to one file; no weight moves into the model."""
    path = on_disk(tmp_path)
    out = saved(path, tmp_path / "out.onnx")
    assert files(tmp_path) == {"model.onnx", "out.onnx", "weights.bin"}
    assert out.stat().st_size < 4096
    # Elsewhere, there is one file of them too, also after a second time.
    for _ in range(2):
        saved(path, tmp_path / "other" / "out.onnx")
        assert files(tmp_path / "other") == {"out.onnx", "weights.bin"}
    assert (tmp_path / "other" / "weights.bin").stat().st_size == (tmp_path / "weights.bin").stat().st_size


def test_external_data_is_not_saved_relative_to_the_wrong_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locations are relative to the model, not to the folder that one happens to be in."""
    on_disk(tmp_path / "in", "data/weights.bin")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    out = saved(Path("../in/model.onnx"), Path("../out/model.onnx"))
    assert files(elsewhere) == set()
    assert files(tmp_path / "out") == {"model.onnx", "data/weights.bin"}
    for tensor in onnx.load(out, load_external_data=False).graph.initializer:
        for entry in tensor.external_data:
            assert entry.key != "location" or entry.value == "data/weights.bin"
    os.rename(tmp_path / "out", tmp_path / "moved")
    onnx.checker.check_model(str(tmp_path / "moved" / "model.onnx"), full_check=True)
    (tmp_path / "in" / "data" / "weights.bin").unlink()
    (feed,) = [drawn(onnx.load(tmp_path / "moved" / "model.onnx", load_external_data=False))]
    assert np.isfinite(outputs_of(str(tmp_path / "moved" / "model.onnx"), feed)[0]).all()


def test_more_than_2_gb(tmp_path: Path) -> None:
    """3 GB of weights, all of them zero, so that the file has no blocks and nothing is slow.

    More than 2 GB inside one protobuf cannot be had that cheaply: nobody could have written the model.
    """
    rows, columns = 1_500_000, 512
    made = model(f"u = Gather(w, i) v = Add(u, x) {BOUND}", {"i": np.asarray([3, 1_499_999])}, x="2,512", valid=False)
    weight = made.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[rows, columns])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "w.bin"), ("offset", "0"), ("length", str(rows * columns * 4))):
        weight.external_data.add(key=key, value=value)
    with open(tmp_path / "w.bin", "wb") as file:
        file.truncate(rows * columns * 4)
    if (tmp_path / "w.bin").stat().st_blocks > 2**20:
        pytest.skip("the file system has no sparse files")
    path = tmp_path / "model.onnx"
    path.write_bytes(made.SerializeToString())
    result = rw.rewrite(path, "clip", verify="local")
    assert [(s.status, s.verification.verdict) for s in result.sites] == [("applied", "equivalent")]
    out = result.save(tmp_path / "out.onnx")
    assert ops(onnx.load(out, load_external_data=False)) == ["Gather", "Add", "Clip"]
    assert files(tmp_path) == {"model.onnx", "out.onnx", "w.bin"}
    onnx.checker.check_model(str(out))
    after = {t.name: t for t in onnx.load(out, load_external_data=False).graph.initializer}
    assert after["w"] == weight
    left = rw.rewrite(path, "ln", verify="local")
    assert not left.changed
    assert left.save(tmp_path / "same.onnx").read_bytes() == path.read_bytes()


# -- constants


class Doubled(Pass):
    """Mul(x, c) is Add(x, x), where c is 2; it does not ask."""

    name = "doubled"

    def pattern(self, x: Any, c: Any) -> Any:
        return op.Mul(x, constant(c))

    def replace(self, m: Match) -> Any:
        return op.Add(m.x, m.x)


def test_different_constants_are_not_merged() -> None:
    """Constants that print alike, compare equal or have equal bytes stay apart, and so do verdicts on them."""
    near = np.nextafter(np.float32(2), np.float32(3))
    payload = np.asarray(0x7FC00001, np.uint32).view(np.float32)
    given = {
        "zero": np.zeros(3, np.float32), "minus": -np.zeros(3, np.float32), "int": np.zeros(3, np.int32),
        "flat": np.zeros((1, 3), np.float32), "nan": np.full(3, np.nan, np.float32), "nan2": np.full(3, payload),
        "two": np.full(3, 2, np.float32), "near": np.full(3, near), "again": np.full(3, 2, np.float32),
    }  # fmt: skip
    kept = " ".join(f"o_{k} = {'IsNaN' if 'nan' in k else 'Identity'}({k})" for k in given)
    kinds = {k: "int32" if k == "int" else "bool" if "nan" in k else "float" for k in given}
    shapes = {k: "1,3" if k == "flat" else "3" for k in given}
    declared = ", ".join(f"{kinds[k]}[{shapes[k]}] o_{k}" for k in given)
    made = model(f"a = Max(x, lo) v = Min(a, hi) {kept} y = Neg(v)", given, x="3", outputs=f"float[3] y, {declared}")
    proto = fires(made, "clip")
    after = {t.name: t for t in proto.graph.initializer}
    for tensor in made.graph.initializer:
        if tensor.name in given:
            assert after[tensor.name] == tensor
    # Two chains with bounds that differ in the last bit get a bound each.
    text = "a = Max(x, lo) b = Min(a, two) c = Neg(b) d = Max(c, lo) y = Min(d, near)"
    proto = fires(model(text, {"two": np.float32(2), "near": near}, x="3"), "clip", 2)
    highs = {initializers(proto)[n.input[2]].item() for n in proto.graph.node if n.op_type == "Clip"}
    assert highs == {2.0, float(near)}
    # A verdict on one constant says nothing of another.
    both = model("a = Mul(x, two) y = Mul(a, three)", {"two": np.float32(2), "three": np.float32(3)}, x="3")
    result = rw.rewrite(both, Doubled())
    assert [(s.outputs, s.status) for s in result.sites] == [(("a",), "applied"), (("y",), "rolled_back")]
    agree(both, result.to_proto())
    is_judged_wrong(model("y = Mul(x, c)", {"c": np.float32(2.001)}, x="3"), Doubled())
    fires(model("y = Mul(x, c)", {"c": np.float32(2)}, x="3"), Doubled())


def with_sparse(text: str) -> onnx.ModelProto:
    made = model(text, x="2,3", valid=False)
    indices = numpy_helper.from_array(np.asarray([1, 5]), "places")
    values = numpy_helper.from_array(np.asarray([1.5, -2.0], np.float32), "s")
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2, 3]))
    onnx.checker.check_model(made)  # its shape inference has no sparse operands
    return made


def test_sparse_initializers_are_kept() -> None:
    made = with_sparse(f"v = Add(x, s) {BOUND}")
    result = rw.rewrite(made, "clip")
    assert [(s.status, s.verification.verdict) for s in result.sites] == [("applied", "equivalent")]
    proto = result.to_proto()
    onnx.checker.check_model(proto)
    assert ops(proto) == ["Add", "Clip"]
    assert list(proto.graph.sparse_initializer) == list(made.graph.sparse_initializer)
    assert proto.graph.output == made.graph.output
    for seed in range(2):
        feed = drawn(made, seed)
        assert_same(outputs_of(proto, feed), outputs_of(made, feed))
    # One in the place of a bound is no constant that a pass could read; a dense one of equal numbers is.
    is_left(with_sparse("a = Max(x, s) y = Min(a, hi)"), "clip")
    fires(model("a = Max(x, s) y = Min(a, hi)", {"s": np.float32(-2)}, x="2,3"), "clip")


def sparse_constant(name: str, size: int) -> onnx.NodeProto:
    """A Constant of `size` numbers: the first is 2, the others are not stored."""
    values = numpy_helper.from_array(np.asarray([2], np.float32), "values")
    places = numpy_helper.from_array(np.asarray([0]), "places")
    return helper.make_node("Constant", [], [name], sparse_value=helper.make_sparse_tensor(values, places, [size]))


def test_a_sparse_constant_is_a_constant() -> None:
    """A Constant of sparse_value is matched on, judged, and does not stop the inference of types that nobody states."""
    text = "n = Neg(x) v = Add(n, t) a = Max(v, lo) b = Reshape(s, none) y = Min(a, b)"
    dense = {"s": f32(1), "t": f32(3), "none": np.zeros(0, np.int64)}
    made = model(text, dense, x="2,3")
    for tensor in [t for t in made.graph.initializer if t.name in "st"]:
        made.graph.initializer.remove(tensor)
    for name, size in (("s", 1), ("t", 3)):
        made.graph.node.insert(0, sparse_constant(name, size))
    assert ops(fires(made, "clip"))[-1] == "Clip"


def test_a_sparse_constant_of_a_function_is_dense_for_onnxruntime() -> None:
    """onnxruntime 1.32.0 reads it where it no longer is, when it inlines the function."""
    nodes = [sparse_constant("s", 3), helper.make_node("Mul", ["a", "s"], ["b"])]
    made = model("y = Neg(x)", x="2,3")
    made.graph.node[0].op_type, made.graph.node[0].domain = "F", "local"
    made.functions.append(helper.make_function("local", "F", ["a"], ["b"], nodes, [helper.make_opsetid("", 17)]))
    made.opset_import.append(helper.make_opsetid("local", 1))
    given = without_sparse_in_functions(made)
    assert [a.name for n in given.functions[0].node for a in n.attribute] == ["value"]
    assert [a.name for n in made.functions[0].node for a in n.attribute] == ["sparse_value"]
    (found,) = Session(made)({"x": np.ones((2, 3), np.float32)})
    assert (found == [[2, 0, 0]] * 2).all()


def with_training(needed: str) -> onnx.ModelProto:
    made = model(f"v = Mul(x, w) {BOUND}", {"w": f32(2, 3)}, x="2,3")
    training = made.training_info.add()
    step = [helper.make_node("Sub", ["w", needed], ["w_new"])]
    info = helper.make_tensor_value_info("w_new", TensorProto.FLOAT, [2, 3])
    training.algorithm.CopyFrom(helper.make_graph(step, "step", [], [info]))
    training.update_binding.add(key="w", value="w_new")
    return made


def test_training_info_is_kept_or_the_edit_refused() -> None:
    made = with_training("v")
    result = rw.rewrite(made, "clip")
    assert [s.status for s in result.sites] == ["applied"]
    proto = result.to_proto()
    assert list(proto.training_info) == list(made.training_info)
    bare = [onnx.ModelProto.FromString(m.SerializeToString()) for m in (made, proto)]
    for one in bare:
        del one.training_info[:]
    agree(*bare)
    # What the training step reads must stay.
    is_left(with_training("a"), "clip", "training_info refers to value 'a'")


def noted() -> onnx.ModelProto:
    """Metadata and doc strings wherever there is a place for them."""
    made = model(f"v = Neg(x) {BOUND} z = Abs(y)", x="2,3", outputs="float[2,3] z", ir=10)
    made.doc_string, made.producer_name, made.producer_version = "of the model", "maker", "7"
    made.domain, made.model_version = "d.o.m", 3
    graph = made.graph
    graph.doc_string = "of the graph"
    graph.value_info.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, [2, 3], doc_string="of v"))
    graph.value_info.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3], doc_string="of y"))
    for place in (*graph.input, *graph.output, *graph.node, *graph.initializer):
        place.doc_string = f"of {place.name or place.output[0]}"
    for place in (made, graph, *graph.input, *graph.output, *graph.node, *graph.value_info, *graph.initializer):
        place.metadata_props.add(key="zz", value="1")
        place.metadata_props.add(key="aa", value="2")
    return made


def test_metadata_and_doc_strings_are_kept() -> None:
    made = noted()
    onnx.checker.check_model(made, full_check=True)
    proto = fires(made, "clip")
    assert ops(proto) == ["Neg", "Clip", "Abs"]
    for name in ("doc_string", "producer_name", "producer_version", "domain", "model_version", "ir_version"):
        assert getattr(proto, name) == getattr(made, name)
    assert list(proto.metadata_props) == list(made.metadata_props)
    assert proto.graph.doc_string == "of the graph"
    assert list(proto.graph.metadata_props) == list(made.graph.metadata_props)
    assert [proto.graph.node[0], proto.graph.node[2]] == [made.graph.node[0], made.graph.node[3]]
    assert {v.name: v for v in proto.graph.value_info} == {v.name: v for v in made.graph.value_info}
    found = {p.key: p.value for p in node(proto, "Clip").metadata_props}
    assert (found["zz"], found["aa"], found["onnx_rewrite.pass"]) == ("1", "2", "clip")
    assert rw.rewrite(made, "ln").to_proto().SerializeToString() == made.SerializeToString()


def test_value_info_is_not_left_stale() -> None:
    """Values that are gone are not described, those that stay are, and a new value takes no old description."""
    made = onnx.shape_inference.infer_shapes(model(f"v = Neg(x) {BOUND} z = Abs(y)", x="2,3", outputs="float[2,3] z"))
    assert {v.name for v in made.graph.value_info} == {"v", "a", "y"}
    proto = fires(made, "clip")
    assert {v.name for v in proto.graph.value_info} == {"v", "y"}
    values = {o for n in proto.graph.node for o in n.output}
    assert {v.name for v in proto.graph.value_info} <= values
    # A description that was there before its value, of a name that the pass makes up, is made true.
    new = sorted(set(initializers(proto)) - set(initializers(made)))
    stale = model(f"v = Neg(x) {BOUND}", x="2,3")
    for name in new:
        stale.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.INT64, [7]))
    proto = fires(stale, "clip")
    tensors = {t.name: t for t in proto.graph.initializer}
    for info in proto.graph.value_info:
        if info.name in tensors:
            found = info.type.tensor_type
            assert found.elem_type == tensors[info.name].data_type
            assert [d.dim_value for d in found.shape.dim] == list(tensors[info.name].dims)


@pytest.mark.parametrize("text", ["a = Clip(x, , hi) y = Max(a, lo)", "a = Clip(x, lo) y = Clip(a, , hi)"])
def test_empty_optional_inputs(text: str) -> None:
    assert ops(fires(model(text, x="2,3"), "clip")) == ["Clip"]
    made = building.model(
        "r = Resize(x, , scales) c = Clip(r, , hi) b = Neg(c) a = Max(b, lo) y = Min(a, hi)",
        BOUNDS | {"scales": np.asarray([1, 1, 2, 2], np.float32)},
        inputs="float[1,1,3,3] x",
        outputs="float[1,1,6,6] y",
        opset=17,
    )
    proto = fires(made, "clip")
    assert [list(n.input) for n in proto.graph.node[:2]] == [["x", "", "scales"], ["r", "", "hi"]]
    assert list(proto.graph.node[:3]) == list(made.graph.node[:3])
    # An operand that is left out is no constant, and no value either.
    is_left(model("a = Clip(x) y = Neg(a)", x="2,3"), "clip")
    is_left(model("a = Clip(x, , hi) b = Neg(a) y = Clip(b, , hi)", x="2,3"), "clip")


@pytest.mark.parametrize("shape", ["0,3", "2,0", "n,3"])
def test_zero_sized_dims(shape: str) -> None:
    """Nothing is wrong where there are no numbers, and nothing breaks."""
    made = model(BOUND.replace("v", "x"), x=shape)
    assert drawn(made, 0, {"n": 0})["x"].size == 0
    assert ops(fires(made, "clip", sizes={"n": 0})) == ["Clip"]
    # A weight without elements comes through; a bound without elements is no bound.
    empty = model(f"e = Concat<axis=0>(x, none) v = Neg(e) {BOUND}", {"none": np.zeros((0, 3), np.float32)}, x="2,3")
    after = {t.name: t for t in fires(empty, "clip").graph.initializer}
    assert after["none"].dims == [0, 3]
    bound = model("a = Max(x, lo) y = Min(a, hi)", {"lo": np.zeros(0, np.float32)}, x="2,1", y="2,0")
    is_left(bound, "clip", "holds different numbers")
    fires(model("a = Max(x, lo) y = Min(a, hi)", {"lo": np.zeros(1, np.float32)}, x="2,1"), "clip")


SMALL: dict[str, tuple[int, Any]] = {
    "bfloat16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    "float8e4m3fn": (TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn),
    "float8e5m2": (TensorProto.FLOAT8E5M2, ml_dtypes.float8_e5m2),
    "int4": (TensorProto.INT4, ml_dtypes.int4),
    "uint4": (TensorProto.UINT4, ml_dtypes.uint4),
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("stored", ["raw_data", "int32_data"])
def test_bf16_fp8_and_int4_weights_are_kept_byte_for_byte(name: str, stored: str) -> None:
    """An odd number of elements, so that the last byte of int4 is half empty."""
    kind, dtype = SMALL[name]
    array = (np.arange(15).reshape(5, 3) % 8).astype(dtype)
    four = "int4" in name
    read = "DequantizeLinear(w, one)" if four else "Cast<to=1>(w)"
    made = building.model(
        f"f = {read} v = Add(x, f) {BOUND}",
        BOUNDS | ({"one": np.float32(1)} if four else {}),
        inputs="float[5,3] x",
        outputs="float[5,3] y",
        opset=21,
        ir=10,
        valid=False,
    )
    tensor = numpy_helper.from_array(array, "w")
    if stored == "int32_data":
        raw = tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.int32_data.extend(np.frombuffer(raw, np.uint16 if name == "bfloat16" else np.uint8).tolist())
    made.graph.initializer.append(tensor)
    onnx.checker.check_model(made, full_check=True)
    assert (numpy_helper.to_array(tensor).astype(np.float32) == array.astype(np.float32)).all()
    proto = fires(made, "clip")
    assert ops(proto)[-1] == "Clip"
    (after,) = (t for t in proto.graph.initializer if t.name == "w")
    assert after == tensor
    assert after.data_type == kind
    is_left(made, "ln")
