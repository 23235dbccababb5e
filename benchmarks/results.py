"""Keeps results with the machine, the versions and the date."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"

PACKAGES = (
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "numpy",
    "onnxscript",
    "onnxsim",
    "onnxslim",
    "onnxoptimizer",
    "onnx-graphsurgeon",
)


def versions() -> dict[str, str]:
    """Installed versions of this project and its peers."""
    found: dict[str, str] = {}
    for name in ("onnx-rewrite", *PACKAGES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """The processor's name, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def save(name: str, rows: list[dict[str, Any]], **more: Any) -> Path:
    """Writes benchmarks/results/NAME.json."""
    FOLDER.mkdir(exist_ok=True)
    document = {
        "benchmark": name,
        "date": datetime.date.today().isoformat(),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "system": platform.system(),
            "python": platform.python_version(),
        },
        "versions": versions(),
        **more,
        "rows": rows,
    }
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path
