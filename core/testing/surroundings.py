"""What stands around instances: nodes before and behind them, values that are needed elsewhere too."""

from __future__ import annotations

from collections.abc import Collection

from onnx_rewrite.testing.draft import Draft, Unfit, Value
from onnx_rewrite.testing.tape import Tape

UNARY = ("Neg", "Abs", "Sigmoid", "Tanh", "Softplus", "Identity", "Sin", "Relu", "Softsign")
"""None makes a factor of an absolute error: Exp of 80 would ask for digits that what stands before it never had."""

BINARY = ("Add", "Mul", "Sub", "Max", "Div")


def surroundings(draft: Draft, tape: Tape, pool: list[Value], avoided: Collection[str]) -> list[Value]:
    """A few nodes on values that are there, or on new inputs; returns what they give.

    Args:
        draft: What they are added to.
        tape: Where choices come from.
        pool: The values that are there, the newest last.
        avoided: Operators that the pattern has; they are drawn less often.
    """
    made: list[Value] = []
    for _ in range(tape.more(40, 3)):
        x = _operand(draft, tape, [*pool, *made])
        made += _node(draft, tape, x, [*pool, *made], avoided)
    return made


def _operand(draft: Draft, tape: Tape, values: list[Value]) -> Value:
    """One of the values, counted back from the newest, or a new input."""
    if values and not tape.chance(25):
        return values[-1 - tape.below(len(values))]
    return draft.input(1, tuple(2 + tape.below(3) for _ in range(2 + tape.below(3))))


def _node(draft: Draft, tape: Tape, x: Value, others: list[Value], avoided: Collection[str]) -> list[Value]:
    free = [n for n in UNARY if n not in avoided] or ["Identity"]
    name = tape.one(UNARY) if tape.chance(15) else tape.one(free)
    try:
        if tape.chance(25):
            twin = next((v for v in reversed(others) if v.shape == x.shape and v.dtype == x.dtype), x)
            return draft.node(tape.one(BINARY), [x, twin])
        return draft.node(name, [x])
    except Unfit:
        return draft.node("Identity", [x])


def between(draft: Draft, tape: Tape, x: Value) -> Value:
    """A node on `x` of one instance's surroundings, drawn while the instance is; returns what it gives."""
    try:
        return draft.node(tape.one(UNARY), [x])[0]
    except Unfit:
        return draft.node("Identity", [x])[0]


def attach(draft: Draft, tape: Tape, ends: list[Value], avoided: Collection[str]) -> None:
    """Decides what the graph returns: what nobody reads, and now and then a value that is read, too."""
    for value in [v for v in ends if tape.chance(30)]:
        _node(draft, tape, value, [value], avoided)
    interior = draft.interior()
    if interior and tape.chance(25):  # an interior value is needed outside the instance
        tapped = interior[-1 - tape.below(len(interior))]
        if tape.chance(50):
            draft.story.append("an interior value is an output")
            draft.outputs.append(tapped)
        else:
            draft.story.append("an interior value has another consumer")
            draft.node("Neg" if tapped.dtype in (1, 10, 11, 6, 7) else "Identity", [tapped])
    for node in draft.nodes:
        for value in node.outputs:
            unread = not draft.consumers(value)
            if (unread and (node.part is None or not _is_statistic(draft, value))) or (
                any(value is e for e in ends) and tape.chance(15)
            ):
                draft.outputs.append(value)
    if not draft.outputs:
        draft.outputs = list(ends)


def _is_statistic(draft: Draft, value: Value) -> bool:
    node = draft.producer(value)
    return node is not None and node.outputs[0] is not value
