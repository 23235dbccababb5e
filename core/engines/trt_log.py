"""What a verbose build log of TensorRT says: fusions, tactics, reformats, memory, and warnings that matter.

Logs of trtexec ("[V] [TRT] ..."), of Python loggers ("[TRT] [V] ...") and of this program, versions 8.6 to 11 and RTX.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from onnx_rewrite.engines import trt_warnings
from onnx_rewrite.engines.protocol import Layer
from onnx_rewrite.engines.trt_layers import listed, parts_of
from onnx_rewrite.engines.trt_regions import Border, Step, attributed

_PREFIX = re.compile(
    r"^\[[\d/]+-[\d:]+\] (?:\[(?P<a>[VIWEF])\] (?:\[(?:TRT|RTX|TensorRT)\] )?|\[TRT\] \[(?P<b>[VIWEF])\] )(?P<text>.*)$"
)
_STAGE = re.compile(r"^After (?P<stage>.+?): (?P<count>\d+) layers")
_FUSION = re.compile(
    r"^(?P<rule>[A-Za-z]\w*): (?:Fusing (?P<first>.+?) with (?P<second>.+)|(?P<other>Removing .+|Swap.+))$"
)
_PARSED = re.compile(r"^Parsing node: (?P<name>.*) \[(?P<operator>[^\]]+)\]$")
_COSTS = re.compile(r"^=+ Computing costs for ?(?P<layer>.*?)\s*$")
_NAMED = re.compile(r"^.+ Set Tactic Name: (?P<name>\S+) Tactic: (?P<tactic>0x[0-9a-f]+)$")
_FORMATS = re.compile(r"^\*+ Autotuning format combination: (?P<formats>.+?) \*+$")
_RUNNER = re.compile(r"^-+ Timing Runner: (?P<layer>.+) \((?P<runner>[^()\[]+)(?:\[0x[0-9a-f]+\])?\)$")
_TRIED = re.compile(r"^(?:Tactic Name: (?P<name>\S+) )?Tactic: (?P<tactic>0x[0-9a-f]+) Time: (?P<time>[0-9.e+-]+|inf)")
_CHOSEN = re.compile(r"^>+ Chose Runner Type: (?P<runner>\S+) Tactic: (?P<tactic>0x[0-9a-f]+)")
_REFORMAT = re.compile(
    r"^Adding reformat layer: (?P<name>.+?) \((?P<tensor>.+)\) from (?P<source>.+) to (?P<target>.+)$"
)
_MEMORY = re.compile(r"^(?P<what>(?:Total|Max) [\w ]+ Memory): (?P<bytes>\d+)")
_PEAK = re.compile(r"Peak memory usage of TRT CPU/GPU memory allocators: CPU (?P<cpu>\d+) MiB, GPU (?P<gpu>\d+) MiB")
_SECONDS = re.compile(r"^(?P<what>[A-Z][\w ]+?)(?: completed in|:) (?P<seconds>[0-9.e-]+) seconds")
_ENGINE_LAYER = re.compile(
    r"^Layer\((?P<kind>[^)]*)\): (?P<name>.+?), Tactic: (?P<tactic>0x[0-9a-f]+|-?\d+), (?P<ins>.*?) ?-> ?(?P<outs>.+)$"
)
# "x (Float[1,3])" in 8.6 and later, "x[Float(1,3)]" before.
_TENSOR = re.compile(r"(?P<name>.+?) ?[(\[](?P<type>\w+)[(\[][-\d,: ]*[)\]][)\]](?:, |$)")
_STEP = re.compile(r"^(?P<name>.+) \[(?P<operator>[\w.:]+)\] (?P<side>inputs|outputs): (?P<tensors>.*)$")
_STEP_TENSOR = re.compile(r"\[([^\[\]]+) -> ")
_INITIALIZER = re.compile(r"^Importing initializer: (?P<name>.+)$")
_LAYERNORM = re.compile(r"Detected layernorm nodes in FP16: (?P<names>.*)")


@dataclass
class Fusion:
    """Two layers that became one, by which rule and before which stage ended."""

    rule: str
    first: str
    second: str
    stage: str = ""


@dataclass
class Choice:
    """What was tried for one layer, and what was chosen.

    Attributes:
        layer: Its name.
        tried: How many tactics were timed, in all formats.
        runners: The kinds of implementation that were tried.
        runner: The kind that was chosen.
        tactic: The tactic's name where the log tells it, else its number.
        milliseconds: Its time, or None.
        formats: What it reads and writes.
    """

    layer: str
    tried: int = 0
    runners: list[str] = field(default_factory=list[str])
    runner: str = ""
    tactic: str = ""
    milliseconds: float | None = None
    formats: str = ""


@dataclass
class Reformat:
    """A layer that changes the layout or type of a tensor, and from what to what."""

    name: str
    tensor: str
    source: str
    target: str


@dataclass
class Warned:
    """A warning, how often it came, and what it means; `cause` is short, or empty for one that is not known."""

    text: str
    count: int
    cause: str = ""
    meaning: str = ""


@dataclass
class EngineLayer:
    """A layer of the finished engine, and the ONNX nodes in it as far as the log tells."""

    name: str
    kind: str
    nodes: list[str]
    tactic: str
    types: str


@dataclass
class Analysis:
    """What a log says.

    Attributes:
        lines: How many records were read.
        nodes: Number of ONNX nodes by operator, as they were parsed.
        stages: Number of layers after each stage, in order.
        fusions: What was fused.
        choices: Layers and their tactics.
        reformats: Layers that were added between formats.
        layers: Of the finished engine.
        memory: Bytes by what they are for.
        seconds: By stage.
        warnings: Each once.
        errors: In the order in which they came.
    """

    lines: int = 0
    nodes: dict[str, int] = field(default_factory=dict[str, int])
    stages: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    fusions: list[Fusion] = field(default_factory=list[Fusion])
    choices: list[Choice] = field(default_factory=list[Choice])
    reformats: list[Reformat] = field(default_factory=list[Reformat])
    layers: list[EngineLayer] = field(default_factory=list[EngineLayer])
    memory: dict[str, int] = field(default_factory=dict[str, int])
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    warnings: list[Warned] = field(default_factory=list[Warned])
    errors: list[str] = field(default_factory=list[str])


def records(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Severity letter and message of each record; lines without a prefix continue the record before them."""
    severity, parts = "", list[str]()
    for line in lines:
        line = line.rstrip("\r\n")
        match = _PREFIX.match(line)
        if match is None:
            if parts:
                parts.append(line)
            continue
        if parts:
            yield severity, "\n".join(parts)
        severity, parts = match["a"] or match["b"], [match["text"]]
    if parts:
        yield severity, "\n".join(parts)


def analyse(lines: Iterable[str]) -> Analysis:
    """Reads a log; what it does not know it passes over."""
    reader = _Reader()
    for severity, text in records(lines):
        reader.read(severity, text)
    return reader.finish()


class _Reader:
    def __init__(self) -> None:
        self.found = Analysis()
        self._operators: Counter[str] = Counter()
        self._warnings: Counter[str] = Counter()
        self._choices: dict[str, Choice] = {}
        self._layer = ""
        self._unnamed = False
        self._names: dict[str, str] = {}
        self._formats = ""
        self._times: dict[tuple[str, str], tuple[float, str]] = {}
        self._runner = ""
        self._unstaged = 0
        self._steps: dict[str, Step] = {}
        self._constants: set[str] = set()
        self._borders: list[Border] = []

    def read(self, severity: str, text: str) -> None:
        """Takes one record."""
        found = self.found
        found.lines += 1
        if severity == "W":
            self._warnings[" ".join(text.split())] += 1
            return
        if severity in "EF":
            found.errors.append(text)
            return
        if match := _PARSED.match(text):
            self._operators[match["operator"]] += 1
        elif match := _INITIALIZER.match(text):
            self._constants.add(match["name"])
        elif match := _STEP.match(text):
            self._step(match)
        elif match := _STAGE.match(text):
            found.stages.append((match["stage"], int(match["count"])))
            for fusion in found.fusions[self._unstaged :]:
                fusion.stage = match["stage"]
            self._unstaged = len(found.fusions)
        elif match := _COSTS.match(text):
            self._begin(match["layer"])
        elif text.startswith("==="):  # reformatting costs: their timings belong to no layer
            self._layer, self._unnamed = "", False
        elif match := _FORMATS.match(text):
            self._formats = match["formats"]
        elif match := _RUNNER.match(text):
            self._runner = match["runner"]
            if self._unnamed and match["layer"] != self._layer:
                self._layer = match["layer"]
                self._choices.setdefault(self._layer, Choice(self._layer))
            choice = self._choices.get(self._layer)
            if choice is not None and self._runner not in choice.runners:
                choice.runners.append(self._runner)
        elif match := _NAMED.match(text):
            self._names[match["tactic"]] = match["name"]
        elif match := _TRIED.match(text):
            self._tried(match["tactic"], match["name"] or self._names.get(match["tactic"], ""), float(match["time"]))
        elif match := _CHOSEN.match(text):
            self._chosen(match["runner"], match["tactic"])
        elif match := _REFORMAT.match(text):
            found.reformats.append(Reformat(match["name"], match["tensor"], match["source"], match["target"]))
        elif match := _FUSION.match(text):
            found.fusions.append(Fusion(match["rule"], match["first"] or match["other"], match["second"] or ""))
        elif match := _MEMORY.match(text):
            found.memory[match["what"]] = int(match["bytes"])
        elif match := _PEAK.search(text):
            found.memory["Peak of the builder, CPU"] = int(match["cpu"]) << 20
            found.memory["Peak of the builder, GPU"] = int(match["gpu"]) << 20
        elif match := _SECONDS.match(text):
            found.seconds[match["what"]] = float(match["seconds"])
        elif text.startswith(("Engine Layer Information", "Layers:", "Layer(")):
            self._engine(text)

    def finish(self) -> Analysis:
        """What was found."""
        found = self.found
        found.nodes = dict(self._operators.most_common())
        if self._borders:
            placed = attributed(self._borders, list(self._steps.values()), self._constants)
            for layer, nodes in zip(found.layers, placed, strict=True):
                layer.nodes = list(nodes)
        found.choices = [one for one in self._choices.values() if one.runner or one.tried]
        for text, count in self._warnings.items():
            cause, meaning = trt_warnings.understood(text)
            found.warnings.append(Warned(text, count, cause, meaning))
        found.warnings.sort(key=lambda one: not one.cause)
        return found

    def _begin(self, layer: str) -> None:
        # Until 8.6 the line often ends before the name, which the runners tell.
        self._layer, self._formats, self._unnamed = layer, "", not layer
        self._names.clear()
        if layer:
            self._choices.setdefault(layer, Choice(layer))

    def _tried(self, tactic: str, name: str, time: float) -> None:
        choice = self._choices.get(self._layer)
        if choice is None:
            return
        choice.tried += 1
        known = self._times.get((self._layer, tactic))
        if known is None or time < known[0]:
            self._times[self._layer, tactic] = time, name

    def _chosen(self, runner: str, tactic: str) -> None:
        choice = self._choices.get(self._layer)
        if choice is None:
            return
        time, name = self._times.get((self._layer, tactic), (None, ""))
        # One is chosen for each combination of formats: the fastest stands for the layer.
        if choice.runner and choice.milliseconds is not None and (time is None or time >= choice.milliseconds):
            return
        choice.runner, choice.tactic, choice.milliseconds, choice.formats = runner, name or tactic, time, self._formats

    def _engine(self, text: str) -> None:
        if text.startswith("Layers:"):
            self.found.layers += [_plain(layer) for layer in listed(text)]
            return
        for line in text.split("\n"):
            match = _ENGINE_LAYER.match(line)
            if match is None:
                continue
            sides = [list(_TENSOR.finditer(match[side])) for side in ("ins", "outs")]
            types = " -> ".join("+".join(dict.fromkeys(one["type"] for one in side)) for side in sides)
            reads, writes = (tuple(one["name"] for one in side) for side in sides)
            name, reformats = match["name"], match["kind"].lower() in ("reformat", "noop")
            parts = [] if reformats else [one for one in parts_of(name) if not one.startswith("(Unnamed Layer")]
            self._borders.append(Border(name, tuple(parts), reads, writes, reformats))
            tactic = "" if int(match["tactic"], 0) == 0 else match["tactic"]
            self.found.layers.append(EngineLayer(name, match["kind"], list(parts), tactic, types))

    def _step(self, match: re.Match[str]) -> None:
        name, names = match["name"], tuple(_STEP_TENSOR.findall(match["tensors"]))
        known = self._steps.get(name, Step(name, match["operator"], (), ()))
        reads, writes = (names, known.writes) if match["side"] == "inputs" else (known.reads, names)
        self._steps[name] = Step(name, match["operator"], reads, writes)


def _plain(layer: Layer) -> EngineLayer:
    return EngineLayer(layer.name, layer.kind, list(layer.nodes), layer.tactic, layer.types)
