"""Random small graphs, and patterns that resemble them, from a tape of bytes.

One tape is one hypothesis draw: fast, and it still shrinks, since an exhausted tape reads as zeros, and 0 is always
the simplest choice. Operands are drawn as the distance back from the newest value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.match import Scope
from onnx_rewrite.pattern import const, constant, either, op, optional, repeat, rest, scalar
from onnx_rewrite.pattern.language import Apply, Either, Optional, Output, Repeat, Rest, Traced, Var, leaves, shown_name
from onnx_rewrite.pattern.tracing import _certain, _end

OPSET = 18
LOCAL = "test.local"
FLOAT = ir.TensorType(ir.DataType.FLOAT)


class Tape:
    """Bytes as choices."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def below(self, n: int) -> int:
        """A number from 0 to n-1."""
        byte = self.data[self.at] if self.at < len(self.data) else 0
        self.at += 1
        return byte % n

    def one(self, *choices: Any) -> Any:
        """One of several, the first if the tape is at its end."""
        return choices[self.below(len(choices))]

    def chance(self, percent: int) -> bool:
        """True this often; never at the end of the tape."""
        return self.below(100) >= 100 - percent


class DrawnGraph:
    """A graph of one to ten nodes; part of it may be the body of an If.

    Attributes:
        graph: Where to match: the main graph, or the body.
        scope: Its scope.
    """

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.constants: list[ir.Value] = []
        inputs = [self._typed(f"x{i}") for i in range(2)]
        self.values = list(inputs)
        overridable = self._initializer("given", np.asarray([[2.0]], np.float32))
        del overridable.meta["array"]
        inputs.append(overridable)
        for number, content in enumerate([[[2.0]], [[0.5]], [[1.0, 2.0]], [[2.0]]]):
            self._initializer(f"c{number}", np.asarray(content, np.float32))
        outer: list[ir.Node] = []
        nodes = [node for _ in range(1 + tape.below(10)) for node in self._node()]
        nodes = nodes or [self._made("Neg", [inputs[0]], [], _meta([inputs[0]]))]
        if tape.chance(15):
            cut = tape.below(len(nodes))
            outer, nodes = nodes[:cut], nodes[cut:]
        initializers = self.constants
        if outer or tape.chance(5):
            self.graph = ir.Graph([], [], nodes=nodes, name="body")
            branch = ir.Node("", "If", [inputs[0]], [ir.AttrGraph("then_branch", self.graph)])
            branch.meta.update(params={}, defaults={}, operands=[inputs[0]])
            self.whole = ir.Graph(inputs, [], nodes=[*outer, branch], initializers=initializers, name="outer")
        else:
            self.graph = self.whole = ir.Graph(inputs, [], nodes=nodes, initializers=initializers, name="main")
        last = nodes[-1].outputs[0]
        self.graph.outputs.append(last)
        self.scope = Scope(self.graph, {"": OPSET, LOCAL: 1}, Constants())

    def _typed(self, name: str) -> ir.Value:
        return ir.Value(name=name, type=FLOAT, shape=ir.Shape([2, 2]))

    def _initializer(self, name: str, array: np.ndarray[Any, Any]) -> ir.Value:
        value = ir.Value(
            name=name, type=ir.TensorType(ir.DataType.from_numpy(array.dtype)), shape=ir.Shape(array.shape)
        )
        value.const_value = ir.Tensor(array)
        value.meta["array"] = array
        self.constants.append(value)
        if array.dtype == np.float32:
            self.values.insert(0, value)
        return value

    def _ints(self, *numbers: int) -> ir.Value:
        return self._initializer(f"i{len(self.constants)}", np.asarray(numbers, np.int64))

    def operand(self) -> ir.Value:
        """The newest value, or one further back."""
        return self.values[-1 - self.tape.below(min(self.tape.one(2, 4, 99), len(self.values)))]

    def _node(self) -> list[ir.Node]:
        tape = self.tape
        kind = tape.one(
            "Neg", "Add", "Relu", "Sub", "Mul", "Again", "Constant", "Identity", "Max", "Sum", "LeakyRelu", "Clip",
            "ReduceSum", "Softmax", "Split", "Concat", "Gemm", "Mix", "Onward", "Onward",
        )  # fmt: skip
        if kind in ("Again", "Onward"):  # an equal duplicate of the newest node, or one more like it on top
            newest = next((v.producer() for v in reversed(self.values) if v.producer() is not None), None)
            if newest is None or newest.op_type == "Constant":
                return []
            if kind == "Onward":
                return self._onward(newest)
            inputs, attributes = list(newest.inputs), list(newest.attributes.values())
            count = len(newest.outputs)
            node = self._made(newest.op_type, inputs, attributes, newest.meta, newest.domain, count)
            for mine, other in zip(node.outputs, newest.outputs, strict=True):
                mine.meta.update(other.meta)
            return [node]
        if kind == "Constant":
            array = np.asarray(tape.one([[2.0]], [[0.5]], [[1.0, 2.0]]), np.float32)
            node = self._made("Constant", [], [ir.AttrTensor("value", ir.Tensor(array))], _meta([]))
            node.outputs[0].meta["array"] = array
            return [node]
        x = self.operand()
        if kind in ("Neg", "Relu", "Identity"):
            node = self._made(kind, [x], [], _meta([x]))
            if kind == "Identity" and "array" in x.meta:
                node.outputs[0].meta["array"] = x.meta["array"]
            if kind == "Neg" and "array" in x.meta:
                node.outputs[0].meta["array"] = -x.meta["array"]
            return [node]
        if kind in ("Add", "Sub", "Mul", "Max", "Sum", "Concat"):
            count = 2 if kind in ("Add", "Sub", "Mul") else tape.one(2, 3, 1)
            operands = [x, *(self.operand() for _ in range(count - 1))]
            if all("array" in v.meta for v in operands):  # a constant too, which the reference need not work out
                return []
            if kind == "Concat":
                axis = tape.one(1, 0, -1)
                meta = _meta(operands, {"axis": axis % 2}, {"axis": None})
                return [self._made("Concat", operands, [ir.AttrInt64("axis", axis)], meta)]
            return [self._made(kind, operands, [], _meta(operands))]
        if kind == "LeakyRelu":
            alpha = tape.one(None, 0.01, 0.1)
            attributes = [] if alpha is None else [ir.AttrFloat32("alpha", float(np.float32(alpha)))]
            return [self._made(kind, [x], attributes, _meta([x], {"alpha": alpha or 0.01}, {"alpha": 0.01}))]
        if kind == "Softmax":
            axis = tape.one(None, 1, 0, -1)
            attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
            meaning = 1 if axis is None else axis % 2
            return [self._made(kind, [x], attributes, _meta([x], {"axis": meaning}, {"axis": 1}))]
        if kind == "Clip":
            bounds = [tape.one(None, self.operand()), tape.one(None, self.operand())]
            meaning = {name: _bound(value) for name, value in zip(("min", "max"), bounds, strict=True)}
            if all("array" in v.meta for v in (x, *bounds) if v is not None):  # a constant too
                return []
            return [self._made(kind, [x, *bounds], [], _meta([x], meaning, {"min": None, "max": None}))]
        if kind == "ReduceSum":
            axes, keep = tape.one((1,), (-1,), (0, 1), (1, 0), None), tape.one(None, 1, 0)
            attributes = [] if keep is None else [ir.AttrInt64("keepdims", keep)]
            inputs = [x] if axes is None else [x, self._ints(*axes)]
            meaning = {"axes": tuple(sorted(a % 2 for a in axes or (0, 1))), "keepdims": 1 if keep is None else keep}
            return [self._made(kind, inputs, attributes, _meta([x], meaning, {"axes": (0, 1), "keepdims": 1}))]
        if kind == "Split":
            sizes = tape.one((1, 1), None)
            attributes = [] if sizes else [ir.AttrInt64("num_outputs", 2)]
            inputs = [x, self._ints(*sizes)] if sizes else [x]
            meaning = {"split": sizes, "axis": 0, "num_outputs": None if sizes else 2}
            defaults = {"split": None, "axis": 0, "num_outputs": None}
            return [self._made(kind, inputs, attributes, _meta([x], meaning, defaults), outputs=2)]
        if kind == "Gemm":
            operands = [x, self.operand(), *tape.one([], [self.operand()])]
            flag = tape.one(None, 1, 0)
            attributes = [] if flag is None else [ir.AttrInt64("transB", flag)]
            meta = _meta(operands, {"transB": flag or 0, "alpha": 1.0}, {"transB": 0, "alpha": 1.0})
            return [self._made(kind, operands, attributes, meta)]
        operands = [x, tape.one(None, self.operand()), self.operand()]
        return [self._made("Mix", operands, [], _meta(operands), LOCAL)]

    def _onward(self, newest: ir.Node) -> list[ir.Node]:
        operands = list(newest.meta["operands"])
        at = self.tape.below(len(operands))
        operands[at] = newest.outputs[-1]
        if newest.op_type == "Identity" or all(v is None or "array" in v.meta for v in operands):
            return []
        inputs = [*operands, *newest.inputs[len(operands) :]]
        meta = {**newest.meta, "operands": operands}
        attributes = list(newest.attributes.values())
        return [self._made(newest.op_type, inputs, attributes, meta, newest.domain, len(newest.outputs))]

    def _made(
        self,
        op_type: str,
        inputs: list[Any],
        attributes: list[ir.Attr],
        meta: Any,
        domain: str = "",
        outputs: int = 1,
    ) -> ir.Node:
        node = ir.Node(domain, op_type, inputs, attributes, num_outputs=outputs, name=f"n{len(self.values)}")
        node.meta.update(meta)
        for value in node.outputs:
            value.name, value.type, value.shape = f"v{len(self.values)}", FLOAT, ir.Shape([2, 2])
            self.values.append(value)
        return node


def _meta(operands: list[Any], params: dict[str, Any] | None = None, defaults: Any = None) -> dict[str, Any]:
    return {"operands": operands, "params": params or {}, "defaults": defaults or {}}


def _bound(value: ir.Value | None) -> Any:
    if value is None:
        return None
    array = value.meta.get("array")
    return "unknown" if array is None or array.size != 1 else array.item()


class DrawnPattern:
    """A pattern that follows a graph from some node, and now and then departs from it."""

    def __init__(self, tape: Tape, drawn: DrawnGraph) -> None:
        self.tape = tape
        self.names: list[str] = []
        self.parts: dict[ir.Value, Any] = {}
        nodes = [n for n in drawn.graph if n.op_type not in ("Constant", "If", "Identity")]
        self.traced: Traced | None = None
        two = tape.chance(40)
        self.steps = not two  # with two outputs, what they share might be within a step that is never taken
        self.holes: list[Var] = []
        self.own: list[Var] = []
        if not nodes:
            return
        anchor = nodes[-1 - tape.below(len(nodes))]
        roots = [self.root(anchor.outputs[tape.below(len(anchor.outputs))])]
        if two:
            other = nodes[-1 - tape.below(len(nodes))]
            roots.append(self.root(other.outputs[-1]))
            if not _shared(roots) or roots[0] is roots[1] or _end(roots[0]) == _end(roots[1]):
                roots.pop()
        if all(isinstance(leaf, Output) for root in roots for leaf in leaves(root)):
            self.traced = Traced(tuple(roots), frozenset(self.names))

    def root(self, value: ir.Value) -> Any:
        return self.follow(value, self.tape.one(2, 3, 1, 4), bare=False)

    def follow(self, value: ir.Value, depth: int, *, bare: bool = True) -> Any:
        """A pattern of `value`."""
        tape = self.tape
        known = self.parts.get(value)
        if known is not None and (bare or isinstance(known, (Output, Either, Repeat))) and not tape.chance(20):
            return known
        made = self.alternatives(value, depth, bare) if tape.chance(25) else self.plain(value, depth, bare)
        self.parts[value] = made
        return made

    def alternatives(self, value: ir.Value, depth: int, bare: bool) -> Any:
        right, wrong = self.plain(value, depth, bare), self.plain(value, depth - 1, bare)
        if self.tape.chance(40):  # as `maybe` does it: one branch holds the other
            wrong = self.plain(value, depth, bare)
            if isinstance(wrong, Output) and wrong.apply.inputs and isinstance(right, Output):
                right = Output(wrong.apply, wrong.index)
                node = value.producer()
                inner = next((v for v in node.inputs if v is not None), None) if node is not None else None
                wrong = wrong if inner is None else self.plain(inner, depth, bare)
        return either(wrong, right) if self.tape.chance(50) else either(right, wrong)

    def plain(self, value: ir.Value, depth: int, bare: bool) -> Any:
        tape = self.tape
        node = value.producer()
        if node is not None and node.op_type == "Identity" and tape.chance(90) and node.inputs[0] is not None:
            return self.follow(node.inputs[0], depth, bare=bare)
        if bare and (depth <= 0 or node is None or tape.chance(15)):
            return self.leaf(value)
        if node is None or node.op_type in ("Constant", "Identity", "If"):
            return self.leaf(value) if bare else op.Neg(self.leaf(value))
        if self.steps and len(self.holes) < 2 and node.meta["operands"] and tape.chance(35):
            return self.repeated(node, value.index() or 0, depth, bare)
        return self.apply(node, value.index() or 0, depth)

    def repeated(self, node: ir.Node, index: int, depth: int, bare: bool) -> Any:
        """A chain of nodes like this one."""
        tape = self.tape
        at = tape.below(len(node.meta["operands"]))

        def step(v: Any, own: Any) -> Any:
            return self.within([v, own], lambda: self.apply(node, index, depth, hole=at))

        def deep_step(v: Any, deep: Any) -> Any:
            return step(v, deep)

        below, most = node.meta["operands"][at], tape.one(None, 1, 2, 3)
        while (inner := below and below.producer()) and inner.op_type in (node.op_type, "Identity") and tape.chance(80):
            operands = inner.meta["operands"]
            below = operands[at] if at < len(operands) else operands[0]
        if below is None:
            return self.apply(node, index, depth)
        least = tape.one(1, 2) if most not in (None, 1) else 1
        return repeat(
            deep_step if self.holes else step,
            self.follow(below, depth - 1),
            least=tape.one(0, least) if bare else least,
            most=most,
        )

    def within(self, names: list[Var], build: Any) -> Any:
        """What is built for a step: it may use what is there, but nobody else what it makes."""
        kept, self.parts = self.parts, dict(self.parts)
        self.holes.append(names[0])
        if len(names) > 1:
            self.own.append(names[1])
        made = build()
        if len(names) > 1:
            self.own.pop()
            self.names.append(shown_name(names[1].name))
        self.holes.pop()
        self.parts = kept
        return made

    def rest(self, operands: list[Any], depth: int) -> Any:
        """Any number of operands."""
        tape = self.tape
        kind = tape.one("any", "constant", "number", "node") if self.steps and len(self.holes) < 2 else "any"
        first = next((v for v in operands if v is not None and v.producer() is not None), None)
        each: Any = {"constant": constant, "number": scalar}.get(kind)
        if kind == "node" and first is not None:

            def each(v: Any) -> Any:
                return self.within([v], lambda: self.plain(first, depth - 1, bare=True))

        return rest(self.var("t"), each, least=tape.one(0, 1), most=tape.one(None, 3))

    def leaf(self, value: ir.Value) -> Any:
        tape = self.tape
        if self.holes and tape.chance(50):
            return tape.one(self.holes[-1], *self.own[-1:])
        array = value.meta.get("array")
        if array is not None and tape.chance(70):
            if array.size == 1:
                return tape.one(const(array.item()), scalar(self.var("s")), constant(self.var("c")), const(0.5))
            return constant(self.var("c"))
        return self.var()

    def var(self, kind: str = "v") -> Var:
        """A new capture, or one of the same kind that is there already."""
        known = [name for name in self.names if name.startswith(kind)]
        if known and self.tape.chance(30):
            return Var(self.tape.one(*known))
        self.names.append(f"{kind}{len(self.names)}")
        return Var(self.names[-1])

    def apply(self, node: ir.Node, index: int, depth: int, hole: int | None = None) -> Any:
        tape = self.tape
        inputs: list[Any] = []
        for number, operand in enumerate(node.meta["operands"]):
            if number == hole:
                inputs.append(self.holes[-1])
                continue
            part = self.var() if operand is None else self.follow(operand, depth - 1)
            inputs.append(optional(part) if operand is None or tape.chance(15) else part)
        if tape.chance(10):
            inputs.append(optional(self.var()))
        if len(inputs) > 1 and tape.chance(30):
            inputs.reverse()
        if not any(isinstance(i, Optional) for i in inputs) and tape.chance(45):
            start = tape.below(len(inputs) + 1)
            end = start + tape.below(len(inputs) - start + 1)
            if not any(i is v for v in self.holes for i in inputs[start:end]):
                inputs[start:end] = [self.rest(node.meta["operands"][start:end], depth)]
        params: dict[str, Any] = {}
        for name, value in node.meta["params"].items():
            if tape.chance(60):
                wanted = (
                    self.var("s") if tape.chance(50) else tape.one(None, 0) if value in (None, "unknown") else value
                )
                params[name] = optional(wanted) if tape.chance(30) else wanted
        names = [node.op_type]
        if tape.chance(10):
            names.append(tape.one("Add", "Neg", "Sub", "Mul", "Relu"))
            params = {} if node.meta["params"] else params
        domain = op.domain(LOCAL) if node.domain else op
        made = domain.one_of(*names)(*inputs, outputs=len(node.outputs), **params)
        if tape.chance(10):
            self.names.append(f"n{len(self.names)}")
            made = made.named(self.names[-1])
        return Output(made.apply, index)


def _shared(roots: list[Any]) -> bool:
    """Whether two outputs always have a node in common that reads a captured value: one is found from the other."""
    first, second = (_certain(root, {}) for root in roots)
    return any(_anchored(apply) for apply in first & second)


def _anchored(apply: Apply) -> bool:
    return any(isinstance(p, (Var, Rest)) or (isinstance(p, Output) and _anchored(p.apply)) for p in apply.inputs)
