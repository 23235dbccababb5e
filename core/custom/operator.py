"""What a custom operator is: its inputs, its parameters, and its meaning in standard operators."""

from __future__ import annotations

import abc
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

DOMAIN = "onnx_rewrite"
"""The domain of the operators of this project."""

PLUGIN_ATTRIBUTES = frozenset({"plugin_namespace", "plugin_version"})
"""What TensorRT's parser reads to find a plugin; of no meaning to anybody else."""


class Unreadable(Exception):
    """A node of a known operator that does not say all that is needed; the message says what."""


@dataclass(frozen=True)
class Call:
    """A node, read: what it is given, by role.

    Attributes:
        operator: What is computed.
        operands: Values by role; those that are absent are left out. `onnx_ir.Value` where the IR was read, names
            where a protobuf was.
        parameters: All parameters by name, those that are not given with their defaults.
    """

    operator: CustomOp
    operands: Mapping[str, Any]
    parameters: Mapping[str, Any]

    def operand(self, role: str) -> Any:
        """The value of a role, or None."""
        return self.operands.get(role)


@dataclass(frozen=True)
class Alike:
    """A standard operator whose result has the dtype and the shape of a call's.

    Attributes:
        op_type: The operator.
        operands: Roles of the call.
        attributes: Its attributes.
    """

    op_type: str
    operands: Sequence[str]
    attributes: Mapping[str, Any]


class CustomOp(abc.ABC):
    """A custom operator.

    A subclass describes it; one instance is registered as an entry point of the group `onnx_rewrite.ops`, or with
    `register_op`. Its node is `domain::name`; the model-local function of that name has `body` as its body.

    Attributes:
        name: A name that no standard operator and no built-in plugin of TensorRT has: its parser ignores domains.
        domain: The domain of the node.
        inputs: Roles of the inputs, in order.
        required: How many of them must be there.
        parameters: Names and defaults; None: the parameter must be given. Numbers, text, or tuples of them.
        since: Lowest opset of the standard operators that `body` can be written in.
        version: What TensorRT calls the plugin's version.
    """

    name: ClassVar[str]
    domain: ClassVar[str] = DOMAIN
    inputs: ClassVar[tuple[str, ...]]
    required: ClassVar[int]
    parameters: ClassVar[Mapping[str, Any]] = {}
    since: ClassVar[int]
    version: ClassVar[str] = "1"

    @abc.abstractmethod
    def body(self, operands: Mapping[str, Any], parameters: Mapping[str, Any], opset: int) -> Any:
        """Writes the meaning with `onnx_rewrite.op` and returns the result.

        Args:
            operands: Values by role, of unknown types; None for a role that is absent.
            parameters: Plain values; or, where the function serves all calls, references to its attributes, which can
                be used as attributes of nodes (a `Constant` with value_ints, say, from opset 12 on).
            opset: Of the standard operators; at least `since`.
        """

    @abc.abstractmethod
    def alike(self, call: Call) -> Alike:
        """A standard operator whose result has the dtype and the shape of the call's."""

    def exact(self, call: Call) -> Alike | None:
        """The standard operator that is the same, in some opset; None where there is none."""
        del call
        return None

    def complete(self, parameters: dict[str, Any], call: Mapping[str, Any]) -> dict[str, Any]:
        """Settles what exporters leave open in the parameters that were read.

        Args:
            parameters: As read; what was not given is missing or has its default.
            call: Operands by role, each with `shape` where that is known (a tuple, or None).

        Raises:
            Unreadable: They make no sense.
        """
        del call
        return parameters

    def node(self, *operands: Any, **parameters: Any) -> Any:
        """In a replacement: the operator's own node, as TensorRT finds its plugin by.

        Args:
            operands: All inputs, in order: a function of a model has no optional ones.
            parameters: All parameters.
        """
        from onnx_rewrite.pattern import op

        make = getattr(op.domain(self.domain), self.name)
        return make(*operands, **parameters, plugin_namespace=self.domain, plugin_version=self.version)

    def adapters(self) -> Path | None:
        """The table of adapters that ships with the operator: `adapters.json` beside its module, if there is one."""
        module = sys.modules[type(self).__module__]
        file = getattr(module, "__file__", None)
        table = None if file is None else Path(file).with_name("adapters.json")
        return table if table is not None and table.is_file() else None

    @property
    def title(self) -> str:
        """Domain and name in one."""
        return f"{self.domain}::{self.name}"
