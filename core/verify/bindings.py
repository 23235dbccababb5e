"""Sizes for the symbolic dimensions of a model's inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_rewrite.verify.regimes import generator

# Primes: no two axes are equal, none divides another, so a confusion of axes shows.
_PRIMES = (3, 5, 7, 11, 13, 2, 17, 19, 23, 29)
_EQUAL = (4, 8, 2, 6, 16, 12, 32, 7, 14, 64)
_TRIES = 48


@dataclass(frozen=True)
class Input:
    """A graph input that must be fed.

    Attributes:
        name: Its name.
        elem_type: ONNX element type; 0 if it is not declared.
        dims: A size or the name of a symbol per axis; None if the rank is not declared.
    """

    name: str
    elem_type: int
    dims: tuple[int | str, ...] | None

    @property
    def symbols(self) -> tuple[str, ...]:
        """Its symbols in order."""
        return tuple(d for d in self.dims or () if isinstance(d, str))


def fed_inputs(model: onnx.ModelProto) -> list[Input]:
    """The inputs that have no initializer; a dimension without a name gets a symbol of its own, ``input.axis``."""
    given = {t.name for t in model.graph.initializer}
    found: list[Input] = []
    for value in model.graph.input:
        if value.name in given:
            continue
        tensor = value.type.tensor_type
        dims: tuple[int | str, ...] | None = None
        if value.type.HasField("tensor_type") and tensor.HasField("shape"):
            dims = tuple(
                d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else d.dim_param or f"{value.name}.{i}"
                for i, d in enumerate(tensor.shape.dim)
            )
        found.append(Input(value.name, tensor.elem_type if value.type.HasField("tensor_type") else 0, dims))
    return found


def symbols(inputs: Sequence[Input]) -> list[str]:
    """The symbols in order of appearance, each once."""
    return list(dict.fromkeys(s for i in inputs for s in i.symbols))


def candidates(
    model: onnx.ModelProto, names: Sequence[str], fixed: Mapping[str, int], seed: int
) -> Iterator[dict[str, int]]:
    """Bindings to try, the most telling first: distinct primes, all 1, sizes beyond small constants, other primes.

    Then, for models that bind their symbols in ways not declared (a Reshape to a constant, two names for one size),
    equal sizes, and sizes that occur among the model's own constants.

    Args:
        model: The model, for the sizes that occur in it.
        names: The symbols to bind.
        seed: The only source of randomness.
        fixed: Symbols that are given (``--shape``).
    """
    free = [n for n in names if n not in fixed]
    seen: set[tuple[int, ...]] = set()

    def fresh(values: Sequence[int]) -> Iterator[dict[str, int]]:
        if tuple(values) not in seen:
            seen.add(tuple(values))
            yield {**{n: fixed[n] for n in names if n in fixed}, **dict(zip(free, values, strict=True))}

    cycle = [_PRIMES[i % len(_PRIMES)] + 31 * (i // len(_PRIMES)) for i in range(len(free) + 1)]
    yield from fresh(cycle[: len(free)])
    yield from fresh([1] * len(free))
    beyond = _beyond(model)
    yield from fresh([size + beyond for size in cycle[1:]])
    yield from fresh(cycle[1:])
    if not free:
        return
    for size in _EQUAL:
        yield from fresh([size] * len(free))
    rng = generator("bindings", seed, len(free))
    sizes = [1, *_sizes(model)]
    for size in sizes[1:12]:
        yield from fresh([size] * len(free))
    for _ in range(_TRIES):
        yield from fresh([int(s) for s in rng.choice(sizes, len(free))])


# A Slice of few elements is met by sizes beyond all its bounds; larger numbers are sizes themselves, not bounds.
_MOST_BEYOND = 64


def _beyond(model: onnx.ModelProto) -> int:
    """The sum of the model's short integer constants, if it is small: dimensions above it show a bound that lost its
    sign, or that is counted from the other end.
    """
    total = 0
    for tensor in _tensors(model):
        if tensor.data_type == onnx.TensorProto.INT64 and int(np.prod(tensor.dims)) <= 8:
            values = np.abs(numpy_helper.to_array(tensor).ravel())
            total += int(values[values <= _MOST_BEYOND].sum())
    return total if total <= _MOST_BEYOND else 0


def _tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    found = list(model.graph.initializer)
    for node in model.graph.node:
        found.extend(a.t for a in node.attribute if a.type == onnx.AttributeProto.TENSOR)
    return found


def _sizes(model: onnx.ModelProto) -> list[int]:
    """Sizes between 2 and 1024 that occur in the model: dimensions of constants and inputs, elements of short integer
    constants.
    """
    graph, found = model.graph, list[int]()
    for tensor in _tensors(model):
        found.extend(tensor.dims)
        if tensor.data_type == onnx.TensorProto.INT64 and int(np.prod(tensor.dims)) <= 8:
            found.extend(int(v) for v in numpy_helper.to_array(tensor).ravel())
    for value in graph.input:
        found.extend(d.dim_value for d in value.type.tensor_type.shape.dim)
    return list(dict.fromkeys(v for v in found if 1 < v <= 1024)) or [2]
