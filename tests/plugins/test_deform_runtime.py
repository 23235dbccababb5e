"""Kernels compiled at run time: NVRTC needs no GPU; what would be launched is looked at before a driver sees it."""

from __future__ import annotations

import ctypes
import json
import os
import re
import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from onnx import helper

from onnx_rewrite.engines import plugin_supply, plugins
from onnx_rewrite.plugins.common import compiling
from onnx_rewrite.plugins.common.compiling import CompilingError, Source
from onnx_rewrite.plugins.common.python_plugin import Refusal, read
from onnx_rewrite.plugins.deform_conv import launching, schedule
from onnx_rewrite.plugins.deform_conv.runtime import DeformConv2d
from onnx_rewrite.plugins.deform_conv.schedule import Device, Plan, Sizes

ROOT = Path(__file__).resolve().parents[2]
LARGE = Sizes(6, 512, 58, 100, 512, 58, 100, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1)
SMALL = Sizes(1, 64, 8, 8, 64, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1)
THIN = Sizes(2, 3, 8, 8, 5, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1)
H100, TURING, BLACKWELL = Device(9, 0, 132, 232448), Device(7, 5, 40, 65536), Device(12, 0, 170, 101376)


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNX_REWRITE_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("nvrtc")
@pytest.mark.parametrize(
    ("device", "kind", "math", "p"),
    [
        (H100, schedule.FLOAT, schedule.EXACT, LARGE),
        (BLACKWELL, schedule.HALF, schedule.EXACT, SMALL),
        (TURING, schedule.BFLOAT16, schedule.EXACT, THIN),
    ],
)
def test_kernels_compile_without_a_compiler_and_are_kept(
    monkeypatch: pytest.MonkeyPatch, device: Device, kind: int, math: int, p: Sizes
) -> None:
    work = schedule.work_of(p, kind, math, schedule.AUTO, device, aligned=True)
    names = launching.kernel_names(work, kind)
    arch = compiling.architecture(device.major, device.minor)
    code, mapping = launching.SOURCE.compiled(names, arch)
    assert code[:4] == b"\x7fELF"
    assert all(mapping[name] in code for name in names)
    (kept,) = (compiling.cache.folder().parent / "kernels").glob("*.cubin")
    assert kept.read_bytes() == code
    with monkeypatch.context() as without:
        without.setattr(Source, "_compile", None)
        assert launching.SOURCE.compiled(names, arch) == (code, mapping)
    if p is THIN:
        kept.write_bytes(b"cut off")
        assert launching.SOURCE.compiled(names, arch)[0][:4] == b"\x7fELF"


@pytest.mark.usefixtures("nvrtc")
def test_a_source_that_does_not_compile_says_why(tmp_path: Path) -> None:
    (tmp_path / "wrong.cuh").write_text("__global__ void kernel() { undeclared(); }\n")
    with pytest.raises(CompilingError, match="undeclared"):
        Source(tmp_path, ["wrong.cuh"]).compiled(["kernel"], "sm_80")


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(compiling.importlib, "import_module", nothing)
    assert compiling.lack() == f"cuda-core is not installed: {compiling.INSTALL}"
    with pytest.raises(CompilingError, match="cuda-core is not installed"):
        launching.SOURCE.compiled(["kernel"], "sm_80")


class FakeDriver:
    """The driver's calls that a launch makes; what kernels would get is read back through the pointers."""

    CUfunction = staticmethod(int)
    CUlaunchConfig = CUlaunchAttribute = staticmethod(
        lambda: SimpleNamespace(value=SimpleNamespace(programmaticStreamSerializationAllowed=0))
    )
    CUlaunchAttributeID = SimpleNamespace(CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION=6)
    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8)

    def __init__(self) -> None:
        self.shared: dict[int, int] = {}
        self.launches: list[tuple[int, int, int, int, list[int]]] = []

    def cuKernelSetAttribute(self, attribute: int, value: int, kernel: int, device: int) -> tuple[int]:
        self.shared[kernel] = value
        return (0,)

    def cuLaunchKernelEx(self, config: Any, function: int, parameters: int, extra: int) -> tuple[int]:
        addresses = (ctypes.c_void_p * 7).from_address(parameters)
        numbers = [ctypes.c_int64.from_address(addresses[i]).value for i in range(3, 6)]
        first = Plan.from_address(addresses[0]).positions
        self.launches.append((function, config.gridDimX, config.sharedMemBytes, config.hStream, [first, *numbers]))
        return (0,)


def launcher(monkeypatch: pytest.MonkeyPatch, device: Device) -> tuple[launching.Launcher, FakeDriver]:
    driver = FakeDriver()
    monkeypatch.setattr(launching.importlib, "import_module", lambda name: driver)
    monkeypatch.setattr(
        launching.SOURCE.__class__, "compiled", lambda self, names, arch: (b"", dict.fromkeys(names, b""))
    )
    numbered: dict[str, Any] = {}

    def loaded(code: bytes, names: dict[str, bytes]) -> dict[str, Any]:
        for name in names:
            numbered[name] = SimpleNamespace(handle=len(numbered) + 1)
        return numbered

    monkeypatch.setattr(launching, "loaded", loaded)
    made = launching.Launcher()
    gpu = launching._Gpu(0, device)
    monkeypatch.setattr(made, "_gpu", lambda: gpu)
    return made, driver


def test_launches_are_those_of_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    made, driver = launcher(monkeypatch, H100)
    work = made.prepare(LARGE, schedule.HALF, schedule.EXACT)
    made.run(LARGE, schedule.HALF, schedule.EXACT, schedule.AUTO, [16, 32, 48, 0, 64, 80], 96, 7)
    assert [one[1] for one in driver.launches] == [one.blocks for one in work.launches]
    assert [one[2] for one in driver.launches] == [one.shared for one in work.launches]
    assert {one[3] for one in driver.launches} == {7}
    prepare, tiles = driver.launches[0], driver.launches[1:]
    assert prepare[4] == [LARGE.n * LARGE.oh * LARGE.ow, 16, 32, 96]  # x, weight, workspace
    assert all(one[4] == [LARGE.n * LARGE.oh * LARGE.ow, 48, 0, 64] for one in tiles)  # offset, no bias, mask
    assert all(driver.shared[one[0]] == one[2] for one in tiles)
    made.run(LARGE.__class__(*[0, *list(vars(LARGE).values())[1:]]), schedule.HALF, 0, -1, [0] * 6, 0, 7)
    assert len(driver.launches) == len(work.launches)  # an empty batch launches nothing
    with pytest.raises(CompilingError, match="cannot run"):
        made.run(LARGE, schedule.HALF, 0, 40, [16] * 6, 0, 7)


def test_a_run_asks_the_driver_for_launches_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made, driver = launcher(monkeypatch, H100)
    made.prepare(LARGE, schedule.HALF, schedule.EXACT)

    class Launches:
        """What is not here (memory, modules, streams, attributes) a run must not ask for."""

        cuLaunchKernelEx = staticmethod(driver.cuLaunchKernelEx)

    monkeypatch.setattr(made, "_driver", Launches())
    monkeypatch.setattr(launching, "loaded", None)
    for stream in (7, 8):
        made.run(LARGE, schedule.HALF, schedule.EXACT, schedule.AUTO, [16, 32, 48, 0, 64, 80], 96, stream)
    assert {one[3] for one in driver.launches} == {7, 8}


def test_the_driver_s_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    made, driver = launcher(monkeypatch, H100)
    monkeypatch.setattr(driver, "cuLaunchKernelEx", lambda *told: (1,))
    monkeypatch.setattr(driver, "cuGetErrorString", lambda code: (0, b"invalid argument"), raising=False)
    with pytest.raises(CompilingError, match="CUDA: invalid argument"):
        made.run(THIN, schedule.FLOAT, 0, -1, [16] * 6, 0, 7)


def test_attributes_are_those_of_the_compiled_plugin() -> None:
    text = (plugins.named(["deform_conv"])[0].folder / "plugin.cpp").read_text(encoding="utf-8")
    fields = re.findall(r'{"(\w+)", (\d), (true|false)(?:, (\d))?}', text)
    mine = DeformConv2d.fields
    assert [(one.name, one.count, one.fallback) for one in mine] == [
        (name, int(count), None if required == "true" else int(fallback)) for name, count, required, fallback in fields
    ]


X, W, OFF, B = (2, 16, 8, 9), (12, 16, 3, 3), (2, 18, 8, 9), (12,)


@pytest.mark.parametrize(
    ("changes", "inputs", "reason"),
    [
        ({"strides": (0, 1)}, [X, W, OFF], "strides must be at least 1"),
        ({"pads": (0, -1, 0, 0)}, [X, W, OFF], "pads are negative"),
        ({"tf32": (2,)}, [X, W, OFF], "tf32 is 0 or 1"),
        ({"pads": (1, 1)}, [X, W, OFF], "attribute pads has 2 numbers, not 4"),
        ({"group": (3,)}, [X, W, OFF], "16 channels are not divisible by group and offset_group"),
        ({}, [X, (12, 16, 5, 3), OFF], "weight has 5 on axis 2, not 3"),
        ({}, [X, W, (2, 17, 8, 9)], "offset has 17 on axis 1, not 18"),
        ({}, [X, W, (2, 18, 8, 8)], "offset has 8 on axis 3, not 9"),
        ({}, [X, W, OFF, (11,)], "bias has 11 on axis 0, not 12"),
        ({}, [X, W, OFF, B, (2, 9, 8, 7)], "mask has 7 on axis 3, not 9"),
        ({}, [(2, 16, 8), W, OFF], "x has 3 dimensions; only images are known"),
        ({}, [(2, 16, 0, 9), W, OFF], "the kernel is larger than the padded image"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], inputs: list[tuple[int, ...]], reason: str) -> None:
    op = DeformConv2d()
    given = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1), **changes}
    with pytest.raises(Refusal) as refused:
        op.shape(read(op, given), inputs)
    assert str(refused.value) == reason


def test_what_is_not_known_fits() -> None:
    op = DeformConv2d()
    values = read(op, {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)})
    assert op.shape(values, [(-1, 16, -1, -1), W, (-1, 18, -1, -1), B]) == ((0, 0), (1, 0), (2, 2), (2, 3))
    with pytest.raises(Refusal, match="kernel_shape is missing"):
        read(op, {})


BUILD = """
import json
import onnx_rewrite as rw
from benchmarks import deform_models as models
from onnx_rewrite.engines.protocol import EngineError, Model, Profile
from onnx_rewrite.engines.tensorrt_rtx import TensorRTRTX

def build(model, profiles=None):
    try:
        engine = TensorRTRTX("SM89").build(Model(model), profiles=profiles)
    except EngineError as error:
        return {"bytes": 0, "said": str(error), "layers": [], "kept": ""}
    data = bytes(engine.data)
    kept = data[data.rfind(b"kernel_shape"):][:400].hex()
    return {"bytes": engine.size, "said": "", "layers": [layer.name for layer in engine.layers], "kept": kept}

def made(*fields):
    # Whether the creator makes a plugin of these fields, what it said, and what an engine would keep of it.
    import numpy as np
    import tensorrt_rtx as trt
    from onnx_rewrite.plugins.common import python_plugin
    said = []
    key = "DeformConv2d", "1", "onnx_rewrite"
    python_plugin._reports[key] = said.append
    types = {"i": (np.int32, trt.PluginFieldType.INT32), "f": (np.float32, trt.PluginFieldType.FLOAT32)}
    arrays = [np.array(values, types[kind][0]) for _, kind, values in fields]
    each = [trt.PluginField(name, data, types[kind][1]) for (name, kind, _), data in zip(fields, arrays)]
    creator = trt.get_plugin_registry().get_creator(*key)
    if creator is None:
        return [False, ["not registered"], {}]
    found = creator.create_plugin("one", trt.PluginFieldCollection(each), trt.TensorRTPhase.BUILD)
    if found is None:
        return [False, said, {}]
    kept = found.clone().get_fields_to_serialize()
    again = creator.create_plugin("two", kept, trt.TensorRTPhase.RUNTIME)
    return [True, said, {name: list(values) for name, values in again.values.items()}]

wrong = models.layer((1, 16, 8, 8, 16), 1)
node = next(node for node in wrong.graph.node if node.op_type == "DeformConv2d")
for attribute in node.attribute:
    if attribute.name == "kernel_shape":
        attribute.ints[:] = [5, 5]
print(json.dumps({
    "static": build(models.deform_net(1)),
    "dynamic": build(models.layer(("N", 16, 8, 8, 16), 0), {"x": Profile((1, 16, 8, 8), (2, 16, 8, 8), (4, 16, 8, 8))}),
    "wrong": build(wrong),
    "made": [
        made(("kernel_shape", "i", [3, 5]), ("pads", "i", [0, 1, 2, 3]), ("group", "i", [2])),
        made(("pads", "i", [1, 1, 1, 1])),
        made(("kernel_shape", "i", [3, 3, 3])),
        made(("kernel_shape", "f", [3, 3])),
        made(("kernel_shape", "i", [3, 3]), ("dilations", "i", [0, 1])),
    ],
}))
"""


@pytest.mark.usefixtures("nvrtc", "rtx")
def test_engines_take_it_by_themselves(tmp_path: Path) -> None:
    package = find_spec("tensorrt_rtx_libs")
    assert package is not None
    assert package.submodule_search_locations
    (own,) = Path(package.submodule_search_locations[0]).glob("libtensorrt_rtx.so.1")

    def run(folder: Path) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", BUILD],
            cwd=ROOT,
            env={**os.environ, "LD_LIBRARY_PATH": str(folder), "ONNX_REWRITE_PLUGINS": str(tmp_path / "none")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1])

    (tmp_path / "linked").mkdir()
    os.symlink(own, tmp_path / "linked" / "libtensorrt_rtx.so")
    found = run(tmp_path / "linked")
    for name in ("static", "dynamic"):
        assert found[name]["bytes"] > 0, found[name]["said"]
    assert any("deform_conv2d" in layer for layer in found["static"]["layers"])
    # The engine keeps the attributes as they are: TensorRT reads them when Python has returned.
    kept = bytes.fromhex(found["dynamic"]["kept"])
    for name, values in (("kernel_shape", (3, 3)), ("strides", (1, 1)), ("pads", (1, 1, 1, 1)), ("tf32", (0,))):
        told = struct.pack(f"{len(values) + 1}i", len(values), *values)
        assert told in kept[kept.index(name.encode()) :][:60], name
    assert found["wrong"]["bytes"] == 0
    assert "DeformConv2d: weight has 3 on axis 2, not 5" in found["wrong"]["said"]
    good, *refused = found["made"]
    kept_again = {"kernel_shape": [3, 5], "pads": [0, 1, 2, 3], "group": [2], "strides": [1, 1], "tf32": [1]}
    assert good[0]
    assert kept_again.items() <= good[2].items()
    assert [one[1] for one in refused] == [
        ["DeformConv2d: attribute kernel_shape is missing"],
        ["DeformConv2d: attribute kernel_shape has 3 numbers, not 2"],
        ["DeformConv2d: attribute kernel_shape is not of integers"],
        ["DeformConv2d: dilations must be at least 1"],
    ]
    found = run(tmp_path)  # where the parser would end the process, it is said, and nothing happens
    assert "link libtensorrt_rtx.so.1 of its package" in found["static"]["said"]


def test_supplies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNX_REWRITE_PLUGINS", str(tmp_path))

    def using(op: str) -> onnx.ModelProto:
        node = helper.make_node(op, ["x"], ["y"], domain="onnx_rewrite", plugin_namespace="onnx_rewrite")
        return helper.make_model(helper.make_graph([node], "g", [], []))

    model = using("DeformConv2d")
    eight = SimpleNamespace(__name__="tensorrt", __version__="8.6.0")
    ten = SimpleNamespace(__name__="tensorrt", __version__="10.16.1", IPluginV3=object)
    monkeypatch.setattr(compiling, "lack", lambda: None)
    assert [one.name for one in plugin_supply.supply(ten, model).compiled] == ["deform_conv"]
    assert plugin_supply.supply(ten, model).names[0].startswith("deform_conv ")
    ((op, reason),) = plugin_supply.supply(eight, model).lacking
    assert op == "DeformConv2d"
    assert "rewrite plugins build deform_conv" in reason
    assert "TensorRT 8.6.0 takes no plugin in Python" in reason
    monkeypatch.setattr(compiling, "lack", lambda: "NVRTC is not there")
    assert (
        plugin_supply.supply(ten, model).lacking[0][1].endswith("it cannot be compiled at run time: NVRTC is not there")
    )
    library = plugins.library(plugins.named(["deform_conv"])[0], 10)
    library.write_bytes(b"")
    assert plugin_supply.supply(ten, model).libraries == (str(library),)
    assert "not among those that can be compiled" in plugin_supply.supply(ten, using("ReluSigmoid")).lacking[0][1]
