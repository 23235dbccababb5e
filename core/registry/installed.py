"""Passes of installed packages: entry points by name, none of them loaded."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint, entry_points

from onnx_rewrite.errors import UsageError

GROUP = "onnx_rewrite.passes"
"""Entry points of this group are passes: a name, and a class, a function without parameters that makes one, or a
function that `onnx_rewrite.graphsurgeon_pass` decorates."""


def offered() -> dict[str, list[EntryPoint]]:
    """The entry points by name; several for a name that more than one package uses."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        same = found.setdefault(point.name, [])
        # An editable installation may be seen twice.
        if all((other.value, package_of(other)) != (point.value, package_of(point)) for other in same):
            same.append(point)
    return {name: sorted(points, key=lambda p: (package_of(p), p.value)) for name, points in found.items()}


def only_one(name: str, points: list[EntryPoint]) -> EntryPoint:
    """The one entry point of a name.

    Raises:
        UsageError: Several packages use the name.
    """
    if len(points) == 1:
        return points[0]
    sources = " and ".join(f"{title_of(point)} ({point.value})" for point in points)
    ways = " or ".join(f"{package_of(point)}/{name}" for point in points)
    raise UsageError(
        f"several installed packages have a pass '{name}': {sources}",
        hint=f"say {ways}, or uninstall one of the packages",
    )


def of_package(package: str, name: str) -> EntryPoint | None:
    """The entry point `name` of one package, whatever others have it too; None where there is none."""
    for point in offered().get(name, ()):
        if _normal(package_of(point)) == _normal(package):
            return point
    return None


def package_of(point: EntryPoint) -> str:
    """The distribution that offers an entry point; without one, the module that it names."""
    return point.dist.name if point.dist is not None else point.value.partition(":")[0].partition(".")[0]


def title_of(point: EntryPoint) -> str:
    """The distribution with its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else package_of(point)


def _normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()
