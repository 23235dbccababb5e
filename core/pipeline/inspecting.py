"""`inspect`: what a model is made of, and what each pass would find in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from onnx_rewrite import registry
from onnx_rewrite.model import load, reload
from onnx_rewrite.pipeline.driving import PassRun
from onnx_rewrite.pipeline.reporting import opsets
from onnx_rewrite.rewriter.names import all_graphs


@dataclass
class ValueInfo:
    """An input or output: its name, dtype and shape, as text."""

    name: str
    dtype: str
    shape: str


@dataclass
class Inspection:
    """What a model holds.

    Attributes:
        inputs: What must be fed.
        outputs: What it gives.
        opsets: Version by domain.
        ir_version: Of the file format.
        producer: The program that wrote it, with its version.
        histogram: Number of nodes by operator, bodies and functions included; "domain::name" outside the standard.
        parameters: Number of elements of all initializers and Constant nodes.
        parameter_bytes: Their size in bytes.
        sites: Per pass, how many sites it would apply and refuse, if it ran alone.
    """

    inputs: list[ValueInfo]
    outputs: list[ValueInfo]
    opsets: dict[str, int]
    ir_version: int
    producer: str
    histogram: dict[str, int]
    parameters: int
    parameter_bytes: int
    sites: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])


def inspect(source: Any, passes: Any = None) -> Inspection:
    """Looks at a model without changing it.

    Args:
        source: A path, bytes, a ModelProto, an onnx_ir.Model or a gs.Graph.
        passes: For which passes to count sites; default: all that are known. Nothing is verified.

    Raises:
        ModelError: The model cannot be read.
        UsageError: A pass is unknown.
    """
    chosen = registry.usable() if passes is None else registry.resolve(passes)
    loaded = load(source)
    model = loaded.ir
    histogram: Counter[str] = Counter()
    tensors: list[ir.TensorProtocol] = []
    for graph in all_graphs(model):
        tensors += [v.const_value for v in graph.initializers.values() if v.const_value is not None]
        for node in graph:
            histogram[node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"] += 1
            if node.op_type == "Constant" and "value" in node.attributes and not node.attributes["value"].is_ref():
                tensors.append(node.attributes["value"].as_tensor())
    found = Inspection(
        inputs=[_value(v) for v in model.graph.inputs if not v.is_initializer()],
        outputs=[_value(v) for v in model.graph.outputs],
        opsets=opsets(model),
        ir_version=int(model.ir_version),
        producer=" ".join(filter(None, (model.producer_name, model.producer_version))),
        histogram=dict(histogram.most_common()),
        parameters=sum(int(t.size) for t in tensors),
        parameter_bytes=sum(int(t.nbytes) for t in tensors),
    )
    for one in chosen:
        driver = PassRun(reload(loaded), [one])
        driver.run()
        statuses = Counter(site.status for site in driver.sites[one.name])
        found.sites[one.name] = {
            "applied": statuses["applied"],
            "refused": statuses["refused"] + statuses["rolled_back"],
        }
    return found


def _value(value: ir.Value) -> ValueInfo:
    dtype = "" if value.type is None else str(value.type) if value.dtype is None else value.dtype.name.lower()
    dims = None if value.shape is None else [str(d) if isinstance(d, int) else str(d.value or "?") for d in value.shape]
    return ValueInfo(value.name or "", dtype, "?" if dims is None else f"[{', '.join(dims)}]")
