"""What is raised for a pattern that makes no sense."""

from __future__ import annotations

from onnx_rewrite.errors import OnnxRewriteError


class PatternError(OnnxRewriteError):
    """A pattern that cannot be meant: a mistake of the pass's author, found when the pass is loaded."""
