"""The compiled matcher finds exactly what a brute-force one finds, in the same order."""

from __future__ import annotations

from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from onnx_rewrite.match import Match, Matcher, key_of

from .drawn import DrawnGraph, DrawnPattern, Tape
from .reference import seen, solutions


def compiled(matcher: Matcher, drawn: DrawnGraph, anchor: Any, *, explained: bool = False) -> list[Any]:
    """All matches in order: accepting none makes the matcher try them all."""
    found: list[Any] = []
    journal = [] if explained else None

    def note(match: Match) -> bool:
        found.append(seen({name: getattr(match, name) for name in match._names}, match.nodes, match.outputs))
        return False

    assert not matcher.match(drawn.scope, anchor, note, journal)
    assert found or journal != []
    return list(dict.fromkeys(found))


@settings(max_examples=3500)
@given(st.binary(min_size=40, max_size=200))
def test_every_match_of_the_reference_in_its_order(tape: bytes) -> None:
    source = Tape(tape)
    drawn = DrawnGraph(source)
    traced = DrawnPattern(source, drawn).traced
    if traced is None:
        return
    matcher = Matcher(traced)
    present = {key_of(node) for node in drawn.graph}
    total = 0
    for anchor in drawn.graph:
        expected = list(dict.fromkeys(solutions(traced, drawn.graph, anchor)))
        if key_of(anchor) not in matcher.anchors or not matcher.required <= present:
            assert not expected
            continue
        got = compiled(matcher, drawn, anchor)
        assert compiled(matcher, drawn, anchor, explained=True) == got
        if len(traced.roots) == 1:
            assert got == expected
        else:  # candidates for the other outputs come in no promised order
            assert set(got) == set(expected)
        total += len(got)
    event(f"outputs {len(traced.roots)}, matches {min(total, 3)}")
