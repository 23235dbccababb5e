"""One attention in the text form, of which tests change some steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from . import building
from .building import f32, steps

B, S, T, H, D = 2, 5, 7, 2, 4
E = H * D
SPLIT, SPLIT_KEYS, JOIN = (np.array(a, np.int64) for a in ([0, S, H, D], [0, T, H, D], [0, S, E]))
CAUSAL = np.tril(np.ones((1, 1, S, S), bool))
LOWEST = np.float32(np.finfo(np.float32).min)
CONSTANTS: dict[str, Any] = {
    **{f"w{n}": f32(E, E, scale=0.4) for n in "qkvo"},
    **{f"b{n}": f32(E) for n in "qkv"},
    "wp": f32(E, 3 * E, scale=0.4),
    "bp": f32(3 * E),
    "split": SPLIT,
    "splitkeys": SPLIT_KEYS,
    "join": JOIN,
    "scale": np.float32(0.5),
    "inverse": np.float32(2.0),
    "root": np.float32(0.5**0.5),
    "one": np.float32(1),
    "zero": np.float32(0),
    "minus": np.float32(-0.5),
    "lowest": LOWEST,
    "endless": np.float32(-np.inf),
    "causal": CAUSAL,
    "hidden": ~CAUSAL,
    "bias": f32(1, H, S, S),
    "padding": np.where(np.arange(S) < S - 1, 0, LOWEST).astype(np.float32).reshape(1, 1, 1, S),
    "perhead": np.abs(f32(H, 1, 1)) + np.float32(0.5),
    "five": np.array([0, S, 3, H, D], np.int64),
    "folded": np.array([B * H, S, D], np.int64),
    "foldedkeys": np.array([B * H, D, S], np.int64),
    "unfolded": np.array([B, H, S, D], np.int64),
    "threeofs": np.array([E, E, E], np.int64),
    "axis0": np.array([0], np.int64),
    "axis2": np.array([2], np.int64),
    "first": np.array([0], np.int64),
    "second": np.array([1], np.int64),
    "third": np.array([2], np.int64),
    "fourth": np.array([3], np.int64),
    "i0": np.int64(0),
    "i1": np.int64(1),
    "i2": np.int64(2),
    "kvshape": np.array([B, H, 1, S, D], np.int64),
    "kvwide": np.array([B, 1, H, S, D], np.int64),
    "wide": np.array([B, H, S, D], np.int64),
    "wk1": f32(E, D, scale=0.4),
    "wv1": f32(E, D, scale=0.4),
    "split1": np.array([0, S, 1, D], np.int64),
    "fivescores": np.array([1, B, H, S, S], np.int64),
    "fourscores": np.array([-1, H, S, S], np.int64),
    "windowmask": np.where(f32(1, B, 1, S, S) > 0.8, -100, 0).astype(np.float32),
    "table": f32(E, T, scale=0.4),
    "rows": f32(T, E),
}
RECIPE = {
    "q0": "MatMul(x, wq)",
    "q1": "Add(q0, bq)",
    "q2": "Reshape(q1, split)",
    "q": "Transpose<perm=[0,2,1,3]>(q2)",
    "k0": "MatMul(x, wk)",
    "k1": "Add(bk, k0)",
    "k2": "Reshape(k1, split)",
    "k": "Transpose<perm=[0,2,3,1]>(k2)",
    "v0": "MatMul(x, wv)",
    "v1": "Add(v0, bv)",
    "v2": "Reshape(v1, split)",
    "v": "Transpose<perm=[0,2,1,3]>(v2)",
    "s": "MatMul(q, k)",
    "z": "Mul(s, scale)",
    "m": "Identity(z)",
    "p": "Softmax<axis=-1>(m)",
    "o": "Identity(p)",
    "c": "MatMul(o, v)",
    "t": "Transpose<perm=[0,2,1,3]>(c)",
    "y": "Reshape(t, join)",
}
PACKED = {
    "q0": "MatMul(x, wp); Add(q0, bp)",
}


def attention(
    *,
    opset: int = 13,
    inputs: str = "float[2,5,8] x",
    out: str = "float[2,5,8] y",
    constants: dict[str, Any] | None = None,
    drop: tuple[str, ...] = (),
    kind: str = "float",
    **changed: str,
) -> onnx.ModelProto:
    """The attention of `RECIPE`, some of its steps spelt otherwise."""
    dtype = building.DTYPES[kind]
    given = {**CONSTANTS, **(constants or {})}
    given = {k: np.asarray(v).astype(dtype) if np.asarray(v).dtype == np.float32 else v for k, v in given.items()}
    recipe = {k: v for k, v in RECIPE.items() if k not in drop}
    text = steps(recipe, changed)
    used = {k: v for k, v in given.items() if f"({k}" in text or f" {k}" in text}
    return building.model(
        text, used, inputs=inputs.replace("float[", f"{kind}["), outputs=out.replace("float[", f"{kind}["), opset=opset
    )
