"""The kernels of deformable convolution, compiled for the GPU at hand and launched, without a library of our own."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnx_rewrite.plugins.common.compiling import CompilingError, Source, architecture, loaded
from onnx_rewrite.plugins.deform_conv import schedule
from onnx_rewrite.plugins.deform_conv.schedule import Device, Launch, Sizes, Work

SOURCE = Source(Path(__file__).resolve().parent, ("direct.cuh", "simt.cuh", "tensor.cuh"))

_TYPES = ("float", "__half", "__nv_bfloat16")


def kernel_names(work: Work, kind: int) -> tuple[str, ...]:
    """What the launches' kernels are called in the source, one each."""
    packed = kind == schedule.HALF and not work.tactic & schedule.WIDE
    split, order = work.plan.copies == 2, work.tactic != schedule.SIMT
    named: list[str] = []
    for launch in work.launches:
        template: tuple[object, ...] = ()
        if launch.kind == "prepare":
            template = (_word(order),)
        elif launch.kind == "tensor":
            s = schedule.SHAPES[launch.shape]
            template = (_word(packed), _word(split), s.n, s.wm, s.wk, s.stages)
        arguments = ", ".join(map(str, (_TYPES[kind], *template)))
        named.append(f"onnx_rewrite::{launch.kind}_kernel<{arguments}>")
    return tuple(named)


@dataclass
class _Ready:
    """A kernel and the launch's numbers as the driver takes them."""

    launch: Launch
    function: Any
    config: Any


@dataclass
class _Gpu:
    number: Any
    device: Device
    kernels: dict[str, Any] = field(default_factory=dict[str, Any])
    ready: dict[tuple[object, ...], tuple[Work, list[_Ready]]] = field(
        default_factory=dict[tuple[object, ...], tuple[Work, list[_Ready]]]
    )


class Launcher:
    """Runs deformable convolutions on the current GPU. Kernels are compiled and loaded when they are first wanted."""

    def __init__(self) -> None:
        self._driver = importlib.import_module("cuda.bindings.driver")
        self._gpus: dict[int, _Gpu] = {}

    def prepare(self, p: Sizes, kind: int, math: int, tactic: int = schedule.AUTO, *, aligned: bool = True) -> Work:
        """Compiles and loads what a problem needs, so that `run` only launches.

        Raises:
            CompilingError: The kernels do not compile, or CUDA refuses a call.
        """
        return self._ready(p, kind, math, tactic, aligned)[0]

    def run(
        self, p: Sizes, kind: int, math: int, tactic: int, pointers: Sequence[int], workspace: int, stream: int
    ) -> None:
        """Queues one problem on a stream: no allocation and no synchronisation once `prepare` was called for it.

        Args:
            p: Its sizes.
            kind: The tensors' type.
            math: How fp32 is multiplied.
            tactic: See `schedule.work_of`.
            pointers: Addresses of x, weight, offset, bias, mask and y; 0 for a bias or mask that is not there.
            workspace: Address of `bytes` of the plan.
            stream: Handle of the stream.

        Raises:
            CompilingError: The tactic cannot run this, or CUDA refuses a call.
        """
        if p.n * p.oh * p.ow == 0:
            return
        work, ready = self._ready(p, kind, math, tactic, pointers[0] % 16 == 0)
        if not ready:
            raise CompilingError(f"tactic {tactic} cannot run {p}")
        x, weight, offset, bias, mask, y = map(ctypes.c_void_p, pointers)
        scratch = ctypes.c_void_p(workspace)
        for one in ready:
            launch = one.launch
            if launch.kind == "direct":  # its parameter is what the plan begins with
                values: list[Any] = [work.plan, x, weight, offset, bias, mask, y]
            elif launch.kind == "prepare":
                counts = ctypes.c_int(launch.image_blocks), ctypes.c_int(launch.frame_blocks)
                values = [work.plan, *counts, x, weight, scratch]
            elif launch.kind == "finish":
                values = [work.plan, ctypes.c_int(launch.parts), scratch, bias, y]
            else:
                values = [work.plan, ctypes.c_int(launch.first), scratch, offset, bias, mask, y]
            addresses = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
            one.config.hStream = stream
            self._check(self._driver.cuLaunchKernelEx(one.config, one.function, ctypes.addressof(addresses), 0))

    def _ready(self, p: Sizes, kind: int, math: int, tactic: int, aligned: bool) -> tuple[Work, list[_Ready]]:
        gpu = self._gpu()
        key = (p, kind, math, tactic, aligned)
        found = gpu.ready.get(key)
        if found is None:
            work = schedule.work_of(p, kind, math, tactic, gpu.device, aligned=aligned)
            names = kernel_names(work, kind)
            self._load(gpu, names)
            pairs = zip(work.launches, names, strict=True)
            found = work, [self._configured(gpu, launch, gpu.kernels[name]) for launch, name in pairs]
            gpu.ready[key] = found
        return found

    def _load(self, gpu: _Gpu, names: Sequence[str]) -> None:
        missing = sorted({name for name in names if name not in gpu.kernels})
        if missing:
            code = SOURCE.compiled(missing, architecture(gpu.device.major, gpu.device.minor))
            gpu.kernels.update(loaded(*code))

    def _configured(self, gpu: _Gpu, launch: Launch, kernel: Any) -> _Ready:
        driver, handle = self._driver, kernel.handle
        if launch.shared:
            most = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            self._check(driver.cuKernelSetAttribute(most, launch.shared, handle, gpu.number))
        config = driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = launch.blocks, 1, 1
        if launch.kind == "tensor":
            config.gridDimY = launch.parts
        config.blockDimX, config.blockDimY, config.blockDimZ = launch.threads, 1, 1
        config.sharedMemBytes = launch.shared
        if launch.kind in ("simt", "tensor", "finish") and gpu.device.major >= 9:  # begins while `prepare` still runs
            attribute = driver.CUlaunchAttribute()
            attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
            attribute.value.programmaticStreamSerializationAllowed = 1
            config.attrs, config.numAttrs = [attribute], 1
        else:
            config.numAttrs = 0
        return _Ready(launch, driver.CUfunction(int(handle)), config)

    def _gpu(self) -> _Gpu:
        number = self._check(self._driver.cuCtxGetDevice())
        found = self._gpus.get(int(number))
        if found is None:
            of = self._driver.CUdevice_attribute
            asked = (
                of.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                of.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
                of.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
                of.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
            )
            told = [int(self._check(self._driver.cuDeviceGetAttribute(one, number))) for one in asked]
            found = self._gpus[int(number)] = _Gpu(number, Device(*told))
        return found

    def _check(self, answer: tuple[Any, ...]) -> Any:
        if int(answer[0]) != 0:
            _, text = self._driver.cuGetErrorString(answer[0])
            raise CompilingError(f"CUDA: {bytes(text or b'').decode() or answer[0]}")
        return answer[1] if len(answer) > 1 else None


def _word(flag: bool) -> str:
    return "true" if flag else "false"
