"""Learns shapes that inference cannot find, by running the model once or twice and looking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx
import onnx_ir as ir

from onnx_rewrite.analysis.vague import is_vague
from onnx_rewrite.model import INFERRED_KEY, LoadedModel
from onnx_rewrite.verify.feeds import Source
from onnx_rewrite.verify.regimes import INTEGERS, LOCAL, UNIT
from onnx_rewrite.verify.session import Session

# Under this many bindings a dimension that depends on a symbolic one shows that it varies.
BINDINGS = 2

# The lengths of what these give depend on numbers: those that vary with the kind of feed show that they do.
COUNTING = frozenset({"Compress", "NonMaxSuppression", "NonZero", "Unique"})
REGIMES = (UNIT, INTEGERS, LOCAL[-1])  # the last: nothing but zeros

Sizes = list[tuple[int, ...]]


class Probe:
    """Fills in, once, the shapes of the main graph's values that nobody knows.

    A dimension that is the same under every binding counts as fixed; one that follows a symbolic dimension of an
    input takes its symbol; any other that varies becomes a symbol of its own.

    Args:
        original: The model as it was read.
        model: The model that is being rewritten; values that edits left keep their names.
        feeds: The user's inputs, or None: drawn ones.
        shapes: Shapes by input name for drawn ones.
        seed: The source of randomness.
    """

    def __init__(
        self,
        original: LoadedModel,
        model: ir.Model,
        feeds: Sequence[Mapping[str, Any]] | None,
        shapes: Mapping[str, Sequence[int]] | None,
        seed: int,
    ) -> None:
        self._original = original
        self._model = model
        self._feeds = feeds
        self._shapes = shapes
        self._seed = seed

    def __call__(self) -> bool:
        """Whether anything was learned."""
        known = {name for node in self._original.proto.graph.node for name in node.output}
        vague = {
            v.name: v
            for node in self._model.graph
            for v in node.outputs
            if v.name in known and v.dtype is not None and isinstance(v.type, ir.TensorType) and is_vague(v)
        }
        if not vague:
            return False
        symbols, observed = self._observe([name for name in vague if name])
        for name, sizes in observed.items():
            _learn(vague[name], name, sizes, symbols)
        return bool(observed)

    def _observe(self, names: list[str]) -> tuple[dict[str, Sizes], dict[str, Sizes]]:
        """Under each binding that runs: the sizes of the symbolic dimensions, and the shapes of the values."""
        folder = None if self._original.base_dir is None else str(self._original.base_dir)
        symbols: dict[str, Sizes] = {}
        observed: dict[str, Sizes] = {}
        runs = 0
        try:
            session = Session(_with_shapes(self._original.proto, names), folder=folder)
        except Exception:  # a model that does not load teaches nothing; what it lacks is reported as not verified
            return symbols, observed
        for feeds in self._candidates():
            ran = False
            for feed in feeds:
                try:
                    found = session(feed)
                except Exception:  # a binding that does not fit the model
                    continue
                ran = True
                for name, shape in zip(names, found, strict=True):
                    observed.setdefault(name, []).append(tuple(int(d) for d in shape))
                for symbol, size in _bound(self._original.proto, feed).items():
                    symbols.setdefault(symbol, []).append((size,))
            runs += ran
            if runs == BINDINGS:
                break
        return symbols, observed

    def _candidates(self) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Feeds, those of one binding together."""
        if self._feeds is not None:
            yield from ([feed] for feed in self._feeds)
            return
        source = Source(self._original.proto, self._seed, self._shapes)
        if source.obstacle is None:
            regimes = REGIMES if _counts(self._original.proto) else REGIMES[:1]
            for binding in source.bindings():
                yield [source.draw(regime, binding).values for regime in regimes]


def _counts(proto: onnx.ModelProto) -> bool:
    """Whether some operator gives a result whose length depends on numbers."""
    graphs: list[Any] = [proto.graph, *proto.functions]
    while graphs:
        for node in graphs.pop().node:
            if node.op_type in COUNTING:
                return True
            for attribute in node.attribute:
                graphs += [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs
    return False


def _with_shapes(proto: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A copy of a model that gives the shapes of the named values, and nothing else."""
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    del model.graph.output[:]
    for number, name in enumerate(names):
        output = f"onnx_rewrite_shape_{number}"
        model.graph.node.append(onnx.helper.make_node("Shape", [name], [output]))
        model.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.INT64, [None]))
    return model


def _bound(proto: onnx.ModelProto, feed: Mapping[str, Any]) -> dict[str, int]:
    """What the symbolic dimensions of the inputs are in a feed."""
    found: dict[str, int] = {}
    for value in proto.graph.input:
        if value.name in feed:
            for dim, size in zip(value.type.tensor_type.shape.dim, feed[value.name].shape, strict=False):
                if dim.dim_param:
                    found[dim.dim_param] = int(size)
    return found


def _learn(value: ir.Value, name: str, sizes: Sizes, symbols: Mapping[str, Sizes]) -> None:
    if len({len(shape) for shape in sizes}) != 1:
        return
    dims: list[int | str] = []
    for axis in range(len(sizes[0])):
        column = [(shape[axis],) for shape in sizes]
        if len(set(column)) == 1:
            dims.append(column[0][0])
        else:
            dims.append(next((s for s, bound in symbols.items() if bound == column), f"{name}_dim{axis}"))
    value.shape = ir.Shape(dims)
    value.meta[INFERRED_KEY] = True
