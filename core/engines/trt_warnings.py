"""What TensorRT's warnings mean, and how they are said in a line each."""

from __future__ import annotations

from collections.abc import Sequence

CAUSES = (
    ("layernorm", "layernorm-fp16", "a decomposed layernorm runs in FP16 and may overflow; the pass 'ln' fuses it"),
    ("int64 weights", "int64", "INT64 weights were cast to INT32"),
    ("outside the range of int32", "int64", "INT64 weights were cast to INT32"),
    ("subnormal", "weights-fp16", "some weights are subnormal or overflow in FP16"),
    ("converting weights between types", "weights-fp16", "some weights are subnormal or overflow in FP16"),
    ("weights are affected by this issue", "weights-fp16", "some weights are subnormal or overflow in FP16"),
    ("please modify the weights or retrain", "weights-fp16", "some weights are subnormal or overflow in FP16"),
    ("for the list of affected weights", "weights-fp16", "some weights are subnormal or overflow in FP16"),
    ("insufficient memory", "memory", "tactics were skipped for lack of workspace memory"),
    ("requested amount of gpu memory", "memory", "tactics were skipped for lack of workspace memory"),
    ("no implementation", "implementation", "a layer has no implementation in the precision or format asked for"),
    ("dynamic range", "ranges", "tensors have no scale for INT8"),
)
"""Words of a warning in lower case, a short name, and what it means."""

_NODES = "detected layernorm nodes in fp16:"
_LENGTH = 200


def understood(text: str) -> tuple[str, str]:
    """The short name of a warning's cause and what it means; empty where that is not known."""
    low = text.lower()
    return next(((name, means) for words, name, means in CAUSES if words in low), ("", ""))


def condensed(texts: Sequence[str]) -> tuple[str, ...]:
    """One line for each cause, the library's own words for others; the log has all of them in full."""
    found: dict[str, str] = {}
    nodes: set[str] = set()
    for text in texts:
        words = " ".join(text.split())
        _, meaning = understood(words)
        at = words.lower().find(_NODES)
        if at >= 0:
            nodes.update(name.strip() for name in words[at + len(_NODES) :].split(","))
        line = meaning or (words if len(words) <= _LENGTH else f"{words[:_LENGTH]}...")
        found.setdefault(line, line)
    return tuple(f"{line} ({len(nodes)} nodes)" if nodes and "layernorm" in line else line for line in found)
