"""The pass: what is recognised, what each target gets, what is refused and why."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnx_rewrite as rw
from onnx_rewrite.verify.session import Session

from .building import attributes, fires, is_left, node, ops, told

MODELS = Path(__file__).parents[1] / "models"
SHARED = [
    "deformconv_legacy_op12_custom",
    "deformconv_legacy_op12_custom_keep_bn",
    "deformconv_dynamo_op19",
    "deformconv_dynamo_op22",
]
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("auto", {}),
    ("auto", {"opset": "keep"}),
    ("auto", {"target": "tensorrt-8.6"}),
    ("auto:sampling=grid", {"target": "tensorrt-10"}),
    ("auto", {"target": "tensorrt-rtx"}),
    ("plugin", {"target": "tensorrt-8.6"}),
    ("plugin", {"target": "tensorrt-10"}),
    ("builtin", {"target": "tensorrt-8.6"}),
]


def names(model: onnx.ModelProto) -> set[tuple[str, str]]:
    return {(n.domain, n.op_type) for n in model.graph.node}


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize(
    ("form", "options"), FORMS, ids=lambda v: "-".join(map(str, v.values())) if isinstance(v, dict) else v
)
def test_the_shared_models_in_every_form(name: str, form: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Every site is verified, so is the whole, bn folds behind it, and a second run changes nothing."""
    path = MODELS / "exported" / f"{name}.onnx"
    result = rw.rewrite(path, f"deform-conv:form={form},bn", feeds_per_site=2, **options)
    deform, bn = result.report.passes
    target = options.get("target", "onnx")
    standard = form == "auto" and target in ("onnx", "onnxruntime") and ("dynamo" in name or "opset" not in options)
    assert deform.applied == (0 if standard and "dynamo" in name else 3), told(result)
    assert bn.applied == (4 if "keep_bn" in name else 3), told(result)
    assert all(s.verification.verdict == "equivalent" for s in result.sites), told(result)
    assert all(s.note for s in deform.sites)
    assert result.report.verification.verdict == "equivalent"
    made = result.to_proto()
    found = {n for n in names(made) if "eform" in n[1]}
    if form == "plugin":
        assert found == {("onnx_rewrite", "DeformConv2d")}
        assert [f.name for f in made.functions] == ([] if target == "tensorrt-8.6" else ["DeformConv2d"])
    elif form == "builtin":
        assert found == {("", "ModulatedDeformConv2d")}
    else:
        assert found == ({("", "DeformConv")} if standard else set())
    if options.get("opset") == "keep":
        assert result.report.output.opset[""] == result.report.model.opset[""]
    written = result.save(tmp_path / "out.onnx")
    assert rw.check(path, written).verdict == "equivalent"
    again = rw.rewrite(written, f"deform-conv:form={form},bn", verify="off", **options)
    assert not again.changed, told(again)
    assert again.save(tmp_path / "again.onnx").read_bytes() == written.read_bytes()


@pytest.mark.parametrize("passes", ["bn,deform-conv:form=plugin", "bn,deform-conv", "bn"])
def test_bn_folds_into_what_an_exporter_wrote(passes: str) -> None:
    path = MODELS / "exported" / "deformconv_legacy_op12_custom_keep_bn.onnx"
    result = rw.rewrite(path, passes, feeds_per_site=4)
    assert result.report.passes[0].applied == 4
    assert "BatchNormalization" not in ops(result.to_proto())


# -- exporters' nodes


def exported(
    op_type: str,
    domain: str,
    order: str,
    params: dict[str, Any],
    *,
    constants: dict[str, Any] | None = None,
    opset: int = 16,
    pads: tuple[int, int] = (1, 1),
    strides: tuple[int, int] = (1, 1),
) -> onnx.ModelProto:
    """One node of an exporter with inputs by the roles in `order`; constants are further inputs."""
    height, width = ((n + 2 * p - 3) // s + 1 for n, p, s in zip((6, 7), pads, strides, strict=True))
    shapes = {
        "x": [1, 4, 6, 7],
        "weight": [4, 4, 3, 3],
        "offset": [1, 18, height, width],
        "mask": [1, 9, height, width],
        "bias": [4],
    }
    roles = order.split()
    rng = np.random.default_rng(4)
    graph = helper.make_graph(
        [helper.make_node(op_type, [*roles, *(constants or {})], ["y"], name="conv", domain=domain, **params)],
        "g",
        [helper.make_tensor_value_info(r, 1, shapes[r]) for r in roles if r in ("x", "offset", "mask")],
        [helper.make_tensor_value_info("y", 1, [1, 4, height, width])],
        [numpy_helper.from_array(rng.standard_normal(shapes[r]).astype(np.float32), r)
         for r in roles if r in ("weight", "bias")]
        + [numpy_helper.from_array(np.asarray(v, np.int64), k) for k, v in (constants or {}).items()],
    )  # fmt: skip
    imports = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


LISTS = {"stride": [2, 1], "padding": [1, 2], "dilation": [1, 1], "groups": 1, "deform_groups": 1}


@pytest.mark.parametrize("domain", ["mmcv", "mmdeploy"])
@pytest.mark.parametrize(
    ("op_type", "order"),
    [
        ("MMCVModulatedDeformConv2d", "x offset mask weight bias"),
        ("MMCVModulatedDeformConv2d", "x offset mask weight"),
        ("MMCVDeformConv2d", "x offset weight"),
    ],
)
def test_mmcv_and_mmdeploy(op_type: str, order: str, domain: str) -> None:
    """Height before width; the meaning is that of the same DeformConv."""
    more = {"bias": 0, "im2col_step": 32} if op_type == "MMCVDeformConv2d" else {}
    model = exported(op_type, domain, order, {**LISTS, **more}, strides=(2, 1), pads=(1, 2))
    made = fires(model, "deform-conv")
    conv = node(made, "DeformConv")
    given = attributes(conv)
    assert (given["strides"], given["pads"]) == ([2, 1], [1, 2, 1, 2])
    assert [n for n in conv.input if n] == [r for r in ("x", "weight", "offset", "bias", "mask") if r in order.split()]


def test_a_node_of_input_and_offset_alone_is_refused_with_the_reason() -> None:
    """What a widely copied example writes: the weights are lost."""
    model = exported("deform_conv2d", "custom", "x offset", {})
    is_left(
        model,
        "deform-conv",
        "custom::deform_conv2d has 2 inputs, and a node that can be read has at least 3: x, weight, offset",
    )
    found = rw.explain(model, "deform-conv")
    assert any("has 2 inputs" in miss.reason for miss in found.near)


@pytest.mark.parametrize("mask", [1, 0])
def test_torchvisions_operator_let_through_by_the_exporter(mask: int) -> None:
    """Numbers are constant inputs, one each; the mask is there and counts for nothing where its switch is off."""
    constants = {"sh": 2, "sw": 1, "ph": 1, "pw": 2, "dh": 1, "dw": 1, "groups": 1, "moved": 1, "use": mask}
    model = exported(
        "deform_conv2d",
        "torchvision",
        "x weight offset mask bias",
        {},
        constants=constants,
        strides=(2, 1),
        pads=(1, 2),
    )
    conv = node(fires(model, "deform-conv"), "DeformConv")
    given = attributes(conv)
    assert (given["strides"], given["pads"], given["group"]) == ([2, 1], [1, 2, 1, 2], 1)
    assert list(conv.input) == ["x", "weight", "offset", "bias", *(["mask"] if mask else [])]


def test_a_mask_that_is_switched_off_is_none() -> None:
    params = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, "deform_groups": 1, "use_mask": 0}
    made = fires(exported("deform_conv2d", "custom", "x weight offset bias mask", params), "deform-conv")
    assert len(node(made, "DeformConv").input) == 4


ADAPTER = {
    "op": "onnx_rewrite::DeformConv2d",
    "domain": "shop",
    "op_type": "dcn",
    "inputs": ["offset", "x", "weight", "strides", "pads"],
    "attributes": {"dilations": ["dh", "dw"]},
}


def shop() -> onnx.ModelProto:
    constants = {"s": [2, 1], "p": [1, 1]}
    return exported("dcn", "shop", "offset x weight", {"dh": 1, "dw": 1}, constants=constants, strides=(2, 1))


def test_users_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of one's own: an order of inputs, constants among them, attributes that are parts of one."""
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"adapters": [ADAPTER]}))
    model = shop()
    is_left(model, "deform-conv")
    made = fires(model, "deform-conv", adapters=file)
    assert attributes(node(made, "DeformConv"))["strides"] == [2, 1]
    assert rw.check(model, made, adapters=[file]).verdict == "equivalent"
    assert rw.explain(model, "deform-conv", adapters=file).found
    assert not rw.explain(model, "deform-conv").found
    monkeypatch.setenv("ONNX_REWRITE_ADAPTERS", str(file))
    fires(model, "deform-conv")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TOML needs Python 3.11")
def test_adapters_as_toml(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        '[[adapters]]\nop = "onnx_rewrite::DeformConv2d"\ndomain = "shop"\nop_type = "dcn"\n'
        'inputs = ["offset", "x", "weight", "strides", "pads"]\nattributes = {dilations = ["dh", "dw"]}\n'
    )
    fires(shop(), "deform-conv", adapters=file)


def test_a_constant_that_is_computed_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"adapters": [ADAPTER]}))
    model = shop()
    model.graph.input.append(helper.make_tensor_value_info("s", onnx.TensorProto.INT64, [2]))
    is_left(model, "deform-conv", "strides of shop::dcn is computed when the model runs", adapters=file)


# -- forms


def test_the_built_in_plugin_gets_width_first_zeros_and_ones() -> None:
    """Index 0 is the width; an absent bias is zeros, an absent mask ones."""
    model = exported("MMCVDeformConv2d", "mmcv", "x offset weight", LISTS, strides=(2, 1), pads=(1, 2))
    result = rw.rewrite(model, "deform-conv:form=builtin", target="tensorrt-8.6")
    assert result.sites[0].verification.verdict == result.report.verification.verdict == "equivalent"
    made = result.to_proto()
    conv = node(made, "ModulatedDeformConv2d")
    given = attributes(conv)
    assert (given["stride"], given["padding"], given["dilation"]) == ([1, 2], [2, 1], [1, 1])
    assert (given["group"], given["deformable_group"]) == (1, 1)
    assert (given["plugin_version"], given["plugin_namespace"]) == (b"1", b"")
    assert list(conv.input)[:2] == ["x", "offset"]
    assert conv.input[3] == "weight"
    (bias,) = (numpy_helper.to_array(t) for t in made.graph.initializer if t.name == conv.input[4])
    assert not bias.any()
    assert bias.shape == (4,)
    fill = node(made, "ConstantOfShape")
    assert fill.output[0] == conv.input[2]
    assert numpy_helper.to_array(fill.attribute[0].t) == 1


def test_what_the_built_in_plugin_cannot_do_is_refused() -> None:
    uneven = exported("DeformConv", "", "x weight offset bias", {"pads": [1, 1, 0, 1]}, opset=19, pads=(1, 1))
    uneven.graph.input[1].type.tensor_type.shape.dim[2].dim_value = 5
    uneven.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 5
    is_left(uneven, "deform-conv:form=builtin", "pads the same on both sides", target="tensorrt-8.6")
    model = exported("DeformConv", "", "x weight offset bias mask", {"pads": [1, 1, 1, 1]}, opset=19)
    is_left(model, "deform-conv:form=builtin", "a plugin of TensorRT, and the target is onnx")
    is_left(model, "deform-conv:form=builtin", "a plugin of TensorRT", target="tensorrt-rtx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    is_left(model, "deform-conv:form=builtin", "in fp32 only", target="tensorrt-8.6")
    assert rw.rewrite(model, "deform-conv:form=builtin", target="tensorrt-10").report.applied == 1
    is_left(model, "deform-conv:form=standard", "has no DeformConv", target="tensorrt-8.6")


def test_shapes_that_do_not_go_together_are_refused() -> None:
    model = exported("DeformConv", "", "x weight offset", {"pads": [2, 1, 1, 1]}, opset=19)
    is_left(model, "deform-conv:form=decomposition", "offsets for 6 positions along axis 2, and the kernel has 7")
    model = exported("DeformConv", "", "x weight offset", {"pads": [1, 1, 1, 1], "offset_group": 2}, opset=19)
    is_left(model, "deform-conv:form=decomposition", "offset 'offset' has 18 channels, not 2 times 18")


def test_a_decomposition_for_tensorrt_8_6_has_no_mode_of_opset_20() -> None:
    model = exported("DeformConv", "", "x weight offset", {"pads": [1, 1, 1, 1]}, opset=20)
    assert "GridSample" in ops(fires(model, "deform-conv:sampling=grid", target="tensorrt-rtx"))
    is_left(model, "deform-conv:sampling=grid", "sampling=gather does without", target="tensorrt-8.6")


def test_the_opset_is_raised_as_far_as_is_allowed() -> None:
    params = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, "deform_groups": 1}
    model = exported("deform_conv2d", "custom", "x weight offset bias", params, opset=13)
    for opset, expected in ((None, "DeformConv"), (18, "GridSample"), (15, "Gather"), ("keep", "Gather")):
        made = fires(model, "deform-conv", opset=opset)
        assert expected in ops(made)
        assert made.opset_import[0].version == {"DeformConv": 19, "GridSample": 16, "Gather": 13}[expected]


def test_a_model_that_cannot_be_raised_gets_what_it_can_have() -> None:
    """A training BatchNormalization stands in the way of opset 19: the decomposition of its own opset is taken."""
    params = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, "deform_groups": 1}
    model = exported("deform_conv2d", "custom", "x weight offset bias", params, opset=12)
    scale = [f"s{i}" for i in range(4)]
    model.graph.initializer.extend(numpy_helper.from_array(np.ones(4, np.float32), n) for n in scale)
    bn = helper.make_node("BatchNormalization", ["x", *scale], ["z", "m", "v", "sm", "sv"], name="training")
    model.graph.node.append(bn)
    model.graph.output.append(helper.make_tensor_value_info("z", 1, [1, 4, 6, 7]))
    model.graph.output.append(helper.make_tensor_value_info("m", 1, [4]))
    result = rw.rewrite(model, "deform-conv", verify="local")
    assert result.report.applied == 1, told(result)
    assert result.report.output.opset[""] == 12


@pytest.mark.parametrize("form", ["auto", "plugin"])
def test_in_the_body_of_an_if_and_in_a_function(form: str) -> None:
    params = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, "deform_groups": 1}
    model = exported("deform_conv2d", "custom", "x weight offset bias", params)
    conv = model.graph.node.pop()
    body = helper.make_graph([conv], "then", [], [model.graph.output[0]])
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["e"])], "else", [], [helper.make_tensor_value_info("e", 1, [1, 4, 6, 7])]
    )
    model.graph.node.append(helper.make_node("If", ["c"], ["y"], name="if", then_branch=body, else_branch=other))
    model.graph.input.append(helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, []))
    result = rw.rewrite(model, f"deform-conv:form={form}")
    assert result.report.applied == 1, told(result)
    assert result.report.verification.verdict == "equivalent"
    feed = {n: np.random.default_rng(0).standard_normal(s).astype(np.float32)
            for n, s in (("x", (1, 4, 6, 7)), ("offset", (1, 18, 6, 7)))}  # fmt: skip
    for way in (True, False):
        given = {**feed, "c": np.array(way)}
        (before,), (after,) = Session(model)(given), Session(result.to_proto())(given)
        assert np.abs(before - after).max() < 1e-4


def test_the_command_says_what_it_did_and_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from onnx_rewrite.cli import main

    path = MODELS / "exported" / "deformconv_legacy_op12_custom.onnx"
    command = [str(path), "--passes", "deform-conv", "--target", "tensorrt-8.6", "-o", str(tmp_path / "o.onnx")]
    assert main([*command, "--feeds", "3"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "custom::deform_conv2d in standard operators, read by Gather" in said
    lost = tmp_path / "lost.onnx"
    onnx.save(exported("deform_conv2d", "custom", "x offset", {}), lost)
    assert main([str(lost), "--passes", "deform-conv", "--dry-run"]) == 0
    assert "has 2 inputs, and a node that can be read has at least 3" in " ".join(capsys.readouterr().out.split())
