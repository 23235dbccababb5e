"""`python -m benchmarks mhsa`: what the spelling of attention is worth, with TensorRT on a GPU and elsewhere.

python -m benchmarks mhsa --exports FOLDER  TensorRT, on every GPU that there is: whole models (as export_models.py
                                            writes them) and attention blocks alone, the most important first, until
                                            the --budget of seconds is used up; with --work the same command goes on
python -m benchmarks mhsa --micro           of it the attention blocks alone, which need no exports
python -m benchmarks mhsa --list            what it would measure, in this order
python -m benchmarks mhsa --kernels M...    kernels of TensorRT-RTX engines, built ahead of time: needs no GPU;
                                            without models, of attention blocks alone
python -m benchmarks mhsa --cpu MODEL...    onnxruntime on the CPU; without models, attention blocks
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks import results
from benchmarks.attention_models import FAMILIES
from benchmarks.mhsa_forms import CPU_FORMS, Group, plan, rewritten
from benchmarks.mhsa_lanes import Lanes, processors
from benchmarks.mhsa_worker import Race, write


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


def save(path: Path, mode: str, rows: list[dict[str, Any]], **more: Any) -> None:
    """Writes results with the machine, the versions and the date."""
    machine = {"processor": results.processor(), "cores": os.cpu_count(), **more.pop("machine", {})}
    head = {"benchmark": f"mhsa {mode}", "date": time.strftime("%Y-%m-%d"), "machine": machine}
    write(path, {**head, "versions": results.versions(), **more, "rows": rows})


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    def cell(row: Mapping[str, Any], column: str) -> str:
        value = row.get(column)
        return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)[:70]

    lines = [list(columns), *([cell(row, c) for c in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        print("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())


MEASURED = ("batch", "precision", "variant", "median", "times", "layers", "build_s", "error_max", "error")


def wanted(options: argparse.Namespace) -> list[Group]:
    """The groups of the plan that are asked for."""
    found: list[Group] = []
    for group in plan():
        forms = tuple(f for f in group.forms if f == "original" or options.forms is None or f in options.forms)
        if (options.micro and not group.micro) or len(forms) < 2:
            continue
        if options.models and group.model not in options.models:
            continue
        if group.batch in (options.batch or [group.batch]) and group.precision in (
            options.precision or [group.precision]
        ):
            found.append(Group(group.model, group.batch, group.precision, forms))
    return list(dict.fromkeys(found))


def on_gpus(options: argparse.Namespace, mode: str) -> list[dict[str, Any]]:
    """TensorRT on every GPU; what is there is saved every few seconds, and when the process is told to end."""
    groups = wanted(options)
    settings = {key: getattr(options, key) for key in ("engine", "target", "verify", "duration", "layers")}
    with tempfile.TemporaryDirectory() as scratch:
        lanes = Lanes(
            groups, options.exports, options.work or Path(scratch), settings, options.budget, options.processors
        )
        lanes.share_timings = options.share_timings
        if options.engine == "onnxruntime":
            lanes.lanes = [None]
        if not lanes.lanes:
            raise SystemExit("no GPU: nvidia-smi lists none, and CUDA_VISIBLE_DEVICES names none")
        machine = lanes.about()
        lanes.say(json.dumps(machine))
        began, ended = time.perf_counter(), threading.Event()

        def note() -> None:
            seconds = round(time.perf_counter() - began, 1)
            save(options.out, mode, lanes.rows(), machine=machine, seconds=seconds, target=options.target)

        def notes() -> None:
            while not ended.wait(5):
                note()

        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        threading.Thread(target=notes, daemon=True).start()
        try:
            return lanes.run()
        finally:
            ended.set()
            note()


def on_processor(options: argparse.Namespace) -> list[dict[str, Any]]:
    """onnxruntime on the CPU: whole runs in turn."""
    from onnx_rewrite.engines import registry
    from onnx_rewrite.engines.protocol import Model
    from onnx_rewrite.engines.trials import trials

    rows: list[dict[str, Any]] = []
    blocks = {} if options.models else {name: make(1, 1) for name, make in FAMILIES.items()}
    (backend,) = registry.choose("onnxruntime").backends
    for path in options.models or blocks:
        loaded = blocks[path] if path in blocks else onnx.load(path)
        for batch in options.batch:
            original = with_batch(loaded, batch)
            found = trials([Model(original)], shapes=None, inputs=None, seed=0)
            race = Race(backend, found.feeds[0], found.expected[0][0], options.duration, lambda: 1.0)
            for name in options.forms:
                model, applied = rewritten(
                    original, CPU_FORMS[name], options.target, "off" if blocks else options.verify
                )
                if name == "original" or applied:
                    race.build(name, model)
                    race.rows[name]["sites"] = applied
            race.run()
            head = {"model": Path(path).stem, "batch": batch, "precision": "fp32"}
            rows += [{**head, **row} for row in race.rows.values()]
            save(options.out, "cpu", rows)
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
    parser.add_argument("models", nargs="*", help="files; on a GPU the names of the list, to choose")
    parser.add_argument("--micro", action="store_true", help="attention blocks alone, in every variant")
    parser.add_argument("--list", action="store_true", help="what would be measured on a GPU")
    parser.add_argument("--kernels", action="store_true", help="kernels of TensorRT-RTX, no GPU needed")
    parser.add_argument("--cpu", action="store_true", help="onnxruntime on the CPU")
    parser.add_argument("--forms", nargs="+", default=None, help="these alone, and the original")
    parser.add_argument("--precision", nargs="+", default=None, help="these alone")
    parser.add_argument("--batch", nargs="+", type=int, default=None, help="these alone")
    parser.add_argument("--exports", type=Path, default=Path("models"), help="where export_models.py writes; awaited")
    parser.add_argument("--work", type=Path, default=None, help="keeps rewritten models and rows, to go on with")
    parser.add_argument(
        "--share-timings", action="store_true", help="builds take tactics' timings from earlier ones: quicker"
    )
    parser.add_argument("--processors", type=int, default=processors(), help="processes that rewrite models")
    parser.add_argument("--layers", type=int, default=2, help="attention blocks in a row (--micro)")
    parser.add_argument("--engine", default="tensorrt:tactic-sources=edge_mask_convolutions+jit_convolutions")
    parser.add_argument("--target", default=None, help="for whom models are rewritten")
    parser.add_argument("--duration", type=float, default=0.4, help="seconds of timed inferences per engine")
    parser.add_argument("--budget", type=float, default=1e9, help="ends after so many seconds")
    parser.add_argument("--verify", default="local", choices=("full", "local", "off"))
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args(arguments)
    mode = "kernels" if options.kernels else "cpu" if options.cpu else "tensorrt"
    options.out = options.out or results.FOLDER / f"mhsa_{mode}.json"
    options.target = options.target or ("onnxruntime" if options.cpu else "tensorrt-8.6")
    if options.list:
        for group in wanted(options):
            print(f"{group.model} batch {group.batch} {group.precision}: {', '.join(group.forms)}")
        return 0
    if options.cpu:
        options.batch, options.forms = options.batch or [1], options.forms or list(CPU_FORMS)
    if options.kernels:
        options.precision = options.precision or ["fp16", "fp32"]
    options.passes = [
        ("original", None),
        ("mhsa", "mhsa"),
        ("attention", "mhsa:form=attention:level=core"),
        ("heads", "mhsa:form=attention"),
        ("spelling", "mhsa:form=spelling"),
        ("qkv,mhsa", "qkv,mhsa"),
    ]
    began = time.perf_counter()
    if options.kernels:
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
    elif options.cpu:
        rows = on_processor(options)
        columns = ("model", *MEASURED)
    else:
        rows = on_gpus(options, mode)
        columns = ("model", *MEASURED)
    if options.kernels or options.cpu:
        save(options.out, mode, rows, seconds=round(time.perf_counter() - began, 1))
    table(rows, columns)
    print(f"{options.out} ({time.perf_counter() - began:.0f} s)")
    return 0 if any("error" not in row for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
