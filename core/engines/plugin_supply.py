"""Where an engine gets the plugins of a model from: a library that was built, else compiling at run time."""

from __future__ import annotations

import ctypes
import importlib
from dataclasses import dataclass
from typing import Any

from onnx_rewrite.engines.plugins import Plugin, digest, library, used

RTX_MAJOR = 11
"""TensorRT-RTX 1 has the plugin interfaces of TensorRT 11."""


@dataclass(frozen=True)
class Supply:
    """The plugins of a model.

    Attributes:
        libraries: Compiled ones, to load.
        compiled: Those that are compiled when the engine runs.
        lacking: For each operator that no plugin is to be had for: why, and the way out.
    """

    libraries: tuple[str, ...] = ()
    compiled: tuple[Plugin, ...] = ()
    lacking: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """What an engine depends on beside the libraries: the sources that are compiled at run time."""
        return tuple(f"{plugin.name} {digest(plugin)}" for plugin in self.compiled)

    def register(self, trt: Any, logger: Any) -> None:
        """Makes the plugins that are compiled at run time known to TensorRT.

        Args:
            trt: The module.
            logger: Where a refusal of theirs is written.
        """
        for plugin in self.compiled:
            python = importlib.import_module("onnx_rewrite.plugins.common.python_plugin")
            python.register(trt, _description(plugin), lambda text: logger.log(trt.ILogger.ERROR, text))


def supply(trt: Any, model: Any) -> Supply:
    """The plugins that a model uses.

    Args:
        trt: The module `tensorrt` or `tensorrt_rtx`.
        model: A ModelProto.
    """
    libraries: list[str] = []
    compiled: list[Plugin] = []
    lacking: list[tuple[str, str]] = []
    major = major_of(trt)
    for plugin in used(model):
        path = library(plugin, major)
        blocked = _blocked(trt)
        if blocked is not None:
            lacking.append((plugin.op, blocked))
        elif path.is_file():
            libraries.append(str(path))
        elif (reason := run_time_lack(plugin, trt)) is None:
            compiled.append(plugin)
        else:
            way_out = f"rewrite plugins build {plugin.name} makes one"
            lacking.append((plugin.op, f"no plugin was built for TensorRT {major} ({way_out}), and {reason}"))
    return Supply(tuple(libraries), tuple(compiled), tuple(lacking))


def major_of(trt: Any) -> int:
    """The major version of TensorRT whose plugin interfaces a module has."""
    return RTX_MAJOR if trt.__name__ == "tensorrt_rtx" else int(str(trt.__version__).split(".")[0])


def run_time_lack(plugin: Plugin, trt: Any = None) -> str | None:
    """Why a plugin cannot be compiled at run time, in one line, or None.

    Args:
        plugin: Which.
        trt: The module that would take it; None: whichever.
    """
    if plugin.runtime is None:
        return "it is not among those that can be compiled at run time"
    if trt is not None and not hasattr(trt, "IPluginV3"):
        return f"TensorRT {trt.__version__} takes no plugin in Python"
    reason = importlib.import_module("onnx_rewrite.plugins.common.compiling").lack()
    return None if reason is None else f"it cannot be compiled at run time: {reason}"


def _blocked(trt: Any) -> str | None:
    """Why no plugin whatever may be used."""
    if trt.__name__ != "tensorrt_rtx":
        return None
    try:
        ctypes.CDLL("libtensorrt_rtx.so")
    except OSError:
        return (
            "for plugins TensorRT-RTX's parser looks for libtensorrt_rtx.so, which is not to be found: link "
            "libtensorrt_rtx.so.1 of its package to that name in a folder of LD_LIBRARY_PATH"
        )
    return None


def _description(plugin: Plugin) -> Any:
    module, _, name = str(plugin.runtime).partition(":")
    return getattr(importlib.import_module(f"onnx_rewrite.plugins.{plugin.folder.name}.{module}"), name)()
