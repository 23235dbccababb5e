"""What a run gives back."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import onnx_ir as ir

from onnx_rewrite.custom import Files
from onnx_rewrite.model import LoadedModel, save, to_proto
from onnx_rewrite.pipeline.gs_reading import open_graph
from onnx_rewrite.report.schema import Report
from onnx_rewrite.rewriter.site import Site
from onnx_rewrite.verify import LocalJudge
from onnx_rewrite.verify.reproduction import save_reproduction


@dataclass
class Result:
    """A rewritten model.

    Attributes:
        report: What was found, done and verified.
        sites: The sites of all passes; those that were rolled back hold their two cut-out models.
        changed: Whether the model differs from what was read.
        adapters: The files of adapters of the run, or None.
    """

    report: Report
    sites: list[Site]
    changed: bool
    _loaded: LoadedModel
    _judge: LocalJudge | None = None
    adapters: Files | None = None

    @property
    def loaded(self) -> LoadedModel:
        """The rewritten model beside the model as it was read."""
        return self._loaded

    @property
    def model(self) -> ir.Model:
        """The rewritten model."""
        return self._loaded.ir

    def to_proto(self) -> onnx.ModelProto:
        """The rewritten model as protobuf; external data stays external."""
        return to_proto(self._loaded)

    def to_graphsurgeon(self) -> Any:
        """The rewritten model as an `onnx_graphsurgeon.Graph`; graphsurgeon keeps no metadata.

        Raises:
            UsageError: onnx-graphsurgeon is not installed.
        """
        return open_graph(self.to_proto(), self._loaded.base_dir)

    def save_failures(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Saves each replacement that was not equivalent as a folder that shows it: models, feed and a script.

        Args:
            folder: Gets one folder per site, "ln_3"; nothing is made if there is no such site.

        Returns:
            The scripts.

        Raises:
            OSError: They cannot be written there.
        """
        scripts: list[Path] = []
        for site in self.sites:
            seen = site.verification
            if self._judge is None or site.before is None or site.after is None or seen.regime is None:
                continue
            feeds = self._judge.feed(site.before, seen.regime)
            if feeds is not None:
                place = Path(folder) / site.id.replace("[", "_").replace("]", "")
                title = f"{site.id}, at {', '.join(site.nodes)}: {seen.verdict}."
                scripts.append(save_reproduction(place, title, site.before, site.after, feeds, seen))
        return scripts

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite_input: bool = False,
        external_data: Literal["keep", "link", "copy"] = "keep",
    ) -> Path:
        """Writes the model, whole or not at all; "-" is standard output.

        Args:
            path: The suffix chooses the format: protobuf, or the text and JSON forms that onnx reads.
            overwrite_input: Allows `path` to be the file that was read.
            external_data: Weights in files of their own: "keep" refers to them where it can, "link" insists that no
                byte of them is written, "copy" gives the output its own.

        Raises:
            ModelError: It cannot be written there.
        """
        written = save(self._loaded, path, overwrite_input=overwrite_input, external_data=external_data)
        self.report.output.path = str(written)
        return written
