"""`python -m benchmarks tensorrt MODEL...`: engines before and after passes, in one row."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import results


def gpu() -> dict[str, Any]:
    """The GPU and its driver, as far as they can be told."""
    from onnx_rewrite.engines.cuda import Cuda, CudaError

    try:
        found = Cuda()
    except CudaError as error:
        return {"gpu": None, "reason": str(error)}
    kernel = Path("/sys/module/nvidia/version")
    version = kernel.read_text().strip() if kernel.is_file() else None
    capability = ".".join(map(str, found.compute_capability))
    return {"gpu": found.name, "compute_capability": capability, "cuda": found.driver, "driver": version}


def measure(path: Path, passes: str, engines: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one model: before and after, for every engine that `engines` names."""
    import onnx_rewrite as rw
    from onnx_rewrite.engines import registry
    from onnx_rewrite.engines.bench import compare
    from onnx_rewrite.engines.protocol import Model
    from onnx_rewrite.engines.timing import Effort
    from onnx_rewrite.model import to_proto
    from onnx_rewrite.report.codec import encode

    began = time.perf_counter()
    result = rw.rewrite(path, passes, verify=options.verify)
    rewritten = time.perf_counter() - began
    loaded = result.loaded
    rows: list[dict[str, Any]] = []
    if not result.report.applied and not options.unchanged:
        return [{"model": path.name, "passes": passes, "applied": 0, "verdict": "the passes find nothing"}]
    found = compare(
        Model(loaded.proto, loaded.base_dir),
        Model(to_proto(loaded), loaded.base_dir),
        registry.choose(engines).backends,
        effort=Effort(seconds=options.duration),
        profile=options.profile,
    )
    for before, after in zip(found[::2], found[1::2], strict=True):
        sides = {row.model: encode(row) for row in (before, after)}
        report = result.report
        rows.append(
            {
                "model": path.name,
                "passes": passes,
                "applied": report.applied,
                "rolled_back": report.rolled_back,
                "nodes": [report.model.nodes, report.output.nodes],
                "opset": [report.model.opset.get("", 0), report.output.opset.get("", 0)],
                "rewrite_seconds": round(rewritten, 3),
                "engine": after.engine,
                "version": after.version,
                "precision": after.precision,
                "ratio": sides["after"]["ratio"],
                "verdict": verdict(before, after),
                **sides,
            }
        )
    return rows


def verdict(before: Any, after: Any) -> str:
    """In words what the passes gained in latency."""
    from onnx_rewrite.report.measurements import judged

    if not (before.built and after.built):
        sides = [row.model for row in (before, after) if not row.built]
        return f"not built: {' and '.join(sides)}"
    said = judged(before, after)
    if said is None:
        return "not run"
    if said == "same":
        return "no gain"
    factor = before.latency_ms.median / after.latency_ms.median
    return f"{factor:.3f} times as fast" if factor >= 1 else f"slower, {1 / factor:.3f} times the time"


HEAD = (
    "model",
    "passes",
    "n",
    "precision",
    "ms",
    "ms after",
    "verdict",
    "95 % of ratio",
    "build s",
    "MB",
    "layers",
    "error",
)


def line(row: dict[str, Any]) -> tuple[str, ...]:
    if "before" not in row:
        words = row.get("error") or row.get("verdict") or ""
        return (
            row["model"],
            row["passes"],
            str(row.get("applied", "")),
            row.get("precision", ""),
            *[""] * 2,
            words[:60],
            *[""] * 5,
        )
    before, after = row["before"], row["after"]

    def two(make: Any) -> str:
        return " > ".join(make(side) if side["built"] else "-" for side in (before, after))

    def ms(side: dict[str, Any]) -> str:
        value = side["latency_ms"]["median"]
        return "-" if value is None else f"{value:.4f}"

    ratio = row["ratio"]
    interval = f"{ratio['low']:.3f}-{ratio['high']:.3f}" if ratio else ""
    return (
        row["model"],
        row["passes"],
        str(row["applied"]),
        row["precision"],
        ms(before),
        ms(after),
        row["verdict"],
        interval,
        two(lambda side: f"{side['build_seconds']:.0f}"),
        two(lambda side: f"{side['engine_bytes'] / 1e6:.0f}"),
        two(lambda side: str(side["layers"])),
        two(lambda side: "-" if side["max_abs_error"] is None else f"{float(side['max_abs_error']):.1e}"),
    )


def show(rows: list[dict[str, Any]]) -> None:
    """Prints a table."""
    lines = [HEAD, *map(line, rows)]
    widths = [max(len(one[i]) for one in lines) for i in range(len(HEAD))]
    for one in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(one, widths, strict=True)).rstrip())
    for row in rows:
        for side in ("before", "after"):
            error = row.get(side, {}).get("error")
            if error:
                print(f"{row['model']} {row['passes']} {row['precision']} {side}: {error[:300]}")
    gains = [row for row in rows if row.get("ratio")]
    idle = [f"{row['passes']} on {row['model']} ({row['precision']})" for row in gains if row["verdict"] == "no gain"]
    if idle:
        print(f"no gain in latency: {'; '.join(idle)}")


def document(rows: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    return {
        "benchmark": "tensorrt",
        "date": datetime.date.today().isoformat(),
        "machine": {
            "processor": results.processor(),
            "cores": os.cpu_count(),
            "system": platform.system(),
            "python": platform.python_version(),
            **gpu(),
        },
        "versions": results.versions(),
        "seconds": round(seconds, 1),
        "rows": rows,
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks tensorrt", description=__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--passes", nargs="+", default=["ln"], help="lists of passes, each measured by itself")
    parser.add_argument("--engines", default="tensorrt", help="as for `rewrite bench`, options included")
    parser.add_argument("--precision", nargs="+", default=["fp32", "fp16"])
    parser.add_argument(
        "--plan", nargs="+", default=[], help="MODEL:PASSES:PRECISION in order of importance, in place of all that"
    )
    parser.add_argument("--duration", type=float, default=None, help="seconds of timed inferences per engine")
    parser.add_argument("--budget", type=float, default=1e9, help="begins nothing after so many seconds")
    parser.add_argument("--verify", default="local", choices=("full", "local", "off"))
    parser.add_argument("--out", type=Path, default=results.FOLDER / "tensorrt.json")
    parser.add_argument("--resume", action="store_true", help="keeps the rows of --out that were measured, and adds")
    parser.add_argument("--profile", action="store_true", help="keeps every layer and its time in the results")
    parser.add_argument("--unchanged", action="store_true", help="measures models that the passes leave alone, too")
    parser.add_argument("--table", action="store_true", help="prints the table of an earlier run and measures nothing")
    options = parser.parse_args(arguments)
    if options.table:
        show(json.loads(options.out.read_text())["rows"])
        return 0
    plan = [tuple(entry.rsplit(":", 2)) for entry in options.plan] or [
        (str(model), passes, precision)
        for model in options.models
        for passes in options.passes
        for precision in options.precision
    ]
    began = time.perf_counter()
    rows: list[dict[str, Any]] = []
    options.out.parent.mkdir(parents=True, exist_ok=True)
    longest = 0.0
    if options.resume and options.out.is_file():
        rows = [row for row in json.loads(options.out.read_text())["rows"] if "error" not in row]
    done = {(row["model"], row["passes"], row.get("asked")) for row in rows}
    for model, passes, precision in plan:
        if (Path(model).name, passes, precision) in done:
            continue
        spent = time.perf_counter() - began
        what = {"model": Path(model).name, "passes": passes, "precision": precision}
        if spent > options.budget or (longest and spent + 0.5 * longest > options.budget):
            rows.append({**what, "error": "not measured: the time was up"})
            continue
        start = time.perf_counter()
        try:
            engines = ",".join(f"{name}:{precision}" for name in options.engines.split(","))
            rows += [{**row, "asked": precision} for row in measure(Path(model), passes, engines, options)]
        except Exception as error:  # one combination that fails must not cost the others
            rows.append({**what, "error": f"{type(error).__name__}: {error}"[:500]})
        longest = max(longest, time.perf_counter() - start)
        print(
            " | ".join(cell for cell in line(rows[-1]) if cell),
            f"({time.perf_counter() - start:.0f} s)",
            file=sys.stderr,
            flush=True,
        )
        temporary = options.out.with_suffix(".part")
        temporary.write_text(json.dumps(document(rows, time.perf_counter() - began), indent=1) + "\n")
        temporary.replace(options.out)
    options.out.write_text(json.dumps(document(rows, time.perf_counter() - began), indent=1) + "\n")
    show(rows)
    print(options.out)
    return 0 if any("before" in row for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
