"""Operators are read by meaning: the same parameter, whichever opset, place and spelling it comes in."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.match import Match, Matcher, Scope
from onnx_rewrite.opset.forms import AXIS_OF_INPUT, AXIS_OF_OUTPUT, COMMUTATIVE, INPUT_FORMS, PARAMETERS
from onnx_rewrite.opset.view import ABSENT, UNKNOWN, defaults, operands, read_parameter
from onnx_rewrite.pattern import const, op, optional, scalar, trace

OPSETS = range(7, 27)

# A value for each parameter of the operators whose parameters moved; what an attribute of the older form holds.
VALUES: dict[str, dict[str, Any]] = {
    **{name: {"axes": (0, 2)} for name in INPUT_FORMS if name.startswith("Reduce")},
    "Clip": {"min": -1.0, "max": 2.0},
    "Dropout": {"ratio": 0.25, "training_mode": False},
    "Pad": {"pads": (0, 1, 0, 0, 1, 0), "value": 3.0, "axes": (0, 1, 2)},
    "Reshape": {"shape": (2, -1)},
    "Slice": {"starts": (0, 1), "ends": (2, 3), "axes": (1, 2), "steps": (1, 2)},
    "Split": {"split": (1, 1)},
    "Squeeze": {"axes": (0, 1)},
    "Tile": {"repeats": (1, 2, 1)},
    "TopK": {"k": 2},
    "Unsqueeze": {"axes": (0, 2)},
    "Upsample": {"scales": (1.0, 1.0, 2.0)},
}


def tensor(value: Any, name: str) -> onnx.TensorProto:
    dtype = {bool: np.bool_, float: np.float32, int: np.int64}[type(value[0] if isinstance(value, tuple) else value)]
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def as_initializer(graph: onnx.GraphProto, name: str, value: Any) -> None:
    graph.initializer.append(tensor(value, name))


def as_node(graph: onnx.GraphProto, name: str, value: Any) -> None:
    graph.node.insert(0, helper.make_node("Constant", [], [name], value=tensor(value, "")))


def as_plain_attribute(graph: onnx.GraphProto, name: str, value: Any) -> None:
    if isinstance(value, bool):
        as_node(graph, name, value)
        return
    kind = {float: "value_float", int: "value_int"}[type(value[0] if isinstance(value, tuple) else value)]
    given = {kind + "s": list(value)} if isinstance(value, tuple) else {kind: value}
    graph.node.insert(0, helper.make_node("Constant", [], [name], **given))


def behind_identity(graph: onnx.GraphProto, name: str, value: Any) -> None:
    as_initializer(graph, name + "_given", value)
    graph.node.insert(0, helper.make_node("Identity", [name + "_given"], [name]))


def overridable(graph: onnx.GraphProto, name: str, value: Any) -> None:
    as_initializer(graph, name, value)
    given = graph.initializer[-1]
    graph.input.append(helper.make_tensor_value_info(name, given.data_type, list(given.dims)))


def computed(graph: onnx.GraphProto, name: str, value: Any) -> None:
    given = tensor(value, name)
    graph.input.append(helper.make_tensor_value_info(name, given.data_type, list(given.dims)))


Spelling = Callable[[onnx.GraphProto, str, Any], None]
CONSTANT: list[Spelling] = [as_initializer, as_node, as_plain_attribute, behind_identity]
NOT_CONSTANT: list[Spelling] = [overridable, computed]


def built(
    op_type: str,
    params: dict[str, Any],
    version: int,
    spell: Spelling = as_initializer,
    rank: int | None = 3,
    **more: Any,
) -> tuple[ir.Node, Scope]:
    """One node `y = op_type(x)` at an opset, its parameters where that opset has them."""
    graph = onnx.GraphProto(name="g")
    dims = None if rank is None else [2, 4, 4, 3][:rank]
    graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, dims))
    inputs, attributes = ["x"], dict(more)
    for name, value in params.items():
        form = PARAMETERS[op_type][name]
        if version < form.since:
            attributes[name] = list(value) if isinstance(value, tuple) else value
            continue
        inputs += [""] * (form.position + 1 - len(inputs))
        inputs[form.position] = f"p_{name}"
        spell(graph, f"p_{name}", value)
    graph.node.append(helper.make_node(op_type, inputs, ["y"], name="node", **attributes))
    grows = op_type == "Unsqueeze"
    shape = None if dims is None else [None] * (len(dims) + 2) if grows else [None] * len(dims)
    graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, shape))
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
    model = ir.from_proto(proto)
    node = next(n for n in model.graph if n.name == "node")
    return node, Scope(model.graph, {"": version}, Constants())


def known(version: int, op_type: str, name: str) -> bool:
    """Whether the operator has the parameter at this opset."""
    try:
        schema = onnx.defs.get_schema(op_type, version, "")
    except onnx.defs.SchemaError:
        return False
    form = PARAMETERS[op_type][name]
    return not schema.deprecated and (version >= form.since or name in schema.attributes)


def cases() -> Iterator[tuple[str, str, int]]:
    for op_type, values in VALUES.items():
        for name in values:
            for version in OPSETS:
                if known(version, op_type, name):
                    yield op_type, name, version


def matches(pattern: Callable[..., Any], node: ir.Node, scope: Scope) -> Match | None:
    found: list[Match] = []
    Matcher(trace(pattern, "test")).match(scope, node, lambda m: not found.append(m))
    return found[0] if found else None


def test_every_operator_is_tried() -> None:
    assert VALUES.keys() == PARAMETERS.keys() == INPUT_FORMS.keys()
    for op_type, forms in PARAMETERS.items():
        assert VALUES[op_type].keys() == forms.keys()


@pytest.mark.parametrize("spell", CONSTANT)
def test_a_parameter_reads_the_same_at_every_opset_and_in_every_spelling(spell: Spelling) -> None:
    for op_type, name, version in cases():
        required = {n: v for n, v in VALUES[op_type].items() if known(version, op_type, n)}
        node, scope = built(op_type, required, version, spell)
        value = read_parameter(node, name, version, scope.constants)
        assert value == VALUES[op_type][name], (op_type, name, version, value)
        assert [v.name for v in operands(node, version) if v is not None] == ["x"], (op_type, version)


@pytest.mark.parametrize("spell", NOT_CONSTANT)
def test_what_the_caller_may_change_is_unknown(spell: Spelling) -> None:
    for op_type, name, version in cases():
        if version < PARAMETERS[op_type][name].since:
            continue
        node, scope = built(op_type, {name: VALUES[op_type][name]}, version, spell)
        assert read_parameter(node, name, version, scope.constants) is UNKNOWN, (op_type, name, version)


@pytest.mark.parametrize("version", OPSETS)
def test_forms_agree_with_the_schemas(version: int) -> None:
    for op_type, forms in PARAMETERS.items():
        try:
            schema = onnx.defs.get_schema(op_type, version, "")
        except onnx.defs.SchemaError:
            continue
        positions = {f.position for f in forms.values() if version >= f.since}
        for name, form in forms.items():
            if version >= form.since:
                assert name not in schema.attributes, (op_type, name)
                assert form.position < len(schema.inputs) or schema.deprecated, (op_type, name)
        if positions and not schema.deprecated:  # whatever comes after the first parameter is one
            assert positions == set(range(min(positions), len(schema.inputs))), op_type


def test_every_attribute_that_became_an_input_is_listed() -> None:
    by_name: dict[str, dict[int, onnx.defs.OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            by_name.setdefault(schema.name, {})[schema.since_version] = schema
    for op_type, versions in by_name.items():
        ordered = [versions[v] for v in sorted(versions)]
        for old, new in itertools.pairwise(ordered):
            gone = old.attributes.keys() - new.attributes.keys()
            moved = {p.name for p in new.inputs} & gone
            if new.since_version >= 7 and op_type != "DFT":  # DFT's axis is an operand in both forms of a pattern
                assert moved <= PARAMETERS.get(op_type, {}).keys(), op_type


@pytest.mark.parametrize("version", OPSETS)
@pytest.mark.parametrize("op_type", ["ReduceMean", "ReduceSum", "Squeeze", "Slice"])
def test_negative_axes_are_positive_ones_where_the_rank_is_known(op_type: str, version: int) -> None:
    params: dict[str, Any] = {"axes": (-3, -1)}
    if op_type == "Slice":
        params |= {"starts": (0, 0), "ends": (1, 1)}
    node, scope = built(op_type, params, version)
    assert read_parameter(node, "axes", version, scope.constants) == (0, 2)
    node, scope = built(op_type, params, version, rank=None)
    assert read_parameter(node, "axes", version, scope.constants) == (-3, -1)


def test_unsqueeze_counts_axes_of_its_result() -> None:
    for version in OPSETS:
        node, scope = built("Unsqueeze", {"axes": (-1, 0)}, version)
        assert read_parameter(node, "axes", version, scope.constants) == (0, 4)


@pytest.mark.parametrize("op_type", sorted({*AXIS_OF_INPUT, *AXIS_OF_OUTPUT}))
def test_axes_that_are_counted_from_the_end_exist(op_type: str) -> None:
    name = AXIS_OF_INPUT.get(op_type) or AXIS_OF_OUTPUT[op_type]
    schema = onnx.defs.get_schema(op_type, 26 if op_type != "Scatter" else 10, "")
    assert name in schema.attributes or name in PARAMETERS.get(op_type, {})


def test_an_omitted_parameter_is_its_default() -> None:
    for version in OPSETS:
        node, scope = built("ReduceMean", {"axes": (1,)}, version)
        assert read_parameter(node, "keepdims", version, scope.constants) == 1
        node, scope = built("ReduceMean", {}, version)
        assert read_parameter(node, "axes", version, scope.constants) == (0, 1, 2)
        node, scope = built("ReduceMean", {}, version, rank=None)
        assert read_parameter(node, "axes", version, scope.constants) is UNKNOWN
        node, scope = built("Squeeze", {}, version)
        assert read_parameter(node, "axes", version, scope.constants) is ABSENT
    node, scope = built("ReduceSum", {}, 13, noop_with_empty_axes=1)
    assert read_parameter(node, "axes", 13, scope.constants) == ()


# Parameter of one operator: what leaving it out means, and something else.
DEFAULTS: list[tuple[str, int, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("LeakyRelu", 16, {}, {"alpha": 0.01}, {"alpha": 0.02}),
    ("Softmax", 13, {}, {"axis": 2}, {"axis": 1}),
    ("Softmax", 13, {}, {"axis": -1}, {"axis": 0}),
    ("ReduceMean", 17, {}, {"axes": [0, 1, 2]}, {"axes": [0]}),
    ("ReduceMean", 17, {}, {"axes": [2, 0, -2]}, {"keepdims": 0}),
    ("Transpose", 13, {}, {"perm": [2, 1, 0]}, {"perm": [0, 2, 1]}),
    ("MaxPool", 12, {"kernel_shape": [2, 2]}, {"strides": [1, 1], "pads": [0] * 4}, {"strides": [2, 1]}),
    ("MaxPool", 12, {"kernel_shape": [2, 2]}, {"dilations": [1, 1]}, {"dilations": [2, 1]}),
    ("MaxPool", 12, {"kernel_shape": [2, 2]}, {"auto_pad": "NOTSET", "ceil_mode": 0}, {"pads": [0, 0, 1, 0]}),
    ("Slice", 9, {"starts": [0], "ends": [1]}, {"axes": [0]}, {"axes": [1]}),
]  # fmt: skip


@pytest.mark.parametrize(("op_type", "version", "common", "default", "other"), DEFAULTS)
def test_a_given_default_matches_like_an_omitted_one(
    op_type: str, version: int, common: Any, default: Any, other: Any
) -> None:
    wanted = {n: tuple(v) if isinstance(v, list) else v for n, v in common.items()}

    def pattern(x: Any) -> Any:
        return getattr(op, op_type)(x, **wanted)

    for more, expected in (({}, True), (default, True), (other, False)):
        node, scope = built(op_type, {}, version, **common, **more)
        assert (matches(pattern, node, scope) is not None) == expected, more


@pytest.mark.parametrize(
    ("op_type", "version", "common", "default", "other"),
    [
        ("Slice", 13, {"starts": (0,), "ends": (1,)}, {"axes": (0,), "steps": (1,)}, {"steps": (2,)}),
        ("Slice", 13, {"starts": (0,), "ends": (1,)}, {"axes": (-3,)}, {"axes": (1,)}),
        ("Pad", 18, {"pads": (1,) * 6}, {"value": 0.0, "axes": (0, 1, 2)}, {"value": 1.0}),
        ("Pad", 18, {"pads": (1,) * 6}, {"axes": (-3, -2, -1)}, {"axes": (1,)}),
        ("Dropout", 13, {}, {"training_mode": False, "ratio": 0.5}, {"training_mode": True}),
        ("ReduceMean", 18, {}, {"axes": (0, 1, 2)}, {"axes": (1,)}),
    ],
)
def test_a_default_given_as_input_matches_like_an_omitted_one(
    op_type: str, version: int, common: Any, default: Any, other: Any
) -> None:
    def pattern(x: Any) -> Any:
        return getattr(op, op_type)(x, **common)

    for more, expected in (({}, True), (default, True), (other, False)):
        node, scope = built(op_type, {**common, **more}, version)
        assert (matches(pattern, node, scope) is not None) == expected, more


def test_an_absent_bound_is_no_number() -> None:
    """Clip(x, max=6) is not Clip(x, min=0, max=6)."""
    for version in (11, 13):
        node, scope = built("Clip", {"max": 6.0}, version)
        assert matches(lambda x: op.Clip(x, min=0, max=6), node, scope) is None
        assert matches(lambda x: op.Clip(x, max=6), node, scope) is not None
        assert matches(lambda x: op.Clip(x, min=None, max=6), node, scope) is not None
        node, scope = built("Clip", {"min": 0.0, "max": 6.0}, version)
        assert matches(lambda x: op.Clip(x, min=0, max=6), node, scope) is not None
        assert matches(lambda x: op.Clip(x, min=None, max=6), node, scope) is None


def test_floats_are_compared_as_attributes_store_them() -> None:
    node, scope = built("LeakyRelu", {}, 16, alpha=0.1)
    assert matches(lambda x: op.LeakyRelu(x, alpha=0.1), node, scope) is not None
    assert matches(lambda x: op.LeakyRelu(x, alpha=0.1001), node, scope) is None
    node, scope = built("LayerNormalization", {}, 17, epsilon=1e-5)
    assert matches(lambda x: op.LayerNormalization(x, epsilon=1e-5), node, scope) is not None


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax", "Hardmax"])
def test_an_old_softmax_is_todays_where_its_axis_is_the_last(op_type: str) -> None:
    """Below opset 13 the default was 1, and all axes from it on were flattened into one."""

    def bare(x: Any) -> Any:
        return getattr(op, op_type)(x)

    def last(x: Any) -> Any:
        return getattr(op, op_type)(x, axis=2)

    def middle(x: Any) -> Any:
        return getattr(op, op_type)(x, axis=1)

    for pattern, version, rank, more, expected in [
        (bare, 12, 3, {}, False), (bare, 12, 2, {}, True),
        (bare, 12, 3, {"axis": 2}, True), (bare, 12, 3, {"axis": -1}, True),
        (bare, 12, None, {"axis": -1}, True), (bare, 12, None, {}, False), (bare, 13, 3, {}, True),
        (last, 12, 3, {"axis": 2}, True), (last, 12, 3, {"axis": -1}, True), (last, 13, 3, {}, True),
        (middle, 12, 3, {"axis": 1}, False), (middle, 12, 3, {}, False), (middle, 13, 3, {"axis": 1}, True),
    ]:  # fmt: skip
        node, scope = built(op_type, {}, version, rank=rank, **more)
        assert (matches(pattern, node, scope) is not None) == expected, (pattern.__name__, version, rank, more)


@pytest.mark.parametrize("spell", [*CONSTANT, *NOT_CONSTANT])
def test_constants_as_operands(spell: Spelling) -> None:
    graph = onnx.GraphProto(name="g")
    graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]))
    graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [2]))
    spell(graph, "c", 2.0)
    graph.node.append(helper.make_node("Mul", ["c", "x"], ["y"]))
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]))
    node, scope = model.graph[-1], Scope(model.graph, {"": 13}, Constants())
    expected = spell in CONSTANT
    assert (matches(lambda x: op.Mul(x, 2), node, scope) is not None) == expected
    assert (matches(lambda x: op.Mul(x, const(2.1, tolerance=0.1)), node, scope) is not None) == expected
    assert matches(lambda x: op.Mul(x, 2.1), node, scope) is None
    found = matches(lambda x, c: op.Mul(x, scalar(c)), node, scope)
    assert (found is not None) == expected
    assert found is None or found.c == 2.0


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        (-np.inf, -np.inf, True), (1.0, np.inf, False), (1.0, -np.inf, False), (np.inf, -np.inf, False),
        (np.inf, 1.0, False), (np.nan, 1.0, False), (0.0, 0.0, True), (1e-30, 0.0, False), (-0.0, 0.0, True),
    ],
)  # fmt: skip
def test_special_constants(value: float, wanted: float, expected: bool) -> None:
    node, scope = built("Clip", {}, 13)
    graph = scope.graph
    constant = ir.Value(name="c", const_value=ir.Tensor(np.asarray(value, np.float32)))
    graph.register_initializer(constant)
    node = ir.Node("", "Add", [graph.inputs[0], constant])
    graph.append(node)
    assert (matches(lambda x: op.Add(x, wanted), node, scope) is not None) == expected


BODY = """
<ir_version: 8, opset_import: ["": 13]>
g (float[2, 3] x, bool c) => (float y)
<int64[1] axes = {1}, float two = {2.0}>
{
    also = Identity(two)
    y = If (c) <
        then_branch = t () => (float a) { s = ReduceSum(x, axes) m = Mul(s, also) a = Identity(m) },
        else_branch = e () => (float b) <int64[1] own = {-1}>
            { s2 = ReduceSum(x, own) m2 = Mul(s2, two) b = Identity(m2) }
    >
}
"""


def test_constants_of_outer_graphs() -> None:
    model = ir.from_proto(onnx.parser.parse_model(BODY))
    seen = 0
    for body in model.graph.subgraphs():
        scope = Scope(body, {"": 13}, Constants())
        node = next(n for n in body if n.op_type == "Mul")
        assert matches(lambda x: op.Mul(op.ReduceSum(x, axes=(1,)), 2), node, scope) is not None
        assert matches(lambda x: op.Mul(op.ReduceSum(x, axes=(0,)), 2), node, scope) is None
        seen += 1
    assert seen == 2


FUNCTION = """
<ir_version: 8, opset_import: ["": 17, "local": 1]>
g (float[2, 3] x) => (float[2, 3] y) { y = local.F <slope = 0.5> (x) }
<domain: "local", opset_import: ["": 17]>
F <slope> (a) => (b) { l = LeakyRelu <alpha: float = @slope> (a) b = LeakyRelu <alpha = 0.5> (l) }
"""


def test_an_attribute_of_the_enclosing_function_is_unknown() -> None:
    model = ir.from_proto(onnx.parser.parse_model(FUNCTION))
    function = next(iter(model.functions.values()))
    scope = Scope(function.graph, {"": 17}, Constants(), is_function=True)
    first, second = function.graph
    assert read_parameter(first, "alpha", 17, scope.constants) is UNKNOWN
    for pattern, on_second in [
        (lambda x: op.LeakyRelu(x), False), (lambda x, a: op.LeakyRelu(x, alpha=a), True),
        (lambda x: op.LeakyRelu(x, alpha=0.5), True), (lambda x, a: op.LeakyRelu(x, alpha=optional(a)), True),
    ]:  # fmt: skip
        assert matches(pattern, first, scope) is None
        assert (matches(pattern, second, scope) is not None) == on_second


@pytest.mark.parametrize("op_type", sorted(COMMUTATIVE))
def test_commutative_operators_match_in_any_order(op_type: str) -> None:
    graph = ir.Graph([ir.Value(name="x"), ir.Value(name="z")], [], nodes=[], name="g")
    x, z = graph.inputs
    inner = ir.Node("", "Neg", [x])
    nodes = [ir.Node("", op_type, [inner.outputs[0], z]), ir.Node("", op_type, [z, inner.outputs[0]])]
    graph.extend([inner, *nodes])
    scope = Scope(graph, {"": 18}, Constants())
    for node in nodes:
        found = matches(lambda a, b: getattr(op, op_type)(op.Neg(a), b), node, scope)
        assert found is not None
        assert (found.a, found.b) == (x, z)


def test_commutative_operators_of_many_operands() -> None:
    graph = ir.Graph([ir.Value(name=f"x{i}") for i in range(6)], [], nodes=[], name="g")
    kinds = ["Neg", "Relu", "Abs", "Sqrt", "Exp", "Log"]
    made = [ir.Node("", kind, [value]) for kind, value in zip(kinds, graph.inputs, strict=True)]
    node = ir.Node("", "Sum", [made[i].outputs[0] for i in (3, 5, 0, 2, 4, 1)])
    graph.extend([*made, node])
    scope = Scope(graph, {"": 18}, Constants())

    def pattern(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> Any:
        return op.Sum(op.Neg(a), op.Relu(b), op.Abs(c), op.Sqrt(d), op.Exp(e), op.Log(f))

    found = matches(pattern, node, scope)
    assert found is not None
    assert [found.a, found.b, found.c, found.d, found.e, found.f] == list(graph.inputs)
    assert matches(lambda a, b, c, d, e: op.Sum(op.Neg(a), op.Neg(b), c, d, e, op.Exp(a)), node, scope) is None


def test_defaults_of_unknown_operators() -> None:
    assert defaults("NoSuchOperator", 13) == {}
    _, scope = built("Clip", {}, 13)
    custom = ir.Node("custom", "Thing", [scope.graph.inputs[0]], [ir.AttrInt64("k", 0)])
    scope.graph.append(custom)
    thing = op.domain("custom").Thing
    assert matches(lambda x: thing(x), custom, scope) is None
    assert matches(lambda x: thing(x, k=0), custom, scope) is not None
    assert matches(lambda x: thing(x, k=0, j=0), custom, scope) is None  # nobody knows what leaving j out means
