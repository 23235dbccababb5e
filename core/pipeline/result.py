"""What a run gives back."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from onnx_rewrite.model import LoadedModel, save, to_proto
from onnx_rewrite.report.schema import Report
from onnx_rewrite.rewriter.site import Site


@dataclass
class Result:
    """A rewritten model.

    Attributes:
        report: What was found, done and verified.
        sites: The sites of all passes; those that were rolled back hold their two cut-out models.
        changed: Whether the model differs from what was read.
    """

    report: Report
    sites: list[Site]
    changed: bool
    _loaded: LoadedModel

    @property
    def model(self) -> ir.Model:
        """The rewritten model."""
        return self._loaded.ir

    def to_proto(self) -> onnx.ModelProto:
        """The rewritten model as protobuf; external data stays external."""
        return to_proto(self._loaded)

    def save(self, path: str | os.PathLike[str], *, overwrite_input: bool = False) -> Path:
        """Writes the model, whole or not at all; "-" is standard output.

        Args:
            path: The suffix chooses the format: protobuf, or the text and JSON forms that onnx reads.
            overwrite_input: Allows `path` to be the file that was read.

        Raises:
            ModelError: It cannot be written there.
        """
        written = save(self._loaded, path, overwrite_input=overwrite_input)
        self.report.output.path = str(written)
        return written
