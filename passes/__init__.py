"""The passes, one file each: pattern, conditions, replacement."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx_rewrite.registry import PassDescription


def names() -> list[str]:
    """Names of all passes that are known: those of this package, declared ones, and entry points."""
    from onnx_rewrite import registry

    return registry.names()


def describe(name: str) -> PassDescription:
    """Summary, options and origin of one pass.

    Raises:
        UsageError: There is no such pass.
    """
    from onnx_rewrite import registry

    return registry.describe(name)
