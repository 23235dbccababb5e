from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_rewrite.pipeline import boundary

EXPORTED = Path(__file__).resolve().parents[2] / "models" / "exported"
DOCS = Path(__file__).resolve().parents[3] / "docs" / "checking.md"
A = EXPORTED / "bert_legacy_op12.onnx"
B = EXPORTED / "bert_legacy_op17.onnx"


def spoil(path: Path) -> None:
    """The first LayerNormalization with a larger epsilon."""
    model = onnx.load(B)
    node = next(n for n in model.graph.node if n.op_type == "LayerNormalization")
    next(a for a in node.attribute if a.name == "epsilon").f = 1e-2
    onnx.save(model, path)


def halve(path: Path) -> None:
    """B in fp16."""
    model = onnx.load(B)
    half = onnx.TensorProto.FLOAT16
    tensors = [*model.graph.initializer, *(a.t for n in model.graph.node for a in n.attribute)]
    for tensor in tensors:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            with np.errstate(over="ignore"):
                narrow = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(narrow, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = half
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            value.type.tensor_type.elem_type = half
    onnx.save(model, path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a wrong model, one in fp16, and one with other names."""
    monkeypatch.chdir(tmp_path)
    spoil(Path("wrong.onnx"))
    halve(Path("half.onnx"))
    names = [v.name for v in onnx.load(B).graph.input]
    other = boundary.renamed(onnx.load(B), {n: f"in_{n}" for n in names}, {"y": "logits"})
    onnx.save(other, "renamed.onnx")
    return tmp_path


def test_an_equivalent_pair(rewrite, folder: Path) -> None:
    ran = rewrite("check", A, B, "--layerwise", "--metric", "abs,mean,rel,ulp,psnr,cosine,top-1")
    assert (ran.status, ran.err) == (0, "")
    for text in ("equivalent", "1x16x32", "no value is beyond its bound", "100 %", "1e-08 to 1e-07"):
        assert text in ran.out


def test_a_wrong_one_and_where_it_is_wrong(rewrite, folder: Path) -> None:
    ran = rewrite("check", A, "wrong.onnx", "--layerwise")
    assert ran.status == 1
    assert "the error is born at" in ran.out
    found = json.loads(rewrite("check", A, "wrong.onnx", "--layerwise", "--json").out)
    assert found["verdict"] == "different"
    assert found["error_after"] > found["bound"]
    born = found["layers"]["born"]
    layers = {layer["name"]: layer for layer in found["layers"]["layers"]}
    assert layers[born]["exceeded"]
    assert not any(layers[name]["exceeded"] for name in layers[born]["inputs"])


@pytest.mark.parametrize("other", ["wrong.onnx", "half.onnx", str(B)])
def test_it_fits_80_columns(rewrite, folder: Path, monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ran = rewrite("check", A, other, "--layerwise", "--metric", "abs,mean,rel,ulp,psnr,cosine,top-1")
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(set(line) >= {"█"} for line in lines)


def test_by_position(rewrite, folder: Path) -> None:
    ran = rewrite("check", B, "renamed.onnx")
    assert ran.status == 2
    assert "--by-position" in ran.err
    ran = rewrite("check", B, "renamed.onnx", "--by-position")
    assert ran.status == 0
    assert "y (B: logits)" in ran.out


def test_another_type_needs_a_threshold(rewrite, folder: Path) -> None:
    ran = rewrite("check", B, "half.onnx")
    assert ran.status == 1
    assert "not verified" in ran.out
    assert "--threshold" in ran.out
    assert rewrite("check", B, "half.onnx", "--threshold", "cosine=0.999", "--threshold", "abs=0.05").status == 0
    ran = rewrite("check", B, "half.onnx", "--threshold", "cosine=0.999,abs=1e-6")
    assert ran.status == 1
    assert "more than 1e-06" in " ".join(ran.out.split())


def test_outputs_inside(rewrite, folder: Path) -> None:
    inner = "/model/encoder/layer.0/attention/self/query/MatMul_output_0"
    names = {name for node in onnx.load(A).graph.node for name in node.output}
    assert inner in names
    found = json.loads(rewrite("check", A, "wrong.onnx", "--outputs", f"y,{inner}", "--json").out)
    assert [output["name"] for output in found["outputs"]] == ["y", inner]
    assert rewrite("check", A, B, "--outputs", "nothing").status == 2


def test_reports(rewrite, folder: Path) -> None:
    assert rewrite("check", A, "wrong.onnx", "--layerwise", "--report", "r.json").status == 1
    found = json.loads(Path("r.json").read_text(encoding="utf-8"))
    assert found["schema"] == 1
    assert found["b"] == "wrong.onnx"
    assert rewrite("check", A, "wrong.onnx", "--layerwise", "--report", "r.html").status == 1
    page = Path("r.html").read_text(encoding="utf-8")
    plots = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(plots) == 2
    for plot in plots:
        ElementTree.fromstring(plot)
        assert "nan" not in plot
    assert "<script" not in page
    assert page.count("<tr") > len(found["layers"]["layers"])


def test_names_in_a_page_are_no_markup(rewrite, folder: Path) -> None:
    model = boundary.renamed(onnx.load(B), {}, {"y": "<b>&y"})
    onnx.save(model, "odd.onnx")
    assert rewrite("check", "odd.onnx", "odd.onnx", "--layerwise", "--report", "r.html").status == 0
    page = Path("r.html").read_text(encoding="utf-8")
    assert "<b>" not in page
    assert "&lt;b&gt;&amp;y" in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--metric", "cosin"), "unknown metric 'cosin'"),
        (("--threshold", "abs"), "METRIC=NUMBER"),
        (("--threshold", "abs=much"), "METRIC=NUMBER"),
        (("--threshold", "abs=1,abs=2"), "twice"),
        (("--threshold", "size=1"), "unknown metric 'size'"),
        (("--feeds", "0"), "not enough"),
        (("--report", "r.txt"), ".json or .html"),
        (("--shape", "nothing=1"), "no input 'nothing'"),
        (("--inputs", "missing.npz"), "no such file"),
    ],
)
def test_bad_options(rewrite, folder: Path, options: tuple[str, ...], message: str) -> None:
    ran = rewrite("check", A, B, *options)
    assert (ran.status, ran.out) == (2, "")
    assert message in ran.err
    assert "Traceback" not in ran.err


def test_a_missing_file(rewrite, folder: Path) -> None:
    ran = rewrite("check", A, "wring.onnx")
    assert ran.status == 2
    assert "Did you mean wrong.onnx?" in ran.err


def documented(language: str) -> list[str]:
    text = DOCS.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def arranged(folder: Path) -> None:
    """The files that the documentation names."""
    for name, source in (
        ("model.onnx", A.read_bytes()),
        ("model.rewritten.onnx", B.read_bytes()),
        ("fp16.onnx", (folder / "half.onnx").read_bytes()),
        ("other.onnx", (folder / "renamed.onnx").read_bytes()),
    ):
        Path(name).write_bytes(source)
    feeds: dict[str, np.ndarray] = {}
    for value in onnx.load(A).graph.input:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        feeds[value.name] = np.zeros(shape, onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
    np.savez("samples.npz", **feeds)


def test_the_commands_of_the_documentation(rewrite, folder: Path) -> None:
    arranged(folder)
    lines = [line for block in documented("sh") for line in block.splitlines() if line.startswith("rewrite ")]
    assert len(lines) >= 6
    for line in lines:
        ran = rewrite(*shlex.split(line, comments=True)[1:])
        assert ran.status in (0, 1), (line, ran.err)
        expected = re.search(r"# exit status (\d)", line)
        if expected is not None:
            assert ran.status == int(expected[1]), line


def test_the_programs_of_the_documentation(folder: Path) -> None:
    arranged(folder)
    programs = documented("python")
    assert programs
    for program in programs:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "equivalent" in done.stdout
