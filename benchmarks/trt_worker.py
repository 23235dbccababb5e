"""A process of `python -m benchmarks tensorrt`: takes jobs as JSON lines, answers each with one.

It keeps what loading the libraries costs to once per process; one that crashes costs its own job alone.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu import told

ANSWER = "answer:"


def about(job: dict[str, Any]) -> dict[str, Any]:
    """The GPU, and what the first steps of a process cost."""
    marks: dict[str, float] = {}
    last = time.perf_counter()

    def mark(name: str) -> None:
        nonlocal last
        now = time.perf_counter()
        marks[name], last = round(now - last, 3), now

    import onnx_rewrite  # noqa: F401
    from onnx_rewrite.engines import registry
    from onnx_rewrite.engines.cuda import Cuda, CudaError

    mark("import onnx_rewrite")
    if job.get("library"):
        try:
            __import__(job["library"])
        except Exception as error:  # the engines say why
            marks["failed"] = 0.0
            print(error, file=sys.stderr)
        mark(f"import {job['library']}")
    try:
        gpu = Cuda()
    except CudaError as error:
        return {"gpu": None, "reason": str(error), "startup": marks}
    mark("CUDA context")
    lack = registry.get(job["engine"]).unavailable() if job.get("engine") else None
    mark("is the engine available")
    return {**told(gpu), "reason": None if lack is None else lack.reason, "startup": marks}


def prepare(job: dict[str, Any]) -> dict[str, Any]:
    """Rewrites a model, verified, and runs both sides in onnxruntime; no GPU.

    prepared.json says how far it is: first that the passes find something, so that the original may be built, then what
    the verified rewrite did, with after.onnx; expected-*.npz come last.
    """
    import onnx_rewrite as rw
    from onnx_rewrite.engines.protocol import Model
    from onnx_rewrite.engines.trials import trials
    from onnx_rewrite.model import load

    source, folder = Path(job["model"]), Path(job["folder"])
    while not source.is_file() and job["await"]:
        time.sleep(0.2)
    folder.mkdir(parents=True, exist_ok=True)
    original = load(source)
    drawn = trials([Model(original.proto, original.base_dir)], shapes=None, inputs=None, seed=0, expect=False)
    np.savez(folder / "feed.npz", **(drawn.feeds[0] if drawn.feeds else {}))

    def rewrite(verify: str) -> tuple[Any, dict[str, Any]]:
        began = time.perf_counter()
        result = rw.rewrite(source, job["passes"] or [], verify=verify)
        report = result.report
        return result, {
            "applied": report.applied,
            "rolled_back": report.rolled_back,
            "nodes": [report.model.nodes, report.output.nodes],
            "opset": [report.model.opset.get("", 0), report.output.opset.get("", 0)],
            "rewrite_seconds": round(time.perf_counter() - began, 3),
            "verify": verify,
        }

    result, found = rewrite("off")
    if job["verify"] != "off" and found["applied"]:
        _note(folder, found)
        result, found = rewrite(job["verify"])
    result.save(folder / "after.onnx")
    _note(folder, {**found, "after": True})
    if found["applied"] or job["unchanged"]:
        after = load(folder / "after.onnx")
        models = [Model(one.proto, one.base_dir) for one in (original, after)]
        full = trials(models, shapes=None, inputs=drawn.feeds, seed=0)
        for side, expected in zip(("before", "after"), full.expected, strict=True):
            if expected and expected[0] is not None:
                np.savez(folder / f"expected-{side}.npz", **expected[0])
    return found


def _note(folder: Path, found: dict[str, Any]) -> None:
    temporary = folder / "prepared.part"
    temporary.write_text(json.dumps(found))
    temporary.replace(folder / "prepared.json")


def build(job: dict[str, Any]) -> dict[str, Any]:
    """Builds an engine, which the cache keeps."""
    from onnx_rewrite.engines import registry
    from onnx_rewrite.engines.options import merged
    from onnx_rewrite.engines.protocol import Model
    from onnx_rewrite.model import load

    loaded = load(job["model"])
    (backend,) = registry.choose(job["engine"]).backends
    engine = backend.build(Model(loaded.proto, loaded.base_dir), profiles=merged(_shapes(job["feed"]), {}))
    return {"build_seconds": engine.build_seconds, "cached": bool(getattr(engine, "cached", False))}


def measure(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs two engines in turn; rows as of a report, before and after by turns."""
    from onnx_rewrite.engines import registry
    from onnx_rewrite.engines.bench import compare
    from onnx_rewrite.engines.protocol import Model
    from onnx_rewrite.engines.timing import Effort
    from onnx_rewrite.engines.trials import Trials
    from onnx_rewrite.model import load
    from onnx_rewrite.report.codec import encode
    from onnx_rewrite.report.measurements import judged

    before, after = (load(job[side]) for side in ("before", "after"))
    folder = Path(job["feed"]).parent
    expected = tuple((_arrays(folder / f"expected-{side}.npz"),) for side in ("before", "after"))
    rows = compare(
        Model(before.proto, before.base_dir),
        Model(after.proto, after.base_dir),
        registry.choose(job["engine"]).backends,
        effort=Effort(seconds=job["duration"]),
        profile=job["profile"],
        known=Trials((_arrays(Path(job["feed"])) or {},), expected),
    )
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return [{"before": encode(a), "after": encode(b), "judged": judged(a, b)} for a, b in pairs]


def _shapes(feed: str) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in (_arrays(Path(feed)) or {}).items()}


def _arrays(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


JOBS = {"about": about, "prepare": prepare, "build": build, "measure": measure}


def serve(jobs: Mapping[str, Callable[[dict[str, Any]], Any]]) -> int:
    """Does jobs, a line of JSON each, until there are no more."""
    for line in sys.stdin:
        job = json.loads(line)
        try:
            found: dict[str, Any] = {"result": jobs[job["job"]](job)}
        except Exception as error:  # what one combination fails of must not cost the others
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}"[:1500]}
        print(ANSWER + json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(serve(JOBS))
