"""Draws feeds for a model: a binding of its symbolic dimensions and a regime for its numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnx_rewrite.verify.bindings import Input, candidates, fed_inputs, symbols
from onnx_rewrite.verify.dtypes import FLOATS, Array, numpy_dtype
from onnx_rewrite.verify.integers import Use, draw_integers, uses
from onnx_rewrite.verify.regimes import Regime, draw_floats, generator

MOST_ELEMENTS = 1 << 24
"""Of all inputs together under a binding that is tried: a constant of the model may be the size of every symbol."""


@dataclass(frozen=True)
class Feed:
    """One set of inputs.

    Attributes:
        values: An array per input name, of the input's own dtype.
        regime: The kind of numbers, with the binding where there are symbolic dimensions.
        empty: Whether a symbolic dimension is 0: such a feed shows shapes and crashes, but no wrong number.
    """

    values: dict[str, Array]
    regime: str
    empty: bool = False


class Source:
    """What can be drawn for a model.

    Args:
        model: The model whose inputs are fed (the original).
        seed: The only source of randomness.
        shapes: Shapes by input name that override declared ones, and so bind their symbols everywhere.

    Attributes:
        obstacle: Why nothing can be drawn (an input without a rank or type), or None.
    """

    def __init__(self, model: onnx.ModelProto, seed: int, shapes: Mapping[str, Sequence[int]] | None = None) -> None:
        self._model, self._seed = model, seed
        self.inputs: list[Input] = []
        self.fixed: dict[str, int] = {}
        for value in fed_inputs(model):
            given = None if shapes is None else shapes.get(value.name)
            if given is not None:
                self.fixed.update(
                    {d: int(s) for d, s in zip(value.dims or (), given, strict=False) if isinstance(d, str)}
                )
                value = Input(value.name, value.elem_type, tuple(int(s) for s in given))
            self.inputs.append(value)
        self.obstacle = next((text for text in map(_obstacle, self.inputs) if text), None)
        self._uses: dict[str, Use] = {} if self.obstacle else uses(model)

    def bindings(self) -> Iterator[dict[str, int]]:
        """Bindings to try, best first; none for which the inputs alone would fill the memory."""
        names = symbols(self.inputs)
        least = self._elements(dict.fromkeys(names, 1) | self.fixed)
        for binding in candidates(self._model, names, self.fixed, self._seed):
            if self._elements(binding) <= max(MOST_ELEMENTS, 4 * least):
                yield binding

    def _elements(self, binding: Mapping[str, int]) -> int:
        shapes = ([d if isinstance(d, int) else binding[d] for d in value.dims or ()] for value in self.inputs)
        return sum(math.prod(shape) for shape in shapes)

    def empty_bindings(self, binding: Mapping[str, int]) -> Iterator[dict[str, int]]:
        """`binding` with one symbolic dimension after the other 0, those that the user fixed aside."""
        for name in binding:
            if name not in self.fixed:
                yield {**binding, name: 0}

    def draw(self, regime: Regime, binding: Mapping[str, int]) -> Feed:
        """One feed; the same for the same seed, regime and shapes, whatever the names of the inputs."""
        values: dict[str, Array] = {}
        for position, value in enumerate(self.inputs):
            shape = tuple(d if isinstance(d, int) else binding[d] for d in value.dims or ())
            values[value.name] = self._values(value, shape, regime, position, dict(binding))
        return Feed(values, self.label(regime, binding), empty=0 in binding.values())

    def label(self, regime: Regime, binding: Mapping[str, int]) -> str:
        """What a feed is called in reports: its regime, and the sizes of the symbolic dimensions."""
        sizes = ", ".join(f"{name}={size}" for name, size in binding.items())
        return f"{regime.name} ({sizes})" if sizes else regime.name

    def _values(
        self, value: Input, shape: tuple[int, ...], regime: Regime, position: int, binding: dict[str, int]
    ) -> Array:
        kind = value.elem_type
        if kind in FLOATS:
            return draw_floats(regime, kind, shape, self._seed, position)
        if kind == onnx.TensorProto.BOOL:
            if regime.special == "zeros":
                return np.zeros(shape, dtype=bool)
            return np.asarray(generator("bools", self._seed, regime.name, shape, position).random(shape) < 0.5)
        if kind == onnx.TensorProto.STRING:
            words = np.asarray(["", "a", "b", "ab"], dtype=object)
            return np.asarray(
                words[generator("strings", self._seed, regime.name, shape, position).integers(0, 4, shape)],
                dtype=object,
            )
        return draw_integers(self._uses.get(value.name, Use()), regime, kind, shape, self._seed, position, binding)


def _obstacle(value: Input) -> str | None:
    if not value.elem_type:
        return f"input {value.name!r} has no declared element type, or is no tensor"
    if value.dims is None:
        return f"input {value.name!r} has no declared rank, so nothing can be drawn for it"
    kind = value.elem_type
    known = kind in FLOATS or kind in (onnx.TensorProto.BOOL, onnx.TensorProto.STRING) or numpy_dtype(kind).kind in "iu"
    return (
        None
        if known
        else f"input {value.name!r} is {onnx.TensorProto.DataType.Name(kind).lower()}, for which nothing can be drawn"
    )
