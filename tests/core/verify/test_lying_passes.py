"""A pass that lies is caught where it lies; its honest twin is believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import onnx_rewrite as rw
from onnx_rewrite.passes.bn import BehindLinear, factor_and_shift, folded_behind
from onnx_rewrite.passes.clip import Saturations, new_bounds
from onnx_rewrite.passes.ln import TwoPass
from onnx_rewrite.pattern import const, op
from onnx_rewrite.pipeline import running
from onnx_rewrite.registry import registry
from onnx_rewrite.rewriter.site import Site
from onnx_rewrite.verdict import Verification
from tests.passes import building

from .liars import (
    HERE,
    LIES,
    Replacement,
    alone,
    erf,
    gelu,
    in_a_branch,
    in_a_function,
    in_the_middle,
    linear,
    softmax_by_hand,
    tanh,
)

MODELS = Path(__file__).parents[2] / "models" / "exported"
MOST_FEEDS = 100


@pytest.fixture(autouse=True)
def own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that is registered here stays so."""
    monkeypatch.setattr(registry, "_declared", dict(registry._declared))


def told(result: rw.Result) -> str:
    return "; ".join(f"{s.id} {s.status} {s.verification.verdict}: {s.reason}" for s in result.sites) or "no sites"


def is_caught(model: onnx.ModelProto, name: str, sites: int = 1, **options: Any) -> Site:
    """Of all sites the one that bears `HERE` is rolled back as different, the others are applied and equivalent."""
    result = rw.rewrite(model, name, **options)
    assert len(result.sites) == sites, told(result)
    (lied,) = (s for s in result.sites if any(HERE in node for node in s.nodes))
    assert lied.id == f"{name}[{result.sites.index(lied)}]"
    assert lied.status == "rolled_back", told(result)
    assert lied.verification.verdict == "different", told(result)
    assert lied.reason
    assert 0 < lied.verification.feeds < MOST_FEEDS
    for site in result.sites:
        if site is not lied:
            assert (site.status, site.verification.verdict) == ("applied", "equivalent"), told(result)
    onnx.checker.check_model(result.to_proto(), full_check=True)
    if sites == 1:
        assert not result.changed
    return lied


def is_believed(model: onnx.ModelProto, name: Any, sites: int = 1, **options: Any) -> None:
    """Every site is applied and equivalent."""
    result = rw.rewrite(model, name, **options)
    assert len(result.sites) == sites, told(result)
    for site in result.sites:
        assert (site.status, site.verification.verdict) == ("applied", "equivalent"), told(result)
    assert result.report.verification is None or result.report.verification.verdict == "equivalent"


@pytest.mark.parametrize("name", LIES)
class TestEachLie:
    def test_alone(self, name: str) -> None:
        rw.register(LIES[name].passes(name))
        is_caught(alone(LIES[name]), name, verify="local")
        is_believed(alone(LIES[name], "honest"), name)

    def test_among_right_sites(self, name: str) -> None:
        rw.register(LIES[name].passes(name))
        model = in_the_middle(LIES[name])
        lied = is_caught(model, name, sites=3)
        assert lied.id == f"{name}[1]"

    def test_with_dynamic_dimensions(self, name: str) -> None:
        rw.register(LIES[name].passes(name))
        is_caught(alone(LIES[name], dynamic=True), name, verify="local")
        is_believed(alone(LIES[name], "honest", dynamic=True), name)

    def test_in_a_branch(self, name: str) -> None:
        rw.register(LIES[name].passes(name))
        is_caught(in_a_branch(LIES[name]), name, sites=2, verify="local")

    def test_in_a_function(self, name: str) -> None:
        rw.register(LIES[name].passes(name))
        is_caught(in_a_function(LIES[name]), name, sites=2, verify="local")


@pytest.mark.parametrize("name", [name for name, lie in LIES.items() if lie.fp16])
def test_in_half_precision(name: str) -> None:
    rw.register(LIES[name].passes(name))
    is_caught(alone(LIES[name], elem_type=TensorProto.FLOAT16), name, verify="local")
    is_believed(alone(LIES[name], "honest", elem_type=TensorProto.FLOAT16), name, verify="local")


def normalization_with(**changed: Any) -> Replacement:
    return lambda m: op.LayerNormalization(
        m.x, m.scale, *([] if "bias" in changed else [m.bias]), axis=-1, epsilon=changed.get("epsilon", float(m.eps))
    )


def folded_without_shift(m: rw.Match) -> Any:
    factor, shift = factor_and_shift(m)
    return folded_behind(m, factor, np.zeros_like(shift))


def swapped(m: rw.Match) -> Any:
    lo, hi = (np.float32(b) for b in new_bounds(m))
    return op.Clip(m.x, min=hi, max=lo)


class Gelu(rw.Pass):
    """The one of liars.py."""

    def pattern(self, x: Any, r: Any) -> Any:
        return gelu(self, x, r)

    def replace(self, m: rw.Match) -> Any:
        return erf(m)


class Projection(rw.Pass):
    """A product with a square weight, and a bias."""

    def pattern(self, x: Any, weight: Any, bias: Any) -> Any:
        return linear(self, x, weight, bias)

    def check(self, m: rw.Match) -> None:
        if len(m.weight.shape) != 2 or m.weight.shape[0] != m.weight.shape[1]:
            raise rw.Refused("the weight is not square", m.weight)

    def replace(self, m: rw.Match) -> Any:
        return op.Sum(op.MatMul(m.x, m.weight), m.bias)


class Weighting(rw.Pass):
    """Softmax over the last axis."""

    def pattern(self, x: Any, axis: Any) -> Any:
        return op.Softmax(x, axis=axis)

    def replace(self, m: rw.Match) -> Any:
        return softmax_by_hand(-1)(m)


REAL: dict[str, tuple[str, type[rw.Pass], Replacement, int]] = {
    "epsilon-vanishes": ("swin_legacy_op12", TwoPass, normalization_with(epsilon=1e-12), 5),
    "epsilon-doubles": ("swin_legacy_op13", TwoPass, normalization_with(epsilon=2e-5), 5),
    "bias-dropped-in-norm": ("bert_legacy_op12", TwoPass, normalization_with(bias=None), 3),
    "tanh-for-erf": ("bert_legacy_op12", Gelu, tanh, 1),
    "weights-transposed": (
        "bert_legacy_op12",
        Projection,
        lambda m: op.Sum(op.MatMul(m.x, np.ascontiguousarray(m.weight.array.T)), m.bias),
        4,
    ),
    "through-fp16": (
        "bert_legacy_op12_dynamic",
        Projection,
        lambda m: op.Sum(
            op.Cast(
                op.MatMul(op.Cast(m.x, to=TensorProto.FLOAT16), m.weight.array.astype(np.float16)),
                to=TensorProto.FLOAT,
            ),
            m.bias,
        ),
        4,
    ),
    "softmax-of-another-axis": ("vit_legacy_op13_math_attention", Weighting, softmax_by_hand(-2), 1),
    "shift-dropped": ("mobilenet_v2_legacy_op12_keep_bn", BehindLinear, folded_without_shift, 10),
    "bounds-swapped": ("hybrid_legacy_op12_keep_bn", Saturations, swapped, 2),
}


@pytest.mark.parametrize("name", REAL)
def test_in_a_real_model(name: str) -> None:
    file, base, lying, least = REAL[name]
    model = onnx.load(MODELS / f"{file}.onnx")
    honest = rw.rewrite(model, type("Honest", (base,), {"name": name})(), verify="local")
    applied = [s for s in honest.sites if s.status == "applied"]
    assert len(applied) >= least, told(honest)
    assert all(s.verification.verdict == "equivalent" for s in applied), told(honest)
    chosen = applied[len(applied) // 2]

    def replace(self: Any, m: rw.Match) -> Any:
        there = {node.name or node.outputs[0].name for node in m.nodes} == set(chosen.nodes)
        return lying(m) if there else base.replace(self, m)

    rw.register(type("Liar", (base,), {"name": name, "replace": replace}))
    result = rw.rewrite(model, name)
    lied = next(s for s in result.sites if s.id == chosen.id)
    assert (lied.status, lied.verification.verdict) == ("rolled_back", "different"), told(result)
    assert lied.nodes == chosen.nodes
    assert 0 < lied.verification.feeds < MOST_FEEDS
    kept = [s.nodes for s in result.sites if s.status == "applied"]
    assert kept == [s.nodes for s in applied if s is not chosen], told(result)
    assert result.report.verification.verdict == "equivalent", result.report.verification


def test_a_lost_sign_of_zero_is_no_difference_where_nothing_divides_by_it() -> None:
    """x + 0 for x · 1 gives 0 for -0, which compares equal; behind a Reciprocal it is caught (LIES)."""

    class Unit(rw.Pass):
        name = "unit"

        def pattern(self, x: Any) -> Any:
            return op.Mul(x, const(1))

        def replace(self, m: rw.Match) -> Any:
            return op.Add(m.x, np.float32(0))

    model = building.model(
        "y = Mul(x, one)", {"one": np.float32(1)}, inputs="float[2,8] x", outputs="float[2,8] y", opset=17
    )
    is_believed(model, Unit())


def test_without_the_judge_of_sites_lies_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests above assert is the site judge's doing."""
    name = "epsilon-vanishes"
    rw.register(LIES[name].passes(name))
    is_caught(alone(LIES[name]), name, verify="local")
    monkeypatch.setattr(running, "LocalJudge", lambda **_: lambda before, after: Verification("equivalent"))
    with pytest.raises(AssertionError, match="applied"):
        is_caught(alone(LIES[name]), name, verify="local")


@pytest.mark.parametrize("axis", [-1, 1])
def test_an_axis_in_a_pattern_means_what_it_means_in_the_model(axis: int) -> None:
    class Last(rw.Pass):
        name = "last"

        def pattern(self, x: Any) -> Any:
            return op.Softmax(x, axis=-1)

        def replace(self, m: rw.Match) -> Any:
            return softmax_by_hand(-1)(m)

    text = f"y = Softmax<axis={axis}>(x)"
    is_believed(building.model(text, inputs="float[2,8] x", outputs="float[2,8] y", opset=17), Last())
