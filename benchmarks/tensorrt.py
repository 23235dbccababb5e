"""`python -m benchmarks tensorrt MODEL...`: engines before and after passes, in one row.

Models are rewritten and run in onnxruntime by processes without a GPU; meanwhile each GPU builds engines, one by one
(`--builds-per-gpu`), which the engine cache keeps. Timing comes afterwards, on one GPU, with nothing else running.
Every row is on disk as soon as it is there; `--resume` goes on where an earlier run stopped.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.trt_lanes import Worker, gpus
from benchmarks.trt_table import line, show, verdict

_MARGIN = 8.0
"""Seconds that are left at the end of the budget for what was not foreseen."""


@dataclass
class Entry:
    """One row that is wanted."""

    model: Path
    passes: str
    engine: str
    precision: str

    @property
    def spec(self) -> str:
        """As `rewrite bench --engines` has it."""
        name, *more = self.engine.split(":")
        return ":".join([name, *([self.precision] if self.precision else []), *more])

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.model.name, self.passes, self.engine, self.precision

    @property
    def words(self) -> dict[str, Any]:
        return {"model": self.model.name, "passes": self.passes, "engine": self.engine, "asked": self.precision}


@dataclass
class Preparation:
    """A rewritten model: its folder, and what came of it."""

    folder: Path
    answer: dict[str, Any] | None = None

    @property
    def known(self) -> dict[str, Any] | None:
        """What is known of the rewrite so far; None: nothing yet."""
        path = self.folder / "prepared.json"
        return json.loads(path.read_text()) if path.is_file() else None


@dataclass
class Run:
    """A run under its budget of seconds."""

    options: argparse.Namespace
    plan: list[Entry]
    work: Path
    began: float = field(default_factory=time.perf_counter)
    rows: list[dict[str, Any]] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.prepared: dict[tuple[str, str], Preparation] = {}
        for entry in self.plan:
            name = f"{entry.model.stem}-{entry.passes.replace(',', '-') or 'nothing'}"
            self.prepared.setdefault((str(entry.model), entry.passes), Preparation(self.work / name))
        self.builds: dict[tuple[str, str], dict[str, Any] | None] = {}  # None: being built

    @property
    def end(self) -> float:
        return self.began + self.options.budget

    @property
    def build_end(self) -> float:
        """When building must stop, so that what is built can be measured."""
        ready = sum(all(self.builds.get(job) for job in self.jobs(entry)) for entry in self.plan)
        return self.end - _MARGIN - ready * self.row_seconds

    @property
    def row_seconds(self) -> float:
        return 5 + 2.5 * (3.0 if self.options.duration is None else self.options.duration)

    def of(self, entry: Entry) -> Preparation:
        return self.prepared[str(entry.model), entry.passes]

    def jobs(self, entry: Entry) -> list[tuple[str, str]]:
        return [(str(entry.model), entry.spec), (str(self.of(entry).folder / "after.onnx"), entry.spec)]

    def say(self, words: str) -> None:
        print(f"{time.perf_counter() - self.began:6.1f} s  {words}", file=sys.stderr, flush=True)

    # What processors do.

    def prepare(self, worker: Worker, queue: list[tuple[str, str]]) -> None:
        while True:
            with self.lock:
                if not queue:
                    return
                model, passes = queue.pop(0)
            one = self.prepared[model, passes]
            job = {"job": "prepare", "model": model, "passes": passes, "folder": str(one.folder)}
            job |= {
                "verify": self.options.verify,
                "unchanged": self.options.unchanged,
                "await": self.options.await_models,
            }
            one.answer = worker.do(job, self.end)
            self.say(f"{Path(model).name} {passes}: {one.answer.get('error') or one.answer['result']}")

    # What GPUs do.

    def build(self, worker: Worker) -> None:
        while True:
            entry, job, waits = self.next_build()
            if job is None:
                if not waits:
                    return
                time.sleep(0.1)
                continue
            feed = str(self.of(entry).folder / "feed.npz")
            began = time.perf_counter()
            answer = worker.do({"job": "build", "model": job[0], "engine": job[1], "feed": feed}, self.build_end)
            self.builds[job] = answer
            words = answer.get("error") or f"built in {answer['result']['build_seconds']:.1f} s"
            side = "after" if Path(job[0]).name == "after.onnx" else "before"
            self.say(f"{worker.name}: {entry.model.name} {entry.passes} {side} {job[1]}: {words[:200]}")
            self.say(f"{worker.name}: in all {time.perf_counter() - began:.1f} s")

    def next_build(self) -> tuple[Entry, tuple[str, str] | None, bool]:
        """An engine that nobody builds yet; whether others will come; the first argument is its row."""
        waits = False
        with self.lock:
            if time.perf_counter() >= self.build_end:
                return self.plan[0], None, False
            for entry in self.plan:
                preparation = self.of(entry)
                known = preparation.known
                if known is None:
                    waits |= preparation.answer is None
                    continue
                if not known["applied"] and not self.options.unchanged:
                    continue
                for job in self.jobs(entry):
                    if Path(job[0]).name == "after.onnx" and not known.get("after"):
                        waits |= preparation.answer is None
                    elif job not in self.builds:
                        self.builds[job] = None
                        return entry, job, True
        return self.plan[0], None, waits

    # What is left: one thing at a time.

    def measure(self, worker: Worker, entry: Entry, *, built: bool) -> list[dict[str, Any]]:
        preparation = self.of(entry)
        known = dict(preparation.known or {})
        if not known.pop("after", False):
            error = (preparation.answer or {}).get("error", "the time was up")
            return [{**entry.words, "error": f"not measured: {error}"}]
        head = {**entry.words, **known}
        if not known["applied"] and not self.options.unchanged:
            return [{**head, "verdict": "the passes find nothing"}]
        if built:
            answers = [self.builds.get(job) for job in self.jobs(entry)]
            if any(answer is None or answer.get("late") for answer in answers):
                return [{**head, "error": "not measured: the time was up"}]
            refused = [
                f"{side}: {a['error']}" for side, a in zip(("before", "after"), answers, strict=True) if "error" in a
            ]
            if refused:
                return [{**head, "verdict": "not built", "error": "; ".join(refused)}]
        if time.perf_counter() > self.end - 2:
            return [{**head, "error": "not measured: the time was up"}]
        job = {"job": "measure", "before": str(entry.model), "after": str(preparation.folder / "after.onnx")}
        job |= {"engine": entry.spec, "feed": str(preparation.folder / "feed.npz")}
        job |= {"duration": self.options.duration, "profile": self.options.profile}
        answer = worker.do(job, self.end)
        if "error" in answer:
            return [{**head, "error": answer["error"]}]
        found: list[dict[str, Any]] = []
        for pair in answer["result"]:
            after = pair["after"]
            more = {"version": after["version"], "precision": after["precision"], "ratio": after["ratio"]}
            found.append({**head, **more, "verdict": verdict(pair), "before": pair["before"], "after": after})
        return found

    def write(self) -> None:
        out: Path = self.options.out
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = out.with_suffix(".part")
        temporary.write_text(json.dumps(self.document(), indent=1) + "\n")
        temporary.replace(out)

    def document(self) -> dict[str, Any]:
        return {
            "benchmark": "tensorrt",
            "date": datetime.date.today().isoformat(),
            "machine": {
                "processor": results.processor(),
                "cores": os.cpu_count(),
                "system": platform.system(),
                "python": platform.python_version(),
                **self.machine,
            },
            "versions": results.versions(),
            "seconds": round(time.perf_counter() - self.began, 1),
            "rows": self.rows,
        }


def run(options: argparse.Namespace, plan: list[Entry], work: Path) -> list[dict[str, Any]]:
    """Measures what the plan wants, as far as the time allows."""
    this = Run(options, plan, work)
    if options.resume and options.out.is_file():
        this.rows = [row for row in json.loads(options.out.read_text())["rows"] if "error" not in row]
    done = {(row["model"], row["passes"], row["engine"], row["asked"]) for row in this.rows}
    this.plan = plan = [entry for entry in plan if entry.key not in done]
    if not plan:
        return this.rows
    if options.budget <= 0:
        this.rows += [{**entry.words, "error": "not measured: the time was up"} for entry in plan]
        this.write()
        return this.rows
    log = options.out.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    hardware = gpus()
    lanes = [Worker(f"GPU {gpu}", gpu, log) for gpu in hardware for _ in range(options.builds_per_gpu)]
    first = lanes[0] if lanes else Worker("measuring", None, log)
    helpers = [Worker(f"processor {i}", "", log) for i in range(options.processors)]
    first_name = plan[0].engine.partition(":")[0]
    library = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}.get(first_name)
    queue = list(this.prepared)
    threads = [threading.Thread(target=this.prepare, args=(worker, queue)) for worker in helpers]
    for thread in threads:
        thread.start()
    answer = first.do({"job": "about", "library": library, "engine": first_name}, this.end)
    this.machine = {**answer.get("result", answer), "gpus": len(hardware)}
    this.say(json.dumps(this.machine))
    # An engine that is built for another machine is quick to build, and not kept.
    built = bool(lanes) and bool(this.machine.get("gpu")) and any("tensorrt" in entry.engine for entry in plan)
    if built:
        building = [threading.Thread(target=this.build, args=(worker,)) for worker in lanes]
        for thread in building:
            thread.start()
        for thread in building:
            thread.join()
    for thread in threads:  # nothing else may run while engines are timed
        thread.join(timeout=max(this.end - _MARGIN - time.perf_counter(), 0.1))
    queue.clear()
    for worker in [*helpers, *lanes[1:]]:
        worker.close()
    for entry in plan:
        began = time.perf_counter()
        found = this.measure(first, entry, built=built and "tensorrt" in entry.engine)
        this.rows += found
        this.write()
        for row in found:
            this.say(" | ".join(cell for cell in line(row) if cell) + f" ({time.perf_counter() - began:.1f} s)")
    first.close()
    for thread in threads:
        thread.join()
    this.write()
    return this.rows


def entries(options: argparse.Namespace) -> list[Entry]:
    """The rows that are wanted, the most important first."""
    engines = options.engines.split(",")
    if options.plan:
        wanted = [tuple(entry.rsplit(":", 2)) for entry in options.plan]
    else:
        wanted = [(str(m), passes, p) for p in options.precision for m in options.models for passes in options.passes]
    return [
        Entry(Path(model).resolve(), passes, one, precision) for model, passes, precision in wanted for one in engines
    ]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks tensorrt", description=__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--passes", nargs="+", default=["ln"], help="lists of passes, each measured by itself")
    parser.add_argument("--engines", default="tensorrt", help="as for `rewrite bench`, options included")
    parser.add_argument("--precision", nargs="+", default=["fp32", "fp16"], help="'' for what the model says")
    parser.add_argument(
        "--plan", nargs="+", default=[], help="MODEL:PASSES:PRECISION in order of importance, in place of all that"
    )
    parser.add_argument("--duration", type=float, default=None, help="seconds of timed inferences per engine")
    parser.add_argument("--budget", type=float, default=1e6, help="stops after so many seconds, the rows so far kept")
    parser.add_argument("--verify", default="local", choices=("full", "local", "off"))
    parser.add_argument("--await-models", action="store_true", help="waits for models that are still being exported")
    parser.add_argument("--builds-per-gpu", type=int, default=1, help="more are quicker, and choose tactics less well")
    parser.add_argument("--processors", type=int, default=max(1, min(4, (os.cpu_count() or 1) // 2)))
    parser.add_argument("--work", type=Path, default=None, help="a folder for rewritten models")
    parser.add_argument("--out", type=Path, default=results.FOLDER / "tensorrt.json")
    parser.add_argument("--resume", action="store_true", help="keeps the rows of --out that were measured, and adds")
    parser.add_argument("--profile", action="store_true", help="keeps every layer and its time in the results")
    parser.add_argument("--unchanged", action="store_true", help="measures models that the passes leave alone, too")
    parser.add_argument("--table", action="store_true", help="prints the table of an earlier run and measures nothing")
    options = parser.parse_args(arguments)
    if options.table:
        show(json.loads(options.out.read_text())["rows"])
        return 0
    plan = entries(options)
    missing = [str(entry.model) for entry in plan if not entry.model.is_file() and not options.await_models]
    if missing or not plan:
        parser.error(f"no such model: {', '.join(dict.fromkeys(missing))}" if missing else "no model is given")
    with tempfile.TemporaryDirectory() as scratch:
        rows = run(options, plan, options.work or Path(scratch))
    show(rows)
    print(options.out)
    return 0 if any("before" in row for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
