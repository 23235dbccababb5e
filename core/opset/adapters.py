"""Operators whose meaning, and not only their form, changed between opsets: how to write the old in the new.

Source: the operators' version history in the ONNX specification (docs/Changelog.md of onnx); for what the
specification left open (rounding of Resize-10), the behaviour of onnxruntime, which is the judge.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from onnx_rewrite.opset.adaptation import Change, NotAdaptable, OldNode

Adapter = Callable[[OldNode], Change | None]
"""Writes a node for the newer opset; None: it stays as it is. Raises `NotAdaptable`."""


class Adapters(NamedTuple):
    """An adapter, and the operator's versions at which it has something to say."""

    versions: tuple[int, ...]
    adapt: Adapter


def generic(old: OldNode) -> Change | None:
    """Attributes that became inputs."""
    return old.rewritten() if old.moving() else None


def _judged(condition: Callable[[OldNode], bool]) -> Adapter:
    """The node stays as it is, but under some condition its meaning was reworded: it must be judged."""
    return lambda old: Change(None) if condition(old) else None


def _softmax(old: OldNode) -> Change | None:
    """Below 13 the input is coerced to two dimensions at `axis` (default 1) and the second is normalised."""
    axis: int = old.attribute("axis", 1)
    given = "axis" in old.node.attributes
    x, dims = old.input(0), old.dims(0)
    if dims is None:
        if given and axis == -1:
            return None
        return _flattened(old, x, axis)
    rank = len(dims)
    start = axis + rank if axis < 0 else axis
    long = [i for i in range(start, rank) if dims[i] != 1]
    if len(long) > 1:
        return _flattened(old, x, axis)
    only = long[0] if long else max(rank - 1, 0)
    if only == (start if given else rank - 1):
        return None
    return old.rewritten(axis=-1 if only == rank - 1 else only, form_only=False)


def _flattened(old: OldNode, x: ir.Value | None, axis: int) -> Change:
    dims = old.dims(0)
    flat = old.make("Flatten", [x], {"axis": axis})
    normed = old.make(old.node.op_type, [flat], {"axis": -1})
    if dims is None or dims.count(None) > 1 or 0 in dims:
        shape: Any = old.make("Shape", [x])
    else:
        shape = np.asarray([-1 if d is None else d for d in dims], np.int64)
    return Change((old.make("Reshape", [normed, shape]),))


def _batch_normalization(old: OldNode) -> Change | None:
    if old.attribute("spatial", 1) != 1:
        raise NotAdaptable("spatial=0 has no equal from opset 9 on")
    if old.crosses(14) and any(v.name != "" for v in old.node.outputs[1:]):
        if any(old.needed(i) for i in range(1, len(old.node.outputs))):
            raise NotAdaptable("it is in training mode: its statistics are used, and opset 14 computes others")
        raise NotAdaptable(f"it is in training mode: it has {len(old.node.outputs)} outputs")
    return old.rewritten(drop=("spatial",)) if "spatial" in old.node.attributes else None


def _dropout(old: OldNode) -> Change | None:
    if old.crosses(10) and old.needed(1):
        raise NotAdaptable("its mask is used, which has another dtype from opset 10 on")
    moves = "ratio" in old.moving() and not old.node.attributes["ratio"].is_ref()
    if moves and not 0 <= old.attribute("ratio", 0.5) < 1:
        return old.rewritten(drop=("ratio",))  # inference drops nothing, but onnxruntime insists on a sound ratio
    return generic(old)


def _scales(old: OldNode) -> tuple[ir.Value | None, list[float] | None]:
    value = old.input(1)
    array = old.constants.array(value)
    return value, None if array is None else [float(s) for s in array.ravel()]


def _upsample(old: OldNode) -> Change | None:
    """Upsample ended with opset 9; Resize-10 does the same, later ones with `asymmetric` coordinates."""
    if old.target < 10:
        return generic(old)
    scales: Any = old.input(1)
    if "scales" in old.node.attributes:
        scales = np.asarray(old.attribute("scales", ()), np.float32)
    mode: str = old.attribute("mode", "nearest")
    mode = "linear" if mode == "bilinear" else mode
    return _resize_from_scales(old, scales, mode, "floor")


def _resize(old: OldNode) -> Change | None:
    if old.source == 10:
        if old.target == 10:
            return None
        scales, known = _scales(old)
        # onnxruntime rounds up where Resize-10 shrinks, and down where it grows.
        shrinks = known is not None and any(s < 1 for s in known) and all(s <= 1 for s in known)
        return _resize_from_scales(old, scales, old.attribute("mode", "nearest"), "ceil" if shrinks else "floor")
    if old.crosses(13) and old.attribute("coordinate_transformation_mode", "half_pixel") == "tf_half_pixel_for_nn":
        # (x + 0.5) / s rounded down is the half_pixel coordinate, (x + 0.5) / s - 0.5, rounded to the nearest.
        if old.attribute("mode", "nearest") == "nearest" and old.attribute("nearest_mode", "") == "floor":
            return old.rewritten(
                form_only=False, coordinate_transformation_mode="half_pixel", nearest_mode="round_prefer_ceil"
            )
        raise NotAdaptable("tf_half_pixel_for_nn has no equal from opset 13 on")
    return Change(None) if old.crosses(18) or old.crosses(19) else None


def _resize_from_scales(old: OldNode, scales: Any, mode: str, rounding: str) -> Change:
    x = old.input(0)
    if old.target == 10:
        return Change((old.make("Resize", [x, scales], {"mode": mode}),))
    roi = None if old.target >= 13 else np.zeros(0, np.float32)
    params = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    if mode == "nearest":
        params["nearest_mode"] = rounding
    return Change((old.make("Resize", [x, roi, scales], params),))


def _pad(old: OldNode) -> Change | None:
    if "pads" not in old.moving():
        return None
    constant = old.attribute("mode", "constant") == "constant" and old.attribute("value", 0.0) != 0.0
    return old.rewritten(drop=() if constant else ("value",))


def _split(old: OldNode) -> Change | None:
    """From 18 on, parts of equal length are asked for by their number."""
    equal = "split" not in old.node.attributes and old.input(1) is None
    if equal and old.crosses(18) and "num_outputs" not in old.node.attributes:
        return old.rewritten(num_outputs=len(old.node.outputs))
    return generic(old)


def _scatter(old: OldNode) -> Change | None:
    return old.rewritten("ScatterElements")


def _grid_sample(old: OldNode) -> Change | None:
    renamed = {"bilinear": "linear", "bicubic": "cubic"}
    mode = old.attribute("mode", "linear")
    return old.rewritten(mode=renamed[mode]) if mode in renamed else None


def _roi_align(old: OldNode) -> Change | None:
    """Below 16 there was no shift by half a pixel; from 16 on it is the default."""
    if "coordinate_transformation_mode" in old.node.attributes:
        return None
    return old.rewritten(coordinate_transformation_mode="output_half_pixel", form_only=False)


def _dft(old: OldNode) -> Change | None:
    axis = np.asarray(old.attribute("axis", 1), np.int64)
    return old.rewritten(inputs=[old.input(0), old.input(1), axis], drop=("axis",), form_only=False)


def _group_normalization(old: OldNode) -> Change | None:
    """Scale and bias had one element per group below 21, and have one per channel from it on."""
    groups: int = old.attribute("num_groups", 0)
    dims = old.dims(0)
    channels = dims[1] if dims is not None and len(dims) > 1 else None
    if channels is None or not groups:
        raise NotAdaptable("the number of its channels is not known")
    each = channels // groups
    if each == 1:
        return None
    spread = [_per_channel(old, old.input(i), groups, each) for i in (1, 2)]
    return old.rewritten(inputs=[old.input(0), *spread], form_only=False)


def _per_channel(old: OldNode, value: ir.Value | None, groups: int, each: int) -> Any:
    array = old.constants.array(value)
    if array is not None:
        return np.repeat(array, each)
    column = old.make("Unsqueeze", [value, np.asarray([1], np.int64)])
    table = old.make("Expand", [column, np.asarray([groups, each], np.int64)])
    return old.make("Reshape", [table, np.asarray([-1], np.int64)])


def _scan(old: OldNode) -> Change | None:
    raise NotAdaptable("Scan of opset 8 runs over a batch dimension, which later ones do not have")


def _clip(old: OldNode) -> Change | None:
    """An attribute that bounds nothing is left out."""
    unbounded = [
        name
        for name, bound in (("min", -math.inf), ("max", math.inf))
        if name in old.moving() and not old.node.attributes[name].is_ref() and old.attribute(name, 0.0) == bound
    ]
    return old.rewritten(drop=unbounded) if old.moving() else None


def _ceil(old: OldNode) -> bool:
    return old.attribute("ceil_mode", 0) == 1


def _auto_pad(old: OldNode) -> bool:
    return old.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID")


ADAPTERS: dict[str, Adapters] = {
    "AveragePool": Adapters((19,), _judged(_ceil)),
    "BatchNormalization": Adapters((9, 14), _batch_normalization),
    "Clip": Adapters((11,), _clip),
    "ConvTranspose": Adapters((11,), _judged(_auto_pad)),
    "DFT": Adapters((20,), _dft),
    "Dropout": Adapters((10, 12), _dropout),
    "GridSample": Adapters((20,), _grid_sample),
    "GroupNormalization": Adapters((21,), _group_normalization),
    "Hardmax": Adapters((13,), _softmax),
    "LogSoftmax": Adapters((13,), _softmax),
    "OneHot": Adapters((11,), _judged(lambda _: True)),
    "Pad": Adapters((11,), _pad),
    "Resize": Adapters((11, 13, 18, 19), _resize),
    "RoiAlign": Adapters((16,), _roi_align),
    "Scan": Adapters((9,), _scan),
    "Scatter": Adapters((11,), _scatter),
    "Softmax": Adapters((13,), _softmax),
    "Split": Adapters((13, 18), _split),
    "Upsample": Adapters((9, 10), _upsample),
}
