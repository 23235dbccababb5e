"""Plugins that ship with the package: their descriptions, building them, finding what was built."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from onnx_rewrite.engines import plugins, trt_build
from onnx_rewrite.engines.protocol import Model
from onnx_rewrite.errors import UsageError

HEADERS_8 = "#define NV_TENSORRT_MAJOR 8\n#define NV_TENSORRT_MINOR 6\n#define NV_TENSORRT_PATCH 1\n"
HEADERS_11 = (
    "#define TRT_MAJOR_ENTERPRISE 11\n#define TRT_MINOR_ENTERPRISE 1\n#define TRT_PATCH_ENTERPRISE 0\n"
    "#define NV_TENSORRT_MAJOR TRT_MAJOR_ENTERPRISE\n"
)


@pytest.fixture
def include(tmp_path: Path) -> Path:
    """A folder that looks like the headers of TensorRT 8.6.1."""
    folder = tmp_path / "include"
    folder.mkdir()
    (folder / "NvInferVersion.h").write_text(HEADERS_8)
    (folder / "NvInferRuntime.h").write_text("")
    return folder


@pytest.fixture
def nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that writes its arguments where the library should be; what is built goes to a folder of its own."""
    monkeypatch.setenv("ONNX_REWRITE_PLUGINS", str(tmp_path / "built"))
    script = tmp_path / "bin" / "nvcc"
    script.parent.mkdir()
    script.write_text('#!/bin/sh\nfor a in "$@"; do [ "$p" = -o ] && o=$a; p=$a; done\necho "$@" > "$o"\n')
    script.chmod(0o755)
    monkeypatch.setattr(plugins.shutil, "which", lambda name: str(script) if name == "nvcc" else None)
    return script


def uses(op: str, domain: str = "onnx_rewrite", *, inside: bool = False) -> onnx.ModelProto:
    node = helper.make_node(op, ["x"], ["y"], domain=domain, plugin_version="1", plugin_namespace="onnx_rewrite")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    nodes = [node]
    if inside:
        branch = helper.make_graph([node], "branch", [], [y])
        condition = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", TensorProto.BOOL, [], [True]))
        nodes = [condition, helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)]
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("onnx_rewrite", 1)]
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=sets, ir_version=8)


def test_descriptions_say_what_the_sources_say() -> None:
    found = {plugin.name: plugin for plugin in plugins.plugins()}
    assert set(found) == {"deform_conv", "relu_sigmoid"}
    for plugin in found.values():
        text = "".join(source.read_text(encoding="utf-8") for source in plugin.sources)
        assert f'kName = "{plugin.op}"' in text
        assert f'kNamespace = "{plugin.domain}"' in text
        assert f"ONNX_REWRITE_PLUGIN({plugin.op});" in text
        cmake = (plugin.folder / "CMakeLists.txt").read_text(encoding="utf-8")
        assert all(source.name in cmake for source in plugin.sources)


def test_the_tutorials_plugin_is_short() -> None:
    (plugin,) = plugins.named(["relu_sigmoid"])
    assert sum(len(source.read_text(encoding="utf-8").splitlines()) for source in plugin.sources) < 100


def test_plugin_reads_every_parameter_of_the_operator() -> None:
    (plugin,) = plugins.named(["deform_conv"])
    operator = pytest.importorskip("onnx_rewrite.plugins.deform_conv.op").DeformConv2d()
    text = (plugin.folder / "plugin.cpp").read_text(encoding="utf-8")
    fields = re.findall(r'{"(\w+)", \d', text)
    assert set(operator.parameters) <= set(fields)
    assert operator.name == plugin.op
    assert operator.domain == plugin.domain
    assert f'kVersion = "{operator.version}"' in text
    assert f"kFewest = {operator.required}, kMost = {len(operator.inputs)}" in text


def test_versions_of_headers(include: Path) -> None:
    assert plugins.version_of(include) == (8, 6, 1)
    (include / "NvInferVersion.h").write_text(HEADERS_11)
    assert plugins.version_of(include) == (11, 1, 0)
    (include / "NvInferRuntime.h").unlink()
    with pytest.raises(UsageError, match="no headers of TensorRT"):
        plugins.version_of(include)
    with pytest.raises(UsageError, match=r"no NvInferVersion\.h"):
        plugins.version_of(include / "nowhere")


def test_what_was_built_is_found(include: Path, nvcc: Path) -> None:
    (plugin,) = plugins.named(["deform_conv"])
    assert plugins.needed(uses("DeformConv2d"), 8) == ()
    built = plugins.build(plugin, include, ["sm_80", "sm_90"])
    assert built == plugins.library(plugin, 8)
    told = built.read_text()
    assert "code=sm_80" in told
    assert "code=sm_90a" in told
    assert all(str(source) in told for source in plugin.sources)
    assert plugins.needed(uses("DeformConv2d"), 8) == (str(built),)
    assert plugins.needed(uses("DeformConv2d", inside=True), 8) == (str(built),)
    assert plugins.needed(uses("DeformConv2d"), 10) == ()
    assert plugins.needed(uses("ReluSigmoid"), 8) == ()
    assert plugins.needed(uses("DeformConv2d", "another"), 8) == ()


def test_a_failing_compiler_leaves_nothing(include: Path, nvcc: Path) -> None:
    nvcc.write_text("#!/bin/sh\necho 'kernel.cu(7): error: no such thing' >&2\nexit 1\n")
    (plugin,) = plugins.named(["relu_sigmoid"])
    with pytest.raises(plugins.PluginError, match="no such thing"):
        plugins.build(plugin, include, ["80"])
    assert list(plugins.folder().iterdir()) == []
    with pytest.raises(UsageError, match="no architecture"):
        plugins.build(plugin, include, ["hopper"])


def test_no_compiler_no_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins.shutil, "which", lambda name: None)
    monkeypatch.setattr(plugins.Path, "is_file", lambda path: False)
    monkeypatch.delenv("TENSORRT_INCLUDE_DIR", raising=False)
    with pytest.raises(UsageError, match="nvcc was not found"):
        plugins.compiler()
    with pytest.raises(UsageError, match="headers of TensorRT were not found"):
        plugins.headers(None)


def test_a_function_gives_way_to_its_plugin_and_others_are_inlined() -> None:
    model = uses("DeformConv2d")
    model.graph.node[0].output[0] = "z"
    model.graph.node.append(helper.make_node("Twice", ["z"], ["y"], domain="onnx_rewrite"))
    for name, op in (("DeformConv2d", "Relu"), ("Twice", "Neg")):
        body = [helper.make_node(op, ["a"], ["b"])]
        sets = [helper.make_opsetid("", 17)]
        model.functions.append(helper.make_function("onnx_rewrite", name, ["a"], ["b"], body, sets))
    given = model.SerializeToString()
    kept = trt_build.parsable(Model(model), functions=False, is_plugin=lambda node: node.op_type == "DeformConv2d")
    assert [node.op_type for node in kept.graph.node] == ["DeformConv2d", "Neg"]
    inlined = trt_build.parsable(Model(model), functions=False)
    assert [node.op_type for node in inlined.graph.node] == ["Relu", "Neg"]
    assert model.SerializeToString() == given


def test_a_node_finds_its_plugin_in_the_registry() -> None:
    class Registry:
        def get_plugin_creator(self, name: str, version: str, namespace: str) -> object | None:
            return self if (name, version, namespace) == ("DeformConv2d", "1", "onnx_rewrite") else None

    class Library:
        get_plugin_registry = Registry

    asking = uses("DeformConv2d").graph.node[0]
    assert trt_build.finds_plugin(Library, asking)
    assert not trt_build.finds_plugin(Library, uses("ReluSigmoid").graph.node[0])
    assert not trt_build.finds_plugin(Library, helper.make_node("DeformConv2d", ["x"], ["y"]))


def test_kernel_compiles(tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not installed")
    (plugin,) = plugins.named(["deform_conv"])
    command = [nvcc, "-std=c++17", "-ptx", "-arch=compute_75", str(plugin.folder / "kernel.cu"), "-o", "kernel.ptx"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert "direct_kernel" in (tmp_path / "kernel.ptx").read_text()


def test_results_are_those_of_the_table() -> None:
    """The README's numbers are the kept result's."""
    (plugin,) = plugins.named(["deform_conv"])
    text = (plugin.folder / "README.md").read_text(encoding="utf-8")
    kept = Path(__file__).resolve().parents[3] / "benchmarks" / "results" / "deform_kernel.json"
    for row in json.loads(kept.read_text(encoding="utf-8"))["speed"]:
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {row['shape']} |"))
        assert f"{row['chosen_ms']:.3f}" in line
