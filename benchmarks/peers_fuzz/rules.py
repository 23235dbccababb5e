"""Rules for peers that apply rules: the pattern is a few nodes of a random graph, the replacement the same reworded.

The nodes are chosen at random, so that now and then the pattern has several outputs, is no convex part of the graph,
or stands there twice. The pattern is then looked for in a graph of other nodes too. A replacement means what it
replaces, exactly: a result that differs, is not sorted or has a cycle is the matcher's or the driver's doing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

INPUTS = ("x", "y")
OPERATORS = {"Neg": 1, "Abs": 1, "Relu": 1, "Add": 2, "Max": 2, "Sub": 2}
ROWS = 2
"""The first dimension of every value."""
Nodes = list[list[Any]]
"""Each node: operator, operands. An operand is the name of an input or the number of a node before."""


def draw(rng: np.random.Generator) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A graph, and a rule of some of its nodes; every third rule comes from another graph."""
    nodes = _nodes(rng, int(rng.integers(2, 6)))
    origin = nodes if rng.random() < 0.66 else _nodes(rng, int(rng.integers(2, 5)))
    chosen = sorted(rng.choice(len(origin), min(len(origin), int(rng.integers(2, 5))), replace=False).tolist())
    chosen = _connected(origin, chosen)
    rule = _rule(origin, chosen)
    rule["there"] = origin is nodes
    rule["alone"] = _stands_alone(rule, chosen, nodes)
    model = _model(nodes, rng)
    rule["alone"] &= len(model.graph.output) == 1  # else an interior value is needed outside
    rule["packed"] = len(rule["captures"]) > 1 and rng.random() < 0.4
    rule["text"] += ", packed" if rule["packed"] else ""
    return model, rule


def _nodes(rng: np.random.Generator, count: int) -> Nodes:
    made: Nodes = []
    for number in range(count):
        name = str(rng.choice(list(OPERATORS)))
        values = [*INPUTS, *range(number), *range(max(0, number - 2), number)]
        made.append([name, *(values[int(rng.integers(len(values)))] for _ in range(OPERATORS[name]))])
    return made


def _connected(nodes: Nodes, chosen: Sequence[int]) -> list[int]:
    """Those of the chosen nodes that hang together with the last one through values that they share."""
    found = {chosen[-1]}
    while True:
        values = {v for i in found for v in (i, *nodes[i][1:])}
        more = {i for i in chosen if i in values or values & set(nodes[i][1:])} - found
        if not more:
            return sorted(found)
        found |= more


def _rule(nodes: Nodes, chosen: list[int]) -> dict[str, Any]:
    """The pattern: operands that are not among its nodes are captures; what others read is an output too."""
    captures: dict[Any, str] = {}
    pattern: Nodes = []
    for i in chosen:
        operands = [
            chosen.index(v) if v in chosen else captures.setdefault(v, f"v{len(captures)}") for v in nodes[i][1:]
        ]
        pattern.append([nodes[i][0], *operands])
    outside = {v for i, node in enumerate(nodes) if i not in chosen for v in node[1:]}
    read = {v for node in pattern for v in node[1:]}
    ends = [k for k, i in enumerate(chosen) if k not in read or i in outside]
    shown = "; ".join(f"{k} = {node[0]}({', '.join(map(str, node[1:]))})" for k, node in enumerate(pattern))
    text = f"rule: {shown} gives {', '.join(map(str, ends))}"
    return {"nodes": pattern, "captures": list(captures.values()), "outputs": ends, "text": text}


def _stands_alone(rule: dict[str, Any], chosen: list[int], nodes: Nodes) -> bool:
    """Whether every matcher must find the pattern: it has one output, distinct nodes, and is the whole graph."""
    distinct = len({(node[0], *node[1:]) for node in rule["nodes"]}) == len(rule["nodes"])
    return len(rule["outputs"]) == 1 and distinct and len(chosen) == len(nodes)


def _model(nodes: Nodes, rng: np.random.Generator) -> onnx.ModelProto:
    def name(value: Any) -> str:
        return value if isinstance(value, str) else f"t{value}"

    protos = [helper.make_node(n[0], [name(v) for v in n[1:]], [f"t{i}"], name=f"n{i}") for i, n in enumerate(nodes)]
    read = {v for node in nodes for v in node[1:]}
    ends = [i for i in range(len(nodes)) if i not in read or rng.random() < 0.1]

    def info(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, 1, [ROWS, 3])

    inputs = [info(n) for n in INPUTS if n in read]
    graph = helper.make_graph(protos, "main", inputs, [info(f"t{i}") for i in ends])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# -- in the languages of peers


def _in_other_words(op: Any, name: str, operands: list[Any], minus: Any) -> Any:
    """The same number in other operators, to the bit."""
    if name == "Neg":
        return op.Mul(operands[0], minus)
    if name == "Abs":
        return op.Max(operands[0], op.Mul(operands[0], minus))
    if name == "Relu":
        return op.Max(operands[0], op.Sub(operands[0], operands[0]))
    if name == "Add":
        return op.Sum(*operands)
    if name == "Sub":
        return op.Sum(operands[0], op.Mul(operands[1], minus))
    return op.Mul(op.Min(*(op.Mul(v, minus) for v in operands)), minus)


def _written(op: Any, rule: dict[str, Any], given: dict[str, Any], make: Any) -> list[Any]:
    made: list[Any] = []
    for name, *operands in rule["nodes"]:
        made.append(make(op, name, [made[v] if isinstance(v, int) else given[v] for v in operands]))
    return [made[i] for i in rule["outputs"]]


def with_onnxscript(model: onnx.ModelProto, rule: dict[str, Any]) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Applies the rule with onnxscript's rewriter, and says how many nodes each match had."""
    import onnx_ir as ir
    from onnxscript.rewriter import pattern

    sizes: list[int] = []

    def target(op: Any, *values: Any) -> Any:
        given = dict(zip(rule["captures"], values, strict=True))
        return tuple(_written(op, rule, given, lambda op, name, operands: getattr(op, name)(*operands)))

    def replacement(op: Any, **given: Any) -> Any:
        minus = op.initializer(ir.tensor(np.array(-1, np.float32)), name="minus_one")
        if rule["packed"]:
            given = _packed(op, given, ir)
        return tuple(_written(op, rule, given, lambda op, name, vs: _in_other_words(op, name, vs, minus)))

    def condition(context: Any, **_: Any) -> bool:
        sizes.append(len({id(node) for node in context.nodes}))
        return True

    found = ir.from_proto(model)
    made = pattern.RewriteRule(_with_names(target, rule["captures"]), replacement, condition)
    count = made.apply_to_model(found)
    return ir.to_proto(found), {"sites": count, "nodes": sizes}


def _packed(op: Any, given: dict[str, Any], ir: Any) -> dict[str, Any]:
    """The captures by way of one value that holds them all, as a fused operator reads them: every output of the
    replacement needs every one of them.
    """
    sizes = op.initializer(ir.tensor(np.full(len(given), ROWS)), name="sizes")
    parts = op.Split(op.Concat(*given.values(), axis=0), sizes, axis=0, _outputs=len(given))
    return dict(zip(given, parts, strict=True))


def _with_names(function: Any, names: Sequence[str]) -> Any:
    """The function with a signature that names its parameters, from which onnxscript takes the captures."""
    import inspect

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    function.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in ("op", *names)])
    return function


def with_graphsurgeon(model: onnx.ModelProto, rule: dict[str, Any]) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Looks for the pattern with graphsurgeon's matcher, which replaces nothing."""
    import onnx_graphsurgeon as gs
    from onnx_graphsurgeon.graph_pattern import GraphPattern

    pattern = GraphPattern()
    given = {name: pattern.variable() for name in rule["captures"]}
    made: list[int] = []
    for number, (name, *operands) in enumerate(rule["nodes"]):
        inputs = [made[v] if isinstance(v, int) else given[v] for v in operands]
        made.append(pattern.add(f"p{number}", name, inputs=inputs))
    pattern.set_output_tensors([made[i] for i in rule["outputs"]])
    found = pattern.match_all(gs.import_onnx(model))
    sizes = [len({id(m[f"p{i}"].onnx_node) for i in range(len(made))}) for m in found]
    return model, {"sites": len(found), "nodes": sizes}
