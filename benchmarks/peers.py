"""Each tool as a function from an input file to an output file, and what it found.

A runner returns the seconds of its stages; imports are done before the clock starts, as in a process that lives on.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

Stages = dict[str, float]


class Clock:
    """Names the stretches between calls."""

    def __init__(self) -> None:
        self.stages: Stages = {}
        self._last = perf_counter()

    def __call__(self, stage: str) -> None:
        now = perf_counter()
        self.stages[stage] = now - self._last
        self._last = now


def ours(source: str, target: str, *, verify: bool = False) -> Stages:
    from onnx_rewrite.model import load, save
    from onnx_rewrite.registry import resolve
    from onnx_rewrite.rewriter.driver import Driver
    from onnx_rewrite.verify import LocalJudge

    passes, judge = resolve("ln,clip"), LocalJudge() if verify else None
    clock = Clock()
    loaded = load(source)
    clock("load")
    Driver(loaded.ir, passes, judge=judge, kept=loaded.kept_names).run()
    clock("rewrite")
    save(loaded, target)
    clock("save")
    return clock.stages


def floor(source: str, target: str) -> Stages:
    """Reads and writes only: what no tool on the same IR can go below."""
    import onnx_ir as ir

    clock = Clock()
    model = ir.load(source)
    clock("load")
    ir.save(model, target)
    clock("save")
    return clock.stages


def ours_verified(source: str, target: str) -> Stages:
    return ours(source, target, verify=True)


def onnxscript_rules(source: str, target: str) -> Stages:
    import onnx_ir as ir
    from onnxscript.rewriter import RewritePass
    from onnxscript.rewriter.rules.common import _min_max_to_clip
    from onnxscript.rewriter.rules.fusion import _layer_norm

    clock = Clock()
    model = ir.load(source)
    clock("load")
    for rules in (_layer_norm.layer_normalization_ruleset, _min_max_to_clip.rules):
        model = RewritePass(rules)(model).model
    clock("rewrite")
    ir.save(model, target)
    clock("save")
    return clock.stages


def onnxscript_default(source: str, target: str) -> Stages:
    import onnx_ir as ir
    from onnxscript import rewriter

    clock = Clock()
    model = ir.load(source)
    clock("load")
    model = rewriter.rewrite(model)
    clock("rewrite")
    ir.save(model, target)
    clock("save")
    return clock.stages


def onnxsim(source: str, target: str) -> Stages:
    import onnx
    import onnxsim as simplifier

    clock = Clock()
    model = onnx.load(source)
    clock("load")
    model, _ = simplifier.simplify(model)
    clock("rewrite")
    onnx.save(model, target)
    clock("save")
    return clock.stages


def onnxslim(source: str, target: str) -> Stages:
    import onnx
    import onnxslim as slimmer

    clock = Clock()
    model = onnx.load(source)
    clock("load")
    model = slimmer.slim(model)
    clock("rewrite")
    onnx.save(model, target)
    clock("save")
    return clock.stages


def onnxoptimizer(source: str, target: str) -> Stages:
    import onnx
    import onnxoptimizer as optimizer

    clock = Clock()
    model = onnx.load(source)
    clock("load")
    model = optimizer.optimize(model)
    clock("rewrite")
    onnx.save(model, target)
    clock("save")
    return clock.stages


def onnxruntime(source: str, target: str) -> Stages:
    import onnxruntime as ort

    clock = Clock()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = target
    options.log_severity_level = 4
    ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    clock("rewrite")
    return clock.stages


def graphsurgeon(source: str, target: str) -> Stages:
    """Reads and writes only: it has no such passes."""
    import onnx
    import onnx_graphsurgeon as gs

    clock = Clock()
    graph = gs.import_onnx(onnx.load(source))
    clock("load")
    graph.cleanup().toposort()
    clock("rewrite")
    onnx.save(gs.export_onnx(graph), target)
    clock("save")
    return clock.stages


PEERS: dict[str, Callable[[str, str], Stages]] = {
    "onnx-rewrite": ours,
    "onnx-rewrite, verified": ours_verified,
    "onnx_ir (no pass)": floor,
    "onnxscript {ln, clip}": onnxscript_rules,
    "onnxscript default": onnxscript_default,
    "onnxsim": onnxsim,
    "onnxslim": onnxslim,
    "onnxoptimizer": onnxoptimizer,
    "onnxruntime offline": onnxruntime,
    "graphsurgeon (no pass)": graphsurgeon,
}
