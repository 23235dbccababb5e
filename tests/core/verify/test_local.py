"""The judge of one replacement: right rewrites pass, wrong ones are caught, in every type it knows."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

from onnx_rewrite.verify import LocalJudge, Tolerance
from onnx_rewrite.verify import judge as judge_module
from onnx_rewrite.verify.compare import Comparison
from onnx_rewrite.verify.feeds import MOST_ELEMENTS, Source
from onnx_rewrite.verify.judge import Pair, Subject
from onnx_rewrite.verify.local import bind

from . import rewrites
from .rewrites import CORRECT, WRONG, model, narrowed


@pytest.mark.parametrize("name", CORRECT)
@pytest.mark.parametrize("seed", [0, 1])
def test_correct_rewrites_pass(name: str, seed: int) -> None:
    verdict = LocalJudge(seed=seed)(*CORRECT[name]())
    assert verdict.verdict == "equivalent", verdict
    assert verdict.feeds >= 12
    assert verdict.error_after <= verdict.bound


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("seed", [0, 1])
def test_wrong_rewrites_are_caught(name: str, seed: int) -> None:
    verdict = LocalJudge(seed=seed)(*WRONG[name]())
    assert verdict.verdict == "different", verdict
    assert verdict.reason


@pytest.mark.parametrize("elem_type", [onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE])
@pytest.mark.parametrize("name", ["layer norm fused", "clip", "batch norm folded", "projections packed"])
def test_correct_rewrites_pass_in_other_types(name: str, elem_type: int) -> None:
    before, after = (narrowed(m, elem_type) for m in CORRECT[name]())
    verdict = LocalJudge()(before, after)
    if (
        elem_type == onnx.TensorProto.DOUBLE
    ):  # Conv has no double kernel in onnxruntime; fp32 constants are folded in fp32.
        assert verdict.verdict == ("not verified" if "batch" in name else "equivalent"), verdict
    elif name == "batch norm folded":  # The weights are rounded once more, which fp16 and bf16 feel.
        assert verdict.verdict in ("equivalent", "different")
    else:
        assert verdict.verdict == "equivalent", verdict


@pytest.mark.parametrize("elem_type", [onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16])
@pytest.mark.parametrize("name", ["clip with swapped bounds", "square weights transposed", "bias dropped"])
def test_wrong_rewrites_are_caught_in_halves(name: str, elem_type: int) -> None:
    before, after = (narrowed(m, elem_type) for m in WRONG[name]())
    assert LocalJudge()(before, after).verdict == "different"


def test_replacing_the_comparison_by_true_lets_wrong_rewrites_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the two tests above rest on: were the comparison always satisfied, the second would fail."""
    monkeypatch.setattr(judge_module, "compare", lambda *_: Comparison(True))
    missed = [name for name in WRONG if LocalJudge()(*WRONG[name]()).equivalent]
    assert len(missed) >= len(WRONG) - 2


def test_epsilon_shows_where_it_should() -> None:
    """The worst feed is one of small numbers; on N(0, 1) alone a fixed tolerance of 1e-3 sees nothing."""
    before, after = WRONG["layer norm with another epsilon"]()
    verdict = LocalJudge()(before, after)
    assert (verdict.regime or "").startswith(("amplitude 1e-05", "amplitude 0.001"))
    only_unit = LocalJudge(feeds=1, tolerance=Tolerance(k=16, floor=1e4))(before, after)
    assert only_unit.equivalent


def test_verdicts_are_remembered() -> None:
    judge = LocalJudge()
    before, after = CORRECT["layer norm fused"]()
    first = judge(before, after)
    assert judge(before, after) is first
    assert judge.judged == 1


def test_sites_that_differ_in_names_only_are_judged_once() -> None:
    judge = LocalJudge()
    before, after = CORRECT["clip"]()
    judge(before, after)
    pair = []
    for source in (before, after):
        text = onnx.printer.to_text(source)
        assert "x" in text
        renamed = onnx.ModelProto()
        renamed.CopyFrom(source)
        for node in renamed.graph.node:
            node.input[:] = [f"other_{n}" for n in node.input]
            node.output[:] = [f"other_{n}" for n in node.output]
        for value in (*renamed.graph.input, *renamed.graph.output, *renamed.graph.initializer):
            value.name = f"other_{value.name}"
        pair.append(renamed)
    verdict = judge(*pair)
    assert judge.judged == 1
    assert verdict.equivalent
    assert verdict.output == "other_y"


def test_constants_are_part_of_the_key() -> None:
    judge = LocalJudge()
    before, after = CORRECT["clip"]()
    assert judge(before, after).equivalent
    other = model("y = Clip(x, lo, hi)", {"lo": np.float32(-1), "hi": np.float32(2.5)})
    assert judge(before, other).verdict == "different"
    assert judge.judged == 2


def test_seeds_give_the_same_verdicts_whatever_the_hash_seed() -> None:
    code = ("from tests.core.verify.rewrites import CORRECT, WRONG; from onnx_rewrite.verify import LocalJudge;"
            "j = LocalJudge(seed=3);"
            "print(j(*CORRECT['layer norm fused']()), j(*WRONG['gelu by tanh']()))")  # fmt: skip
    root = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
    outputs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root,
                       env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root}).stdout
        for seed in ("0", "1")
    }  # fmt: skip
    assert len(outputs) == 1


class TestHonesty:
    def test_a_custom_operator_without_a_body(self) -> None:
        before = model(
            "y = local.Foo(x)", functions='<domain: "local", opset_import: ["":17]> Foo (a) => (b) { b = Neg(a) }'
        )
        assert LocalJudge()(before, model("y = Neg(x)")).equivalent
        del before.functions[:]
        verdict = LocalJudge()(before, model("y = Neg(x)"))
        assert verdict.verdict == "not verified"
        assert "local::Foo" in (verdict.reason or "")

    def test_an_opset_that_is_too_new(self) -> None:
        before = model("y = Neg(x)")
        before.opset_import[0].version = 90
        verdict = LocalJudge()(before, model("y = Neg(x)"))
        assert verdict.verdict == "not verified"
        assert "opset 90" in (verdict.reason or "")

    def test_an_input_without_a_rank(self) -> None:
        before = model("y = Neg(x)")
        before.graph.input[0].type.tensor_type.ClearField("shape")
        verdict = LocalJudge()(before, model("y = Neg(x)"))
        assert verdict.verdict == "not verified"
        assert "'x'" in (verdict.reason or "")

    def test_random_numbers(self) -> None:
        before = model("r = RandomNormalLike(x) y = Add(x, r)")
        verdict = LocalJudge()(before, before)
        assert verdict.verdict == "not verified"
        assert "random" in (verdict.reason or "")

    def test_an_original_that_never_runs(self) -> None:
        before = model("a = Reshape(x, k) y = Add(a, a)", {"k": np.asarray([7, 7, 7], np.int64)})
        verdict = LocalJudge()(before, model("y = Neg(x)"))
        assert verdict.verdict == "not verified"
        assert "no feed" in (verdict.reason or "")

    def test_a_replacement_that_does_not_run(self) -> None:
        after = model("a = Reshape(x, k) y = Add(a, a)", {"k": np.asarray([7, 7, 7], np.int64)})
        verdict = LocalJudge()(model("y = Neg(x)"), after)
        assert verdict.verdict == "different"
        assert "onnxruntime" in (verdict.reason or "")

    def test_a_replacement_that_does_not_load(self) -> None:
        verdict = LocalJudge()(model("y = Neg(x)"), model("y = Add(x, nowhere)"))
        assert verdict.verdict == "different"
        assert "nowhere" in (verdict.reason or "")

    def test_an_output_that_is_never_finite_is_inconclusive(self) -> None:
        before = model("n = Sub(x, x) z = Div(n, n) y = Add(z, x)")
        assert LocalJudge()(before, before).verdict == "inconclusive"

    def test_a_new_input_an_output_gone_another_dtype(self) -> None:
        before = model("y = Neg(x)")
        judge = LocalJudge()
        assert "is gone" in (judge(before, model("z = Neg(x)", outputs="float[b,s,16] z")).reason or "")
        assert "input 'k' is new" in (
            judge(before, model("y = Add(x, k)", inputs="float[b,s,16] x, float[16] k")).reason or ""
        )
        other = judge(before, model("y = Cast<to=11>(x)", outputs="double[b,s,16] y"))
        assert other.verdict == "different"
        assert "double" in (other.reason or "")


class TestIntegersAndTies:
    def test_indices_stay_in_range(self) -> None:
        body, table = "y = Gather(t, i)", rewrites.f32(5, 4)
        before = model(body, {"t": table}, inputs="int64[n] i", outputs="float[n,4] y")
        wrong = model(body, {"t": np.roll(table, 1, 0)}, inputs="int64[n] i", outputs="float[n,4] y")
        assert LocalJudge()(before, before).equivalent
        assert LocalJudge()(before, wrong).verdict == "different"

    def test_integers_are_exact(self) -> None:
        before = model("y = Mul(i, two)", {"two": np.int64(2)}, inputs="int64[n] i", outputs="int64[n] y")
        assert LocalJudge()(before, model("y = Add(i, i)", inputs="int64[n] i", outputs="int64[n] y")).equivalent
        wrong = model("a = Mul(i, two) m = Min(a, k) y = Identity(m)", {"two": np.int64(2), "k": np.int64(17)},
                      inputs="int64[n] i", outputs="int64[n] y")  # fmt: skip
        assert LocalJudge()(before, wrong).verdict == "different"

    def test_division_by_zero_does_not_end_the_process(self) -> None:
        before = model("z = Sub(i, i) y = Div(i, z)", inputs="int64[n] i", outputs="int64[n] y")
        assert LocalJudge()(before, before).verdict == "not verified"

    def test_a_comparison_of_almost_equal_numbers_is_inconclusive(self) -> None:
        """x*3/3 > x is rounding and nothing else."""
        three = {"three": np.float32(3)}
        before = model("a = Mul(x, three) b = Div(a, three) y = Greater(b, x)", three, outputs="bool[b,s,16] y")
        after = model("a = Div(x, three) b = Mul(a, three) y = Greater(b, x)", three, outputs="bool[b,s,16] y")
        assert LocalJudge()(before, after).verdict == "inconclusive"

    def test_a_comparison_the_other_way_is_different(self) -> None:
        before = model("y = Greater(x, zero)", {"zero": np.float32(0)}, outputs="bool[b,s,16] y")
        after = model("y = Less(x, zero)", {"zero": np.float32(0)}, outputs="bool[b,s,16] y")
        assert LocalJudge()(before, after).verdict == "different"

    def test_argmax(self) -> None:
        before = model("y = ArgMax<axis=-1, keepdims=0>(x)", outputs="int64[b,s] y")
        twice = model("d = Add(x, x) y = ArgMax<axis=-1, keepdims=0>(d)", outputs="int64[b,s] y")
        least = model("y = ArgMin<axis=-1, keepdims=0>(x)", outputs="int64[b,s] y")
        assert LocalJudge()(before, twice).equivalent
        assert LocalJudge()(before, least).verdict == "different"


def test_symbolic_dimensions_are_bound_to_unequal_numbers() -> None:
    """A Transpose that is dropped shows only where two dimensions differ."""
    before = model("y = Transpose<perm=[1,0,2]>(x)", outputs="float[s,b,16] y")
    after = model("y = Identity(x)", outputs="float[s,b,16] y")
    assert LocalJudge()(before, after).verdict == "different"


def test_bindings_that_the_original_refuses_are_passed_over() -> None:
    """The two symbols must be equal, and no one says so."""
    before = model("y = Add(x, z)", inputs="float[a,16] x, float[b,16] z", outputs="float[c,16] y")
    swapped = model("y = Add(z, x)", inputs="float[a,16] x, float[b,16] z", outputs="float[c,16] y")
    assert LocalJudge()(before, swapped).equivalent
    fixed = model(
        "y = Reshape(x, k)", {"k": np.asarray([4, 24], np.int64)}, inputs="float[a,16] x", outputs="float[4,24] y"
    )
    assert LocalJudge()(fixed, fixed).equivalent


def test_sizes_that_are_squared_on_the_way_are_not_fed() -> None:
    """Sizes beyond short constants, here 62 in all, give some 4,000 rows and columns, and a product of both."""
    squared = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[h,w,1] x) => (float[n,m] y)
        <int64[2] flat = {-1, 1}, int64[2] across = {1, -1}, int64[1] sixty = {58}>
        { a = Reshape (x, flat) b = Reshape (x, across) c = MatMul (a, b) s = Shape (sixty) y = Softmax (c) }""")
    pair, source = Pair(Subject(squared), Subject(squared), Tolerance()), Source(squared, 0)
    found, _ = bind(pair, source, 3)
    assert len(found) == 3
    assert all((one["h"] * one["w"]) ** 2 <= MOST_ELEMENTS for one in found)
    assert any((one["h"] * one["w"]) ** 2 > MOST_ELEMENTS for one in source.bindings())
