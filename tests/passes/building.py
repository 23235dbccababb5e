"""Small models in the text form, and what is asked of each run: what was found, and that it is right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

import onnx_rewrite as rw

RNG = np.random.default_rng(11)
DTYPES = {"float": np.float32, "float16": np.float16, "double": np.float64}


def f32(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


def model(
    body: str,
    constants: Mapping[str, Any] | None = None,
    *,
    inputs: str,
    outputs: str,
    opset: int = 12,
    ir: int = 8,
    functions: str = "",
    overridable: tuple[str, ...] = (),
    valid: bool = True,
) -> onnx.ModelProto:
    """A model of `body`.

    Args:
        body: Statements of onnx's text form.
        constants: Initializers by name: arrays, or TensorProtos.
        inputs: The graph's inputs in the text form.
        outputs: Likewise its outputs.
        opset: Opset of the standard operators; functions in the domain "local" get the same.
        ir: IR version.
        functions: Model-local functions in the text form.
        overridable: Initializers that are graph inputs too.
        valid: Whether the checker must accept the model.
    """
    imports = f'["":{opset}, "local":1]' if functions else f'["":{opset}]'
    header = f"<ir_version: {ir}, opset_import: {imports}>"
    made = parser.parse_model(f"{header} g ({inputs}) => ({outputs}) {{ {body} }} {functions}")
    for name, value in (constants or {}).items():
        tensor = value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(np.asarray(value), name)
        tensor.name = name
        made.graph.initializer.append(tensor)
        if name in overridable:
            made.graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
    if valid:
        onnx.checker.check_model(made, full_check=True)
    return made


def steps(recipe: Mapping[str, str], changed: Mapping[str, str]) -> str:
    """Statements "name = expression" of a recipe, some of them spelt otherwise.

    "a = Neg(x); Abs(a)" for the step "y" stands for two statements, the last of which gives y.
    """
    unknown = set(changed) - set(recipe)
    assert not unknown, f"the recipe has no step {unknown}"
    lines: list[str] = []
    for name, text in {**recipe, **changed}.items():
        *first, last = text.split("; ")
        lines += [*first, f"{name} = {last}"]
    return " ".join(lines)


def bfloat16(array: np.ndarray) -> onnx.TensorProto:
    """The array as a bfloat16 tensor."""
    import ml_dtypes

    return numpy_helper.from_array(np.asarray(array).astype(ml_dtypes.bfloat16), "")


def told(result: rw.Result) -> str:
    """What to read when an assertion fails."""
    return "; ".join(f"{s.id} {s.status}: {s.reason}" for s in result.sites) or "no sites"


def fires(
    made: onnx.ModelProto, one: Any, sites: int = 1, verdict: str = "equivalent", **options: Any
) -> onnx.ModelProto:
    """Rewrites; `sites` sites must be applied, each verified where it stood, and the whole; returns the result."""
    result = rw.rewrite(made, one, **options)
    (report,) = result.report.passes
    assert report.applied == sites, told(result)
    assert report.rolled_back == 0, told(result)
    found = [s.verification for s in result.sites if s.status == "applied"]
    assert all(v.verdict == verdict for v in found), [(v.verdict, v.reason) for v in found]
    assert result.report.verification.verdict == verdict, result.report.verification
    proto = result.to_proto()
    onnx.checker.check_model(proto, full_check=True)
    return proto


def is_left(made: onnx.ModelProto, one: Any, reason: str | None = None, **options: Any) -> rw.Result:
    """Rewrites; nothing may change. With a reason, some site must be refused for it; without, nothing is a site."""
    before = made.SerializeToString(deterministic=True)
    result = rw.rewrite(made, one, **options)
    (report,) = result.report.passes
    assert report.applied == 0, told(result)
    assert report.rolled_back == 0, told(result)
    assert not result.changed
    assert made.SerializeToString(deterministic=True) == before
    if reason is None:
        assert not result.sites, told(result)
    else:
        assert any(s.status == "refused" and reason in (s.reason or "") for s in result.sites), told(result)
    return result


def ops(graph: onnx.GraphProto | onnx.ModelProto) -> list[str]:
    """The operators of a graph, constants aside."""
    graph = graph.graph if isinstance(graph, onnx.ModelProto) else graph
    return [n.op_type for n in graph.node if n.op_type != "Constant"]


def node(graph: onnx.GraphProto | onnx.ModelProto, op_type: str) -> onnx.NodeProto:
    """The only node of an operator."""
    graph = graph.graph if isinstance(graph, onnx.ModelProto) else graph
    (found,) = (n for n in graph.node if n.op_type == op_type)
    return found


def attributes(one: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in one.attribute}


def constant(made: onnx.ModelProto | onnx.GraphProto, name: str) -> np.ndarray:
    """An initializer, the value of a Constant node, or an Identity of either."""
    graph = made.graph if isinstance(made, onnx.ModelProto) else made
    for tensor in graph.initializer:
        if tensor.name == name:
            return numpy_helper.to_array(tensor)
    (producer,) = (n for n in graph.node if name in n.output)
    return constant(made, producer.input[0]) if producer.input else numpy_helper.to_array(producer.attribute[0].t)


def bounds(made: onnx.ModelProto | onnx.GraphProto) -> tuple[float | None, float | None]:
    """Bounds of the only Clip, in either form."""
    clip = node(made, "Clip")
    if clip.attribute:
        given = attributes(clip)
        return given.get("min"), given.get("max")
    names = [*clip.input[1:], "", ""][:2]
    lo, hi = (constant(made, n).item() if n else None for n in names)
    return lo, hi
