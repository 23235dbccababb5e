"""The tables of docs/peers.md, from the results that were kept."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.peers_fuzz import properties, stars

DOCS = Path(__file__).parents[2] / "docs" / "peers.md"


def kept() -> list[dict[str, Any]]:
    """The rows of benchmarks/results/peers-fuzz.json."""
    rows: list[dict[str, Any]] = json.loads((results.FOLDER / "peers-fuzz.json").read_text())["rows"]
    return [row for row in rows if "missing" not in row]


def broken(rows: Sequence[dict[str, Any]]) -> str:
    """Peers and properties: on how many graphs each does not hold."""
    names = [n for n in properties.PROPERTIES if any(n in row["broken"] for row in rows)]
    lines = [f"| peer | graphs | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for row in rows:
        counts = " | ".join(str(row["broken"].get(n, "")) for n in names)
        lines.append(f"| {row['peer']} {row['version']} | {row['graphs']:,} | {counts} |")
    return "\n".join(lines)


def cases(rows: Sequence[dict[str, Any]]) -> str:
    """Hard cases: where each was found again, and the smallest model that shows it."""
    lines = ["| hard case | found in | property | smallest model |", "|---|---|---|---|"]
    for star in stars.STARS:
        found = [(row, f) for row in rows for f in row["findings"] if f["star"] == star.name]
        if not found:
            lines.append(f"| {star.name} | not found | | |")
            continue
        _, least = min(found, key=lambda item: len(item[1]["operators"]))
        peers = ", ".join(dict.fromkeys(f"{row['peer']} {row['version']}" for row, _ in found))
        operators = ", ".join(least["operators"])
        lines.append(f"| {star.name} | {peers} | `{least['property']}` | {operators} |")
    return "\n".join(lines)


def meanings() -> str:
    """What each property says."""
    return "\n".join(f"- `{name}`: {meaning}" for name, meaning in properties.PROPERTIES.items())


def write() -> None:
    """Puts the tables in the place of those that are there, between marks."""
    text = DOCS.read_text(encoding="utf-8")
    for mark, table in (("properties", meanings()), ("broken", broken(kept())), ("cases", cases(kept()))):
        begin, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->"
        pattern = re.escape(begin) + ".*?" + re.escape(end)
        text = re.sub(pattern, lambda _, b=begin, t=table, e=end: f"{b}{t}\n{e}", text, flags=re.DOTALL)
    DOCS.write_text(text, encoding="utf-8")
