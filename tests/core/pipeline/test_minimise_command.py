"""`rewrite minimise`: what the command's status and words mean, and that nothing is written but the result."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest

from onnx_rewrite.cli import main

MODEL = Path(__file__).parents[2] / "models" / "handmade" / "gelu_erf_op12.onnx"

SCRIPT = """
import sys, time
has_erf = b'"\\x03Erf' in open(sys.argv[1], "rb").read()
if "slow" in sys.argv and has_erf:
    time.sleep(60)
if has_erf:
    print("no kernel for Erf", file=sys.stderr)
    sys.exit(7)
sys.exit(1)
"""


@pytest.fixture
def check(tmp_path: Path) -> str:
    (tmp_path / "shows.py").write_text(SCRIPT)
    return f"{sys.executable} -S {tmp_path / 'shows.py'} {{}}"


def kinds(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize(
    "options", [["--status", "7"], ["--status", "same"], ["--status", "7", "--says", "no kernel for Erf"]]
)
def test_another_status_shows_it(options: list[str], check: str, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    assert main(["minimise", str(MODEL), "--check", check, "-o", str(out), *options]) == 0
    assert kinds(out) == ["Erf"]
    assert {p.name for p in tmp_path.iterdir()} == {"shows.py", "out.onnx"}


def test_a_hang_can_be_reduced(check: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.onnx"
    command = [
        "minimise",
        str(MODEL),
        "--check",
        f"{check} slow",
        "--status",
        "same",
        "--timeout",
        "0.5",
        "-o",
        str(out),
    ]
    assert main([*command, "--seconds", "1"]) == 0
    assert "Erf" in kinds(out)
    assert "stopped after 1 seconds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "the command ends with status 7, and 0 would say that it does"),
        (["--status", "7", "--says", "no such text"], "does not print 'no such text'"),
        (["--status", "soon"], "neither a number nor 'same'"),
        (["--seconds", "0"], "are more than 0"),
        (["-o", "-"], "goes to a file"),
    ],
)
def test_what_is_wrong_is_said(
    options: list[str], says: str, check: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [] if "-o" in options else ["-o", str(tmp_path / "out.onnx")]
    assert main(["minimise", str(MODEL), "--check", check, *given, *options]) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out.onnx").exists()


def test_interrupted_writes_nothing(check: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx_rewrite.cli.commands import minimise

    old = tmp_path / "out.onnx"
    old.write_bytes(b"old")

    def stop(self: object, model: onnx.ModelProto) -> tuple[int, str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(minimise.Candidate, "outcome", stop)
    assert main(["minimise", str(MODEL), "--check", check, "-o", str(old)]) != 0
    assert old.read_bytes() == b"old"
