"""The forms in which a deformable convolution is handed to a target, and what each of them asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_rewrite.analysis.foreign import spelling_of
from onnx_rewrite.custom import Call, find
from onnx_rewrite.match import Match, Refused
from onnx_rewrite.pattern import op
from onnx_rewrite.plugins.deform_conv import sizes
from onnx_rewrite.plugins.deform_conv.decompose import by_gathers, by_grid
from onnx_rewrite.plugins.deform_conv.op import DeformConv2d, parts_of

BUILT_IN = "ModulatedDeformConv2d"
"""TensorRT's own plugin: version 1, namespace "", 8.6 and later."""

HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)

LINEAR_SINCE = 20
"""From this opset on GridSample says "linear" for "bilinear", which TensorRT 8.6 does not know."""


@dataclass(frozen=True)
class Chosen:
    """What is to be written.

    Attributes:
        form: "standard" (ONNX's DeformConv), "decomposition", "plugin" (our own node) or "builtin".
        sampling: Of a decomposition: "grid" (GridSample) or "gather".
    """

    form: str
    sampling: str = ""

    @property
    def opset(self) -> int:
        """Lowest opset of the standard operators that it can be written in."""
        if self.form == "standard":
            return 19
        if self.form == "decomposition":
            return 16 if self.sampling == "grid" else 11
        return 1


def choose(form: str, sampling: str, m: Match, dtype: ir.DataType | None) -> Chosen:
    """What the target of the run gets, where the options leave it open.

    TensorRT gets a decomposition: below 10.1 it has no DeformConv, and its own plugin has traps (see `check`).
    """
    if form == "auto":
        form = "standard" if m.target in ("onnx", "onnxruntime") and m.may_have(19) else "decomposition"
    if form != "decomposition":
        return Chosen(form)
    if sampling == "auto":
        # TensorRT runs the gathers 2.7 times as fast as GridSample (README.md, "Deformable convolutions by target").
        # GridSample takes positions as fractions of a size, of which halves have too few; onnxruntime has it of doubles
        # since opset 20 only.
        unfit = dtype in HALVES or dtype == ir.DataType.DOUBLE
        gathers = unfit or m.target.startswith("tensorrt") or not m.may_have(16)
        sampling = "gather" if gathers else "grid"
    return Chosen(form, sampling)


def form_of(node: ir.Node) -> str | None:
    """The form that a node has already; None for an exporter's spelling, or a node of ours that is not complete."""
    spelling = spelling_of(node)
    if spelling is None:
        return None
    if spelling.standard:
        return "standard"
    if spelling.own:
        complete = len(node.inputs) == len(DeformConv2d.inputs) and None not in node.inputs
        return "plugin" if complete and "plugin_version" in node.attributes else None
    return "builtin" if (node.domain, node.op_type) == ("", BUILT_IN) else None


def described(chosen: Chosen, m: Match) -> str:
    """What is written in whose place, and what its engine needs, in words."""
    was = spelling_of(m.conv)
    title = m.conv.op_type if was is None else was.title
    if chosen.form == "decomposition":
        how = "GridSample" if chosen.sampling == "grid" else "Gather"
        return f"{title} in standard operators, read by {how}"
    if chosen.form == "standard":
        return f"{title} as DeformConv"
    if chosen.form == "plugin":
        return f"{title} as {DeformConv2d.domain}::{DeformConv2d.name}, for which the engine needs its plugin"
    needs = "its engine needs the tactic source CUBLAS, without which it writes nothing"
    return f"{title} as {BUILT_IN}; {needs}"


def check(chosen: Chosen, call: Call, m: Match) -> None:
    """Whether a form can say what the call says, and the target knows it.

    Raises:
        Refused: It cannot.
    """
    tensorrt = m.target.startswith("tensorrt")
    if chosen.form == "standard" and m.target in ("tensorrt-8.6", "tensorrt-rtx"):
        raise Refused(f"{m.target} has no DeformConv; leave form=auto, which gives it the decomposition", m.conv)
    if chosen.sampling == "grid" and m.target == "tensorrt-8.6" and m.version >= LINEAR_SINCE:
        raise Refused(
            f"TensorRT 8.6 does not read GridSample as opset {m.version} has it; sampling=gather does without", m.conv
        )
    if chosen.form == "plugin":
        _channels(call, m)
    if chosen.form != "builtin":
        return
    if not tensorrt or m.target == "tensorrt-rtx":
        raise Refused(f"{BUILT_IN} is a plugin of TensorRT, and the target is {m.target}", m.conv)
    if m.target == "tensorrt-8.6" and call.operands["x"].dtype != ir.DataType.FLOAT:
        raise Refused(f"{BUILT_IN} of TensorRT 8.6 computes in fp32 only", call.operands["x"])
    top, left, bottom, right = call.parameters["pads"]
    if (top, left) != (bottom, right):
        raise Refused(f"{BUILT_IN} pads the same on both sides, here are {top}, {left} and {bottom}, {right}", m.conv)
    _channels(call, m)


def _channels(call: Call, m: Match) -> int:
    weight = call.operands["weight"]
    found = m.dim(weight, 0)
    if not isinstance(found, int):
        raise Refused(f"the number of filters of '{weight.name}' is not known", weight)
    return found


def write(chosen: Chosen, call: Call, m: Match) -> Any:
    """The call in a form, as nodes of a replacement."""
    version = max(m.version, chosen.opset)
    if chosen.form == "standard":
        roles = [call.operand(role) for role in DeformConv2d.inputs]
        return op.DeformConv(*roles, **call.parameters)
    if chosen.form == "decomposition":
        weight = m.constant(call.operands["weight"])
        parts = parts_of(
            call,
            version=version,
            dtype=call.operands["x"].dtype,
            weight=call.operands["weight"] if weight is None else weight,
            bias=call.operand("bias"),
        )
        return by_grid(parts) if chosen.sampling == "grid" else by_gathers(parts)
    bias, mask = call.operand("bias"), call.operand("mask")
    dtype = call.operands["x"].dtype.numpy()
    bias = np.zeros(_channels(call, m), dtype) if bias is None else bias
    mask = _ones(call, m, dtype) if mask is None else mask
    if chosen.form == "plugin":
        given = [call.operands[role] for role in ("x", "weight", "offset")]
        return DeformConv2d().node(*given, bias, mask, **call.parameters)
    spelling = find("", BUILT_IN)
    assert spelling is not None
    operands = {**call.operands, "bias": bias, "mask": mask}
    attributes = spelling.written({**call.parameters, "pads": call.parameters["pads"][:2]})
    in_order = [operands[role] for role in spelling.inputs]
    return getattr(op, BUILT_IN)(*in_order, **attributes, plugin_namespace="", plugin_version="1")


def _ones(call: Call, m: Match, dtype: Any) -> Any:
    """A mask that changes nothing: [N, offset_group · kh · kw, oh, ow]."""
    height, width = call.parameters["kernel_shape"]
    channels = call.parameters["offset_group"] * height * width
    batch, _, rows, columns = sizes.dims(call.operands["offset"], 4)
    wanted = sizes.shape(batch, channels, rows, columns)
    if isinstance(wanted, tuple):
        wanted = np.array(wanted, np.int64)
    return op.ConstantOfShape(wanted, value=np.ones(1, dtype))
