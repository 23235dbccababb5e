"""What one can say about building an engine, and the short form in which the command line says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from onnx_rewrite.engines.protocol import Profile
from onnx_rewrite.errors import UsageError

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
"""What an engine may be told to compute in; "+" between two allows both."""


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built. What a library has no such setting for is refused where it is given.

    Attributes:
        precision: One of `PRECISIONS`, or several with "+"; None: what the model says.
        workspace: MiB of scratch memory that a tactic may use; None: the library's default.
        tactic_sources: Names such as "edge_mask_convolutions"; None: the library's default.
        level: Optimization level, 0 to 5; None: the library's default.
        timing_cache: A file of timings of tactics, which is read and added to.
        hardware_compatibility: "none", "ampere+" or "same"; None: the library's default.
        plugins: Libraries of plugins, loaded before the model is parsed.
        compute_capability: What TensorRT-RTX builds ahead of time for; None: this machine's GPU, or SM89.
        cache: Whether engines are kept and found again.
        graph: Whether inferences are launched as one CUDA graph.
        transfers: Whether timed inferences copy inputs and outputs.
        streams: How many inferences run side by side.
    """

    precision: str | None = None
    workspace: int | None = None
    tactic_sources: tuple[str, ...] | None = None
    level: int | None = None
    timing_cache: str | None = None
    hardware_compatibility: str | None = None
    plugins: tuple[str, ...] = ()
    compute_capability: str | None = None
    cache: bool = True
    graph: bool = True
    transfers: bool = False
    streams: int = 1

    def __post_init__(self) -> None:
        if self.precision is not None:
            for one in self.precision.split("+"):
                if one not in PRECISIONS:
                    raise UsageError(f"unknown precision '{one}'", hint=f"one of: {', '.join(PRECISIONS)}")
        if self.level is not None and not 0 <= self.level <= 5:
            raise UsageError(f"the optimization level is a number from 0 to 5, not {self.level}")
        if self.hardware_compatibility not in (None, "none", "ampere+", "same"):
            raise UsageError(
                f"unknown hardware compatibility '{self.hardware_compatibility}'", hint="one of: none, ampere+, same"
            )
        if self.streams < 1:
            raise UsageError("at least one stream is needed")
        for library in self.plugins:
            if not Path(library).is_file():
                raise UsageError(f"--plugin {library}: no such file")

    def of_build(self) -> dict[str, object]:
        """What the engine's bytes depend on."""
        running = ("cache", "graph", "transfers", "streams", "timing_cache")
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in running}


def parse(items: Sequence[str], given: BuildOptions) -> BuildOptions:
    """Options of one engine from items like "fp16", "level=3", "tactic-sources=cublas+cudnn", "no-graph".

    Raises:
        UsageError: An item is none of these.
    """
    changes: dict[str, object] = {}
    for item in items:
        name, equals, value = item.partition("=")
        key = name.replace("-", "_")
        if not equals and all(part in PRECISIONS for part in name.split("+")):
            changes["precision"] = name
        elif not equals and name in ("no-graph", "no-cache"):
            changes[name[3:]] = False
        elif not equals and name == "transfers":
            changes["transfers"] = True
        elif equals and key in ("workspace", "level", "streams"):
            if not value.isdecimal():
                raise UsageError(f"{item}: a number is needed")
            changes[key] = int(value)
        elif equals and key in ("tactic_sources", "plugins"):
            changes[key] = tuple(value.split("+")) if value else ()
        elif equals and key in ("precision", "timing_cache", "hardware_compatibility", "compute_capability"):
            changes[key] = value
        else:
            raise UsageError(
                f"unknown option '{item}' of an engine",
                hint="for example tensorrt:fp16:level=3:tactic-sources=edge_mask_convolutions+jit_convolutions",
            )
    return replace(given, **changes)  # pyright: ignore[reportArgumentType]


def parse_profiles(items: Sequence[str]) -> tuple[list[str], dict[str, Profile]]:
    """Splits items of `--shape` into what is fed and what engines are built for.

    Args:
        items: "x=1,3,224,224" or "x=1,3,224,224:8,3,224,224:32,3,224,224" (smallest, best, largest); an axis may be
            separated by "x" too, as trtexec has it.

    Returns:
        The items with the best shape alone, and the profiles by input name.

    Raises:
        UsageError: An item has another form.
    """
    plain: list[str] = []
    profiles: dict[str, Profile] = {}
    for item in items:
        name, equals, text = item.rpartition("=")
        parts = text.split(":")
        if not equals or len(parts) == 1:
            plain.append(item)
            continue
        if len(parts) != 3:
            raise UsageError(f"--shape {item}: not of the form NAME=MIN:OPT:MAX")
        try:
            least, best, most = (tuple(int(dim) for dim in part.replace("x", ",").split(",")) for part in parts)
        except ValueError:
            raise UsageError(f"--shape {item}: not of the form NAME=MIN:OPT:MAX") from None
        if not len(least) == len(best) == len(most):
            raise UsageError(f"--shape {item}: the three shapes have different ranks")
        if any(not 0 <= a <= b <= c for a, b, c in zip(least, best, most, strict=True)):
            raise UsageError(f"--shape {item}: on each axis the sizes must not fall from MIN to OPT to MAX")
        profiles[name] = Profile(least, best, most)
        plain.append(f"{name}={','.join(map(str, best))}")
    return plain, profiles


def merged(fed: Mapping[str, Sequence[int]], wanted: Mapping[str, Profile]) -> dict[str, Profile]:
    """A profile per input: the one that is wanted, else the shape that is fed alone.

    Raises:
        UsageError: A shape that is fed lies outside its profile.
    """
    found: dict[str, Profile] = dict(wanted)
    for name, shape in fed.items():
        profile = wanted.get(name)
        if profile is None:
            found[name] = Profile.fixed(*shape)
            continue
        if len(profile.min) != len(shape) or any(
            not low <= dim <= high for low, dim, high in zip(profile.min, shape, profile.max, strict=True)
        ):
            raise UsageError(f"input {name} is fed {list(shape)}, which is outside {profile.min} to {profile.max}")
        found[name] = profile
    return found
