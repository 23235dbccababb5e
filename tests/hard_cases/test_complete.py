"""No hard case is forgotten: each has a test of its own, and each test is collected."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

NORMALISATION = {
    "ReduceMean with keepdims=0": "test_reduce_mean_with_keepdims_0",
    "rank 1 takes the quotient for the scale": "test_rank_1_takes_the_quotient_for_the_scale",
    "gamma broadcastable": "test_gamma_broadcastable_but_not_of_the_normalized_shape",
    "scale that enlarges the output": "test_scale_that_enlarges_the_output",
    "axes that are not the last": "test_axes_that_are_not_the_last",
    "several axes, scale of another size": "test_several_axes_with_a_scale_of_another_size",
    "Pow exponent int64 or from a Cast": "test_pow_with_an_int64_exponent_or_one_from_a_cast",
    "Mul(d, d) for Pow(d, 2)": "test_mul_of_the_difference_with_itself_for_pow",
    "axes as attribute, input, negative, positive": "test_axes_as_attribute_or_input_negative_or_positive",
    "epsilon inside, outside, shared": "test_epsilon_inside_or_outside_the_root_and_shared",
    "fp16 Pow overflow": "test_pow_overflows_in_half_precision",
}
CONV_GEMM_BN = {
    "BN with training_mode=1": "test_bn_with_training_mode_1",
    "BN of opset 6 without is_test": "test_bn_of_opset_6_trains_unless_it_is_a_test",
    "Gemm with beta before BN": "test_gemm_with_beta_that_is_not_1_before_bn",
    "initializer and graph input": "test_weight_that_is_an_initializer_and_a_graph_input",
    "ConvTranspose's layout": "test_conv_transpose_has_the_output_channels_on_axis_1",
    "Conv's output is needed": "test_output_of_conv_is_a_graph_output_or_has_two_consumers",
    "weight shared by two Convs": "test_weight_shared_by_two_convs_is_folded_for_each",
    "a fold that overflows": "test_fold_that_overflows",
    "MatMul+Add with another consumer": "test_matmul_and_add_with_another_consumer",
    "1-D MatMul": "test_matmul_of_one_dimension",
}
PAD_POOL_CLIP_SHAPES = {
    "Pad(0) into MaxPool": "test_pad_of_0_into_max_pool_on_negative_data",
    "Pad with two consumers, a value, a mode": "test_pad_with_two_consumers_a_value_or_a_mode",
    "Clip without max": "test_clip_without_max",
    "Relu then Clip in float64": "test_relu_then_clip_in_float64",
    "Min/Max with lo > hi": "test_min_and_max_with_lo_above_hi",
    "Clip bounds of rank > 0": "test_bounds_of_rank_above_0",
    "Clip in input form at opset 10": "test_clip_in_input_form_at_opset_10",
    "Reshape of Reshape with 0": "test_reshape_of_reshape_with_0_in_the_shape",
    "Slice with dynamic dims": "test_slice_with_dynamic_dims",
    "Slice with dynamic dims, the judge": "test_slice_that_forgets_a_sign_is_judged_wrong",
    "Expand with dynamic dims": "test_expand_with_dynamic_dims",
    "Concat with dynamic dims": "test_concat_with_dynamic_dims",
    "Split with dynamic dims": "test_split_with_dynamic_dims",
    "Squeeze with dynamic dims": "test_squeeze_with_dynamic_dims",
}
STRUCTURE = {
    "interior value is a graph output": "test_interior_value_that_is_a_graph_output",
    "interior value is captured": "test_interior_value_that_a_body_captures",
    "output deleted or renamed": "test_output_deleted_or_renamed",
    "Identity between input and output": "test_identity_between_an_input_and_an_output",
    "branch that returns an initializer": "test_branch_that_returns_an_initializer",
    "match that is not convex": "test_match_that_is_not_convex",
    "multi-output insertion": "test_insertion_of_several_outputs_keeps_the_order",
    "two pattern nodes, one graph node": "test_two_pattern_nodes_are_not_one_graph_node",
    "name of a new initializer is taken": "test_name_of_a_new_initializer_is_taken",
    "matching a diamond": "test_matching_a_diamond",
    "nodes without names, equal names": "test_nodes_without_names_and_with_equal_names",
    "names reused in nested scopes": "test_names_used_again_in_nested_scopes",
    "Loop with only captured inputs": "test_loop_with_only_captured_inputs",
    "subgraph initializers lifted or merged": "test_initializers_of_bodies_are_neither_lifted_nor_merged",
    "two passes that undo each other": "test_two_passes_that_undo_each_other_for_ever",
    "functions, folding inside them": "test_functions_and_folding_inside_them",
}
DATA = {
    "external data lost": "test_external_data_is_not_lost",
    "external data duplicated": "test_external_data_is_not_duplicated",
    "external data in the wrong folder": "test_external_data_is_not_saved_relative_to_the_wrong_folder",
    "more than 2 GB": "test_more_than_2_gb",
    "different constants merged": "test_different_constants_are_not_merged",
    "sparse initializers dropped": "test_sparse_initializers_are_kept",
    "a Constant with a sparse value": "test_a_sparse_constant_is_a_constant",
    "a Constant with a sparse value, in a function": "test_a_sparse_constant_of_a_function_is_dense_for_onnxruntime",
    "training_info dropped": "test_training_info_is_kept_or_the_edit_refused",
    "metadata and doc strings dropped": "test_metadata_and_doc_strings_are_kept",
    "value_info left stale": "test_value_info_is_not_left_stale",
    "empty optional inputs": "test_empty_optional_inputs",
    "zero-sized dims": "test_zero_sized_dims",
    "bf16, fp8, int4": "test_bf16_fp8_and_int4_weights_are_kept_byte_for_byte",
}
ITEMS: dict[str, dict[str, str]] = {
    "test_normalisation.py": NORMALISATION,
    "test_conv_gemm_bn.py": CONV_GEMM_BN,
    "test_pad_pool_clip_shapes.py": PAD_POOL_CLIP_SHAPES,
    "test_structure.py": STRUCTURE,
    "test_data.py": DATA,
}


def test_every_item_has_a_test_and_every_test_an_item() -> None:
    """What pytest itself collects, in a process of its own, is the list above, in its order."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n0", "-p", "no:cacheprovider", str(HERE)]
    listed = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stdout[-2000:] + listed.stderr[-2000:]
    collected: dict[str, dict[str, None]] = {}
    for line in listed.stdout.splitlines():
        path, separator, case = line.partition("::")
        if separator:
            collected.setdefault(Path(path).name, {})[case.partition("[")[0]] = None
    del collected[Path(__file__).name]
    assert {name: list(tests) for name, tests in collected.items()} == {
        name: list(items.values()) for name, items in sorted(ITEMS.items())
    }
