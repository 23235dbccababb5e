"""Random graphs around the patterns, each rewritten by all passes and compared as a whole with what it was.

The comparison knows nothing of the judge: onnxruntime before and after, and how far the original itself moves when its
inputs move by a few parts in a million. Every third graph is rewritten with verification, the others without, so that
nothing that a pass does wrong is taken back before it is seen.
"""

from __future__ import annotations

import argparse
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.corpus import draw, feeds

Outputs = list[np.ndarray]

# How far results may be apart: so many times the movement of the original, and this part of its largest number.
TIMES, PART = 30.0, {"float32": 2e-4, "float64": 1e-9}
MOVE = {"float32": 2e-6, "float64": 1e-12}
# Rounding of equal numbers behind a layer normalization of epsilon 1e-5, whose slope is 300.
FLOOR = {"float32": 1e-3, "float64": 1e-9}


class Failed(Exception):
    """What is wrong with a rewritten graph."""


def session(model: onnx.ModelProto) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(opened: Any, feed: dict[str, np.ndarray]) -> Outputs:
    names = {v.name for v in opened.get_inputs()}
    return list(opened.run(None, {k: v for k, v in feed.items() if k in names}))


def moved(feed: dict[str, np.ndarray], turn: int) -> dict[str, np.ndarray]:
    """The feed, every number of it a little off."""
    rng = np.random.default_rng([22, turn])
    found = dict(feed)
    for name, array in feed.items():
        if array.dtype.kind == "f":
            found[name] = (array * (1 + MOVE[array.dtype.name] * rng.choice([-1, 1], array.shape))).astype(array.dtype)
    return found


def compare(before: onnx.ModelProto, after: onnx.ModelProto, given: list[dict[str, np.ndarray]]) -> None:
    """Raises where the two models do not give the same.

    Raises:
        Failed: They do not.
    """
    first, second = session(before), session(after)
    for number, feed in enumerate(given):
        was, now = run(first, feed), run(second, feed)
        others = [run(first, moved(feed, turn)) for turn in range(2)]
        for k, (one, two) in enumerate(zip(was, now, strict=True)):
            name = before.graph.output[k].name
            if one.shape != two.shape or one.dtype != two.dtype:
                raise Failed(f"output {name}: {one.dtype}{list(one.shape)} became {two.dtype}{list(two.shape)}")
            if not np.array_equal(np.isfinite(one), np.isfinite(two)):
                raise Failed(f"output {name}, feed {number}: other numbers are not finite")
            kind, finite = one.dtype.name, np.isfinite(one)
            with np.errstate(invalid="ignore"):
                moves = [
                    np.max(np.abs(one - o), initial=0.0, where=finite & np.isfinite(o)) for o in (o[k] for o in others)
                ]
                gap = np.max(np.abs(one - two), initial=0.0, where=finite)
            largest = np.max(np.abs(one), initial=0.0, where=finite)
            allowed = TIMES * max(moves) + PART[kind] * largest + FLOOR[kind]
            if gap > allowed:
                raise Failed(f"output {name}, feed {number}: {gap:.3g} apart, {allowed:.3g} allowed of {largest:.3g}")


def examine(seed: int, passes: Sequence[Any]) -> Counter[str]:
    """Draws, rewrites and compares one graph; returns what became of the sites.

    Raises:
        Failed: Something is wrong.
    """
    import onnx_rewrite as rw

    model = draw(seed)
    onnx.checker.check_model(model, full_check=True)
    verified = seed % 3 == 0
    original = model.SerializeToString(deterministic=True)
    result = rw.rewrite(model, passes, verify="full" if verified else "off")
    counted = Counter(site.status for site in result.sites)
    counted.update(f"{s.pass_name} {s.status}" for s in result.sites)
    counted["nodes"] = len(model.graph.node)
    if model.SerializeToString(deterministic=True) != original:
        raise Failed("the model that was given has changed")
    back = [s for s in result.sites if s.status == "rolled_back"]
    if back:
        raise Failed(f"{back[0].id} at {', '.join(back[0].nodes)} was rolled back: {back[0].reason}")
    after = result.to_proto()
    written = after.SerializeToString(deterministic=True)
    if not result.changed:
        if written != original:
            raise Failed("nothing was applied, and the model is another one")
        return counted
    onnx.checker.check_model(after, full_check=True)
    if [v.name for v in after.graph.output] != [v.name for v in model.graph.output]:
        raise Failed("the outputs have other names")
    compare(model, after, feeds(model, seed))
    again = rw.rewrite(after, passes, verify="off")
    if again.changed or again.to_proto().SerializeToString(deterministic=True) != written:
        raise Failed("a second run changes the model: " + ", ".join(s.id for s in again.sites if s.status == "applied"))
    if seed % 4 == 0:
        other = rw.rewrite(model, passes, verify="off" if not verified else "full").to_proto()
        if other.SerializeToString(deterministic=True) != written:
            raise Failed("the same model gave other bytes")
    return counted


def save(folder: Path, seed: int, reason: str) -> Path:
    """Keeps a failure: the model, and what happened with the command that shows it again."""
    place = folder / f"seed_{seed}"
    place.mkdir(parents=True, exist_ok=True)
    onnx.save(draw(seed), place / "model.onnx")
    (place / "reason.txt").write_text(f"{reason}\n\npython -m benchmarks fuzz --seed {seed} --graphs 1\n")
    return place


def all_passes() -> list[Any]:
    """Every pass of this package, once."""
    import onnx_rewrite as rw
    from onnx_rewrite import registry

    origins = {name: rw.passes.describe(name).origin for name in rw.passes.names()}
    return registry.resolve([name for name, origin in origins.items() if origin.startswith("onnx_rewrite.passes.")])


def fuzz(
    seeds: Sequence[int], folder: Path | None = None, until: float | None = None
) -> tuple[Counter[str], dict[int, str]]:
    """Examines graphs.

    Args:
        seeds: One per graph.
        folder: Gets the failures, or None.
        until: Value of `time.perf_counter` at which to stop, or None.

    Returns:
        Counts of graphs, nodes and sites by status, and the failures by seed.
    """
    passes = all_passes()
    counted: Counter[str] = Counter()
    failures: dict[int, str] = {}
    for seed in seeds:
        if until is not None and time.perf_counter() >= until:
            break
        counted["graphs"] += 1
        try:
            counted.update(examine(seed, passes))
        except Exception as error:
            text = str(error) if isinstance(error, Failed) else traceback.format_exc()
            failures[seed] = text.strip()
            if folder is not None:
                print(f"seed {seed}: {str(error).strip()[:200]}\n  {save(folder, seed, text)}", flush=True)
    return counted, failures


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the first graph; the next ones follow")
    parser.add_argument("--graphs", type=int, default=10**9, help="at most so many")
    parser.add_argument("--failures", type=Path, default=Path("build/fuzz"), help="a folder for what fails")
    options = parser.parse_args(arguments)
    began = time.perf_counter()
    seeds = range(options.seed, options.seed + options.graphs)
    counted, failures = fuzz(seeds, options.failures, began + options.minutes * 60)
    took = time.perf_counter() - began
    for name, count in sorted(counted.items()):
        print(f"{name:16} {count}")
    print(f"{'failures':16} {len(failures)}")
    print(f"{'graphs a second':16} {counted['graphs'] / took:.1f}")
    return 1 if failures else 0
