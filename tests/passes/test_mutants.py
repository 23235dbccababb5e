"""Wrong variants of our passes: the verdict on each site catches them, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_rewrite as rw
from onnx_rewrite.passes.bn import BeforeConvolution, BehindLinear, factor_and_shift, folded_behind, output_channels
from onnx_rewrite.passes.clip import Saturations, new_bounds
from onnx_rewrite.passes.ln import TwoPass
from onnx_rewrite.pattern import constant, op, optional
from onnx_rewrite.verdict import Verification

from . import building
from .building import f32
from .test_bn import bn
from .test_clip import MAX_MIN, MIN_MAX, clip
from .test_ln import TORCH, ln

Body = Callable[[Any, rw.Match], Any]


def mutant(base: type[rw.Pass], replace: Body | None = None, **members: Any) -> rw.Pass:
    """`base` with some of its parts replaced."""
    if replace is not None:
        members["replace"] = replace
    return type("Mutant", (base,), {"name": "mutant", **members})()


def anything(self: Any, m: rw.Match) -> None:
    """A check that forbids nothing."""


def normalization(self: Any, m: rw.Match) -> Any:
    return op.LayerNormalization(m.x, m.scale, m.bias, axis=-1, epsilon=float(m.eps))


def rms(self: Any, m: rw.Match) -> Any:
    squares = op.ReduceMean(op.Mul(m.x, m.x), axes=[-1], keepdims=1)
    root = op.Sqrt(op.Add(squares, np.float32(m.eps)))
    return op.Add(op.Mul(op.Div(m.x, root), m.scale), m.bias)


def bounds(order: slice) -> Body:
    def replace(self: Any, m: rw.Match) -> Any:
        lo, hi = (np.float32(b) for b in new_bounds(m)[order])
        return op.Clip(m.x, min=lo, max=hi)

    return replace


def without_nan(self: Any, m: rw.Match) -> Any:
    lo, hi = (np.float32(b) for b in new_bounds(m))
    return op.Clip(op.Where(op.IsNaN(m.x), np.float32(0), m.x), min=lo, max=hi)


def fold(change: Callable[[rw.Match, Any, Any], tuple[Any, Any]]) -> Body:
    return lambda self, m: folded_behind(m, *change(m, *factor_and_shift(m)))


def own_bias_kept(self: Any, m: rw.Match) -> Any:
    factor, shift = factor_and_shift(m)
    shift = shift - m.bias.array * factor + m.bias.array
    return folded_behind(m, factor, shift)


def transposed(self: Any, m: rw.Match) -> Any:
    factor, shift = factor_and_shift(m)
    weight = (m.weight.array * factor[:, None]).astype(np.float32)
    return op.like(m.linear, m.x, weight, (m.bias.array * factor + shift).astype(np.float32), beta=1.0)


def beta_forgotten(self: Any, m: rw.Match) -> Any:
    factor, shift = factor_and_shift(m)
    weight = (m.weight.array * factor).astype(np.float32)
    return op.like(m.linear, m.x, weight, (m.bias.array * factor + shift).astype(np.float32), beta=1.0)


def training_too(
    self: Any, x: Any, weight: Any, bias: Any, scale: Any, offset: Any, mean: Any, var: Any, eps: Any
) -> Any:
    linear = op.Conv(x, constant(weight), optional(constant(bias))).named("linear")
    return op.BatchNormalization(linear, *map(constant, (scale, offset, mean, var)), epsilon=eps).named("bn")


def groups_off_by_one(m: rw.Match, factor: Any, shift: Any) -> tuple[Any, Any]:
    per_group = output_channels(m) // m.linear.attributes.get_int("group", 1)
    return np.roll(factor, per_group), shift


CONV = "a = Conv(x, w, b) y = BatchNormalization(a, g, be, mu, va)"
GEMM = "a = Gemm(x, w, b) y = BatchNormalization(a, g, be, mu, va)"
SQUARE = {"w": f32(6, 6), "b": f32(6)}
TRAINED = CONV.replace("y = BatchNormalization(", "y, m1, v1 = BatchNormalization<training_mode=1>(")

MUTANTS: dict[str, tuple[rw.Pass, Callable[[], onnx.ModelProto]]] = {
    "epsilon of another size": (
        mutant(TwoPass, lambda s, m: op.LayerNormalization(m.x, m.scale, m.bias, axis=-1, epsilon=1e-12)),
        ln,
    ),
    "bias dropped": (
        mutant(TwoPass, lambda s, m: op.LayerNormalization(m.x, m.scale, axis=-1, epsilon=float(m.eps))),
        ln,
    ),
    "scale dropped": (
        mutant(
            TwoPass,
            lambda s, m: op.LayerNormalization(m.x, np.ones(8, np.float32), m.bias, axis=-1, epsilon=float(m.eps)),
        ),
        ln,
    ),
    "scale and bias swapped": (
        mutant(TwoPass, lambda s, m: op.LayerNormalization(m.x, m.bias, m.scale, axis=-1, epsilon=float(m.eps))),
        ln,
    ),
    "one axis more": (
        mutant(
            TwoPass,
            lambda s, m: op.Add(
                op.Mul(op.LayerNormalization(m.x, np.ones((5, 8), np.float32), axis=-2, epsilon=float(m.eps)), m.scale),
                m.bias,
            ),
        ),
        ln,
    ),
    "another axis": (
        mutant(TwoPass, normalization, check=anything),
        lambda: ln(shape="2,8,8", m="ReduceMean<axes=[1]>(x)", v="ReduceMean<axes=[1]>(q)"),
    ),
    "the mean is not subtracted": (mutant(TwoPass, rms), ln),
    "bounds swapped": (mutant(Saturations, bounds(slice(None, None, -1))), lambda: clip(MAX_MIN)),
    "NaN eaten": (mutant(Saturations, without_nan), lambda: clip(MAX_MIN)),
    "bounds that cross": (
        mutant(Saturations, lambda s, m: op.Clip(m.x, min=m.low2.value, max=m.high1.value)),
        lambda: clip(MIN_MAX, {"lo": np.float32(2), "hi": np.float32(-1)}),
    ),
    "one bound forgotten": (
        mutant(Saturations, lambda s, m: op.Clip(m.x, min=np.float32(new_bounds(m)[0]))),
        lambda: clip(MAX_MIN),
    ),
    "infinities clipped": (
        mutant(Saturations, lambda s, m: op.Clip(m.x, min=np.float32(new_bounds(m)[0]))),
        lambda: clip("a = Relu(x) y = Max(a, hi)"),
    ),
    "bias of the normalization forgotten": (
        mutant(BehindLinear, fold(lambda m, f, s: (f, s - m.offset.array))),
        lambda: bn(CONV),
    ),
    "bias of the convolution not scaled": (mutant(BehindLinear, own_bias_kept), lambda: bn(CONV)),
    "variance for deviation": (
        mutant(
            BehindLinear,
            fold(lambda m, f, s: (m.scale.array / (m.var.array + m.eps), s)),
        ),
        lambda: bn(CONV),
    ),
    "epsilon ignored": (
        mutant(BehindLinear, fold(lambda m, f, s: (m.scale.array / np.sqrt(m.var.array), s))),
        lambda: bn(CONV, {"va": np.full(6, 1e-3, np.float32), "mu": np.zeros(6, np.float32)}),
    ),
    "group off by one": (
        mutant(BehindLinear, fold(groups_off_by_one)),
        lambda: bn(CONV.replace("Conv(", "ConvTranspose<group=2>("), {"w": f32(4, 3, 3, 3)}),
    ),
    "weight transposed": (mutant(BehindLinear, transposed), lambda: bn(GEMM, SQUARE, x="2,6")),
    "beta forgotten": (
        mutant(BehindLinear, beta_forgotten),
        lambda: bn(GEMM.replace("Gemm(", "Gemm<beta=0.5>("), SQUARE, x="2,6"),
    ),
    "training mode": (
        mutant(
            BehindLinear,
            lambda s, m: folded_behind(
                m,
                m.scale.array / np.sqrt(m.var.array + m.eps),
                m.offset.array - m.mean.array * m.scale.array / np.sqrt(m.var.array + m.eps),
            ),
            pattern=training_too,
            check=anything,
        ),
        lambda: bn(TRAINED, opset=15),
    ),
    "before a padded convolution": (
        mutant(BeforeConvolution, check=anything),
        lambda: bn("n = BatchNormalization(x, g, be, mu, va) y = Conv<pads=[1,1,1,1]>(n, w, b)", channels=4),
    ),
}


def assert_caught(one: rw.Pass, made: onnx.ModelProto) -> None:
    """The site is rolled back because it is different, says how, and nothing changes."""
    result = rw.rewrite(made, one, verify="local")
    (report,) = result.report.passes
    assert (report.applied, report.rolled_back) == (0, 1), building.told(result)
    assert not result.changed
    (site,) = result.sites
    assert site.status == "rolled_back"
    assert site.verification.verdict == "different"
    assert site.verification.error_after > site.verification.bound or "became" in (site.reason or "")
    assert site.before is not None
    assert site.after is not None


@pytest.mark.parametrize(("one", "make"), MUTANTS.values(), ids=MUTANTS)
def test_a_wrong_replacement_is_rolled_back(one: rw.Pass, make: Callable[[], onnx.ModelProto]) -> None:
    assert_caught(one, make())


@pytest.mark.parametrize(("one", "make"), MUTANTS.values(), ids=MUTANTS)
def test_nothing_else_would_have_caught_it(one: rw.Pass, make: Callable[[], onnx.ModelProto]) -> None:
    result = rw.rewrite(make(), one, verify="off")
    assert result.report.passes[0].applied == 1, building.told(result)
    assert result.changed
    onnx.checker.check_model(result.to_proto(), full_check=True)


@pytest.mark.parametrize(("one", "make"), MUTANTS.values(), ids=MUTANTS)
def test_with_a_judge_that_always_agrees_the_mutants_live(
    one: rw.Pass, make: Callable[[], onnx.ModelProto], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site's verdict is the judge's: with a blind one, the test above fails on every mutant."""
    judged: list[int] = []

    def blind(self: Any, before: onnx.ModelProto, after: onnx.ModelProto) -> Verification:
        judged.append(len(before.graph.node))
        return Verification("equivalent")

    monkeypatch.setattr("onnx_rewrite.verify.local.LocalJudge.__call__", blind)
    with pytest.raises(AssertionError, match="applied"):
        assert_caught(one, make())
    assert judged


def test_the_whole_model_catches_what_a_blind_judge_lets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_rewrite.verify.local.LocalJudge.__call__", lambda *_: Verification("equivalent"))
    one, make = MUTANTS["bias dropped"]
    result = rw.rewrite(make(), one, verify="full")
    assert result.report.passes[0].rolled_back == 1
    assert "LayerNormalization" not in building.ops(result.to_proto())
    assert result.report.verification.verdict == "equivalent"


def test_a_verdict_is_that_of_its_own_site() -> None:
    """Of two norms alike but for their constants, only the one with a bias suffers from its loss."""
    second = {k + "2": v for k, v in TORCH.items()}
    text = building.steps(TORCH, {}) + " "
    text += " ".join(
        f"{name} = {expression}"
        for name, expression in {
            **second,
            "m2": "ReduceMean<axes=[-1]>(y)",
            "d2": "Sub(y, m2)",
            "q2": "Pow(d2, two)",
            "v2": "ReduceMean<axes=[-1]>(q2)",
            "e2": "Add(v2, eps)",
            "s2": "Sqrt(e2)",
            "n2": "Div(d2, s2)",
            "w2": "Mul(n2, scale)",
            "y2": "Add(w2, none)",
        }.items()
    )
    constants = {"two": np.float32(2), "eps": np.float32(1e-5), "scale": f32(8), "bias": f32(8)}
    constants["none"] = np.zeros(8, np.float32)
    made = building.model(text, constants, inputs="float[2,5,8] x", outputs="float[2,5,8] y2")
    result = rw.rewrite(made, MUTANTS["bias dropped"][0])
    assert [s.status for s in result.sites] == ["rolled_back", "applied"]
    assert [s.outputs for s in result.sites] == [("y",), ("y2",)]
    assert result.report.verification.verdict == "equivalent"


def test_our_own_passes_are_no_mutants() -> None:
    """The same construction, with nothing changed, is accepted."""
    for base, made in ((TwoPass, ln()), (Saturations, clip(MAX_MIN)), (BehindLinear, bn(CONV))):
        building.fires(made, mutant(base))
