"""Deformable convolution: definition, meaning, forms for targets, and what exporters call it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx_rewrite.torch import Registered


def register_torch_symbolic() -> Registered:
    """Makes torch's TorchScript exporter write `onnx_rewrite::DeformConv2d` for `torchvision.ops.deform_conv2d`.

    Without it the exporter refuses such models. The `deform-conv` pass gives the result the form that a target runs.

    Returns:
        What can be undone.

    Raises:
        UsageError: torch is not installed.
    """
    from onnx_rewrite.torch import register

    return register(
        "torchvision::deform_conv2d",
        "onnx_rewrite::DeformConv2d",
        inputs=("input", "weight", "offset", "bias", "mask"),
        present_if={"mask": "use_mask"},
        attributes={
            "strides": ("stride_h", "stride_w"),
            "pads": ("pad_h", "pad_w", "pad_h", "pad_w"),
            "dilations": ("dilation_h", "dilation_w"),
            "group": "groups",
            "offset_group": "offset_groups",
        },
        opset=11,
    )
