"""A replacement is all or nothing, and stands where everything that it reads is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnx_rewrite.match import Match, Refused
from onnx_rewrite.model import load, to_proto
from onnx_rewrite.pattern import constant, op
from onnx_rewrite.registry import Pass, RuleSet
from onnx_rewrite.rewriter.circles import CircularRewriteError
from onnx_rewrite.rewriter.driver import Driver
from onnx_rewrite.rewriter.listing import Selection
from onnx_rewrite.rewriter.site import Site
from onnx_rewrite.verify import LocalJudge

SIMPLE = """
<ir_version: 8, opset_import: ["": 17]>
g (float[2, 3] x) => (float[2, 3] y)
<float[2, 3] w = {1, 2, 3, 4, 5, 6}>
{
    a = Abs (x)
    [middle] b = Neg (a)
    c = Add (b, w)
    y = Relu (c)
}
"""


def rewritten(text: str, *rules: Any, **options: Any) -> tuple[onnx.ModelProto, list[Site], onnx.ModelProto]:
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model, full_check=True)
    loaded = load(model)
    driver = Driver(loaded.ir, rules, **options)
    driver.run()
    return to_proto(loaded), [site for sites in driver.sites.values() for site in sites], model


def valid(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


class Broken(Pass):
    """Replaces Neg by whatever `make` says."""

    name = "broken"

    def __init__(self, make: Any) -> None:
        self.make = make

    def pattern(self, x: Any) -> Any:
        return op.Neg(x)

    def replace(self, m: Match) -> Any:
        return self.make(m)


def raises_halfway(m: Match) -> Any:
    op.Mul(op.Abs(m.x), -1.0)
    raise ZeroDivisionError("half of it stands")


def refuses_halfway(m: Match) -> Any:
    op.Mul(op.Abs(m.x), -1.0)
    raise Refused("not this one")


def after_it(m: Match) -> ir.Value:
    """What the match's consumer makes."""
    return m.output.uses()[0].node.outputs[0]


BROKEN: list[tuple[str, Any, str, str]] = [
    ("raises", raises_halfway, "rolled_back", "ZeroDivisionError: half of it stands"),
    ("refuses", refuses_halfway, "refused", "not this one"),
    ("declines", lambda m: op.Abs(m.x) and None, "refused", "declined"),
    ("returns a number", lambda m: (op.Abs(m.x), 3)[1], "rolled_back", "replace must return 1 value"),
    ("returns a list", lambda m: [op.Neg(m.x)], "rolled_back", "replace must return 1 value"),
    ("returns two", lambda m: (op.Neg(m.x), op.Neg(m.x)), "rolled_back", "replace must return 1 value"),
    ("no such operator", lambda m: op.Negate(m.x), "rolled_back", "Negate"),
    ("no such attribute", lambda m: op.Neg(m.x, axis=1), "rolled_back", "axis"),
    ("too many operands", lambda m: op.Neg(m.x, m.x), "rolled_back", ""),
    ("another dtype", lambda m: op.Cast(m.x, to=7), "rolled_back", "type"),
    ("another shape", lambda m: op.Transpose(m.x, perm=[1, 0]), "rolled_back", "mension"),
    ("another rank", lambda m: op.ReduceSum(m.x, axes=[0], keepdims=0), "rolled_back", "rank"),
    ("a number of no dtype", lambda m: op.Add(1.0, 2.0), "refused", "dtype"),
    ("an operand of a wrong kind", lambda m: op.Neg("x"), "rolled_back", "an operand is"),
    ("an attribute of a wrong kind", lambda m: op.Neg(m.x, axis=object()), "rolled_back", "attribute axis"),
    ("what it replaces", lambda m: op.Neg(m.output), "rolled_back", "which it replaces"),
    ("itself", lambda m: m.output, "rolled_back", "which it replaces"),
    ("what comes later", lambda m: op.Neg(after_it(m)), "rolled_back", "not computed before"),
    ("what comes later, as it is", after_it, "rolled_back", "not computed before"),
    ("a value of nowhere", lambda m: op.Neg(ir.Node("", "Abs", [m.x]).outputs[0]), "rolled_back", "no graph"),
    ("a capture of another name", lambda m: op.Neg(m.z), "rolled_back", "captures nothing called 'z'"),
    ("several operators", lambda m: op.one_of("Neg", "Abs")(m.x), "rolled_back", "one operator"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "status", "reason"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_a_replacement_that_fails_leaves_no_trace(make: Any, status: str, reason: str) -> None:
    after, sites, before = rewritten(SIMPLE, Broken(make))
    assert [site.status for site in sites] == [status], sites
    assert reason in (sites[0].reason or ""), sites[0].reason
    assert after.SerializeToString(deterministic=True) == before.SerializeToString(deterministic=True)


def test_what_is_not_equivalent_leaves_no_trace() -> None:
    after, sites, before = rewritten(SIMPLE, Broken(lambda m: op.Abs(m.x)), judge=LocalJudge())
    assert [(site.status, site.verification.verdict) for site in sites] == [("rolled_back", "different")]
    assert after == before
    assert sites[0].before is not None
    assert sites[0].after is not None


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_the_next_pass_finds_the_model_as_it_was(number: int) -> None:
    """Values must not remember nodes that were discarded."""
    after, sites, _ = rewritten(SIMPLE, Broken(BROKEN[number][1]), Fine())
    assert [site.status for site in sites if site.pass_name == "fine"] == ["applied"]
    valid(after)


class Fine(Pass):
    """Neg(Abs(x)) is Mul(Abs(x), -1): interior values must have no other use."""

    name = "fine"

    def pattern(self, x: Any) -> Any:
        return op.Neg(op.Abs(x))

    def replace(self, m: Match) -> Any:
        return op.Mul(op.Abs(m.x), -1.0)


def test_its_twin_fires_and_keeps_names() -> None:
    after, sites, before = rewritten(SIMPLE, Fine(), judge=LocalJudge())
    assert [(site.id, site.status, site.verification.verdict) for site in sites] == [
        ("fine[0]", "applied", "equivalent")
    ]
    valid(after)
    assert kinds(after) == ["Abs", "Mul", "Add", "Relu"]
    assert after.graph.node[1].output == ["b"]
    assert after.graph.node[1].name == "middle"
    assert list(after.graph.node[2:]) == list(before.graph.node[2:])


NAMES = """
<ir_version: 8, opset_import: ["": 17]>
g (float[2] x, bool c) => (float[2] y, float[2] n_fine_0)
<float[2] n_fine_0_1 = {1, 2}>
{
    [n] a = Abs (x)
    n_fine_0 = Mul (x, n_fine_0_1)
    [n_Abs] n_Abs_out = Exp (x)
    [n] b = Neg (a)
    y = If (c) <
        then_branch = t () => (float[2] p) <float[2] n_fine_0_2 = {3, 4}>
            { n_Abs_out_1 = Add (b, n_fine_0_2) p = Add (n_Abs_out_1, n_Abs_out) },
        else_branch = e () => (float[2] q) { [n] r = Abs (b) q = Neg (r) }
    >
}
"""


def test_new_names_collide_with_nothing_in_any_scope() -> None:
    after, sites, before = rewritten(NAMES, Fine())
    assert [site.status for site in sites] == ["applied", "applied"]
    onnx.checker.check_model(after, full_check=True)
    feeds = {"x": np.asarray([1, -2], np.float32), "c": np.asarray(True)}
    for value in (True, False):
        feeds["c"] = np.asarray(value)
        mine, theirs = (onnx.reference.ReferenceEvaluator(m).run(None, feeds) for m in (after, before))
        np.testing.assert_array_equal(mine, theirs)
    names: list[str] = []
    for graph in (after.graph, *(a.g for n in after.graph.node for a in n.attribute if a.HasField("g"))):
        names += [i.name for i in graph.initializer] + [o for n in graph.node for o in n.output]
    assert len(names) == len(set(names))


METADATA = """
<ir_version: 10, opset_import: ["": 17]>
g (float[2] x) => (float[2] y) { [one] a = Abs (x)  [two] y = Neg (a) }
"""


def test_metadata_is_merged_and_the_pass_recorded() -> None:
    model = onnx.parser.parse_model(METADATA)
    for node, pairs in zip(
        model.graph.node, [{"k": "1", "same": "s"}, {"k": "2", "same": "s", "own": "o"}], strict=True
    ):
        for key, value in pairs.items():
            node.metadata_props.add(key=key, value=value)
    info = model.graph.value_info.add(name="a")
    info.CopyFrom(onnx.helper.make_tensor_value_info("a", 1, [2], doc_string="inner"))
    model.graph.output[0].doc_string = "the result"
    model.graph.output[0].metadata_props.add(key="unit", value="m")
    loaded = load(model)
    driver = Driver(loaded.ir, [Fine()])
    driver.run()
    after = to_proto(loaded)
    for node in after.graph.node:
        found = {p.key: p.value for p in node.metadata_props}
        assert found == {
            "k": "1; 2", "same": "s", "own": "o",
            "onnx_rewrite.pass": "fine", "onnx_rewrite.sources": "two, one",
        }  # fmt: skip
    assert after.graph.output[0] == model.graph.output[0]
    assert [node.name for node in after.graph.node] == ["two_Abs", "two"]


class Fork(Pass):
    """r = Relu(x) and Add(r, y), both outputs."""

    name = "fork"

    def pattern(self, x: Any, y: Any) -> Any:
        r = op.Relu(x)
        return r, op.Add(r, y)

    def replace(self, m: Match) -> Any:
        r = op.Max(m.x, 0.0)
        return r, op.Sum(r, m.y)


class Krof(Fork):
    """The same, anchored at the other output."""

    def pattern(self, x: Any, y: Any) -> Any:
        r = op.Relu(x)
        return op.Add(r, y), r

    def replace(self, m: Match) -> Any:
        r = op.Max(m.x, 0.0)
        return op.Sum(r, m.y), r


def fork(middle: str, last: str = "y = Add (a, b)") -> str:
    return f"""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[2] x, bool c) => (float[2] y, float[2] a)
    {{
        a = Relu (x)
        {middle}
        {last}
    }}
    """


@pytest.mark.parametrize("rule", [Fork, Krof])
@pytest.mark.parametrize(
    ("middle", "fires"),
    [
        ("b = Neg (a)", False),
        ("b = Neg (x)", True),
        ("b0 = Neg (a)  b1 = Abs (b0)  b = Neg (b1)", False),
        ("b0 = Neg (x)  b1 = Abs (b0)  b = Neg (b1)", True),
        (("b = If (c) <then_branch = t () => (float[2] p) { p = Neg (a) }, "
         "else_branch = e () => (float[2] q) { q = Neg (x) }>"), False),
        (("b = If (c) <then_branch = t () => (float[2] p) { p = Neg (x) }, "
         "else_branch = e () => (float[2] q) { q = Neg (x) }>"), True),
    ],
)  # fmt: skip
def test_a_match_that_is_not_convex_is_refused_and_its_twin_fires(rule: Any, middle: str, fires: bool) -> None:
    after, sites, before = rewritten(fork(middle), rule())
    assert [site.status for site in sites] == ["applied" if fires else "refused"], sites
    valid(after)
    if not fires:
        assert after == before
        assert "which needs the match's own value 'a'" in (sites[0].reason or "")
    else:
        assert [o.name for o in after.graph.output] == ["y", "a"]


def test_an_output_that_would_be_its_own_operand() -> None:
    after, sites, before = rewritten(fork("b = Neg (x)", "y0 = Add (a, a)  y = Add (y0, b)"), Krof())
    assert [site.status for site in sites] == ["refused"]
    assert after == before


class Pair(Pass):
    """Neg(x) and Mul(x, y): the second may come much later, and what reads the first stands between."""

    name = "pair"

    def pattern(self, x: Any, y: Any) -> Any:
        return op.Neg(x), op.Mul(x, y)

    def replace(self, m: Match) -> Any:
        return op.Mul(m.x, -1.0), op.Mul(op.Abs(m.x), op.Mul(op.Sign(m.x), m.y))


class Riap(Pair):
    """The same, anchored at the other output."""

    def pattern(self, x: Any, y: Any) -> Any:
        return op.Mul(x, y), op.Neg(x)

    def replace(self, m: Match) -> Any:
        return op.Mul(op.Abs(m.x), op.Mul(op.Sign(m.x), m.y)), op.Mul(m.x, -1.0)


EARLY = """
<ir_version: 8, opset_import: ["": 17]>
g (float[2] x, float[2] z, bool c) => (float[2] y, float[2] u, float[2] w, float[2] v)
{
    n = Neg (x)
    u = Abs (n)
    w = If (c) <then_branch = t () => (float[2] p) { p = Exp (u) }, else_branch = e () => (float[2] q) { q = Exp (n) }>
    r = Relu (z)
    v = Exp (r)
    y = Mul (r, x)
}
"""


@pytest.mark.parametrize("rule", [Pair, Riap])
def test_what_reads_an_output_early_moves_behind_the_replacement(rule: Any) -> None:
    after, sites, before = rewritten(EARLY, rule(), judge=LocalJudge())
    assert [(site.status, site.verification.verdict) for site in sites] == [("applied", "equivalent")]
    valid(after)
    assert kinds(after)[:2] == ["Relu", "Exp"]
    untouched = {n.output[0]: n for n in before.graph.node if n.output[0] in ("u", "w", "r", "v")}
    assert {n.output[0]: n for n in after.graph.node if n.output[0] in untouched} == untouched


# Each pair is convex by itself; once one is fused, the other is not.
TANGLED = """
<ir_version: 8, opset_import: ["": 17]>
g (float[2] x, float[2] z) => (float[2] o1, float[2] o2, float[2] p1, float[2] p2)
{
    o1 = Neg (x)
    p1 = Neg (z)
    b = Abs (p1)
    d = Exp (o1)
    o2 = Mul (x, b)
    p2 = Mul (z, d)
}
"""


class Fused(Pair):
    """Both outputs read both operands."""

    def replace(self, m: Match) -> Any:
        nothing = op.Mul(m.y, 0.0)
        return op.Sub(op.Neg(m.x), nothing), op.Add(op.Mul(op.Abs(m.x), op.Mul(op.Sign(m.x), m.y)), nothing)


def test_an_edit_that_makes_another_match_cyclic() -> None:
    after, sites, _ = rewritten(TANGLED, Fused())
    assert sorted(site.status for site in sites) == ["applied", "refused"], sites
    valid(after)


class Equal(Pass):
    """Two equal outputs, and one value for both."""

    name = "equal"

    def pattern(self, x: Any, y: Any) -> Any:
        return op.Add(x, y), op.Sum(x, y)

    def replace(self, m: Match) -> Any:
        both = op.Sub(m.x, op.Neg(m.y))
        return both, both


def test_one_value_for_two_outputs_keeps_both_names() -> None:
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[2] x, float[2] z) => (float[2] y, float[2] s) { y = Add (x, z)  s = Sum (x, z) }
    """
    after, sites, _ = rewritten(text, Equal(), judge=LocalJudge())
    assert [site.status for site in sites] == ["applied"]
    valid(after)
    assert [o.name for o in after.graph.output] == ["y", "s"]
    assert kinds(after) == ["Neg", "Sub", "Identity"]


class Remove(Pass):
    """Neg(Neg(x)) is x."""

    name = "remove"

    def pattern(self, x: Any) -> Any:
        return op.Neg(op.Neg(x))

    def replace(self, m: Match) -> Any:
        return m.x


@pytest.mark.parametrize(
    ("nodes", "outputs", "left"),
    [
        ("a = Neg (x)  y = Neg (a)", ["y"], ["Identity"]),
        ("a = Neg (w)  y = Neg (a)", ["y"], ["Identity"]),
        ("o = Exp (x)  a = Neg (o)  y = Neg (a)", ["y", "o"], ["Exp", "Identity"]),
        ("a = Neg (x)  b = Neg (a)  y = Exp (b)", ["y"], ["Exp"]),
        (("a = Neg (x)  b = Neg (a)  y = If (c) <then_branch = t () => (float[2] p) { p = Identity (b) }, "
          "else_branch = e () => (float[2] q) { q = Exp (b) }>"), ["y"], ["If"]),
        ("a = Neg (x)  b = Neg (a)  d = Neg (b)  y = Neg (d)", ["y"], ["Identity"]),
        ("a = Neg (x)  b = Neg (a)  d = Neg (b)  y = Exp (d)", ["y"], ["Neg", "Exp"]),
    ],
)  # fmt: skip
def test_a_replacement_that_is_a_value_already(nodes: str, outputs: Sequence[str], left: list[str]) -> None:
    declared = ", ".join(f"float[2] {name}" for name in outputs)
    text = f"""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[2] x, bool c) => ({declared}) <float[2] w = {{1, 2}}> {{ {nodes} }}
    """
    after, _, before = rewritten(text, Remove())
    valid(after)
    assert kinds(after) == left
    assert after.graph.output == before.graph.output


class Inner(Pass):
    """Relu(Relu(x)) is the inner Relu."""

    name = "inner"
    interior = "keep"

    def pattern(self, x: Any) -> Any:
        return op.Relu(op.Relu(x).named("inner"))

    def replace(self, m: Match) -> Any:
        return m.inner.outputs[0]


class Swap(Pass):
    """Add(y, Relu(x)) is Sum(Relu(x), y): `y` may be that Relu's own output."""

    name = "swap"

    def pattern(self, x: Any, y: Any) -> Any:
        return op.Add(y, op.Relu(x))

    def replace(self, m: Match) -> Any:
        return op.Sum(op.Max(m.x, 0.0), m.y)


@pytest.mark.parametrize(
    ("rule", "nodes"),
    [
        (Inner, "a = Relu (x)  y = Relu (a)"),
        (Swap, "a = Relu (x)  y = Add (a, a)"),
        (Swap, "a = Relu (x)  y = Add (a, x)"),
    ],
)
def test_a_replacement_may_use_what_the_match_computes(rule: Any, nodes: str) -> None:
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {{ {nodes} }}'
    after, sites, _ = rewritten(text, rule(), judge=LocalJudge())
    assert [(site.status, site.verification.verdict) for site in sites] == [("applied", "equivalent")]
    valid(after)


class WrongInner(Inner):
    """Relu(Abs(x)) is not Abs(Abs(x)) for ... but Neg(Relu(x)) is not Relu(x)."""

    def pattern(self, x: Any) -> Any:
        return op.Neg(op.Relu(x).named("inner"))


def test_a_wrong_replacement_that_uses_what_the_match_computes_is_seen() -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) { a = Relu (x)  y = Neg (a) }'
    after, sites, before = rewritten(text, WrongInner(), judge=LocalJudge())
    assert [(site.status, site.verification.verdict) for site in sites] == [("rolled_back", "different")]
    assert after == before


class Sqrts(Pass):
    """Sqrt(c) of a constant is Pow(c, 0.5): a value that others hold as a constant is replaced under them."""

    name = "sqrts"

    def pattern(self, c: Any) -> Any:
        return op.Sqrt(constant(c))

    def replace(self, m: Match) -> Any:
        return op.Pow(m.c, 0.5)


class Products(Pass):
    """Mul(x, c) is Div(x, 1/c), written with the constant itself."""

    name = "products"

    def pattern(self, x: Any, c: Any) -> Any:
        return op.Mul(x, constant(c))

    def replace(self, m: Match) -> Any:
        return op.Div(m.x, op.Reciprocal(m.c))


class Both(RuleSet):
    """The two in one wave."""

    name = "both"

    def rules(self) -> Sequence[Any]:
        return (Sqrts(), Products())


def test_a_captured_constant_follows_the_edits() -> None:
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[2] x) => (float[2] y) <float[2] w = {4, 9}> { s = Sqrt (w)  y = Mul (x, s) }
    """
    after, sites, _ = rewritten(text, Both())
    assert [site.status for site in sites] == ["applied", "applied"]
    valid(after)
    assert kinds(after) == ["Pow", "Reciprocal", "Div"]


class Types(Pass):
    """Sub(a, b) is Add(a, Neg(b)): its Neg must have a type for those who come after."""

    name = "types"

    def pattern(self, a: Any, b: Any) -> Any:
        return op.Sub(a, b)

    def replace(self, m: Match) -> Any:
        return op.Add(m.a, op.Neg(m.b))


class NeedsTypes(Pass):
    """Neg(x) is Mul(x, -1), where the dtype and the rank of both are known."""

    name = "needs"

    def pattern(self, x: Any) -> Any:
        return op.Neg(x)

    def check(self, m: Match) -> None:
        if m.output.dtype is None or m.rank(m.output) is None or m.dim(m.output, 0) is None:
            raise Refused("its type is not known")

    def replace(self, m: Match) -> Any:
        return op.Mul(m.x, -1.0)


@pytest.mark.parametrize("dims", ["2, 3", "N, 3"])
def test_new_values_have_types(dims: str) -> None:
    text = f"""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[{dims}] x, float[{dims}] z) => (float[{dims}] y) {{ y = Sub (x, z) }}
    """
    after, sites, _ = rewritten(text, Types(), NeedsTypes(), judge=LocalJudge())
    assert [(s.status, s.verification.verdict) for s in sites] == [("applied", "equivalent")] * 2, sites
    assert kinds(after) == ["Mul", "Add"]
    assert not after.graph.value_info


def test_an_old_model_gets_an_initializer() -> None:
    """Below IR version 4 every initializer must be an input; the callers' interface must not change."""
    text = '<ir_version: 3, opset_import: ["": 8]> g (float[2] x) => (float[2] y) { a = Abs (x)  y = Neg (a) }'
    after, sites, before = rewritten(text, Fine())
    assert [site.status for site in sites] == ["applied"]
    valid(after)
    assert after.graph.input == before.graph.input


class Custom(Pass):
    """Neg becomes an operator of another domain."""

    name = "custom"

    def pattern(self, x: Any) -> Any:
        return op.Neg(x)

    def replace(self, m: Match) -> Any:
        return op.domain("com.microsoft").BiasGelu(m.x, m.x)


def test_a_new_domain_is_imported() -> None:
    after, sites, _ = rewritten(SIMPLE, Custom())
    assert [site.status for site in sites] == ["applied"]
    assert {i.domain for i in after.opset_import} == {"", "com.microsoft"}
    valid(after)


class Like(Pass):
    """Relu behind a maximum goes before it: the reduction keeps its parameters, wherever they stand."""

    name = "like"

    def pattern(self, x: Any) -> Any:
        return op.Relu(op.ReduceMax(x).named("reduction"))

    def replace(self, m: Match) -> Any:
        return op.like(m.reduction, op.Relu(m.x))


@pytest.mark.parametrize(
    ("opset", "reduction"),
    [(13, "ReduceMax <axes = [1], keepdims = 0> (x)"), (18, "ReduceMax <keepdims = 0> (x, axes)")],
)
def test_like_keeps_parameters_that_are_inputs(opset: int, reduction: str) -> None:
    text = f"""
    <ir_version: 8, opset_import: ["": {opset}]>
    g (float[2, 3] x) => (float[2] y) <int64[1] axes = {{1}}> {{ a = {reduction}  y = Relu (a) }}
    """
    _, sites, _ = rewritten(text, Like(), judge=LocalJudge())
    assert [(s.status, s.verification.verdict) for s in sites[:1]] == [("applied", "equivalent")], sites


class Bounds(Pass):
    """Relu becomes a Clip like the one before it, with other bounds."""

    name = "bounds"

    def pattern(self, x: Any) -> Any:
        return op.Relu(op.Clip(x).named("clip"))

    def replace(self, m: Match) -> Any:
        return op.like(m.clip, m.x, min=0.0)


@pytest.mark.parametrize(("opset", "clip"), [(10, "Clip <min = -1.0, max = 1.0> (x)"), (13, "Clip (x, lo, hi)")])
def test_like_with_other_parameters(opset: int, clip: str) -> None:
    text = f"""
    <ir_version: 8, opset_import: ["": {opset}]>
    g (float[2] x) => (float[2] y) <float lo = {{-1.0}}, float hi = {{1.0}}> {{ a = {clip}  y = Relu (a) }}
    """
    _, sites, _ = rewritten(text, Bounds(), judge=LocalJudge())
    assert [(s.status, s.verification.verdict) for s in sites] == [("applied", "equivalent")], sites


class There(Pass):
    """Abs becomes Relu twice over, as `back` undoes."""

    name = "there"

    def pattern(self, x: Any) -> Any:
        return op.Neg(x)

    def replace(self, m: Match) -> Any:
        return op.Mul(m.x, -1.0)


class Back(Pass):
    """The other way."""

    name = "back"

    def pattern(self, x: Any) -> Any:
        return op.Mul(x, -1.0)

    def replace(self, m: Match) -> Any:
        return op.Neg(m.x)


class Growing(Pass):
    """Undoes itself by growing: its own new nodes match again."""

    name = "growing"

    def pattern(self, x: Any) -> Any:
        return op.Neg(x)

    def replace(self, m: Match) -> Any:
        return op.Neg(op.Neg(op.Neg(m.x)))


def test_passes_that_undo_each_other_end_with_an_error_that_names_both() -> None:
    with pytest.raises(CircularRewriteError) as error:
        rewritten(SIMPLE, There(), Back())
    assert "'b'" in str(error.value)
    assert "Neg 'middle' -> Mul 'middle'" in str(error.value)
    assert "Mul 'middle' -> Neg 'middle'" in str(error.value)
    assert "there" in str(error.value)
    assert "back" in str(error.value)


def test_a_pass_that_matches_its_own_result_for_ever_ends_with_an_error() -> None:
    with pytest.raises(CircularRewriteError, match="growing"):
        rewritten(SIMPLE, Growing())


MANY = """
<ir_version: 8, opset_import: ["": 17]>
g (float[2] x) => (float[2] y)
{
    [first_a] a = Neg (x)
    b = Exp (a)
    [second_c] c = Neg (b)
    d = Exp (c)
    [third_e] e = Neg (d)
    y = Exp (e)
}
"""


@pytest.mark.parametrize(
    ("only", "skip", "chosen"),
    [
        ([], [], ["there[0]", "there[1]", "there[2]"]),
        (["there[1]"], [], ["there[1]"]),
        ([], ["there[1]"], ["there[0]", "there[2]"]),
        (["second_"], [], ["there[1]"]),
        ([], ["^(first|third)_"], ["there[1]"]),
        (["there[0]", "third"], ["third"], ["there[0]"]),
        (["there[7]"], [], []),
    ],
)
def test_selection_by_id_and_by_name_keeps_the_numbers(only: list[str], skip: list[str], chosen: list[str]) -> None:
    after, sites, _ = rewritten(MANY, There(), selection=Selection(only, skip))
    assert [site.id for site in sites] == ["there[0]", "there[1]", "there[2]"]
    assert [site.nodes[0] for site in sites] == ["first_a", "second_c", "third_e"]
    assert [site.id for site in sites if site.status == "applied"] == chosen
    assert {site.status for site in sites} <= {"applied", "skipped"}
    assert kinds(after).count("Mul") == len(chosen)
    valid(after)


def test_every_choice_of_sites_gives_what_it_would_alone() -> None:
    """Ids of one run are those of the next: choosing 'there[1]' changes what it named."""
    for number in range(3):
        _, sites, _ = rewritten(MANY, There(), selection=Selection([f"there[{number}]"]))
        assert [s.outputs for s in sites if s.status == "applied"] == [(("a", "c", "e")[number],)]
