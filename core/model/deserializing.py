"""From a ModelProto to an onnx_ir.Model, the parts included that onnx_ir's own reader drops or refuses.

onnx_ir drops ``sparse_initializer`` without a word, and raises for map types, sparse tensors in attributes and strings
that are not UTF-8. A model with one of these is read through a stand-in: a copy in which they are replaced by something
that onnx_ir reads; :mod:`onnx_rewrite.model.origin` then puts the real thing (or an opaque holder of it) in place.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator, Iterable

import onnx
import onnx_ir as ir

from onnx_rewrite.collector import collector_paused
from onnx_rewrite.errors import ModelError
from onnx_rewrite.model.structure import find_fault

_KINDS = onnx.AttributeProto


def deserialize(proto: onnx.ModelProto, where: str, *, stand_in: bool = False) -> tuple[ir.Model, bool]:
    """Reads a model.

    Args:
        proto: The model; stays as it is.
        where: Its name, for messages.
        stand_in: Read it through a stand-in at once (something in a body is known to need one).

    Returns:
        The model, and whether it was read through a stand-in.

    Raises:
        ModelError: When names are declared twice, or something is in it that onnx_ir does not know.
    """
    with quiet_reading():
        if not stand_in and not proto.graph.sparse_initializer:
            with contextlib.suppress(Exception):
                return ir.serde.deserialize_model(proto), False
        fault = find_fault(proto, where)
        if fault is not None:
            raise fault
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        _replace_in_graph(copy.graph)
        for function in copy.functions:
            _replace_in_nodes(function.node)
            _replace_in_values(getattr(function, "value_info", ()))
        try:
            return ir.serde.deserialize_model(copy), True
        except Exception as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            reason = " ".join(str(cause).split())[:300]
            raise ModelError(
                f"{where} cannot be read: {reason}",
                hint="The model is damaged, or newer than the installed onnx-ir: pip install -U onnx-ir.",
            ) from error


@contextlib.contextmanager
def quiet_reading() -> Generator[None, None, None]:
    """Keeps onnx_ir's warnings back (this package reports the same faults as errors) and the collector still."""
    logger = logging.getLogger("onnx_ir.serde")
    disabled = logger.disabled
    logger.disabled = True
    try:
        with collector_paused():
            yield
    finally:
        logger.disabled = disabled


def has_map(type_proto: onnx.TypeProto) -> bool:
    """Whether a type is a map, or contains one."""
    kind = type_proto.WhichOneof("value")
    if kind == "map_type":
        return True
    return kind in ("sequence_type", "optional_type") and has_map(getattr(type_proto, kind).elem_type)


def is_opaque(attribute: onnx.AttributeProto) -> bool:
    """Whether onnx_ir cannot hold the attribute, so that it is carried as the protobuf message that it is."""
    if attribute.type in (_KINDS.SPARSE_TENSOR, _KINDS.SPARSE_TENSORS):
        return True
    if attribute.type == _KINDS.TYPE_PROTO:
        return has_map(attribute.tp)
    if attribute.type == _KINDS.TYPE_PROTOS:
        return any(has_map(type_proto) for type_proto in attribute.type_protos)
    return attribute.type == _KINDS.STRINGS and not all(_is_utf8(text) for text in attribute.strings)


def opaque_attribute(attribute: onnx.AttributeProto) -> ir.Attr:
    """The holder of an attribute that onnx_ir cannot read: same name and type, messages (or bytes) as the value."""
    value: object
    if attribute.type == _KINDS.SPARSE_TENSOR:
        value = attribute.sparse_tensor
    elif attribute.type == _KINDS.SPARSE_TENSORS:
        value = tuple(attribute.sparse_tensors)
    elif attribute.type == _KINDS.TYPE_PROTO:
        value = attribute.tp
    elif attribute.type == _KINDS.TYPE_PROTOS:
        value = tuple(attribute.type_protos)
    else:
        value = tuple(attribute.strings)
    doc_string = attribute.doc_string if attribute.HasField("doc_string") else None
    return ir.Attr(attribute.name, ir.AttributeType(attribute.type), value, doc_string=doc_string)


def sparse_names(graph: onnx.GraphProto) -> list[str]:
    """The names of a graph's sparse initializers that are not inputs too, in order."""
    inputs = {info.name for info in graph.input}
    return [sparse.values.name for sparse in graph.sparse_initializer if sparse.values.name not in inputs]


def _replace_in_graph(graph: onnx.GraphProto) -> None:
    infos = {info.name: info for info in graph.value_info}
    sparse_by_name = {sparse.values.name: sparse for sparse in graph.sparse_initializer}
    for name in sparse_names(graph):
        # An input is the one declaration that onnx_ir takes without data; it is taken back after reading.
        info = graph.input.add()
        if name in infos:
            info.CopyFrom(infos[name])
        else:
            sparse = sparse_by_name[name]
            info.CopyFrom(onnx.helper.make_tensor_value_info(name, sparse.values.data_type, list(sparse.dims)))
    _replace_in_values(graph.input)
    _replace_in_values(graph.output)
    _replace_in_values(graph.value_info)
    _replace_in_nodes(graph.node)


def _replace_in_values(infos: Iterable[onnx.ValueInfoProto]) -> None:
    for info in infos:
        if has_map(info.type):
            info.ClearField("type")


def _replace_in_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == _KINDS.GRAPH:
                _replace_in_graph(attribute.g)
            elif attribute.type == _KINDS.GRAPHS:
                for graph in attribute.graphs:
                    _replace_in_graph(graph)
            elif is_opaque(attribute):
                name = attribute.name
                attribute.Clear()
                attribute.name = name


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
