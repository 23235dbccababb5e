"""onnxruntime sessions for judging: optimisations off, one thread, silent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from onnx_rewrite.rewriter.standing_in import resolved, unreadable
from onnx_rewrite.verify.dtypes import Array
from onnx_rewrite.verify.sparse import without_sparse_in_functions

if TYPE_CHECKING:
    import onnxruntime as ort

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "ai.onnx.preview.training", "ai.onnx.training"})
"""Domains whose operators onnxruntime may know itself."""


class Unsupported(Exception):
    """A model that onnxruntime cannot open for a reason that says nothing about the model's meaning."""


def first_line(error: BaseException) -> str:
    """Onnxruntime's words without the code and the path of its own source file."""
    text = str(error).strip() or type(error).__name__
    lines = text.splitlines()
    line = lines[0]
    if line.startswith("[ONNXRuntimeError]"):
        line = line.split(" : ", 3)[-1]
    if line.startswith(("/", "D:\\", "C:\\")) and " " in line:
        line = line.split(" ", 1)[1]
    return line if len(line) <= 300 else line[:297] + "..."


@cache
def limits() -> tuple[int, int]:
    """The highest opset of the default domain and the highest IR version that the installed onnxruntime accepts."""
    newest = onnx.defs.onnx_opset_version()
    opset = next((v for v in range(newest + 1, 6, -1) if _opens(8, v)), newest)
    ir = next((v for v in range(onnx.IR_VERSION + 1, 7, -1) if _opens(v, 13)), 8)
    return opset, ir


def _opens(ir_version: int, opset: int) -> bool:
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "probe", value[:1], value[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=ir_version)
    try:
        _open(model.SerializeToString(), optimise=False)
    except Exception:
        return False
    return True


def _open(source: bytes | str, *, optimise: bool, threads: int = 1, folder: str | None = None) -> ort.InferenceSession:
    import onnxruntime as ort

    options = ort.SessionOptions()
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Feeds of other shapes follow one another; a planned arena would only be thrown away.
    options.enable_mem_pattern = False
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def opset_of(model: onnx.ModelProto, domain: str = "") -> int:
    """The opset that a model imports for a domain, or 0."""
    return next(
        (o.version for o in model.opset_import if o.domain == domain or {o.domain, domain} == {"", "ai.onnx"}), 0
    )


def obstacle(model: onnx.ModelProto) -> str | None:
    """Why onnxruntime cannot know this model, whatever it means: its opset, or a custom operator without a function
    body.
    """
    newest, _ = limits()
    if opset_of(model) > newest:
        return f"opset {opset_of(model)} is newer than the installed onnxruntime knows ({newest})"
    bodies = {(f.domain, f.name) for f in model.functions}
    graphs: list[Any] = [model.graph, *model.functions]
    while graphs:
        for node in graphs.pop().node:
            if node.domain not in DOMAINS and (node.domain, node.op_type) not in bodies:
                where = f" (node {node.name!r})" if node.name else ""
                name = f"custom operator {node.domain}::{node.op_type}{where}"
                reason = unreadable(node)
                if reason is not None:
                    return f"{name} is known, and does not say all that is needed: {reason}"
                return f"{name} has no function body, so onnxruntime cannot run it"
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    graphs.append(attribute.g)
                graphs.extend(attribute.graphs)
    return None


class Session:
    """One model in onnxruntime.

    Args:
        source: A model, or the path of one (opened from there, so that external data is found).
        optimise: ORT_ENABLE_ALL instead of ORT_DISABLE_ALL.
        threads: Threads within an operator; 0 leaves the choice to onnxruntime.
        folder: Where a model given as a proto keeps its external data.

    Raises:
        Unsupported: onnxruntime knows the opset or an operator not at all, or has no kernel for these types.
        Exception: Whatever onnxruntime raises for a model that it finds invalid.
    """

    def __init__(
        self,
        source: onnx.ModelProto | str | Path,
        *,
        optimise: bool = False,
        threads: int = 1,
        folder: str | None = None,
    ) -> None:
        if isinstance(source, onnx.ModelProto):
            source = without_sparse_in_functions(resolved(source))
            reason = obstacle(source)
            if reason:
                raise Unsupported(reason)
            target: bytes | str = _serialize(source)
        else:
            target = str(source)
        try:
            self._session = _open(target, optimise=optimise, threads=threads, folder=folder)
        except Exception as error:
            if type(error).__name__ == "NotImplemented":
                raise Unsupported(first_line(error)) from error
            raise
        self.outputs: list[str] = [o.name for o in self._session.get_outputs()]
        self.inputs: list[str] = [i.name for i in self._session.get_inputs()]

    def __call__(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Any]:
        """The outputs in the order asked for (default: the model's)."""
        return list(self._session.run(outputs, dict(feeds)))


def _serialize(model: onnx.ModelProto) -> bytes:
    newest = limits()[1]
    if model.ir_version <= newest:
        return model.SerializeToString()
    was = model.ir_version
    model.ir_version = newest
    try:
        return model.SerializeToString()
    finally:
        model.ir_version = was


def loads_everywhere(model: onnx.ModelProto | str | Path) -> str | None:
    """Opens a model without and with onnxruntime's optimisations; the error text of the first failure, or None."""
    for optimise in (False, True):
        try:
            Session(model, optimise=optimise)
        except Exception as error:
            return f"onnxruntime with optimisations {'on' if optimise else 'off'}: {first_line(error)}"
    return None
