"""`op`: writes operators, in a pattern and in a replacement alike.

`op.Add(a, b)` inside a pattern function describes a node; inside `replace` it makes one. Which of the two is
decided by what is being recorded at the moment, so that a pass reads the same on both sides.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Protocol

from onnx_rewrite.pattern.language import Apply, Output, as_pattern, making


class Recorder(Protocol):
    """Makes nodes of a replacement."""

    def make(self, op_type: str, domain: str, inputs: tuple[Any, ...], params: dict[str, Any], outputs: int) -> Any:
        """A new node; returns its output, or a tuple of several."""
        ...

    def like(self, node: Any, inputs: tuple[Any, ...], params: dict[str, Any]) -> Any:
        """A new node with the attributes of another."""
        ...


recording: ContextVar[Recorder | None] = ContextVar("onnx_rewrite_recording", default=None)


class _Operator:
    """One operator, or one of several, of one domain."""

    def __init__(self, domain: str, names: tuple[str, ...]) -> None:
        self._domain = domain
        self._names = names

    def __call__(self, *inputs: Any, outputs: int = 1, **params: Any) -> Any:
        recorder = recording.get()
        if recorder is not None:
            if len(self._names) != 1:
                raise TypeError("a replacement needs one operator, not a choice of several")
            return recorder.make(self._names[0], self._domain, inputs, params, outputs)
        operands = tuple(as_pattern(i) for i in inputs)
        return Output(Apply(frozenset(self._names), self._domain, operands, params, outputs, home=making.get()))


class _Domain:
    """The operators of one domain, as attributes."""

    def __init__(self, domain: str) -> None:
        self._domain = domain

    def __getattr__(self, name: str) -> _Operator:
        if name.startswith("_"):
            raise AttributeError(name)
        return _Operator(self._domain, (name,))

    def one_of(self, *names: str) -> _Operator:
        """In a pattern: any of these operators."""
        return _Operator(self._domain, names)

    def domain(self, name: str) -> _Domain:
        """The operators of another domain: `op.domain("com.microsoft").Gelu(x)`."""
        return _Domain(name)

    def like(self, node: Any, *inputs: Any, **params: Any) -> Any:
        """In a replacement: the operator of a captured node with its attributes, on other operands.

        Args:
            node: A node captured by `.named(...)`.
            inputs: The operands; None for one that is left out.
            params: Parameters that differ.
        """
        recorder = recording.get()
        if recorder is None:
            raise TypeError("op.like belongs into a replacement")
        return recorder.like(node, inputs, params)


op = _Domain("")
