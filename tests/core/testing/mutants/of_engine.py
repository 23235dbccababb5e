"""Engines with one part broken, each with passes that are right."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

import onnx_rewrite as rw
from onnx_rewrite.analysis import constants as analysis
from onnx_rewrite.match import compiler, match, params
from onnx_rewrite.model import writing
from onnx_rewrite.opset import view
from onnx_rewrite.pattern import constant, op
from onnx_rewrite.rewriter import driver, edit, names, placing
from tests.core.testing.mutants.mutant import engine

MATCHER, DRIVER = "matcher", "driver"


class Two(rw.Pass):
    """Two outputs, the second made from the first and from something else."""

    name = "two"

    def pattern(self, x: Any, other: Any) -> Any:
        y = op.Neg(x)
        return y, op.Max(y, other)

    def replace(self, m: rw.Match) -> Any:
        y = op.Mul(m.x, np.asarray(-1, np.dtype(m.x.dtype.numpy())))
        return y, op.Max(y, m.other)


class TwoOfAKind(rw.Pass):
    """Two nodes of the pattern that one node of the graph could stand for."""

    name = "kinds"

    def pattern(self, x: Any, y: Any) -> Any:
        return op.Add(op.Abs(x), op.Abs(y))

    def replace(self, m: rw.Match) -> Any:
        if m.x is m.y:
            raise ValueError("one node stands for both")
        return op.Sum(op.Abs(m.x), op.Abs(m.y))


class Bounded(rw.Pass):
    """Its replacement has a constant of its own."""

    name = "bounded"

    def pattern(self, x: Any, low: Any) -> Any:
        return op.Max(op.Relu(x), constant(low))

    def replace(self, m: rw.Match) -> Any:
        return op.Max(m.x, np.maximum(m.low.array, 0).astype(m.low.array.dtype))


class Leaky(rw.Pass):
    """Says nothing of alpha: the default is meant."""

    name = "leaky"

    def pattern(self, x: Any) -> Any:
        return op.LeakyRelu(op.Neg(x))

    def replace(self, m: rw.Match) -> Any:
        return op.LeakyRelu(op.Mul(m.x, np.asarray(-1, np.dtype(m.x.dtype.numpy()))))


class Mean(rw.Pass):
    """Wants the dimensions that are reduced to be kept."""

    name = "mean"

    def pattern(self, x: Any, axes: Any) -> Any:
        return op.ReduceMean(op.Neg(x), axes=axes, keepdims=1)

    def replace(self, m: rw.Match) -> Any:
        return op.Neg(op.ReduceMean(m.x, axes=m.axes, keepdims=1))


def _is_constant(self: analysis.Constants, value: ir.Value | None) -> bool:
    return value is not None and (value.const_value is not None or self.array(value) is not None)


def _array(self: analysis.Constants, value: ir.Value | None) -> Any:
    if value is not None and value.producer() is None and value.const_value is not None:
        return value.const_value.numpy()
    return _right_array(self, value)


_right_array = analysis.Constants.array
_right_bind = compiler._bind
_right_scopes = driver.find_scopes
_right_take_over = edit._take_over


def _size(self: analysis.Constants, value: ir.Value) -> int | None:
    array = self.array(value)
    return None if array is None else int(array.size)


def _bind_again(state: Any, number: int, node: Any, enter: Any, then: Any) -> bool:
    """Any node may stand for several nodes of the pattern."""
    if number in state.nodes:
        return _right_bind(state, number, node, enter, then)
    state.nodes[number] = node
    if enter(state, node, then):
        return True
    del state.nodes[number]
    return False


def _any_parameter(state: Any, node: Any, name: str, pattern: Any, added: Any) -> bool:
    return _right_one(state, node, name, pattern, added) or not isinstance(pattern, (params.Var, params.Optional))


_right_one = params._one


class _Everything:
    def __contains__(self, name: str) -> bool:
        return True


def _main_alone(model: Any, constants: Any, target: str) -> Any:
    return [scope for scope in _right_scopes(model, constants, target) if scope.graph is model.graph]


def _no_functions(model: Any, constants: Any, target: str) -> Any:
    return [scope for scope in _right_scopes(model, constants, target) if not scope.is_function]


def _without_name(old: ir.Value, new: ir.Value) -> None:
    _right_take_over(old, new)
    new.name = f"{old.name}_new"


def _stale(old: ir.Value, new: ir.Value) -> None:
    _right_take_over(old, new)
    if old.shape is not None and len(old.shape):
        new.shape = ir.Shape([7, *list(old.shape)[1:]])


def _collect_once(self: Any, index: int, region: Any) -> Any:
    return _right_collect(self, index, region)[:1]


_right_collect = driver.Driver._collect


def _in_front(match: Any, nodes: Any) -> list[ir.Node]:
    """Before the first node of the match, where what the others read may not be there yet."""
    match.scope.graph.insert_before(match.nodes[-1], list(nodes))
    return []


def _counted(wish: str, taken: set[str]) -> str:
    """A name that depends on what was asked before, in this model and in others."""
    _asked.append(wish)
    return f"{wish}_{len(_asked)}"


_asked: list[str] = []

FIRES, VALID, NEAR, BODIES = "fires_or_says_why", "result_is_valid", "near_misses_are_right", "bodies_are_rewritten_too"

ENGINE = (
    engine(
        "operands in the written order only",
        MATCHER,
        "commuted operands",
        FIRES,
        "ln",
        (compiler, "COMMUTATIVE", frozenset()),
    ),
    engine(
        "axes compared as they are written",
        MATCHER,
        "axes negative, positive",
        FIRES,
        "ln",
        (view, "normalised", lambda op_type, value, rank: value),
    ),
    engine(
        "attributes that the pattern does not name are any",
        MATCHER,
        "attributes of other meaning",
        NEAR,
        Leaky,
        (params, "IGNORED", _Everything()),
    ),
    engine(
        "any parameter will do",
        MATCHER,
        "ReduceMean with keepdims=0 still fused",
        NEAR,
        Mean,
        (params, "_one", _any_parameter),
    ),
    engine(
        "an initializer that is an input is a constant",
        MATCHER,
        "weight that is an initializer and a graph input",
        NEAR,
        "bn",
        (analysis.Constants, "is_constant", _is_constant),
        (analysis.Constants, "array", _array),
        (analysis.Constants, "size", _size),
    ),
    engine(
        "a constant is an initializer only",
        MATCHER,
        "constants in any spelling",
        FIRES,
        "clip",
        (analysis, "_FOLDS", {}),
    ),
    engine(
        "two pattern nodes on one graph node",
        MATCHER,
        "two pattern nodes bound to one graph node",
        NEAR,
        TwoOfAKind,
        (compiler, "_bind", _bind_again),
    ),
    engine(
        "nodes that look alike are one",
        MATCHER,
        "a subexpression written twice",
        NEAR,
        "ln",
        (compiler, "same_computation", lambda *_: True),
    ),
    engine(
        "a match that is not convex",
        MATCHER,
        "a match that is not convex",
        "equivalent_by_the_judge",
        Two,
        (placing, "entangled", lambda *_: None),
    ),
    engine(
        "a default that is written out",
        MATCHER,
        "default given or left out",
        FIRES,
        Leaky,
        (params, "defaults", lambda *_: {}),
        (params, "_is_default", lambda *_: False),
    ),
    engine(
        "matches overlap",
        DRIVER,
        "stacked Clips",
        VALID,
        "clip",
        (match.Match, "private_nodes", property(lambda self: ())),
    ),
    engine(
        "what is needed outside is taken away",
        DRIVER,
        "interior value that is a graph output",
        NEAR,
        "ln",
        (driver, "blocked", lambda *_: None),
        (edit, "is_used", lambda value: False),
    ),
    engine(
        "one match at a time, and no second look",
        DRIVER,
        "several copies",
        "every_copy_is_found",
        "clip",
        (driver.Driver, "_collect", _collect_once),
        (driver.Driver, "_region", lambda *_: set()),
    ),
    engine(
        "bodies are left out", DRIVER, "If, Loop and functions", BODIES, "clip", (driver, "find_scopes", _main_alone)
    ),
    engine(
        "functions are left out",
        DRIVER,
        "functions, and folding inside them",
        BODIES,
        "clip",
        (driver, "find_scopes", _no_functions),
    ),
    engine(
        "a new name that is taken",
        DRIVER,
        "name of a new initializer that is taken",
        "equivalent_by_the_judge",
        Bounded,
        (names, "_free", lambda wish, taken: wish.rstrip("_0123456789") or wish),
    ),
    engine(
        "new names that depend on earlier runs",
        DRIVER,
        "not the same bytes twice",
        "same_bytes_twice",
        Bounded,
        (names, "_free", _counted),
    ),
    engine(
        "an output gets another name",
        DRIVER,
        "output deleted or renamed",
        VALID,
        "clip",
        (edit, "_take_over", _without_name),
    ),
    engine("stated shapes go stale", DRIVER, "value_info left stale", VALID, "clip", (edit, "_take_over", _stale)),
    engine(
        "nodes in the wrong order",
        DRIVER,
        "multi-output insertion breaks the order",
        VALID,
        Two,
        (edit, "insert", _in_front),
        (writing, "make_sound", lambda *_: False),
    ),
    engine(
        "metadata are dropped",
        DRIVER,
        "metadata and doc strings dropped",
        "origin_is_recorded",
        "clip",
        (edit, "merged_metadata", lambda nodes: {}),
    ),
    engine(
        "the opset is raised unasked",
        DRIVER,
        "an opset that was to be kept",
        "opset_is_raised_as_declared",
        "ln",
        (driver.Driver, "_forbids", lambda *_: None),
    ),
)
