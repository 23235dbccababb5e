"""Models are reduced to the smallest that still shows what is looked for."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnx_rewrite as rw
from onnx_rewrite.pipeline.minimising import NotInteresting, free_names

EXPORTED = Path(__file__).parents[2] / "models" / "exported"


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("name", ["hybrid_legacy_op12_keep_bn", "deit_legacy_op12_unfused"])
def test_one_operator_alone(name: str) -> None:
    model = onnx.load(EXPORTED / f"{name}.onnx")
    before = model.SerializeToString(deterministic=True)
    smallest = rw.minimise(model, lambda m: "Softmax" in kinds(m) or "Sigmoid" in kinds(m))
    assert len(smallest.graph.node) == 1
    onnx.checker.check_model(smallest, full_check=True)
    ort.InferenceSession(smallest.SerializeToString(), providers=["CPUExecutionProvider"])
    assert not smallest.graph.initializer
    assert model.SerializeToString(deterministic=True) == before


def behind(model: onnx.ModelProto, first: str, then: str) -> bool:
    """Whether some node of one operator depends on one of another."""
    reached: set[str] = set()
    for node in model.graph.node:
        if node.op_type == then and reached & set(node.input):
            return True
        if node.op_type == first or reached & set(node.input):
            reached.update(node.output)
    return False


@pytest.mark.parametrize(("name", "first"), [("bert_legacy_op12_dynamic", "Where"), ("swin_legacy_op12", "Add")])
def test_one_behind_the_other(name: str, first: str) -> None:
    """What stands between them goes, although shapes change behind it."""
    smallest = rw.minimise(onnx.load(EXPORTED / f"{name}.onnx"), lambda m: behind(m, first, "Softmax"))
    assert kinds(smallest) == [first, "Softmax"]


def test_a_wrong_pass_on_a_real_model() -> None:
    """A batch normalization that is folded with the variance for the deviation: two nodes show it."""
    from onnx_rewrite.testing.comparing import disagreement
    from onnx_rewrite.testing.subject import Subject
    from tests.core.testing.mutants import MUTANTS

    with MUTANTS["variance for deviation"].make() as folds_wrongly:
        subject = Subject(folds_wrongly)

    def wrong(model: onnx.ModelProto) -> bool:
        outcome = subject.run(model)
        return outcome.applied > 0 and disagreement(model, outcome.model) is not None

    smallest = rw.minimise(onnx.load(EXPORTED / "mobilenet_v2_legacy_op10_keep_bn.onnx"), wrong)
    assert kinds(smallest) == ["Conv", "BatchNormalization"]
    assert smallest.ByteSize() < 1000
    assert wrong(smallest)


def test_what_belongs_together_stays_together() -> None:
    """A site of a pass: its pattern is what remains of the model."""
    model = onnx.load(EXPORTED / "hybrid_legacy_op12_keep_bn.onnx")
    smallest = rw.minimise(model, lambda m: any(rw.explain(m, "ln").found))
    assert len(smallest.graph.node) <= 12
    assert {"ReduceMean", "Sub", "Sqrt"} <= set(kinds(smallest))


def test_a_wrong_number() -> None:
    """Two dims, a constant: the failure is a Mul by something large, wherever it stands."""
    model = onnx.parser.parse_model(
        """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 64] x, float[N, 64] z) => (float[N, 64] y, float[N, 64] u)
    <float[64] w = {0.0}, float big = {1e30}>
    { a = Abs (x)  b = Mul (a, big)  c = Mul (b, b)  y = Add (c, z)  u = Neg (z) }
    """.replace("float[64] w = {0.0}, ", "")
    )

    def overflows(m: onnx.ModelProto) -> bool:
        session = ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"])

        def infinite(number: float) -> bool:
            shapes = {i.name: [d if isinstance(d, int) else 2 for d in i.shape] for i in session.get_inputs()}
            feeds = {name: np.full(shape, number, np.float32) for name, shape in shapes.items()}
            return any(np.isinf(found).any() for found in session.run(None, feeds))

        return infinite(2) and not infinite(0)

    smallest = rw.minimise(model, overflows)
    assert kinds(smallest) == ["Mul", "Mul"]
    assert [d.dim_value for d in smallest.graph.input[0].type.tensor_type.shape.dim] == [1, 1]


def test_bodies_keep_what_they_capture() -> None:
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[2] x, bool c) => (float[2] y)
    {
        a = Abs (x)
        b = Neg (a)
        r = If (c) <
            then_branch = t () => (float[2] p) { p = Exp (b) },
            else_branch = f () => (float[2] q) { q = Relu (a) }
        >
        y = Sigmoid (r)
    }
    """)
    assert free_names(model.graph.node[2]) == {"c", "a", "b"}
    smallest = rw.minimise(model, lambda m: "If" in kinds(m))
    assert kinds(smallest) == ["If"]
    onnx.checker.check_model(smallest, full_check=True)


def test_what_the_model_does_not_show() -> None:
    with pytest.raises(NotInteresting):
        rw.minimise(onnx.load(EXPORTED / "minmax_legacy_op12.onnx"), lambda m: "NoSuch" in kinds(m))


def test_no_time_left_keeps_the_model() -> None:
    model = onnx.load(EXPORTED / "minmax_legacy_op12.onnx")
    assert rw.minimise(model, lambda m: True, seconds=0) == model


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from onnx_rewrite.cli import main

    script = tmp_path / "shows.py"
    script.write_text("import sys\nsys.exit(0 if b'\\x22\\x03Erf' in open(sys.argv[1], 'rb').read() else 1)\n")
    model = EXPORTED.parent / "handmade" / "gelu_erf_op12.onnx"
    out = tmp_path / "small.onnx"
    assert main(["minimise", str(model), "--check", f"{sys.executable} {script} {{}}", "-o", str(out)]) == 0
    assert kinds(onnx.load(out)) == ["Erf"]
    assert "to 1, after" in capsys.readouterr().out
    assert main(["minimise", str(model), "--check", f"{sys.executable} -c exit(3)", "-o", str(out)]) == 2
    assert "status 3" in capsys.readouterr().err
    assert main(["minimise", str(model), "--check", "/no/such/program", "-o", str(out)]) == 2
