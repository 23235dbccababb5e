from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

TEXT = """
<ir_version: 8, opset_import: ["": 13]>
g (float[2, 4] x) => (float[2, 4] y, float[2, 4] z) <float lo = {-1}, float hi = {1}>
{
    [lower] a = Max (x, lo)
    [other] z = Neg (a)
    [upper] y = Min (a, hi)
}
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(TEXT), path)
    return path


def test_json(rewrite, model: Path) -> None:
    ran = rewrite("explain", model, "clip", "--json")
    assert ran.status == 0
    told = json.loads(ran.out)
    assert told["found"] == []
    nearest = told["near"][0]
    assert (nearest["anchor"], nearest["value"], nearest["consumer"], nearest["complete"]) == (
        "upper",
        "a",
        "other",
        True,
    )
    assert nearest["share"] == 1.0


def test_text(rewrite, model: Path) -> None:
    ran = rewrite("explain", model, "clip")
    assert ran.status == 0
    assert "0 sites found, 1 near miss" in ran.out
    assert "value 'a' is also used by Neg 'other'" in ran.out
    assert "what would help" in ran.out


def test_one_node(rewrite, model: Path) -> None:
    assert "about 'lower': 0 sites found, 2 near misses" in rewrite("explain", model, "clip", "--node", "lower").out
    ran = rewrite("explain", model, "clip", "--node", "lowre")
    assert ran.status == 2
    assert "no node and no value called 'lowre'" in ran.err
    assert "lower" in ran.err


def test_one_pass_at_a_time(rewrite, model: Path) -> None:
    ran = rewrite("explain", model, "ln,clip")
    assert ran.status == 2
    assert "one pass at a time" in ran.err
    assert rewrite("explain", model, "clop").status == 2
