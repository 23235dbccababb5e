"""Sites are judged on what flows into them when the original runs on the user's inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_rewrite as rw
from onnx_rewrite.pattern import op
from onnx_rewrite.pipeline import capturing

TEXT = """
<ir_version: 8, opset_import: ["": 17]>
g (float[2, 4] x) => (float[2, 4] y)
<float big = {5e4}>
{
    a = Add (x, big)
    [site] b = Neg (a)
    y = Mul (b, x)
}
"""


class NotThere(rw.Pass):
    """Replaces Neg by what equals it but for numbers around 50,000, which no drawn feed has."""

    name = "not_there"

    def pattern(self, x: Any) -> Any:
        return op.Neg(x)

    def replace(self, m: rw.Match) -> Any:
        return wrong_between(m.x, 4.9e4, 5.1e4)


def wrong_between(x: Any, low: float, high: float) -> Any:
    return op.Mul(op.Where(op.And(op.Greater(x, low), op.Less(x, high)), op.Mul(x, 0.5), x), -1.0)


@pytest.fixture
def feeds() -> dict[str, np.ndarray[Any, Any]]:
    return {"x": np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)}


def site(**options: Any) -> Any:
    return rw.rewrite(onnx.parser.parse_model(TEXT), NotThere(), verify="local", **options).sites[0]


def test_what_drawn_feeds_miss_the_captured_ones_show(feeds: Any) -> None:
    assert site().status == "applied"
    found = site(inputs=feeds)
    assert (found.status, found.verification.verdict) == ("rolled_back", "different")
    assert found.verification.regime == "captured from input 0"


def test_the_reproduction_holds_the_captured_feed(feeds: Any, tmp_path: Path) -> None:
    result = rw.rewrite(onnx.parser.parse_model(TEXT), NotThere(), verify="local", inputs=feeds)
    (script,) = result.save_failures(tmp_path)
    (name,) = np.load(script.parent / "feeds.npz").files
    np.testing.assert_allclose(np.load(script.parent / "feeds.npz")[name], feeds["x"] + 5e4)


def test_equal_sites_are_fed_what_flows_into_each(feeds: Any) -> None:
    """Two equal Negs: only the one behind the Add sees large numbers."""
    text = TEXT.replace("y = Mul (b, x)", "[other] c = Neg (x)  y = Mul (b, c)")
    result = rw.rewrite(onnx.parser.parse_model(text), NotThere(), verify="local", inputs=feeds)
    assert {s.nodes[0]: s.status for s in result.sites} == {"site": "rolled_back", "other": "applied"}


def test_a_budget_that_is_used_up_is_told(feeds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capturing, "MAX_CAPTURED_BYTES", 16)
    result = rw.rewrite(onnx.parser.parse_model(TEXT), NotThere(), verify="local", inputs=feeds)
    assert result.sites[0].status == "applied"
    assert any("saw no values captured" in warning for warning in result.report.warnings)


def test_more_feeds_than_planned_and_fewer() -> None:
    assert site(feeds_per_site=40).verification.feeds == 40
    assert site(feeds_per_site=3).verification.feeds == 3
    with pytest.raises(rw.UsageError, match="0 feeds"):
        site(feeds_per_site=0)


def test_feeds_beyond_the_plan_can_be_drawn_again(tmp_path: Path) -> None:
    class Rare(NotThere):
        """Wrong for few of the larger numbers."""

        name = "rare"

        def replace(self, m: rw.Match) -> Any:
            return wrong_between(m.x, 2900.0, 4000.0)

    model = onnx.parser.parse_model(TEXT.replace("a = Add (x, big)", "a = Abs (x)"))
    result = rw.rewrite(model, Rare(), verify="local", feeds_per_site=900)
    assert result.sites[0].verification.verdict == "different"
    assert ", draw " in (result.sites[0].verification.regime or "")
    (script,) = result.save_failures(tmp_path)
    (name,) = np.load(script.parent / "feeds.npz").files
    assert np.load(script.parent / "feeds.npz")[name].max() > 2900
