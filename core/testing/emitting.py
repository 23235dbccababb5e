"""Walks a pattern from its outputs and draws the graph that it describes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_rewrite.opset.forms import AXIS_OF_INPUT, AXIS_OF_OUTPUT, COMMUTATIVE, PARAMETERS
from onnx_rewrite.opset.view import ABSENT, defaults, has_attribute, plain
from onnx_rewrite.pattern.language import (
    Apply,
    Conditional,
    ConstantPattern,
    Either,
    Optional,
    Output,
    Repeat,
    Rest,
    Step,
    Traced,
    Var,
    View,
    key_in,
    own_names,
)
from onnx_rewrite.testing.constants import Constants
from onnx_rewrite.testing.draft import Array, Draft, Unfit, Value
from onnx_rewrite.testing.inference import allowed, formal_input, schema_of, type_name
from onnx_rewrite.testing.moving import Move, way_from, way_to
from onnx_rewrite.testing.params import BEFORE_OPERANDS, FREE, REQUIRED, propose
from onnx_rewrite.testing.surroundings import between
from onnx_rewrite.testing.tape import Tape
from onnx_rewrite.testing.wants import ANY, CHANNELS, ELEMENTWISE, SIZES, Want, settle_ranks, wanted

PROPOSALS = 8
"""How often a parameter is drawn until the pattern's condition on it holds."""

_TYPES = (1, 11, 10, 6, 7, 9)  # float, double, float16, int32, int64, bool


class Emitter:
    """Draws one instance of a pattern.

    Args:
        draft: What the nodes are added to.
        tape: Where choices come from.
        traced: The pattern.
        part: The number that the nodes get.
        dtype: Element type of the data.
        style: How constants are laid out: one of `wants.STYLES`.
        pool: Values that a capture may be bound to; with none, captures become inputs.
        amid: Whether nodes that are not of the instance may stand among its own, and read what those give.
        plain_constants: Whether every constant is an initializer.
    """

    def __init__(
        self,
        draft: Draft,
        tape: Tape,
        traced: Traced,
        *,
        part: int,
        dtype: int,
        style: str,
        pool: Sequence[Value] = (),
        amid: bool = False,
        plain_constants: bool = False,
    ) -> None:
        self._draft, self._tape, self._part = draft, tape, part
        self._traced = traced
        self._dtype, self._style, self._pool, self._amid = dtype, style, pool, amid
        self._first = len(draft.nodes)
        self._bound: dict[str, Any] = {}
        self._memo: dict[int, Any] = {}
        self._symbols: dict[str, int] = {}
        self._constants = Constants(draft, tape, plain=plain_constants)
        self._span = 0

    def outputs(self) -> list[Value]:
        """Draws the instance and returns what it gives.

        Raises:
            Unfit: What was chosen does not go together.
        """
        try:
            return [self._emit(root, ANY) for root in self._traced.roots]
        except (IndexError, ValueError, OverflowError) as error:  # shapes that no rule foresees
            raise Unfit(f"{type(error).__name__}: {error}") from error

    # -- values

    def _emit(self, pattern: Any, want: Want) -> Value:
        if isinstance(pattern, Output):
            return _fulfilled(pattern, self._apply(pattern.apply, _conditioned(pattern, want))[pattern.index])
        if isinstance(pattern, Either):
            if id(pattern) not in self._memo:
                self._memo[id(pattern)] = self._emit(self._tape.one(pattern.branches), want)
            return self._memo[id(pattern)]
        if isinstance(pattern, Var):
            return self._capture(pattern, want)
        if isinstance(pattern, ConstantPattern):
            return self._constant(pattern, want)
        if isinstance(pattern, Repeat):
            return self._repeat(pattern, want)
        if isinstance(pattern, View):
            self._bound.setdefault(pattern.var.name, ())
            return self._view(pattern, want)
        raise Unfit(f"a {type(pattern).__name__} cannot stand alone")

    def _view(self, view: View, want: Want) -> Value:
        if want.onto is not None or not self._tape.chance(60):
            return self._emit(view.inner, want)
        if want.shape is None:
            value = self._emit(view.inner, want)
            return self._moved(value, way_from(value.shape, want.ranks, self._tape))
        before, moves = way_to(want.shape, self._tape)
        return self._moved(self._emit(view.inner, want._replace(shape=before)), moves)

    def _moved(self, value: Value, moves: Sequence[Move]) -> Value:
        for op_type, params in moves:
            inputs, own = [value], dict(params)
            if op_type == "Gather":
                inputs.append(self._constants.spelt(np.asarray(own.pop("at"), np.int64)))
            elif op_type == "Expand":
                inputs.append(self._constants.spelt(np.asarray(own.pop("to"), np.int64)))
            schema_of(op_type, self._draft.opset, "")
            given, attributes = self._spelt(op_type, own, [*inputs], self._draft.opset, "")
            (value,) = self._draft.node(op_type, given, part=self._part, **attributes)
        return value

    def _capture(self, var: Var, want: Want) -> Value:
        if var.name in self._bound:
            return self._bound[var.name]
        want = self._shaped(var, _conditioned(var, want))
        for target in var.targets:
            bound = self._bound.get(target.name)
            if isinstance(bound, Value):
                want = Want(onto=bound.shape)
        dtype = self._leaf_type(want)
        fitting = [v for v in self._pool if v.dtype == dtype and want.fits(v.shape) and _meets(var, v)]
        if want.numbers != "normal":
            found = self._constants.of(want, dtype, want.drawn(self._tape, self._style))
        elif self._amid and self._own() and self._tape.chance(35):
            own = [v for v in self._own() if v.dtype == dtype and want.fits(v.shape) and _meets(var, v)]
            if own and self._tape.chance(50):  # the instance needs what it gives: often not convex
                source = own[-1 - self._tape.below(len(own))]
                found = source if self._tape.chance(20) else between(self._draft, self._tape, source)
            else:
                source = fitting[-1] if fitting else self._draft.input(dtype, want.drawn(self._tape, self._style))
                found = between(self._draft, self._tape, source)
        elif fitting and self._tape.chance(75):
            found = fitting[-1 - self._tape.below(len(fitting))]
        else:
            found = self._draft.input(dtype, want.drawn(self._tape, self._style))
        self._bound[var.name] = _fulfilled(var, found)
        return found

    def _own(self) -> list[Value]:
        """What the instance's nodes give so far."""
        return [v for node in self._draft.nodes[self._first :] if node.part == self._part for v in node.outputs]

    def _leaf_type(self, want: Want) -> int:
        names = self._types
        for dtype in (want.beside.dtype if want.beside is not None else self._dtype, self._dtype, *_TYPES):
            if names is None or type_name(dtype) in names:
                return dtype
        raise Unfit("no element type will do")

    _types: frozenset[str] | None = None

    def _shaped(self, pattern: Conditional, want: Want) -> Want:
        for dims in pattern.shapes:
            shape: list[int] = []
            for dim in dims:
                if dim is ...:
                    shape += [self._tape.one(SIZES) for _ in range(self._tape.below(3))]
                elif isinstance(dim, str):
                    shape.append(self._symbols.setdefault(dim, self._tape.one(SIZES)))
                else:
                    shape.append(dim if isinstance(dim, int) else self._tape.one(SIZES))
            want = Want(shape=tuple(shape), beside=want.beside, numbers=want.numbers)
        return want

    def _constant(self, pattern: ConstantPattern, want: Want) -> Value:
        name = None if pattern.var is None else pattern.var.name
        if name is not None and name in self._bound:
            found = self._bound[name]
            return self._constants.again(found)
        dtype = self._leaf_type(want)
        if pattern.equals is not None:
            if self._types is not None and self._tape.chance(10):
                dtype = self._tape.one([d for d in (dtype, 7, 1) if type_name(d) in self._types])
            return self._constants.number(pattern.equals, dtype, want)
        if pattern.single:
            guess = self._constants.guess(name or "", want, dtype, pattern.var)
            small = (name or "").lower().startswith("eps")
            found = self._constants.number(guess, dtype, want, may_vanish=small)
        else:
            if pattern.var is not None:
                want = self._shaped(pattern.var, _conditioned(pattern.var, want))
            if want.onto is not None and not want.span and self._span:
                want = want._replace(span=self._span)
            found = self._constants.of(want, dtype, want.drawn(self._tape, self._style))
        if name is not None:
            self._bound[name] = found
        return found

    # -- nodes

    def _apply(self, apply: Apply, want: Want) -> list[Value]:
        known = self._memo.get(id(apply))
        if known is None:
            self._memo[id(apply)] = known = self._drawn(apply, want)
        elif len(known) == 1 and apply.capture is None and self._tape.chance(12):
            node = self._draft.producer(known[0])
            assert node is not None
            again = self._draft.node(node.op_type, node.inputs, domain=node.domain, part=self._part, **node.attributes)
            again[0].terms, again[0].axes, again[0].origin = known[0].terms, known[0].axes, known[0].origin
            return again
        return known

    def _drawn(self, apply: Apply, want: Want) -> list[Value]:
        opset = self._draft.opset if apply.domain == "" else self._draft.versions.get(apply.domain, 1)
        first, last = apply.opsets
        if (first is not None and opset < first) or (last is not None and opset > last):
            raise Unfit(f"the pattern is not meant for opset {opset}")
        op_type = "MatMul" if apply.contracts else self._tape.one(sorted(apply.op_types))
        schema_of(op_type, opset, apply.domain)
        params = {n: p for n, p in apply.params.items() if not isinstance(p, (Optional, Var))}
        operands: list[Value | None] = []
        named = self._named(apply, op_type)
        for name in BEFORE_OPERANDS & named.keys():
            params[name] = self._param(op_type, name, named[name], [], opset, apply.domain)
        operands = self._operands(apply, op_type, params, want, opset)
        for name, pattern in named.items():
            if name not in params:
                params[name] = self._param(op_type, name, pattern, operands, opset, apply.domain)
        inputs, attributes = self._spelt(op_type, params, operands, opset, apply.domain)
        if apply.domain == "":
            unnamed = [item for item in defaults(op_type, opset).items() if item[0] not in params.keys() | attributes]
            if unnamed and self._tape.chance(20):  # a default of which the pattern says nothing, written out
                attributes.update([self._tape.one(unnamed)])
        if op_type in COMMUTATIVE and apply.domain == "" and len(inputs) > 1:
            inputs = [inputs[i] for i in self._tape.order(len(inputs))]
        if apply.contracts:
            op_type, attributes = self._contracted(operands, opset)
        made = self._draft.node(
            op_type, inputs, outputs=apply.outputs, domain=apply.domain, part=self._part, **attributes
        )
        if op_type.startswith("Reduce"):
            self._remember(made[0], operands, params)
        channels = op_type in CHANNELS or (
            op_type in ELEMENTWISE and any(v.channels for v in operands if v is not None)
        )
        for value in made:
            value.channels = channels
            summed = next((v for v in operands if v is not None and v.terms), None)
            if not value.axes and summed is not None:
                value.terms = summed.terms if summed.shape else 0
                if summed.shape == value.shape:
                    value.axes, value.origin = summed.axes, summed.origin
        return made

    def _contracted(self, operands: list[Value | None], opset: int) -> tuple[str, dict[str, Any]]:
        """MatMul, or now and then an Einsum that says the same."""
        left, right = (list[int]() if v is None else list(v.shape) for v in operands)
        plain = len(left) == len(right) > 1 and left[:-2] == right[:-2] and left[-1:] == right[-2:-1]
        # Einsum repeats a lone element: where a size may be 1, whoever reads the graph cannot tell it from MatMul.
        plain = plain and left[-1] != 1 and not self._draft.symbolic
        # onnxruntime has Einsum on no 16-bit floats on the CPU.
        wide = all(v is not None and v.dtype in (1, 11) for v in operands)
        if not (plain and wide and opset >= 12 and self._tape.chance(25)):
            return "MatMul", {}
        batch = "abcd"[: len(left) - 2]
        return "Einsum", {"equation": f"{batch}ij,{batch}jk->{batch}ik"}

    def _named(self, apply: Apply, op_type: str) -> dict[str, Any]:
        """The parameters to draw: those of the pattern, those that a captured node may have, those it must."""
        named = dict(apply.params)
        needed = REQUIRED.get(op_type, ())
        free = FREE.get(op_type, ()) if apply.capture is not None and apply.domain == "" else ()
        for name in (*needed, *free):
            if name not in named and (name in needed or self._tape.chance(30)):
                named[name] = None
        return named

    def _operands(self, apply: Apply, op_type: str, params: dict[str, Any], want: Want, opset: int) -> list[Any]:
        patterns: list[Any] = []
        for pattern in apply.inputs:
            patterns += self._rest(pattern) if isinstance(pattern, Rest) else [pattern]
        while patterns and isinstance(patterns[-1], Optional) and self._tape.chance(40):
            patterns.pop()
        found: list[Value | None] = [None] * len(patterns)
        named = {n: self._bound.get(p.name) if isinstance(p, Var) else p for n, p in apply.params.items()}
        literal = {n: plain(p) for n, p in {**named, **params}.items() if not isinstance(p, Optional) and p is not None}
        schema = schema_of(op_type, opset, apply.domain)
        order = sorted(range(len(patterns)), key=lambda i: (self._weight(patterns[i]), i))
        for at in order:
            pattern = patterns[at]
            if isinstance(pattern, Optional):
                if self._tape.chance(40):
                    continue
                pattern = pattern.inner
            inner = settle_ranks(wanted(op_type, at, found, literal, self._tape, want), literal)
            formal = formal_input(schema, at)
            types = allowed(op_type, opset, apply.domain, at)
            for other, value in enumerate(found):
                if value is not None and formal_input(schema, other).type_str == formal.type_str:
                    types = frozenset({type_name(value.dtype)})
            if isinstance(pattern, _Run):
                found[at] = self._run(pattern, inner, types)
                continue
            outer, self._types = self._types, types
            found[at] = self._emit(pattern, inner)
            self._types = outer
            if isinstance(pattern, Output) and found[at] is not None:
                self._span = len(found[at].axes) or self._span  # type: ignore[union-attr]
        return found

    def _weight(self, pattern: Any) -> int:
        """What is drawn first: what holds operators, then captures, then constants."""
        pattern = pattern.inner if isinstance(pattern, Optional) else pattern
        if isinstance(pattern, ConstantPattern):
            return 3
        if isinstance(pattern, Var):
            return 1 if pattern.name in self._bound else 2
        return 0

    # -- parameters

    def _param(
        self, op_type: str, name: str, pattern: Any, operands: list[Value | None], opset: int, domain: str
    ) -> Any:
        if isinstance(pattern, Optional):
            pattern, left_out = pattern.inner, self._tape.chance(50)
            if left_out or not self._expressible(op_type, name, opset):
                # What is left out is captured as its default, and must be that everywhere.
                usual = defaults(op_type, opset).get(name, ABSENT) if domain == "" else ABSENT
                if not isinstance(pattern, Var) or usual is ABSENT:
                    return ABSENT
                return self._bound.setdefault(pattern.name, usual)
        if isinstance(pattern, Var):
            if pattern.name in self._bound:
                return self._bound[pattern.name]
            value = ABSENT
            for _ in range(PROPOSALS):
                value = propose(op_type, name, operands, opset, domain, self._tape)
                if _accepts(pattern, value):
                    break
            else:
                raise Unfit(f"no {name} that was drawn is what the pattern's condition wants")
            if value is not ABSENT:
                self._bound[pattern.name] = value
            return value
        if pattern is None:
            return propose(op_type, name, operands, opset, domain, self._tape)
        return pattern

    def _expressible(self, op_type: str, name: str, opset: int) -> bool:
        form = PARAMETERS.get(op_type, {}).get(name)
        return has_attribute(op_type, name, opset) or (form is not None and opset >= form.since)

    def _spelt(
        self, op_type: str, params: dict[str, Any], operands: list[Value | None], opset: int, domain: str
    ) -> tuple[list[Value | None], dict[str, Any]]:
        """Operands and attributes of a node: parameters in the form that the opset has, negative or not."""
        inputs, attributes = list(operands), dict[str, Any]()
        for name, wanted_value in params.items():
            value = plain(wanted_value)
            if value is ABSENT or value is None:
                continue
            if domain == "" and _same(defaults(op_type, opset).get(name), value) and self._tape.chance(50):
                continue
            value = self._signed(op_type, name, value, operands)
            form = PARAMETERS.get(op_type, {}).get(name) if domain == "" else None
            if form is not None and opset >= form.since:
                inputs += [None] * (form.position + 1 - len(inputs))
                inputs[form.position] = self._parameter_input(form.kind, value, operands)
            elif domain != "" or has_attribute(op_type, name, opset):
                attributes[name] = value
            elif not (value in (0, "", "none") or _same(defaults(op_type, 22).get(name), value)):
                raise Unfit(f"{op_type} has no {name} at opset {opset}")
        return inputs, attributes

    def _signed(self, op_type: str, name: str, value: Any, operands: list[Value | None]) -> Any:
        first = next((v for v in operands if v is not None), None)
        rank = 0 if first is None else len(first.shape)
        if AXIS_OF_OUTPUT.get(op_type) == name:
            rank += len(value) if isinstance(value, tuple) else 1  # pyright: ignore[reportUnknownArgumentType]
        elif AXIS_OF_INPUT.get(op_type) != name:
            return value
        axes: tuple[int, ...] = value if isinstance(value, tuple) else (value,)  # pyright: ignore[reportUnknownVariableType]
        if rank and not all(-rank <= a < rank for a in axes):  # captured where the rank is another
            raise Unfit(f"axes {axes} of a value of rank {rank}")
        if rank and self._tape.chance(50) and (self._draft.opset >= 11 or op_type == "Softmax"):
            if isinstance(value, tuple):
                return tuple(a - rank if a >= 0 else a for a in value)  # pyright: ignore[reportUnknownVariableType]
            return value - rank if value >= 0 else value
        return value

    def _parameter_input(self, kind: str, value: Any, operands: list[Value | None]) -> Value:
        if kind in ("ints", "int"):
            content: Array = np.asarray(value if isinstance(value, tuple) else [value], np.int64)
            return self._constants.spelt(content)
        if kind == "bool":
            return self._constants.spelt(np.asarray(bool(value)))
        if kind == "floats":
            return self._constants.spelt(np.asarray(value, np.float32))
        first = next((v for v in operands if v is not None), None)
        return self._constants.exact(value, 1 if first is None else first.dtype, ())

    def _remember(self, made: Value, operands: list[Value | None], params: dict[str, Any]) -> None:
        x = operands[0]
        assert x is not None
        rank = len(x.shape)
        axes: Any = params.get("axes")
        axes = tuple(range(rank)) if axes is None or axes is ABSENT else axes
        axes = tuple(sorted({a % rank for a in axes})) if rank else ()
        made.axes, made.origin = axes, x.shape
        made.terms = int(np.prod([x.shape[a] for a in axes], dtype=np.int64))
        self._span = len(axes)

    # -- repeated parts

    def _repeat(self, pattern: Repeat, want: Want) -> Value:
        value = self._emit(pattern.inner, want)
        count = self._count(pattern.least, pattern.most)
        names = self._step_names(pattern.step)
        gathered: dict[str, list[Any]] = {}
        for _ in range(count):
            value = self._once(pattern.step, want, value, names, gathered)
        return value

    def _count(self, least: int, most: int | None) -> int:
        return least + self._tape.more(60, min(3, (most if most is not None else least + 3) - least))

    def _step_names(self, step: Step) -> list[str]:
        return [key_in(step, name) for name in own_names(step)] + [step.hole.name]

    def _once(self, step: Step, want: Want, value: Any, names: list[str], gathered: dict[str, list[Any]]) -> Value:
        outer = dict(self._memo)
        for name in names:
            self._bound.pop(name, None)
        if value is not None:
            self._bound[step.hole.name] = value
        made = self._emit(step.body, want)
        self._memo = outer
        return made

    def _rest(self, pattern: Rest) -> list[Any]:
        count = self._count(max(pattern.least, 0), pattern.most)
        return [_Run(pattern, number) for number in range(count)]

    def _run(self, run: _Run, want: Want, types: frozenset[str]) -> Value:
        outer, self._types = self._types, types
        try:
            step = run.rest.each
            if step is not None:
                return self._once(step, want, None, self._step_names(step), {})
            name = f"{run.rest.var.name}#{run.number}"
            return self._capture(Var(name), want)
        finally:
            self._types = outer


class _Run:
    """One operand of a rest."""

    def __init__(self, rest: Rest, number: int) -> None:
        self.rest, self.number = rest, number


class _Typed:
    """What a predicate on dtype and shape looks at."""

    def __init__(self, dtype: int, shape: tuple[int, ...]) -> None:
        self.dtype, self.shape = ir.DataType(dtype), shape


def _meets(pattern: Conditional, value: Value) -> bool:
    """Whether a value is as the pattern's conditions on dtype and shape want it."""
    typed = [p for p in pattern.predicates if p.typed]
    return not typed or all(_passes(p, _Typed(value.dtype, value.shape)) for p in typed)


def _fulfilled(pattern: Conditional, value: Value) -> Value:
    if not _meets(pattern, value):
        raise Unfit("the value is not what the pattern's condition wants")
    return value


def _conditioned(pattern: Conditional, want: Want) -> Want:
    """Leaves the ranks that the pattern's conditions on the value allow."""
    typed = [p for p in pattern.predicates if p.typed]
    if not typed or want.shape is not None or want.onto is not None:
        return want

    def good(rank: int) -> bool:
        return any(all(_passes(p, _Typed(dtype, (1,) * rank)) for p in typed) for dtype in _TYPES)

    ranks = tuple(r for r in want.ranks if good(r)) or tuple(r for r in range(7) if good(r))
    return want._replace(ranks=ranks or want.ranks)


def _passes(predicate: Any, thing: Any) -> bool:
    try:
        return predicate.fails(thing) is None
    except Exception:  # it looks at more than there is yet
        return True


def _accepts(pattern: Var, value: Any) -> bool:
    return all(_passes(p, value) for p in pattern.predicates if not p.typed)


def _same(usual: Any, value: Any) -> bool:
    return usual is not None and type(usual) is type(value) and usual == value
