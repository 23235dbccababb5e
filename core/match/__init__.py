"""Finds patterns in graphs."""

from onnx_rewrite.match.interior import Blocked, blocked, entangled, raise_blocked
from onnx_rewrite.match.match import Match, Refused, Settled
from onnx_rewrite.match.matcher import Matcher, key_of
from onnx_rewrite.match.state import Constant, Failure, Scope

__all__ = [
    "Blocked",
    "Constant",
    "Failure",
    "Match",
    "Matcher",
    "Refused",
    "Scope",
    "Settled",
    "blocked",
    "entangled",
    "key_of",
    "raise_blocked",
]
