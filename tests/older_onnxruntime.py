"""Tests that onnxruntime 1.23, the last for Python 3.10, cannot pass, and what it lacks.

There a replacement is rolled back or "not verified", which is right, and not what these tests look for.
"""

from __future__ import annotations

import onnxruntime

SIZE_ONE = "its LayerNormalization refuses an axis of size 1"
OPSETS = "it knows no opset above 23"
KERNELS = "it lacks kernels of small or double types"

LACKS = {
    "core/rewriter/test_raising.py::test_exported_models_keep_their_results_and_their_nodes[bert_legacy_op1": KERNELS,
    "core/testing/test_comparing.py::test_what_a_normalization_of_a_normalization_loses": "it loses more digits",
    "core/testing/test_strategies.py::test_models_run": "it reads fewer IR versions",
    "core/verify/test_lying_passes.py::TestEachLie::test_with_dynamic_dimensions[mean-of-one-less]": KERNELS,
    "core/verify/test_lying_passes.py::TestEachLie::test_with_dynamic_dimensions[last-of-equal-maxima]": KERNELS,
    "passes/test_bn.py::test_opsets[26]": OPSETS,
    "passes/test_clip.py::test_opsets_write_the_form_of_their_time[26-": OPSETS,
    "passes/test_clip.py::test_integer_types_from_opset_12[1": KERNELS,
    "passes/test_ln.py::test_opsets_with_axes_as_input[2": OPSETS,
    "passes/test_ln.py::test_a_scale_that_does_not_fit_stays": SIZE_ONE,
    "passes/test_suites.py::": f"{SIZE_ONE}, and it lacks kernels of Attention",
    "plugins/test_multi_head_attention.py::test_the_function_is_the_formula_at_every_opset": KERNELS,
    "test_corpora.py::test_expected_outputs_still_come_out": SIZE_ONE,
    "test_peers_fuzz.py::test_a_broken_peer_is_found_out": SIZE_ONE,
}
"""By the beginning of a test's name."""


def lack(name: str) -> str | None:
    """What the installed onnxruntime lacks for a test; None if that is nothing."""
    if tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) >= (1, 24):
        return None
    found = next((reason for start, reason in LACKS.items() if start in name), None)
    return None if found is None else f"onnxruntime {onnxruntime.__version__}: {found}"
