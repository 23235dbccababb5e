"""The order of the steps, and the question that is asked of every candidate.

The reduction of sets follows Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input" (2002): chunks
are taken away, the largest first, and halved where none can go. All steps are repeated until none takes anything away,
so that at the end no single node can go.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import onnx
from onnx import inliner

from onnx_rewrite.errors import UsageError
from onnx_rewrite.pipeline.minimising import cuts, inside, sizes
from onnx_rewrite.pipeline.minimising.knowledge import Knowledge, Values
from onnx_rewrite.pipeline.minimising.weights import Weights

Predicate = Callable[[onnx.ModelProto], bool]


class NotInteresting(ValueError):
    """The predicate does not hold for the model as it was given: there is nothing to keep while reducing."""


class Minimiser:
    """Reduces one model.

    Args:
        model: The model, or the path of one; it is not changed.
        predicate: Whether a model still shows what is looked for. It is asked about models that the checker accepts
            (with type inference, if the given model passes that), each once; what it raises counts as no. The model
            that it gets has its weights in it and may be kept or changed.
        folder: Where the external data of a model that is no path lie.
        seconds: When to stop and return the smallest found so far; None: at the end.
        progress: Told the number of nodes, those of bodies and functions included, after each success.

    Attributes:
        asked: How often the predicate was asked.
        late: Whether time ran out.
    """

    def __init__(
        self,
        model: onnx.ModelProto | str | os.PathLike[str],
        predicate: Predicate,
        *,
        folder: str | os.PathLike[str] | None = None,
        seconds: float | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        if not isinstance(model, onnx.ModelProto):
            from onnx_rewrite.model import load, to_proto

            loaded = load(os.fspath(model))
            model, folder = to_proto(loaded), loaded.base_dir
        self._weights = Weights(None if folder is None else Path(folder))
        self._best = self._weights.taken_from(model)
        self._knowledge = Knowledge(self._best, self._weights)
        self._predicate = predicate
        self._until = None if seconds is None else monotonic() + seconds
        self._progress = progress
        self._strict = False
        self._known: dict[bytes, bool] = {}
        self.asked = 0
        self.late = False

    def run(self) -> onnx.ModelProto:
        """The smallest model found, its weights in it.

        Raises:
            NotInteresting: The predicate does not hold for the model itself.
        """
        if not self._holds(self._best):
            raise NotInteresting("the model as it is does not show what is looked for")
        self._strict = self._is_valid(self._best, full=True)
        before = b""
        while before != (before := self._best.SerializeToString(deterministic=True)) and not self._late():
            self._strip()
            self._inline()
            self._reduce_nodes()
            self._reduce_outputs()
            self._bypass()
            self._reduce_bodies()
            self._shrink_dims()
            self._simplify_constants()
            self._drop_attributes()
        return self._weights.filled(self._best)

    # -- asking

    def _values(self) -> Values:
        return self._knowledge.values(self._best)

    def _late(self) -> bool:
        self.late = self.late or (self._until is not None and monotonic() > self._until)
        return self.late

    def _is_valid(self, candidate: onnx.ModelProto, *, full: bool) -> bool:
        try:
            onnx.checker.check_model(self._weights.without(candidate), full_check=full)
        except Exception:  # onnx raises more kinds than its own
            return False
        return True

    def _holds(self, candidate: onnx.ModelProto) -> bool:
        key = hashlib.sha256(candidate.SerializeToString(deterministic=True)).digest()
        if key not in self._known:
            self.asked += 1
            whole = self._weights.filled(candidate)
            try:
                self._known[key] = bool(self._predicate(whole))
            except UsageError:  # not about the candidate: the predicate cannot be asked at all
                raise
            except Exception:  # a candidate that breaks the predicate does not show what is looked for
                self._known[key] = False
        return self._known[key]

    def _try(self, candidate: onnx.ModelProto | None) -> bool:
        """Takes a candidate that is valid, differs, and still shows it."""
        if candidate is None or self._late():
            return False
        if candidate == self._best or not self._is_valid(candidate, full=self._strict) or not self._holds(candidate):
            return False
        self._best = candidate
        if self._progress is not None:
            self._progress(cuts.count_nodes(candidate))
        return True

    # -- steps

    def _strip(self) -> None:
        for candidate in sizes.bare(self._best):
            if self._try(candidate):
                return

    def _inline(self) -> None:
        """Puts the nodes of functions where they are called."""
        if not self._best.functions:
            return
        try:
            flat = inliner.inline_local_functions(self._best)
        except (RuntimeError, ValueError):  # functions that onnx cannot inline
            return
        if self._try(flat):
            self._knowledge.again(self._best)

    def _reduce_nodes(self) -> None:
        """Takes chunks of nodes out; what they gave becomes an input, or a constant if it is a few integers."""
        size = max(1, len(self._best.graph.node) // 2)
        while not self._late():
            start = 0
            while start < len(self._best.graph.node) and not self._late():
                kept = [i for i in range(len(self._best.graph.node)) if not start <= i < start + size]
                if not (kept and self._without_others(kept)):
                    start += size
            if size == 1:
                return
            size = max(1, size // 2)

    def _without_others(self, kept: list[int]) -> bool:
        values = self._values()
        frozen = cuts.subgraph(self._best, kept, values, self._knowledge.numbers) if _reads_integers(values) else None
        return self._try(frozen) or self._try(cuts.subgraph(self._best, kept, values))

    def _reduce_outputs(self) -> None:
        for name in [o.name for o in self._best.graph.output]:
            names = [o.name for o in self._best.graph.output if o.name != name]
            if names:
                self._try(cuts.with_outputs(self._best, names, self._values()))

    def _bypass(self) -> None:
        """Lets readers of a node's output read one of its inputs; of other shape, the shapes behind it follow."""
        for node in list(self._best.graph.node):
            for source in node.input:
                target, values = node.output[0] if node.output else "", self._values()
                if not source or not _same_element(values.get(source), values.get(target)):
                    continue
                candidate = cuts.redirected(self._best, target, source, values)
                if self._try(candidate) or (candidate and self._try(sizes.outputs_anew(candidate, self._weights))):
                    break

    def _reduce_bodies(self) -> None:
        """A branch instead of its If, a body instead of the model, then node by node within bodies and functions."""
        index = 0
        while index < len(self._best.graph.node) and not self._late():
            count = len(cuts.bodies(self._best.graph.node[index]))
            taken = any(
                self._try(inside.body_alone(self._best, index, k, self._values()))
                or self._try(inside.branch_instead(self._best, index, k))
                for k in range(count)
            )
            index = 0 if taken else index + 1
        number = 0
        while number < len(found := inside.places(self._best)) and not self._late():
            self._reduce_place(found[number])
            number += 1
        if len(inside.places(self._best)):
            self._try(inside.unused_removed(self._best))

    def _reduce_place(self, place: inside.Place) -> None:
        index = len(place.of(self._best).node) - 1
        while index >= 0 and not self._late():
            node = place.of(self._best).node[index]
            for operand in range(len(node.input)):
                if self._try(inside.bypassed(self._best, place, index, operand)):
                    break
            index -= 1

    def _shrink_dims(self) -> None:
        """Makes dimensions smaller: all of one size, then those of one input. What no longer fits is not taken."""
        for old in sizes.sizes(self._best):
            for new in (1, 2, old // 2):
                if 0 < new < old and self._try(sizes.everywhere(self._best, self._weights, old, new)):
                    break
        for number, value in enumerate(self._best.graph.input):
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                for size in (1, 2):
                    larger = dim.dim_value > size or bool(dim.dim_param)
                    if larger and self._try(sizes.resized(self._best, self._weights, number, axis, size)):
                        break

    def _simplify_constants(self) -> None:
        self._try(sizes.constants_lifted(self._best))
        for tensor in list(self._best.graph.initializer):
            for simpler in sizes.fillings(self._weights, tensor):
                if self._try(sizes.with_tensor(self._best, simpler)):
                    break

    def _drop_attributes(self) -> None:
        for index, node in enumerate(list(self._best.graph.node)):
            for attribute in node.attribute:
                self._try(sizes.without_attribute(self._best, index, attribute.name))


def _reads_integers(values: Values) -> bool:
    return any(v.type.tensor_type.elem_type in (6, 7, 9) for v in values.values())


def _same_element(one: onnx.ValueInfoProto | None, other: onnx.ValueInfoProto | None) -> bool:
    if one is None or other is None or not one.type.HasField("tensor_type"):
        return False
    return one.type.tensor_type.elem_type == other.type.tensor_type.elem_type


def minimise(
    model: onnx.ModelProto | str | os.PathLike[str],
    predicate: Predicate,
    *,
    folder: str | os.PathLike[str] | None = None,
    seconds: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> onnx.ModelProto:
    """Reduces a model to the smallest found for which the predicate still holds; see `Minimiser`.

    Nodes, outputs, bodies, functions, dimensions, constants, attributes and words are taken away. The same model and
    predicate give the same result, unless time runs out.

    Raises:
        ModelError: The file cannot be read.
        NotInteresting: The predicate does not hold for the model itself.
    """
    return Minimiser(model, predicate, folder=folder, seconds=seconds, progress=progress).run()
