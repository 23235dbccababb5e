"""`python -m benchmarks deform-conv`: decompositions of a deformable convolution as TensorRT engines."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks import results
from benchmarks.deform_variants import VARIANTS
from onnx_rewrite.passes.deform_conv import Replace
from onnx_rewrite.plugins.deform_conv.op import parts_of

Shape = tuple[int, int, int, int]

SMALL: tuple[Shape, int] = ((1, 256, 64, 64), 256)
LARGE: tuple[Shape, int] = ((6, 512, 58, 100), 512)
SHARED = ("deformconv_legacy_op12_custom", "deformconv_legacy_op12_custom_keep_bn", "deformconv_dynamo_op19",
          "deformconv_dynamo_op22")  # fmt: skip
NETWORKS = ((224, 224), (800, 1216))
"""Sizes of the ResNet-50's image: that of classifiers, and a usual one of detectors."""
CHECKED = 8
"""Filters whose results are compared with float64, of the first image: numpy takes its time."""


def problem(
    shape: Shape, filters: int, *, offset_groups: int = 1, seed: int = 0
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """ONNX's DeformConv 3x3 with pads 1, mask and bias, and a feed: offsets of two pixels, masks in 0 to 1."""
    n, c, h, w = shape
    rng = np.random.default_rng(seed)
    shapes = {"x": shape, "offset": (n, offset_groups * 18, h, w), "mask": (n, offset_groups * 9, h, w)}
    weight = (rng.standard_normal((filters, c, 3, 3)) / np.sqrt(9 * c)).astype(np.float32)
    bias = rng.standard_normal(filters).astype(np.float32)
    node = helper.make_node(
        "DeformConv",
        ["x", "weight", "offset", "bias", "mask"],
        ["y"],
        name="conv",
        kernel_shape=[3, 3],
        pads=[1, 1, 1, 1],
        offset_group=offset_groups,
    )
    inputs = [helper.make_tensor_value_info(k, onnx.TensorProto.FLOAT, v) for k, v in shapes.items()]
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (n, filters, h, w))
    tensors = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")]
    graph = helper.make_graph([node], "deform", inputs, [output], tensors)
    feed = {
        "x": rng.standard_normal(shape).astype(np.float32),
        "offset": (2 * rng.standard_normal(shapes["offset"])).astype(np.float32),
        "mask": rng.random(shapes["mask"]).astype(np.float32),
    }
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), feed


@dataclass(frozen=True)
class Written(Replace):
    """Replaces deformable convolutions by one of the variants."""

    name = "written"

    variant: str = "grid"

    def __init__(self, variant: str) -> None:
        super().__init__(form="decomposition", sampling="gather")
        object.__setattr__(self, "variant", variant)

    def opset_for(self, m: Any) -> int:
        return 16

    def replace(self, m: Any) -> Any:
        call = m.read(m.conv)
        dtype = call.operands["x"].dtype
        weight = m.constant(call.operands["weight"])
        parts = parts_of(call, version=m.version, dtype=dtype, weight=weight, bias=call.operand("bias"))
        return VARIANTS[self.variant](parts)


def reference(proto: onnx.ModelProto, feed: dict[str, Any]) -> dict[str, Any]:
    """The first image and filters: in float64, of the feed and of all that is fed or stored rounded to fp16; and in
    onnxruntime.
    """
    from onnx_rewrite.verify.kernels import Node
    from onnx_rewrite.verify.kernels.sampling import deform_conv
    from onnx_rewrite.verify.session import Session

    few = onnx.ModelProto()
    few.CopyFrom(proto)
    for tensor in few.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[:CHECKED], tensor.name))
    for value in (*few.graph.input, *few.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    few.graph.output[0].type.tensor_type.shape.dim[1].dim_value = CHECKED

    weight, bias = (numpy_helper.to_array(t)[:CHECKED] for t in proto.graph.initializer)
    node = proto.graph.node[0]
    attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    first = {name: value[:1] for name, value in feed.items()}

    def run(narrow: bool) -> Any:
        arrays = [first["x"], weight, first["offset"], bias, first["mask"]]
        arrays = [(a.astype(np.float16) if narrow else a).astype(np.float64) for a in arrays]
        return deform_conv(Node(node, 19, attrs), *arrays)

    (own,) = Session(few)(first)
    return {"exact": run(False), "fp16": run(True), "fp32": own}


def judged(found: Any, expected: dict[str, Any], precision: str) -> dict[str, Any]:
    """How far outputs are from float64, and how far they may be: the judge's bound for that type.

    The original's error in fp32 is onnxruntime's; in fp16, and in tf32 whose significands are as short, it is what
    rounding the inputs does.
    """
    from onnx_rewrite.verify.dtypes import Tolerance

    exact = expected["exact"]
    narrow = precision != "fp32"
    kind = onnx.TensorProto.FLOAT16 if narrow else onnx.TensorProto.FLOAT
    before = float(np.abs(expected["fp16" if narrow else "fp32"] - exact).max())
    bound = Tolerance().bound(kind, before, float(np.abs(exact).max()))
    error = float(np.abs(np.asarray(found, np.float64)[:1, :CHECKED] - exact).max())
    return {"error": error, "bound": bound, "ok": bool(error <= bound)}


def built(proto: onnx.ModelProto, precision: str, options: argparse.Namespace) -> Any:
    from onnx_rewrite.engines import registry
    from onnx_rewrite.engines.protocol import Model

    engine = f"{options.engine}:{precision}"
    if options.tactics:
        engine += f":tactic-sources={options.tactics}"
    (backend,) = (
        registry.choose(engine + ":no-cache").backends
        if options.engine != "onnxruntime"
        else registry.choose("onnxruntime").backends
    )
    return backend.build(Model(proto))


def timed(engine: Any, feed: dict[str, Any], seconds: float) -> float:
    """Median milliseconds, of the GPU's computation where it tells."""
    from onnx_rewrite.engines.timing import Effort, take_turns

    take_turns([engine], feed, Effort(seconds=seconds))
    spans = [one.phases.compute for one in engine.timings if one.phases is not None]
    if spans:
        return statistics.median(end - start for start, end in spans)
    return 1e3 * statistics.median(one.seconds for one in engine.timings)


class Run:
    """What was asked for, one row after the other."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.rows: list[dict[str, Any]] = []
        self._problems: dict[Any, Any] = {}

    def measure(self, shape: Shape, filters: int, variant: str, precision: str) -> None:
        key = (shape, filters)
        if key not in self._problems:
            proto, feed = problem(shape, filters)
            self._problems[key] = proto, feed, reference(proto, feed)
        proto, feed, expected = self._problems[key]
        row: dict[str, Any] = {"shape": [*shape, filters], "variant": variant, "precision": precision}
        row |= self._one(self._written(proto, variant), feed, expected, precision)
        self._add(row)

    def _written(self, proto: onnx.ModelProto, variant: str) -> onnx.ModelProto:
        import onnx_rewrite as rw

        if variant == "builtin":
            result = rw.rewrite(proto, "deform-conv:form=builtin", target="tensorrt-8.6", verify="off")
        else:
            result = rw.rewrite(proto, [Written(variant)], target="tensorrt-8.6", verify="off")
        if not result.report.applied:
            raise ValueError("; ".join(str(s.reason) for s in result.sites))
        return result.to_proto()

    def _one(self, proto: onnx.ModelProto, feed: Any, expected: Any, precision: str) -> dict[str, Any]:
        engine = built(proto, precision, self.options)
        outputs = engine.run(feed)
        row = judged(outputs["y"], expected, precision)
        row["ms"] = timed(engine, feed, self.options.duration)
        return row | {"build_seconds": round(engine.build_seconds, 2), "layers": len(engine.layers),
                      "layer_names": [layer.name for layer in engine.layers][:40]}  # fmt: skip

    def model(self, name: str, precision: str, sampling: str) -> None:
        """One of the shared models, rewritten as a user would, against onnxruntime on the original."""
        import onnx_rewrite as rw
        from onnx_rewrite.verify.dtypes import Tolerance
        from onnx_rewrite.verify.reference import Reference
        from onnx_rewrite.verify.session import Session

        path = Path(__file__).parents[1] / "tests" / "models" / "exported" / f"{name}.onnx"
        proto = onnx.load(path)
        result = rw.rewrite(path, f"deform-conv:sampling={sampling},bn", target="tensorrt-8.6", verify="off")
        feed = {"x": np.random.default_rng(3).standard_normal((1, 3, 32, 32)).astype(np.float32)}
        (before,), (exact,) = Session(proto)(feed), Reference(proto)(feed)
        (narrow,) = Reference(rounded(proto))({"x": feed["x"].astype(np.float16).astype(np.float32)})
        engine = built(result.to_proto(), precision, self.options)
        after = engine.run(feed)["y"]
        kind = onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.FLOAT
        own = narrow if precision == "fp16" else before
        scale = float(np.abs(exact).max())
        bound = Tolerance().bound(kind, float(np.abs(own - exact).max()), scale)
        error = float(np.abs(after.astype(np.float64) - exact).max())
        apart = float(np.abs(after.astype(np.float64) - before).max())
        self._add({"model": name, "variant": sampling, "precision": precision, "error": error, "bound": bound,
                   "ok": error <= bound, "from_onnxruntime": apart, "build_seconds": round(engine.build_seconds, 2),
                   "ms": timed(engine, feed, self.options.duration), "layers": len(engine.layers)})  # fmt: skip

    def network(self, height: int, width: int, precision: str, sampling: str) -> None:
        """A ResNet-50 with 13 deformable convolutions, against what `expect` kept."""
        import onnx_rewrite as rw
        from benchmarks.dcn_resnet import build
        from onnx_rewrite.verify.dtypes import Tolerance

        row: dict[str, Any] = {"model": f"dcn_resnet50 {height}x{width}", "variant": sampling, "precision": precision}
        kept = np.load(self.options.expected / f"{height}x{width}.npz")
        result = rw.rewrite(
            build(height, width), f"deform-conv:sampling={sampling},bn", target="tensorrt-8.6", verify="off"
        )
        engine = built(result.to_proto(), precision, self.options)
        feed = image(height, width)
        found = engine.run(feed)["features"].astype(np.float64)
        kind = onnx.TensorProto.FLOAT if precision == "fp32" else onnx.TensorProto.FLOAT16
        own = kept["fp32" if precision == "fp32" else "fp16"]
        exact = kept["exact"] if "exact" in kept else kept["fp32"]
        bound = Tolerance().bound(kind, float(np.abs(own - exact).max()), float(np.abs(exact).max()))
        error = float(np.abs(found - exact).max())
        norm = float(np.linalg.norm(found - kept["fp32"]) / np.linalg.norm(kept["fp32"].astype(np.float64)))
        self._add({**row, "error": error, "bound": bound, "ok": error <= bound, "relative_to_onnxruntime": norm,
                   "sites": result.report.applied, "build_seconds": round(engine.build_seconds, 2),
                   "engine_bytes": engine.size, "ms": timed(engine, feed, self.options.duration),
                   "layers": len(engine.layers)})  # fmt: skip

    def _add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        print(line(row), file=sys.stderr, flush=True)


def image(height: int, width: int) -> dict[str, Any]:
    return {"image": np.random.default_rng(5).standard_normal((1, 3, height, width)).astype(np.float32)}


def expect(folder: Path) -> int:
    """Keeps what onnxruntime's own DeformConv makes of the ResNet-50, with weights and image as they are and rounded to
    fp16, and the exact result where numpy is quick enough. It needs an onnxruntime with DeformConv (1.25), and no GPU.
    """
    import onnxruntime

    from benchmarks.dcn_resnet import build
    from onnx_rewrite.verify.reference import Reference

    folder.mkdir(parents=True, exist_ok=True)
    for height, width in NETWORKS:
        proto, feed = build(height, width), image(height, width)
        narrow = {"image": feed["image"].astype(np.float16).astype(np.float32)}
        kept = {}
        for name, model, given in (("fp32", proto, feed), ("fp16", rounded(proto), narrow)):
            session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
            (kept[name],) = session.run(None, given)
        if height * width <= 224 * 224:
            (kept["exact"],) = Reference(proto)(feed)
        np.savez(folder / f"{height}x{width}.npz", **kept)
        print(f"{height}x{width}: kept", flush=True)
    return 0


def rounded(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose weights are rounded to fp16."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    for tensor in made.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16).astype(np.float32), tensor.name))
    return made


def line(row: dict[str, Any]) -> str:
    what = row.get("model") or "x".join(map(str, row.get("shape", ())))
    text = f"{what:38} {row.get('variant', ''):14} {row.get('precision', ''):5}"
    if "error_text" in row:
        return f"{text} FAILED {row['error_text'][:200]}"
    ok = "ok " if row["ok"] else "OFF"
    return (
        f"{text} {row['ms']:9.4f} ms  {ok} {row['error']:.2e} of {row['bound']:.2e}"
        f"  {row['layers']:3} layers  {row['build_seconds']:6.1f} s"
    )


def plan(options: argparse.Namespace) -> list[tuple[str, tuple[Any, ...]]]:
    """What is measured, the most telling first."""
    kinds = options.variants or [*VARIANTS]
    steps: list[tuple[str, tuple[Any, ...]]] = []
    if options.smoke:
        steps += [("measure", ((1, 16, 12, 10), 8, v, "fp32")) for v in kinds]
        return [*steps, *(("model", (name, "fp32", "auto")) for name in SHARED)]
    if options.models:
        return whole(options.expected is not None)
    if options.builtin:
        return [("measure", (*size, v, "fp32")) for size in (SMALL, LARGE) for v in ("builtin", "gather")]
    first = [v for v in kinds if v in ("grid", "gather", "gather-matmul", "gather-conv")]
    rest = [v for v in kinds if v not in first]
    for group in (first, rest):
        for precision in ("tf32", "fp16"):
            for shape, filters in (SMALL, LARGE):
                steps += [("measure", (shape, filters, variant, precision)) for variant in group]
        if group is first:
            steps += [("measure", (*SMALL, sampling, "fp32")) for sampling in ("grid", "gather")]
            steps += whole(options.expected is not None)
    return steps


def whole(networks: bool) -> list[tuple[str, tuple[Any, ...]]]:
    """Of the plan what is a model, the smallest first."""
    steps: list[tuple[str, tuple[Any, ...]]] = []
    for name in SHARED:
        steps += [("model", (name, precision, "auto")) for precision in ("fp32", "fp16")]
    steps += [("model", (SHARED[1], precision, "gather")) for precision in ("fp32", "fp16")]
    if networks:
        for size in NETWORKS:
            steps += [("network", (*size, precision, "auto")) for precision in ("fp16", "tf32", "fp32")]
        steps.append(("network", (*NETWORKS[1], "fp16", "grid")))
    return steps


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks deform-conv", description=__doc__)
    parser.add_argument("--engine", default="tensorrt", help="tensorrt; onnxruntime tries the script on a CPU")
    parser.add_argument("--tactics", default="", help="tactic sources, joined by +")
    parser.add_argument("--variants", nargs="*", choices=[*VARIANTS], help="default: all")
    parser.add_argument("--duration", type=float, default=0.6, help="seconds of timed inferences per engine")
    parser.add_argument("--budget", type=float, default=240.0, help="begins nothing after so many seconds")
    parser.add_argument("--expect", type=Path, help="keeps there what onnxruntime makes of a ResNet-50, and ends")
    parser.add_argument("--expected", type=Path, help="where --expect kept it: measures the ResNet-50 too")
    parser.add_argument(
        "--builtin",
        action="store_true",
        help="only TensorRT's own plugin beside the gathers: needs cublas",
    )
    parser.add_argument("--models", action="store_true", help="only whole models")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes")
    parser.add_argument("--out", type=Path, default=results.FOLDER / "deform_conv.json")
    options = parser.parse_args(arguments)
    if options.expect:
        return expect(options.expect)
    began = time.perf_counter()
    run = Run(options)
    for name, given in plan(options):
        if time.perf_counter() - began > options.budget:
            print("the time is up; not measured:", name, *given, file=sys.stderr)
            continue
        try:
            getattr(run, name)(*given)
        except Exception as error:  # one that fails must not cost the others
            row = {
                "variant": str(given[-2]),
                "precision": str(given[-1]),
                "error_text": f"{type(error).__name__}: {error}",
            }
            row |= {"shape": [*given[0], given[1]]} if name == "measure" else {"model": str(given[0])}
            run._add(row)
        document(run.rows, options, time.perf_counter() - began)
    print(f"{len(run.rows)} rows in {time.perf_counter() - began:.0f} s: {options.out}")
    for row in run.rows:
        print(line(row))
    return 0 if all(row.get("ok") for row in run.rows) else 1


def document(rows: list[dict[str, Any]], options: argparse.Namespace, seconds: float) -> None:
    from benchmarks.gpu import gpu

    options.out.parent.mkdir(parents=True, exist_ok=True)
    found = {
        "benchmark": "deform-conv",
        "date": datetime.date.today().isoformat(),
        "machine": {
            "processor": results.processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            **gpu(),
        },
        "versions": results.versions(),
        "engine": options.engine,
        "tactics": options.tactics,
        "seconds": round(seconds, 1),
        "rows": rows,
    }
    temporary = options.out.with_suffix(".part")
    temporary.write_text(json.dumps(found, indent=1) + "\n")
    temporary.replace(options.out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
