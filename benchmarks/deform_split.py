"""What fp32 as three products of TF32 loses, emulated: tensor cores cut the sum of eight products and what was there.

`python -m benchmarks deform-split` needs numpy alone. The columns are errors relative to float64, as norms: one product
of TF32; three in one chain of sums; three with stages of 32 channels summed in fp32, as the kernel does it; FFMA, one
by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def tf32(values: Array) -> Array:
    """Rounded to eleven bits, ties away from zero."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def cut(values: Array) -> Array:
    """To fp32, toward zero."""
    near = values.astype(np.float32)
    over = np.abs(near.astype(np.float64)) > np.abs(values)
    return np.where(over, np.nextafter(near, np.float32(0)), near)


def chain(pairs: list[tuple[Array, Array]], total: Array) -> Array:
    """Adds products [rows, depth] to sums [rows], eight at a time."""
    for a, b in pairs:
        for k in range(0, a.shape[1], 8):
            products = a[:, k : k + 8].astype(np.float64) * b[:, k : k + 8]
            total = cut(total.astype(np.float64) + products.sum(1))
    return total


def errors(depth: int, rows: int = 4000, seed: int = 0) -> dict[str, float]:
    """Of sums of `depth` products of normal numbers."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, depth)).astype(np.float32)
    w = (rng.standard_normal((rows, depth)) * depth**-0.5).astype(np.float32)
    wanted = (x.astype(np.float64) * w).sum(1)
    x_high, w_high = tf32(x), tf32(w)
    x_low, w_low = tf32(x - x_high), tf32(w - w_high)
    nothing = np.zeros(rows, np.float32)
    one_chain, staged, ffma = nothing, nothing, nothing
    for k in range(0, depth, 32):
        part = slice(k, k + 32)
        pairs = [
            (x_low[:, part], w_high[:, part]),
            (x_high[:, part], w_low[:, part]),
            (x_high[:, part], w_high[:, part]),
        ]
        one_chain = chain(pairs, one_chain)
        staged = (staged + chain(pairs, nothing)).astype(np.float32)
    for k in range(depth):
        ffma = (ffma.astype(np.float64) + x[:, k].astype(np.float64) * w[:, k]).astype(np.float32)
    found = {"one product": chain([(x_high, w_high)], nothing), "one chain": one_chain, "stages": staged, "ffma": ffma}
    return {name: float(np.linalg.norm(y - wanted) / np.linalg.norm(wanted)) for name, y in found.items()}


def main(arguments: list[str]) -> int:
    print(f"{'products':>8} {'one product':>12} {'one chain':>12} {'stages':>12} {'ffma':>12}")
    for depth in (576, 2304, 4608):
        print(f"{depth:8} " + " ".join(f"{error:12.2g}" for error in errors(depth).values()))
    return 0
