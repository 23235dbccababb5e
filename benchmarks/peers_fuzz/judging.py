"""What must hold between a model and what a peer made of it. Runs in the judge's process, which a bad model may end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_rewrite.testing.comparing import CannotRun, Pair, feeds, session

Reasons = dict[str, str]


def examine(request: dict[str, Any], models: list[onnx.ModelProto]) -> tuple[dict[str, Any], list[onnx.ModelProto]]:
    """Which properties do not hold, by name, each with the reason."""
    if request.get("runs"):
        return {"runs": runs(models[0])}, []
    before, after = models
    only = request.get("only")
    # What the original computes does not depend on how its weights are stored; onnxruntime and the comparison know
    # dense ones better.
    dense = densified(before), densified(after)
    found: Reasons = {}
    for name, check in CHECKS.items():
        if only is None or name in only or (name == "equal" and "nan" in only):
            reason = check(*(dense if name in ("equal", "overridable") else (before, after)))
            if reason is not None:
                found["nan" if name == "equal" and " NaN became " in reason else name] = reason
    if "sparse" in found.get("kept", ""):  # the rest follows from that
        found = {"kept": found["kept"]}
    return {"reasons": found}, []


def runs(model: onnx.ModelProto) -> bool:
    """Whether onnxruntime opens a model, its optimisations off."""
    try:
        session(model)
    except Exception:
        return False
    return True


def densified(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with its sparse initializers stored as dense ones."""
    if not model.graph.sparse_initializer:
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for sparse in model.graph.sparse_initializer:
        values = numpy_helper.to_array(sparse.values)
        array = np.zeros(int(np.prod(sparse.dims)), values.dtype)
        array[numpy_helper.to_array(sparse.indices)] = values
        made.graph.initializer.append(numpy_helper.from_array(array.reshape(tuple(sparse.dims)), sparse.values.name))
    made.graph.ClearField("sparse_initializer")
    return made


def valid(before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
    """The checker accepts the result as it accepted the original."""
    reason = _refused(after, full=True)
    # The full check infers types too, and knows nothing of sparse initializers.
    if reason is not None and _refused(before, full=True) is not None:
        return _refused(after, full=False)
    return reason


def _refused(model: onnx.ModelProto, *, full: bool) -> str | None:
    try:
        onnx.checker.check_model(model, full_check=full)
    except Exception as error:
        return _line(error)
    return None


def interface(before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
    """Inputs and outputs keep their names, order, element types and shapes."""
    weights = {t.name for t in before.graph.initializer}
    for what, mine, theirs in (
        ("input", [v for v in before.graph.input if v.name not in weights], list(after.graph.input)),
        ("output", list(before.graph.output), list(after.graph.output)),
    ):
        if what == "input":
            theirs = [v for v in theirs if v.name not in weights]
        if [v.name for v in mine] != [v.name for v in theirs]:
            return f"{what}s {[v.name for v in mine]} became {[v.name for v in theirs]}"
        for one, other in zip(mine, theirs, strict=True):
            if _type(one)[0] != _type(other)[0]:
                return f"{what} '{one.name}' has another element type"
            was, now = _type(one)[1], _type(other)[1]
            if was is None or now is None:
                continue
            changed = len(was) != len(now) or any(
                isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(was, now, strict=True)
            )
            narrowed = what == "input" and any(
                isinstance(a, str) and isinstance(b, int) for a, b in zip(was, now, strict=False)
            )
            if changed or narrowed:
                return f"{what} '{one.name}' was declared {was}, and is declared {now}"
    return None


def overridable(before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
    """An initializer that is an input too can still be given by the user, and then counts."""
    weights = {t.name: t for t in before.graph.initializer}
    names = [v.name for v in before.graph.input if v.name in weights]
    if not names:
        return None
    gone = [n for n in names if n not in {v.name for v in after.graph.input}]
    if gone:
        return f"'{gone[0]}' is no input any more"
    try:
        pair = Pair(before, after)
    except CannotRun:
        return None
    for kind, feed in feeds(before, 0):
        if kind == "overriding":
            reason = _difference(pair, feed, kind)
            if reason is not None:
                return f"with another value for {', '.join(names)}: {reason}"
    return None


def equal(before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
    """On numbers of several sizes, the outputs differ by no more than rounding explains."""
    try:
        pair = Pair(before, after)
    except CannotRun:
        return None
    for kind, feed in feeds(before, 0):
        reason = None if kind == "overriding" else _difference(pair, feed, kind)
        if reason is not None:
            return reason
    return None


def _difference(pair: Pair, feed: Mapping[str, np.ndarray], kind: str) -> str | None:
    try:
        with np.errstate(all="ignore"):
            return pair.difference(feed, kind)
    except CannotRun:
        return None


def opsets(before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
    """The standard opset is the one that the model had, and every domain in use is declared."""
    had, has = ({o.domain or "ai.onnx": o.version for o in m.opset_import} for m in (before, after))
    if had["ai.onnx"] != has.get("ai.onnx"):
        return f"opset {had['ai.onnx']} became {has.get('ai.onnx')}"
    undeclared = {n.domain or "ai.onnx" for n in _nodes(after.graph)} - set(has)
    return f"domain {sorted(undeclared)[0]} is used and not declared" if undeclared else None


def stated(before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
    """Types and shapes that the result states are those that inference finds."""
    bare = onnx.ModelProto()
    bare.CopyFrom(after)
    bare.graph.ClearField("value_info")
    try:
        inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True)
    except Exception:
        return None
    found = {v.name: _type(v) for v in inferred.graph.value_info}
    for value in after.graph.value_info:
        kind, shape = _type(value)
        other_kind, other = found.get(value.name, (kind, None))
        if kind and other_kind and kind != other_kind:
            return f"value '{value.name}' states another element type than it has"
        if shape is None or other is None:
            continue
        wrong = len(shape) != len(other) or any(
            isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(shape, other, strict=True)
        )
        if wrong:
            return f"value '{value.name}' states {shape}, and is {other}"
    return None


def kept(before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
    """What is not the graph stays: words, training information, sparse weights, quantization annotations."""
    if before.doc_string != after.doc_string or before.graph.doc_string != after.graph.doc_string:
        return "the doc string of the model or of the graph is lost"
    if _props(before) != {k: v for k, v in _props(after).items() if k in _props(before)}:
        return "metadata of the model are lost"
    if len(before.training_info) != len(after.training_info):
        return "training_info is lost"
    names = {name for node in _nodes(after.graph) for name in (*node.input, *node.output)}
    there = {t.values.name for t in after.graph.sparse_initializer} | {t.name for t in after.graph.initializer}
    made = {name for node in _nodes(after.graph) for name in node.output} | {v.name for v in after.graph.input}
    lost = [t.values.name for t in before.graph.sparse_initializer if t.values.name in names - there - made]
    if lost:
        return f"sparse initializer '{lost[0]}' is lost, and nodes still read it"
    notes = {a.tensor_name for a in before.graph.quantization_annotation} & (names | there)
    if notes - {a.tensor_name for a in after.graph.quantization_annotation}:
        return "a quantization annotation is lost"
    now = {tuple(n.output): n for n in after.graph.node}
    for node in before.graph.node:
        same = now.get(tuple(node.output))
        if same is None or same.op_type != node.op_type or list(same.input) != list(node.input):
            continue
        if any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute):  # its body may have changed
            continue
        if node.doc_string != same.doc_string or _props(node) != {
            k: v for k, v in _props(same).items() if k in _props(node)
        }:
            return f"node '{node.name}' is untouched, and has lost its words"
    return None


def _props(holder: Any) -> dict[str, str]:
    return {p.key: p.value for p in holder.metadata_props}


def _type(value: onnx.ValueInfoProto) -> tuple[int, list[int | str] | None]:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return tensor.elem_type, None
    return tensor.elem_type, [d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim]


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


CHECKS = {c.__name__: c for c in (valid, interface, overridable, equal, opsets, stated, kept)}
