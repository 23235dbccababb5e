"""`python -m benchmarks mhsa`: what the spelling of attention is worth, with TensorRT on a GPU and elsewhere.

python -m benchmarks mhsa --micro          attention blocks alone, every variant, on TensorRT (about 4 minutes)
python -m benchmarks mhsa MODEL...         whole models, original and forms, on TensorRT
python -m benchmarks mhsa --kernels M...   kernels of TensorRT-RTX engines, built ahead of time: needs no GPU;
                                           without models, of attention blocks alone
python -m benchmarks mhsa --cpu MODEL...   onnxruntime on the CPU
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks import results
from benchmarks.attention_models import FAMILIES

SPELLING = "mhsa:form=spelling"
VARIANTS: dict[str, str | None] = {
    "original": None,
    "spelling": SPELLING,
    "scale=q": f"{SPELLING}:scale=q",
    "scale=both": f"{SPELLING}:scale=both",
    "keys=twice": f"{SPELLING}:keys=twice",
    "stacked": f"{SPELLING}:packed=stacked",
    "stacked,q,twice": f"{SPELLING}:packed=stacked:scale=q:keys=twice",
    "rank=3": f"{SPELLING}:rank=3",
    "mask=apart": f"{SPELLING}:mask=apart",
    "qkv": f"qkv,{SPELLING}",
    "qkv,stacked": f"qkv,{SPELLING}:packed=stacked",
    "qkv,q,twice": f"qkv,{SPELLING}:scale=q:keys=twice",
}
ONLY = {
    "mask=apart": ("swin_t",),
    "qkv": ("bert_128", "bert_384"),
    "qkv,stacked": ("bert_128", "bert_384"),
    "qkv,q,twice": ("bert_128", "bert_384"),
    "rank=3": ("vit_b",),
    "stacked": ("vit_b", "swin_t"),
    "stacked,q,twice": ("vit_b", "swin_t"),
}


def rewritten(
    model: onnx.ModelProto, passes: str | None, target: str, verify: str = "local"
) -> tuple[onnx.ModelProto, int]:
    """The model after passes, and how many sites they replaced; as it is where they cannot."""
    import onnx_rewrite as rw

    if passes is None:
        return model, 0
    result = rw.rewrite(model, passes, target=target, verify=verify)  # type: ignore[arg-type]
    return result.to_proto(), result.report.applied


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every float32 tensor as float16; numbers beyond its range become its largest."""
    half = onnx.ModelProto()
    half.CopyFrom(model)
    largest = float(np.finfo(np.float16).max)

    def convert(tensor: onnx.TensorProto) -> None:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor)
            small = np.where(np.isinf(array), array, np.clip(array, -largest, largest)).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(small, tensor.name))

    for tensor in half.graph.initializer:
        convert(tensor)
    for value in (*half.graph.input, *half.graph.output, *half.graph.value_info):
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    for node in half.graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                convert(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = onnx.TensorProto.FLOAT16
    return half


def compute_ms(engine: Any) -> dict[str, float | None]:
    """Median and quartiles of an engine's times on the GPU, or of whole runs where it has no GPU."""
    phases = [one.phases for one in engine.timings if one.phases is not None]
    times = [p.compute[1] - p.compute[0] for p in phases] or [one.seconds * 1e3 for one in engine.timings]
    if len(times) < 4:
        return {"median": None, "low": None, "high": None}
    low, middle, high = statistics.quantiles(times, n=4)
    return {"median": middle, "low": low, "high": high}


def raced(
    models: Mapping[str, onnx.ModelProto], backend: Any, duration: float, left: Callable[[], float]
) -> Iterator[dict[str, Any]]:
    """Builds an engine of each model and runs them in turn on one feed; a row for each."""
    from onnx_rewrite.engines.protocol import Model, Profile
    from onnx_rewrite.engines.timing import Effort, take_turns
    from onnx_rewrite.engines.trials import largest_difference, trials

    first = next(iter(models.values()))
    found = trials([Model(first)], shapes=None, inputs=None, seed=0)
    feed, expected = found.feeds[0], found.expected[0][0]
    profiles = {name: Profile.fixed(*shape) for name, shape in found.shapes.items()}
    rows: dict[str, dict[str, Any]] = {}
    engines: dict[str, Any] = {}
    for name, model in models.items():
        rows[name] = {"variant": name, "nodes": len(model.graph.node)}
        if left() < 0:
            rows[name]["error"] = "not measured: the time was up"
            continue
        began = time.perf_counter()
        try:
            engines[name] = engine = backend.build(Model(model), profiles=profiles)
            outputs = engine.run(feed)
        except Exception as error:  # one variant that is refused must not cost the others
            engines.pop(name, None)
            rows[name]["error"] = f"{type(error).__name__}: {error}"[:300]
            continue
        difference = None if expected is None else largest_difference(outputs, expected)[0]
        rows[name] |= {
            "build_s": round(time.perf_counter() - began, 2),
            "layers": len(engine.layers),
            "kinds": [layer.kind for layer in engine.layers],
            "error_max": difference,
        }
    take_turns(list(engines.values()), feed, Effort(seconds=duration))
    for name, engine in engines.items():
        rows[name] |= compute_ms(engine)
    base = rows.get("original", {}).get("median")
    for row in rows.values():
        if base and row.get("median"):
            row["times"] = round(base / row["median"], 4)
        yield row


def save(path: Path, mode: str, rows: list[dict[str, Any]], **more: Any) -> None:
    from benchmarks.gpu import gpu

    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "benchmark": f"mhsa {mode}",
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"processor": results.processor(), **(gpu() if mode in ("micro", "models") else {})},
        "versions": results.versions(),
        **more,
        "rows": rows,
    }
    path.write_text(json.dumps(document, indent=1, default=str) + "\n")


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    def cell(row: Mapping[str, Any], column: str) -> str:
        value = row.get(column)
        return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)[:70]

    lines = [list(columns), *([cell(row, c) for c in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        print("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())


def backend_of(engine: str, precision: str) -> Any:
    from onnx_rewrite.engines import registry

    return registry.choose(f"{engine}:{precision}" if engine.startswith("tensorrt") else engine).backends[0]


def micro(options: argparse.Namespace, left: Callable[[], float]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for precision in options.precision:
        for family in options.families:
            for batch in options.batch:
                if left() < 0:
                    continue
                began = time.perf_counter()
                original = FAMILIES[family](batch, options.layers)
                models: dict[str, onnx.ModelProto] = {}
                for name, passes in VARIANTS.items():
                    if family not in ONLY.get(name, (family,)):
                        continue
                    try:
                        model, applied = rewritten(original, passes, "tensorrt-8.6", "off")
                    except Exception as error:
                        rows.append({"family": family, "variant": name, "error": f"{type(error).__name__}: {error}"})
                        continue
                    if passes is None or applied:
                        models[name] = model
                what = {"family": family, "batch": batch, "precision": precision}
                found = [
                    {**what, **row}
                    for row in raced(models, backend_of(options.engine, precision), options.duration, left)
                ]
                rows += found
                print(
                    f"{family} batch {batch} {precision}: {time.perf_counter() - began:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
                save(options.out, "micro", rows, layers=options.layers)
    return rows


MEASURED = ("batch", "precision", "variant", "median", "times", "layers", "build_s", "error_max", "error")

MODEL_FORMS: dict[str, str | None] = {
    "original": None,
    "mhsa": "mhsa",
    "qkv,mhsa": "qkv,mhsa",
    "ln": "ln",
    "ln,mhsa": "ln,mhsa",
}


CPU_FORMS: dict[str, str | None] = {
    "original": None,
    "mhsa": "mhsa",
    "MultiHeadAttention": "mhsa:form=microsoft:level=heads",
    "Attention-23": "mhsa:form=attention",
    "qkv,Attention-23": "qkv,mhsa:form=attention",
}


def whole(options: argparse.Namespace, left: Callable[[], float]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    blocks = {} if options.models else {name: make(1, 1) for name, make in FAMILIES.items()}
    for path in options.models or blocks:
        loaded = blocks[path] if path in blocks else onnx.load(path)
        for batch in options.batch:
            original = with_batch(loaded, batch)
            models: dict[str, onnx.ModelProto] = {}
            for name in options.forms:
                passes = (CPU_FORMS if options.cpu else MODEL_FORMS)[name]
                model, applied = rewritten(original, passes, options.target, "off" if blocks else options.verify)
                if name == "original" or applied:
                    models[name] = model
            for precision in options.precision:
                if left() < 0:
                    continue
                found = raced(models, backend_of(options.engine, precision), options.duration, left)
                rows += [{"model": Path(path).stem, "batch": batch, "precision": precision, **row} for row in found]
                save(options.out, "models", rows, target=options.target)
    return rows


def with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The model for another batch, where its first dimension is symbolic; else as it is."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for value in made.graph.input:
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = batch
    return made


def kernels(options: argparse.Namespace) -> list[dict[str, Any]]:
    from onnx_rewrite.engines.protocol import Model, Profile
    from onnx_rewrite.engines.tensorrt_rtx import TensorRTRTX
    from onnx_rewrite.engines.trials import trials

    rows: list[dict[str, Any]] = []
    blocks = {} if options.models else {name: make(1, 1) for name, make in FAMILIES.items()}
    for path in options.models or blocks:
        loaded = blocks[path] if path in blocks else onnx.load(path)
        for precision in options.precision:
            original = loaded if precision == "fp32" else halved(loaded)
            row: dict[str, Any] = {"model": Path(path).stem, "precision": precision}
            rows.append(row)
            shapes = trials([Model(loaded)], shapes=None, inputs=None, seed=0).shapes
            profiles = {name: Profile.fixed(*shape) for name, shape in shapes.items()}
            for name, passes in options.passes:
                try:
                    verify = "off" if path in blocks else "local"
                    model, applied = rewritten(original, passes, "tensorrt-rtx", verify)
                    row[f"{name} sites"] = applied
                    row[name] = len(TensorRTRTX("SM89").build(Model(model), profiles=profiles).layers)
                except Exception as error:
                    row[name] = None
                    row["error"] = f"{name}: {type(error).__name__}: {error}"[:200]
    return rows


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks mhsa", description=__doc__)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--micro", action="store_true", help="attention blocks alone, in every variant")
    parser.add_argument("--kernels", action="store_true", help="kernels of TensorRT-RTX, no GPU needed")
    parser.add_argument("--cpu", action="store_true", help="onnxruntime on the CPU")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--forms", nargs="+", default=None)
    parser.add_argument("--precision", nargs="+", default=None)
    parser.add_argument("--batch", nargs="+", type=int, default=None)
    parser.add_argument("--layers", type=int, default=2, help="attention blocks in a row (--micro)")
    parser.add_argument("--engine", default="tensorrt:tactic-sources=edge_mask_convolutions+jit_convolutions")
    parser.add_argument("--target", default=None, help="for whom models are rewritten")
    parser.add_argument("--duration", type=float, default=0.4, help="seconds of timed inferences per engine")
    parser.add_argument("--budget", type=float, default=1e9, help="builds nothing after so many seconds")
    parser.add_argument("--verify", default="local", choices=("full", "local", "off"))
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args(arguments)
    mode = "micro" if options.micro else "kernels" if options.kernels else "cpu" if options.cpu else "models"
    options.out = options.out or results.FOLDER / f"mhsa_{mode}.json"
    options.batch = options.batch or ([8] if options.micro else [1] if options.cpu else [1, 8, 32])
    options.target = options.target or ("onnxruntime" if options.cpu else "tensorrt-8.6")
    if options.cpu:
        options.engine, options.precision = "onnxruntime", ["fp32"]
    options.precision = options.precision or (["fp16", "fp32"])
    options.forms = options.forms or list(CPU_FORMS if options.cpu else MODEL_FORMS)
    options.passes = [
        ("original", None),
        ("mhsa", "mhsa"),
        ("attention", "mhsa:form=attention:level=core"),
        ("heads", "mhsa:form=attention"),
        ("spelling", "mhsa:form=spelling"),
        ("qkv,mhsa", "qkv,mhsa"),
    ]
    began = time.perf_counter()

    def left() -> float:
        return options.budget - (time.perf_counter() - began)

    if options.micro:
        rows = micro(options, left)
        columns = ("family", *MEASURED)
    elif options.kernels:
        rows = kernels(options)
        columns = (
            "model",
            "precision",
            "original",
            "mhsa",
            "mhsa sites",
            "attention",
            "attention sites",
            "heads",
            "spelling",
            "qkv,mhsa",
            "error",
        )
    else:
        rows = whole(options, left)
        columns = ("model", *MEASURED)
    save(options.out, mode, rows, seconds=round(time.perf_counter() - began, 1))
    table(rows, columns)
    print(f"{options.out} ({time.perf_counter() - began:.0f} s)")
    return 0 if any("error" not in row for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
