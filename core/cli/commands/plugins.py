"""`rewrite plugins`: which plugins for TensorRT there are, and building them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from onnx_rewrite.cli import output as printed
from onnx_rewrite.errors import UsageError


def plugins(
    action: Literal["list", "build"] = "list",
    /,
    *names: str,
    tensorrt_include: str | None = None,
    arch: tuple[str, ...] = (),
    output: Annotated[str | None, Parameter(name=("--output", "-o"))] = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Lists or builds; `onnx_rewrite.cli.texts.PLUGINS` describes the options."""
    from onnx_rewrite.engines import plugins as shelf

    chosen = shelf.named(names)
    if action == "list":
        if tensorrt_include or arch or output:
            raise UsageError("--tensorrt-include, --arch and --output are of `rewrite plugins build`")
        _list(chosen, as_json=as_json)
        return 0
    include = shelf.headers(tensorrt_include)
    version = ".".join(map(str, shelf.version_of(include)))
    built: list[dict[str, str]] = []
    for plugin in chosen:
        path = shelf.build(plugin, include, arch, None if output is None else Path(output))
        built.append({"plugin": plugin.name, "tensorrt": version, "library": str(path)})
        if not as_json:
            print(f"{plugin.name} for TensorRT {version}: {path}")
    if as_json:
        print(json.dumps(built, indent=2))
    return 0


def _list(chosen: list[Any], *, as_json: bool) -> None:
    from rich.text import Text

    from onnx_rewrite.engines import plugin_supply
    from onnx_rewrite.engines import plugins as shelf
    from onnx_rewrite.report import terminal

    lacks = {plugin.name: plugin_supply.run_time_lack(plugin) for plugin in chosen}
    rows = [
        {
            "plugin": plugin.name,
            "op": f"{plugin.domain}::{plugin.op}",
            "summary": plugin.summary,
            "sources": str(plugin.folder),
            "run_time": {"possible": lacks[plugin.name] is None, "reason": lacks[plugin.name]},
            "built": {
                f"TensorRT {major}": str(path)
                for major in range(8, 12)
                if (path := shelf.library(plugin, major)).is_file()
            },
        }
        for plugin in chosen
    ]
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    console = printed.console()
    table = terminal.table("plugin", "operator", "built for", "at run time", "what it does", fold="what it does")
    for row in rows:
        built: Any = row["built"]
        table.add_row(
            Text(str(row["plugin"])),
            Text(str(row["op"])),
            Text(", ".join(built) or "-"),
            Text("-" if lacks[str(row["plugin"])] else "TensorRT 10, 11, RTX"),
            Text(str(row["summary"])),
        )
    console.print(table)
    for plugin in chosen:
        if plugin.runtime is not None and lacks[plugin.name] is not None:
            console.print(Text(f"{plugin.name}: {lacks[plugin.name]}"))
