from __future__ import annotations

import importlib
import subprocess
import sys
import types
from typing import Any

import pytest

from onnx_rewrite.engines import registry
from onnx_rewrite.errors import UsageError

from . import fake_tensorrt


@pytest.fixture
def only_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which neither TensorRT is installed."""
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)  # what makes an import fail as that of a missing module


def test_every_name_is_that_of_its_engine() -> None:
    assert [registry.get(name).name for name in registry.NAMES] == ["onnxruntime", "tensorrt", "tensorrt-rtx"]


def test_the_order_is_kept_and_doubles_are_dropped() -> None:
    chosen = registry.choose("onnxruntime, onnxruntime")
    assert [backend.name for backend in chosen.backends] == ["onnxruntime"]
    assert registry.choose(()) == registry.Choice()


def test_an_unknown_engine() -> None:
    with pytest.raises(UsageError, match="unknown engine 'tensorrt-rtz'") as caught:
        registry.choose("tensorrt-rtz")
    assert caught.value.hint == "did you mean tensorrt-rtx?"
    with pytest.raises(UsageError) as caught:
        registry.choose("onnxruntime,")
    assert caught.value.hint == "one of: onnxruntime, tensorrt, tensorrt-rtx, auto"


@pytest.mark.usefixtures("only_onnxruntime")
@pytest.mark.parametrize(("name", "words"), [("tensorrt", "TensorRT"), ("tensorrt-rtx", "TensorRT-RTX")])
def test_one_that_is_named_and_missing(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is not available: {words} is not installed") as caught:
        registry.choose(["onnxruntime", name])
    assert f"'onnx-rewrite[{name}]'" in str(caught.value.hint)
    with pytest.raises(UsageError, match="is not installed"):
        registry.get(name).version()


@pytest.mark.usefixtures("only_onnxruntime")
def test_auto_takes_what_there_is_and_says_what_there_is_not() -> None:
    chosen = registry.choose("auto")
    assert [backend.name for backend in chosen.backends] == ["onnxruntime"]
    assert chosen.missing == (
        "tensorrt: TensorRT is not installed",
        "tensorrt-rtx: TensorRT-RTX is not installed",
    )


def test_auto_does_not_excuse_one_that_is_named(only_onnxruntime: None) -> None:
    with pytest.raises(UsageError, match="tensorrt is not available"):
        registry.choose("auto,tensorrt")


def test_a_library_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise OSError("libcudart.so.13:\n  cannot open")

    monkeypatch.setattr(importlib, "import_module", broken)
    from onnx_rewrite.engines.tensorrt_rtx import TensorRTRTX

    lack = TensorRTRTX().unavailable()
    assert lack is not None
    assert lack.reason == "TensorRT-RTX is installed and does not load (libcudart.so.13: cannot open)"


@pytest.mark.parametrize("gpu", [False, True])
def test_tensorrt_says_what_is_missing_beside_the_library(gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def builder(log: object) -> object:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    library = types.ModuleType("tensorrt")
    library.__version__ = "10.9"  # type: ignore[attr-defined]
    library.Logger = type("Logger", (), {"INTERNAL_ERROR": 0, "__init__": lambda self, level: None})  # type: ignore[attr-defined]
    library.Builder = builder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    from onnx_rewrite.engines import tensorrt

    def cuda() -> object:
        if not gpu:
            raise tensorrt.CudaError("there is no NVIDIA driver")
        return fake_tensorrt.FakeCuda()

    monkeypatch.setattr(tensorrt, "Cuda", cuda)
    words = "finds no NVIDIA GPU that it can use" if gpu else "needs an NVIDIA GPU: there is no NVIDIA driver"
    with pytest.raises(UsageError, match=f"tensorrt is not available: TensorRT 10.9 {words}"):
        registry.choose("tensorrt")
    assert any(words in missing for missing in registry.choose("auto").missing)


def test_looking_up_engines_imports_no_library() -> None:
    code = (
        "import sys; from onnx_rewrite.engines import registry; [registry.get(n) for n in registry.NAMES]; "
        "print(*{'cuda', 'onnxruntime', 'tensorrt', 'tensorrt_rtx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
