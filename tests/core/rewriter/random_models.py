"""Random models of small integers in float32, exact in any order of summation, and rules that are right."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_rewrite.match import Match
from onnx_rewrite.pattern import const, op
from onnx_rewrite.registry import Pass
from onnx_rewrite.rewriter.rule import Rule

SHAPE = (2, 2)


class Tape:
    """Bytes as choices; an exhausted tape gives zeros."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def below(self, n: int) -> int:
        """A number from 0 to n-1."""
        byte = self.data[self.at] if self.at < len(self.data) else 0
        self.at += 1
        return byte % n

    def one(self, *choices: Any) -> Any:
        """One of several."""
        return choices[self.below(len(choices))]

    def chance(self, percent: int) -> bool:
        """True this often, never at the end of the tape."""
        return self.below(100) >= 100 - percent


def info(name: str) -> onnx.ValueInfoProto:
    """A float tensor's."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(SHAPE))


class _Drawing:
    """One model being drawn."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.values = 0
        self.taken: set[str] = set()
        self.old = tape.chance(15)  # IR version 3: every initializer is an input
        self.functions = not self.old and tape.chance(20)
        self.duplicates = tape.chance(15)
        self.nodes: set[str] = set()

    def name(self) -> str:
        """A value's name, now and then one that a rewriter would invent."""
        self.values += 1
        plain = f"v{self.values}"
        wish = self.tape.one(plain, plain, plain, f"n{self.values}_rule_0", f"n{self.values}_out", f"n{self.values}")
        name = plain if wish in self.taken else wish
        self.taken.add(name)
        return name

    def node(self, kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
        name = self.tape.one(f"n{self.values}", f"n{self.values}", "", "same", f"n{self.values - 1}_Neg")
        if name in self.nodes and not self.duplicates:
            name = ""
        self.nodes.add(name)
        node = helper.make_node(kind, inputs, outputs, name=name or None, **attributes)
        if self.tape.chance(20):
            node.doc_string = f"about {outputs[0]}"
            node.metadata_props.add(key="origin", value=self.tape.one("a", "b"))
        return node

    def block(self, visible: list[str], count: int, depth: int) -> tuple[list[onnx.NodeProto], list[str]]:
        """Nodes, and the values that they make."""
        tape, nodes, own = self.tape, list[onnx.NodeProto](), list[str]()

        def operand() -> str:
            return (visible + own)[-1 - tape.below(min(tape.one(2, 4, 99), len(visible) + len(own)))]

        for _ in range(count):
            kind = tape.one(
                "Neg", "Add", "Relu", "Sub", "Sum", "Identity", "Double", "Split", "If", "Call", "Pair", "Fork"
            )
            if kind == "If" and depth:
                made = self.name()
                then = self.body(visible + own, depth - 1)
                other = self.body(visible + own, depth - 1)
                nodes.append(self.node("If", ["condition"], [made], then_branch=then, else_branch=other))
            elif kind == "Split":
                one, two, made = self.name(), self.name(), self.name()
                nodes.append(self.node("Split", [operand()], [one, two], axis=0))
                nodes.append(self.node("Concat", [two, one], [made], axis=0))
            elif kind == "Call" and self.functions and depth == 2:
                made, x, y = self.name(), operand(), operand()
                nodes.append(self.node("F", [x, y], [made], domain="local"))
            elif kind in ("Pair", "Fork"):  # two values of one, with something between that may need the first
                first, between, made, x = self.name(), self.name(), self.name(), operand()
                nodes.append(self.node("Relu" if kind == "Fork" else "Neg", [x], [first]))
                nodes.append(self.node(tape.one("Neg", "Relu", "Identity"), [tape.one(first, operand())], [between]))
                last = tape.one(x, between, operand())
                nodes.append(
                    self.node("Add", [first, last], [made]) if kind == "Fork" else self.node("Relu", [last], [made])
                )
                own += tape.one([first], [between, first], [])
            elif kind in ("Add", "Sub", "Sum"):
                made, x, y = self.name(), operand(), operand()
                nodes.append(self.node(kind, [x, y], [made]))
            elif kind in ("Neg", "Relu", "Identity"):
                made, x = self.name(), operand()
                nodes.append(self.node(kind, [x], [made]))
            else:
                made, x = self.name(), operand()
                nodes.append(self.node("Mul", [x, "two"] if tape.chance(50) else ["two", x], [made]))
            own.append(made)
        return nodes, own

    def body(self, visible: list[str], depth: int) -> onnx.GraphProto:
        """A branch; it may have initializers of its own."""
        initializers: list[onnx.TensorProto] = []
        if self.tape.chance(30) and not self.old:
            name = self.name()
            initializers.append(numpy_helper.from_array(np.full(SHAPE, 3, np.float32), name))
            visible = [*visible, name]
        nodes, own = self.block(visible, 1 + self.tape.below(4), depth)
        return helper.make_graph(nodes, "branch", [], [info(own[-1])], initializers)


def draw_model(tape: Tape) -> onnx.ModelProto:
    """A model of two float inputs and a condition, with one to three outputs."""
    drawing = _Drawing(tape)
    old = drawing.old
    inputs = [info("x0"), info("x1"), helper.make_tensor_value_info("condition", TensorProto.BOOL, [])]
    initializers = [numpy_helper.from_array(np.full(SHAPE, 2, np.float32), "two")]
    initializers.append(numpy_helper.from_array(np.full(SHAPE, 1, np.float32), "one"))
    if old:
        inputs += [info("two"), info("one")]
    nodes, made = drawing.block(["two", "one", "x0", "x1"], 2 + tape.below(9), 2)
    outputs = [made[-1]]
    for _ in range(tape.below(3)):
        extra = tape.one(*made)
        if extra not in outputs:
            outputs.append(extra)
    graph = helper.make_graph(nodes, "random", inputs, [info(o) for o in outputs], initializers)
    imports = [helper.make_opsetid("", 8 if old else 17)]
    functions: list[onnx.FunctionProto] = []
    if drawing.functions:
        body = [
            helper.make_node("Neg", ["a"], ["m"]),
            helper.make_node("Neg", ["m"], ["n"]),
            helper.make_node("Sub", ["n", "b"], ["s"]),
            helper.make_node("Add", ["s", "s"], ["r"]),
        ]
        functions.append(helper.make_function("local", "F", ["a", "b"], ["r"], body, [helper.make_opsetid("", 17)]))
        imports.append(helper.make_opsetid("local", 1))
    model = helper.make_model(graph, opset_imports=imports, functions=functions, producer_name="random")
    model.ir_version = 3 if old else 9
    return model


class Subtraction(Pass):
    """Sub(a, b) is Add(a, Neg(b))."""

    name = "sub"

    def pattern(self, a: Any, b: Any) -> Any:
        return op.Sub(a, b)

    def replace(self, m: Match) -> Any:
        return op.Add(m.a, op.Neg(m.b))


class Twice(Pass):
    """Add(x, x) is Mul(x, 2)."""

    name = "twice"

    def pattern(self, x: Any) -> Any:
        return op.Add(x, x)

    def replace(self, m: Match) -> Any:
        return op.Mul(m.x, 2.0)


class DoubleNegation(Pass):
    """Neg(Neg(x)) is x: the replacement is a value that is there already."""

    name = "neg"

    def pattern(self, x: Any) -> Any:
        return op.Neg(op.Neg(x))

    def replace(self, m: Match) -> Any:
        return m.x


class DoubleRelu(Pass):
    """Relu(Relu(x)) is the inner one: the replacement is an interior value, which others may use as well."""

    name = "relu"
    interior = "keep"

    def pattern(self, x: Any, inner: Any) -> Any:
        return op.Relu(op.Relu(x).named("inner"))

    def replace(self, m: Match) -> Any:
        return m.inner.outputs[0]


class Chain(Pass):
    """Add(Add(a, b), c) is Sum(a, b, c)."""

    name = "chain"

    def pattern(self, a: Any, b: Any, c: Any) -> Any:
        return op.Add(op.Add(a, b), c)

    def replace(self, m: Match) -> Any:
        return op.Sum(m.a, m.b, m.c)


class Halves(Pass):
    """Concat of the swapped halves is Gather of the rows: both outputs of Split are inside."""

    name = "halves"

    def pattern(self, x: Any) -> Any:
        one, two = op.Split(x, axis=0, outputs=2)
        return op.Concat(two, one, axis=0)

    def replace(self, m: Match) -> Any:
        return op.Gather(m.x, np.asarray([1, 0], np.int64), axis=0)


class SignedPair(Pass):
    """Two outputs of two nodes: Neg(x) and Relu(x) become Mul(x, -1) and Max(x, 0)."""

    name = "pair"

    def pattern(self, x: Any) -> Any:
        return op.Neg(x), op.Relu(x)

    def replace(self, m: Match) -> Any:
        return op.Mul(m.x, -1.0), op.Max(m.x, 0.0)


class Diamond(Pass):
    """Two outputs, one of which the other needs: r = Relu(x) and Add(r, y); not convex where y needs r."""

    name = "diamond"

    def pattern(self, x: Any, y: Any) -> Any:
        r = op.Relu(x)
        return op.Add(r, y), r

    def replace(self, m: Match) -> Any:
        r = op.Max(m.x, 0.0)
        return op.Sum(r, m.y), r


class Identities(Pass):
    """Identity(x) is x, also of an input or as an output; Mul(x, 1) too, but there is none."""

    name = "identity"

    def pattern(self, x: Any) -> Any:
        return op.Identity(x)

    def check(self, m: Match) -> None:
        if m.output.is_graph_output():
            from onnx_rewrite.match import Refused

            raise Refused("it gives the output its name")

    def replace(self, m: Match) -> Any:
        return m.x


class Same(Pass):
    """A pattern of two equal outputs, handed one value for both: x - 2 and x - 2."""

    name = "same"

    def pattern(self, x: Any) -> Any:
        return op.Sum(x, const(2.0)), op.Add(x, const(2.0))

    def replace(self, m: Match) -> Any:
        total = op.Max(op.Sum(m.x, 2.0))
        return total, total


RULES: list[type[Rule]] = [
    Subtraction, Twice, DoubleNegation, DoubleRelu, Chain, Halves, SignedPair, Diamond, Identities,
]  # fmt: skip
