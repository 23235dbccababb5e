from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import onnx_rewrite as rw
from onnx_rewrite.model import load
from onnx_rewrite.pipeline import aligning, boundary, layerwise
from onnx_rewrite.pipeline.walking import Walk
from onnx_rewrite.report.checked import born
from onnx_rewrite.verdict import Verification
from onnx_rewrite.verify.dtypes import Tolerance
from onnx_rewrite.verify.feeds import Feed
from onnx_rewrite.verify.reference import Reference

MODELS = "tests/models"
NET = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[2, 4] x, float[4] s) => (float[2, 4] y, float[2, 4] z)
<float[4] w = {0.5, -1.5, 2.0, 0.25}>
{
  [mul] h = Mul (x, w)
  [add] k = Add (h, s)
  [tanh] t = Tanh (k)
  [end] y = Mul (t, w)
  [neg] z = Neg (t)
}
"""


def net(*changes: tuple[str, str]) -> onnx.ModelProto:
    text = NET
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parser.parse_model(text)


def in_type(model: onnx.ModelProto, kind: int) -> onnx.ModelProto:
    """A model with every fp32 number in another type."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for tensor in made.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
            with np.errstate(over="ignore"):
                narrow = numpy_helper.to_array(tensor).astype(dtype)
            tensor.CopyFrom(numpy_helper.from_array(narrow, tensor.name))
    for value in (*made.graph.input, *made.graph.output, *made.graph.value_info):
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            value.type.tensor_type.elem_type = kind
    return made


def test_a_model_against_itself() -> None:
    found = rw.check(net(), net())
    assert isinstance(found, Verification)
    assert found.equivalent
    assert found.judged_by == "float64"
    assert [o.name for o in found.outputs] == ["y", "z"]
    for output in found.outputs:
        assert output.metrics == {"abs": 0, "mean": 0, "rel": 0}
        assert output.error_a == output.error_b
        assert output.elements == 3 * 8
        assert output.shape == (2, 4)
        assert output.histograms["A"] == output.histograms["B"]


def test_the_worst_element_is_where_it_says() -> None:
    a, b = net(), net(("2.0, 0.25", "2.0, 0.375"))
    x = np.ones((2, 4), np.float32)
    x[1] = 2
    found = rw.check(a, b, inputs={"x": x, "s": np.zeros(4, np.float32)})
    assert found.verdict == "different"
    worst = found.outputs[0].worst
    assert worst is not None
    assert worst.index == (1, 3)
    assert worst.a == pytest.approx(math.tanh(0.5) * 0.25)
    assert worst.b == pytest.approx(math.tanh(0.75) * 0.375)
    assert worst.reference == pytest.approx(worst.a)
    assert found.outputs[0].metrics["abs"] == pytest.approx(abs(worst.a - worst.b))


# Names and positions.


def test_renamed_ends_need_by_position() -> None:
    other = boundary.renamed(net(), {"x": "image", "s": "shift"}, {"y": "out_1", "z": "out_2"})
    onnx.checker.check_model(other)
    with pytest.raises(rw.UsageError, match=r"'image', 'shift'.*'x', 's'") as caught:
        rw.check(net(), other)
    assert "--by-position" in str(caught.value.hint)
    found = rw.check(net(), other, by_position=True)
    assert found.equivalent
    assert [(o.name, o.name_b) for o in found.outputs] == [("y", "out_1"), ("z", "out_2")]
    spoiled = boundary.renamed(net(("Neg", "Abs")), {"x": "image", "s": "shift"}, {"y": "out_1", "z": "out_2"})
    assert rw.check(net(), spoiled, by_position=True).output == "z"


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ({"x": "h", "s": "w"}, {"y": "k", "z": "t"}),  # names of values inside
        ({}, {"y": "z", "z": "y"}),  # names exchanged
        ({"x": "s", "s": "x"}, {}),
    ],
)
def test_renaming_keeps_the_meaning_whatever_the_names(inputs: dict[str, str], outputs: dict[str, str]) -> None:
    other = boundary.renamed(net(), inputs, outputs)
    onnx.checker.check_model(other, full_check=True)
    if "x" in inputs and inputs["x"] == "s":
        assert [i.name for i in other.graph.input] == ["s", "x"]
    found = rw.check(net(), other, by_position=True)
    assert found.equivalent
    assert all(o.metrics["abs"] == 0 for o in found.outputs)


def test_an_input_that_is_an_output_gets_a_name_of_each() -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[2] p) => (float[2] {out}) {{ {body} }}'
    a = parser.parse_model(text.format(out="q", body="q = Identity (p)"))
    b = parser.parse_model(text.format(out="p", body="unused = Identity (p)"))
    assert rw.check(a, b, by_position=True).equivalent


def test_positions_must_fit() -> None:
    one = parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) {y=Neg(x)}')
    with pytest.raises(rw.UsageError, match=r"A has 2 inputs .*, B has 1"):
        rw.check(net(), one, by_position=True)
    swapped = net(("float[2, 4] x, float[4] s", "float[4] s, float[2, 4] x"))
    assert rw.check(net(), swapped).equivalent
    with pytest.raises(rw.UsageError, match=r"'x' has another rank: .2, 4. in A and .4. in B"):
        rw.check(net(), swapped, by_position=True)


def test_outputs_at_one_position_must_fit() -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[2, 3] x) => ({out} y) {{ {body} }}'
    a = parser.parse_model(text.format(out="float[2, 3]", body="y = Neg (x)"))
    for out, body, message in (
        ("float[2]", "y = ReduceMean <axes = [1], keepdims = 0> (x)", "have ranks 2 and 1"),
        ("bool[2, 3]", "y = Less (x, x)", "are float and bool"),
    ):
        other = boundary.renamed(parser.parse_model(text.format(out=out, body=body)), {}, {"y": "end"})
        with pytest.raises(rw.UsageError, match=rf"'y' of A, and 'end', .*{message}"):
            rw.check(a, other, by_position=True)
        assert rw.check(a, boundary.renamed(other, {}, {"end": "y"})).verdict == "different"


def test_types_of_inputs_must_fit() -> None:
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> g ({kind}[2] i, float[3] x) => (float[2] y) {{ y = Gather (x, i) }}'
    )
    wide, narrow, none = (parser.parse_model(text.format(kind=kind)) for kind in ("int64", "int32", "float"))
    assert rw.check(wide, narrow).equivalent  # integers are cast: the same numbers
    with pytest.raises(rw.UsageError, match="'i' is int64 in A and float in B"):
        rw.check(wide, none)


def test_sizes_must_fit() -> None:
    other = net(
        ("float[2, 4] x", "float[3, 4] x"), ("float[2, 4] y", "float[3, 4] y"), ("float[2, 4] z", "float[3, 4] z")
    )
    with pytest.raises(rw.UsageError, match=r"'x' has another shape: .2, 4. in A and .3, 4. in B"):
        rw.check(net(), other)
    free = [(f"float[2, 4] {n}", f"float[N, 4] {n}") for n in "xyz"]
    found = rw.check(net(*free), net())  # A is dynamic, and is fed what B takes
    assert found.equivalent
    assert found.outputs[0].shape == (2, 4)
    assert rw.check(net(), net(*free)).equivalent


# Which outputs.


def test_outputs_that_one_lacks() -> None:
    less = boundary.part(net(), [o for o in net().graph.output if o.name == "y"])
    with pytest.raises(rw.UsageError, match="'z' only in A") as caught:
        rw.check(net(), less)
    assert "--outputs y" in str(caught.value.hint)
    assert rw.check(net(), less, outputs=["y"]).equivalent
    with pytest.raises(rw.UsageError, match="B has no value 'z'"):
        rw.check(net(), less, outputs=["z"])
    with pytest.raises(rw.UsageError, match="no output in common"):
        rw.check(net(), boundary.renamed(net(), {}, {"y": "a", "z": "b"}))


def test_outputs_inside_both() -> None:
    spoiled = net(("Neg", "Abs"), ("y = Mul (t, w)", "y = Add (t, w)"))
    assert rw.check(net(), spoiled).verdict == "different"
    found = rw.check(net(), spoiled, outputs=["t", "h"])
    assert found.equivalent
    assert [(o.name, o.dtype_a) for o in found.outputs] == [("t", "float"), ("h", "float")]
    with pytest.raises(rw.UsageError, match="A has no value 'tt'") as caught:
        rw.check(net(), spoiled, outputs=["tt"])
    assert "'t'" in str(caught.value.hint)


def test_a_value_in_a_body_is_no_output() -> None:
    path = f"{MODELS}/handmade/if_subgraph_minmax_op13.onnx"
    model = onnx.load(path)
    body = next(b for node in model.graph.node for b in boundary.bodies(node))
    with pytest.raises(rw.UsageError, match="inside the body"):
        rw.check(path, path, outputs=[body.node[0].output[0]])


# Types.


@pytest.mark.parametrize("kind", [onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE])
def test_models_of_other_types_are_measured(kind: int) -> None:
    other = in_type(net(), kind)
    for first, second in ((net(), other), (other, net())):
        found = rw.check(first, second, metrics="abs,ulp,cosine")
        assert (found.verdict, found.judged_by) == ("not verified", "nothing")
        assert "--threshold" in str(found.reason)
        assert found.feeds == 3
        for output in found.outputs:
            assert output.error_b is not None
            assert output.bound is not None
            assert output.error_b <= output.bound
    good = rw.check(net(), other, thresholds={"abs": 0.05})
    assert (good.verdict, good.judged_by) == ("equivalent", "thresholds")


def test_a_narrow_type_that_overflows_is_different() -> None:
    big = net(("2.0, 0.25", "2.0, 1e5"), ("t = Tanh (k)", "t = Identity (k)"))
    found = rw.check(big, in_type(big, onnx.TensorProto.DOUBLE), feeds=1)
    assert found.verdict == "not verified"
    half = rw.check(big, in_type(big, onnx.TensorProto.FLOAT16), feeds=1)
    assert half.verdict in ("different", "not verified")
    assert math.isinf(half.outputs[0].metrics["abs"])
    assert rw.check(big, in_type(big, onnx.TensorProto.FLOAT16), thresholds={"abs": 1e30}).verdict == "different"


def test_both_are_fed_numbers_that_both_can_hold() -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g ({kind}[64] x) => ({kind}[64] y) {{ y = Identity (x) }}'
    full, half = (parser.parse_model(text.format(kind=kind)) for kind in ("float", "float16"))
    assert rw.check(full, half).outputs[0].metrics["abs"] == 0


def test_thresholds_decide_by_their_number() -> None:
    a, b = net(), net(("0.25}", "0.2500001}"))
    far = max(o.metrics["abs"] for o in rw.check(a, b).outputs)
    assert far > 0
    assert rw.check(a, b, thresholds={"abs": far}).equivalent
    below = rw.check(a, b, thresholds={"abs": far * 0.999, "cosine": 0.5})
    assert below.verdict == "different"
    assert "abs is" in str(below.reason)
    assert below.thresholds == {"abs": far * 0.999, "cosine": 0.5}


def test_a_threshold_does_not_accept_what_is_never_finite() -> None:
    lost = net(("t = Tanh (k)", "n = Sub (k, k)  [div] t = Div (n, n)"))
    assert rw.check(lost, lost, thresholds={"abs": 1.0}).verdict == "inconclusive"


# Feeds.


@pytest.mark.parametrize("n", [1, 2, 7])
def test_so_many_feeds(n: int) -> None:
    found = rw.check(net(), net(), feeds=n)
    assert found.feeds == n
    assert found.outputs[0].elements == n * 8
    assert found == rw.check(net(), net(), feeds=n)


def test_bad_numbers_of_feeds() -> None:
    with pytest.raises(rw.UsageError, match="not enough"):
        rw.check(net(), net(), feeds=0)
    with pytest.raises(rw.UsageError, match="that of the inputs"):
        rw.check(net(), net(), feeds=2, inputs={"x": np.zeros((2, 4), np.float32), "s": np.zeros(4, np.float32)})


# What cannot be run.


def test_a_custom_operator_is_not_verified_and_what_is_before_it_is() -> None:
    custom = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "mine" : 1]>
        g (float[4] x) => (float[4] y) { t = Tanh (x)  [odd] y = mine.Odd (t) }"""
    )
    found = rw.check(custom, custom)
    assert found.verdict == "not verified"
    assert "mine::Odd (node 'odd')" in str(found.reason)
    assert any("--outputs" in note for note in found.notes)
    assert rw.check(custom, custom, outputs=["t"]).equivalent


# Layer by layer.


def test_the_error_is_born_where_it_was_made() -> None:
    found = rw.check(net(), net(("k = Add", "k = Sub")), layerwise=True).layers
    assert found is not None
    assert found.born == "k"
    states = {layer.name: layer.exceeded for layer in found.layers}
    assert states == {"h": False, "k": True, "t": True, "y": True, "z": True}
    by_name = {layer.name: layer for layer in found.layers}
    assert by_name["k"].inputs == ("h",)
    assert by_name["t"].inputs == ("k",)
    assert by_name["t"].growth is not None
    good = rw.check(net(), net(), layerwise=True).layers
    assert good is not None
    assert good.born is None
    assert not any(layer.exceeded for layer in good.layers)


def test_a_name_for_different_values_is_not_blamed() -> None:
    """Both compute tanh(h + s), B with a `k` of the other sign."""
    other = net(("k = Add (h, s)", "n = Add (h, s)  [turn] k = Neg (n)"), ("t = Tanh (k)", "u = Neg (k) t = Tanh (u)"))
    found = rw.check(net(), other, layerwise=True)
    assert found.equivalent
    assert found.layers is not None
    assert [layer.name for layer in found.layers.layers if layer.exceeded] == ["k"]
    assert found.layers.born is None
    assert "but no output that follows from them is" in born(found.layers)
    wrong = rw.check(net(), net(("k = Add", "k = Sub")), layerwise=True)
    assert wrong.layers is not None
    assert "born at 'k'" in born(wrong.layers)


def test_values_that_only_one_has_are_passed_over() -> None:
    split = net(("k = Add (h, s)", "u = Neg (s)  [sub] k = Sub (h, u)"))
    found = rw.check(net(), split, layerwise=True).layers
    assert found is not None
    assert (found.only_a, found.only_b, found.born) == (0, 1, None)


def test_layers_of_other_types() -> None:
    found = rw.check(net(), in_type(net(), onnx.TensorProto.FLOAT16), layerwise=True).layers
    assert found is not None
    assert found.born is None
    assert {(layer.dtype_a, layer.dtype_b) for layer in found.layers} == {("float", "float16")}


def compared(a: str, b: str, batch_bytes: int) -> layerwise.Layers:
    first, second = load(a), load(b)
    aligned = aligning.align(first, second)
    rng = np.random.default_rng(0)
    values: dict[str, np.ndarray] = {}
    for value in aligned.a.graph.input:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        whole = value.type.tensor_type.elem_type == onnx.TensorProto.INT64
        values[value.name] = rng.integers(0, 2, shape) if whole else rng.standard_normal(shape).astype(np.float32)
    return layerwise.compare_layers(aligned, first, second, Feed(values, "drawn"), Tolerance(), batch_bytes=batch_bytes)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("exported/bert_legacy_op12.onnx", "exported/bert_legacy_op17.onnx"),
        ("exported/hybrid_legacy_op12_keep_bn.onnx", "exported/hybrid_legacy_op17_keep_bn.onnx"),
        ("handmade/outer_value_used_in_subgraph_op13.onnx", "handmade/outer_value_used_in_subgraph_op13.onnx"),
        ("handmade/local_function_minmax_op18.onnx", "handmade/local_function_minmax_op18.onnx"),
    ],
)
def test_batches_make_no_difference(a: str, b: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches, of which each begins where the last one ended, give what one large batch gives."""
    one = compared(f"{MODELS}/{a}", f"{MODELS}/{b}", 1 << 40)
    monkeypatch.setattr(layerwise, "FIRST_BATCH", 1)
    many = compared(f"{MODELS}/{a}", f"{MODELS}/{b}", 1)
    assert one.layers
    assert not one.skipped
    assert [layer.name for layer in one.layers] == [layer.name for layer in many.layers]
    for left, right in zip(one.layers, many.layers, strict=True):
        assert left == right
    assert one.born is None


def test_a_value_that_b_needs_earlier_than_a(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layerwise, "FIRST_BATCH", 1)
    monkeypatch.setattr(layerwise, "BATCH_VALUES", 1)
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[4] x) => (float[4] p, float[4] q) {{ {body} }}'
    a = parser.parse_model(text.format(body="p = Relu (x)  q = Neg (x)"))
    b = parser.parse_model(text.format(body="q = Neg (x)  n = Neg (q)  p = Relu (n)"))
    found = rw.check(a, b, layerwise=True).layers
    assert found is not None
    assert [(layer.name, layer.exceeded) for layer in found.layers] == [("p", False), ("q", False)]
    assert not found.skipped


@pytest.mark.parametrize("order", [("a", "b", "c", "d", "e"), ("e", "a", "c", "b", "d"), ("b", "c", "d", "a", "e")])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_node_runs_once_in_whatever_order_values_are_asked_for(order: tuple[str, ...], size: int) -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[4] x, float[4] s) => (float[4] e)
        { a = Neg (x)  b = Add (a, s)  c = Mul (a, x)  u = Exp (s)  d = Mul (b, u)  e = Add (c, d) }"""
    )
    ran: list[str] = []

    def evaluate(part: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        ran.extend(node.output[0] for node in part.graph.node)
        return Reference(part)(feeds)

    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal(4), "s": rng.standard_normal(4)}
    walk = Walk(model, feeds, order, {}, evaluate)
    found: dict[str, np.ndarray] = {}
    for start in range(0, len(order), size):
        found |= walk(order[start : start + size])
    assert sorted(ran) == ["a", "b", "c", "d", "e", "u"]
    for name, value in found.items():
        (direct,) = Reference(boundary.part(model, [onnx.ValueInfoProto(name=name)]))(feeds)
        assert np.array_equal(value, direct)


def test_a_long_chain_is_walked_once() -> None:
    text = "\n".join(f"v{i} = {'Tanh' if i % 3 else 'Neg'} (v{i - 1})" for i in range(1, 1500))
    source = f'<ir_version: 8, opset_import: ["" : 17]> g (float[8] v0) => (float[8] v1499) {{ {text} }}'
    a = parser.parse_model(source)
    b = parser.parse_model(source.replace("v1200 = Neg", "v1200 = Abs"))
    found = rw.check(a, b, layerwise=True, feeds=1).layers
    assert found is not None
    assert len(found.layers) == 1499
    assert found.born == "v1200"


def test_sequences_are_skipped_and_the_rest_is_compared() -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[4] x) => (float[4] y) {
          t = Tanh (x)  q = SequenceConstruct (t, x)  i = Constant <value_int: int = 0> ()
          e = SequenceAt (q, i)  y = Neg (e)
        }"""
    )
    found = rw.check(model, model, layerwise=True).layers
    assert found is not None
    assert [layer.name for layer in found.layers] == ["t", "e", "y"]
    assert set(found.skipped) == {"q"}


def test_what_has_no_reference_is_compared_directly() -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        g (float[2, 4] x) => (float[2, 4] y) { t = Tanh (x)  u = com.microsoft.FastGelu (t)  y = Neg (u) }"""
    )
    found = rw.check(model, model, layerwise=True)
    assert found.layers is not None
    known = {layer.name: layer.error_a is not None for layer in found.layers.layers}
    assert known["t"]
    if not known["y"]:
        assert found.verdict == "not verified"
        assert not known["u"]
        assert found.outputs[0].histograms.keys() == {"B - A"}
