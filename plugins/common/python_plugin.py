"""An operator as `IPluginV3` in Python, for TensorRT 10, 11 and TensorRT-RTX: `adapter.h` for those without a compiler.

An operator is described once, as it is for `adapter.h`; `register` makes the classes that the TensorRT at hand wants,
and registers their creator, once a process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Field:
    """An attribute of `count` integers; `fallback` stands for a missing one, and a required one has none."""

    name: str
    count: int
    fallback: int | None = None


Values = dict[str, tuple[int, ...]]
"""Attributes by name."""

Dims = tuple[int, ...]
"""Sizes; -1 for one that is not known before the engine runs."""


class Refusal(Exception):
    """An operator that cannot be built, with the reason in words."""


class Description(Protocol):
    """An operator, its shapes and what runs it."""

    name: str
    version: str
    namespace: str
    fewest: int
    most: int
    fields: tuple[Field, ...]

    def check(self, values: Values) -> None:
        """Raises Refusal for attributes that make no sense."""
        ...

    def shape(self, values: Values, inputs: Sequence[Dims]) -> tuple[tuple[int, int], ...]:
        """The output's dimensions, each as the number of an input and its axis; raises Refusal."""
        ...

    def types(self) -> tuple[str, ...]:
        """Names of the types that it takes, all tensors alike: members of TensorRT's DataType."""
        ...

    def workspace(self, values: Values, inputs: Sequence[Dims], output: Dims, kind: str) -> int:
        """Bytes for these sizes or smaller ones."""
        ...

    def prepare(self, values: Values, inputs: Sequence[Dims], output: Dims, kind: str) -> None:
        """Loads what `enqueue` will launch."""
        ...

    def enqueue(
        self,
        values: Values,
        inputs: Sequence[Dims],
        output: Dims,
        kind: str,
        pointers: Sequence[int],
        workspace: int,
        stream: int,
    ) -> None:
        """Queues the computation; `pointers` are of the inputs, then of the output."""
        ...


def read(description: Description, given: dict[str, Sequence[int]]) -> Values:
    """Attributes with defaults filled in.

    Raises:
        Refusal: One is missing, or none that the operator takes.
    """
    values: Values = {}
    for field in description.fields:
        found = given.get(field.name)
        if found is None:
            if field.fallback is None:
                raise Refusal(f"attribute {field.name} is missing")
            found = (field.fallback,) * field.count
        if len(found) != field.count:
            raise Refusal(f"attribute {field.name} has {len(found)} numbers, not {field.count}")
        values[field.name] = tuple(map(int, found))
    description.check(values)
    return values


def register(trt: Any, description: Description, report: Any) -> None:
    """Makes TensorRT find the operator; a creator that is there already stays.

    Args:
        trt: The module `tensorrt` or `tensorrt_rtx`.
        description: The operator.
        report: Called with a message where the operator is refused.
    """
    registry = trt.get_plugin_registry()
    key = description.name, description.version, description.namespace
    _reports[key] = report
    # Asking for a creator that is not there is an error in the log.
    known = {(one.name, one.plugin_version, one.plugin_namespace) for one in registry.all_creators}
    if key not in known:
        creator = _creator(trt, description, _plugin(trt, description))
        registry.register_creator(creator, description.namespace)
        _kept.append(creator)  # the registry does not own it


_kept: list[Any] = []
_reports: dict[tuple[str, str, str], Any] = {}


def _report(description: Description, error: Exception) -> None:
    _reports[description.name, description.version, description.namespace](f"{description.name}: {error}")


def _plugin(trt: Any, description: Description) -> Any:
    """The class of plugins."""
    linear = trt.TensorFormat.LINEAR
    kinds = {getattr(trt.DataType, name): name for name in description.types() if hasattr(trt.DataType, name)}

    class Plugin(trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime):
        def __init__(self, values: Values) -> None:
            for base in (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime):
                base.__init__(self)
            self.values = values
            # TensorRT's bindings keep pointers into it, and no reference.
            self.serialized, self.kept = _collection(trt, values)
            self.num_outputs = 1
            self.plugin_name = description.name
            self.plugin_version = description.version
            self.plugin_namespace = description.namespace

        def get_capability_interface(self, type: Any) -> Any:
            return self

        def clone(self) -> Any:
            return Plugin(self.values)

        def get_output_data_types(self, input_types: Any) -> Any:
            return [input_types[0]]

        def get_output_shapes(self, inputs: Any, shape_inputs: Any, expr_builder: Any) -> Any:
            try:
                if not description.fewest <= len(inputs) <= description.most:
                    raise Refusal(f"{len(inputs)} inputs, not {description.fewest} to {description.most}")
                sizes = [tuple(_size(one[axis]) for axis in range(len(one))) for one in inputs]
                places = description.shape(self.values, sizes)
            except Refusal as error:
                _report(description, error)
                raise
            found = trt.DimsExprs(len(places))
            for axis, (number, of) in enumerate(places):
                found[axis] = inputs[number][of]
            return [found]

        def supports_format_combination(self, pos: int, in_out: Any, num_inputs: int) -> bool:
            one = in_out[pos].desc
            return one.format == linear and one.type in kinds and one.type == in_out[0].desc.type

        def configure_plugin(self, inp: Any, out: Any) -> None:
            return None

        def get_workspace_size(self, inp: Any, out: Any) -> int:
            sizes = [tuple(one.max) for one in inp]
            return description.workspace(self.values, sizes, tuple(out[0].max), kinds[inp[0].desc.type])

        def on_shape_change(self, inp: Any, out: Any) -> None:
            sizes = [tuple(one.dims) for one in inp]
            if all(size >= 0 for one in sizes for size in one):
                description.prepare(self.values, sizes, tuple(out[0].dims), kinds[inp[0].type])

        def set_tactic(self, tactic: int) -> None:
            return None

        def enqueue(
            self, input_desc: Any, output_desc: Any, inputs: Any, outputs: Any, workspace: int, stream: int
        ) -> None:
            sizes = [tuple(one.dims) for one in input_desc]
            y = tuple(output_desc[0].dims)
            pointers = [*map(int, inputs), int(outputs[0])]
            description.enqueue(
                self.values, sizes, y, kinds[input_desc[0].type], pointers, int(workspace or 0), int(stream)
            )

        def attach_to_context(self, resource_context: Any) -> Any:
            return self.clone()

        def get_fields_to_serialize(self) -> Any:
            return self.serialized

    return Plugin


def _creator(trt: Any, description: Description, plugin: Any) -> Any:
    """The object that makes plugins of nodes, and of what engines keep."""

    class Creator(trt.IPluginCreatorV3One):
        def __init__(self) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name = description.name
            self.plugin_version = description.version
            self.plugin_namespace = description.namespace
            self.names, self.kept = _collection(trt, {one.name: (0,) * one.count for one in description.fields})
            self.field_names = self.names

        def create_plugin(self, name: str, field_collection: Any, phase: Any) -> Any:
            known = {field.name for field in description.fields}
            given: dict[str, Sequence[int]] = {}
            try:
                for field in field_collection:
                    if field.name not in known:  # plugin_version and the like
                        continue
                    if field.type not in (trt.PluginFieldType.INT32, trt.PluginFieldType.INT64):
                        raise Refusal(f"attribute {field.name} is not of integers")
                    given[field.name] = [int(one) for one in np.asarray(field.data).reshape(-1)]
                return plugin(read(description, given))
            except Refusal as error:
                _report(description, error)
                return None

    return Creator()


def _collection(trt: Any, values: Values) -> tuple[Any, list[Any]]:
    """Fields as TensorRT takes them, and what must live as long as they."""
    integer = trt.PluginFieldType.INT32
    arrays = [np.array(one, np.int32) for one in values.values()]
    fields = [trt.PluginField(name, data, integer) for name, data in zip(values, arrays, strict=True)]
    return trt.PluginFieldCollection(fields), [*arrays, *fields]


def _size(expression: Any) -> int:
    return int(expression.get_constant_value()) if expression.is_constant() else -1
