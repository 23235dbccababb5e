"""`rw.torch.register` against a stand-in for torch, and against torch where it is installed."""

from __future__ import annotations

import importlib
import io
import subprocess
import sys
import types
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_rewrite as rw
from onnx_rewrite.plugins.deform_conv import register_torch_symbolic


class Value:
    """A value of the exporter's graph: a tensor, a constant, or None."""

    def __init__(self, constant: Any = ..., kind: str = "Tensor") -> None:
        self.constant, self.kind = constant, kind

    def node(self) -> Any:
        constant = self.constant is not ...
        return types.SimpleNamespace(kind=lambda: "prim::Constant" if constant else "prim::Param")

    def type(self) -> Any:
        return TensorType() if self.constant is ... else object()

    def setType(self, kind: Any) -> None:
        self.kind = kind


class TensorType:
    pass


class Graph:
    """Notes what is written."""

    def __init__(self) -> None:
        self.written: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def op(self, name: str, *operands: Any, **attributes: Any) -> Value:
        self.written.append((name, operands, attributes))
        return Value(None) if name == "prim::Constant" else Value()


SCHEMAS = {
    "aten::asinh": [("self", "Tensor")],
    "aten::odd": [("x", "Tensor"), ("bound", "Optional[float]"), ("sizes", "List[int]"), ("mode", "str")],
    "torchvision::deform_conv2d": [
        *((name, "Tensor") for name in ("input", "weight", "offset", "mask", "bias")),
        *((name, "int") for name in ("stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w")),
        ("groups", "int"), ("offset_groups", "int"), ("use_mask", "bool"),
    ],
}  # fmt: skip


class Function:
    """torch.autograd.Function."""


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, int], Any]:
    """Puts a stand-in in torch's place; returns what is registered."""
    registered: dict[tuple[str, int], Any] = {}
    module = types.ModuleType("torch")
    helper = types.SimpleNamespace(
        _is_none=lambda v: v.constant is None,
        _maybe_get_const=lambda v, _: v if v.constant is ... else v.constant,
        _maybe_get_scalar=lambda v: v if v.constant is ... else v.constant,
    )
    module.onnx = types.SimpleNamespace(  # type: ignore[attr-defined]
        register_custom_op_symbolic=lambda name, function, opset: registered.__setitem__((name, opset), function),
        unregister_custom_op_symbolic=lambda name, opset: registered.pop((name, opset)),
        symbolic_helper=helper,
    )
    module.autograd = types.SimpleNamespace(Function=Function)  # type: ignore[attr-defined]

    def schemas(name: str) -> list[Any]:
        found = [types.SimpleNamespace(name=n, type=t) for n, t in SCHEMAS.get(name, [])]
        return [types.SimpleNamespace(arguments=found)] if found else []

    module._C = types.SimpleNamespace(  # type: ignore[attr-defined]
        Value=Value,
        TensorType=TensorType,
        OptionalType=types.SimpleNamespace(ofTensor=lambda: "none"),
        _jit_get_schemas_for_operator=schemas,
    )
    monkeypatch.setitem(sys.modules, "torch", module)
    return registered


def test_an_aten_operator_becomes_a_standard_one(torch: dict[Any, Any]) -> None:
    with rw.torch.register("aten::asinh", "Asinh", opset=9):
        graph, x = Graph(), Value()
        torch["aten::asinh", 9](graph, x)
        assert graph.written == [("Asinh", (x,), {})]
    assert not torch


def test_arguments_become_attributes(torch: dict[Any, Any]) -> None:
    registered = rw.torch.register("aten::odd", "my.domain::Odd")
    graph, x = Graph(), Value()
    torch["aten::odd", 9](graph, x, Value(0.5), Value([1, 2]), Value("nearest"))
    torch["aten::odd", 9](graph, x, Value(None), Value([1, 2]), Value("nearest"))
    ((_, _, first), (_, _, second)) = graph.written
    assert first == {"bound_f": 0.5, "sizes_i": [1, 2], "mode_s": "nearest"}
    assert second == {"sizes_i": [1, 2], "mode_s": "nearest"}
    with pytest.raises(rw.UsageError, match="sizes of aten::odd is computed when the model runs"):
        torch["aten::odd", 9](graph, x, Value(0.5), Value(), Value("nearest"))
    registered.undo()
    registered.undo()
    assert not torch


@pytest.mark.parametrize("mask", [True, False])
def test_torchvisions_deformable_convolution(torch: dict[Any, Any], mask: bool) -> None:
    with register_torch_symbolic():
        graph = Graph()
        tensors = [Value() for _ in range(5)]
        numbers = [Value(n) for n in (2, 1, 1, 0, 1, 1, 1, 4)]
        torch["torchvision::deform_conv2d", 11](graph, *tensors, *numbers, Value(mask))
    ((name, operands, attributes),) = graph.written
    x, weight, offset, masked, bias = tensors
    assert name == "onnx_rewrite::DeformConv2d"
    assert list(operands) == [x, weight, offset, bias, *([masked] if mask else [])]
    assert attributes == {
        "strides_i": [2, 1], "pads_i": [1, 0, 1, 0], "dilations_i": [1, 1], "group_i": 1, "offset_group_i": 4,
    }  # fmt: skip


def test_a_function(torch: dict[Any, Any]) -> None:
    class Scaled(Function):
        @staticmethod
        def forward(ctx: Any, x: Any, slope: float) -> Any:
            return x

        @staticmethod
        def symbolic(g: Any, x: Any, slope: float) -> Any:
            return "as before"

    with rw.torch.register(Scaled, "my.domain::Scaled", attributes={"alpha": "slope"}):
        graph, x = Graph(), Value()
        Scaled.symbolic(graph, x, 0.5)
        assert graph.written == [("my.domain::Scaled", (x,), {"alpha_f": 0.5})]
    assert Scaled.symbolic(None, None, 0.0) == "as before"


def test_what_does_not_fit_is_said(torch: dict[Any, Any]) -> None:
    with pytest.raises(rw.UsageError, match="aten::asinh has no argument 'slope'"):
        rw.torch.register("aten::asinh", "my::Asinh", attributes={"alpha": "slope"})
    with pytest.raises(rw.UsageError, match="is no operator of torch"):
        rw.torch.register("asinh", "Asinh")
    with pytest.raises(rw.UsageError, match="names no node"):
        rw.torch.register("aten::asinh", "my::")


def test_without_torch_there_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(rw.UsageError, match="torch does not import"):
        rw.torch.register("aten::asinh", "Asinh")


def test_it_is_not_imported_by_itself() -> None:
    command = (
        "import sys, onnx_rewrite as rw; rw.torch; import onnx_rewrite.plugins.deform_conv; "
        "print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", command], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "False"


# -- the real one


def export(model: Any, args: Any, **options: Any) -> onnx.ModelProto:
    real = importlib.import_module("torch")
    file = io.BytesIO()
    real.onnx.export(model.eval(), args, file, dynamo=False, input_names=["x"], **options)
    return onnx.load_from_string(file.getvalue())


@pytest.mark.filterwarnings("ignore")
def test_torch_itself_asinh_and_a_custom_activation() -> None:
    real = pytest.importorskip("torch")

    class Activation(real.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x.clamp(min=0) / (1 + real.exp(-x))

    class Model(real.nn.Module):
        def forward(self, x: Any) -> Any:
            return Activation.apply(real.asinh(x)) * 2

    x = real.randn(2, 3)
    with rw.torch.register("aten::asinh", "Asinh"), rw.torch.register(Activation, "onnx_rewrite::ReluSigmoid"):
        made = export(Model(), (x,), opset_version=13)
    assert [n.op_type for n in made.graph.node if n.op_type != "Constant"] == ["Asinh", "ReluSigmoid", "Mul"]
    from onnx_rewrite.verify.session import Session

    (found,) = Session(made)({"x": x.numpy()})
    assert np.abs(found - Model()(x).numpy()).max() < 1e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mask", [True, False])
def test_torch_itself_deformable_convolution(mask: bool) -> None:
    real = pytest.importorskip("torch")
    vision = pytest.importorskip("torchvision")

    class Model(real.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offset = real.nn.Conv2d(4, 18, 3, padding=1)
            self.mask = real.nn.Conv2d(4, 9, 3, padding=1) if mask else None
            self.conv = vision.ops.DeformConv2d(4, 6, 3, padding=1, bias=mask)

        def forward(self, x: Any) -> Any:
            return self.conv(x, self.offset(x), real.sigmoid(self.mask(x)) if self.mask else None)

    model, x = Model(), real.randn(1, 4, 7, 9)
    with register_torch_symbolic():
        made = export(model, (x,), opset_version=17)
    result = rw.rewrite(made, "deform-conv")
    assert result.report.applied == 1
    assert result.report.verification.verdict == "equivalent"
    from onnx_rewrite.verify.session import Session

    (found,) = Session(result.to_proto())({"x": x.numpy()})
    assert np.abs(found - model(x).detach().numpy()).max() < 1e-5
