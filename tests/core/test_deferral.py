"""What a command does not use is not executed, and works as ever when it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

DEFERRED = "import sys; from onnx_rewrite.deferral import defer; {}import onnx_ir as ir; "


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize(("call", "executed"), [("defer(); ", "False"), ("", "True")])
def test_sympy_waits_for_its_first_use(call: str, executed: str) -> None:
    assert run(DEFERRED.format(call) + "print('sympy.core' in sys.modules)") == executed


def test_symbolic_dimensions_compute_as_ever() -> None:
    computing = "print(ir.SymbolicDim('n') * 2 + 1, 'sympy.core' in sys.modules)"
    deferred, at_once = (run(DEFERRED.format(call) + computing) for call in ("defer(); ", ""))
    assert deferred == at_once
    assert deferred.endswith("True")
