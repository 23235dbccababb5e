"""A failing example on disk: the model, the feed that shows it, and how to run it again."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnx_rewrite.testing.example import Example, text_of
from onnx_rewrite.testing.properties import PROPERTIES, Terms, Violation
from onnx_rewrite.testing.subject import Subject, subject_of
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
        return f"{self.pass_name}: {self.property}: {self.reason}\nWhat must hold: {about}\n{shown}{self._fed()}"

    def _fed(self) -> str:
        """The inputs that show it, as far as they are short."""
        if not self.feed or sum(a.size for a in self.feed.values()) > _MOST_SHOWN:
            return ""
        told = [
            f"    {name} = {np.array2string(a, separator=', ', prefix=f'    {name} = ')}"
            for name, a in self.feed.items()
        ]
        return "\n".join(["It shows on", *told, ""])

    def save(self, folder: Path | None = None, pass_: Any = None) -> Path:
        """Writes model.onnx, feeds.npz, failure.json and replay.py to a folder of its own, and returns that.

        Args:
            folder: The folder that gets it; default: `FOLDER`.
            pass_: The pass, for the script to import; default: it is installed.
        """
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
        (place / "replay.py").write_text(_script(self.pass_name, pass_, place), encoding="utf-8")
        return place


def where(folder: Path) -> str:
    """Where a failure was saved, and how it is run again."""
    return f'Saved in {folder}\nAgain: python {folder}/replay.py, or saved = ["{folder}"] in the suite'


_MOST_SHOWN = 32
"""Elements of a feed that is printed."""

_SCRIPT = '''\
"""Runs the saved example again, and fails as long as it fails."""

import sys
from pathlib import Path

from onnx_rewrite.testing import Violation, replay

here = Path(__file__).resolve().parent
{imports}try:
    replay(here, {name})
except Violation as wrong:
    sys.exit(f"it still fails: {{wrong}}")
print("it holds now")
'''


def _script(name: str, pass_: Any, place: Path) -> str:
    """The script that runs an example again; it imports a pass that is no installed one from where it was declared."""
    kind = pass_ if isinstance(pass_, type) else type(pass_)
    module = sys.modules.get(kind.__module__)
    source = getattr(module, "__file__", None)
    if isinstance(pass_, str) or pass_ is None or source is None or "<locals>" in kind.__qualname__ or kind is Subject:
        return _SCRIPT.format(imports="", name=repr(name))
    root = Path(source).resolve().parents[kind.__module__.count(".")]
    relative = os.path.relpath(root, place.resolve())
    imports = f"sys.path.insert(0, str(here / {relative!r}))\n\nfrom {kind.__module__} import {kind.__qualname__}\n\n"
    return _SCRIPT.format(imports=imports, name=kind.__qualname__ + ("" if isinstance(pass_, type) else "()"))


def smallest(failure: Failure, terms: Terms, seconds: float = 10.0) -> Failure:
    """The failure on the smallest part of its model that still breaks the property, if that holds for any model.

    Hypothesis makes the choices simpler; whatever else stands in the graph goes here.
    """
    from onnx_rewrite.pipeline.minimising import minimise

    one = PROPERTIES[failure.property]
    if not one.of_any:
        return failure
    found = [failure]
    story = (f"drawn as: {', '.join(failure.example.story) or 'an instance'}; then reduced",)

    kinds = list[str]()  # the first one is that of the whole model
    declared = bool(failure.example.model.graph.value_info)

    def fails(model: onnx.ModelProto) -> bool:
        if not declared:
            # What is cut off becomes an input, and shapes that were declared for the sake of that may not hold any more
            # where it is a shape itself: the model would contradict itself, which is no fault of the pass.
            bare = onnx.ModelProto()
            bare.CopyFrom(model)
            del bare.graph.value_info[:]
            model = bare
        example = Example(model, failure.example.subject, story)
        raised = example.raises
        try:
            one.check(example, terms)
        except Violation as violation:
            reason, feed = str(violation), violation.feed
        except Exception as error:
            reason, feed = f"the pass raises {type(error).__name__}: {error}", dict[str, Array]()
        else:
            return False
        kinds.append(_kind(reason))
        if raised != failure.example.raises or kinds[-1] != kinds[0]:
            return False
        found[:] = [Failure(failure.pass_name, failure.property, reason, example, feed)]
        return True

    try:
        minimise(failure.example.model, fails, seconds=seconds)
    except ValueError:  # it needs more than the model
        return failure
    return found[-1]


def _kind(reason: str) -> str:
    """What is wrong, without what differs from one model to the next: names, numbers, and on what feed it shows."""
    return re.sub(r"'[^']*'|\[[^]]*\]|\d+", "", re.split(r": | on ", reason)[0])


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
