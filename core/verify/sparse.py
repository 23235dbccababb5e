"""Sparse Constants in functions, which onnxruntime 1.32.0 does not survive.

Where it inlines a function it reads the sparse tensors of the body's Constants after it has freed them (valgrind shows
it on a function of one Constant and one Mul; in the main graph and in bodies of If and Loop it reads none). Most often
nothing comes of that, but one in some thousands of such models ends the process. So every session is given dense ones.
"""

from __future__ import annotations

import onnx

from onnx_rewrite.model.nodes import dense


def without_sparse_in_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which the Constants of functions are dense; the model itself if they are."""
    if not any(_is_sparse(node) for function in model.functions for node in function.node):
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for function in made.functions:
        for node in filter(_is_sparse, function.node):
            tensor = onnx.numpy_helper.from_array(dense(node.attribute[0].sparse_tensor), node.output[0])
            node.attribute[0].CopyFrom(onnx.helper.make_attribute("value", tensor))
    return made


def _is_sparse(node: onnx.NodeProto) -> bool:
    return node.op_type == "Constant" and bool(node.attribute) and node.attribute[0].name == "sparse_value"
