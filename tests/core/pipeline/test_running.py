"""From a model and a list of passes to a verified result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import onnx_rewrite as rw
from onnx_rewrite import constant, op
from onnx_rewrite.report.wording import model_verdict
from onnx_rewrite.verdict import Verification
from onnx_rewrite.verify import LocalJudge
from onnx_rewrite.verify.bisection import first_bad

MODELS = Path(__file__).parents[2] / "models"
HYBRID = MODELS / "exported" / "hybrid_legacy_op12_keep_bn.onnx"


class MinMax(rw.Pass):
    """Min, then Max."""

    name = "min-max"

    def pattern(self, x: Any, lo: Any, hi: Any) -> Any:
        return op.Max(op.Min(x, constant(hi)), constant(lo))

    def replace(self, m: rw.Match) -> Any:
        return op.Clip(m.x, min=m.lo.array.reshape(()), max=m.hi.array.reshape(()))


class Liar(MinMax):
    """Lifts the lower bound wherever a node's name matches."""

    name = "liar"
    where = "Max_1"

    def replace(self, m: rw.Match) -> Any:
        lift = 0.25 if self.where in m.anchor.name else 0
        lo = (m.lo.array + lift).astype(m.lo.array.dtype)
        return op.Clip(m.x, min=lo.reshape(()), max=m.hi.array.reshape(()))


def believing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site judge that finds everything equivalent."""
    monkeypatch.setattr(LocalJudge, "__call__", lambda *_: Verification("equivalent"))


def test_a_wrong_site_is_rolled_back_and_the_rest_kept() -> None:
    result = rw.rewrite(HYBRID, Liar())
    by_status = {s.status: s for s in result.sites}
    assert by_status["rolled_back"].nodes[0] == "/Max_1"
    assert by_status["rolled_back"].verification.verdict == "different"
    assert "became" in (by_status["rolled_back"].reason or "")
    assert by_status["applied"].verification.verdict == "equivalent"
    assert result.report.verification.verdict == "equivalent"


def test_a_wrong_whole_is_bisected(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the site judge lets through, the whole model shows; the edit at fault is found and taken back."""
    believing(monkeypatch)
    result = rw.rewrite(HYBRID, ["ln", Liar(), "bn"])
    back = [s for s in result.sites if s.status == "rolled_back"]
    assert [s.nodes[0] for s in back] == ["/Max_1"]
    assert "whole model" in (back[0].reason or "")
    assert sum(s.status == "applied" for s in result.sites) == 3 + 1 + 2
    assert result.report.verification.verdict == "equivalent"


def test_the_verdict_comes_from_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the site judge, and without the whole, the lie would stay."""
    believing(monkeypatch)
    result = rw.rewrite(HYBRID, Liar(), verify="local")
    assert {s.status for s in result.sites} == {"applied"}


def test_a_model_that_stays_as_it_was_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_rewrite.pipeline.whole.judge_models", None)  # calling it would fail
    result = rw.rewrite(MODELS / "exported" / "bert_legacy_op17.onnx", ["ln"])
    assert not result.changed
    assert (result.report.verification.verdict, result.report.verification.feeds) == ("equivalent", 0)
    assert model_verdict(result.report) == "unchanged"


def test_strict_gives_nothing_back() -> None:
    with pytest.raises(rw.NotEquivalentError, match="rolled back") as caught:
        rw.rewrite(HYBRID, Liar(), strict=True)
    assert caught.value.exit_code == 1
    assert caught.value.report.passes[0].rolled_back == 1


def test_a_failure_is_saved_and_shows_itself(tmp_path: Path) -> None:
    result = rw.rewrite(HYBRID, Liar())
    (script,) = result.save_failures(tmp_path)
    ran = subprocess.run([sys.executable, script.name], cwd=script.parent, capture_output=True, text=True, check=True)
    errors = [float(line.split()[-1]) for line in ran.stdout.splitlines()]
    (site,) = (s for s in result.sites if s.status == "rolled_back")
    assert errors == pytest.approx([site.verification.error_before, site.verification.error_after])
    assert not rw.rewrite(HYBRID, MinMax()).save_failures(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_only_and_skip_choose_sites() -> None:
    def applied(**options: Any) -> list[str]:
        sites = rw.rewrite(HYBRID, "ln", verify="off", **options).sites
        return [s.id for s in sites if s.status == "applied"]

    assert applied() == ["ln[0]", "ln[1]", "ln[2]"]
    assert applied(only="ln[1]") == ["ln[1]"]
    assert applied(skip=["ln[1]"]) == ["ln[0]", "ln[2]"]
    assert applied(only="^/ln3/") == ["ln[2]"]
    assert applied(skip="ln2") == ["ln[0]", "ln[2]"]
    with pytest.raises(rw.UsageError, match="regular expression"):
        applied(only="ln[")


def test_opset_is_kept_or_limited() -> None:
    kept = rw.rewrite(HYBRID, "ln", opset="keep")
    assert kept.report.output.opset == {"": 12}
    assert not kept.changed
    assert {s.status for s in kept.sites} == {"refused"}
    assert "needs opset 17" in (kept.sites[0].reason or "")
    assert not rw.rewrite(HYBRID, "ln", opset=16, verify="off").changed
    assert rw.rewrite(HYBRID, "ln", opset=18, verify="off").report.output.opset == {"": 17}


def test_the_given_model_is_not_changed() -> None:
    proto = onnx.load(HYBRID)
    before = proto.SerializeToString(deterministic=True)
    rw.rewrite(proto, "ln,clip,bn", verify="off")
    assert proto.SerializeToString(deterministic=True) == before


def test_same_bytes_in_processes_with_other_hash_seeds(tmp_path: Path) -> None:
    code = "import sys, onnx_rewrite as rw; rw.rewrite(sys.argv[1], 'ln,clip,bn').save(sys.argv[2])"
    for seed in ("1", "2"):
        command = [sys.executable, "-c", code, str(HYBRID), str(tmp_path / f"{seed}.onnx")]
        subprocess.run(command, check=True, env={**__import__("os").environ, "PYTHONHASHSEED": seed})
    assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "2.onnx").read_bytes()


def test_users_inputs_judge_the_whole(tmp_path: Path) -> None:
    feed = {"x": np.ones((1, 3, 32, 32), np.float32)}
    np.savez(tmp_path / "feed.npz", **feed)
    for inputs in (feed, [feed, feed], tmp_path / "feed.npz"):
        result = rw.rewrite(HYBRID, "clip", inputs=inputs)
        assert result.report.verification.verdict == "equivalent"
        assert result.report.verification.feeds == (2 if isinstance(inputs, list) else 1)
    with pytest.raises(rw.UsageError, match="x"):
        rw.rewrite(HYBRID, "clip", inputs={"x": np.ones((1, 3, 32), np.float32)})
    with pytest.raises(rw.UsageError):
        rw.rewrite(HYBRID, "clip", inputs={"y": feed["x"]})


def test_unknown_passes_name_the_nearest() -> None:
    with pytest.raises(rw.UsageError) as caught:
        rw.rewrite(HYBRID, "clib")
    assert "clip" in (caught.value.hint or "")
    with pytest.raises(rw.UsageError, match="named twice"):
        rw.rewrite(HYBRID, "ln,ln")
    with pytest.raises(rw.UsageError, match="no option"):
        rw.rewrite(HYBRID, "ln:fast=yes")
    with pytest.raises(rw.UsageError, match="unknown target"):
        rw.rewrite(HYBRID, "ln", target="tensorrt-9")


def test_a_custom_op_is_not_verified_and_says_so() -> None:
    """An operator that nobody knows: the whole model is not verified, sites beside it are."""
    model = onnx.load(MODELS / "exported" / "deformconv_legacy_op12_custom_keep_bn.onnx")
    for node in model.graph.node:
        if node.domain == "custom":
            node.op_type = "mystery"
    result = rw.rewrite(model, "bn")
    assert [s.verification.verdict for s in result.sites if s.status == "applied"] == ["equivalent"]
    assert result.report.verification.verdict == "not verified"
    assert any("mystery" in warning for warning in result.report.warnings)
    with pytest.raises(rw.NotEquivalentError):
        rw.rewrite(model, "bn", strict=True)


def test_shapes_that_inference_cannot_find_are_observed() -> None:
    """The rank behind a computed Reshape is known once the model has run."""
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[2, 12] x, int64[1] n) => (float[a, b, 4] y)
        <float lo = {-1.0}, float hi = {1.0}, int64[2] tail = {3, 4}>
        {
            shape = Concat <axis = 0> (n, tail)
            r = Reshape (x, shape)
            s = Min (r, hi)
            y = Max (s, lo)
        }""")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    feed = {"x": np.ones((2, 12), np.float32), "n": np.array([2], np.int64)}
    result = rw.rewrite(model, "clip", inputs=feed)
    assert [s.verification.verdict for s in result.sites] == ["equivalent"]


def test_a_pass_that_raises_leaves_the_model_alone() -> None:
    class Broken(MinMax):
        """Raises halfway."""

        name = "broken"

        def replace(self, m: rw.Match) -> Any:
            op.Clip(m.x, min=m.lo.array.reshape(()))
            raise ZeroDivisionError("halfway")

    result = rw.rewrite(HYBRID, Broken())
    assert {s.status for s in result.sites} == {"rolled_back"}
    assert "ZeroDivisionError: halfway" in (result.sites[0].reason or "")
    assert not result.changed
    assert result.to_proto() == onnx.load(HYBRID)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64])
def test_first_bad_finds_every_position(count: int) -> None:
    for bad in range(count):
        asked: list[int] = []

        def differs(n: int, bad: int = bad, asked: list[int] = asked) -> bool:
            asked.append(n)
            return n > bad

        assert first_bad(count, differs) == bad
        assert len(asked) <= count.bit_length()
