"""Tables of adapters: what is wrong is named, with the entry and a way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import onnx_rewrite as rw
from onnx_rewrite.custom import CustomOp, find, known_types, op_named, register_op, using

GOOD: dict[str, Any] = {
    "op": "onnx_rewrite::DeformConv2d",
    "domain": "d",
    "op_type": "t",
    "inputs": ["x", "weight", "offset"],
}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nonsense", "Expecting value"),
        ("[]", "is no table"),
        ("{}", "no list 'adapters'"),
        ({"op_type": None}, "'op_type'"),
        ({"op": "onnx_rewrite::DeformConv"}, "no operator 'onnx_rewrite::DeformConv'"),
        ({"inputs": ["x", "wieght"]}, "neither an input nor a parameter 'wieght'"),
        ({"inputs": [1]}, "neither a name nor a list"),
        ({"attributes": ["stride"]}, "'attributes' is no table"),
        ({"attributes": {"stride": "stride"}}, "neither an input nor a parameter 'stride'"),
        ({"imputs": ["x"]}, "'imputs', which is not known"),
    ],
)
def test_what_is_wrong_is_named(content: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    if isinstance(content, dict):
        entry = {k: v for k, v in {**GOOD, **content}.items() if v is not None}
        content = json.dumps({"adapters": [entry]})
    file.write_text(content)
    with pytest.raises(rw.UsageError, match=message) as caught, using(file):
        pass
    assert "t.json" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(rw.UsageError, match=r"nowhere\.json: cannot be read"), using(tmp_path / "nowhere.json"):
        pass


def test_an_adapter_of_the_user_precedes_ours(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    entry = {**GOOD, "domain": "custom", "op_type": "deform_conv2d", "inputs": ["offset", "x", "weight"]}
    file.write_text(json.dumps({"adapters": [entry]}))
    with using([file]):
        found = find("custom", "deform_conv2d")
        assert found is not None
        assert found.inputs[0] == "offset"
    found = find("custom", "deform_conv2d")
    assert found is not None
    assert found.inputs[0] == "x"


def test_operators_by_name() -> None:
    assert op_named("onnx_rewrite::DeformConv2d").since == 11
    with pytest.raises(rw.UsageError, match="no operator 'x::y'"):
        op_named("x::y")
    assert {"DeformConv", "deform_conv2d", "DeformConv2d"} <= known_types()

    class Other(CustomOp):
        name = "DeformConv2d"
        inputs = ("x",)
        required = 1
        since = 7

        def body(self, operands: Any, parameters: Any, opset: int) -> Any:
            return operands["x"]

        def alike(self, call: Any) -> Any:
            return call

    with pytest.raises(rw.UsageError, match="two operators are called onnx_rewrite::DeformConv2d"):
        register_op(Other())
