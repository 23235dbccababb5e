"""A failing example on disk: the model, the feed that shows it, and how to run it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnx_rewrite.testing.example import Example, text_of
from onnx_rewrite.testing.properties import PROPERTIES, Terms
from onnx_rewrite.testing.subject import subject_of
from onnx_rewrite.verify.dtypes import Array

FOLDER = Path(".onnx_rewrite") / "failures"
"""Where failing examples are saved unless a suite says otherwise."""


@dataclass
class Failure:
    """The smallest example of a property that does not hold.

    Attributes:
        pass_name: The pass.
        property: Name of the property.
        reason: What is wrong.
        example: The example.
        feed: Inputs that show it; empty where none are needed.
    """

    pass_name: str
    property: str
    reason: str
    example: Example
    feed: Mapping[str, Array]

    def text(self) -> str:
        """The failure as a reader needs it."""
        about = PROPERTIES[self.property].about
        shown = text_of(self.example.model, self.example.story)
        return f"{self.pass_name}: {self.property}: {self.reason}\nWhat must hold: {about}\n{shown}"

    def save(self, folder: Path | None = None) -> Path:
        """Writes model.onnx, feeds.npz, failure.json and replay.py to a folder of its own, and returns that."""
        place = (folder or FOLDER) / f"{self.pass_name}-{self.property}"
        place.mkdir(parents=True, exist_ok=True)
        onnx.save(self.example.model, place / "model.onnx")
        arrays: dict[str, Any] = dict(self.feed)
        np.savez(place / "feeds.npz", **arrays)
        about = {
            "pass": self.pass_name,
            "property": self.property,
            "reason": self.reason,
            "story": list(self.example.story),
            "container": self.example.container,
            "elsewhere": self.example.elsewhere,
        }
        (place / "failure.json").write_text(json.dumps(about, indent=2, ensure_ascii=False), encoding="utf-8")
        (place / "replay.py").write_text(_SCRIPT.format(name=self.pass_name), encoding="utf-8")
        return place


_SCRIPT = '''\
"""Runs the saved example again; import the module that declares the pass first, if it is not installed."""

from pathlib import Path

from onnx_rewrite.testing import replay

replay(Path(__file__).parent, "{name}")
print("it holds now")
'''


def replay(folder: str | Path, pattern: Any = None, terms: Terms | None = None) -> None:
    """Runs a saved example again.

    Args:
        folder: What `Failure.save` wrote.
        pattern: The pass; default: the one that the folder names.
        terms: What is relaxed.

    Raises:
        Violation: It still fails.
        FileNotFoundError: There is no example in the folder.
    """
    folder = Path(folder)
    about = json.loads((folder / "failure.json").read_text(encoding="utf-8"))
    model = onnx.load(folder / "model.onnx")
    subject = subject_of(about["pass"] if pattern is None else pattern)
    places = {name: about[name] for name in ("container", "elsewhere") if name in about}
    example = Example(model, subject, tuple(about.get("story", ())), **places)
    PROPERTIES[about["property"]].check(example, terms or Terms())
