"""The comparison by rounding: what it lets pass, and what it finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnx_rewrite.testing.comparing import disagreement, noisy, session

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


def test_a_movement_that_is_the_same_along_an_axis_is_no_measure() -> None:
    """Every element of a row moves otherwise, or the subtraction of the mean would take the movement away."""
    model = parsed(TWICE.replace("NORM", DECOMPOSED))
    near = noisy(model)
    feed = {"x": np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32) * np.float32(1e-4)}
    (one,), (other,) = session(model).run(None, feed), session(near).run(None, feed)
    assert (one != other).any(axis=1).all()
    assert disagreement(model, parsed(TWICE.replace("NORM", "y = LayerNormalization(b, one)"))) is None


PLACES: dict[str, str] = {
    "the main graph": "g (float[2] x, bool t) => (float[2] y) { n = Neg(x) y = Add(n, n) }",
    "a body": """g (float[2] x, bool t) => (float[2] y) {
      y = If(t) <then_branch = a () => (float[2] p) { n = Neg(x) p = Add(n, n) },
                 else_branch = b () => (float[2] q) { o = Neg(x) q = Add(o, o) }> }""",
    "symbols": "g (float[N] x, bool t) => (float[N] y) { n = Neg(x) y = Add(n, n) }",
    "a function": """g (float[2] x, bool t) => (float[2] y) { y = local.twice(x) }
      <domain: "local", opset_import: ["" : 17]> twice (x) => (y) { n = Neg(x) y = Add(n, n) }""",
}


@pytest.mark.parametrize("place", PLACES)
def test_interior_values_are_moved_everywhere(place: str) -> None:
    model = parsed(f'<ir_version: 8, opset_import: ["" : 17, "local" : 1]> {PLACES[place]}')
    feed: dict[str, Any] = {"x": np.asarray([0.3, 0.7], np.float32), "t": np.asarray(True)}
    near = session(noisy(model, {"x": (2,), "t": ()})).run(None, feed)[0]
    far = session(model).run(None, feed)[0]
    assert (near != far).any()
    assert np.abs(near - far).max() < 1e-5


def test_a_difference_is_found() -> None:
    text = TWICE.replace("-599.8505", "0.5")
    wrong = parsed(text.replace("NORM", "y = LayerNormalization <epsilon = 1e-3> (b, one)"))
    found = disagreement(parsed(text.replace("NORM", DECOMPOSED)), wrong)
    assert found is not None
    assert "of which rounding explains" in found.reason
