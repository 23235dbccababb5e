"""What is fed: the regimes, the bindings of symbolic dimensions, and integers that are legal."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_rewrite.verify import LocalJudge
from onnx_rewrite.verify.feeds import Source
from onnx_rewrite.verify.integers import uses
from onnx_rewrite.verify.regimes import INTEGERS, LOCAL, UNIT, Regime, draw_floats

from .rewrites import WRONG, model

TYPES = [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE]


def regime(name: str) -> Regime:
    return next(r for r in LOCAL if r.name == name)


@pytest.mark.parametrize("elem_type", TYPES)
@pytest.mark.parametrize("kind", LOCAL, ids=lambda r: r.name)
def test_every_regime_in_every_type(kind: Regime, elem_type: int) -> None:
    values = draw_floats(kind, elem_type, (8, 16), 0, 0)
    wide = values.astype(np.float64)
    assert values.dtype == onnx.helper.tensor_dtype_to_np_dtype(elem_type)
    assert np.isnan(wide).any() == (kind.special == "nan")
    assert np.isinf(wide).any() == (kind.special == "inf")
    assert np.isfinite(wide).mean() > 0.8
    if kind.special not in ("zeros", "denormals"):
        assert wide.any()


def test_what_the_regimes_promise() -> None:
    float32 = onnx.TensorProto.FLOAT
    small = np.abs(draw_floats(regime("denormals"), float32, (100,), 0, 0))
    assert 0 < small.max() < np.finfo(np.float32).tiny * 2
    zeros = draw_floats(regime("signed zeros"), float32, (100,), 0, 0)
    assert np.signbit(zeros[zeros == 0]).any()
    assert not np.signbit(zeros[zeros == 0]).all()
    whole = draw_floats(INTEGERS, float32, (100,), 0, 0)
    assert set(whole.tolist()) == {-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0}
    assert draw_floats(regime("positive"), float32, (100,), 0, 0).min() > 0
    for name, amplitude in (("amplitude 1e-05", 1e-5), ("amplitude 1000", 1e3)):
        assert 0.5 < draw_floats(regime(name), float32, (1000,), 0, 0).std() / amplitude < 2


@given(st.integers(0, 2**32), st.sampled_from(LOCAL), st.lists(st.integers(0, 5), max_size=3))
def test_the_seed_decides(seed: int, kind: Regime, shape: list[int]) -> None:
    first, again = (draw_floats(kind, 1, tuple(shape), seed, 0).tobytes() for _ in range(2))
    assert first == again
    assert not draw_floats(kind, 1, tuple(shape), seed, 0).flags.writeable


def test_inputs_of_one_shape_get_different_numbers() -> None:
    source = Source(model("y = Add(x, z)", inputs="float[8] x, float[8] z", outputs="float[8] y"), 0)
    feed = source.draw(UNIT, {})
    assert not np.array_equal(feed.values["x"], feed.values["z"])


def test_bindings_share_names_and_are_unequal_then_one() -> None:
    source = Source(model("y = Add(x, z)", inputs="float[n,m] x, float[n,m] z", outputs="float[n,m] y"), 0)
    first, ones, third = itertools.islice(source.bindings(), 3)
    assert set(first) == {"n", "m"}
    assert first["n"] != first["m"] != 1 != first["n"]
    assert set(ones.values()) == {1}
    assert third != first
    feed = source.draw(UNIT, first)
    assert feed.values["x"].shape == feed.values["z"].shape == (first["n"], first["m"])
    assert f"n={first['n']}" in feed.regime


def test_dimensions_without_a_name_are_bound_apart() -> None:
    made = model("y = Neg(x)", inputs="float[n,4] x", outputs="float[n,4] y")
    for dim in made.graph.input[0].type.tensor_type.shape.dim:
        dim.Clear()
    assert set(next(iter(Source(made, 0).bindings()))) == {"x.0", "x.1"}


def test_shapes_of_the_user_bind_symbols_elsewhere() -> None:
    made = model("y = MatMul(x, z)", inputs="float[n,k] x, float[k,m] z", outputs="float[n,m] y")
    source = Source(made, 0, {"x": [2, 9]})
    for binding in itertools.islice(source.bindings(), 3):
        feed = source.draw(UNIT, binding)
        assert feed.values["x"].shape == (2, 9)
        assert feed.values["z"].shape[0] == 9


class TestIntegers:
    def source(self, body: str, inputs: str, **constants: np.ndarray) -> Source:
        return Source(model(body, constants, inputs=inputs, outputs="float[n] y"), 0)

    def test_an_index_is_followed_through_casts_and_shapes(self) -> None:
        source = self.source(
            "c = Cast<to=7>(i) u = Unsqueeze(c, z) y = Gather(t, u)",
            "int32[50] i",
            t=np.zeros((7, 2), np.float32),
            z=np.asarray([0]),
        )
        drawn = source.draw(UNIT, {}).values["i"]
        assert drawn.dtype == np.int32
        assert set(drawn.tolist()) == set(range(7))

    def test_an_index_into_a_symbolic_axis(self) -> None:
        source = self.source("y = Gather<axis=1>(x, i)", "float[3,k] x, int64[50] i")
        assert set(source.draw(UNIT, {"k": 5}).values["i"].tolist()) == set(range(5))

    def test_of_two_tables_the_smaller_counts(self) -> None:
        tables = {"t": np.zeros((9, 2), np.float32), "s": np.zeros((4, 2), np.float32)}
        source = self.source("a = Gather(t, i) b = Gather(s, i) y = Add(a, b)", "int64[50] i", **tables)
        assert source.draw(UNIT, {}).values["i"].max() == 3

    def test_masks_shapes_and_divisors(self) -> None:
        source = self.source("b = Cast<to=9>(m) y = Where(b, x, x)", "int64[50] m, float[50] x")
        assert set(source.draw(UNIT, {}).values["m"].tolist()) == {0, 1}
        source = self.source("y = Reshape(x, s)", "float[6] x, int64[3] s")
        assert source.draw(UNIT, {}).values["s"].tolist() == [1, 1, -1]
        made = model("y = Div(a, b)", inputs="int64[50] a, int64[50] b", outputs="int64[50] y")
        assert uses(made)["b"].divides
        for kind in LOCAL:
            assert Source(made, 0).draw(kind, {}).values["b"].min() >= 1


def test_the_feed_of_a_verdict_can_be_drawn_again() -> None:
    before, after = WRONG["clip with swapped bounds"]()
    judge = LocalJudge(seed=5)
    verdict = judge(before, after)
    assert verdict.regime is not None
    feed = judge.feed(before, verdict.regime)
    assert feed is not None
    x = feed["x"]
    assert verdict.index is not None
    assert all(i < n for i, n in zip(verdict.index, x.shape, strict=True))
    assert judge.feed(before, "no such regime") is None


def test_no_binding_fills_the_memory() -> None:
    """A constant of the model may be the size of a symbol, but not of four at once."""
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[a, b, c, d] x) => (float[n] y) <int64[1] s = {960}> { y = Reshape (x, s) }
    """)
    sizes = [np.prod([*binding.values()], dtype=np.int64) for binding in Source(model, 0).bindings()]
    assert len(sizes) > 10
    assert max(sizes) <= 1 << 24
    fixed = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[a, 8192, 4096] x) => (float[a, 8192, 4096] y) { y = Abs (x) }
    """)
    assert {1, 3} <= {binding["a"] for binding in Source(fixed, 0).bindings()}
