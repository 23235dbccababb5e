"""Near misses: one thing about an instance is changed, by name.

Each mutation is told a draft and a tape, changes the draft, and returns whether there was something to change. After
it the pass must leave the graph alone or still be right; which of the two is its own affair.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from onnx_rewrite.opset.forms import AXIS_OF_INPUT, COMMUTATIVE, PARAMETERS
from onnx_rewrite.opset.view import has_attribute
from onnx_rewrite.testing.draft import Draft, Node, Unfit, Value
from onnx_rewrite.testing.inference import schema_of
from onnx_rewrite.testing.spelling import array_of
from onnx_rewrite.testing.tape import Tape
from onnx_rewrite.verify.dtypes import largest

Mutation = Callable[[Draft, Tape], bool]

MUTATIONS: dict[str, Mutation] = {}
"""All mutations by name."""

_FLOATS = frozenset({1, 10, 11, 16})


def mutation(name: str) -> Callable[[Mutation], Mutation]:
    """Decorator: makes a mutation known under a name.

    A mutation takes a `Draft` and a `Tape`, changes the draft, and returns whether it did. `draft.nodes` are in an
    order in which they can run, `draft.node(...)` appends one; shapes are inferred anew afterwards, and what is not
    legal is drawn again.

    Raises:
        ValueError: There is one of this name.
    """

    def known(function: Mutation) -> Mutation:
        if name in MUTATIONS and MUTATIONS[name].__qualname__ != function.__qualname__:
            raise ValueError(f"there is a mutation called '{name}'")
        MUTATIONS[name] = function
        return function

    return known


def _back(tape: Tape, values: list[Any]) -> Any:
    return values[-1 - tape.below(len(values))]


def _constants(draft: Draft, *, data: bool = True) -> list[tuple[Node, int, Value]]:
    """Constant operands of an instance's nodes; with `data`, not those that are parameters."""
    found: list[tuple[Node, int, Value]] = []
    for node in draft.nodes:
        forms = PARAMETERS.get(node.op_type, {}).values()
        for at, value in enumerate(node.inputs):
            parameter = any(form.position == at and form.kind in ("ints", "int", "bool") for form in forms)
            if value is not None and value.constant and not (data and parameter):
                found.append((node, at, value))
    return found


@mutation("extra consumer")
def _extra_consumer(draft: Draft, tape: Tape) -> bool:
    interior = draft.interior()
    if not interior:
        return False
    draft.outputs += draft.node("Identity", [_back(tape, interior)])
    return True


@mutation("interior value is an output")
def _interior_output(draft: Draft, tape: Tape) -> bool:
    interior = draft.interior()
    if interior:
        draft.outputs.append(_back(tape, interior))
    return bool(interior)


@mutation("axis shifted")
def _axis_shifted(draft: Draft, tape: Tape) -> bool:
    step = tape.one((-1, 1))
    found: list[Callable[[], None]] = []
    for node in draft.nodes:
        name = AXIS_OF_INPUT.get(node.op_type)
        if name is None:
            continue
        x = node.inputs[0]
        rank = len(x.shape) if x is not None else 0
        if name in node.attributes and rank > 1:
            found.append(lambda node=node, name=name, rank=rank: _shift(node, name, step, rank))
        form = PARAMETERS.get(node.op_type, {}).get(name)
        if form is not None and form.position < len(node.inputs) and rank > 1:
            value = node.inputs[form.position]
            if value is not None and value.array is not None and value.array.size < rank:
                found.append(lambda n=node, f=form, v=value, r=rank: _shift_input(draft, n, f.position, v, step, r))
    if not found:
        return False
    if tape.chance(50):  # all of them, so that they still agree
        for change in found:
            change()
    else:
        _back(tape, found)()
    return True


def _shift(node: Node, name: str, step: int, rank: int) -> None:
    value = node.attributes[name]
    if isinstance(value, tuple):
        node.attributes[name] = tuple((a + step) % rank for a in value)  # pyright: ignore[reportUnknownVariableType]
    else:
        node.attributes[name] = (value + step) % rank


def _shift_input(draft: Draft, node: Node, at: int, value: Value, step: int, rank: int) -> None:
    assert value.array is not None
    node.inputs[at] = draft.constant((value.array + step) % rank)


@mutation("keepdims flipped")
def _keepdims_flipped(draft: Draft, tape: Tape) -> bool:
    nodes = [n for n in draft.nodes if n.op_type.startswith(("Reduce", "Arg"))]
    if not nodes:
        return False
    chosen = nodes if tape.chance(50) else [_back(tape, nodes)]
    for node in chosen:
        node.attributes["keepdims"] = 1 - node.attributes.get("keepdims", 1)
    return True


@mutation("constant became an input")
def _constant_became_input(draft: Draft, tape: Tape) -> bool:
    found = _constants(draft, data=not tape.chance(20))
    if not found:
        return False
    _, _, value = _back(tape, found)
    value.array, value.given = None, True
    return True


@mutation("initializer is an input too")
def _overridable(draft: Draft, tape: Tape) -> bool:
    found = _constants(draft, data=not tape.chance(20))
    if not found:
        return False
    _, _, value = _back(tape, found)
    value.spelling = "overridable"
    return True


@mutation("broadcast up")
def _broadcast_up(draft: Draft, tape: Tape) -> bool:
    found = [(n, at, v) for n, at, v in _constants(draft) if n.op_type in COMMUTATIVE or n.op_type in ("Sub", "Div")]
    if not found:
        return False
    node, at, value = _back(tape, found)
    assert value.array is not None
    axis = tape.below(value.array.ndim + 1)
    wider = np.stack([value.array, value.array + value.array.dtype.type(1)], axis)
    node.inputs[at] = draft.constant(wider, dtype=value.dtype)
    return True


@mutation("rank changed")
def _rank_changed(draft: Draft, tape: Tape) -> bool:
    found = _constants(draft)
    if not found:
        return False
    node, at, value = _back(tape, found)
    assert value.array is not None
    if tape.chance(30) and value.array.size == 1 and value.array.ndim:
        array = value.array.reshape(())
    else:
        other = max((len(v.shape) for v in node.inputs if v is not None and v is not value), default=0)
        ones = 1 + tape.below(max(1, other - value.array.ndim + 1))
        array = value.array.reshape((1,) * ones + value.array.shape)
    node.inputs[at] = draft.constant(array, dtype=value.dtype)
    return True


@mutation("dtype swapped")
def _dtype_swapped(draft: Draft, tape: Tape) -> bool:
    dtype = tape.one((11, 10, 6, 1))
    changed = False
    for value in [v for v in draft.read() if v.dtype in _FLOATS]:
        changed |= value.dtype != dtype
        value.dtype = dtype
        if value.array is not None:
            with np.errstate(all="ignore"):
                value.array = array_of(value.array, dtype)
    return changed


@mutation("a cast in between")
def _cast(draft: Draft, tape: Tape) -> bool:
    interior = [v for v in draft.interior() if v.dtype in _FLOATS]
    if not interior:
        return False
    value = _back(tape, interior)
    at = next(i for i, n in enumerate(draft.nodes) if any(o is value for o in n.outputs))
    readers = draft.consumers(value)
    down = tape.one((10, 6, 11))
    (narrow,) = draft.node("Cast", [value], to=down)
    (back,) = draft.node("Cast", [narrow], to=value.dtype)
    draft.nodes[at + 1 : at + 1] = [draft.nodes.pop(-2), draft.nodes.pop()]
    for node in readers:
        node.inputs = [back if v is value else v for v in node.inputs]
    return True


@mutation("bounds reversed")
def _bounds_reversed(draft: Draft, tape: Tape) -> bool:
    changed = False
    for node in draft.nodes:
        if node.op_type == "Clip":
            if len(node.inputs) == 3:
                node.inputs[1:] = node.inputs[:0:-1]
                changed = True
            lo, hi = node.attributes.pop("min", None), node.attributes.pop("max", None)
            node.attributes.update({k: v for k, v in (("min", hi), ("max", lo)) if v is not None})
            changed |= lo is not None or hi is not None
    singles = [v for _, _, v in _constants(draft) if v.array is not None and v.array.size == 1]
    if not changed and len(singles) >= 2 and singles[0].dtype == singles[-1].dtype:
        one, other = singles[0], singles[-1]
        one.array, other.array = other.array, one.array
        one.shape, other.shape = other.shape, one.shape
        changed = one is not other
    return changed


@mutation("training_mode")
def _training_mode(draft: Draft, tape: Tape) -> bool:
    for node in draft.nodes:
        if node.op_type == "BatchNormalization" and has_attribute(node.op_type, "training_mode", draft.opset):
            node.attributes["training_mode"] = 1
            if len(node.outputs) == 1:
                for at in (3, 4):
                    source = node.inputs[at]
                    assert source is not None
                    node.outputs.append(Value(draft.name("v"), source.dtype, source.shape))
            return True
        if node.op_type == "Dropout" and draft.opset >= 12:
            node.inputs += [None] * (3 - len(node.inputs))
            node.inputs[2] = draft.constant(np.asarray(True))
            return True
    return False


@mutation("empty optional input")
def _empty_optional(draft: Draft, tape: Tape) -> bool:
    found: list[tuple[Node, int]] = []
    for node in draft.nodes:
        schema = schema_of(node.op_type, draft.opset, "") if node.domain == "" else None
        for at, formal in enumerate(() if schema is None else schema.inputs):
            optional = formal.option == type(formal.option).Optional
            given = at < len(node.inputs) and node.inputs[at] is not None
            if optional and (given or at == len(node.inputs)):
                found.append((node, at))
    if not found:
        return False
    node, at = _back(tape, found)
    node.inputs[at : at + 1] = [None]
    return True


@mutation("captured by a body")
def _captured_by_a_body(draft: Draft, tape: Tape) -> bool:
    interior = draft.interior()
    if not interior:
        return False
    value = _back(tape, interior)
    draft.outputs += _if_reading(draft, value)
    return True


def _if_reading(draft: Draft, value: Value) -> list[Value]:
    """An If whose branches read a value of the graph around them."""
    from onnx import helper

    made = Value(draft.name("v"), value.dtype, value.shape)
    inner = helper.make_tensor_value_info(f"{made.name}_in", value.dtype, value.shape)
    draft.symbolic = 0
    graphs = [
        helper.make_graph([helper.make_node("Identity", [value.name], [inner.name])], name, [], [inner])
        for name in ("then", "else")
    ]
    condition = draft.input(9, ())
    node = Node("If", "", [condition], [made], {"then_branch": graphs[0], "else_branch": graphs[1]})
    draft.nodes.append(node)
    draft.captured.append((made, value))
    return [made]


@mutation("another number")
def _another_number(draft: Draft, tape: Tape) -> bool:
    found = [v for _, _, v in _constants(draft) if v.array is not None and v.array.size]
    if not found:
        return False
    value = _back(tape, found)
    assert value.array is not None
    change = tape.one((1.0, 0.5, -1.0))
    array = value.array.copy()
    array[(0,) * array.ndim] += array.dtype.type(change) if array.dtype.kind != "u" else array.dtype.type(1)
    value.array = array if array.ndim and tape.chance(50) else array_of(value.array + array.dtype.type(1), value.dtype)
    return True


@mutation("a number that is not finite")
def _not_finite(draft: Draft, tape: Tape) -> bool:
    found = [v for _, _, v in _constants(draft) if v.array is not None and v.array.size and v.dtype in _FLOATS]
    if not found:
        return False
    value = _back(tape, found)
    assert value.array is not None
    array = value.array.copy()
    array[(0,) * array.ndim] = tape.one((np.nan, np.inf, -np.inf))
    value.array = array
    return True


@mutation("huge numbers")
def _huge(draft: Draft, tape: Tape) -> bool:
    found = {id(v): v for _, _, v in _constants(draft) if v.array is not None and v.dtype in _FLOATS}
    if not found:
        return False
    choice = tape.below(8)
    chosen = list(found.values()) if choice == 7 else [_back(tape, list(found.values()))]
    with np.errstate(all="ignore"):
        for value in chosen:
            assert value.array is not None
            numbers = value.array.astype(np.float64)
            top = 0.9 * largest(value.dtype) / max(float(np.abs(numbers).max(initial=0.0)), 1e-3)
            value.array = array_of(numbers * (top, top, top, top, top, 1e20, 1e-20, 1e20)[choice], value.dtype)
    return True


@mutation("operands swapped")
def _operands_swapped(draft: Draft, tape: Tape) -> bool:
    found = [n for n in draft.nodes if n.op_type in ("Sub", "Div", "Pow", "MatMul", "Less", "Greater")]
    if not found:
        return False
    node = _back(tape, found)
    node.inputs[:2] = node.inputs[1::-1]
    return True


@mutation("attribute given")
def _attribute_given(draft: Draft, tape: Tape) -> bool:
    """An attribute that the pattern may not speak of gets a value that is not its default."""
    found: list[tuple[Node, str, Any]] = []
    for node in draft.nodes:
        if node.domain != "" or node.op_type in ("If", "Loop"):
            continue
        for name, attribute in schema_of(node.op_type, draft.opset, "").attributes.items():
            kinds = type(attribute.type)
            if attribute.type == kinds.FLOAT:
                found.append((node, name, tape.one((0.5, 2.0, 1e-2))))
            elif attribute.type == kinds.INT and name not in ("axis", "to", "training_mode", "keepdims"):
                found.append((node, name, 1 - int(node.attributes.get(name, 0) != 0)))
            elif name == "pads" and node.inputs[0] is not None:
                found.append((node, name, tuple(1 for _ in node.inputs[0].shape[2:]) * 2))
            elif name == "auto_pad":
                found.append((node, name, tape.one(("SAME_UPPER", "VALID", "SAME_LOWER"))))
    if not found:
        return False
    node, name, value = _back(tape, found)
    if name == "auto_pad":
        node.attributes.pop("pads", None)
    if name == "pads":
        node.attributes.pop("auto_pad", None)
    node.attributes[name] = value
    return True


@mutation("operator swapped")
def _operator_swapped(draft: Draft, tape: Tape) -> bool:
    families = (
        ("Add", "Sub", "Mul", "Div"),
        ("Min", "Max"),
        ("ReduceMean", "ReduceMax", "ReduceSum"),
        ("Relu", "Abs", "Neg"),
        ("Sqrt", "Exp", "Reciprocal"),
    )
    found = [(n, family) for n in draft.nodes for family in families if n.op_type in family]
    found = [(n, family) for n, family in found if len(n.inputs) <= 2 or n.op_type not in families[0]]
    if not found:
        return False
    node, family = _back(tape, found)
    reduction = node.op_type.startswith("Reduce")
    if reduction and ("axes" in node.attributes) != (draft.opset < 13):
        raise Unfit("the axes have another form")
    node.op_type = tape.one([name for name in family if name != node.op_type])
    return True


@mutation("another value in one place")
def _another_value(draft: Draft, tape: Tape) -> bool:
    """One operand that the instance shares with another place becomes an input of its own."""
    places: list[tuple[Node, int, Value]] = []
    for node in draft.nodes:
        for at, value in enumerate(node.inputs):
            if value is not None and not value.constant and len(draft.consumers(value)) > 1:
                places.append((node, at, value))
    if not places:
        return False
    node, at, value = _back(tape, places)
    node.inputs[at] = draft.input(value.dtype, value.shape)
    return True


@mutation("a copy that differs")
def _twice_otherwise(draft: Draft, tape: Tape) -> bool:
    """A node that the instance reads in several places stands there twice, with one operand of the second changed."""
    places = [
        (at, reader)
        for at, node in enumerate(draft.nodes)
        if node.part is not None and len(node.outputs) == 1 and node.op_type not in ("If", "Loop")
        for reader in draft.consumers(node.outputs[0])[1:]
    ]
    if not places:
        return False
    at, reader = _back(tape, places)
    node = draft.nodes[at]
    operands = [i for i, v in enumerate(node.inputs) if v is not None and v.dtype in _FLOATS]
    if not operands:
        return False
    changed, old = list(node.inputs), node.outputs[0]
    place = _back(tape, operands)
    other = changed[place]
    assert other is not None
    changed[place] = draft.input(other.dtype, other.shape)
    copy = Node(
        node.op_type, node.domain, changed, [Value(draft.name("v"), old.dtype, old.shape)], dict(node.attributes),
        node.part,
    )  # fmt: skip
    draft.nodes.insert(at + 1, copy)
    reader.inputs = [copy.outputs[0] if v is old else v for v in reader.inputs]
    return True


@mutation("groups")
def _groups(draft: Draft, tape: Tape) -> bool:
    for node in draft.nodes:
        if node.op_type not in ("Conv", "ConvTranspose") or node.attributes.get("group", 1) != 1:
            continue
        weight = node.inputs[1]
        if weight is None or weight.array is None or len(draft.consumers(weight)) > 1:
            continue
        axis = 1 if node.op_type == "Conv" else 0
        channels = weight.array.shape[1 - axis] if node.op_type == "Conv" else weight.array.shape[0]
        if weight.array.shape[axis] % 2 or channels % 2 or node.op_type != "Conv":
            continue
        half = weight.array.shape[1] // 2
        weight.array = np.ascontiguousarray(weight.array[:, :half])
        weight.shape = weight.array.shape
        node.attributes["group"] = 2
        return True
    return False
