"""Deformable convolutions, from whatever an exporter wrote to what the target runs.

See DeformConv in the ONNX operator specification (since opset 19); Dai et al., "Deformable Convolutional Networks",
2017; Zhu et al., "Deformable ConvNets v2", 2019.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from onnx_rewrite.analysis.dtypes import FLOATS
from onnx_rewrite.custom import Call
from onnx_rewrite.match import Match, Refused, Settled
from onnx_rewrite.pattern import misspelled, optional, spelled
from onnx_rewrite.plugins.deform_conv import forms
from onnx_rewrite.registry import Pass, RuleSet

TITLE = "onnx_rewrite::DeformConv2d"

Form = Literal["auto", "standard", "decomposition", "plugin", "builtin"]
Sampling = Literal["auto", "grid", "gather"]


@dataclass(frozen=True)
class Replace(Pass):
    """A deformable convolution in any spelling becomes the form that the target runs."""

    needs_opset = 19

    form: Form = "auto"
    sampling: Sampling = "auto"

    def pattern(self, x: Any, weight: Any, offset: Any, bias: Any, mask: Any) -> Any:
        operands = {"x": x, "weight": weight, "offset": offset, "bias": optional(bias), "mask": optional(mask)}
        return spelled(TITLE, **operands).named("conv")

    def chosen(self, m: Match) -> forms.Chosen:
        """The form for this match."""
        return forms.choose(self.form, self.sampling, m, m.x.dtype)

    def opset_for(self, m: Match) -> int:
        return self.chosen(m).opset

    def note(self, m: Match) -> str:
        return forms.described(self.chosen(m), m)

    def check(self, m: Match) -> None:
        call = m.read(m.conv)
        chosen = self.chosen(m)
        forms.check(chosen, call, m)
        if chosen.form == forms.form_of(m.conv):
            raise Settled(f"it has the form that {m.target} gets", m.conv)
        check_dtype(m)
        check_shapes(m, call)

    def replace(self, m: Match) -> Any:
        return forms.write(self.chosen(m), m.read(m.conv), m)


class Unreadable(Pass):
    """A node of a known name that does not say all that is needed: it is left, and told why."""

    def pattern(self, operands: Any) -> Any:
        return misspelled(TITLE, operands).named("conv")

    def check(self, m: Match) -> None:
        m.read(m.conv)
        raise Settled("its operands are what a deformable convolution takes", m.conv)

    def replace(self, m: Match) -> Any:
        del m


def check_dtype(m: Match) -> None:
    """All operands are floats of one type.

    Raises:
        Refused: They are not, or it is not known.
    """
    dtype = m.x.dtype
    if dtype is None:
        raise Refused(f"the dtype of value '{m.x.name}' is not known", m.x)
    if dtype not in FLOATS:
        raise Refused(f"a deformable convolution of {dtype.name}", m.x)


def check_shapes(m: Match, call: Call) -> None:
    """What is known of the shapes goes together.

    Raises:
        Refused: It does not, or the rank of an image is not known.
    """
    p = call.parameters
    group, moved, taps = p["group"], p["offset_group"], p["kernel_shape"][0] * p["kernel_shape"][1]
    for role in ("x", "weight", "offset", "mask"):
        value = call.operand(role)
        if value is not None and m.rank(value) != 4:
            known = "is not known" if m.rank(value) is None else f"is {m.rank(value)}, not 4"
            raise Refused(f"the rank of {role} '{value.name}' {known}", value)
    channels, filters = m.dim(call.operands["x"], 1), m.dim(call.operands["weight"], 0)
    expected = [
        ("x", 1, m.dim(call.operands["weight"], 1), group),
        ("offset", 1, 2 * taps, moved),
        ("mask", 1, taps, moved),
    ]
    for role, axis, share, times in expected:
        value = call.operand(role)
        if value is None:
            continue
        found = m.dim(value, axis)
        if isinstance(found, int) and isinstance(share, int) and found != share * times:
            raise Refused(f"{role} '{value.name}' has {found} channels, not {times} times {share}", value)
    for what, count, parts in (
        ("channels", channels, moved),
        ("channels", channels, group),
        ("filters", filters, group),
    ):
        if isinstance(count, int) and (parts < 1 or count % parts):
            raise Refused(f"{count} {what} do not make {parts} groups", m.conv)
    check_size(m, call)


def check_size(m: Match, call: Call) -> None:
    """There is an offset for each position of the result.

    Raises:
        Refused: There is not, as far as sizes are known.
    """
    p = call.parameters
    for axis in (0, 1):
        size, given = m.dim(call.operands["x"], 2 + axis), m.dim(call.operands["offset"], 2 + axis)
        if not isinstance(size, int) or not isinstance(given, int):
            continue
        reach = (p["kernel_shape"][axis] - 1) * p["dilations"][axis] + 1
        positions = (size + p["pads"][axis] + p["pads"][2 + axis] - reach) // p["strides"][axis] + 1
        if positions != given:
            raise Refused(
                f"there are offsets for {given} positions along axis {2 + axis}, and the kernel has {positions}", m.conv
            )


@dataclass(frozen=True)
class InsertDeformConv(RuleSet):
    """Gives each deformable convolution the form that the target runs, whatever exporter wrote it.

    ONNX's DeformConv, nodes of known exporters (see `--adapters`), and this project's own. For onnx and onnxruntime it
    becomes DeformConv (opset 19), or standard operators where the opset is to be kept; for TensorRT standard operators,
    this project's plugin node (form=plugin), or TensorRT's own ModulatedDeformConv2d (form=builtin).
    """

    name = "deform-conv"

    form: Form = field(
        default="auto", metadata={"help": "what is written; auto: what the target runs without a plugin"}
    )
    sampling: Sampling = field(
        default="auto", metadata={"help": "how a decomposition reads between pixels: by GridSample, or by gathers"}
    )

    def rules(self) -> tuple[Pass, ...]:
        return (Replace(self.form, self.sampling), Unreadable())
