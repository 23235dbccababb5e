"""Keys under which verdicts are remembered."""

from __future__ import annotations

import hashlib
from typing import Any

import onnx


def exact(*models: onnx.ModelProto) -> bytes:
    """SHA-256 of the models' deterministic serializations."""
    digest = hashlib.sha256()
    for model in models:
        data = model.SerializeToString(deterministic=True)
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


def structural(*models: onnx.ModelProto) -> bytes | None:
    """A key that does not depend on the names of values, nodes and symbols, nor on doc strings and metadata.

    Models with functions or subgraphs have none (None): the names in them are not followed.
    """
    digest = hashlib.sha256()
    put = digest.update
    # Interface names are shared between the models: inputs and outputs are matched by name.
    ids: dict[str, bytes] = {"": b"-"}
    symbols: dict[str, bytes] = {}

    def name(text: str) -> bytes:
        found = ids.get(text)
        if found is None:
            found = ids[text] = b"%d" % len(ids)
        return found

    def values(infos: Any) -> None:
        for value in infos:
            if not value.type.HasField("tensor_type"):
                put(value.type.SerializeToString(deterministic=True))
                continue
            tensor = value.type.tensor_type
            put(b"v%s:%d" % (name(value.name), tensor.elem_type))
            if tensor.HasField("shape"):
                for d in tensor.shape.dim:
                    if d.HasField("dim_value"):
                        put(b",%d" % d.dim_value)
                    elif d.dim_param:
                        put(b",s" + symbols.setdefault(d.dim_param, b"%d" % len(symbols)))
                    else:
                        put(b",?")
                put(b";")

    for model in models:
        if model.functions or model.graph.sparse_initializer:
            return None
        put(b"M%d" % model.ir_version)
        for domain, version in sorted((o.domain, o.version) for o in model.opset_import):
            put(b"%s=%d;" % (domain.encode(), version))
        graph = model.graph
        values(graph.input)
        for tensor in graph.initializer:
            put(b"t%s:%d:%d" % (name(tensor.name), tensor.data_type, len(tensor.raw_data)))
            put(repr(tuple(tensor.dims)).encode())
            put(tensor.raw_data or tensor.SerializeToString(deterministic=True))
        for node in graph.node:
            put(b"n%s:%s(" % (node.domain.encode(), node.op_type.encode()))
            for text in node.input:
                put(name(text) + b",")
            put(b")")
            for text in node.output:
                put(name(text) + b",")
            for attribute in sorted(node.attribute, key=lambda a: a.name):
                if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
                    return None
                data = attribute.SerializeToString(deterministic=True)
                put(b"a%d:" % len(data))
                put(data)
        values(graph.output)
    return digest.digest()
