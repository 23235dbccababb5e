"""Why not: the node, the attribute and the consumer that stopped a pass, for one near miss each."""

from __future__ import annotations

from typing import NamedTuple

import onnx
import pytest

import onnx_rewrite as rw
from onnx_rewrite.errors import UsageError

LN = """
<ir_version: 8, opset_import: ["": 13]>
g (float[2, 4, 8] x) => (float[2, 4, 8] y)
<float e = {1e-5}, float two = {2}, float[8] s = {1, 2, 3, 4, 5, 6, 7, 8}, float[8] t = {1, 2, 3, 4, 5, 6, 7, 8}>
{
    [mean] m = ReduceMean <axes = [-1]> (x)
    [centre] d = Sub (x, m)
    [square] q = Pow (d, two)
    [variance] v = ReduceMean <axes = [-1]> (q)
    [plus_eps] w = Add (v, e)
    [root] r = Sqrt (w)
    [norm] n = Div (d, r)
    [scale] a = Mul (n, s)
    [shift] y = Add (a, t)
}
"""
CLIP = """
<ir_version: 8, opset_import: ["": 13]>
g (float[2, 4] x) => (float[2, 4] y) <float lo = {-1}, float hi = {1}>
{
    [lower] a = Max (x, lo)
    [upper] y = Min (a, hi)
}
"""
BN = """
<ir_version: 8, opset_import: ["": 13]>
g (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y)
<float[2, 2, 1, 1] w = {1, 2, 3, 4}, float[2] s = {1, 2}, float[2] b = {1, 2}, float[2] m = {0, 1}, float[2] v = {1, 2}>
{
    [conv] a = Conv (x, w)
    [norm] y = BatchNormalization (a, s, b, m, v)
}
"""


BRANCH = """
    [branch] z = If (c) <
        then_branch = t () => (float[2, 4, 1] p) { [inside] p = Neg (v) },
        else_branch = f () => (float[2, 4, 1] p) { p = Constant <value = float[2, 4, 1] {1, 2, 3, 4, 5, 6, 7, 8}> () }
    >
    [root]"""


class Case(NamedTuple):
    """A model, what is changed in it, and what the nearest miss must say."""

    text: str
    pass_name: str
    edits: tuple[tuple[str, str], ...]
    node: str
    attribute: str | None
    consumer: str | None
    reason: str


CASES = {
    "mean over the batch": Case(
        LN,
        "ln",
        (("<axes = [-1]> (x)", "<axes = [0]> (x)"),),
        "variance",
        "axes",
        None,
        "axes of ReduceMean 'variance'",
    ),
    "variance over another axis": Case(
        LN,
        "ln",
        (("<axes = [-1]> (q)", "<axes = [1]> (q)"),),
        "variance",
        "axes",
        None,
        "axes of ReduceMean 'variance'",
    ),
    "both over axis 1": Case(
        LN,
        "ln",
        (("<axes = [-1]> (x)", "<axes = [1]> (x)"), ("<axes = [-1]> (q)", "<axes = [1]> (q)")),
        "mean",
        None,
        None,
        "the mean is taken over axis 1",
    ),
    "keepdims is 0": Case(
        LN,
        "ln",
        (("[-1]> (q)", "[-1], keepdims = 0> (q)"), ("float[2, 4, 8] y", "float[2, 4, 8] y")),
        "variance",
        "keepdims",
        None,
        "keepdims",
    ),
    "cubes": Case(LN, "ln", (("two = {2}", "two = {3}"),), "square", None, None, "is 3.0; the pattern needs 2.0"),
    "epsilon is computed": Case(LN, "ln", (("Add (v, e)", "Add (v, m)"),), "plus_eps", None, None, "not a constant"),
    "absolute values": Case(LN, "ln", (("Pow (d, two)", "Abs (d)"),), "square", None, None, "Abs 'square'"),
    "centred value used elsewhere": Case(
        LN,
        "ln",
        (("[root]", "[other] z = Neg (d) [root]"), ("float[2, 4, 8] y", "float[2, 4, 8] y, float[2, 4, 8] z")),
        "square",
        None,
        "other",
        "value 'd' is also used by Neg 'other'",
    ),
    "spread is an output": Case(
        LN,
        "ln",
        (("float[2, 4, 8] y", "float[2, 4, 8] y, float[2, 4, 1] r"),),
        "norm",
        None,
        None,
        "value 'r' is an output of the graph",
    ),
    "used in a body": Case(
        LN,
        "ln",
        (
            (
                "[root]",
                BRANCH,
            ),
            ("8] x)", "8] x, bool c)"),
            ("float[2, 4, 8] y", "float[2, 4, 8] y, float[2, 4, 1] z"),
        ),
        "plus_eps",
        None,
        "inside",
        "value 'v' is also used by Neg 'inside'",
    ),
    "bound is fed": Case(
        CLIP,
        "clip",
        (("x) =>", "x, float lo) =>"), ("float lo = {-1}, ", "")),
        "lower",
        None,
        None,
        "value 'lo' is not a constant",
    ),
    "bound may be overridden": Case(
        CLIP, "clip", (("x) =>", "x, float lo) =>"),), "lower", None, None, "value 'lo' is not a constant"
    ),
    "middle value used elsewhere": Case(
        CLIP,
        "clip",
        (("[upper]", "[other] z = Neg (a) [upper]"), ("float[2, 4] y", "float[2, 4] y, float[2, 4] z")),
        "upper",
        None,
        "other",
        "value 'a' is also used by Neg 'other'",
    ),
    "bound of another rank": Case(
        CLIP, "clip", (("float hi = {1}", "float[4] hi = {1, 2, 3, 4}"),), "upper", None, None, "a bound of shape [4]"
    ),
    "training mode": Case(
        BN,
        "bn",
        (("(a, s, b, m, v)", "<training_mode = 1> (a, s, b, m, v)"),),
        "norm",
        "training_mode",
        None,
        "training_mode",
    ),
    "convolution used elsewhere": Case(
        BN,
        "bn",
        (("[norm]", "[other] z = Neg (a) [norm]"), ("float[1, 2, 4, 4] y", "float[1, 2, 4, 4] y, float[1, 2, 4, 4] z")),
        "norm",
        None,
        "other",
        "value 'a' is also used by Neg 'other'",
    ),
    "something between": Case(
        BN,
        "bn",
        (("[norm]", "[between] c = Relu (a) [norm]"), ("(a, s,", "(c, s,")),
        "between",
        None,
        None,
        "Relu 'between' stands where the pattern needs Conv",
    ),
    "weight is fed": Case(
        BN,
        "bn",
        (("x) =>", "x, float[2, 2, 1, 1] w) =>"), ("float[2, 2, 1, 1] w = {1, 2, 3, 4}, ", "")),
        "conv",
        None,
        None,
        "'w' is not a constant",
    ),
}


def changed(case: Case) -> onnx.ModelProto:
    text = case.text
    for old, new in case.edits:
        assert text.count(old), old
        text = text.replace(old, new)
    return onnx.parser.parse_model(text)


@pytest.mark.parametrize("name", CASES)
def test_near_miss(name: str) -> None:
    case = CASES[name]
    model = changed(case)
    assert not [s for s in rw.rewrite(model, case.pass_name, verify="off").sites if s.status == "applied"]
    found = rw.explain(model, case.pass_name)
    assert not found.found
    nearest = found.near[0]
    assert (nearest.node, nearest.attribute, nearest.consumer) == (case.node, case.attribute, case.consumer), nearest
    assert case.reason in nearest.reason


@pytest.mark.parametrize("text", [LN, CLIP, BN])
def test_what_is_found_is_told(text: str) -> None:
    pass_name = {LN: "ln", CLIP: "clip", BN: "bn"}[text]
    found = rw.explain(onnx.parser.parse_model(text), pass_name)
    assert len(found.found) == 1
    assert not found.near


def test_explaining_changes_nothing() -> None:
    model = changed(CASES["cubes"])
    before = model.SerializeToString(deterministic=True)
    rw.explain(model, "ln")
    assert model.SerializeToString(deterministic=True) == before


def test_one_node() -> None:
    model = changed(CASES["cubes"])
    found = rw.explain(model, "ln", node="square")
    assert {miss.node for miss in found.near} >= {"square"}
    assert rw.explain(model, "ln", node="q").near == found.near
    with pytest.raises(UsageError, match="no node and no value called 'squares'") as error:
        rw.explain(model, "ln", node="squares")
    assert "square" in (error.value.hint or "")


def test_operators_that_are_missing() -> None:
    assert rw.explain(onnx.parser.parse_model(CLIP), "ln").absent == ["Add", "Mul", "Sub"]
