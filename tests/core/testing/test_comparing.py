"""The comparison by rounding: what it lets pass, and what it finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnx_rewrite.testing.comparing import CannotRun, Pair, disagreement, session
from onnx_rewrite.testing.rounding import errors
from onnx_rewrite.verify.defects import attention_overflows, overflows_in_half
from onnx_rewrite.verify.reference import Reference

# A bias of -599.9 costs 16 bits, and the second normalization brings them to the front.
TWICE = """<ir_version: 8, opset_import: ["" : 17]>
g (float[3,2] x) => (float[3,2] y)
<float[2] one = {1, 1}, float low = {-599.8505}, float small = {1e-5}, int64[1] last = {1}> {
  a = LayerNormalization(x, one)
  b = Add(a, low)
  NORM
}"""
DECOMPOSED = """m = ReduceMean <axes = [1]> (b) d = Sub(b, m) q = Mul(d, d) v = ReduceMean <axes = [1]> (q)
  e = Add(v, small) s = Sqrt(e) y = Div(d, s)"""


def parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text)


def drawn(shape: tuple[int, ...], dtype: Any = np.float32, scale: float = 1.0, offset: float = 0.0) -> Any:
    return (np.random.default_rng(0).standard_normal(shape) * scale + offset).astype(dtype)


def test_what_a_normalization_of_a_normalization_loses_is_explained() -> None:
    model = parsed(TWICE.replace("NORM", DECOMPOSED))
    assert disagreement(model, parsed(TWICE.replace("NORM", "y = LayerNormalization(b, one)"))) is None


PLACES: dict[str, str] = {
    "the main graph": "g (float[2] x, bool t) => (float[2] y) { n = Exp(x) y = Add(n, n) }",
    "a body": """g (float[2] x, bool t) => (float[2] y) {
      y = If(t) <then_branch = a () => (float[2] p) { n = Exp(x) p = Add(n, n) },
                 else_branch = b () => (float[2] q) { o = Exp(x) q = Add(o, o) }> }""",
    "a loop": """g (float[2] x, bool t) => (float[2] y) <int64 once = {1}> {
      y = Loop(once, t, x) <body = b (int64 i, bool c, float[2] p) => (bool d, float[2] q) {
        d = Identity(c) o = Exp(p) q = Add(o, o) }> }""",
    "symbols": "g (float[N] x, bool t) => (float[N] y) { n = Exp(x) y = Add(n, n) }",
    "a function": """g (float[2] x, bool t) => (float[2] y) { y = local.twice(x) }
      <domain: "local", opset_import: ["" : 17]> twice (x) => (y) { n = Exp(x) y = Add(n, n) }""",
    # What inference gives up on: no shape is stated from there on.
    "values of unknown shape": """g (float[2] x, bool t) => (float[2] y) <int64[1] raw = {1}> {
      axes = Identity(raw) u = Unsqueeze(x, axes) s = Squeeze(u, axes) n = Exp(s) y = Add(n, n) }""",
}


@pytest.mark.parametrize("place", PLACES)
def test_every_node_errs_wherever_it_stands(place: str) -> None:
    """exp(x) + exp(x), where exp(x) errs by x's rounding and its own: some units in the last place, and not none."""
    model = parsed(f'<ir_version: 8, opset_import: ["" : 17, "local" : 1]> {PLACES[place]}')
    x = np.asarray([0.3, 0.7], np.float32)
    (found,) = errors(model, {"x": x, "t": np.asarray(True)})
    units = found.error / (2.0**-23 * 2 * np.exp(x.astype(np.float64)))
    np.testing.assert_allclose(found.exact, 2 * np.exp(x.astype(np.float64)))
    assert (units > 0.5).all()
    assert (units < 4).all()


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-3, 0.0), (1.0, 1000.0), (1e3, 0.0)])
def test_a_normalization_errs_as_its_condition_number_says(scale: float, offset: float) -> None:
    """d = x - mean(x) errs by eps max|x| at most, and y = d / s by that over s: the condition number times eps."""
    model = parsed(TWICE.replace("a = LayerNormalization(x, one)\n  b = Add(a, low)", "b = Identity(x)").replace(
        "NORM", DECOMPOSED))  # fmt: skip
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 16
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 16
    x = drawn((3, 16), scale=scale, offset=offset)
    (found,) = errors(model, {"x": x})
    spread = np.sqrt(x.astype(np.float64).var(1) + 1e-5).min()
    condition = 2.0**-23 * (np.abs(x).max() / spread + np.abs(found.exact).max())
    assert condition / 4 < found.error.max() < condition * 8


def test_the_errors_of_two_stages_do_not_cancel() -> None:
    """The deviation of what is normalized is 1, whatever x is: x moves it by nothing, an error in between does."""
    text = """<ir_version: 8, opset_import: ["" : 17]> g (double[2,4] x) => (double[2,1] y)
      <double[4] one = {1, 1, 1, 1}> {
      a = LayerNormalization(x, one) q = Mul(a, a) v = ReduceMean <axes = [1]> (q) y = Sqrt(v) }"""
    model, x = parsed(text), drawn((2, 4), np.float64, offset=1000.0)
    (found,) = errors(model, {"x": x})
    moved = np.abs(Reference(model)({"x": x * (1 + 2.0**-52 * drawn((2, 4), np.float64))})[0] - found.exact).max()
    assert moved < 2.0**-50
    assert found.error.max() > 16 * moved


UNDETERMINED = {
    "a root of what may be below zero": "d = Sub(x, near) y = Sqrt(d)",
    "a quotient by what may be zero": "d = Sub(x, near) y = Div(one, d)",
    "0 by 0": "d = Sub(x, near) e = Mul(d, one) y = Div(e, d)",
    "a square beyond the range of its type": "q = Mul(big, big) y = Div(one, q)",
}


@pytest.mark.parametrize("body", UNDETERMINED.values(), ids=UNDETERMINED)
def test_what_rounding_decides_is_undetermined(body: str) -> None:
    half = "big" in body
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[1] x) => (float[1] y)
      <float near = {1.0000001}, float one = {1}, float big = {3e38}> { BODY }"""
    model = parsed(text.replace("BODY", body))
    (found,) = errors(model, {"x": np.ones(1, np.float32)})
    # 1 / inf is 0, and 1 / 9e76 nearly so: that much is determined.
    assert np.isfinite(found.error).all() if half else np.isinf(found.error).all()


def test_a_clip_behind_an_overflow_is_determined() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[1] x) => (float[1] y)
      <float low = {0}, float high = {6}> { q = Mul(x, x) y = Clip(q, low, high) }"""
    (found,) = errors(parsed(text), {"x": np.full(1, 3e30, np.float32)})
    assert found.exact == [6]
    assert found.error < 1e-5


def test_a_finite_element_that_is_determined_stays_finite() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y)
      <float one = {1}, float huge = {3e38}> { BODY }"""
    before = parsed(text.replace("BODY", "y = Add(x, one)"))
    after = parsed(
        text.replace("BODY", "a = Add(x, one) b = Mul(a, huge) c = Mul(b, huge) d = Div(c, huge) y = Div(d, huge)")
    )
    found = disagreement(before, after)
    assert found is not None
    assert "not finite any more" in found.reason


def test_a_difference_is_found() -> None:
    text = TWICE.replace("-599.8505", "0.5")
    wrong = parsed(text.replace("NORM", "y = LayerNormalization <epsilon = 1e-3> (b, one)"))
    found = disagreement(parsed(text.replace("NORM", DECOMPOSED)), wrong)
    assert found is not None
    assert "of which rounding explains" in found.reason


def test_nothing_is_said_of_what_is_undetermined() -> None:
    """0/0 against 1: x - x + tiny may be 0, and the pair says that it left it out."""
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y)
      <float near = {1.0000001}> { BODY }"""
    before = parsed(text.replace("BODY", "d = Sub(x, near) y = Div(d, d)"))
    after = parsed(text.replace("BODY", "d = Sub(x, near) e = Sub(d, d) y = Div(e, d)"))
    pair = Pair(before, after)
    assert pair.difference({"x": np.ones(2, np.float32)}, "these") is None
    assert pair.undetermined
    reason = pair.difference({"x": np.full(2, 3.0, np.float32)}, "other")
    assert reason is not None
    assert session(before).run(None, {"x": np.full(2, 3.0, np.float32)})[0].tolist() == [1.0, 1.0]


def placed_in(place: str, nodes: str) -> onnx.ModelProto:
    """Self-attention of `a` in fp16, in the main graph, in both branches of an If, or in a function."""
    head = '<ir_version: 10, opset_import: ["" : 23, "local" : 1]>'
    kind = "float16[1,1,2,8]"
    if place == "main":
        return parsed(f"{head} g ({kind} a) => ({kind} b) {{ {nodes} }}")
    if place == "function":
        body = f'<domain: "local", opset_import: ["" : 23]> F (a) => (b) {{ {nodes} }}'
        return parsed(f"{head} g ({kind} a) => ({kind} y) {{ y = local.F(a) }} {body}")
    branch = f"t () => ({kind} b) {{ {nodes} }}"
    return parsed(
        f"{head} g ({kind} a, bool c) => ({kind} y) {{ y = If (c) <then_branch = {branch}, else_branch = {branch}> }}"
    )


@pytest.mark.parametrize("place", ["main", "If", "function"])
def test_scores_beyond_half_precision_are_no_fault_of_attention(place: str) -> None:
    """Of scores that its own fp16 kernel cannot hold nothing is said, wherever the node stands."""
    spelt = "k = Transpose <perm = [0,1,3,2]> (a) s = MatMul(a, k) w = Softmax(s) b = MatMul(w, a)"
    before, after = placed_in(place, spelt), placed_in(place, "b = Attention <scale = 1.0> (a, a, a)")
    assert overflows_in_half(after) == attention_overflows()
    if attention_overflows():
        with pytest.raises(CannotRun, match="overflows inside"):
            Pair(before, after)
