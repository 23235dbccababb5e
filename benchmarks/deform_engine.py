"""The plugins inside engines of TensorRT: whole models beside onnxruntime, dynamic shapes, streams, and times.

`python -m benchmarks deform-engine --expect DIR` writes models, feeds and what onnxruntime makes of them (it needs an
onnxruntime with DeformConv, 1.25 or newer, and neither TensorRT nor a GPU); `python -m benchmarks deform-engine DIR`
builds the engines and compares. The libraries come from `rewrite plugins build`, or from `--libraries`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
FULL_SIZE = {"6x512x58x100": (6, 512, 58, 100, 512), "1x256x64x64": (1, 256, 64, 64, 256)}
# How far an engine may be from onnxruntime, relative to the output's norm: fp32 sums of some thousand products; TF32
# and fp16 have 11 bits, over up to 54 layers with products of two rounded factors each.
LIMITS = {"fp32": 1e-4, "tf32": 5e-3, "fp16": 2e-2}


def expect(folder: Path) -> int:
    """Writes feeds and expected outputs."""
    import onnx
    import onnxruntime

    from benchmarks import deform_models as models

    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)

    def keep(name: str, reference: onnx.ModelProto, *shape: int) -> None:
        feed = random.standard_normal(shape, dtype=np.float32)
        session = onnxruntime.InferenceSession(reference.SerializeToString(), providers=["CPUExecutionProvider"])
        np.savez(folder / f"{name}.npz", x=feed, y=session.run(None, {"x": feed})[0])
        print(f"{name}: expected outputs written", flush=True)

    keep("deform_net", models.standard(models.deform_net(0)), 1, 3, 32, 32)
    resnet = models.standard(models.resnet50(0, "N"))
    for batch in (1, 3):
        keep(f"resnet50_{batch}", resnet, batch, 3, 224, 224)
    keep("relu_sigmoid", models.activation_spelled(models.relu_sigmoid()), 2, 3, 48, 40)
    small = models.standard(models.layer((2, 40, 17, 23, 56), 0))
    keep("layer", small, 2, 40, 17, 23)
    return 0


class Checks:
    """Runs checks one after the other and keeps what came of each."""

    def __init__(self, budget: float, out: Path, only: str) -> None:
        self.rows: list[dict[str, Any]] = []
        self.until = time.perf_counter() + budget
        self.out, self.only = out, only

    def check(self, name: str, what: Callable[[], dict[str, Any]], *, needed: bool = True) -> None:
        if self.only and not any(part in name for part in self.only.split(",")):
            return
        if time.perf_counter() > self.until:
            self.rows.append({"check": name, "ok": None, "reason": "no time left"})
            return
        began = time.perf_counter()
        try:
            row = {"check": name, "ok": True, **what()}
        except Exception as error:  # each check stands alone, and a library's error is a result
            row = {"check": name, "ok": False, "reason": " ".join(str(error).split())[:600]}
        row["needed"] = needed
        row["seconds"] = round(time.perf_counter() - began, 1)
        self.rows.append(row)
        self.out.write_text(json.dumps(self.rows, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(row), flush=True)


def engines(
    folder: Path, libraries: list[str], out: Path, budget: float, sources: str, *, only: str, keep: Path | None
) -> int:
    """Builds, compares and times."""
    import onnx

    from benchmarks import deform_models as models
    from onnx_rewrite.engines.options import BuildOptions
    from onnx_rewrite.engines.protocol import EngineError, Model, Profile
    from onnx_rewrite.engines.tensorrt import TensorRT

    lack = TensorRT().unavailable()
    if lack is not None:
        print(f"deform-engine: {lack.reason}", file=sys.stderr)
        return 2
    common: dict[str, Any] = {"plugins": tuple(libraries), "level": 1, "cache": False}
    if sources:
        common["tactic_sources"] = tuple(sources.split(","))
    checks = Checks(budget, out, only)

    def built(model: onnx.ModelProto, profiles: Any = None, **options: Any) -> Any:
        return TensorRT(BuildOptions(**{**common, **options})).build(Model(model), profiles=profiles)

    def distance(engine: Any, name: str, kind: str) -> dict[str, Any]:
        kept = np.load(folder / f"{name}.npz")
        found = engine.run({"x": kept["x"]})
        y = np.asarray(next(iter(found.values())), dtype=np.float64)
        wanted = kept["y"].astype(np.float64)
        error = float(np.linalg.norm(y - wanted) / np.linalg.norm(wanted))
        if not (y.shape == wanted.shape and error <= LIMITS[kind]):
            raise AssertionError(f"shape {y.shape}, relative error {error:.3g}, allowed {LIMITS[kind]:g}")
        return {"relative_error": float(f"{error:.3g}")}

    def one(make: Callable[[int], onnx.ModelProto], name: str, kind: str) -> Callable[[], dict[str, Any]]:

        return lambda: distance(built(make(int(kind != "fp32")), precision=kind), name, kind)

    for kind in ("fp32", "tf32", "fp16"):
        checks.check(f"deform_net {kind}", one(models.deform_net, "deform_net", kind))
        checks.check(f"layer {kind}", one(lambda tf32: models.layer((2, 40, 17, 23, 56), tf32), "layer", kind))
    checks.check("relu_sigmoid fp32", one(lambda _: models.relu_sigmoid(), "relu_sigmoid", "fp32"))
    checks.check("relu_sigmoid fp16", one(lambda _: models.relu_sigmoid(), "relu_sigmoid", "fp16"))

    def kept_and_found_again() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as empty:
            os.environ["ONNX_REWRITE_CACHE"] = empty
            first = built(models.deform_net(1), precision="fp16", cache=True)
            second = built(models.deform_net(1), precision="fp16", cache=True)
        if first.cached or not second.cached:
            raise AssertionError("the second engine was not deserialized")
        return distance(second, "deform_net", "fp16")

    checks.check("deform_net fp16, deserialized", kept_and_found_again)

    def found_by_itself() -> dict[str, Any]:
        from onnx_rewrite.engines import plugins

        with tempfile.TemporaryDirectory() as shelf:
            os.environ["ONNX_REWRITE_PLUGINS"] = shelf
            for library in libraries:
                (plugin,) = (one for one in plugins.plugins() if one.name in Path(library).name)
                os.symlink(os.path.abspath(library), plugins.library(plugin, 8))
            engine = built(models.deform_net(1), precision="fp16", plugins=())
            return {"libraries": len(os.listdir(shelf)), **distance(engine, "deform_net", "fp16")}

    if libraries:  # else all checks find them so
        checks.check("deform_net fp16, library found", found_by_itself)

    def streams() -> dict[str, Any]:
        engine = built(models.deform_net(1), precision="fp16", streams=3)
        kept = np.load(folder / "deform_net.npz")
        engine.burst({"x": kept["x"]}, 0.2, 30)
        return {"inferences": len(engine.timings), **distance(engine, "deform_net", "fp16")}

    checks.check("deform_net fp16, three streams", streams)

    def refused() -> dict[str, Any]:
        wrong = models.layer((1, 16, 8, 8, 16), 1)
        node = next(node for node in wrong.graph.node if node.op_type == "DeformConv2d")
        for attribute in node.attribute:
            if attribute.name == "kernel_shape":
                attribute.ints[:] = [5, 5]
        try:
            built(wrong)
        except EngineError as error:
            return {"said": " ".join(str(error).split())[-300:]}
        raise AssertionError("a kernel_shape that is not the weights' was not refused")

    checks.check("wrong kernel_shape refused", refused)

    def timed(shape: tuple[int, int, int, int, int], kind: str, builtin: bool = False) -> dict[str, Any]:
        options: dict[str, Any] = {"precision": kind}
        if builtin and sources:  # its matrix product is cuBLAS's, which it gets only where that is a tactic source
            options["tactic_sources"] = (*sources.split(","), "cublas")
        engine = built(models.layer(shape, int(kind != "fp32"), builtin), **options)
        feed = {"x": np.random.default_rng(2).standard_normal(shape[:4], dtype=np.float32)}
        y = np.asarray(next(iter(engine.run(feed).values())))
        engine.timings.clear()
        engine.burst(feed, 0.3, 10)
        whole = [t.phases.compute[1] - t.phases.compute[0] for t in engine.timings if t.phases]
        slowest = sorted(((one.milliseconds or 0.0, one.name) for one in engine.profile(feed)), reverse=True)[:8]
        return {
            "engine_ms": round(statistics.median(whole), 4),
            "mean_abs_output": float(np.abs(y).mean()),
            "layers": [[round(ms, 4), name[:60]] for ms, name in slowest],
        }

    def written() -> dict[str, Any]:
        """An engine, its input and its output as files, for a program in another language."""
        assert keep is not None
        keep.mkdir(parents=True, exist_ok=True)
        shape = FULL_SIZE["1x256x64x64"]
        engine = built(models.layer(shape, 1), precision="fp16")
        x = np.random.default_rng(2).standard_normal(shape[:4], dtype=np.float32)
        y = np.ascontiguousarray(next(iter(engine.run({"x": x}).values())))
        (keep / "layer.engine").write_bytes(engine.data)
        (keep / "x.bin").write_bytes(x.tobytes())
        (keep / "y.bin").write_bytes(y.tobytes())
        return {"engine_bytes": engine.size, "dtype": str(y.dtype)}

    if keep is not None:
        checks.check("engine written", written)

    for name, shape in FULL_SIZE.items():
        for kind in ("fp16", "tf32"):
            checks.check(f"time {name} {kind}", lambda shape=shape, kind=kind: timed(shape, kind))

    def dynamic() -> dict[str, Any]:
        shapes = {"x": Profile((1, 3, 224, 224), (2, 3, 224, 224), (4, 3, 224, 224))}
        engine = built(models.resnet50(1, "N"), shapes, precision="fp16")
        return {f"batch_{batch}": distance(engine, f"resnet50_{batch}", "fp16") for batch in (1, 3)}

    checks.check("resnet50 fp16, dynamic batch", dynamic)
    checks.check("resnet50 fp32", one(lambda tf32: models.resnet50(tf32), "resnet50_1", "fp32"))

    for name, shape in FULL_SIZE.items():
        checks.check(f"time {name} built-in fp32", lambda shape=shape: timed(shape, "fp32", True), needed=False)
    print()
    for row in checks.rows:
        state = {True: "ok  ", False: "FAIL", None: "skip"}[row["ok"]]
        told = {key: value for key, value in row.items() if key not in ("check", "ok", "seconds", "needed")}
        print(f"{state} {row['check']:34} {json.dumps(told)[:150]}")
    return 0 if all(row["ok"] for row in checks.rows if row.get("needed", True)) else 1


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks deform-engine", description=__doc__)
    parser.add_argument("folder", type=Path, help="where expected outputs are, or go")
    parser.add_argument("--expect", action="store_true", help="writes what onnxruntime gives, and ends")
    parser.add_argument("--libraries", nargs="*", default=[], help="plugin libraries; else those that were built")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "deform_engine.json")
    parser.add_argument("--budget", type=float, default=300, help="seconds after which no check begins")
    parser.add_argument("--only", default="", help="parts of names of checks, separated by commas")
    parser.add_argument("--keep", type=Path, help="a folder for one engine with its input and output, as files")
    parser.add_argument("--sources", default="edge_mask_convolutions,jit_convolutions", help="tactic sources")
    args = parser.parse_args(arguments)
    if args.expect:
        return expect(args.folder)
    if not args.folder.is_dir():
        print(f"{args.folder} is not there: run with --expect first", file=sys.stderr)
        return 2
    return engines(args.folder, args.libraries, args.out, args.budget, args.sources, only=args.only, keep=args.keep)
