from __future__ import annotations

import io
from pathlib import Path

import onnx
import pytest
from rich.console import Console

from onnx_rewrite.engines.options import BuildOptions
from onnx_rewrite.engines.protocol import Model
from onnx_rewrite.engines.tensorrt_rtx import TensorRTRTX
from onnx_rewrite.engines.trt_log import Analysis, Choice, Fusion, Reformat, analyse, records
from onnx_rewrite.engines.trt_warnings import condensed
from onnx_rewrite.report import build_log

MODELS = Path(__file__).resolve().parents[2] / "models" / "exported"

# In the format of trtexec 8.6 with --verbose.
LOG = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v8600] # trtexec --onnx=m.onnx --fp16 --verbose
[11/23/2026-07:00:00] [I] === Model Options ===
[11/23/2026-07:00:01] [V] [TRT] Parsing node: Conv_0 [Conv]
[11/23/2026-07:00:01] [V] [TRT] Parsing node: Relu_1 [Relu]
[11/23/2026-07:00:01] [V] [TRT] Parsing node: LayerNormalization_2 [LayerNormalization]
[11/23/2026-07:00:01] [W] [TRT] onnx2trt_utils.cpp:374: Your ONNX model has been generated with INT64 weights.
[11/23/2026-07:00:01] [V] [TRT] Original: 9 layers
[11/23/2026-07:00:01] [V] [TRT] After dead-layer removal: 9 layers
[11/23/2026-07:00:01] [V] [TRT] Running: ConstShuffleFusion on bias
[11/23/2026-07:00:01] [V] [TRT] ConstShuffleFusion: Fusing bias with (Unnamed Layer* 3) [Shuffle]
[11/23/2026-07:00:01] [V] [TRT] After Myelin optimization: 4 layers
[11/23/2026-07:00:01] [V] [TRT] Running: ConvReluFusion on Conv_0
[11/23/2026-07:00:01] [V] [TRT] ConvReluFusion: Fusing Conv_0 with Relu_1
[11/23/2026-07:00:01] [V] [TRT] After vertical fusions: 2 layers
[11/23/2026-07:00:01] [W] [TRT] Detected layernorm nodes in FP16: ReduceMean_4, Sub_5
[11/23/2026-07:00:01] [W] [TRT] Running layernorm after self-attention in FP16 may cause overflow. Upgrading the model \
to use INormalizationLayer can help with preserving accuracy.
[11/23/2026-07:00:01] [W] [TRT] Running layernorm after self-attention in FP16 may cause overflow. Upgrading the model \
to use INormalizationLayer can help with preserving accuracy.
[11/23/2026-07:00:01] [V] [TRT] =============== Computing reformatting costs
[11/23/2026-07:00:01] [V] [TRT] --------------- Timing Runner: Optimizer Reformat(x -> <out>) (Reformat[0x80000006])
[11/23/2026-07:00:01] [V] [TRT] Tactic: 0x00000000000003e8 Time: 0.001
[11/23/2026-07:00:02] [V] [TRT] =============== Computing costs for Conv_0 + Relu_1
[11/23/2026-07:00:02] [V] [TRT] *************** Autotuning format combination: Float(75,25,5,1) -> Float(75,25,5,1) \
***************
[11/23/2026-07:00:02] [V] [TRT] --------------- Timing Runner: Conv_0 + Relu_1 (CaskConvolution[0x80000009])
[11/23/2026-07:00:02] [V] [TRT] Tactic Name: sm80_xmma_a Tactic: 0x00000000000000aa Time: 0.0345
[11/23/2026-07:00:02] [V] [TRT] Tactic Name: sm80_xmma_b Tactic: 0x00000000000000bb Time: 0.0123
[11/23/2026-07:00:02] [V] [TRT] Conv_0 + Relu_1 (CaskConvolution[0x80000009]) profiling completed in 0.0211 seconds. \
Fastest Tactic: 0x00000000000000bb Time: 0.0123
[11/23/2026-07:00:02] [V] [TRT] --------------- Timing Runner: Conv_0 + Relu_1 (CudaDepthwiseConvolution[0x80000023])
[11/23/2026-07:00:02] [V] [TRT] CudaDepthwiseConvolution has no valid tactics for this config, skipping
[11/23/2026-07:00:02] [V] [TRT] >>>>>>>>>>>>>>> Chose Runner Type: CaskConvolution Tactic: 0x00000000000000bb
[11/23/2026-07:00:02] [V] [TRT] *************** Autotuning format combination: Half(75,25,5,1) -> Half(75,25,5,1) \
***************
[11/23/2026-07:00:02] [V] [TRT] --------------- Timing Runner: Conv_0 + Relu_1 (CaskConvolution[0x80000009])
[11/23/2026-07:00:02] [V] [TRT] Tactic Name: sm80_h Tactic: 0x00000000000000cc Time: 0.0100
[11/23/2026-07:00:02] [V] [TRT] >>>>>>>>>>>>>>> Chose Runner Type: CaskConvolution Tactic: 0x00000000000000cc
[11/23/2026-07:00:03] [V] [TRT] =============== Computing costs for {ForeignNode[LayerNormalization_2...Add_9]}
[11/23/2026-07:00:03] [V] [TRT] --------------- Timing Runner: {ForeignNode[LayerNormalization_2...Add_9]} \
(Myelin[0x80000023])
[11/23/2026-07:00:03] [V] [TRT] Tactic: 0x0000000000000000 Time: 0.0301
[11/23/2026-07:00:03] [V] [TRT] >>>>>>>>>>>>>>> Chose Runner Type: Myelin Tactic: 0x0000000000000000
[11/23/2026-07:00:03] [V] [TRT] Adding reformat layer: Reformatted Input Tensor 0 to Conv_0 + Relu_1 (x) from \
Float(75,25,5,1) to Half(75,25,5,1)
[11/23/2026-07:00:03] [V] [TRT] Formats and tactics selection completed in 1.25 seconds.
[11/23/2026-07:00:03] [V] [TRT] After reformat layers: 3 layers
[11/23/2026-07:00:03] [I] [TRT] Total Host Persistent Memory: 1168
[11/23/2026-07:00:03] [I] [TRT] Total Scratch Memory: 2048
[11/23/2026-07:00:03] [I] [TRT] [MemUsageStats] Peak memory usage of TRT CPU/GPU memory allocators: CPU 4 MiB, GPU 6 MiB
[11/23/2026-07:00:03] [V] [TRT] Engine generation completed in 2.5 seconds.
[11/23/2026-07:00:03] [V] [TRT] Engine Layer Information:
Layer(Reformat): Reformatting CopyNode for Input Tensor 0 to Conv_0 + Relu_1, Tactic: 0x00000000000003e8, \
x (Float[1,3,5,5]) -> Reformatted Input Tensor 0 to Conv_0 + Relu_1 (Half[1,3,5,5])
Layer(CaskConvolution): Conv_0 + Relu_1, Tactic: 0x00000000000000cc, Reformatted Input Tensor 0 to Conv_0 + Relu_1 \
(Half[1,3,5,5]) -> a (Half[1,3,5,5])
Layer(Myelin): {ForeignNode[LayerNormalization_2...Add_9]}, Tactic: 0x0000000000000000, a (Half[1,3,5,5]) -> \
y (Float[1,3,5,5])
[11/23/2026-07:00:04] [E] Error[2]: [virtualMemoryBuffer.cpp::resizePhysical::145] Error Code 2: OutOfMemory
""".splitlines()


def plain(lines: list[str] = LOG) -> Analysis:
    return analyse(lines)


def test_counts_stages_and_fusions() -> None:
    found = plain()
    assert found.nodes == {"Conv": 1, "Relu": 1, "LayerNormalization": 1}
    assert found.stages == [
        ("dead-layer removal", 9),
        ("Myelin optimization", 4),
        ("vertical fusions", 2),
        ("reformat layers", 3),
    ]
    assert found.fusions == [
        Fusion("ConstShuffleFusion", "bias", "(Unnamed Layer* 3) [Shuffle]", "Myelin optimization"),
        Fusion("ConvReluFusion", "Conv_0", "Relu_1", "vertical fusions"),
    ]


def test_tactics_of_reformats_are_not_those_of_a_layer() -> None:
    conv, region = plain().choices
    formats = "Half(75,25,5,1) -> Half(75,25,5,1)"
    runners = ["CaskConvolution", "CudaDepthwiseConvolution"]
    assert conv == Choice("Conv_0 + Relu_1", 3, runners, "CaskConvolution", "sm80_h", 0.01, formats)
    assert (region.runner, region.tactic, region.milliseconds) == ("Myelin", "0x0000000000000000", 0.0301)


def test_the_slower_format_does_not_replace_the_faster() -> None:
    slower = [line.replace("0xcc Time: 0.0100", "").replace("Time: 0.0100", "Time: 0.0200") for line in LOG]
    assert plain(slower).choices[0].tactic == "sm80_xmma_b"


def test_reformats_memory_time_layers() -> None:
    found = plain()
    name = "Reformatted Input Tensor 0 to Conv_0 + Relu_1"
    assert found.reformats == [Reformat(name, "x", "Float(75,25,5,1)", "Half(75,25,5,1)")]
    assert found.memory == {
        "Total Host Persistent Memory": 1168,
        "Total Scratch Memory": 2048,
        "Peak of the builder, CPU": 4 << 20,
        "Peak of the builder, GPU": 6 << 20,
    }
    assert found.seconds == {"Formats and tactics selection": 1.25, "Engine generation": 2.5}
    assert [(one.kind, one.nodes, one.types) for one in found.layers] == [
        ("Reformat", [], "Float -> Half"),
        ("CaskConvolution", ["Conv_0", "Relu_1"], "Half -> Half"),
        ("Myelin", ["LayerNormalization_2", "Add_9"], "Half -> Float"),
    ]


def test_warnings_that_matter_come_first_and_say_what_helps() -> None:
    found = plain()
    assert {one.cause for one in found.warnings} == {"layernorm-fp16", "int64"}
    (twice,) = [one for one in found.warnings if one.count == 2]
    assert twice.cause == "layernorm-fp16"
    assert "the pass 'ln'" in twice.meaning
    assert len(found.errors) == 1


def test_the_other_order_of_python_s_logger_and_lines_of_nothing() -> None:
    lines = ["junk", "[11/23/2026-07:26:07] [TRT] [V] Parsing node: a [Add]", "", "[11/23/2026-07:26:07] [TRT] [W] odd"]
    assert list(records(lines)) == [("V", "Parsing node: a [Add]\n"), ("W", "odd")]
    assert plain([]) == Analysis()
    assert plain(["no log at all"]) == Analysis()


def test_it_reads_well() -> None:
    stream = io.StringIO()
    build_log.render(plain(), Console(file=stream, width=200))
    text = stream.getvalue()
    for fact in (
        "3 ONNX nodes parsed: 1 Conv, 1 Relu, 1 LayerNormalization",
        "2 fusions",
        "ConvReluFusion (before vertical fusions), for example Conv_0 with Relu_1",
        "0.0100 ms  Conv_0 + Relu_1: CaskConvolution sm80_h, best of 3",
        "1 reformats",
        "3 layers in the engine, 2 of several ONNX nodes",
        "a decomposed layernorm runs in FP16",
        "error: Error[2]",
    ):
        assert fact in text


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("name", ["subblock_legacy_op12", "mobilenet_v2_legacy_op12_keep_bn"])
def test_a_real_log_of_rtx(name: str, tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    model = onnx.load(MODELS / f"{name}.onnx")
    engine = TensorRTRTX(options=BuildOptions(), log=str(log)).build(Model(model))
    with log.open(encoding="utf-8") as file:
        found = analyse(file)
    assert sum(found.nodes.values()) == len(model.graph.node)
    assert [(one.name, tuple(one.nodes)) for one in found.layers] == [(one.name, one.nodes) for one in engine.layers]
    assert found.stages[0][1] > 0
    assert "Engine generation" in found.seconds
    assert found.memory["Total Weights Memory"] > 0
    assert found.choices
    assert found.errors == []


UNNAMED = Path(__file__).with_name("unnamed_8_6.log").read_text(encoding="utf-8").splitlines()


def test_layers_and_regions_that_are_named_after_no_onnx_node() -> None:
    found = analyse(UNNAMED)
    (choice,) = found.choices
    assert (choice.layer, choice.tried, choice.tactic, choice.milliseconds) == ("/conv/Conv", 1, "sm80_a", 0.0345)
    assert [(layer.kind, layer.nodes) for layer in found.layers] == [
        ("Reformat", []),
        ("CaskConvolution", ["/conv/Conv"]),
        ("Myelin", ["/Reshape", "/Add"]),
        ("Reformat", []),
    ]
    assert [layer.types for layer in found.layers] == ["Float -> Half", "Half -> Half", "Half -> Half", "Half -> Float"]


def test_warnings_are_one_line_for_each_cause() -> None:
    int64 = "onnx2trt_utils.cpp:374: Your ONNX model has been generated with INT64 weights, while TensorRT does not"
    found = condensed(
        [
            int64,
            "onnx2trt_utils.cpp:400: One or more weights outside the range of INT32 was clamped",
            "Detected layernorm nodes in FP16: a, b",
            "Detected layernorm nodes in FP16: b,\n c",
            "Running layernorm after self-attention in FP16 may cause overflow.",
            "something new " * 40,
        ]
    )
    assert found[:2] == (
        "INT64 weights were cast to INT32",
        "a decomposed layernorm runs in FP16 and may overflow; the pass 'ln' fuses it (3 nodes)",
    )
    assert len(found) == 3
    assert len(found[2]) < 210
