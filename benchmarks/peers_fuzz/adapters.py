"""Each peer as a function from a model to what it makes of it; imports happen in the child process that runs it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

Adapter = Callable[[onnx.ModelProto, dict[str, Any]], "tuple[onnx.ModelProto, dict[str, Any]]"]
"""Takes a model and the rule that goes with it, if any; returns a model and notes."""

ADAPTERS: dict[str, Callable[[], Adapter]] = {}
"""By name, what imports a peer and returns its adapter. Raises ImportError where the peer is not installed."""

RULES = frozenset({"onnxscript, drawn rules", "graphsurgeon, drawn patterns"})
"""These apply a rule that is drawn together with the graph."""

RUNS_THE_MODEL = frozenset({"onnxruntime offline"})
"""These open a session on the model: what has no kernel is not their rewriting's fault."""


def adapter(name: str) -> Callable[[Callable[[], Adapter]], Callable[[], Adapter]]:
    def known(open_: Callable[[], Adapter]) -> Callable[[], Adapter]:
        ADAPTERS[name] = open_
        return open_

    return known


def _plain(function: Callable[[onnx.ModelProto], Any]) -> Adapter:
    return lambda model, rule: (function(model), {})


@adapter("onnx-rewrite")
def ours() -> Adapter:
    """The control: what is a finding about others must be none about us. Nothing is verified, hence rolled back."""
    import onnx_rewrite as rw
    from benchmarks.peers_fuzz.drawing import our_passes
    from onnx_rewrite.rewriter.rule import Rule

    passes = our_passes()
    declared = {p.name for p in passes if any(type(rule).unlike is not Rule.unlike for rule in p.rules())}

    def run(model: onnx.ModelProto, rule: dict[str, Any]) -> tuple[onnx.ModelProto, dict[str, Any]]:
        result = rw.rewrite(model, passes, verify="off")
        unlike = any(site.status == "applied" and site.pass_name in declared for site in result.sites)
        # For passes that declare it; the suites hold them to it.
        return result.to_proto(), {"raises the opset": True, "unlike on NaN": unlike}

    return run


@adapter("onnxscript rewriter")
def onnxscript_rewriter() -> Adapter:
    from onnxscript import rewriter

    return _plain(rewriter.rewrite)


@adapter("onnxscript optimizer")
def onnxscript_optimizer() -> Adapter:
    from onnxscript import optimizer

    return _plain(optimizer.optimize)


@adapter("onnxscript {ln, clip}")
def onnxscript_rules() -> Adapter:
    import onnx_ir as ir
    from onnxscript.rewriter import RewritePass
    from onnxscript.rewriter.rules.common import _min_max_to_clip
    from onnxscript.rewriter.rules.fusion import _layer_norm

    def run(model: onnx.ModelProto) -> onnx.ModelProto:
        found = ir.from_proto(model)
        for rules in (_layer_norm.layer_normalization_ruleset, _min_max_to_clip.rules):
            found = RewritePass(rules)(found).model
        return ir.to_proto(found)

    return _plain(run)


@adapter("onnxsim")
def onnxsim() -> Adapter:
    import onnxsim as simplifier

    return _plain(lambda model: simplifier.simplify(model)[0])


@adapter("onnxslim")
def onnxslim() -> Adapter:
    import onnxslim as slimmer

    return _plain(slimmer.slim)


@adapter("onnxoptimizer")
def onnxoptimizer() -> Adapter:
    import onnxoptimizer as optimizer

    return _plain(optimizer.optimize)


@adapter("onnxruntime offline")
def onnxruntime() -> Adapter:
    import onnxruntime as ort

    folder = tempfile.TemporaryDirectory(prefix="onnxruntime-offline-")

    def run(model: onnx.ModelProto) -> onnx.ModelProto:
        path = Path(folder.name) / "optimized.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 4
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(path)

    return _plain(run)


@adapter("onnx-graphsurgeon")
def graphsurgeon() -> Adapter:
    import onnx_graphsurgeon as gs

    def run(model: onnx.ModelProto) -> onnx.ModelProto:
        graph = gs.import_onnx(model)
        graph.fold_constants().cleanup().toposort()
        return gs.export_onnx(graph)

    return _plain(run)


@adapter("onnx-ir, read and written")
def onnx_ir() -> Adapter:
    import onnx_ir as ir

    return _plain(lambda model: ir.to_proto(ir.from_proto(model)))


@adapter("onnxscript, drawn rules")
def onnxscript_drawn_rules() -> Adapter:
    import onnxscript.rewriter  # noqa: F401

    from benchmarks.peers_fuzz.rules import with_onnxscript

    return with_onnxscript


@adapter("graphsurgeon, drawn patterns")
def graphsurgeon_drawn_patterns() -> Adapter:
    import onnx_graphsurgeon.graph_pattern  # noqa: F401

    from benchmarks.peers_fuzz.rules import with_graphsurgeon

    return with_graphsurgeon


PACKAGES = {
    "onnxscript rewriter": "onnxscript",
    "onnxscript optimizer": "onnxscript",
    "onnxscript {ln, clip}": "onnxscript",
    "onnxscript, drawn rules": "onnxscript",
    "onnxsim": "onnxsim",
    "onnxslim": "onnxslim",
    "onnxoptimizer": "onnxoptimizer",
    "onnxruntime offline": "onnxruntime",
    "onnx-graphsurgeon": "onnx-graphsurgeon",
    "graphsurgeon, drawn patterns": "onnx-graphsurgeon",
    "onnx-ir, read and written": "onnx-ir",
    "onnx-rewrite": "onnx-rewrite",
}
"""The package whose version counts."""
