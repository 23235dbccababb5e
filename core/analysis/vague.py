"""Whether more could be known of a value's type than shape inference found."""

from __future__ import annotations

import onnx_ir as ir

from onnx_rewrite.analysis.types import is_incomplete
from onnx_rewrite.model.nodes import INFERRED_KEY

# How onnx.shape_inference calls a dimension that it knows nothing of.
INVENTED_PREFIX = "unk__"


def is_vague(value: ir.Value) -> bool:
    """Whether the dtype, the rank, or a dimension is not known, not even as a symbol of the model's own."""
    if is_incomplete(value):
        return True
    if value.shape is None:
        return False
    inferred = INFERRED_KEY in value.meta
    for dim in value.shape:
        if not isinstance(dim, int) and (dim.value is None or (inferred and dim.value.startswith(INVENTED_PREFIX))):
            return True
    return False
