"""The graphs that peers get: drawn by the kit from our own patterns, and from chains of operators that nobody chose.

Nothing here knows a bug. A chain is one to five operators of a vocabulary, each with the operands, parameters and
constants that the kit draws for it; it goes through the same instances, surroundings and near misses as a pattern.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.peers_fuzz import rules
from onnx_rewrite.pattern import constant, op, trace, where
from onnx_rewrite.pattern.language import Pattern, Traced, Var, walk
from onnx_rewrite.testing.draft import Unfit
from onnx_rewrite.testing.drawing import DTYPES, VARIANTS, embedded, instance, missed
from onnx_rewrite.testing.mutations import MUTATIONS
from onnx_rewrite.testing.spelling import SPELLINGS
from onnx_rewrite.testing.subject import Subject
from onnx_rewrite.testing.tape import LENGTH, Tape

KINDS = ("instance", "embedded", "near miss")

Make = Callable[[Any, Callable[[], Var]], Any]
"""An operator on a value; the second argument gives new captures."""

BINARY = ("Add", "Mul", "Sub", "Div", "Min", "Max", "Pow")
REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax")


def _unary(name: str) -> Make:
    return lambda x, new: getattr(op, name)(x)


def _binary(name: str, *, first: bool) -> Make:
    def made(x: Any, new: Callable[[], Var]) -> Any:
        other = constant(new())
        return getattr(op, name)(x, other) if first else getattr(op, name)(other, x)

    return made


def _of_space(pads: Any) -> bool:
    """Pads that leave batch and channels as they are; others are drawn, too, but rarely."""
    rank = len(pads) // 2
    return any(pads) and not any(pads[axis] for axis in (0, 1, rank, rank + 1))


MIN, MAX, ADD, SUB, MUL, DIV = (_binary(name, first=True) for name in ("Min", "Max", "Add", "Sub", "Mul", "Div"))


def _squeeze(x: Any, new: Callable[[], Var]) -> Any:
    return op.Squeeze(x, axes=new())


def _unsqueeze(x: Any, new: Callable[[], Var]) -> Any:
    return op.Unsqueeze(x, axes=new())


COUNTERPARTS: dict[Make, Make] = {}
for _one, _other in ((MIN, MAX), (ADD, SUB), (MUL, DIV), (_squeeze, _unsqueeze)):
    COUNTERPARTS |= {_one: _other, _other: _one}

FAMILIES: dict[str, tuple[Make, ...]] = {
    "range": (
        *(_unary(name) for name in ("Relu", "LeakyRelu", "Abs", "Sigmoid", "Softmax")),
        *(MIN, MAX, MIN, MAX),
        lambda x, new: op.Clip(x, min=new(), max=new()),
        lambda x, new: op.Clip(x, min=new()),
    ),
    "arithmetic": (
        *(_unary(name) for name in ("Neg", "Abs", "Tanh", "Exp", "Sqrt", "Erf", "Identity")),
        *(ADD, MUL, SUB, DIV, MIN, MAX, _binary("Pow", first=True)),
        *(_binary(name, first=False) for name in ("Sub", "Div")),
        *(lambda x, new, name=name: getattr(op, name)(x, axes=new(), keepdims=new()) for name in REDUCTIONS),
        lambda x, new: op.MatMul(x, constant(new())),
        lambda x, new: op.Gemm(x, constant(new()), constant(new()), alpha=new(), beta=new()),
    ),
    "layout": (
        *(_unary(name) for name in ("Flatten", "Identity")),
        lambda x, new: op.Reshape(x, shape=new()),
        lambda x, new: op.Transpose(x, perm=new()),
        _unsqueeze,
        _squeeze,
        lambda x, new: op.Slice(x, starts=new(), ends=new()),
        lambda x, new: op.Concat(x, x, axis=new()),
        lambda x, new: op.Cast(x, to=new()),
        lambda x, new: op.Dropout(x),
    ),
    "spatial": (
        lambda x, new: op.Pad(x, pads=where(new(), _of_space, "pads space alone")),
        lambda x, new: op.MaxPool(x, kernel_shape=new(), strides=new(), pads=new()),
        lambda x, new: op.MaxPool(x, kernel_shape=new()),
        lambda x, new: op.AveragePool(x, kernel_shape=new(), pads=new()),
        lambda x, new: op.GlobalAveragePool(x),
        lambda x, new: op.Conv(x, constant(new()), pads=new()),
        lambda x, new: op.Conv(x, constant(new()), constant(new())),
        lambda x, new: op.ConvTranspose(x, constant(new())),
        lambda x, new: op.BatchNormalization(x, *[constant(new()) for _ in range(4)]),
        MUL,
        ADD,
        _unary("Relu"),
    ),
}
"""What a chain is made of: three quarters of one family, since what rewriters fuse is of a kind."""

VOCABULARY: tuple[Make, ...] = tuple(make for family in FAMILIES.values() for make in family)


def chain(tape: Tape) -> Traced:
    """A pattern of one to five operators, each on the one before, or on one before that."""
    captures: list[Var] = []

    def new() -> Var:
        captures.append(Var(f"p{len(captures)}"))
        return captures[-1]

    family = tape.one(list(FAMILIES.values()))
    made: list[Any] = [Var("x")]
    last: Make | None = None
    for number in range(1 + tape.more(65, 4)):
        value = made[-1 - (tape.below(len(made)) if tape.chance(15) else 0)]
        if last is not None and tape.chance(25):  # an operator behind its like, or its counterpart
            last = COUNTERPARTS.get(last, last) if tape.chance(50) else last
            found = last(value, new)
        elif len(made) > 2 and tape.chance(12):
            found = getattr(op, tape.one(BINARY[:3]))(value, made[-1 - tape.below(len(made) - 1)])
        else:
            last = tape.one(VOCABULARY if tape.chance(25) else family)
            found = last(value, new)
        made.append(found.named(f"n{number}"))
    read = {id(part) for value in made[1:] for part in _operands(value)}
    ends = tuple(value for value in made[1:] if id(value.apply) not in read)
    names = frozenset({"x", *(v.name for v in captures)})
    return Traced(ends, names, "chain")


def _operands(value: Any) -> list[Any]:
    return [part.apply for operand in value.apply.inputs for part in walk(operand) if hasattr(part, "apply")]


@dataclass
class Source:
    """What instances are drawn of; stands where the kit has a pass."""

    name: str
    traced: tuple[Traced, ...]
    operators: frozenset[str] = frozenset()
    dtypes: tuple[int, ...] = ()

    def run(self, model: onnx.ModelProto, **_: Any) -> Any:
        """For the kit, which asks whether an instance fires before it makes a near miss of it."""
        return SimpleNamespace(applied=1, sites=(), model=model, count=lambda status: 1)


@dataclass
class Drawn:
    """One graph.

    Attributes:
        model: The model.
        source: The pattern it was drawn from: a pass of ours, "chain" or "graph".
        kind: "instance", "embedded" or "near miss".
        story: What is special about it.
        rule: The rule that goes with it, for peers that take one.
    """

    model: onnx.ModelProto
    source: str
    kind: str
    story: tuple[str, ...] = ()
    rule: dict[str, Any] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """In words: where it comes from."""
        return ", ".join((f"{self.kind} of {self.source}", *self.story))


def our_passes() -> list[Any]:
    """Every pass of this package that has patterns, once."""
    import onnx_rewrite as rw
    from onnx_rewrite import registry

    origins = {name: rw.passes.describe(name).origin for name in rw.passes.names()}
    found = registry.resolve([name for name, origin in origins.items() if origin.startswith("onnx_rewrite.passes.")])
    return [one for one in found if not isinstance(one, registry.FunctionPass)]


def sources() -> list[Source]:
    """The patterns of our passes."""
    return [Source(p.name, tuple(trace(r.pattern, type(r).__name__) for r in p.rules())) for p in our_passes()]


class Graphs:
    """Draws graphs; the same seed gives the same.

    Args:
        seed: Of all of them.
    """

    def __init__(self, seed: int) -> None:
        self._seed, self._sources = seed, sources()

    def draw(self, number: int) -> Drawn:
        """Graph `number`."""
        for attempt in range(100):
            rng = np.random.default_rng((self._seed, number, attempt))
            plain = rng.random() < PLAIN
            data = rng.bytes(LENGTH) if plain else _simpler(rng.bytes(LENGTH), rng)
            share, kind, first = (
                rng.random(),
                int(rng.choice(3, p=(0.25, 0.3, 0.45))),
                int(rng.integers(len(MUTATIONS))),
            )
            of = None if share < 0.5 else int(rng.integers(len(self._sources)))
            found = self._one(data, rng.bytes(LENGTH), KINDS[kind], of, first, Plain if plain else Tape)
            if found is not None:
                return _decorated(found, rng) if rng.random() < 0.12 else found
        raise AssertionError("nothing that goes together was drawn in 100 attempts")

    def rule(self, number: int) -> Drawn:
        """Graph `number` with a rule."""
        model, rule = rules.draw(np.random.default_rng((self._seed, number)))
        return Drawn(model, "graph", "instance", (rule["text"],), rule)

    def _one(self, data: bytes, shape: bytes, kind: str, of: int | None, first: int, read: type[Tape]) -> Drawn | None:
        names = list(MUTATIONS)
        mutations = {name: MUTATIONS[name] for name in (*names[first:], *names[:first])}
        for variant in range(VARIANTS):
            tape = read(data, variant)
            try:
                source = (
                    Source("chain", (chain(Tape(shape, variant)),), dtypes=DTYPES) if of is None else self._sources[of]
                )
                subject: Subject = source  # type: ignore[assignment]
                if kind == "near miss":
                    example = missed(subject, tape, variant, mutations)
                else:
                    example = (instance if kind == "instance" else embedded)(subject, tape, variant)
                onnx.checker.check_model(example.model, full_check=True)
            except (Unfit, onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
                continue
            return Drawn(example.model, source.name, kind, example.story)
        return None


SIMPLE = (0.0, 0.0, 0.5, 0.8, 0.93)
"""Shares of choices that are the simplest: the spellings that rewriters know best come up often enough, too."""

PLAIN = 0.35
"""So often a graph is written in the simplest way, whatever its shapes, types, numbers and opset."""


def _simpler(data: bytes, rng: np.random.Generator) -> bytes:
    kept = rng.random(len(data)) >= SIMPLE[int(rng.integers(len(SIMPLE)))]
    return bytes(byte if keep else 0 for byte, keep in zip(data, kept.tolist(), strict=True))


class Plain(Tape):
    """Of several ways to write a graph the first: alternatives of a pattern, and spellings of a constant."""

    def one(self, choices: Any) -> Any:
        chosen = super().one(choices)
        return choices[0] if isinstance(chosen, Pattern) or chosen in SPELLINGS else chosen


# -- what a model has beside its graph


def _decorated(drawn: Drawn, rng: np.random.Generator) -> Drawn:
    """The same model with words, quantization annotations, training information, and a weight stored sparsely."""
    model, story = drawn.model, ["decorated"]
    model.doc_string = "what it is for"
    model.metadata_props.add(key="author", value="somebody")
    model.graph.doc_string = "what it computes"
    for node in model.graph.node:
        node.doc_string = f"why {node.name} is there"
        node.metadata_props.add(key="layer", value=node.name)
    if rng.random() < 0.5 and model.graph.node:
        note = model.graph.quantization_annotation.add(tensor_name=model.graph.output[0].name)
        note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="scale")
    if rng.random() < 0.5:
        training = model.training_info.add()
        training.algorithm.name = "step"
        training.initialization.name = "start"
    given = {v.name for v in model.graph.input}
    dense = [t for t in model.graph.initializer if t.name not in given and t.data_type == 1 and 0 < len(t.dims) < 3]
    if rng.random() < 0.3 and dense:
        _make_sparse(model.graph, dense[0])
        story.append("a sparse initializer")
    drawn.story = (*drawn.story, *story)
    return drawn


def _make_sparse(graph: onnx.GraphProto, tensor: onnx.TensorProto) -> None:
    array = numpy_helper.to_array(tensor)
    sparse = graph.sparse_initializer.add(dims=array.shape)
    sparse.values.CopyFrom(numpy_helper.from_array(array.reshape(-1), tensor.name))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.arange(array.size, dtype=np.int64)))
    graph.initializer.remove(tensor)
