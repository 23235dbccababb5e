"""`python -m benchmarks mhsa` on GPUs: a plan of engines on every GPU that there is, until the time is up.

A lane is a GPU and a process that does one group after the other: it builds the group's engines and runs them in turn,
so that nothing is built on a GPU while something is timed there. Models are rewritten by processes without a GPU.
Rows are on disk as soon as they are there, engines in the cache of engines: the same command goes on where the last one
was cut off.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.mhsa_forms import Group
from benchmarks.mhsa_worker import write
from benchmarks.trt_lanes import Worker, gpus

MODULE = "benchmarks.mhsa_worker"
_FINAL = ("the passes find nothing",)
"""Reasons for no time that trying again will not change."""


@dataclass
class Lanes:
    """A run of a plan.

    Attributes:
        plan: The most important first.
        folder: Of exported models.
        work: Where rewritten models and rows are kept.
        settings: What the workers are told: engine, target, verify, duration, layers.
        budget: Seconds.
        processors: How many processes rewrite models.
        patience: For so many seconds exports that are not there are awaited.
        share_timings: Whether a lane keeps the timings of tactics from one build to the next: builds are quicker, equal
            layers get equal tactics, and build times say nothing.
        lanes: GPUs as CUDA_VISIBLE_DEVICES has them; None stands for what is there.
    """

    plan: Sequence[Group]
    folder: Path
    work: Path
    settings: dict[str, Any]
    budget: float
    processors: int = 4
    patience: float = 400.0
    share_timings: bool = False
    lanes: Sequence[str | None] = field(default_factory=lambda: [*gpus()])

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._until = time.time() + self.budget
        self._began = time.perf_counter()
        self._taken: set[Group] = set()
        self._busy: dict[str, Group] = {}
        self.machine: dict[str, Any] = {}

    # What is known.

    def rows(self) -> list[dict[str, Any]]:
        """All rows so far, those of this run and of earlier ones: of each form the last time that it was measured."""
        found: dict[tuple[Any, ...], dict[str, Any]] = {}
        for path in sorted((self.work / "rows").glob("*.json"), key=lambda path: path.stat().st_mtime):
            for row in json.loads(path.read_text()):
                key = (row["model"], row["batch"], row["precision"], row["variant"])
                if row.get("median") is not None or found.get(key, {}).get("median") is None:
                    found[key] = row
        order = {(g.model, g.batch, g.precision): i for i, g in reversed(list(enumerate(self.plan)))}
        return sorted(found.values(), key=lambda row: order.get((row["model"], row["batch"], row["precision"]), 0))

    def done(self, group: Group) -> bool:
        """Whether nothing is left to measure of it."""
        known = {
            row["variant"]
            for row in self.rows()
            if (row["model"], row["batch"], row["precision"]) == (group.model, group.batch, group.precision)
            and (row.get("median") is not None or self._final(row))
        }
        return set(group.forms) <= known

    @staticmethod
    def _final(row: dict[str, Any]) -> bool:
        error = row.get("error") or ""
        return error in _FINAL or "EngineError" in error or "ModelError" in error

    def place(self, group: Group) -> Path:
        """Where its models are kept: they are the same in each precision."""
        return self.work / "models" / f"{group.model}-{group.batch}"

    # What is done.

    def run(self) -> list[dict[str, Any]]:
        """Does the plan; rows as far as they came."""
        left = [group for group in self.plan if not self.done(group)]
        log = self.work / "workers.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        lanes = [Worker(f"GPU {gpu}", gpu, log, MODULE) for gpu in self.lanes]
        helpers = [Worker(f"processor {i}", "", log, MODULE) for i in range(self.processors)]
        tasks = list(dict.fromkeys((g.model, g.batch, form, g) for g in left for form in g.forms))
        seen: set[tuple[Any, ...]] = set()
        queue = [t for t in tasks if t[:3] not in seen and not seen.add(t[:3])]
        threads = [threading.Thread(target=self._prepare, args=(h, queue), daemon=True) for h in helpers]
        threads += [threading.Thread(target=self._lane, args=(lane, left), daemon=True) for lane in lanes]
        if left and self.budget > 0:
            for thread in threads:
                thread.start()
            for thread in threads[len(helpers) :]:
                thread.join()
        queue.clear()
        for worker in (*lanes, *helpers):
            worker.close()
        return self.rows()

    @property
    def _end(self) -> float:
        return self._began + self.budget

    @property
    def _patient(self) -> float:
        return self._began + self.patience - time.perf_counter()

    def say(self, words: str) -> None:
        """A line of progress."""
        print(f"{time.perf_counter() - self._began:6.1f} s  {words}", file=sys.stderr, flush=True)

    def _prepare(self, worker: Worker, queue: list[tuple[Any, ...]]) -> None:
        while True:
            with self._lock:
                # An export that is awaited must not stop what can be had.
                ready = [t for t in queue if t[3].micro or t[3].file(self.folder).is_file()]
                task = ready[0] if ready else None
                if task is not None:
                    queue.remove(task)
            if task is None:
                if not queue or time.time() > self._until or self._patient < 0:
                    return
                time.sleep(0.3)
                continue
            group, form = task[3], task[2]
            known = self.place(group) / f"{form}.json"
            if known.is_file() and "error" not in json.loads(known.read_text()):
                continue
            job = {"job": "prepare", "model": group.model, "batch": group.batch, "form": form, **self.settings}
            job |= {
                "passes": group.passes(form),
                "file": str(group.file(self.folder)),
                "folder": str(self.place(group)),
            }
            if group.micro:
                job["verify"] = "off"
            answer = worker.do(job, self._end)
            told = answer.get("error") or answer["result"]
            if "crashed" in answer:
                write(known, {"error": str(told)})
            if not group.micro:
                self.say(f"{group.model} batch {group.batch} {form}: {told}")

    def _lane(self, worker: Worker, left: list[Group]) -> None:
        while time.time() < self._until:
            group, waits = self._next(left)
            if group is None:
                if not waits:
                    return
                time.sleep(0.2)
                continue
            began = time.perf_counter()
            out = self.work / "rows" / f"{group.name}-{len(group.forms)}.json"
            job = {"job": "group", "model": group.model, "batch": group.batch, "precision": group.precision}
            job |= {"forms": list(group.forms), "folder": str(self.place(group)), "out": str(out), **self.settings}
            name = self.settings["engine"]
            if name.startswith("tensorrt"):
                head, colon, more = name.partition(":")
                name = f"{head}:{group.precision}{colon}{more}"
            if self.share_timings and name.startswith("tensorrt"):
                name += f":timing-cache={self.work / f'timings-{group.precision}-{worker.name[-1]}'}"
            job |= {"engine": name, "until": self._until, "each": not group.micro}
            answer = worker.do(job, self._end)
            told = answer.get("error") or answer["result"]
            words = f"{group.model} batch {group.batch} {group.precision} {'+'.join(group.forms)}: {told}"
            self.say(f"{worker.name}: {words} ({time.perf_counter() - began:.1f} s)")
            with self._lock:
                self._busy.pop(threading.current_thread().name, None)

    def _next(self, left: list[Group]) -> tuple[Group | None, bool]:
        """A group whose original is there; whether others will come."""
        waits = False
        with self._lock:
            busy = {(g.model, g.batch, g.precision) for g in self._busy.values()}
            for group in left:
                if group in self._taken:
                    continue
                waits |= group.file(self.folder).is_file() or group.micro or self._patient > 0
                if (group.model, group.batch, group.precision) in busy:
                    continue  # its engines are being built by the other lane
                if (self.place(group) / "original.json").is_file() and not self._awaits(group):
                    self._taken.add(group)
                    self._busy[threading.current_thread().name] = group
                    return group, True
        return None, waits

    def _awaits(self, group: Group) -> bool:
        """Whether blocks alone, which are quick to build, would wait for a model."""
        return group.micro and not all((self.place(group) / f"{form}.json").is_file() for form in group.forms)

    def about(self) -> dict[str, Any]:
        """The GPU, as a process of a lane sees it."""
        if not self.lanes:
            return {"gpu": None, "reason": "no GPU"}
        log = self.work / "workers.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        worker = Worker("about", self.lanes[0], log, MODULE)
        answer = worker.do({"job": "about", "library": None}, time.perf_counter() + 60)
        worker.close()
        found = answer.get("result", answer)
        found.pop("startup", None)
        return {**found, "gpus": len(self.lanes)}


def processors() -> int:
    """How many processes rewrite models: building engines takes a core for each GPU."""
    return max(1, min(6, (os.cpu_count() or 1) // 2))
