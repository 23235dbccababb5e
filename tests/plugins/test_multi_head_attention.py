"""Our attention node: its function at every opset is the formula, and its type and shape are known."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnx_rewrite as rw
from onnx_rewrite.analysis.types import complete_types
from onnx_rewrite.plugins.multi_head_attention.op import MultiHeadAttention
from onnx_rewrite.rewriter.functions import NoBody, make_function, refresh_functions

NAMES = ("q", "k", "v", "mask", "scale")


def calling(opset: int, kind: str, shapes: list[tuple[int, ...]]) -> onnx.ModelProto:
    """A model of one node, without the function."""
    given = ", ".join(f"{kind}[{','.join(map(str, s))}] {n}" for n, s in zip(NAMES, shapes, strict=True))
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}, "onnx_rewrite": 1]> g ({given}) => ({kind}[a,b,c,d] y)'
        "{ y = onnx_rewrite.MultiHeadAttention(q, k, v, mask, scale) }"
    )


def formula(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray, scale: np.ndarray) -> np.ndarray:
    scores = q @ k.swapaxes(-1, -2) * scale + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


@settings(max_examples=10, deadline=None, derandomize=True)
@given(data=st.data())
def test_the_function_is_the_formula_at_every_opset(data: st.DataObject) -> None:
    opset = data.draw(st.integers(7, 22))
    kind, dtype = data.draw(st.sampled_from([("float", np.float32), ("double", np.float64)]))
    n, heads, queries, keys, e, d = (data.draw(st.integers(1, 4)) for _ in range(6))
    one = data.draw(st.sampled_from([(n, heads), (n, 1), (1, heads)]))  # of keys and values
    mask = tuple(data.draw(st.sampled_from([1, size])) for size in (n, heads, queries, keys))
    shapes = [(n, heads, queries, e), (*one, keys, e), (*one, keys, d), mask, ()]
    model = calling(opset, kind, shapes)
    typed = ir.from_proto(model)
    refresh_functions(typed)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    feed = {name: np.asarray(rng.standard_normal(shape), dtype) for name, shape in zip(NAMES, shapes, strict=True)}
    session = onnxruntime.InferenceSession(ir.to_proto(typed).SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, feed)
    wanted = formula(*(np.asarray(feed[name], np.float64) for name in NAMES))
    assert found.dtype == dtype
    assert found.shape == wanted.shape
    # A score is off by e + 3 roundings of its largest sum, a weight by twice that, and by those of exp, sum, quotient.
    q, k, v, added, factor = (np.abs(feed[name]) for name in NAMES)
    largest = float((q @ k.swapaxes(-1, -2) * factor + added).max())
    roundings = 2 * (e + 3) * largest + 2 * keys + 8
    assert np.abs(found - wanted).max() <= roundings * np.finfo(dtype).eps * v.max()


def test_its_type_and_shape_are_known() -> None:
    model = calling(17, "double", [("n", 4, "l", 8), (1, 4, "s", 8), (1, 4, "s", 16), (1, 1, 1, 1), ()])  # type: ignore[list-item]
    model.graph.output[0].Clear()
    model.graph.output[0].name = "y"
    typed = ir.from_proto(model)
    complete_types(typed)
    (y,) = typed.graph.outputs
    assert y.dtype == ir.DataType.DOUBLE
    assert str(y.shape) == "[n,4,l,16]"


def test_a_node_without_mask_and_scale_is_understood() -> None:
    shapes = [(1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 4), (1, 1, 1, 1), ()]
    less = calling(13, "float", shapes)
    del less.graph.node[0].input[3:], less.graph.input[3:]
    spelt = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 13]> g (float[1,2,3,4] q, float[1,2,5,4] k, float[1,2,5,4] v)'
        " => (float[a,b,c,d] y)"
        "{ t = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, t) w = Softmax(s) y = MatMul(w, v) }"
    )
    assert rw.check(spelt, less).verdict == "equivalent"
    spelt.graph.node[2].attribute.append(onnx.helper.make_attribute("axis", 2))
    assert rw.check(spelt, less).verdict == "different"


def test_below_opset_7_it_has_no_meaning() -> None:
    with pytest.raises(NoBody, match="needs opset 7"):
        make_function(MultiHeadAttention(), 6)
