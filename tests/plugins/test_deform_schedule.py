"""What is decided before a kernel starts is the same in C++ and in Python."""

from __future__ import annotations

import ctypes
import importlib
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_rewrite.engines import plugins
from onnx_rewrite.plugins.deform_conv import schedule
from onnx_rewrite.plugins.deform_conv.schedule import Device, Plan, Sizes

ROOT = Path(__file__).resolve().parents[2]
FOLDER = plugins.named(["deform_conv"])[0].folder
KINDS = ["direct", "prepare", "simt", "tensor", "finish"]
DEVICES = [
    Device(9, 0, 132, 232448),
    Device(8, 0, 108, 166912),
    Device(8, 6, 84, 101376),
    Device(7, 5, 40, 65536),
    Device(10, 0, 148, 232448),
    Device(12, 0, 170, 101376),
]

BRIDGE = """
#include "schedule.h"
#include <string.h>
using namespace onnx_rewrite;
extern "C" int work(int const* p, int type, int math, int tactic, int const* device, int aligned, char* plan,
    long long* launches, int* found) {
    Work const w = work_of(*reinterpret_cast<DeformConv const*>(p), (Type)type, (Math)math, tactic,
        *reinterpret_cast<Device const*>(device), aligned);
    memcpy(plan, &w.plan, sizeof(Plan));
    *found = w.tactic;
    for (int i = 0; i < w.count; ++i) {
        Launch const& l = w.launches[i];
        long long const numbers[] = {(int)l.kind, l.blocks, l.threads, l.shared, l.shape, l.first, l.image_blocks,
            l.frame_blocks, l.parts};
        memcpy(launches + 9 * i, numbers, sizeof numbers);
    }
    return w.count;
}
extern "C" long long most(int const* p, int type, int math) {
    return largest_workspace(*reinterpret_cast<DeformConv const*>(p), (Type)type, (Math)math);
}
"""


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    folder = tmp_path_factory.mktemp("bridge")
    (folder / "bridge.cpp").write_text(BRIDGE)
    command = [compiler, "-std=c++17", "-shared", "-fPIC", f"-I{FOLDER}", "bridge.cpp", "-o", "bridge.so"]
    subprocess.run(command, cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "bridge.so"))
    library.most.restype = ctypes.c_longlong
    return library


@st.composite
def problems(draw: st.DrawFn) -> Sizes:
    groups, offset_groups = draw(st.sampled_from([1, 1, 2, 3, 4, 64])), draw(st.sampled_from([1, 1, 2, 4, 8]))
    c = math.lcm(groups, offset_groups) * draw(st.sampled_from([1, 3, 16, 64, 100, 512]))
    m = groups * draw(st.sampled_from([1, 3, 8, 64, 130, 256, 512]))
    h, w = draw(st.sampled_from([1, 7, 58, 300])), draw(st.sampled_from([1, 8, 33, 100]))
    kernel = draw(st.sampled_from([1, 3, 5]))
    n = draw(st.sampled_from([1, 2, 6, 40]))
    return Sizes(n, c, h, w, m, h, w, kernel, 3, 1, 2, 1, 0, 1, 2, groups, offset_groups)


@given(
    problems(),
    st.integers(0, 2),
    st.integers(0, 2),
    st.sampled_from([-1, -1, -1, 0, 1, *range(2, 10), 66, 70, 2 + 256, 7 + 384, 3 + 64 + 512]),
    st.sampled_from(DEVICES),
    st.booleans(),
)
@settings(max_examples=400, deadline=None)
def test_python_decides_what_the_library_decides(
    bridge: ctypes.CDLL, p: Sizes, kind: int, how: int, tactic: int, device: Device, aligned: bool
) -> None:
    sizes = (ctypes.c_int * 17)(*vars(p).values())
    plan, launches, found = ctypes.create_string_buffer(ctypes.sizeof(Plan)), (ctypes.c_longlong * 36)(), ctypes.c_int()
    gpu = (ctypes.c_int * 4)(*vars(device).values())
    count = bridge.work(sizes, kind, how, tactic, gpu, int(aligned), plan, launches, ctypes.byref(found))
    work = schedule.work_of(p, kind, how, tactic, device, aligned=aligned)
    assert found.value == work.tactic
    assert [tuple(launches[9 * i : 9 * i + 9]) for i in range(max(count, 0))] == [
        (
            KINDS.index(one.kind),
            one.blocks,
            one.threads,
            one.shared,
            one.shape,
            one.first,
            one.image_blocks,
            one.frame_blocks,
            one.parts,
        )
        for one in work.launches
    ]
    assert bytes(work.plan) == plan.raw
    assert schedule.largest_workspace(p, kind, how) == bridge.most(sizes, kind, how)


def test_the_table_of_tiles_is_that_of_the_source() -> None:
    text = (FOLDER / "plan.h").read_text(encoding="utf-8")
    rows = re.findall(r"X\((\d), (\d+), (\d), (\d), (\d), ([\d.]+), ([\d.]+)\)", text)
    assert len(rows) == len(schedule.SHAPES)
    for number, n, wm, wk, stages, turn, alone in rows:
        wanted = schedule.Shape(int(n), int(wm), int(wk), int(stages), float(turn), float(alone))
        assert schedule.SHAPES[int(number)] == wanted


@given(problems(), st.integers(0, 2), st.integers(0, 2), st.sampled_from(DEVICES))
@settings(max_examples=200, deadline=None)
def test_the_choice_runs_and_its_workspace_is_foreseen(p: Sizes, kind: int, how: int, device: Device) -> None:
    work = schedule.work_of(p, kind, how, schedule.AUTO, device, aligned=True)
    assert work.launches
    tiles = [one for one in work.launches if one.kind == "tensor"]
    if tiles:  # every position has its block, once
        starts = [one.first for one in tiles]
        assert starts[0] == 0
        assert starts == sorted(set(starts))
        assert all(one.shared <= device.shared for one in tiles)
    if work.tactic > schedule.SIMT:
        assert work.plan.bytes <= schedule.largest_workspace(p, kind, how)


def test_the_choice_is_among_the_fastest_that_were_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the H100 of the kept result, where each tile was timed, alone and shared by several blocks.

    What was chosen was timed twice in that run: the two differ by `spread` at most, so two tactics by twice as much.
    """
    monkeypatch.syspath_prepend(str(ROOT))
    bench = importlib.import_module("benchmarks.deform_kernel")
    kept = json.loads((ROOT / "benchmarks/results/deform_kernel.json").read_text(encoding="utf-8"))["speed"]
    compared = 0
    for row in kept:
        n, c, h, w, m, groups, offset_groups = bench.SHAPES[row["shape"]]
        _, kind, how = bench.WAYS[row["way"]]
        p = Sizes(n, c, h, w, m, h, w, 3, 3, 1, 1, 1, 1, 1, 1, groups, offset_groups)
        tactic = schedule.choose(p, kind, how, DEVICES[0])
        times = {name: ms for name, ms in row["tactics"].items() if not name.startswith("wide")}
        if len(times) < len(schedule.SHAPES):  # bf16, of which the choice alone was timed
            continue
        spread, chosen = 0.03, times.get(bench.label(tactic), row["chosen_ms"])
        if abs(row["chosen_ms"] / chosen - 1) <= spread:
            chosen = min(chosen, row["chosen_ms"])
        assert chosen <= min(times.values()) * (1 + 2 * spread), (row["shape"], row["way"], bench.label(tactic))
        compared += 1
    assert compared == 39
