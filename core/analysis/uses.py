"""Whether a value is used, in constant time."""

from __future__ import annotations

import onnx_ir as ir


def is_used(value: ir.Value) -> bool:
    """Whether any node reads `value`.

    `Value.uses()` copies all uses, so that asking it after each of n edits around one shared initializer takes n²
    steps. The collection behind it is private; where a version of onnx_ir has no such attribute, `uses()` serves.
    """
    uses = getattr(value, "_uses", None)
    return bool(value.uses() if uses is None else uses)
