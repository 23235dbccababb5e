"""Models with the rare parts of ONNX, and an edit made as the engine makes it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import AttributeProto, TensorProto, TypeProto, helper, numpy_helper

MODELS = Path(__file__).parents[2] / "models"
ALL_MODELS = sorted(MODELS.glob("**/*.onnx"))


def content(proto: onnx.ModelProto) -> bytes:
    """What two models must share to be equal field by field (== fails on NaN)."""
    return proto.SerializeToString(deterministic=True)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def info(name: str, shape: list[int | str | None] | None = None, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape if shape is not None else [2, 3])


def notes(message: object, *keys: str) -> None:
    for key in keys or ("z", "a"):  # unsorted on purpose
        message.metadata_props.add(key=key, value=f"value of {key}")  # type: ignore[attr-defined]


def chain(*operators: str, opset: int = 17) -> onnx.ModelProto:
    """x -> operators -> y, with names v0, v1, ... in between."""
    names = ["x", *(f"v{i}" for i in range(len(operators) - 1)), "y"]
    nodes = [
        helper.make_node(op, [a], [b], name=f"n{i}")
        for i, (op, a, b) in enumerate(zip(operators, names, names[1:], strict=False))
    ]
    graph = helper.make_graph(nodes, "chain", [info("x")], [info("y")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def sparse_tensor(name: str) -> onnx.SparseTensorProto:
    values = numpy_helper.from_array(np.array([1.5, -2.0], np.float32), name)
    indices = numpy_helper.from_array(np.array([1, 5], np.int64), f"{name}_indices")
    return helper.make_sparse_tensor(values, indices, [2, 3])


def with_sparse() -> onnx.ModelProto:
    """A sparse initializer that the main graph and a body read."""
    model = with_body()
    model.graph.sparse_initializer.append(sparse_tensor("sparse"))
    model.graph.node.insert(0, helper.make_node("Add", ["x", "sparse"], ["dense"], name="add"))
    then_of(model).node[0].input[0] = "sparse"
    model.graph.output.append(info("dense"))
    return model


def with_training() -> onnx.ModelProto:
    model = chain("Relu", "Abs")
    model.graph.initializer.append(numpy_helper.from_array(np.ones((2, 3), np.float32), "w"))
    model.graph.node.append(helper.make_node("Mul", ["y", "w"], ["scaled"], name="scale"))
    model.graph.output.append(info("scaled"))
    training = model.training_info.add()
    nodes = [helper.make_node("Sub", ["w", "v0"], ["w_new"])]
    training.algorithm.CopyFrom(helper.make_graph(nodes, "step", [], [info("w_new")]))
    training.update_binding.add(key="w", value="w_new")
    return model


def with_body() -> onnx.ModelProto:
    """An If whose branches reuse a name, capture a value, and have an initializer of their own."""
    then = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["inner"], name="r"), helper.make_node("Mul", ["inner", "k"], ["t"])],
        "then",
        [],
        [info("t")],
        [numpy_helper.from_array(np.array(2, np.float32), "k")],
        value_info=[info("inner")],
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["inner"], name="r"), helper.make_node("Abs", ["inner"], ["e"])],
        "else",
        [],
        [info("e")],
    )
    nodes = [
        helper.make_node("If", ["cond"], ["branched"], name="if", then_branch=then, else_branch=other),
        helper.make_node("Abs", ["branched"], ["y"], name="abs"),
    ]
    inputs = [info("x"), info("cond", [], TensorProto.BOOL)]
    graph = helper.make_graph(nodes, "g", inputs, [info("y")], value_info=[info("branched")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def then_of(model: onnx.ModelProto) -> onnx.GraphProto:
    """The body of the first then_branch."""
    return next(a.g for node in model.graph.node for a in node.attribute if a.name == "then_branch")


def rich() -> onnx.ModelProto:
    """About everything at once that some reader or writer forgets."""
    model = with_body()
    model.ir_version = 11
    model.producer_name, model.producer_version, model.domain, model.model_version = "p", "1", "d.o.m", 7
    model.doc_string = "about the model"
    notes(model)
    model.opset_import.append(helper.make_opsetid("custom", 3))
    model.opset_import.append(helper.make_opsetid("local", 1))
    graph = model.graph
    graph.doc_string = "about the graph"
    notes(graph)
    notes(graph.input[0])
    notes(graph.output[0])
    notes(graph.value_info[0])
    graph.value_info[0].doc_string = "about a value"
    graph.value_info.append(info("of_no_value"))
    graph.value_info.append(info("y"))  # an output that has an entry too
    node = graph.node[1]
    node.domain = ""  # present, though empty
    node.doc_string = "about a node"
    notes(node)
    for index, dtype in enumerate(
        (TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN, TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT16)
    ):
        graph.initializer.append(helper.make_tensor(f"w{index}", dtype, [3], [1, 2, 3]))
    graph.initializer.append(helper.make_tensor("text", TensorProto.STRING, [2], [b"a", b"\xff\xfe"]))
    graph.initializer.append(helper.make_tensor("nothing", TensorProto.FLOAT, [0, 4], []))
    graph.initializer.append(helper.make_tensor("x", TensorProto.FLOAT, [2, 3], range(6)))  # overridable input
    notes(graph.initializer[0])
    # unnamed nodes, two of one name, empty optional inputs and outputs
    for name in ("", "", "twice", "twice"):
        count = len(graph.node)
        graph.node.append(helper.make_node("Clip", ["y", "", "w4"], [f"c{count}"], name=name))
    graph.node.append(helper.make_node("Dropout", ["y"], ["drop", ""], name="drop"))
    # attributes of every rare kind
    every = helper.make_node("Every", ["y"], ["every"], name="every", domain="custom")
    every.attribute.append(helper.make_attribute("tp", helper.make_tensor_type_proto(TensorProto.FLOAT, ["n", 2])))
    map_type = TypeProto()
    map_type.map_type.key_type = TensorProto.INT64
    map_type.map_type.value_type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    every.attribute.append(helper.make_attribute("map", map_type))
    every.attribute.append(AttributeProto(name="sparse", type=AttributeProto.SPARSE_TENSOR))
    every.attribute[-1].sparse_tensor.CopyFrom(sparse_tensor("s"))
    every.attribute.append(AttributeProto(name="bytes", type=AttributeProto.STRINGS, strings=[b"\xff", b"ok"]))
    body = helper.make_graph([helper.make_node("Relu", ["y"], ["b"])], "b", [], [info("b")])
    every.attribute.append(AttributeProto(name="bodies", type=AttributeProto.GRAPHS, graphs=[body, body]))
    every.attribute.append(
        AttributeProto(name="tensors", type=AttributeProto.TENSORS, tensors=[graph.initializer[0]], doc_string="doc")
    )
    graph.node.append(every)
    graph.output.append(onnx.ValueInfoProto(name="every", type=map_type))
    sequence = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [None]))
    graph.input.append(onnx.ValueInfoProto(name="seq", type=sequence))
    graph.input.append(onnx.ValueInfoProto(name="opt", type=helper.make_optional_type_proto(sequence)))
    annotation = graph.quantization_annotation.add(tensor_name="branched")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w0")
    # a function with an attribute reference, a default, and notes
    relu = helper.make_node("LeakyRelu", ["a"], ["b"], name="inside")
    relu.attribute.append(AttributeProto(name="alpha", type=AttributeProto.FLOAT, ref_attr_name="slope"))
    function = helper.make_function(
        "local", "Fn", ["a"], ["c"], [relu, helper.make_node("Abs", ["b"], ["c"])],
        [helper.make_opsetid("", 17)], attributes=["slope"], attribute_protos=[helper.make_attribute("unused", 1)],
    )  # fmt: skip
    function.doc_string = "about the function"
    function.value_info.append(info("b"))
    notes(function)
    model.functions.append(function)
    graph.node.append(helper.make_node("Fn", ["y"], ["called"], domain="local", slope=0.5))
    if hasattr(model, "configuration"):
        model.configuration.add(name="cluster", num_devices=2, device=["a", "b"])
        placed = graph.node[1].device_configurations.add(configuration_id="cluster", pipeline_stage=0)
        placed.sharding_spec.add(tensor_name="branched", device=[0, 1])
    # a field of a later ONNX: number 900, a string
    model.MergeFromString(b"\xa2\x38\x03new")
    model.graph.MergeFromString(b"\xa2\x38\x03new")
    model.graph.node[1].MergeFromString(b"\xa2\x38\x03new")
    return model


def replace(graph: ir.Graph | ir.Function, op_type: str, by: str) -> ir.Node:
    """Replaces the first node of a type by a new node, as the engine does: the output keeps its name."""
    old = next(node for node in graph if node.op_type == op_type)
    new = ir.Node("", by, list(old.inputs[:1]), name=f"new_{by}")
    before, after = old.outputs[0], new.outputs[0]
    after.name, after.type, after.shape = before.name, before.type, before.shape
    owner = old.graph
    assert owner is not None
    owner.insert_before(old, new)
    before.replace_all_uses_with(after, replace_graph_outputs=True)
    owner.remove(old, safe=True)
    return new


def external_model(folder: Path, *, locations: tuple[str, ...] = ("w.bin",), elements: int = 600) -> Path:
    """Writes a model whose weights lie in other files, one after the other in each; returns its path."""
    nodes, weights, previous = [], [], "x"
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    offsets = dict.fromkeys(locations, 0)
    for location in locations:
        path = folder / location
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
    for index in range(2 * len(locations)):
        location = locations[index % len(locations)]
        data = rng.standard_normal(elements).astype(np.float32)
        with open(folder / location, "ab") as file:
            file.write(data.tobytes())
        tensor = TensorProto(name=f"w{index}", data_type=TensorProto.FLOAT, dims=[elements])
        tensor.data_location = TensorProto.EXTERNAL
        length = data.nbytes
        for key, value in (("location", location), ("offset", offsets[location]), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        offsets[location] += length
        weights.append(tensor)
        nodes.append(helper.make_node("Add", [previous, f"w{index}"], [f"s{index}"], name=f"add{index}"))
        previous = f"s{index}"
    nodes.append(helper.make_node("Relu", [previous], ["y"], name="relu"))
    graph = helper.make_graph(nodes, "g", [info("x", [elements])], [info("y", [elements])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def weights_of(path: Path) -> dict[str, bytes]:
    """The bytes of every initializer of a saved model, read as any other tool reads them."""
    model = onnx.load(path)
    return {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in model.graph.initializer}
