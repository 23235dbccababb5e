"""How many sites each pass finds in real exporters' graphs, and that each of them is right."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

import onnx_rewrite as rw
from onnx_rewrite.verify import loads_everywhere

MODELS = Path(__file__).parents[1] / "models"

LAYER_NORMS = {
    "subblock_legacy_op12": 1,
    "hybrid_legacy_op12_keep_bn": 3,
    "swin_legacy_op12": 11,
    "swin_legacy_op13": 11,
    "bert_legacy_op11": 5,
    "bert_legacy_op12": 5,
    "bert_legacy_op12_dynamic": 5,
    "deit_legacy_op12_unfused": 5,
    "vit_legacy_op13_math_attention": 5,
    "gpt2_legacy_op12": 5,
    "convnext_legacy_op12": 7,
}
BATCH_NORMS = {
    "batchnorms_legacy_op9_keep_bn": 8,
    "batchnorms_legacy_op12_keep_bn": 8,
    "batchnorms_legacy_op17_keep_bn": 8,
    "batchnorms_dynamo_op18_no_optimize": 8,
    "batchnorms_legacy_op12": 2,
    "mobilenet_v2_legacy_op10_keep_bn": 52,
    "mobilenet_v2_legacy_op12_keep_bn": 52,
    "mobilenet_v2_legacy_op12_keep_bn_dynamic": 52,
    "mobilenet_v2_legacy_op13_no_fold": 52,
    "hybrid_legacy_op12_keep_bn": 2,
    "hybrid_legacy_op17_keep_bn": 2,
    "hybrid_dynamo_op18_no_optimize": 2,
    "deformconv_legacy_op12_custom": 3,
    "deformconv_legacy_op12_custom_keep_bn": 4,
    "deformconv_dynamo_op19": 3,
    "deformconv_dynamo_op22": 3,
}
CLIPS = {
    "minmax_legacy_op10": 4,
    "minmax_legacy_op12": 4,
    "minmax_legacy_op17": 4,
    "hybrid_legacy_op12_keep_bn": 2,
    "hybrid_legacy_op17_keep_bn": 2,
    "hybrid_dynamo_op18_no_optimize": 2,
}
ATTENTIONS = {
    **dict.fromkeys(("hybrid_legacy_op12_keep_bn", "hybrid_legacy_op17_keep_bn", "hybrid_dynamo_op18_no_optimize"), 1),
    **dict.fromkeys(("danet_legacy_op13_dynamic", "nonlocal_legacy_op13_dynamic", "psa_legacy_op13_dynamic"), 1),
    "einsum_legacy_op17_dynamic": 1,
    **dict.fromkeys(("bert_legacy_op11", "bert_legacy_op12", "bert_legacy_op12_dynamic", "bert_legacy_op17"), 2),
    **dict.fromkeys(("bert_legacy_op17_sdpa", "bert_dynamo_op18", "bert_dynamo_op18_sdpa"), 2),
    **dict.fromkeys(("deit_legacy_op12_unfused", "deit_legacy_op17_dynamic", "deit_dynamo_op18"), 2),
    **dict.fromkeys(("gpt2_legacy_op12", "gpt2_legacy_op17_sdpa", "gpt2_dynamo_op18_sdpa"), 2),
    **dict.fromkeys(("t5_legacy_op12", "t5_dynamo_op18_sdpa", "vit_legacy_op13_math_attention"), 2),
    **dict.fromkeys(("vit_legacy_op17", "vit_dynamo_op18"), 2),
    **dict.fromkeys(("swin_legacy_op12", "swin_legacy_op13", "swin_legacy_op17", "swin_dynamo_op18"), 4),
}
EXPECTED = {"ln": LAYER_NORMS, "bn": BATCH_NORMS, "clip": CLIPS, "mhsa": ATTENTIONS}
EXPORTED = sorted(path.stem for path in (MODELS / "exported").glob("*.onnx"))


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node if node.op_type != "Constant"]


@pytest.mark.parametrize("name", EXPORTED)
def test_sites_of_exported_models(name: str, tmp_path: Path) -> None:
    """Each pass by itself: the right number of sites, each verified; the output is valid, runs, and is settled."""
    for one, expected in EXPECTED.items():
        result = rw.rewrite(MODELS / "exported" / f"{name}.onnx", one)
        (report,) = result.report.passes
        assert report.applied == expected.get(name, 0), one
        assert report.rolled_back == 0, one
        assert all(s.verification.verdict == "equivalent" for s in report.sites if s.status == "applied"), one
        if not report.applied:
            assert not result.changed
            continue
        assert result.report.verification.verdict == "equivalent"
        written = result.save(tmp_path / f"{one}.onnx")
        proto = onnx.load(written)
        if "deformconv" not in name:  # custom nodes, or one that old onnxruntimes have no kernel for
            onnx.checker.check_model(proto, full_check=True)
            assert loads_everywhere(written) is None
        again = rw.rewrite(written, one, verify="off")
        assert again.report.applied == 0
        assert again.save(tmp_path / "again.onnx").read_bytes() == written.read_bytes()


def test_no_min_or_max_is_left() -> None:
    for name in ("minmax_legacy_op10", "minmax_legacy_op12", "minmax_legacy_op17"):
        result = rw.rewrite(MODELS / "exported" / f"{name}.onnx", "clip", verify="local")
        found = operators(result.to_proto())
        assert found.count("Clip") == 2
        assert not {"Min", "Max"} & set(found)


def test_clips_that_stand_alone_are_left() -> None:
    path = MODELS / "exported" / "mobilenet_v2_legacy_op12_keep_bn.onnx"
    assert operators(rw.rewrite(path, "clip", verify="off").to_proto()).count("Clip") == 35


def test_raising_swin_adds_no_node_but_constants() -> None:
    path = MODELS / "exported" / "swin_legacy_op12.onnx"
    before = operators(onnx.load(path))
    result = rw.rewrite(path, "ln", verify="local")
    after = operators(result.to_proto())
    assert result.report.output.opset[""] == 17
    assert all(after.count(op) <= before.count(op) for op in set(after) - {"LayerNormalization"})
    assert after.count("LayerNormalization") == 11
    assert len(after) == len(before) - 11 * 8


INDEX = json.loads((MODELS / "handmade" / "index.json").read_text())
QUESTIONS = [
    pytest.param(name, one, *entry["sites"][one], id=f"{name}-{one}")
    for name, entry in INDEX.items()
    for one in ("ln", "bn", "clip", "mhsa")
    if one in entry.get("sites", {})
]


@pytest.mark.parametrize(("name", "one", "least", "most"), QUESTIONS)
def test_sites_of_handmade_models(name: str, one: str, least: int, most: int) -> None:
    result = rw.rewrite(MODELS / "handmade" / f"{name}.onnx", one)
    (report,) = result.report.passes
    assert least <= report.applied <= most
    assert report.rolled_back == 0
    assert all(s.verification.verdict == "equivalent" for s in report.sites if s.status == "applied")
    assert result.report.verification.verdict == "equivalent"
    onnx.checker.check_model(result.to_proto(), full_check=True)
