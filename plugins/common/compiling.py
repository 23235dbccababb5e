"""CUDA sources compiled when they are needed, by NVRTC through cuda-core: no compiler need be installed.

What is compiled is kept in `kernels`, beside the kept engines, under the digest of the sources, the GPU's architecture
and the compiler's version.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnx_rewrite.engines import cache
from onnx_rewrite.errors import OnnxRewriteError

INSTALL = "pip install 'onnx-rewrite[compile]'"


class CompilingError(OnnxRewriteError):
    """A source that does not compile, or that cannot be compiled here; the message is the compiler's."""


def lack() -> str | None:
    """What is missing for compiling, in one line, or None."""
    try:
        core, _ = _libraries()
        finder = importlib.import_module("cuda.pathfinder")
        finder.load_nvidia_dynamic_lib("nvrtc")
    except ImportError:
        return f"cuda-core is not installed: {INSTALL}"
    except Exception as error:  # the finder has its own, derived from RuntimeError
        return f"NVRTC does not load ({_line(error)}): {INSTALL}"
    if not hasattr(core, "Program"):  # before 0.5 everything was in cuda.core.experimental
        return f"cuda-core {core.__version__} is too old: {INSTALL}"
    if headers() is None:
        return f"CUDA's headers (cuda_fp16.h) are not there: {INSTALL}"
    return None


def headers() -> Path | None:
    """The folder of CUDA's headers: of the package nvidia-cuda-runtime, or of an installed toolkit."""
    finder = importlib.import_module("cuda.pathfinder")
    found = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    places = [f"{home}/include" for home in found if home] + ["/usr/local/cuda/include"]
    with contextlib.suppress(Exception):  # a finder that does not know the name is none
        places.insert(0, finder.find_nvidia_header_directory("cudart") or "")
    return next((Path(place) for place in places if place and (Path(place) / "cuda_fp16.h").is_file()), None)


def architecture(major: int, minor: int) -> str:
    """What to compile for; Hopper with the instructions that only it has."""
    return f"sm_{major}{minor}a" if (major, minor) == (9, 0) else f"sm_{major}{minor}"


class Source:
    """Headers with kernels.

    Args:
        folder: Where they are.
        includes: The headers that have the kernels.
    """

    def __init__(self, folder: Path, includes: Sequence[str]) -> None:
        self.folder = folder
        self.text = "".join(f'#include "{name}"\n' for name in includes)

    def digest(self) -> str:
        """Of everything that may be included."""
        found = hashlib.sha256(self.text.encode())
        for path in sorted(self.folder.iterdir()):
            if path.suffix in (".cuh", ".h"):
                found.update(path.name.encode() + path.read_bytes())
        return found.hexdigest()

    def compiled(self, names: Sequence[str], arch: str) -> tuple[bytes, dict[str, bytes]]:
        """Kernels as machine code, compiled or as they were kept.

        Args:
            names: Of kernels, with their template arguments, such as "space::kernel<float, 64>".
            arch: For example "sm_90a".

        Returns:
            The code, and the kernels' names in it.

        Raises:
            CompilingError: The compiler is missing, or refuses the source.
        """
        reason = lack()
        if reason is not None:
            raise CompilingError(reason)
        core, nvrtc = _libraries()
        key = json.dumps([self.digest(), arch, sorted(names), str(nvrtc.nvrtcVersion())])
        kept = cache.folder().parent / "kernels" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
        found = _read(kept)
        if found is None:
            found = self._compile(core, names, arch)
            _write(kept, *found)
        return found

    def _compile(self, core: Any, names: Sequence[str], arch: str) -> tuple[bytes, dict[str, bytes]]:
        options = core.ProgramOptions(arch=arch, std="c++17", include_path=[str(self.folder), str(headers())])
        try:
            code = core.Program(self.text, "c++", options).compile("cubin", name_expressions=list(names))
        except Exception as error:  # cuda.core has several kinds, and none in common
            raise CompilingError(f"NVRTC cannot compile {names[0]} for {arch}: {_line(error)}") from error
        mapping = {name: _bytes(code.symbol_mapping[name]) for name in names}
        return bytes(code.code), mapping


def loaded(code: bytes, names: dict[str, bytes]) -> dict[str, Any]:
    """The kernels of machine code by name, as objects of cuda-core; needs a GPU."""
    core, _ = _libraries()
    mapping: dict[str, Any] = dict(names)
    unit = core.ObjectCode.from_cubin(code, symbol_mapping=mapping)
    return {name: unit.get_kernel(name) for name in names}


def _libraries() -> tuple[Any, Any]:
    return importlib.import_module("cuda.core"), importlib.import_module("cuda.bindings.nvrtc")


def _read(path: Path) -> tuple[bytes, dict[str, bytes]] | None:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        code = path.with_suffix(".cubin").read_bytes()
        if hashlib.sha256(code).hexdigest() != told["sha256"]:
            return None
        return code, {name: mangled.encode() for name, mangled in told["names"].items()}
    except (OSError, ValueError, KeyError):
        return None


def _write(path: Path, code: bytes, names: dict[str, bytes]) -> None:
    """Keeps code, whole or not at all; a folder that cannot be written to keeps nothing."""
    told = {"sha256": hashlib.sha256(code).hexdigest(), "names": {name: one.decode() for name, one in names.items()}}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for target, data in ((path.with_suffix(".cubin"), code), (path, json.dumps(told).encode())):
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                file.write(data)
            os.replace(file.name, target)
    except OSError:
        return


def _bytes(name: str | bytes) -> bytes:
    return name if isinstance(name, bytes) else name.encode()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:600]
