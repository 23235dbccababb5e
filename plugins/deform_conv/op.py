"""`onnx_rewrite::DeformConv2d`: what it takes, what it means, and what its result looks like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import onnx_ir as ir

from onnx_rewrite.custom import Alike, Call, CustomOp, Unreadable
from onnx_rewrite.pattern import op
from onnx_rewrite.plugins.deform_conv import sizes
from onnx_rewrite.plugins.deform_conv.decompose import Parts, by_gathers


class DeformConv2d(CustomOp):
    """Deformable convolution of images, with or without modulation (mask).

    Inputs as in ONNX's DeformConv: x [N, C, H, W], weight [M, C/group, kh, kw], offset
    [N, offset_group·kh·kw·2, oh, ow] (per offset group and tap y, then x), bias [M], mask
    [N, offset_group·kh·kw, oh, ow].
    Parameters as there too, height before width; pads are begins, then ends.
    """

    name = "DeformConv2d"
    inputs = ("x", "weight", "offset", "bias", "mask")
    required = 3
    parameters: ClassVar[Mapping[str, Any]] = {
        "kernel_shape": None,
        "strides": (1, 1),
        "pads": (0, 0, 0, 0),
        "dilations": (1, 1),
        "group": 1,
        "offset_group": 1,
    }
    since = 11

    def complete(self, parameters: dict[str, Any], call: Mapping[str, Any]) -> dict[str, Any]:
        """One number stands for both axes, two pads for begins and ends; the kernel's size is the weights'."""
        found = dict(parameters)
        for name in ("strides", "dilations"):
            found[name] = _pair(found[name], name)
        pads: Any = found["pads"]
        pads = (pads,) if isinstance(pads, int) else tuple(pads)
        if len(pads) not in (1, 2, 4):
            raise Unreadable(f"pads {list(pads)} are neither one, nor two, nor four numbers")
        found["pads"] = pads if len(pads) == 4 else (pads * (4 // len(pads)))
        if found["kernel_shape"] is None:
            shape = call.get("weight")
            if shape is None or len(shape) != 4:
                raise Unreadable("the shape of the weights is not known, and no other place says the kernel's size")
            kernel = tuple(shape[2:])
            if not all(isinstance(size, int) for size in kernel):
                raise Unreadable("the kernel's size is not known")
            found["kernel_shape"] = kernel
        found["kernel_shape"] = _pair(found["kernel_shape"], "kernel_shape")
        for name in ("group", "offset_group"):
            value = found[name]
            found[name] = value[0] if isinstance(value, tuple) and len(value) == 1 else value  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        return found

    def body(self, operands: Mapping[str, Any], parameters: Mapping[str, Any], opset: int) -> Any:
        def pair(name: str) -> tuple[Any, Any]:
            given = parameters[name]
            if isinstance(given, tuple):
                return given[0], given[1]
            vector = op.Constant(value_ints=given)
            return sizes.item(vector, 0), sizes.item(vector, 1)

        moved = parameters["offset_group"]
        if not isinstance(moved, int):
            moved = op.Reshape(op.Constant(value_int=moved), shape=(1,))
        return by_gathers(
            Parts(
                x=operands["x"],
                weight=operands["weight"],
                offset=operands["offset"],
                bias=operands["bias"],
                mask=operands["mask"],
                kernel=pair("kernel_shape"),
                strides=pair("strides"),
                pads=pair("pads"),
                dilations=pair("dilations"),
                group=parameters["group"],
                offset_group=moved,
                version=opset,
                dtype=None,
            )
        )

    def alike(self, call: Call) -> Alike:
        return Alike("Conv", ("x", "weight"), {name: call.parameters[name] for name in _OF_CONV})

    def exact(self, call: Call) -> Alike | None:
        return Alike("DeformConv", self.inputs, dict(call.parameters))


_OF_CONV = ("kernel_shape", "strides", "pads", "dilations", "group")


def _pair(value: Any, name: str) -> tuple[int, int]:
    found: tuple[Any, ...] = (value, value) if isinstance(value, int) else tuple(value)
    if len(found) == 1:
        found *= 2
    if len(found) != 2:
        raise Unreadable(f"{name} {list(found)} are not two numbers: only images are known")
    return found


def parts_of(call: Call, *, version: int, dtype: ir.DataType | None, weight: Any, bias: Any) -> Parts:
    """A call of known parameters, ready to be written in standard operators."""
    p = call.parameters
    return Parts(
        x=call.operands["x"],
        weight=weight,
        offset=call.operands["offset"],
        bias=bias,
        mask=call.operand("mask"),
        kernel=p["kernel_shape"],
        strides=p["strides"],
        pads=p["pads"][:2],
        dilations=p["dilations"],
        group=p["group"],
        offset_group=p["offset_group"],
        version=version,
        dtype=dtype,
    )
