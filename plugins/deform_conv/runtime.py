"""`DeformConv2d` for TensorRT 10, 11 and TensorRT-RTX without a compiled library: `plugin.cpp` in Python."""

from __future__ import annotations

import os
from collections.abc import Sequence

from onnx_rewrite.plugins.common.python_plugin import Dims, Field, Refusal, Values
from onnx_rewrite.plugins.deform_conv import schedule
from onnx_rewrite.plugins.deform_conv.launching import Launcher
from onnx_rewrite.plugins.deform_conv.schedule import Sizes

_KINDS = {"FLOAT": schedule.FLOAT, "HALF": schedule.HALF, "BF16": schedule.BFLOAT16}
_INPUTS = ("x", "weight", "offset", "bias", "mask")


class DeformConv2d:
    """The operator, as `onnx_rewrite.plugins.common.python_plugin` wants it described."""

    name = "DeformConv2d"
    version = "1"
    namespace = "onnx_rewrite"
    fewest, most = 3, 5
    fields = (
        Field("kernel_shape", 2),
        Field("strides", 2, 1),
        Field("pads", 4, 0),
        Field("dilations", 2, 1),
        Field("group", 1, 1),
        Field("offset_group", 1, 1),
        Field("tf32", 1, 1),
    )

    def __init__(self) -> None:
        self._launcher: Launcher | None = None

    def check(self, values: Values) -> None:
        """See `Description.check`."""
        if min(values["pads"]) < 0:
            raise Refusal("pads are negative")
        if values["tf32"][0] not in (0, 1):
            raise Refusal("tf32 is 0 or 1")
        if values["group"][0] < 1 or values["offset_group"][0] < 1:
            raise Refusal("group and offset_group must be at least 1")
        if min(values["kernel_shape"]) < 1:
            raise Refusal("the kernel is empty")
        if min(values["strides"]) < 1:
            raise Refusal("strides must be at least 1")
        if min(values["dilations"]) < 1:
            raise Refusal("dilations must be at least 1")

    def shape(self, values: Values, inputs: Sequence[Dims]) -> tuple[tuple[int, int], ...]:
        """See `Description.shape`."""
        for number, (label, dims) in enumerate(zip(_INPUTS, inputs, strict=False)):
            if len(dims) != (1 if number == 3 else 4):
                raise Refusal(f"{label} has {len(dims)} dimensions; only images are known")
        x, weight, offset = inputs[:3]
        kernel, group, offset_group = values["kernel_shape"], values["group"][0], values["offset_group"][0]
        channels, filters, taps = x[1], weight[0], kernel[0] * kernel[1]
        if channels > 0 and (channels % group or channels % offset_group):
            raise Refusal(f"{channels} channels are not divisible by group and offset_group")
        if filters > 0 and filters % group:
            raise Refusal(f"{filters} filters are not divisible by group")
        wanted = [
            (1, 1, -1 if channels < 0 else channels // group),
            (1, 2, kernel[0]),
            (1, 3, kernel[1]),
            (2, 1, 2 * offset_group * taps),
            (3, 0, filters),
            (4, 1, offset_group * taps),
        ]
        for axis in range(2):
            size, pads = x[2 + axis], values["pads"][axis] + values["pads"][2 + axis]
            room = size + pads - values["dilations"][axis] * (kernel[axis] - 1) - 1
            if size >= 0 and room < 0:
                raise Refusal("the kernel is larger than the padded image")
            wanted.append((2, 2 + axis, -1 if size < 0 else room // values["strides"][axis] + 1))
            wanted.append((4, 2 + axis, offset[2 + axis]))
        for number, axis, size in wanted:
            # A dimension that is not known yet fits everything.
            if number < len(inputs) and min(size, inputs[number][axis]) >= 0 and inputs[number][axis] != size:
                raise Refusal(f"{_INPUTS[number]} has {inputs[number][axis]} on axis {axis}, not {size}")
        return (0, 0), (1, 0), (2, 2), (2, 3)

    def types(self) -> tuple[str, ...]:
        """See `Description.types`."""
        return tuple(_KINDS)

    def workspace(self, values: Values, inputs: Sequence[Dims], output: Dims, kind: str) -> int:
        """See `Description.workspace`."""
        return schedule.largest_workspace(_sizes(values, inputs, output), _KINDS[kind], _math(values))

    def prepare(self, values: Values, inputs: Sequence[Dims], output: Dims, kind: str) -> None:
        """See `Description.prepare`."""
        sizes = _sizes(values, inputs, output)
        if sizes.n * sizes.oh * sizes.ow:
            self._launches().prepare(sizes, _KINDS[kind], _math(values))

    def enqueue(
        self,
        values: Values,
        inputs: Sequence[Dims],
        output: Dims,
        kind: str,
        pointers: Sequence[int],
        workspace: int,
        stream: int,
    ) -> None:
        """See `Description.enqueue`."""
        given, y = [*pointers[:-1], 0, 0][:5], pointers[-1]
        sizes = _sizes(values, inputs, output)
        self._launches().run(sizes, _KINDS[kind], _math(values), schedule.AUTO, [*given, y], workspace, stream)

    def _launches(self) -> Launcher:
        if self._launcher is None:
            self._launcher = Launcher()
        return self._launcher


def _sizes(values: Values, inputs: Sequence[Dims], output: Dims) -> Sizes:
    (n, c, h, w), m, (oh, ow), (kh, kw) = inputs[0], inputs[1][0], output[2:], values["kernel_shape"]
    strides, pads, dilations = values["strides"], values["pads"], values["dilations"]
    steps = strides[0], strides[1], pads[0], pads[1], dilations[0], dilations[1]
    return Sizes(n, c, h, w, m, oh, ow, kh, kw, *steps, values["group"][0], values["offset_group"][0])


def _math(values: Values) -> int:
    if os.environ.get("NVIDIA_TF32_OVERRIDE") == "0":
        return schedule.FFMA
    return schedule.TF32 if values["tf32"][0] else schedule.EXACT
