"""torch's TorchScript exporter: nodes of our own choice for any operator, or any `torch.autograd.Function`.

    import onnx_rewrite as rw

    rw.torch.register("aten::asinh", "Asinh", opset=9)
    rw.torch.register(MyFunction, "my.domain::MyOp", attributes={"alpha": "slope"})
    torch.onnx.export(model, args, "model.onnx", dynamo=False)

It stands in the place of `torch.onnx.register_custom_op_symbolic` and of a `symbolic` written by hand. torch is
imported when this is called.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from onnx_rewrite.errors import UsageError

Names = str | Sequence[str]

# How torch calls the types of what is no tensor, and the letter by which its exporter reads a constant of it.
_LETTERS = {"int": "i", "SymInt": "i", "float": "f", "bool": "b", "str": "s", "List[int]": "is", "List[float]": "fs"}
_SUFFIXES = {int: "i", bool: "i", float: "f", str: "s"}


class Registered(AbstractContextManager["Registered"]):
    """What was registered; leaving it as a context, or `undo`, takes it back."""

    def __init__(self, undo: Callable[[], None]) -> None:
        self._undo: Callable[[], None] | None = undo

    def undo(self) -> None:
        """Takes it back, once."""
        if self._undo is not None:
            self._undo()
            self._undo = None

    def __exit__(self, *_: object) -> None:
        self.undo()


def register(
    target: Any,
    node: str,
    *,
    inputs: Sequence[str] | None = None,
    attributes: Mapping[str, Names] | None = None,
    present_if: Mapping[str, str] | None = None,
    opset: int = 9,
) -> Registered:
    """Makes torch's TorchScript exporter (`torch.onnx.export(..., dynamo=False)`) write a node for an operator.

    Args:
        target: An operator as torch calls it, "aten::asinh" or "torchvision::deform_conv2d", or a subclass of
            `torch.autograd.Function`.
        node: What is written: "Asinh" for a standard operator, "my.domain::MyOp" for one of your own.
        inputs: Arguments that become inputs, in the node's order; default: all tensors, in the target's order.
        attributes: For each attribute of the node an argument, or several that make up a list; default: every
            argument that is no tensor under its own name, and none for a standard operator.
        present_if: For an input the argument that is false where the input is there and says nothing.
        opset: The opset from which on it is written so.

    Returns:
        What can be undone.

    Raises:
        UsageError: torch is not installed, or the target has no such argument. During an export: an argument that
            becomes an attribute is not known before the model runs.
    """
    torch = _torch()
    domain, _, name = node.rpartition("::")
    if not name or (not domain and "::" in node):
        raise UsageError(f"'{node}' names no node", hint='"Asinh" for a standard operator, or "my.domain::MyOp"')
    writer = _Writer(torch, target, node, inputs, attributes, dict(present_if or {}))
    if isinstance(target, type) and issubclass(target, torch.autograd.Function):
        writer.check(writer.arguments())
        before = target.__dict__.get("symbolic")
        target.symbolic = staticmethod(writer)  # type: ignore[attr-defined]

        def restore() -> None:
            if before is None:
                del target.symbolic  # type: ignore[attr-defined]
            else:
                target.symbolic = before  # type: ignore[attr-defined]

        return Registered(restore)
    if not isinstance(target, str) or target.count("::") != 1:
        raise UsageError(
            f"{target!r} is no operator of torch", hint='"aten::asinh", or a subclass of torch.autograd.Function'
        )
    known = writer.arguments()
    if known:  # the library that brings the operator may be imported later
        writer.check(known)
    torch.onnx.register_custom_op_symbolic(target, writer, opset)
    return Registered(lambda: torch.onnx.unregister_custom_op_symbolic(target, opset))


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except (ImportError, OSError) as error:
        raise UsageError(f"torch does not import: {error}", hint="pip install torch") from error


class _Writer:
    """A symbolic function: writes the node for one call."""

    def __init__(
        self,
        torch: Any,
        target: Any,
        node: str,
        inputs: Sequence[str] | None,
        attributes: Mapping[str, Names] | None,
        present_if: Mapping[str, str],
    ) -> None:
        self._torch, self._target, self._node = torch, target, node
        self._inputs, self._attributes, self._present_if = inputs, attributes, present_if
        self.__name__ = "symbolic"

    @property
    def _called(self) -> str:
        return self._target if isinstance(self._target, str) else self._target.__qualname__

    def arguments(self) -> dict[str, str]:
        """Names of the target's arguments and torch's words for their types ("" where they are not known)."""
        if not isinstance(self._target, str):
            parameters = list(inspect.signature(self._target.forward).parameters)
            return dict.fromkeys(parameters[1:], "")  # the first is the context
        schemas = self._torch._C._jit_get_schemas_for_operator(self._target)
        if not schemas:
            return {}
        return {one.name: str(one.type) for one in schemas[0].arguments}

    def check(self, known: Mapping[str, str]) -> None:
        """Every argument that was named is one.

        Raises:
            UsageError: One is not.
        """
        named = [*(self._inputs or ()), *self._present_if, *self._present_if.values()]
        for names in (self._attributes or {}).values():
            named += [names] if isinstance(names, str) else names
        for name in named:
            if name not in known:
                raise UsageError(f"{self._called} has no argument '{name}'", hint=f"it has {', '.join(known)}")

    def __call__(self, g: Any, *values: Any) -> Any:
        types = self.arguments() or {f"argument{i}": "" for i in range(len(values))}
        self.check(types)
        given = dict(zip(types, values, strict=False))
        tensors = [name for name in given if self._is_tensor(given[name], types[name])]
        names = list(tensors if self._inputs is None else self._inputs)
        absent = {role for role, switch in self._present_if.items() if not self._constant(given, types, switch)}
        operands = [None if name in absent or self._is_none(given.get(name)) else given[name] for name in names]
        while operands and operands[-1] is None:
            operands.pop()
        operands = [self._nothing(g) if value is None else value for value in operands]
        attributes = self._attributes
        if attributes is None:
            custom = "::" in self._node
            attributes = {name: name for name in given if custom and name not in tensors and name not in names}
        written: dict[str, Any] = {}
        for attribute, sources in attributes.items():
            single = isinstance(sources, str)
            parts = [self._constant(given, types, name) for name in ((sources,) if single else sources)]
            value = parts[0] if single else parts
            if value is not None:
                written[f"{attribute}_{_suffix(value)}"] = value
        return g.op(self._node, *operands, **written)

    def _is_tensor(self, value: Any, kind: str) -> bool:
        if kind:
            return "Tensor" in kind
        return isinstance(value, self._torch._C.Value) and not self._is_number(value)

    def _is_number(self, value: Any) -> bool:
        node = value.node()
        return node.kind() == "prim::Constant" and not isinstance(value.type(), self._torch._C.TensorType)

    def _is_none(self, value: Any) -> bool:
        return value is None or bool(self._torch.onnx.symbolic_helper._is_none(value))

    def _nothing(self, g: Any) -> Any:
        none = g.op("prim::Constant")
        none.setType(self._torch._C.OptionalType.ofTensor())
        return none

    def _constant(self, given: Mapping[str, Any], types: Mapping[str, str], name: str) -> Any:
        value = given.get(name)
        if not isinstance(value, self._torch._C.Value):
            return list(value) if isinstance(value, tuple) else value  # pyright: ignore[reportUnknownArgumentType]
        if self._is_none(value):
            return None
        kind = types[name].replace("Optional[", "").rstrip("]") if "List" not in types[name] else types[name]
        letter = next((sign for words, sign in _LETTERS.items() if words == kind), "")
        helper = self._torch.onnx.symbolic_helper
        found = helper._maybe_get_const(value, letter) if letter else helper._maybe_get_scalar(value)
        if isinstance(found, self._torch._C.Value):
            raise UsageError(f"{name} of {self._called} is computed when the model runs: it cannot be an attribute")
        return found.item() if hasattr(found, "item") else found


def _suffix(value: Any) -> str:
    items: Any = value if isinstance(value, list) else [value]
    for item in items:
        if type(item) not in _SUFFIXES:
            raise UsageError(f"{value!r} cannot be an attribute", hint="numbers, text, and lists of them can")
    return "f" if any(isinstance(item, float) for item in items) else _SUFFIXES[type(items[0])] if items else "i"
