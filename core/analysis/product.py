"""Products of matrices, however they are spelt: MatMul, or an Einsum that is one but for the order of axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_rewrite.analysis.layout import Layout, Size
from onnx_rewrite.analysis.vague import INVENTED_PREFIX

Places = tuple["int | None", ...]
"""For each axis of a matrix operand which axis of the value it is; None: the value has no such axis."""

CONTRACTIONS = frozenset({"MatMul", "Einsum"})


@dataclass(frozen=True)
class Product:
    """A product of two stacks of matrices, [batch..., rows, inner] and [batch..., inner, columns].

    Attributes:
        left, right: The operands.
        left_axes, right_axes: How the operands are such stacks; None: they are as they come.
        out_axes: For each axis of the result which axis of [batch..., rows, columns] it is; None: as it comes.
    """

    left: ir.Value
    right: ir.Value
    left_axes: Places | None = None
    right_axes: Places | None = None
    out_axes: tuple[int, ...] | None = None

    def stacked(self, sizes: Sequence[Size]) -> tuple[Size, ...]:
        """Sizes of [batch..., rows, columns], given those of the result."""
        if self.out_axes is None:
            return tuple(sizes)
        return tuple(sizes[self.out_axes.index(i)] for i in range(len(sizes)))

    def result(self, sizes: Sequence[Size]) -> Layout:
        """The result as an arrangement of [batch..., rows, columns], whose sizes are given."""
        found = Layout.of(sizes)
        return found if self.out_axes is None else found.transposed(self.out_axes)

    def flipped(self) -> Product | None:
        """The same as the product of the transposed right operand and the transposed left one; None: of unknown rank.

        Its result is that of the product with the last two axes exchanged.
        """
        ranks = [None if v.shape is None else len(v.shape) for v in (self.left, self.right)]
        if ranks[0] is None or ranks[1] is None:
            return None
        left, right = self.left_axes or tuple(range(ranks[0])), self.right_axes or tuple(range(ranks[1]))
        out = self.out_axes or tuple(range(max(ranks[0], ranks[1])))
        last = len(out) - 1
        turned = tuple({last: last - 1, last - 1: last}.get(i, i) for i in out)
        return Product(self.right, self.left, _turned(right), _turned(left), turned)


def _turned(places: Places) -> Places:
    return (*places[:-2], places[-1], places[-2])


def product_of(node: ir.Node | None, row: int | None = None) -> Product | None:
    """What product a node computes; None if it computes none.

    An Einsum is one of two operands that share exactly one summed index, have no index twice, and give the result at
    least one index each that the other lacks. The operand that gives the last such index is the right one.

    Args:
        node: Any node.
        row: Which axis of an Einsum's left operand are the rows, where several could be; default: of those, the last
            one in the result.
    """
    if node is None or node.domain not in ("", "ai.onnx") or len(node.inputs) != 2:
        return None
    first, second = node.inputs
    if first is None or second is None:
        return None
    if node.op_type == "MatMul":
        return Product(first, second)
    if node.op_type != "Einsum":
        return None
    letters = _letters(node, first, second)
    if letters is None:
        return None
    one, two, out = letters
    if any(len(set(term)) != len(term) for term in (one, two, out)) or not set(out) <= {*one, *two}:
        return None
    summed = {*one, *two} - {*out}
    lone = [i for i in out if (i in one) != (i in two)]
    if len(summed) != 1 or not summed <= {*one} & {*two} or not lone:
        return None
    swapped = lone[-1] in one
    left, right = (two, one) if swapped else (one, two)
    rows = [i for i in lone if i in left]
    if not rows:
        return None
    chosen = left[row] if row is not None and left[row] in rows else rows[-1]
    ends = chosen, lone[-1]
    # In the order of the left operand, which is the query where this makes scores; then what only the right one has.
    batch = [i for i in (*left, *right) if i in out and i not in ends]
    batch = list(dict.fromkeys(batch))
    (inner,) = summed
    sizes = {_size(first, one.index(inner)), _size(second, two.index(inner))}
    if len(sizes) > 1 and (1 in sizes or None not in sizes):
        # Einsum repeats a lone element, MatMul does not; a size that the model names may be 1.
        return None
    left_places, right_places = _places(left, [*batch, ends[0], inner]), _places(right, [*batch, inner, ends[1]])
    stack = [*batch, *ends]
    operands = (second, first) if swapped else (first, second)
    return Product(*operands, left_places, right_places, tuple(stack.index(i) for i in out))


def _size(value: ir.Value, axis: int) -> int | str | None:
    """A number, or the model's name for it; None: it is not known, as of most Reshapes by computed shapes."""
    dim = None if value.shape is None else value.shape[axis]
    size = dim if isinstance(dim, int) or dim is None else dim.value
    return None if isinstance(size, str) and size.startswith(INVENTED_PREFIX) else size


def _places(term: Sequence[str], wanted: Sequence[str]) -> Places:
    return tuple(term.index(i) if i in term else None for i in wanted)


def _letters(node: ir.Node, *operands: ir.Value) -> tuple[list[str], list[str], list[str]] | None:
    """The indices of both operands and of the result, each a text; those of an ellipsis are numbered from the end."""
    attribute = node.attributes.get("equation")
    if attribute is None or attribute.is_ref():
        return None
    inputs, arrow, output = str(attribute.value).replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow or len(terms) != len(operands):
        return None
    spread, found = 0, list[list[str]]()
    for term, value in zip(terms, operands, strict=True):
        if value.shape is None:
            return None
        more = len(value.shape) - len(term.replace("...", ""))
        if more < 0 or (more and "..." not in term):
            return None
        spread = max(spread, more)
        found.append(_spelt(term, more))
    return found[0], found[1], _spelt(output, spread)


def _spelt(term: str, more: int) -> list[str]:
    before, dots, after = term.partition("...")
    return [*before, *(f"...{i}" for i in range(more, 0, -1) if dots), *after]
