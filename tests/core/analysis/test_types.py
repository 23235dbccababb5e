"""Types and shapes that a model does not state."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_rewrite.analysis.types import complete_types, is_incomplete
from onnx_rewrite.model import INFERRED_KEY
from onnx_rewrite.rewriter.names import all_graphs

MODELS = Path(__file__).parents[2] / "models" / "exported"
FLOAT = ir.TensorType(ir.DataType.FLOAT)


def text(source: str, opset: int = 17) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": {opset}, "my": 1]> {source}'))


def values(model: ir.Model) -> dict[str, ir.Value]:
    return {v.name: v for g in all_graphs(model) for n in g for v in n.outputs if v.name}


def shape(value: ir.Value) -> list[int | str | None] | None:
    return None if value.shape is None else [d if isinstance(d, int) else d.value for d in value.shape]


def test_a_chain_is_filled_in_and_marked() -> None:
    model = text("g (float[N,3] x) => (float[N,3] y) { a = Relu(x)  b = Cast<to = 7>(a)  y = Relu(a) }")
    assert complete_types(model) == 2
    found = values(model)
    assert (found["a"].type, shape(found["a"])) == (FLOAT, ["N", 3])
    assert (found["b"].dtype, shape(found["b"])) == (ir.DataType.INT64, ["N", 3])
    assert [n for n, v in found.items() if v.meta.get(INFERRED_KEY)] == ["a", "b"]
    assert complete_types(model) == 0


def test_what_is_stated_stays() -> None:
    # The statements are weaker than what inference finds, or wrong: neither is for us to change.
    model = text("""
g (float[2,3] x) => (float[2,3] y) <float[A,B] a, int64[7] b, float c>
{ a = Relu(x)  b = Relu(a)  c = Relu(x)  y = Relu(x) }
""")
    found = values(model)
    found["c"].shape = None
    assert complete_types(model) == 1
    assert (shape(found["a"]), found["b"].dtype, shape(found["b"])) == (["A", "B"], ir.DataType.INT64, [7])
    assert shape(found["c"]) == [2, 3]
    assert [n for n, v in found.items() if v.meta.get(INFERRED_KEY)] == ["c"]


def test_it_goes_on_behind_an_operator_that_nobody_knows() -> None:
    model = text("""
g (float[2,3] x) => (float[2,3] y)
{ a = my.Thing(x)  b = Relu(a)  c = Shape(a)  d = Relu(x)  e = Add(d, b)  y = Identity(x) }
""")
    complete_types(model)
    found = values(model)
    assert is_incomplete(found["a"])
    assert is_incomplete(found["b"])
    assert found["c"].dtype == ir.DataType.INT64
    assert shape(found["d"]) == [2, 3]


def test_an_invalid_node_costs_only_itself() -> None:
    model = text("g (float[2,3] x, float[4] w) => (float[2,3] y) { a = MatMul(x, w)  b = Neg(x)  y = Relu(b) }")
    complete_types(model)
    assert shape(values(model)["b"]) == [2, 3]


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18])
def test_computed_shapes_are_followed_at_every_opset(opset: int) -> None:
    unsqueeze = "Unsqueeze <axes = [0]> (n)" if opset < 13 else "Unsqueeze (n, zero)"
    model = text(
        f"""
g (float[2,3,4] x) => (float[2,12] y)
<int64 i = {{0}}, int64[1] zero = {{0}}, int64[1] rest = {{-1}}>
{{ s = Shape(x)  n = Gather <axis = 0> (s, i)  u = {unsqueeze}  c = Concat <axis = 0> (u, rest)
   r = Reshape(x, c)  y = Relu(r) }}
""",
        opset,
    )
    complete_types(model)
    assert shape(values(model)["r"]) == [2, 12]


def test_old_operators_are_inferred_where_the_skeleton_is_newer() -> None:
    model = text(
        """
g (float[2,3,4,4] x) => (float[1] y) <float[4] s = {1, 1, 2, 2}>
{ u = Upsample(x, s)  p = Pad <pads = [0,0,1,1,0,0,1,1]> (x)  l = Slice <starts = [1], ends = [2], axes = [1]> (x)
  k, i = TopK <k = 2, axis = 3> (x)  c = Clip <min = 0.0> (p)  d = Dropout <ratio = 0.5> (l)
  a, b = Split <axis = 3, split = [1, 3]> (x)  r = ReduceSum <axes = [1, 2], keepdims = 0> (x)  y = Identity(s) }
""",
        9,
    )
    complete_types(model)
    found = {n: shape(v) for n, v in values(model).items()}
    assert found["u"] == [2, 3, 8, 8]
    assert found["p"] == found["c"] == [2, 3, 6, 6]
    assert found["l"] == found["d"] == [2, 1, 4, 4]
    assert found["k"] == found["i"] == [2, 3, 4, 2]
    assert (found["a"], found["b"], found["r"]) == ([2, 3, 4, 1], [2, 3, 4, 3], [2, 4])


def test_both_branches_of_an_if_are_covered() -> None:
    model = text("""
g (float[N,3] x, bool c) => (float[N,3] y)
{
  z = Relu(x)
  y = If (c) <then_branch = t () => (a) { t1 = Sqrt(z)  a = Neg(t1) },
              else_branch = e () => (b) { t2 = Abs(z)  other = my.Thing(t2)  b = Neg(t2) }>
}
""")
    complete_types(model)
    found = values(model)
    assert [shape(found[n]) for n in ("t1", "a", "t2", "b")] == [["N", 3]] * 4


def test_a_loop_body_is_covered_and_trusts_only_what_holds_in_every_round() -> None:
    model = text("""
g (float[N,3] x, bool c, int64 n) => (float[K,3] y)
{
  y0, all = Loop (n, c, x) <body = l (int64 i, bool go, s) => (bool go2, s2, o)
    { go2 = Identity(go)  t = Sqrt(s)  s2 = Concat <axis = 0> (t, x)  o = Relu(x) }>
  y = Relu(y0)
}
""")
    complete_types(model)
    found = values(model)
    assert found["t"].type == FLOAT
    assert shape(found["t"]) is None  # the state grows
    assert shape(found["o"]) == ["N", 3]


def test_names_that_scopes_share_are_told_apart() -> None:
    model = text("""
g (float[2,3] x, bool c) => (float[2] y)
<int64[1] one = {1}>
{
  y = If (c) <then_branch = t () => (r) { v = Neg(x)  r = ReduceSum <keepdims = 0> (v, one) },
              else_branch = e () => (q) { w = ReduceSum <keepdims = 0> (x, one)  q = Neg(w) }>
}
""")
    then, other = model.graph.subgraphs()
    reduced = next(iter(other)).outputs[0]
    reduced.name = "v"  # [2] here, [2, 3] in the other branch
    complete_types(model)
    assert shape(next(iter(then)).outputs[0]) == [2, 3]
    assert shape(reduced) == [2]


FUNCTION = """
<domain: "my", opset_import: ["": 17]> F <to, axis: int = 1> (v, w) => (r)
{ a = Add(v, w)  b = Cast <to: int = @to> (a)  c = Relu(b)  r = Flatten <axis: int = @axis> (c) }
"""


def test_a_function_is_typed_by_calls_that_agree() -> None:
    model = text(
        "g (float[2,3,4] x, float[5,3,4] z) => (p, q) { p = my.F <to = 1> (x, x)  q = my.F <to = 1> (z, z) }" + FUNCTION
    )
    complete_types(model)
    function = next(iter(model.functions.values()))
    assert [shape(v) for v in function.inputs] == [[None, 3, 4]] * 2
    found = values(model)
    assert (shape(found["a"]) or [])[1:] == (shape(found["c"]) or [])[1:] == [3, 4]
    assert found["b"].dtype == ir.DataType.FLOAT
    assert len(shape(found["r"]) or []) == 2
    assert shape(found["p"]) == [2, 12]


@pytest.mark.parametrize(
    ("calls", "known"),
    [
        ("p = my.F <to = 1> (x, x)  q = my.F <to = 6> (x, x)", "a"),  # the dtype that b is cast to
        ("p = my.F <to = 1> (x, x)  q = my.F <to = 1> (i, i)", "bcr"),  # the dtype of the inputs
        ("p = my.F <to = 1> (x, x)  q = my.F <to = 1> (f, f)", "bcr"),  # their rank
        ("p = Neg(x)  q = Neg(x)", ""),  # nobody calls it
    ],
)
def test_a_function_whose_calls_differ_stays_open_where_they_do(calls: str, known: str) -> None:
    model = text(f"g (float[2,3,4] x, int64[2,3,4] i, float[7] f) => (p, q) {{ {calls} }}" + FUNCTION)
    complete_types(model)
    function = next(iter(model.functions.values()))
    typed = {v.name for n in function for v in n.outputs if v.type is not None}
    assert typed == set(known)


def test_functions_in_functions_are_typed_from_the_outside_in() -> None:
    model = text("""
g (float[2,3] x) => (float[2,3] y) { y = my.Outer(x) }
<domain: "my", opset_import: ["": 17]> Inner (v) => (r) { s = Neg(v)  r = Relu(s) }
<domain: "my", opset_import: ["": 17, "my": 1]> Outer (v) => (r) { t = Abs(v)  r = my.Inner(t) }
""")
    complete_types(model)
    found = values(model)
    assert shape(found["s"]) == shape(found["t"]) == [2, 3]


def test_invented_symbols_of_two_scopes_are_not_equal() -> None:
    body = "{ m = NonZero(x)  r = Transpose(m) }"
    model = text(f"""
g (float[2,3] x, float[4] z, bool c) => (y, w)
{{ y = my.A(x)  w = my.B(z)  n = NonZero(x) }}
<domain: "my", opset_import: ["": 17]> A (x) => (r) {body}
<domain: "my", opset_import: ["": 17]> B (x) => (r) {body}
""")
    complete_types(model)
    graphs = [model.graph, *(f.graph for f in model.functions.values())]
    symbols = [
        {d.value for n in g for v in n.outputs for d in v.shape or () if isinstance(d, ir.SymbolicDim) and d.value}
        for g in graphs
    ]
    assert all(symbols)
    assert not symbols[1] & symbols[2]
    before = {n: shape(v) for n, v in values(model).items()}
    node = ir.node("NonZero", [model.graph.inputs[1]])
    node.outputs[0].name = "later"
    model.graph.append(node)
    assert complete_types(model) == 1
    assert {n: shape(v) for n, v in values(model).items() if n != "later"} == before
    assert shape(node.outputs[0])[1] not in set().union(*symbols)  # type: ignore[index]


def test_weights_are_neither_read_nor_moved() -> None:
    class Heavy(ir.LazyTensor):
        def tobytes(self) -> bytes:
            raise AssertionError("a weight was read")

    def refuse() -> ir.TensorProtocol:
        raise AssertionError("a weight was read")

    weight = ir.Value(
        name="w", type=FLOAT, shape=ir.Shape([4096, 4096]),
        const_value=Heavy(refuse, dtype=ir.DataType.FLOAT, shape=ir.Shape([4096, 4096])),
    )  # fmt: skip
    x = ir.Value(name="x", type=FLOAT, shape=ir.Shape([2, 4096]))
    node = ir.node("MatMul", [x, weight])
    node.outputs[0].name = "y"
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=[weight], opset_imports={"": 17})
    assert complete_types(ir.Model(graph, ir_version=8)) == 1
    assert shape(node.outputs[0]) == [2, 4096]
    assert list(graph.initializers) == ["w"]
    assert graph.inputs == [x]


@pytest.mark.parametrize("name", ["swin_legacy_op12", "bert_legacy_op12_dynamic", "hybrid_legacy_op12_keep_bn"])
def test_exported_models_get_back_what_is_taken_from_them(name: str) -> None:
    proto = onnx.load(MODELS / f"{name}.onnx")
    full = ir.from_proto(proto)
    del proto.graph.value_info[:]
    bare = ir.from_proto(proto)
    assert complete_types(bare) > 0
    assert not any(is_incomplete(v) for v in values(bare).values())
    stated = values(full)
    for value_name, value in values(bare).items():
        before = shape(stated[value_name])
        if before is None:
            continue
        after = shape(value) or []
        assert (value.dtype, len(after)) == (stated[value_name].dtype, len(before))
        assert all(a == b for a, b in zip(after, before, strict=True) if isinstance(a, int) and isinstance(b, int))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["Relu", "Transpose", "Shape", "Unknown", "NonZero", "If"]), max_size=8), st.data())
def test_inference_is_one_step_and_agrees_with_onnx(operators: list[str], data: st.DataObject) -> None:
    lines, names = [], ["x"]
    for index, op_type in enumerate(operators):
        source = data.draw(st.sampled_from(names))
        name = f"v{index}"
        if op_type == "If":
            lines.append(
                f"{name} = If (c) <then_branch = t{index} () => (a{index}) {{ a{index} = Neg({source}) }}, "
                f"else_branch = e{index} () => (b{index}) {{ b{index} = Neg({source}) }}>"
            )
        else:
            lines.append(f"{name} = {'my.' if op_type == 'Unknown' else ''}{op_type}({source})")
        names.append(name)
    source = f"g (float[2,N] x, bool c) => (float[2,N] y) {{ {' '.join(lines)} y = Relu(x) }}"
    model = text(source)
    complete_types(model)
    assert complete_types(model) == 0
    reference = onnx.shape_inference.infer_shapes(ir.to_proto(text(source)), data_prop=True)
    known = {v.name: v.type.tensor_type for v in reference.graph.value_info}
    for node in model.graph:
        for value in node.outputs:
            if value.name in known and value.name != "y":
                assert value.dtype is not None
                assert value.dtype.value == known[value.name].elem_type
                if known[value.name].HasField("shape"):
                    assert len(shape(value) or []) == len(known[value.name].shape.dim)


AXES = {
    "a Constant of integers": "a = Constant <value_ints = [-1]> ()",
    "an Identity of an initializer": "a = Identity(one)",
    "an Identity of a Constant": "b = Constant <value = int64[1] {-1}> ()  c = Identity(b)  a = Identity(c)",
    "an Identity of a Constant of integers": "b = Constant <value_ints = [-1]> ()  a = Identity(b)",
}


@pytest.mark.parametrize("spelling", AXES)
@pytest.mark.parametrize("inside", [False, True])
def test_axes_are_seen_in_every_spelling(spelling: str, inside: bool) -> None:
    """In the graph itself, and captured by a body: onnx's inference sees no axes but those written as a tensor."""
    reduction = "m = ReduceMean <keepdims = 0> (x, a)"
    body = f"y = If(t) <then_branch = p () => (float[2] q) {{ {reduction}  q = Neg(m) }}, else_branch = o () => (z)"
    body += " { z = Neg(x) }>"
    model = text(
        f"g (float[2,3] x, bool t) => (float[?] y) <int64[1] one = {{-1}}> {{ {AXES[spelling]} "
        f"{body if inside else reduction + '  y = Neg(m)'} }}",
        18,
    )
    complete_types(model)
    graph = (
        next(iter(n for n in model.graph if n.op_type == "If")).attributes["then_branch"].as_graph()
        if inside
        else model.graph
    )
    mean = next(n for n in graph if n.op_type == "ReduceMean").outputs[0]
    assert shape(mean) == [2]


def test_a_shape_around_a_body_is_seen_in_it() -> None:
    """onnx's inference looks for the elements of a constant in the graph of the node only."""
    model = text("""
g (float[2,3] x, bool t) => (float[?] y) <int64[3] s = {2, 1, 3}>
{ y = If(t) <then_branch = p () => (float[?] q) { r = Reshape(x, s)  q = Neg(r) },
             else_branch = o () => (float[?] z) { z = Neg(x) }> }
""")
    complete_types(model)
    choice = next(n for n in model.graph if n.op_type == "If")
    assert shape(next(iter(choice.attributes["then_branch"].as_graph())).outputs[0]) == [2, 1, 3]


def test_axes_of_an_older_opset_are_seen_in_a_body() -> None:
    """They are written as inputs for the inference of the whole, and its rank decides the size of what is reshaped."""
    model = text(
        """
g (float[2,3] x, bool t) => (float[?] y) <int64[2] s = {-1, 1}>
{ y = If(t) <then_branch = p () => (float[?] q) { m = ReduceSum <axes = [0, 1], keepdims = 0> (x)  r = Reshape(m, s)
                                                  q = Neg(r) },
             else_branch = o () => (float[?] z) { z = Neg(x) }> }
""",
        12,
    )
    complete_types(model)
    then = next(n for n in model.graph if n.op_type == "If").attributes["then_branch"].as_graph()
    assert [shape(node.outputs[0]) for node in list(then)[:2]] == [[], [1, 1]]
