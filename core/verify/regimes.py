"""The kinds of numbers that are fed: each shows mistakes that the others hide.

On N(0, 1) alone a LayerNormalization whose epsilon went from 1e-5 to 1e-12 passes; amplitudes of 1e-5 and 1e-3 expose
it, an offset of 1e3 hides it again, and erf against tanh in GELU shows only from 1 upwards.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import onnx

from onnx_rewrite.verify.dtypes import Array, largest, numpy_dtype


@dataclass(frozen=True)
class Regime:
    """A kind of feed.

    Attributes:
        name: As reports show it.
        amplitude: Standard deviation of the normal numbers.
        offset: Their mean.
        special: What replaces or is sprinkled over them, or None.
    """

    name: str
    amplitude: float = 1.0
    offset: float = 0.0
    special: str | None = None

    @property
    def is_special(self) -> bool:
        """Whether there is NaN or an infinity among the numbers."""
        return self.special in ("nan", "inf")


UNIT = Regime("amplitude 1")
ONES = Regime("amplitude 1, other sizes")
INTEGERS = Regime("small integers", special="integers")
LOCAL: tuple[Regime, ...] = (
    UNIT,
    Regime("amplitude 1e-05", 1e-5),
    Regime("amplitude 0.001", 1e-3),
    Regime("amplitude 1000", 1e3),
    # As large as the amplitude above and constant but for 1: what subtracts a mean cancels ten bits.
    Regime("offset 1000", 1.0, 1e3),
    INTEGERS,
    # What has logarithms and roots inside is NaN on the others.
    Regime("positive", special="positive"),
    Regime("nan", special="nan"),
    Regime("infinities", special="inf"),
    Regime("signed zeros", special="signed zeros"),
    Regime("denormals", special="denormals"),
    Regime("zeros", special="zeros"),
)
"""The regimes of a local check, the most telling ones first."""

WHOLE: tuple[Regime, ...] = (UNIT, Regime("amplitude 0.001", 1e-3), INTEGERS)
"""The regimes of a whole model on drawn inputs: what users feed, without NaN and infinities."""


def generator(*key: object) -> np.random.Generator:
    """A generator that depends on nothing but the key's text (never on Python's own hash)."""
    digest = hashlib.sha256("\0".join(map(str, key)).encode()).digest()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(int.from_bytes(digest[:16], "little"))))


# Arrays of more elements are drawn anew: keeping them would cost more memory than time.
_SMALL = 1 << 15


def draw_floats(regime: Regime, elem_type: int, shape: tuple[int, ...], seed: int, position: int) -> Array:
    """Floats of a regime, in the numpy dtype of an ONNX element type; read-only, since equal sites share them.

    The numbers are drawn in float64 and rounded to the type. Amplitudes that the type cannot hold are clamped to a
    hundredth of its largest number.
    """
    draw = _cached if math.prod(shape) <= _SMALL else _floats
    return draw(regime, elem_type, shape, seed, position)


def _floats(regime: Regime, elem_type: int, shape: tuple[int, ...], seed: int, position: int) -> Array:
    rng = generator("floats", seed, regime.name, elem_type, shape, position)
    values = _draw(rng, regime, elem_type, shape)
    if not regime.is_special:
        top = largest(elem_type) / 100
        values = np.clip(values, -top, top)
    out = np.asarray(values).astype(numpy_dtype(elem_type))
    out.setflags(write=False)
    return out


_cached = lru_cache(maxsize=512)(_floats)


def _draw(rng: np.random.Generator, regime: Regime, elem_type: int, shape: tuple[int, ...]) -> Array:
    normal = rng.standard_normal(shape) * regime.amplitude + regime.offset
    match regime.special:
        case "integers":
            # Sums of products of these stay exact in every type for reductions of practical length.
            return rng.integers(-3, 4, shape).astype(np.float64)
        case "positive":
            return np.abs(normal) + 2.0**-6
        case "zeros":
            return np.zeros(shape)
        case "signed zeros":
            values = rng.integers(-1, 2, shape).astype(np.float64)
            return np.where(rng.random(shape) < 0.6, np.copysign(0.0, rng.standard_normal(shape)), values)
        case "denormals":
            # Below the smallest normal number: 2^-126 for fp32 and bf16, 2^-14 for fp16, 2^-1022 for fp64.
            small: dict[int, float] = {onnx.TensorProto.FLOAT16: 2.0**-15, onnx.TensorProto.DOUBLE: 2.0**-1024}
            return normal * small.get(elem_type, 2.0**-128)
        case "nan":
            return _sprinkle(rng, normal, (np.nan,))
        case "inf":
            return _sprinkle(rng, normal, (np.inf, -np.inf))
        case _:
            return normal


def _sprinkle(rng: np.random.Generator, values: Array, specials: tuple[float, ...]) -> Array:
    """Puts each special into a thirty-second of the elements, at least one; a lone element keeps its number half of
    the time.
    """
    out = np.array(values)
    flat = out.reshape(-1)
    if flat.size == 1 and rng.random() < 0.5:
        return out
    for special in specials:
        if flat.size:
            flat[rng.integers(0, flat.size, max(1, flat.size // 32))] = special
    return out
