"""Which kernels run a deformable convolution, and on how many blocks: `schedule.h` and `plan.h` in Python.

The numbers are those that the C++ computes, to the byte of what kernels take as a parameter (`tests/plugins` compares).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, fields
from math import gcd

ROW_BYTES = 128
TAP_GROUP = 9
ENTRY_BYTES = 16

FLOAT, HALF, BFLOAT16 = 0, 1, 2
"""Types of tensors, as `Type` in problem.h numbers them."""

EXACT, TF32, FFMA = 0, 1, 2
"""How fp32 is multiplied, as `Math` in problem.h."""

AUTO, DIRECT, SIMT, TENSOR = -1, 0, 1, 2
WIDE = 64
"""Added to a tactic: fp16 interpolates in fp32."""

PARTS = 128
"""Added to a tactic, times how many blocks share a tile's channels, if not one."""

MOST_PARTS = 8
PARTIAL_BYTES = 8 << 20

SIMT_FILTERS = SIMT_POSITIONS = 128
SIMT_THREADS = 256
SIMT_SHARED = 32 * (SIMT_FILTERS + SIMT_POSITIONS) * 4 + TAP_GROUP * SIMT_POSITIONS * ENTRY_BYTES

_GRID = 1 << 31


@dataclass(frozen=True)
class Sizes:
    """Sizes of ONNX DeformConv, in the order of `DeformConv` in problem.h.

    x [n, c, h, w], weight [m, c / groups, kh, kw], y [n, m, oh, ow]; strides, begin pads and dilations height first.
    """

    n: int
    c: int
    h: int
    w: int
    m: int
    oh: int
    ow: int
    kh: int
    kw: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_left: int
    dilation_h: int
    dilation_w: int
    groups: int
    offset_groups: int


@dataclass(frozen=True)
class Device:
    """What choices depend on.

    Attributes:
        major: Of the compute capability.
        minor: Of the compute capability.
        processors: Multiprocessors.
        shared: Bytes of shared memory that a block may have.
    """

    major: int
    minor: int
    processors: int
    shared: int


_SIZES = [field.name for field in fields(Sizes)]
_OWN = [
    "taps",
    "ohw",
    "positions",
    "blocks_per_group",
    "block_channels",
    "chunk",
    "chunks",
    "channels",
    "pitch",
    "image_pixels",
    "filters",
    "filter_tile",
    "filter_tiles",
    "copies",
    "stages",
]


class Plan(ctypes.Structure):
    """`Plan` of plan.h: the parameter of the kernels."""

    _fields_ = [(name, ctypes.c_int) for name in (*_SIZES, *_OWN)] + [
        (name, ctypes.c_int64) for name in ("weight_offset", "partial_offset", "bytes")
    ]


@dataclass(frozen=True)
class Shape:
    """A row of the table in plan.h: a tile, and microseconds for a turn of its loop."""

    n: int
    wm: int
    wk: int
    stages: int
    turn: float
    alone: float

    @property
    def positions(self) -> int:
        """Output positions of a tile."""
        return 64 * self.wm

    def threads(self, copies: int) -> int:
        """Of a block; `copies` is 2 where weights come in two parts."""
        consumers = 128 * self.wm * self.wk
        return consumers + (128 if self.n * copies == 256 and consumers == 256 else 32)

    def shared(self, copies: int) -> int:
        """Bytes of shared memory of a block."""
        ring = self.stages * self.wk * self.n * ROW_BYTES * copies
        staging = 64 * (self.positions + 4) * 4
        table = -(-max(ring, staging) // 16) * 16
        return 1024 + table + TAP_GROUP * self.positions * ENTRY_BYTES + 2 * self.stages * 8


SHAPES = (
    Shape(256, 2, 1, 3, 1.29, 1.08),
    Shape(128, 2, 1, 4, 1.05, 0.87),
    Shape(128, 1, 1, 4, 0.79, 0.68),
    Shape(128, 1, 2, 3, 1.19, 1.05),
    Shape(64, 2, 1, 4, 0.83, 0.75),
    Shape(64, 1, 1, 4, 0.40, 0.58),
    Shape(64, 1, 2, 4, 0.95, 0.89),
)


@dataclass(frozen=True)
class Launch:
    """One kernel and its blocks.

    Attributes:
        kind: "direct", "prepare", "simt", "tensor" or "finish".
        blocks: Of the grid.
        threads: Of a block.
        shared: Bytes of dynamic shared memory.
        shape: Number of the tile's shape.
        first: Where the tile's positions begin.
        image_blocks: Of `prepare`: blocks that read the image.
        frame_blocks: Of `prepare`: blocks that write the frame.
        parts: How many blocks share a tile.
    """

    kind: str
    blocks: int
    threads: int
    shared: int = 0
    shape: int = 0
    first: int = 0
    image_blocks: int = 0
    frame_blocks: int = 0
    parts: int = 1


@dataclass(frozen=True)
class Work:
    """Everything that is done for a problem; no launches if the tactic cannot run it."""

    tactic: int
    plan: Plan
    launches: tuple[Launch, ...]


def element_of(kind: int) -> int:
    """Bytes of a number of a type."""
    return 4 if kind == FLOAT else 2


def make_plan(p: Sizes, element: int, filter_tile: int, copies: int, parts: int = 1) -> Plan:
    """What the kernels derive from the sizes."""
    blocks = p.groups // gcd(p.groups, p.offset_groups) * p.offset_groups
    block_channels, chunk = p.c // blocks, ROW_BYTES // element
    chunks = _up(block_channels, chunk)
    channels, pitch = blocks * chunks * chunk, p.w + 1
    image_pixels, filters = (p.h + 3) * pitch + 1, p.m // p.groups
    filter_tiles, taps = _up(filters, filter_tile), p.kh * p.kw
    stages = blocks // p.groups * chunks * taps
    weight_offset = _up(p.n * image_pixels * channels * element, 1024) * 1024
    partial_offset = weight_offset + p.groups * filter_tiles * stages * filter_tile * copies * ROW_BYTES
    total = partial_offset + (parts * p.m * p.n * p.oh * p.ow * 4 if parts > 1 else 0)
    own = [taps, p.oh * p.ow, p.n * p.oh * p.ow, blocks // p.groups, block_channels, chunk, chunks, channels, pitch]
    own += [image_pixels, filters, filter_tile, filter_tiles, copies, stages]
    return Plan(*(getattr(p, name) for name in _SIZES), *own, weight_offset, partial_offset, total)


def work_of(p: Sizes, kind: int, math: int, tactic: int, device: Device, *, aligned: bool) -> Work:
    """The launches for a problem.

    Args:
        p: Its sizes.
        kind: The tensors' type.
        math: How fp32 is multiplied.
        tactic: `AUTO`, `DIRECT`, `SIMT`, or `TENSOR` and the number of a shape, with `WIDE` or without.
        device: The GPU.
        aligned: Whether x begins at a multiple of 16 bytes.
    """
    element = element_of(kind)
    if tactic == AUTO:
        tactic = choose(p, kind, math, device)
    plan = make_plan(p, element, _filter_tile_of(tactic), _copies_of(kind, math, tactic), _parts_of(tactic))
    if not _runs(p, plan, kind, math, tactic, device):
        return Work(tactic, plan, ())
    found = tuple(_launches(p, plan, element, tactic, device, aligned=aligned))
    return Work(tactic, plan, found if all(one.blocks < _GRID for one in found) else ())


def _launches(p: Sizes, plan: Plan, element: int, tactic: int, device: Device, *, aligned: bool) -> Iterator[Launch]:
    if tactic == DIRECT:
        yield Launch("direct", min(_up(p.n * p.m * p.oh * p.ow, 256), 1 << 20), 256)
        return
    vectors = aligned and p.h * p.w * element % 16 == 0
    pixels, chunks = p.h * p.w if vectors else plan.image_pixels, plan.channels // plan.chunk
    image = p.n * _up(pixels, 64) * chunks
    frame = _up(p.n * (3 * plan.pitch + 1 + p.h) * chunks * 8, 256) if vectors else 0
    rows = _up(p.groups * plan.filter_tiles * plan.stages * plan.filter_tile * 8, 256)
    yield Launch("prepare", image + frame + rows, 256, image_blocks=image, frame_blocks=frame)
    columns = p.groups * plan.filter_tiles
    if tactic == SIMT:
        yield Launch("simt", _up(plan.positions, SIMT_POSITIONS) * columns, SIMT_THREADS, SIMT_SHARED)
        return
    shape, parts = _shape_of(tactic), _parts_of(tactic)
    whole, rest_shape, _ = _schedule(plan, shape, parts, device)
    shares = [(shape, 0, whole)] if rest_shape < 0 else [(shape, 0, whole), (rest_shape, whole, plan.positions - whole)]
    for number, first, count in shares:
        s = SHAPES[number]
        blocks = _up(count, s.positions) * columns * (plan.filter_tile // s.n)
        yield Launch("tensor", blocks, s.threads(plan.copies), s.shared(plan.copies), number, first, parts=parts)
    if parts > 1:
        yield Launch("finish", _up(p.m * plan.positions, 256), 256, parts=parts)


def choose(p: Sizes, kind: int, math: int, device: Device) -> int:
    """The tactic that `AUTO` stands for."""
    element = element_of(kind)
    plan = make_plan(p, element, 64, 1)
    if _thin(plan) or not _small_enough(p, plan, element):
        return DIRECT
    if device.major < 8 or (kind == FLOAT and math != TF32 and not (math == EXACT and _fast_tf32(device))):
        return SIMT
    copies = _copies_of(kind, math, TENSOR)
    best, least = SIMT, 0.0
    for shape in range(len(SHAPES)):
        for parts in range(1, MOST_PARTS + 1):
            if not _fits(shape, copies, device) or not _shares(p, plan, parts):
                break
            tile = make_plan(p, element, SHAPES[shape].n, copies, parts)
            time = _schedule(tile, shape, parts, device)[2]
            if best == SIMT or time < least:
                best, least = TENSOR + shape + (parts * PARTS if parts > 1 else 0), time
    return best


def largest_workspace(p: Sizes, kind: int, math: int) -> int:
    """The most bytes of workspace that `AUTO` can need for these sizes, or smaller n, h, w, oh, ow."""
    if p.n * p.oh * p.ow == 0:
        return 0
    copies = _copies_of(kind, math, TENSOR)
    plans = [make_plan(p, element_of(kind), filter_tile, copies) for filter_tile in (64, 128, 256)]
    most = (int(plan.bytes) + (PARTIAL_BYTES if plan.chunks > 1 else 0) for plan in plans if not _thin(plan))
    return max(most, default=0)


def _schedule(plan: Plan, shape: int, parts: int, device: Device) -> tuple[int, int, float]:
    """Positions of the first shape, the shape of the rest or -1, and microseconds."""
    stages = plan.stages // plan.chunks * _up(plan.chunks, parts)

    def turns(s: Shape, blocks: int) -> float:
        alone = blocks <= device.processors or (plan.copies == 2 and s.turn < s.alone)
        return _up(stages, s.wk) * (s.alone if alone else s.turn) + 3.0

    s, columns = SHAPES[shape], plan.groups * plan.filter_tiles
    blocks = _up(plan.positions, s.positions) * columns * parts
    waves = _up(blocks, device.processors)
    more = 4.0 + parts * plan.m * plan.positions * 8.0 / 3e6 if parts > 1 else 0.0
    best = (int(plan.positions), -1, waves * turns(s, blocks) + more)
    if waves < 2 or parts > 1:
        return best
    whole = (waves - 1) * device.processors // columns * s.positions
    if whole <= 0 or whole >= plan.positions:
        return best
    before = (waves - 1) * turns(s, blocks) + 4.0
    for number, r in enumerate(SHAPES):
        if plan.filter_tile % r.n or not _fits(number, plan.copies, device):
            continue
        rest_blocks = _up(plan.positions - whole, r.positions) * columns * (plan.filter_tile // r.n)
        time = before + _up(rest_blocks, device.processors) * turns(r, rest_blocks)
        if time < best[2]:
            best = (whole, number, time)
    return best


def _runs(p: Sizes, plan: Plan, kind: int, math: int, tactic: int, device: Device) -> bool:
    if tactic == DIRECT:
        return True
    if not _small_enough(p, plan, element_of(kind)):
        return False
    if tactic == SIMT:
        return device.shared >= SIMT_SHARED
    if tactic & WIDE and kind != HALF:
        return False
    shape = _shape_of(tactic)
    known = 0 <= shape < len(SHAPES) and _shares(p, plan, _parts_of(tactic))
    return known and device.major >= 8 and _fits(shape, plan.copies, device) and (kind != FLOAT or math != FFMA)


def _small_enough(p: Sizes, plan: Plan, element: int) -> bool:
    image, plane = (p.h + 3) * (p.w + 1) + 1, p.oh * p.ow
    return (
        max(image, plane, p.n * image, p.n * plane + 1024, (p.w + 1) * plan.channels * element) < _GRID
        and (p.n * image // 64 + p.n) * (plan.channels * element // ROW_BYTES) < _GRID // 2
    )


def _thin(plan: Plan) -> bool:
    return plan.block_channels * 4 < plan.chunk or plan.filters < 8


def _fast_tf32(device: Device) -> bool:
    return device.major == 9 or (device.major in (8, 10) and device.minor == 0)


def _copies_of(kind: int, math: int, tactic: int) -> int:
    return 2 if _shape_of(tactic) >= 0 and kind == FLOAT and math == EXACT else 1


def _shape_of(tactic: int) -> int:
    return (tactic & (WIDE - 1)) - TENSOR


def _parts_of(tactic: int) -> int:
    return tactic // PARTS if tactic > PARTS else 1


def _shares(p: Sizes, plan: Plan, parts: int) -> bool:
    return parts <= plan.chunks and (parts == 1 or parts * p.m * plan.positions * 4 <= PARTIAL_BYTES)


def _fits(shape: int, copies: int, device: Device) -> bool:
    s = SHAPES[shape]
    return s.shared(copies) <= device.shared and (copies == 1 or s.n <= 128)


def _filter_tile_of(tactic: int) -> int:
    shape = _shape_of(tactic)
    return SHAPES[shape].n if 0 <= shape < len(SHAPES) else SIMT_FILTERS


def _up(a: int, b: int) -> int:
    """Rounded up."""
    return -(-a // b)
