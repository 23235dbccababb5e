"""Errors a user is meant to read: what was wrong, where, and the way out."""

from __future__ import annotations

from typing import Any


class OnnxRewriteError(Exception):
    """Base of every error that ends a command with one clear message and no traceback.

    Attributes:
        hint: What the user can do about it, or None.
        exit_code: The exit status of the command line (2: bad usage or an unreadable model).
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(OnnxRewriteError):
    """A wrong option, an unknown pass, or feeds that do not fit the model."""


class ModelError(OnnxRewriteError):
    """A model that cannot be read, is not valid, or cannot be written."""


class NotEquivalentError(OnnxRewriteError):
    """The result is not equivalent to the original, or --strict was given and not everything was verified.

    Attributes:
        report: The `onnx_rewrite.report.schema.Report` of the run, or None.
        result: The `onnx_rewrite.Result` itself, for its failures; its model is not to be used. Or None.
    """

    exit_code = 1
    report: Any = None
    result: Any = None
