"""What `diff` finds, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Change:
    """One fact in words, before and after; None where it is absent."""

    name: str
    before: str | None
    after: str | None


@dataclass
class TensorChange:
    """An initializer that is new, gone, or other.

    Attributes:
        name: Its name; that of a body is preceded by the body's scope.
        before: Its dtype and shape, None where it is new.
        after: Its dtype and shape, None where it is gone.
        values: How far the values are apart, where dtype and shape are the same.
    """

    name: str
    before: str | None
    after: str | None
    values: str | None = None


@dataclass
class NodeEntry:
    """A node that only one of the models has.

    Attributes:
        scope: "" for the main graph, "NODE.ATTRIBUTE/" for a body, "DOMAIN::FUNCTION/" for a function.
        name: Its name, or that of its first output.
        operator: Its operator, with the domain outside the standard.
        outputs: Names of what it gives.
        replacement: Index in `Difference.replacements` of what explains it, or None.
    """

    scope: str
    name: str
    operator: str
    outputs: list[str]
    replacement: int | None = None


@dataclass
class NodeChange:
    """A node that both models have, and that is not the same in them.

    Attributes:
        scope: As in `NodeEntry`.
        name: Its name in B, or that of its first output.
        operator_before: Its operator in A.
        operator: Its operator in B.
        details: What else differs: "name", "inputs", "outputs", attributes by their names, "metadata KEY",
            "doc string".
        replacement: As in `NodeEntry`.
    """

    scope: str
    name: str
    operator_before: str
    operator: str
    details: list[Change]
    replacement: int | None = None


@dataclass
class Replacement:
    """What a pass replaced, as it recorded on the new nodes.

    Attributes:
        pass_name: The pass; "opset" where the model's opset was raised.
        scope: As in `NodeEntry`.
        sources: Names of the nodes of A that it names.
        others: How many more nodes of A fed only these and are gone too, Constants aside.
        constants: The same for Constants.
        nodes: The nodes of B, "OPERATOR 'NAME'".
    """

    pass_name: str
    scope: str
    sources: list[str]
    others: int
    constants: int
    nodes: list[str]


@dataclass
class OperatorCount:
    """How many nodes of an operator there are, bodies and functions included."""

    operator: str
    before: int
    after: int


@dataclass
class Difference:
    """What differs between two models, A and B.

    Attributes:
        identical: They are the same bytes.
        same: Nothing below says anything: at most the order of nodes and initializers, notes on values, the encoding of
            numbers, the place of external data or the file's format differ.
        properties: IR version, producer, model version, graph's name, doc strings, and the like.
        opsets: Opset imports; the name is the domain.
        inputs: Inputs by name, with their types.
        outputs: Outputs by name, with their types.
        metadata: metadata_props of the model and of its graph.
        nodes_before: Number of nodes of A, bodies and functions included.
        nodes_after: The same of B.
        nodes_unchanged: How many of them are the same in both.
        nodes_added: Nodes of B alone; the nodes in their bodies are not listed.
        nodes_removed: Nodes of A alone, likewise.
        nodes_changed: Nodes of both with another operator, attributes, inputs, name, metadata.
        replacements: What passes recorded.
        operators: Operators whose number differs.
        initializers_before: Number of initializers of A.
        initializers_after: The same of B.
        initializers: Those that are new, gone, or other.
        functions: Model-local functions that are new, gone, or other.
        value_types: Stated types of values inside, where both models have the value.
    """

    identical: bool = False
    same: bool = True
    properties: list[Change] = field(default_factory=list[Change])
    opsets: list[Change] = field(default_factory=list[Change])
    inputs: list[Change] = field(default_factory=list[Change])
    outputs: list[Change] = field(default_factory=list[Change])
    metadata: list[Change] = field(default_factory=list[Change])
    nodes_before: int = 0
    nodes_after: int = 0
    nodes_unchanged: int = 0
    nodes_added: list[NodeEntry] = field(default_factory=list[NodeEntry])
    nodes_removed: list[NodeEntry] = field(default_factory=list[NodeEntry])
    nodes_changed: list[NodeChange] = field(default_factory=list[NodeChange])
    replacements: list[Replacement] = field(default_factory=list[Replacement])
    operators: list[OperatorCount] = field(default_factory=list[OperatorCount])
    initializers_before: int = 0
    initializers_after: int = 0
    initializers: list[TensorChange] = field(default_factory=list[TensorChange])
    functions: list[Change] = field(default_factory=list[Change])
    value_types: list[Change] = field(default_factory=list[Change])

    def __bool__(self) -> bool:
        """Whether there is a difference."""
        return not self.same
