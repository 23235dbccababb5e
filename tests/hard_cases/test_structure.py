"""Structure: names, scopes, order and cycles survive a rewrite, whoever makes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest
from onnx import numpy_helper

import onnx_rewrite as rw
from onnx_rewrite.match import Match
from onnx_rewrite.pattern import op
from onnx_rewrite.registry import Pass
from onnx_rewrite.rewriter.circles import CircularRewriteError
from tests.passes import building
from tests.passes.building import f32, ops

from .building import (
    agree,
    assert_same,
    body,
    drawn,
    fires,
    initializers,
    is_judged_wrong,
    is_left,
)

LO, HI = np.float32(-1), np.float32(2)
BOUND = "a = Max(x, lo) y = Min(a, hi)"
TYPE = "float[2,5]"


def model(
    text: str,
    constants: dict[str, Any] | None = None,
    *,
    inputs: str = f"{TYPE} x",
    outputs: str = f"{TYPE} y",
    opset: int = 15,
    **options: Any,
) -> onnx.ModelProto:
    """A model of `text`, in which lo and hi are -1 and 2 unless it says otherwise."""
    given = {"lo": LO, "hi": HI} | (constants or {})
    words = text.replace("(", " ").replace(")", " ").replace(",", " ").split()
    used = {k: v for k, v in given.items() if k in words or k in (constants or {})}
    return building.model(text, used, inputs=inputs, outputs=outputs, opset=opset, **options)


def branches(then: str, other: str) -> str:
    return f"""If(flag) <then_branch = t () => ({TYPE} p) {{ {then} }},
                         else_branch = e () => ({TYPE} q) {{ {other} }}>"""


def loop(step: str) -> str:
    """The body of a Loop of two turns, whose scan output is s."""
    return f"<body = b (int64 i, bool c) => (bool c2, {TYPE} s) {{ c2 = Identity(c) {step} }}>"


FLAG = f"{TYPE} x, bool flag"
TURNS = {"turns": np.int64(2), "go": np.bool_(True)}

# -- the three passes, each with a value in the middle

LN = (
    "m = ReduceMean<axes=[-1]>(x) d = Sub(x, m) s0 = Pow(d, two) v = ReduceMean<axes=[-1]>(s0) e = Add(v, eps) "
    "r = Sqrt(e) y = Div(d, r)"
)
CONV_BN = "a = Conv(x, w, b) y = BatchNormalization(a, g, be, mu, va)"
PASSES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "clip": (BOUND, {"lo": LO, "hi": HI}, TYPE, "a"),
    "ln": (LN, {"two": np.float32(2), "eps": np.float32(1e-5)}, TYPE, "d"),
    "bn": (
        CONV_BN,
        {"w": f32(5, 5, 1), "b": f32(5), "g": f32(5), "be": f32(5), "mu": f32(5), "va": np.ones(5, np.float32)},
        "float[2,5,5]",
        "a",
    ),
}


def of_pass(
    name: str, more: str = "", extra: str = "", *, flag: bool = False, constants: dict[str, Any] | None = None
) -> onnx.ModelProto:
    """What one of the three passes fuses, and what else is said."""
    text, given, kind, middle = PASSES[name]
    place = {"kind": kind, "middle": middle}
    return building.model(
        f"{text} {more.format(**place)}",
        given | (constants or {}) | (TURNS if "turns" in more else {}),
        inputs=f"{kind} x" + (", bool flag" if flag else ""),
        outputs=f"{kind} y{extra.format(**place)}",
        opset=17,
    )


CAPTURED = {
    "If": (
        """z = If(flag) <then_branch = t () => ({kind} p) {{ p = Neg({middle}) }},
                         else_branch = f () => ({kind} q) {{ q = Neg(x) }}>""",
        ", {kind} z",
    ),
    "Loop": (
        """z = Loop(turns, go) <body = f (int64 i, bool c) => (bool c2, {kind} s)
                                       {{ c2 = Identity(c) s = Neg({middle}) }}>""",
        ", {kind} z",
    ),
}


@pytest.mark.parametrize("name", PASSES)
def test_interior_value_that_is_a_graph_output(name: str) -> None:
    middle = PASSES[name][3]
    is_left(of_pass(name, extra=", {kind} {middle}"), name, f"value '{middle}' is an output of the graph")
    fires(of_pass(name), name)


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("where", CAPTURED)
def test_interior_value_that_a_body_captures(name: str, where: str) -> None:
    more, extra = CAPTURED[where]
    if where == "Loop":
        extra = f", {PASSES[name][2].replace('[', '[2,')} z"
    made = of_pass(name, more, extra, flag=where == "If")
    is_left(made, name, f"value '{PASSES[name][3]}' is also used by Neg")
    twin = of_pass(name, more.replace("Neg({middle})", "Neg(y)"), extra, flag=where == "If")
    assert ops(fires(twin, name))[-1] == where


class Negations(Pass):
    """Neg(Neg(x)) is x."""

    name = "negations"

    def pattern(self, x: Any) -> Any:
        return op.Neg(op.Neg(x))

    def replace(self, m: Match) -> Any:
        return m.x


class FirstNegation(Pass):
    """Neg(Neg(x)) is Neg(x): wrong, and it would delete the output if it were believed."""

    name = "first"

    def pattern(self, x: Any) -> Any:
        return op.Neg(op.Neg(x).named("inner"))

    def replace(self, m: Match) -> Any:
        return m.inner.outputs[0]


def test_output_deleted_or_renamed() -> None:
    """Every output keeps its name and its place, also where two of them are one value now."""
    for name in PASSES:
        proto = fires(of_pass(name), name)
        assert proto.graph.node[-1].output == ["y"]
    text = "a = Neg(x) y = Neg(a) b = Neg(x) z = Neg(b)"
    both = model(text, outputs=f"{TYPE} z, {TYPE} y")
    proto = fires(both, Negations(), 2)
    assert [o.name for o in proto.graph.output] == ["z", "y"]
    assert ops(proto) == ["Identity", "Identity"]
    inner = model("a = Neg(x) y = Neg(a)", outputs=f"{TYPE} y, {TYPE} a")
    is_left(inner, Negations(), "value 'a' is an output of the graph")
    is_judged_wrong(model("a = Neg(x) y = Neg(a)"), FirstNegation())


class Elide(Pass):
    """Identity(x) is x."""

    name = "elide"

    def pattern(self, x: Any) -> Any:
        return op.Identity(x)

    def replace(self, m: Match) -> Any:
        return m.x


def test_identity_between_an_input_and_an_output() -> None:
    """It is what gives the output its name: whoever removes it, it is there."""
    made = model("y = Identity(x)")
    for one in ("clip", "ln", "bn", Negations()):
        is_left(made, one)
    weight = {"k": f32(2, 5)}
    for text, constants, outputs in (
        ("y = Identity(x)", {}, f"{TYPE} y"),
        ("y = Identity(k)", weight, f"{TYPE} y"),
        ("a = Abs(x) y = Identity(a) z = Neg(y)", {}, f"{TYPE} y, {TYPE} z"),
    ):
        is_left(model(text, constants, outputs=outputs), Elide(), "gives output 'y' of the graph its name")
    captured = "z = " + branches("p = Identity(x)", "q = Neg(x)")
    is_left(model(captured, inputs=FLAG, outputs=f"{TYPE} z"), Elide(), "gives output 'p' of the graph its name")
    # Inside the graph it is nobody's name.
    assert ops(fires(model("i = Identity(x) y = Neg(i)"), Elide())) == ["Neg"]
    assert ops(fires(model("a = Neg(x) y = Neg(a)"), Negations())) == ["Identity"]
    assert ops(fires(model("i = Identity(x) a = Max(i, lo) y = Min(a, hi)"), "clip"))[-1] == "Clip"


def test_branch_that_returns_an_initializer() -> None:
    """A body of no node at all: its output is its own initializer, or an Identity of an outer one."""
    made = model(f"{BOUND} z = {branches('p = Neg(y)', 'q = Abs(y)')}", inputs=FLAG, outputs=f"{TYPE} y, {TYPE} z")
    empty = body(made, "If", 1)
    del empty.node[:]
    empty.initializer.append(numpy_helper.from_array(f32(2, 5), "q"))
    onnx.checker.check_model(made, full_check=True)
    proto = fires(made, "clip")
    assert ops(proto) == ["Clip", "If"]
    assert body(proto, "If", 1) == empty
    # The bound itself is what a branch returns, and is a constant of the match in the other.
    text = f"z = {branches('a = Max(x, k) p = Min(a, hi)', 'q = Identity(k)')}"
    outer = model(text, {"k": np.full((2, 5), -1, np.float32), "hi": HI}, inputs=FLAG, outputs=f"{TYPE} z")
    proto = fires(outer, "clip")
    assert ops(body(proto, "If")) == ["Clip"]
    assert ops(body(proto, "If", 1)) == ["Identity"]
    assert "k" in initializers(proto)
    mine = model(
        "z = " + branches("a = Neg(k) p = Neg(a)", "q = Neg(x)"), {"k": f32(2, 5)}, inputs=FLAG, outputs=f"{TYPE} z"
    )
    fires(mine, Negations())


class Fork(Pass):
    """A Relu and the sum behind it, both of them outputs."""

    name = "fork"

    def pattern(self, x: Any, y: Any) -> Any:
        r = op.Relu(x)
        return r, op.Add(r, y)

    def replace(self, m: Match) -> Any:
        r = op.Max(m.x, 0.0)
        return r, op.Sum(r, m.y)


FORKED = f"{TYPE} y, {TYPE} a"


@pytest.mark.parametrize(
    "between",
    [
        "b = Neg({})",
        "b0 = Neg({}) b = Abs(b0)",
        "b = " + branches("p = Neg({})", "q = Neg(x)").replace("{ ", "{{ ").replace(" }", " }}"),
    ],
    ids=["Neg", "two nodes", "If"],
)
def test_match_that_is_not_convex(between: str) -> None:
    """Relu -> Add(a, Neg(a)): one node for both would need what it makes."""
    text = f"a = Relu(x) {between} y = Add(a, b)"
    made = model(text.format("a"), inputs=FLAG, outputs=FORKED)
    is_left(made, Fork(), "which needs the match's own value 'a'")
    assert "Max" in ops(fires(model(text.format("x"), inputs=FLAG, outputs=FORKED), Fork()))


class Pair(Pass):
    """Neg(x) and Mul(x, y), wherever the second one is."""

    name = "pair"

    def pattern(self, x: Any, y: Any) -> Any:
        return op.Neg(x), op.Mul(x, y)

    def replace(self, m: Match) -> Any:
        return op.Mul(m.x, -1.0), op.Div(m.x, op.Reciprocal(m.y))


class Riap(Pair):
    """The same, anchored at the other one."""

    name = "riap"

    def pattern(self, x: Any, y: Any) -> Any:
        return op.Mul(x, y), op.Neg(x)

    def replace(self, m: Match) -> Any:
        return op.Div(m.x, op.Reciprocal(m.y)), op.Mul(m.x, -1.0)


@pytest.mark.parametrize("one", [Pair, Riap])
def test_insertion_of_several_outputs_keeps_the_order(one: type[Pass]) -> None:
    """What reads the first output stands before what the second one needs."""
    text = "n = Neg(x) u = Abs(n) r = Exp(z) y = Mul(x, r)"
    made = model(text, inputs=f"{TYPE} x, {TYPE} z", outputs=f"{TYPE} y, {TYPE} u")
    proto = fires(made, one())
    assert {"Abs", "Exp", "Div", "Mul"} <= set(ops(proto))
    circle = model(text.replace("Exp(z)", "Exp(u)"), inputs=f"{TYPE} x, {TYPE} z", outputs=f"{TYPE} y, {TYPE} u")
    is_left(circle, one(), "which needs the match's own value")


class TwoRelus(Pass):
    """The sum of two Relus, of two values."""

    name = "two"

    def pattern(self, x: Any, y: Any) -> Any:
        return op.Add(op.Relu(x), op.Relu(y))

    def replace(self, m: Match) -> Any:
        return op.Sum(op.Max(m.x, 0.0), op.Max(m.y, 0.0))


class Twice(Pass):
    """The same Relu twice, as one node or as equal ones."""

    name = "twice"

    def pattern(self, x: Any) -> Any:
        r = op.Relu(x)
        return op.Add(r, r)

    def replace(self, m: Match) -> Any:
        return op.Mul(op.Max(m.x, 0.0), 2.0)


def test_two_pattern_nodes_are_not_one_graph_node() -> None:
    is_left(model("r = Relu(x) y = Add(r, r)"), TwoRelus())
    fires(model("r = Relu(x) s = Relu(z) y = Add(r, s)", inputs=f"{TYPE} x, {TYPE} z"), TwoRelus())
    fires(model("r = Relu(x) s = Relu(x) y = Add(r, s)"), TwoRelus())
    fires(model("r = Relu(x) y = Add(r, r)"), Twice())
    fires(model("r = Relu(x) s = Relu(x) y = Add(r, s)"), Twice())
    is_left(model("r = Relu(x) s = Relu(z) y = Add(r, s)", inputs=f"{TYPE} x, {TYPE} z"), Twice())


@pytest.mark.parametrize("name", PASSES)
def test_name_of_a_new_initializer_is_taken(name: str) -> None:
    """Whatever names a run makes up are taken in the next: by a value, by an initializer, in a body."""
    made = of_pass(name)
    proto = fires(made, name)
    before = set(initializers(made)) | {o for n in made.graph.node for o in n.output}
    new = (set(initializers(proto)) | {o for n in proto.graph.node for o in n.output}) - before
    assert new
    for taken in sorted(new):
        value = of_pass(name, f"{taken} = Neg(x) z = Abs({taken})", ", {kind} z")
        after = fires(value, name)
        assert [n for n in after.graph.node if taken in n.output] == [n for n in value.graph.node if taken in n.output]
        weight = of_pass(name, f"z = Abs({taken})", ", float[3] z", constants={taken: f32(3)})
        assert (initializers(fires(weight, name))[taken] == initializers(weight)[taken]).all()
        inside = f"z = If(flag) <then_branch = t () => ({{kind}} p) {{{{ {taken} = Neg(x) p = Abs({taken}) }}}}, "
        inside += "else_branch = f () => ({kind} q) {{ q = Neg(x) }}>"
        captured = of_pass(name, inside, ", {kind} z", flag=True)
        assert body(fires(captured, name), "If") == body(captured, "If")


class Diamond(Pass):
    """Exp(x) times its own negative, plus Exp(x)."""

    name = "diamond"

    def pattern(self, x: Any) -> Any:
        top = op.Exp(x)
        return op.Add(op.Neg(top), op.Abs(top))

    def replace(self, m: Match) -> Any:
        top = op.Exp(m.x)
        return op.Sub(op.Abs(top), top)


@pytest.mark.parametrize("order", [("Neg", "Abs"), ("Abs", "Neg")])
def test_matching_a_diamond(order: tuple[str, str]) -> None:
    text = f"t = Exp(x) l = {order[0]}(t) r = {order[1]}({{}}) y = Add(l, r)"
    fires(model(text.format("t")), Diamond())
    fires(model("t2 = Exp(x) " + text.format("t2")), Diamond())
    is_left(model("t2 = Exp(z) " + text.format("t2"), inputs=f"{TYPE} x, {TYPE} z"), Diamond())
    is_left(model(text.format("x")), Diamond())


NODE_NAMES = {"none": ("", "", ""), "of values": ("y", "a", "x"), "equal": ("n", "n", "n")}


@pytest.mark.parametrize("names", NODE_NAMES.values(), ids=NODE_NAMES)
def test_nodes_without_names_and_with_equal_names(names: tuple[str, ...]) -> None:
    def named(text: str) -> onnx.ModelProto:
        made = model(text)
        for one, name in zip(made.graph.node, names, strict=True):
            one.name = name
        return made

    made = named("a = Max(x, lo) b = Min(a, hi) y = Neg(b)")
    if names[0] == "n":  # onnxruntime opens no such model; its parts it runs, and the reference the whole
        result = rw.rewrite(made, "clip", verify="local")
        assert [s.verification.verdict for s in result.sites] == ["equivalent"]
        proto, feed = result.to_proto(), drawn(made)
        mine, theirs = (onnx.reference.ReferenceEvaluator(one).run(None, feed) for one in (proto, made))
        assert_same(mine, theirs)
    else:
        proto = fires(made, "clip")
    assert ops(proto) == ["Clip", "Neg"]
    assert proto.graph.node[-1] == made.graph.node[-1]
    is_left(named("a = Max(x, lo) b = Min(a, hi) y = Add(a, b)"), "clip", "value 'a' is also used by Add")
    assert "used by Add" in (refused_beside(names) or "")


def refused_beside(names: tuple[str, ...]) -> str | None:
    """Why one chain is refused where another, whose nodes have the same names, is applied."""
    made = model("a = Max(x, lo) b = Min(a, hi) c = Max(b, lo) d = Neg(c) e = Max(d, lo) f = Min(e, hi) y = Add(e, f)")
    for one, name in zip(made.graph.node, (*names, names[0], *names), strict=True):
        one.name = name
    result = rw.rewrite(made, "clip", verify="local")
    assert [s.status for s in result.sites] == ["applied", "applied", "refused"]
    return result.sites[-1].reason


def test_names_used_again_in_nested_scopes() -> None:
    """Siblings may use one name; what two bodies call "a" are two values, and each match has its own."""
    inner = "a = Max(x, lo) p = Min(a, hi)"
    text = f"z = {branches(inner, 'a = Max(x, k) q = Min(a, hi)')}"
    made = model(text, {"k": np.float32(-3)}, inputs=FLAG, outputs=f"{TYPE} z")
    proto = fires(made, "clip", 2)
    assert [ops(body(proto, "If", k)) for k in (0, 1)] == [["Clip"], ["Clip"]]
    names = [o for k in (0, 1) for n in body(proto, "If", k).node for o in n.output]
    assert {"p", "q"} <= set(names)
    # One of them needs its "a": that does not hold back the other.
    needed = model(
        text.replace("q = Min(a, hi)", "b = Min(a, hi) q = Add(a, b)"),
        {"k": np.float32(-3)},
        inputs=FLAG,
        outputs=f"{TYPE} z",
    )
    result = rw.rewrite(needed, "clip")
    assert sorted(s.status for s in result.sites) == ["applied", "refused"]
    agree(needed, result.to_proto())
    # A body inside a body, each with initializers of the same names and other values.
    nested = model(
        "z = " + branches("p = Identity(x)", "a = Max(x, lo) q = Min(a, hi)"), inputs=FLAG, outputs=f"{TYPE} z"
    )
    then = body(nested, "If")
    copy = body(nested, "If", 1)
    deep = onnx.helper.make_node("If", ["flag"], ["p"], then_branch=copy, else_branch=copy)
    for k, attribute in enumerate(deep.attribute):
        attribute.g.output[0].name = attribute.g.node[-1].output[0] = f"deep{k}"
        attribute.g.initializer.append(numpy_helper.from_array(np.asarray(-2 - k, np.float32), f"low{k}"))
        attribute.g.node[0].input[1] = f"low{k}"
        attribute.g.node[0].output[0] = attribute.g.node[1].input[0] = "inner"
    del then.node[:]
    then.node.append(deep)
    onnx.checker.check_model(nested, full_check=True)
    assert ops(fires(nested, "clip", 3)) == ["If"]


def test_loop_with_only_captured_inputs() -> None:
    """Nothing is handed to the body: it reads the outer graph's values and constants."""
    made = model("z = Loop(turns, go) " + loop("a = Max(x, lo) s = Min(a, hi)"), TURNS, outputs="float[2,2,5] z")
    proto = fires(made, "clip")
    assert ops(body(proto, "Loop")) == ["Identity", "Clip"]
    needed = loop("a = Max(x, lo) b = Min(a, hi) s = Sub(a, b)")
    is_left(model("z = Loop(turns, go) " + needed, TURNS, outputs="float[2,2,5] z"), "clip", "value 'a' is also used")
    outside = model("n = Neg(x) z = Loop(turns, go) " + loop("s = Neg(n)"), TURNS, outputs="float[2,2,5] z")
    result = rw.rewrite(outside, Negations())  # a match may not reach out of its body
    agree(outside, result.to_proto())
    assert not result.report.passes[0].rolled_back


def test_initializers_of_bodies_are_neither_lifted_nor_merged() -> None:
    text = f"z = {branches('a = Max(x, k) p = Min(a, hi)', 'a = Max(x, k) q = Sub(a, hi)')}"
    made = model(text, {"k": np.float32(0)}, inputs=FLAG, outputs=f"{TYPE} z")
    del made.graph.initializer[[t.name for t in made.graph.initializer].index("k")]
    for number in (0, 1):  # one name, two values
        tensor = numpy_helper.from_array(np.asarray(-1 - number, np.float32), "k")
        body(made, "If", number).initializer.append(tensor)
    onnx.checker.check_model(made, full_check=True)
    proto = fires(made, "clip")
    assert ops(body(proto, "If")) == ["Clip"]
    assert body(proto, "If", 1) == body(made, "If", 1)
    assert set(initializers(proto)) == {"hi"}
    assert -1 in list(initializers(body(proto, "If")).values())
    same = onnx.ModelProto.FromString(made.SerializeToString())
    body(same, "If", 1).initializer[0].CopyFrom(body(same, "If").initializer[0])
    proto = fires(same, "clip")
    assert body(proto, "If", 1) == body(same, "If", 1)


class There(Pass):
    """Neg(x) is Mul(x, -1)."""

    name = "there"

    def pattern(self, x: Any) -> Any:
        return op.Neg(x)

    def replace(self, m: Match) -> Any:
        return op.Mul(m.x, -1.0)


class Back(Pass):
    """Mul(x, -1) is Neg(x)."""

    name = "back"

    def pattern(self, x: Any) -> Any:
        return op.Mul(x, -1.0)

    def replace(self, m: Match) -> Any:
        return op.Neg(m.x)


@pytest.mark.parametrize("passes", [(There, Back), (Back, There)])
def test_two_passes_that_undo_each_other_for_ever(passes: Sequence[type[Pass]]) -> None:
    made = model("a = Abs(x) y = Neg(a)")
    with pytest.raises(CircularRewriteError) as error:
        rw.rewrite(made, [one() for one in passes])
    assert "there" in str(error.value)
    assert "back" in str(error.value)
    assert ops(fires(made, There())) == ["Abs", "Mul"]
    is_left(made, Back())


def function(text: str, signature: str = "(x) => (y)") -> str:
    return f'<domain: "local", opset_import: ["": 15]> f {signature} {{ {text} }}'


IN_FUNCTION = "lo = Constant<value = float {-1.0}>() hi = Constant<value = float {2.0}>() " + BOUND


def test_functions_and_folding_inside_them() -> None:
    """Two calls share one body: what is folded there is folded for both, and only by what is constant there."""
    calls = "n = local.f(x) y = local.f(n)"
    proto = fires(model(calls, functions=function(IN_FUNCTION)), "clip")
    assert [n.op_type for n in proto.graph.node] == ["f", "f"]
    assert [n.op_type for n in proto.functions[0].node if n.op_type != "Constant"] == ["Clip"]
    needed = function(IN_FUNCTION, "(x) => (y, a)")
    is_left(model("y, b = local.f(x)", functions=needed, outputs=f"{TYPE} y"), "clip", "value 'a' is an output of")
    # An operand of the function is no constant, even where every call gives one.
    given = function(BOUND, "(x, lo, hi) => (y)")
    is_left(model("y = local.f(x, lo, hi)", {"lo": LO, "hi": HI}, functions=given), "clip")
    # Nor is an attribute that each call gives anew.
    text = "lo = Constant<value_float: float = @low>() hi = Constant<value = float {2.0}>() " + BOUND
    attribute = f'<domain: "local", opset_import: ["": 15]> f <low> (x) => (y) {{ {text} }}'
    is_left(model("n = local.f<low = -1.0>(x) y = local.f<low = 0.0>(n)", functions=attribute), "clip")
    weights = " ".join(
        f"{k} = Constant<value = float[{','.join(map(str, v.shape))}] {{{','.join(map(str, v.ravel()))}}}>()"
        for k, v in PASSES["bn"][1].items()
    )
    made = building.model(
        "n = local.f(x) y = local.f(n)",
        inputs="float[2,5,5] x",
        outputs="float[2,5,5] y",
        opset=15,
        functions=function(f"{weights} {CONV_BN}"),
    )
    proto = fires(made, "bn")
    assert [n.op_type for n in proto.functions[0].node if n.op_type != "Constant"] == ["Conv"]
