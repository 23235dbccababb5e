"""Every operator that changed, node by node: raised, and run before and after in onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.analysis.types import complete_types
from onnx_rewrite.opset.changes import adapter_for
from onnx_rewrite.opset.converter import convert
from onnx_rewrite.rewriter.names import Names
from onnx_rewrite.rewriter.raising import Raised, raise_opset
from onnx_rewrite.verify import LocalJudge
from onnx_rewrite.verify.session import Session, Unsupported

NEWEST = min(onnx.defs.onnx_opset_version(), 23 if ort.__version__ < "1.24" else 26)
TARGETS = [t for t in (10, 11, 12, 13, 17, 18, 20, 21, 23, 26) if t <= NEWEST]
RNG = np.random.default_rng(0)


class Const(np.ndarray[Any, np.dtype[Any]]):
    """An input that is an initializer."""


def const(value: Any, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.asarray(value, dtype).view(Const)


def f(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(dtype)


@dataclass
class Case:
    """One old node.

    Attributes:
        name: Of the test.
        opset: Its opset.
        op_type: The operator.
        inputs: Its inputs; None for an omitted one.
        attributes: Its attributes.
        outputs: How many.
        expect: Operators after raising to an opset from `expect_from` on.
        judged: Whether the judge knows the old operator.
        newest: The newest opset at which onnxruntime has the operator.
        oldest: The oldest opset at which the checker accepts it (GroupNormalization-18 was deprecated afterwards).
    """

    name: str
    opset: int
    op_type: str
    inputs: list[Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    expect: list[str] | None = None
    expect_from: int = 13
    judged: bool = True
    newest: int = NEWEST
    oldest: int = 0

    def model(self) -> onnx.ModelProto:
        graph = onnx.GraphProto(name="g")
        names: list[str] = []
        for index, value in enumerate(self.inputs):
            names.append("" if value is None else f"x{index}")
            if value is None:
                continue
            kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
            if isinstance(value, Const):
                graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), names[-1]))
            else:
                graph.input.append(onnx.helper.make_tensor_value_info(names[-1], kind, value.shape))
        outputs = [f"y{i}" for i in range(self.outputs)]
        node = onnx.helper.make_node(self.op_type, names, outputs, name="the_node", **self.attributes)
        node.doc_string = "why it is here"
        node.metadata_props.add(key="origin", value="module.3")
        graph.node.append(node)
        graph.output.extend(onnx.ValueInfoProto(name=o) for o in outputs)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", self.opset)], ir_version=7)
        # In which types the outputs are, onnxruntime knows best.
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        for info, output in zip(graph.output, session.get_outputs(), strict=True):
            kinds = {"tensor(float)": 1, "tensor(int64)": 7, "tensor(uint8)": 2, "tensor(bool)": 9}
            info.CopyFrom(onnx.helper.make_tensor_value_info(output.name, kinds[output.type], output.shape))
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", self.opset)], ir_version=7)
        return model

    def feeds(self) -> dict[str, Any]:
        return {f"x{i}": v for i, v in enumerate(self.inputs) if v is not None and not isinstance(v, Const)}


x4 = f(2, 3, 4, 5)
image = f(1, 2, 6, 8)
i64 = np.int64
REDUCTIONS = [
    f"Reduce{n}" for n in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
]
SAME = {"auto_pad": "SAME_UPPER", "strides": [2, 2]}
GROUP = "GroupNormalization"
GROUPS: dict[str, Any] = {"num_groups": 3}
BYTES = np.arange(12, dtype=np.uint8).reshape(3, 4)

CASES = [
    Case("softmax_last", 11, "Softmax", [x4], {"axis": 3}, expect=["Softmax"]),
    Case("softmax_minus_one", 11, "Softmax", [x4], {"axis": -1}, expect=["Softmax"]),
    Case("softmax_default_rank_2", 9, "Softmax", [f(3, 4)], expect=["Softmax"]),
    Case("softmax_default_rank_4", 9, "Softmax", [x4], expect=["Flatten", "Softmax", "Reshape"]),
    Case("softmax_axis_1_of_4", 11, "Softmax", [x4], {"axis": 1}, expect=["Flatten", "Softmax", "Reshape"]),
    Case("softmax_axis_0", 11, "Softmax", [f(3, 4)], {"axis": 0}, expect=["Flatten", "Softmax", "Reshape"]),
    Case("softmax_axis_minus_2", 11, "Softmax", [x4], {"axis": -2}, expect=["Flatten", "Softmax", "Reshape"]),
    Case("softmax_ones_behind", 11, "Softmax", [f(2, 7, 1, 1)], {"axis": 1}, expect=["Softmax"]),
    Case("softmax_ones_behind_default", 9, "Softmax", [f(2, 7, 1, 1)], expect=["Softmax"]),
    Case("softmax_ones_before", 11, "Softmax", [f(2, 1, 1, 7)], {"axis": 1}, expect=["Softmax"]),
    Case("log_softmax", 9, "LogSoftmax", [x4], {"axis": 2}, expect=["Flatten", "LogSoftmax", "Reshape"]),
    Case("log_softmax_last", 11, "LogSoftmax", [x4], {"axis": 3}, expect=["LogSoftmax"]),
    Case("hardmax", 9, "Hardmax", [x4], {"axis": 2}, expect=["Flatten", "Hardmax", "Reshape"]),
    Case("hardmax_ones", 9, "Hardmax", [f(1, 1, 6)], expect=["Hardmax"]),
    Case("clip_6", 6 + 1, "Clip", [x4], {"min": -0.5, "max": 0.25}),
    Case("clip_6_min", 10, "Clip", [x4], {"min": -0.5}),
    Case("clip_6_max", 10, "Clip", [x4], {"max": 0.5}),
    Case("clip_6_infinite", 10, "Clip", [x4], {"max": 0.5, "min": -np.inf}),
    Case("clip_6_none", 10, "Clip", [x4]),
    Case("pad_2", 9, "Pad", [x4], {"pads": [0, 1, 0, 2, 0, 0, 1, 1], "value": 1.5}),
    Case("pad_2_no_value", 9, "Pad", [x4], {"pads": [0, 1, 0, 2, 0, 0, 1, 1]}),
    Case("pad_2_reflect", 9, "Pad", [x4], {"pads": [0, 1, 0, 2, 0, 0, 1, 1], "mode": "reflect", "value": 2.0}),
    Case("slice_1", 9, "Slice", [x4], {"starts": [1, 0], "ends": [3, -1], "axes": [1, 3]}),
    Case("slice_1_no_axes", 9, "Slice", [x4], {"starts": [0, 1], "ends": [1, 9]}),
    Case("top_k_1", 9, "TopK", [x4], {"k": 2, "axis": 3}, outputs=2),
    Case("top_k_10", 10, "TopK", [x4, const([2], i64)], {"axis": 1}, outputs=2),
    Case("split_2", 9, "Split", [x4], {"axis": 3, "split": [2, 3]}, outputs=2),
    Case("split_2_equal", 11, "Split", [x4], {"axis": 2}, outputs=2),
    Case("split_13_equal", 13, "Split", [x4], {"axis": 1}, outputs=3),
    Case("split_13_input", 13, "Split", [x4, const([1, 2], i64)], {"axis": 1}, outputs=2),
    Case("squeeze_1", 9, "Squeeze", [f(1, 3, 1, 2)], {"axes": [0, 2]}),
    Case("squeeze_all", 11, "Squeeze", [f(1, 3, 1, 2)]),
    Case("unsqueeze_1", 9, "Unsqueeze", [x4], {"axes": [0, 3]}),
    Case("unsqueeze_11", 11, "Unsqueeze", [x4], {"axes": [-1]}),
    *[
        Case(f"{op}_{opset}", opset, op, [np.abs(x4) + 0.1], {"axes": [1, -1 if opset > 10 else 3], "keepdims": keep})
        for op in REDUCTIONS
        for opset, keep in ((9, 0), (12, 1))
    ],
    Case("reduce_all", 12, "ReduceMean", [x4]),
    Case("reduce_sum_11", 11, "ReduceSum", [x4], {"axes": [2]}),
    Case("dropout_7", 7, "Dropout", [x4], {"ratio": 0.3}),
    Case("dropout_10", 10, "Dropout", [x4], {"ratio": 0.3}),
    Case("dropout_all", 10, "Dropout", [x4], {"ratio": 1.0}),
    Case("dropout_default", 10, "Dropout", [x4]),
    Case("upsample_7_nearest", 7, "Upsample", [image], {"scales": [1.0, 1.0, 2.0, 3.0]}, expect=["Resize"]),
    Case("upsample_7_linear", 7, "Upsample", [image], {"scales": [1.0, 1.0, 2.0, 2.5], "mode": "linear"}),
    Case("upsample_9_nearest", 9, "Upsample", [image, const([1, 1, 2.5, 2])], expect=["Resize"]),
    Case("upsample_9_linear", 9, "Upsample", [image, const([1, 1, 1.7, 2])], {"mode": "linear"}),
    Case("resize_10_up", 10, "Resize", [image, const([1, 1, 2.3, 3])], expect=["Resize"]),
    Case("resize_10_down", 10, "Resize", [image, const([1, 1, 0.6, 0.45])], expect=["Resize"], judged=False),
    Case("resize_10_linear", 10, "Resize", [image, const([1, 1, 0.6, 0.45])], {"mode": "linear"}),
    Case("resize_10_linear_up", 10, "Resize", [image, const([1, 1, 1.6, 3])], {"mode": "linear"}),
    Case(
        "resize_11_tf",
        11,
        "Resize",
        [image, const([]), const([1, 1, 1.7, 0.6])],
        {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "mode": "nearest", "nearest_mode": "floor"},
        judged=False,
    ),
    Case("resize_11_linear", 11, "Resize", [image, const([]), const([1, 1, 1.7, 2])], {"mode": "linear"}),
    Case("resize_11_cubic", 11, "Resize", [image, const([]), const([1, 1, 1.7, 2])], {"mode": "cubic"}),
    Case("resize_13_sizes", 13, "Resize", [image, None, None, const([1, 2, 9, 7], i64)], {"mode": "linear"}),
    Case("resize_11_corners", 11, "Resize", [image, const([]), const([1, 1, 2, 2])],
         {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
    Case("scatter_9", 9, "Scatter", [f(3, 3), const([[1, 0, 2]], i64), f(1, 3)], expect=["ScatterElements"]),
    Case("grid_sample_16", 16, "GridSample", [image, RNG.uniform(-1.2, 1.2, (1, 3, 4, 2)).astype(np.float32)],
         {"mode": "bilinear", "align_corners": 1}, judged=False),
    Case("grid_sample_16_bicubic", 16, "GridSample", [image, RNG.uniform(-1, 1, (1, 3, 4, 2)).astype(np.float32)],
         {"mode": "bicubic", "padding_mode": "border"}, judged=False),
    Case("grid_sample_16_default", 16, "GridSample", [image, RNG.uniform(-1, 1, (1, 3, 4, 2)).astype(np.float32)]),
    Case("roi_align_10", 10, "RoiAlign", [image, const([[0, 0, 5, 4], [1, 1, 3, 3]]), const([0, 0], i64)],
         {"output_height": 2, "output_width": 3, "sampling_ratio": 2, "spatial_scale": 0.8}, newest=21),
    Case("dft_17", 17, "DFT", [f(2, 6, 5, 1)], {"axis": 2}),
    Case("dft_17_default", 17, "DFT", [f(2, 6, 5, 1)]),
    Case("dft_17_length", 17, "DFT", [f(2, 6, 5, 1), const(4, i64)], {"axis": 1, "inverse": 0}),
    Case("group_norm_18", 18, GROUP, [f(2, 6, 4), const([1, 2, 0.5]), const([0, 1, 2])], GROUPS, oldest=21),
    Case("group_norm_18_fed", 18, GROUP, [f(2, 6, 4), f(3), f(3)], GROUPS, oldest=21),
    Case("group_norm_18_instance", 18, GROUP, [f(2, 3, 4), f(3), f(3)], GROUPS, oldest=21),
    Case("batch_norm_7", 7, "BatchNormalization", [image, f(2), f(2), f(2), np.abs(f(2)) + 0.5], {"spatial": 1}),
    Case("batch_norm_9", 9, "BatchNormalization", [image, f(2), f(2), f(2), np.abs(f(2)) + 0.5], {"epsilon": 1e-3}),
    Case("average_pool_ceil", 11, "AveragePool", [image], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    Case("average_pool_7", 7, "AveragePool", [image], {"kernel_shape": [3, 3], "pads": [1] * 4}),
    Case("max_pool_8", 8, "MaxPool", [image], {"kernel_shape": [2, 2], "strides": [2, 2]}, outputs=2),
    Case("max_pool_10_ceil", 10, "MaxPool", [image], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    Case("lp_pool_11", 11, "LpPool", [image], {"kernel_shape": [2, 2], "p": 2}),
    Case("conv_transpose_same", 10, "ConvTranspose", [image, f(2, 3, 3, 3)], SAME),
    Case("conv_1", 9, "Conv", [image, f(4, 2, 3, 3)], {"pads": [1, 1, 1, 1]}),
    Case("one_hot_9", 9, "OneHot", [np.asarray([0, 2, 1], i64), const(3, i64), const([0, 1])], {"axis": -1}),
    Case("gemm_7", 7, "Gemm", [f(3, 4), f(4, 2), f(2)], {"alpha": 0.5, "beta": 2.0}),
    Case("lstm_7", 7, "LSTM", [f(5, 2, 3), f(1, 16, 3), f(1, 16, 4), f(1, 32)], {"hidden_size": 4}, outputs=3),
    Case("gru_7", 7, "GRU", [f(5, 2, 3), f(1, 12, 3), f(1, 12, 4)],
         {"hidden_size": 4, "linear_before_reset": 1}, outputs=2),
    Case("cast_6", 7, "Cast", [x4 * 10], {"to": 7}),
    Case("flatten_1", 7, "Flatten", [x4], {"axis": 2}),
    Case("arg_max_1", 9, "ArgMax", [x4], {"axis": 2, "keepdims": 0}),
    Case("pow_7", 9, "Pow", [np.abs(x4), const(2.0)]),
    Case("mod_10", 10, "Mod", [np.asarray([5, -5, 7], i64), const([3, 3, -3], i64)]),
    Case("quantize_10", 10, "QuantizeLinear", [x4, const(0.02), const(7, np.uint8)]),
    Case("dequantize_10", 10, "DequantizeLinear", [BYTES, const(0.02), const(7, np.uint8)]),
    Case("tile_6", 9, "Tile", [x4, const([1, 2, 1, 1], i64)]),
    Case("p_relu_7", 7, "PRelu", [x4, f(3, 1, 1)]),
    Case("max_8", 8, "Max", [x4, f(5)]),
    Case("where_9", 9, "Where", [const(np.arange(5) > 2, np.bool_), x4, f(5)]),
    Case("gather_1", 9, "Gather", [x4, const([2, 0], i64)], {"axis": 1}),
    Case("shape_1", 9, "Shape", [x4]),
    Case("reshape_5", 9, "Reshape", [x4, const([0, -1, 5], i64)]),
    Case("cum_sum_11", 11, "CumSum", [x4, const(1, i64)]),
    Case("depth_to_space_1", 9, "DepthToSpace", [f(1, 8, 2, 3)], {"blocksize": 2}),
    Case("lrn_1", 9, "LRN", [image], {"size": 3}),
    Case("equal_7", 7, "Equal", [np.asarray([1, 2, 3], i64), const([1, 0, 3], i64)]),
    Case("is_nan_9", 9, "IsNaN", [np.asarray([1, np.nan], np.float32)]),
]  # fmt: skip


def raised(case: Case, target: int, **options: Any) -> tuple[onnx.ModelProto, Raised, ir.Model]:
    model = ir.from_proto(case.model())
    complete_types(model)
    options.setdefault("judge", LocalJudge(feeds=4))
    result = raise_opset(model, target, names=Names(model), constants=Constants(), **options)
    return ir.to_proto(model), result, model


def run(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def has_kernels(proto: onnx.ModelProto) -> bool:
    """Whether this onnxruntime can run the operators at this opset: older ones lack some (QuantizeLinear-23)."""
    try:
        Session(proto)
    except Unsupported:
        return False
    return True


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_results_stay_the_same_at_every_newer_opset(case: Case) -> None:
    before = run(case.model(), case.feeds())
    for target in TARGETS:
        if not max(case.opset + 1, case.oldest) <= target <= case.newest:
            continue
        proto, result, _ = raised(case, target, **({} if case.judged else {"judge": None}))
        onnx.checker.check_model(proto, full_check=True)
        assert {o.domain: o.version for o in proto.opset_import} == {"": target}
        if not has_kernels(proto):
            continue
        for mine, theirs in zip(run(proto, case.feeds()), before, strict=True):
            assert mine.dtype == theirs.dtype
            assert mine.shape == theirs.shape
            # The same kernels on the same numbers; a reordered sum may differ in the last digits.
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
        if case.expect is not None and target >= case.expect_from:
            assert [n.op_type for n in proto.graph.node] == case.expect
        wanted = "equivalent" if case.judged else "not verified"
        assert not has_kernels(proto) or all(v.verdict == wanted for _, v in result.changed), result.changed
        last = proto.graph.node[-1]
        assert last.doc_string == "why it is here"
        assert ("origin", "module.3") in {(m.key, m.value) for m in last.metadata_props}


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["Softmax", "LogSoftmax", "Hardmax"]),
    st.lists(st.sampled_from([1, 1, 2, 3]), min_size=1, max_size=4),
    st.data(),
)
def test_softmax_of_any_shape_and_axis(op_type: str, shape: list[int], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    names = [f"D{i}" if data.draw(st.booleans()) else str(d) for i, d in enumerate(shape)]
    source = f"float[{','.join(names)}]"
    before = onnx.parser.parse_model(
        f'<ir_version: 7, opset_import: ["": 11]> '
        f"g ({source} x) => ({source} y) {{ y = {op_type} <axis = {axis}> (x) }}"
    )
    model = ir.from_proto(before)
    raise_opset(model, 13, judge=None, names=Names(model), constants=Constants())
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    feeds = {"x": np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)}
    np.testing.assert_allclose(run(after, feeds)[0], run(before, feeds)[0], rtol=1e-6)
    fixed = [d for d, n in zip(shape[axis:] if axis else shape, names[axis:] if axis else names, strict=True)
             if n != "1"]  # fmt: skip
    assert ("Flatten" in [n.op_type for n in after.graph.node]) == (len(fixed) > 1)


def test_most_operators_need_nothing() -> None:
    for op_type in ("Add", "Mul", "MatMul", "Conv", "Relu", "Gemm", "Min", "Max", "Sqrt", "Concat", "If", "Loop"):
        assert adapter_for(op_type, 7, NEWEST) is None


def test_no_operator_of_today_goes_through_the_version_converter() -> None:
    for op_type in {s.name for s in onnx.defs.get_all_schemas() if not s.domain}:
        for source in range(7, onnx.defs.onnx_opset_version()):
            assert adapter_for(op_type, source, source + 1) is not convert, op_type
