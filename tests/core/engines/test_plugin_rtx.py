"""The plugins inside TensorRT-RTX, built ahead of time on the CPU; for machines with nvcc and TensorRT 11's headers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from onnx_rewrite.engines import plugins
from onnx_rewrite.errors import UsageError

ROOT = Path(__file__).resolve().parents[3]

BUILD = """
import ctypes, json, sys
import tensorrt_rtx as trt
from benchmarks import deform_models as models

class Log(trt.ILogger):
    def __init__(self):
        super().__init__()
        self.errors = []
    def log(self, severity, message):
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            self.errors.append(message)

log = Log()
builder = trt.Builder(log)
for library in sys.argv[1:]:
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)

def build(model, profile=None):
    log.errors.clear()
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    size = 0
    if parser.parse(model.SerializeToString()):
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM89, 0)
        if profile:
            shapes = builder.create_optimization_profile()
            shapes.set_shape("x", *profile)
            config.add_optimization_profile(shapes)
        plan = builder.build_serialized_network(network, config)
        size = 0 if plan is None else plan.nbytes
    return {"bytes": size, "errors": list(log.errors)}

def changed(name, values):
    model = models.layer((1, 16, 8, 8, 16), 1)
    node = next(node for node in model.graph.node if node.op_type == "DeformConv2d")
    kept = [one for one in node.attribute if one.name != name or values]
    del node.attribute[:]
    node.attribute.extend(kept)
    for attribute in node.attribute:
        if attribute.name == name:
            attribute.ints[:] = values
    return model

print(json.dumps({
    "deform_net": build(models.deform_net(1)),
    "relu_sigmoid": build(models.relu_sigmoid()),
    "dynamic": build(models.resnet50(1, "N", 64), ((1, 3, 64, 64), (2, 3, 64, 64), (4, 3, 64, 64))),
    "kernel": build(changed("kernel_shape", [5, 5])),
    "stride": build(changed("strides", [0, 1])),
    "pads": build(changed("pads", [0, 0, 0, 0])),
    "missing": build(changed("kernel_shape", [])),
}))
"""


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")
def test_engines_ahead_of_time_and_refusals(tmp_path: Path) -> None:
    try:
        plugins.compiler()
        include = plugins.headers(None)
    except UsageError as lack:
        pytest.skip(f"{lack}: {lack.hint}")
    if plugins.version_of(include)[0] < 11:
        pytest.skip("TensorRT-RTX has the interfaces of TensorRT 11; these headers are older")
    # Nothing runs here, so the oldest GPU will do: the kernel for tensor cores is empty there, and quick to compile.
    libraries = [plugins.build(plugin, include, ["75"], tmp_path) for plugin in plugins.plugins()]
    # The wheel lacks the name by which its parser looks for itself.
    package = find_spec("tensorrt_rtx_libs")
    assert package is not None
    assert package.submodule_search_locations
    (own,) = Path(package.submodule_search_locations[0]).glob("libtensorrt_rtx.so.1")
    os.symlink(own, tmp_path / "libtensorrt_rtx.so")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, *map(str, libraries)],
        cwd=ROOT,
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for name in ("deform_net", "relu_sigmoid", "dynamic"):
        assert found[name]["bytes"] > 0, found[name]["errors"]
    for name, reason in (
        ("kernel", "DeformConv2d: weight has 3 on axis 2, not 5"),
        ("stride", "DeformConv2d: strides must be at least 1"),
        ("pads", "DeformConv2d: offset has 8 on axis 2, not 6"),
        ("missing", "DeformConv2d: attribute kernel_shape is missing"),
    ):
        assert found[name]["bytes"] == 0
        assert reason in found[name]["errors"]
