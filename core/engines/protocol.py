"""What every engine is to the rest of the program: something that is built from a model, and then run and timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import onnx

from onnx_rewrite.errors import ModelError
from onnx_rewrite.verify.dtypes import Array


class EngineError(ModelError):
    """A library refuses to build or to run a model; the message is in its own words and names the nodes it names."""


@dataclass(frozen=True)
class Model:
    """A model that an engine is built from.

    Attributes:
        proto: The model; its external tensors stay external.
        folder: Where they lie; None if there are none.
    """

    proto: onnx.ModelProto
    folder: Path | None = None


@dataclass(frozen=True)
class Profile:
    """The shapes that one input may have: an optimization profile of TensorRT.

    Attributes:
        min: The smallest size of each axis.
        opt: What the engine is made fastest for.
        max: The largest size of each axis.
    """

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    @classmethod
    def fixed(cls, *shape: int) -> Profile:
        """The profile that allows this one shape."""
        return cls(shape, shape, shape)


@dataclass(frozen=True)
class Layer:
    """One layer of an engine: what it launches as a whole.

    Attributes:
        name: The library's name for it.
        kind: The library's type of it, for example "kgen" or "FusedConv".
        nodes: Names of the ONNX nodes that it computes, as far as the library tells.
        tactic: The kernel or tactic that was chosen, as the library calls it.
        types: Types that go in and come out, "Half -> Half", as far as the library tells.
        milliseconds: Median time in a run with a profiler, or None. Each layer synchronises there: the sum is more
            than the engine takes.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    tactic: str = ""
    types: str = ""
    milliseconds: float | None = None

    @property
    def reformats(self) -> bool:
        """Whether it only changes the layout or the type of a tensor."""
        return "reformat" in self.kind.lower() or self.name.startswith("Reformatting CopyNode")


@dataclass(frozen=True)
class Phases:
    """When one inference did what, in milliseconds since a common start, as trtexec notes it.

    `enqueue` is the host's time, the others are the GPU's; each is a beginning and an end. Where inputs and outputs
    stay on the GPU, `h2d` and `d2h` end when they begin.
    """

    enqueue: tuple[float, float]
    h2d: tuple[float, float]
    compute: tuple[float, float]
    d2h: tuple[float, float]

    @property
    def latency(self) -> float:
        """Host to device, computation and device to host, without what lies between."""
        return sum(end - start for start, end in (self.h2d, self.compute, self.d2h))


@dataclass(frozen=True)
class Timing:
    """One inference.

    Attributes:
        start: When it began, in seconds of the host's monotonic clock.
        seconds: From the inputs in the host's memory to the outputs there.
        phases: What a GPU did when, or None.
    """

    start: float
    seconds: float
    phases: Phases | None = None


@dataclass(frozen=True)
class Unavailable:
    """Why this machine has no such engine.

    Attributes:
        reason: In one line: what is missing.
        hint: What to do about it, or None.
    """

    reason: str
    hint: str | None = None


def not_loaded(library: str, error: BaseException) -> str:
    """One line on a library that could not be imported."""
    if isinstance(error, ModuleNotFoundError):
        return f"{library} is not installed"
    return f"{library} is installed and does not load ({' '.join(str(error).split())})"


class Engine(Protocol):
    """A model, built."""

    @property
    def version(self) -> str:
        """Of the library."""
        ...

    @property
    def device(self) -> str:
        """What it was built for and runs on, in words."""
        ...

    @property
    def precision(self) -> str:
        """The type that it mostly computes in: "fp32", "fp16", "bf16", "fp64", "int8"."""
        ...

    @property
    def build_seconds(self) -> float:
        """Wall-clock seconds that building it took."""
        ...

    @property
    def size(self) -> int:
        """Bytes of the serialized engine; 0 where the library does not tell."""
        ...

    @property
    def layers(self) -> tuple[Layer, ...]:
        """In the order of execution; empty where the library does not tell."""
        ...

    @property
    def obstacle(self) -> str | None:
        """Why it cannot be run on this machine, or None."""
        ...

    @property
    def timings(self) -> list[Timing]:
        """One for each call of `run`, in order; a caller may clear the list."""
        ...

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Any]:
        """The model's outputs by name for an array per input.

        Raises:
            EngineError: The library fails, or there is an `obstacle`.
        """
        ...


@runtime_checkable
class Bursting(Protocol):
    """An engine that repeats inferences by itself, so that the host does not come between them."""

    timings: list[Timing]
    bursts: list[tuple[int, float]]
    """How many inferences each counted burst did, and in how many seconds from the first start to the last end."""

    def burst(self, feeds: Mapping[str, Array], seconds: float, iterations: int) -> None:
        """Repeats inferences for at least so long and so often, and adds them to `timings` and `bursts`.

        Raises:
            EngineError: The library fails.
        """
        ...


@runtime_checkable
class Profiled(Protocol):
    """An engine that tells what each of its layers takes."""

    def profile(self, feeds: Mapping[str, Array]) -> tuple[Layer, ...]:
        """Runs with a profiler, which slows every layer; the layers, with their times.

        Raises:
            EngineError: The library fails.
        """
        ...


class Backend(Protocol):
    """A library that builds engines. Making one of these imports nothing."""

    @property
    def name(self) -> str:
        """As on the command line."""
        ...

    def unavailable(self) -> Unavailable | None:
        """Why nothing can be built on this machine, or None if it can."""
        ...

    def version(self) -> str:
        """Of the library.

        Raises:
            UsageError: It is not available.
        """
        ...

    def build(
        self, model: Model, *, precision: str | None = None, profiles: Mapping[str, Profile] | None = None
    ) -> Engine:
        """Builds an engine.

        Args:
            model: What to build.
            precision: The type to compute in; None: what the model says.
            profiles: By input name; inputs with dynamic dimensions need one where engines are built for shapes.

        Raises:
            UsageError: It is not available, has no such precision, or a profile is missing.
            EngineError: The library refuses the model.
        """
        ...
