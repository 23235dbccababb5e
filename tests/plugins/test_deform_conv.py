"""The meaning of DeformConv2d against onnxruntime's DeformConv, and its forms."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnx_rewrite as rw
from onnx_rewrite.rewriter.standing_in import resolved
from onnx_rewrite.verify import LocalJudge
from onnx_rewrite.verify.reference import Reference
from onnx_rewrite.verify.session import Session

from .drawn import Drawn

CONFIGURATIONS = 320
OPSETS = (11, 12, 13, 15, 16, 18, 19, 20, 22)
OURS = ("DeformConv2d", "onnx_rewrite")


def has_kernel() -> bool:
    """Whether this onnxruntime runs DeformConv itself: 1.23 does not."""
    model = Drawn(0).model()
    return resolved(model) is model


@pytest.mark.parametrize("part", range(4))
def test_the_meaning_is_that_of_onnxruntime_by_the_judge(part: int) -> None:
    """Configurations of all kinds: groups, offset groups, uneven strides, pads and dilations, mask and bias or not."""
    judge = LocalJudge(feeds=2)
    for seed in range(part, CONFIGURATIONS, 4):
        drawn = Drawn(seed)
        after = drawn.model(OPSETS[seed % len(OPSETS)], *OURS)
        verdict = judge(drawn.model(), after)
        assert verdict.verdict == "equivalent", (drawn.label, verdict)


@pytest.mark.parametrize("seed", range(6))
def test_the_meaning_is_right_for_every_kind_of_numbers(seed: int) -> None:
    """NaN, infinities and denormals among them."""
    drawn = Drawn(1000 + seed)
    verdict = LocalJudge()(drawn.model(), drawn.model(16, *OURS))
    assert verdict.verdict == "equivalent", (drawn.label, verdict)
    assert verdict.feeds >= 12


def test_the_float64_kernel_is_onnxruntimes() -> None:
    if not has_kernel():
        pytest.skip("this onnxruntime has no DeformConv")
    for seed in range(40):
        drawn = Drawn(seed)
        model, feed = drawn.model(dtype=onnx.TensorProto.DOUBLE), drawn.feed(3.0)
        (found,) = Session(model)({name: value.astype(np.float64) for name, value in feed.items()})
        (expected,) = Reference(model)(feed)
        assert np.abs(found - expected).max(initial=0.0) <= 1e-12 * np.abs(expected).max(initial=1.0), drawn.label


@pytest.mark.parametrize("wrong", [{"strides": 1}, {"pads": 1}, {"dilations": 1}, {"offset_group": 1}])
def test_the_judge_tells_a_wrong_parameter(wrong: dict[str, int]) -> None:
    """The test can fail: height and width exchanged, or channels moved by another group's offsets."""
    (name,) = wrong
    for seed in range(200):
        drawn = Drawn(seed)
        value = drawn.attributes[name]
        height, width = drawn.shapes["offset"][2:]
        if name == "offset_group":
            if value == 1 or drawn.shapes["offset"][1] % (2 * value):
                continue
        elif value == value[::-1] or height < 2 or width < 2 or min(drawn.shapes["x"][2:]) < 4:
            continue
        before = drawn.model()
        if name == "offset_group":
            # The offsets of the groups in the opposite order.
            after = drawn.model(19, *OURS)
            flip = onnx.helper.make_node("Gather", ["offset", "flipped"], ["other"], axis=1)
            count = drawn.shapes["offset"][1]
            order = np.roll(np.arange(count), count // value)
            after.graph.initializer.append(onnx.numpy_helper.from_array(order, "flipped"))
            after.graph.node[0].input[2] = "other"
            after.graph.node.insert(0, flip)
        else:
            drawn.attributes[name] = value[::-1]
            after = drawn.model(19, *OURS)
        assert LocalJudge(feeds=2)(before, after).verdict == "different", drawn.label
        return
    pytest.fail("no configuration shows it")


@pytest.mark.parametrize("sampling", ["grid", "gather"])
@pytest.mark.parametrize("free", [False, True], ids=["known sizes", "free sizes"])
def test_decompositions_are_equivalent(sampling: str, free: bool) -> None:
    for seed in range(2000, 2006):
        drawn = Drawn(seed)
        model = drawn.model(free=free)
        spec = f"deform-conv:form=decomposition:sampling={sampling}"
        # Where DeformConv itself cannot be run, its stand-in is more exact than it, and more than GridSample.
        verify = "local" if sampling == "gather" or has_kernel() else "off"
        result = rw.rewrite(model, spec, verify=verify, feeds_per_site=None if seed == 2000 else 2)
        (site,) = result.sites
        assert site.status == "applied", (drawn.label, site.reason)
        if verify == "local" and not free:  # free sizes that do not go together are passed over
            assert site.verification.verdict == "equivalent", (drawn.label, site.verification)
        feed = drawn.feed()
        (before,), (after,) = Session(model)(feed), Session(result.to_proto())(feed)
        assert np.abs(before - after).max() <= 2e-5 * np.abs(before).max(), drawn.label


@pytest.mark.parametrize("dtype", [onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16])
@pytest.mark.parametrize("sampling", ["auto", "grid", "gather"])
def test_other_types(dtype: int, sampling: str) -> None:
    for seed in (3, 7):
        # onnxruntime samples doubles since opset 20.
        model = Drawn(seed).model(22 if sampling == "grid" else 19, dtype=dtype)
        result = rw.rewrite(model, f"deform-conv:form=decomposition:sampling={sampling}")
        (site,) = result.sites
        assert (site.status, site.verification.verdict) == ("applied", "equivalent"), (site.reason, site.verification)
        onnx.checker.check_model(result.to_proto(), full_check=True)


def test_an_empty_batch() -> None:
    drawn = Drawn(5)
    model = drawn.model(free=True)
    feed = {k: v[:0] if k in ("x", "offset", "mask") else v for k, v in drawn.feed().items()}
    # The function multiplies matrices, which onnxruntime 1.23 does not broadcast to an empty batch.
    for form in ("decomposition:sampling=grid", "decomposition:sampling=gather", *(["plugin"] * has_kernel())):
        made = rw.rewrite(model, f"deform-conv:form={form}", verify="off").to_proto()
        (found,) = Session(made)(feed)
        assert found.shape[0] == 0, form


def test_the_function_runs_in_onnxruntime_as_it_is() -> None:
    """All inputs are there, whatever was absent, and attributes are references: one function serves all nodes."""
    import onnxruntime

    for seed, opset in ((1, 16), (2, 17), (4, 20)):
        drawn = Drawn(seed)
        drawn.shapes.pop("mask", None)
        drawn.shapes.pop("bias", None)
        source = drawn.model(opset, *OURS)
        result = rw.rewrite(source, "deform-conv:form=plugin", target="tensorrt-10")
        made = result.to_proto()
        (node,) = (n for n in made.graph.node if n.op_type == "DeformConv2d")
        assert len(node.input) == 5
        assert all(node.input)
        onnx.checker.check_model(made, full_check=True)
        session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
        feed = drawn.feed()
        (found,) = session.run(None, feed)
        (expected,) = Reference(source)(feed)
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
