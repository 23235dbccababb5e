"""What flowed into a site when the original ran on the user's own inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from onnx_rewrite.verify.bindings import fed_inputs
from onnx_rewrite.verify.dtypes import Array, numpy_dtype
from onnx_rewrite.verify.feeds import Feed

LABEL = "captured from input"


class Captured:
    """Values of the original model by name, one mapping for each of the user's feeds.

    Args:
        values: What is known; names of values that were not captured are absent.
    """

    def __init__(self, values: Sequence[Mapping[str, Array]]) -> None:
        self._values = values

    def feeds(self, model: onnx.ModelProto) -> list[Feed]:
        """The feeds of a cut-out model whose inputs say in their doc strings what they are called in the original.

        A feed is left out where a value was not captured, or has another dtype or rank than the cut-out declares.
        """
        found: list[Feed] = []
        wanted = fed_inputs(model)
        sources = {info.name: info.doc_string for info in model.graph.input}
        for number, values in enumerate(self._values):
            given = {v.name: values[sources[v.name]] for v in wanted if sources[v.name] in values}
            fits = len(given) == len(wanted) and all(
                given[v.name].dtype == numpy_dtype(v.elem_type)
                and (v.dims is None or len(v.dims) == given[v.name].ndim)
                for v in wanted
            )
            if fits and wanted:
                found.append(Feed(given, f"{LABEL} {number}"))
        return found
