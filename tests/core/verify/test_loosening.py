from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, parser

from onnx_rewrite.verify.local import LocalJudge
from onnx_rewrite.verify.loosening import loosened


def model(inputs: str, body: str, *, output: str = "float[] y", **weights: tuple[int, ...]) -> onnx.ModelProto:
    text = f'<ir_version: 8, opset_import: ["" : 17]> agraph ({inputs}) => ({output}) {{ {body} }}'
    made = parser.parse_model(text)
    del made.graph.output[:]
    made.graph.output.append(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None))
    rng = np.random.default_rng(0)
    for name, shape in weights.items():
        made.graph.initializer.append(onnx.numpy_helper.from_array(rng.random(shape, np.float32) + 0.5, name))
    return made


def free(inputs: str, body: str, other: str | None = None, **weights: tuple[int, ...]) -> dict[str, list[bool]] | None:
    """Which axes of the inputs are free, by input."""
    pair = loosened(model(inputs, body, **weights), model(inputs, other or body, **weights))
    if pair is None:
        return None
    found = {
        value.name: [bool(dim.dim_param) for dim in value.type.tensor_type.shape.dim] for value in pair[0].graph.input
    }
    return {name: axes for name, axes in found.items() if name not in weights}


IMAGE = "float[8, 6, 96, 97] x"
NORM = {"s": (6,), "b": (6,), "m": (6,), "v": (6,)}


@pytest.mark.parametrize(
    ("inputs", "body", "weights", "expected"),
    [
        (IMAGE, "y = Conv(x, w)", {"w": (4, 6, 3, 3)}, {"x": [True, False, True, True]}),
        (IMAGE, "t = Conv<pads=[1,1,1,1]>(x, w) y = Add(t, x)", {"w": (6, 6, 3, 3)}, {"x": [True, False, True, True]}),
        (IMAGE, "y = BatchNormalization(x, s, b, m, v)", NORM, {"x": [True, False, True, True]}),
        (IMAGE, "t = Mul(x, c) y = Relu(t)", {"c": (96, 1)}, {"x": [True, True, False, True]}),
        ("float[8, 96, 97] x", "y = MatMul(x, w)", {"w": (97, 5)}, {"x": [True, True, False]}),
        ("float[8, 96, 97] x", "t = ReduceMean<axes=[-1]>(x) y = Sub(x, t)", {}, {"x": [True, True, False]}),
        ("float[8, 96, 97] x", "y = LayerNormalization<axis=-2>(x, s)", {"s": (96, 97)}, {"x": [True, False, False]}),
        ("float[8, 96, 97] x", "y = Softmax<axis=1>(x)", {}, {"x": [True, False, True]}),
        (
            "float[8, 96, 97] x",
            "t = Transpose<perm=[2,0,1]>(x) y = Mul(t, c)",
            {"c": (8, 1)},
            {"x": [False, True, True]},
        ),
        (
            "float[8, 96, 97] x, float[96, 1] z",
            "y = Add(x, z)",
            {},
            {"x": [True, True, True], "z": [True, False]},
        ),
    ],
)
def test_free_axes(
    inputs: str, body: str, weights: dict[str, tuple[int, ...]], expected: dict[str, list[bool]]
) -> None:
    assert free(inputs, body, **weights) == expected


def test_axes_of_one_size_share_a_symbol() -> None:
    pair = loosened(*[model("float[8, 96, 97] x, float[96, 97] z", "y = Add(x, z)")] * 2)
    assert pair is not None
    x, z = ([d.dim_param for d in v.type.tensor_type.shape.dim] for v in pair[0].graph.input)
    assert x[1:] == z
    assert len(set(x)) == 3


@pytest.mark.parametrize(
    ("inputs", "body"),
    [
        ("float[8, 6, 4, 4] x", "y = Relu(x)"),  # small enough
        (IMAGE, "y = Flatten(x)"),
        (IMAGE, "s = Shape(x) y = Expand(x, s)"),
        ("float[n, 6, 96, 97] x", "y = Relu(x)"),  # it has symbols of its own
    ],
)
def test_sites_that_stay_as_they_are(inputs: str, body: str) -> None:
    assert free(inputs, body) is None


def test_a_stride_leaves_no_size_to_be_added_to() -> None:
    body = "t = Conv<strides=[2,2]>(x, w) y = Add(t, z)"
    found = free(f"{IMAGE}, float[8, 6, 48, 48] z", body, w=(6, 6, 1, 1))
    assert found == {"x": [True, False, False, False], "z": [True, False, False, False]}


def test_the_replacement_must_be_free_too() -> None:
    assert free(IMAGE, "y = Relu(x)", "s = Constant<value_ints=[0]>() y = Slice(x, s, s)") is None


def test_the_judge_sees_a_wrong_replacement_at_the_models_own_sizes() -> None:
    judge = LocalJudge()
    weights = {"w": (6, 6, 3, 3), "c": (1, 6, 1, 1)}
    before = model(IMAGE, "t = Conv<pads=[1,1,1,1]>(x, w) y = Mul(t, c)", **weights)
    good = model(IMAGE, "t = Mul(c, x) t2 = Conv<pads=[1,1,1,1]>(x, w) y = Mul(c, t2)", **weights)
    bad = model(IMAGE, "t = Mul(x, c) y = Conv<pads=[1,1,1,1]>(t, w)", **weights)
    verdict = judge(before, good)
    assert (verdict.verdict, verdict.feeds > 12) == ("equivalent", True)
    verdict = judge(before, bad)
    assert verdict.verdict == "different"
    assert verdict.regime is not None
    feed = judge.feed(before, verdict.regime)
    assert feed is not None
    assert feed["x"].shape == (8, 6, 96, 97)
