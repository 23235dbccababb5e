"""A process of `python -m benchmarks mhsa`: writes models in one form, or builds and times engines of several."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks import trt_worker
from benchmarks.attention_models import FAMILIES
from benchmarks.mhsa_forms import rewritten


def prepare(job: dict[str, Any]) -> dict[str, Any]:
    """Writes one form of a model, and for the original a feed and what onnxruntime gives for it; no GPU.

    FORM.json says when all is there: {"applied": ...} or {"error": words}.
    """
    folder, form = Path(job["folder"]), job["form"]
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    try:
        found = _prepared(job, folder, form)
    except Exception as error:  # one form that cannot be had must not cost the others
        found = {"error": f"{type(error).__name__}: {error}"[:300]}
    write(folder / f"{form}.json", {**found, "seconds": round(time.perf_counter() - began, 1)})
    return found


def _prepared(job: dict[str, Any], folder: Path, form: str) -> dict[str, Any]:
    model: onnx.ModelProto | Path
    if job["model"] in FAMILIES:
        model = FAMILIES[job["model"]](job["batch"], job["layers"])
    else:
        model = Path(job["file"])
        while not model.is_file():  # it is still being exported
            time.sleep(0.2)
    made, applied = rewritten(model, job["passes"], job["target"], job["verify"])
    onnx.save(made, folder / f"{form}.onnx")
    if form == "original":
        from onnx_rewrite.engines.protocol import Model
        from onnx_rewrite.engines.trials import trials

        found = trials([Model(made)], shapes=None, inputs=None, seed=0)
        np.savez(folder / "feed.npz", **found.feeds[0])
        if found.expected[0][0] is not None:
            np.savez(folder / "expected.npz", **found.expected[0][0])
    return {"applied": applied, "nodes": len(made.graph.node)}


def group(job: dict[str, Any]) -> dict[str, Any]:
    """Builds engines of the forms of a model, runs them in turn, and writes rows as soon as there are some.

    With `each`, all that are there are timed after each build: a build may take minutes, and the time may be up.
    """
    from onnx_rewrite.engines import registry

    folder, out = Path(job["folder"]), Path(job["out"])
    head = {"model": job["model"], "batch": job["batch"], "precision": job["precision"]}
    (backend,) = registry.choose(job["engine"]).backends
    feed, expected = _arrays(folder / "feed.npz"), _arrays(folder / "expected.npz")
    rows: dict[str, dict[str, Any]] = {}

    def told(race: Race) -> None:
        write(out, [{**head, **row} for row in race.rows.values()])

    def models() -> Iterator[tuple[str, onnx.ModelProto | None, str | None]]:
        for form in job["forms"]:
            known = folder / f"{form}.json"
            while not known.is_file() and time.time() < job["until"]:
                time.sleep(0.1)
            notes = json.loads(known.read_text()) if known.is_file() else {"error": "not measured: the time was up"}
            if "error" in notes or feed is None:
                yield form, None, notes.get("error") or "the original cannot be had"
            elif form != "original" and not notes["applied"]:
                yield form, None, "the passes find nothing"
            else:
                yield form, onnx.load(folder / f"{form}.onnx"), None

    race = Race(backend, feed or {}, expected, job["duration"], lambda: job["until"] - time.time())
    race.rows = rows
    for form, model, reason in models():
        if model is None:
            rows[form] = {"variant": form, "error": reason}
        elif race.build(form, model) and job["each"] and len(race.engines) > 1:
            race.run()
        told(race)
    if not job["each"]:
        race.run()
        told(race)
    return {"rows": len(rows), "measured": sum(row.get("median") is not None for row in rows.values())}


class Race:
    """Engines of several models that take the same feed.

    Attributes:
        rows: By name what is known of each.
        engines: By name.
    """

    def __init__(
        self,
        backend: Any,
        feed: Mapping[str, Any],
        expected: Mapping[str, Any] | None,
        duration: float,
        left: Callable[[], float],
    ) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.engines: dict[str, Any] = {}
        self._backend, self._feed, self._expected = backend, feed, expected
        self._duration, self._left = duration, left

    def build(self, name: str, model: onnx.ModelProto) -> bool:
        """Builds an engine, unless the time is up."""
        from onnx_rewrite.engines.protocol import Model, Profile
        from onnx_rewrite.engines.trials import largest_difference

        row: dict[str, Any] = {"variant": name, "nodes": len(model.graph.node)}
        self.rows[name] = row
        if self._left() <= 0:
            row["error"] = "not measured: the time was up"
            return False
        profiles = {k: Profile.fixed(*v.shape) for k, v in self._feed.items()}
        try:
            engine = self._backend.build(Model(model), profiles=profiles)
            outputs = engine.run(self._feed)
        except Exception as error:  # one variant that is refused must not cost the others
            row["error"] = f"{type(error).__name__}: {error}"[:300]
            return False
        self.engines[name] = engine
        worst, relative = (None, None) if self._expected is None else largest_difference(outputs, dict(self._expected))
        row |= {
            "build_s": round(engine.build_seconds, 2),
            "layers": len(engine.layers),
            "kinds": [layer.kind for layer in engine.layers],
            "error_max": worst,
            "error_relative": relative,
        }
        return True

    def run(self) -> None:
        """Times all engines that there are, in turn."""
        from onnx_rewrite.engines.timing import Effort, ratio, take_turns

        take_turns(list(self.engines.values()), self._feed, Effort(seconds=self._duration))
        base = compute(self.engines["original"]) if "original" in self.engines else []
        for name, engine in self.engines.items():
            times = compute(engine)
            row = self.rows[name]
            row |= quartiles(times)
            if base and row["median"]:
                row["times"] = round(statistics.median(base) / row["median"], 4)
                apart = None if name == "original" else ratio(base, times)
                row["interval"] = None if apart is None else [round(1 / apart.high, 4), round(1 / apart.low, 4)]


def compute(engine: Any) -> list[float]:
    """An engine's times on the GPU in ms, or those of whole runs where it has no GPU."""
    phases = [one.phases for one in engine.timings if one.phases is not None]
    return [p.compute[1] - p.compute[0] for p in phases] or [one.seconds * 1e3 for one in engine.timings]


def quartiles(times: list[float]) -> dict[str, float | None]:
    """Median and quartiles."""
    if len(times) < 4:
        return {"median": None, "low": None, "high": None}
    low, middle, high = statistics.quantiles(times, n=4)
    return {"median": middle, "low": low, "high": high}


def write(path: Path, content: Any) -> None:
    """A file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.part")
    temporary.write_text(json.dumps(content, indent=1, default=str) + "\n")
    temporary.replace(path)


def _arrays(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


JOBS = {"about": trt_worker.about, "prepare": prepare, "group": group}

if __name__ == "__main__":
    sys.exit(trt_worker.serve(JOBS))
