"""`PassTestSuite`: what it makes of a wrong pass, and what it lets an author declare."""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import onnx
import pytest

import onnx_rewrite as rw
from onnx_rewrite.cli import main
from onnx_rewrite.pattern import op
from onnx_rewrite.testing import PROPERTIES, Example, Failure, PassTestSuite, Terms, Violation, replay, running
from onnx_rewrite.testing.failures import smallest
from onnx_rewrite.testing.subject import Subject


class Root(rw.Pass):
    """Wrong: the root of a square is no sign."""

    name = "root"

    def pattern(self, x: Any) -> Any:
        return op.Sqrt(op.Mul(x, x))

    def replace(self, m: rw.Match) -> Any:
        return m.x


class Mended(Root):
    def replace(self, m: rw.Match) -> Any:
        return op.Abs(m.x)


def suite(**members: Any) -> type[PassTestSuite]:
    return type("Suite", (PassTestSuite,), members)


def test_a_failure_is_small_named_saved_and_runs_again(tmp_path: Path) -> None:
    ran = suite(pass_=Root, failures=tmp_path).run("equivalent_by_the_judge", examples=100, seed=0)
    assert ran.failure is not None
    graph = ran.failure.example.model.graph
    assert [n.op_type for n in graph.node] == ["Mul", "Sqrt"]
    assert ran.failure.example.model.opset_import[0].version == 17
    assert "Sqrt" in ran.failure.text()
    assert ran.folder is not None
    assert ran.folder.parent == tmp_path
    assert {p.name for p in ran.folder.iterdir()} == {"model.onnx", "feeds.npz", "failure.json", "replay.py"}
    assert onnx.load(ran.folder / "model.onnx") == ran.failure.example.model
    with pytest.raises(Violation, match="not equivalent"):
        replay(ran.folder, Root)
    replay(ran.folder, Mended)
    saved = suite(pass_=Mended, saved=(ran.folder,))
    saved().test_saved_examples()
    with pytest.raises(Violation):
        suite(pass_=Root, saved=(ran.folder,))().test_saved_examples()


def test_a_failure_is_reduced_to_what_shows_it() -> None:
    """Whatever was drawn around it goes: bodies, other instances, nodes beside it, numbers that do not matter."""
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[2,3] x, float[4] z, bool c) => (float[2,3] y, float[4] w)
    <float[3] s = {1.5, 2.5, 3.5}>
    {
        w = Neg (z)
        a = Add (x, s)
        y = If (c) <
            then_branch = t () => (float[2,3] p) { p0 = Mul (a, a) p1 = Sqrt (p0) p = Sin (p1) },
            else_branch = f () => (float[2,3] q) { q0 = Mul (a, a) q = Sqrt (q0) }
        >
    }
    """)
    subject = Subject(Root)
    failure = Failure("root", "equivalent_by_rounding", "drawn", Example(model, subject, ("1 instance", "in If")), {})
    least = smallest(failure, Terms())
    assert [n.op_type for n in least.example.model.graph.node] == ["Mul", "Sqrt"]
    assert [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in least.example.model.graph.input] == [[1, 1]]
    onnx.checker.check_model(least.example.model, full_check=True)
    assert "# drawn as: 1 instance, in If; then reduced" in least.text()
    assert "It shows on\n    a = [[" in least.text()
    assert set(least.feed) == {"a"}
    kept = Failure("root", "fires_or_says_why", "drawn", Example(model, subject), {})
    assert smallest(kept, Terms()) is kept  # a part of an instance is none


def test_the_script_imports_the_pass_from_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import onnx_rewrite as rw\n\n\nclass Root(rw.Pass):\n    name = 'root'\n\n"
        "    def pattern(self, x):\n        return rw.op.Sqrt(rw.op.Mul(x, x))\n\n"
        "    def replace(self, m):\n        return m.x\n"
    )
    code = (
        "from pathlib import Path\nfrom mine import Root\nfrom onnx_rewrite.testing import PassTestSuite\n"
        "made = type('Suite', (PassTestSuite,), {'pass_': Root})\n"
        "print(made.run('equivalent_by_rounding', examples=50, seed=0).folder)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    script = tmp_path / done.stdout.strip() / "replay.py"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again = subprocess.run([sys.executable, str(script)], cwd=elsewhere, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert again.stderr.startswith("it still fails: output")
    source = (tmp_path / "mine.py").read_text()
    (tmp_path / "mine.py").write_text(source.replace("return m.x", "return rw.op.Abs(m.x)"))
    again = subprocess.run([sys.executable, str(script)], cwd=elsewhere, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout) == (0, "it holds now\n"), again.stderr


@pytest.mark.parametrize("name", ["names_and_order_do_not_matter", "bodies_are_rewritten_too"])
def test_what_needs_more_than_the_model_is_replayed_too(name: str, tmp_path: Path) -> None:
    """A pass that goes by names, and one that knows the main graph only."""

    class ByName(Mended):
        name = "by_name"

        def check(self, m: rw.Match) -> None:
            if not m.output.name.startswith("v"):
                raise rw.Refused("another name")

    class MainOnly(Mended):
        name = "main_only"

        def check(self, m: rw.Match) -> None:
            if m.scope.graph.name not in ("main", "Part"):
                raise ZeroDivisionError("a body")

    wrong = ByName if name.startswith("names") else MainOnly
    ran = suite(pass_=wrong, failures=tmp_path).run(name, examples=60, seed=0)
    assert ran.failure is not None
    assert ran.folder is not None
    with pytest.raises((Violation, ZeroDivisionError)):
        replay(ran.folder, wrong)
    replay(ran.folder, Mended)


def test_one_test_per_property() -> None:
    made = suite(pass_="clip")
    assert all(callable(getattr(made, f"test_{name}")) for name in PROPERTIES)
    assert not any(hasattr(suite(), f"test_{name}") for name in PROPERTIES)


def test_what_is_relaxed_has_a_name_and_a_reason() -> None:
    with pytest.raises(rw.UsageError, match="there is no 'axis'"):
        suite(pass_="clip", still_legal={"axis": "why not"})
    with pytest.raises(rw.UsageError, match="say why"):
        suite(pass_="clip", relaxed={"same_bytes_twice": ""})
    with pytest.raises(pytest.skip.Exception, match="as an example"):
        suite(pass_="clip", relaxed={"same_bytes_twice": "as an example"})().test_same_bytes_twice()  # type: ignore[attr-defined]


def test_a_pass_that_refuses_everything_is_told(tmp_path: Path) -> None:
    class Shy(Mended):
        def check(self, m: rw.Match) -> None:
            raise rw.Refused("never")

    with pytest.raises(Violation, match=r"0 of .* instances are replaced"):
        suite(pass_=Shy, failures=tmp_path).run("fires_or_says_why", examples=40, seed=0)


def test_the_same_seed_gives_the_same_examples(tmp_path: Path) -> None:
    runs = [suite(pass_="clip", failures=tmp_path).run("result_is_valid", examples=30, seed=3) for _ in range(2)]
    assert runs[0].counts == runs[1].counts


def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: str) -> type[PassTestSuite]:
    """A suite of a pass of a module that other processes find, too."""
    source = f"""
        import os
        import onnx_rewrite as rw

        class Root(rw.Pass):
            name = "root-elsewhere"

            def pattern(self, x):
                return rw.op.Sqrt(rw.op.Mul(x, x))

            def replace(self, m):
                {replace}
    """
    module = f"root_of_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return suite(pass_=importlib.import_module(module).Root, failures=tmp_path)


def test_several_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "PORTION", 8)
    made, names = imported(tmp_path, monkeypatch, "return m.x"), ["fires_or_says_why", "equivalent_by_the_judge"]
    alone, shared = (list(made.run_all(names, examples=20, jobs=jobs, shrink=jobs == 2)) for jobs in (1, 2))
    assert [(r.property, r.examples, r.counts) for r in alone] == [(r.property, r.examples, r.counts) for r in shared]
    assert [r.failure is not None for r in alone] == [r.failure is not None for r in shared] == [False, True]
    assert shared[1].failure is not None
    assert [n.op_type for n in shared[1].failure.example.model.graph.node] == ["Mul", "Sqrt"]


def test_what_other_processes_do_not_find_stays_in_this_one(tmp_path: Path) -> None:
    class Narrow(PassTestSuite):
        pass_, failures = "clip", tmp_path

        @classmethod
        def strategy(cls, of: str) -> Any:
            return super().strategy(of).filter(lambda example: len(example.model.graph.node) < 6)

    for made in (Narrow, suite(pass_=Mended(), failures=tmp_path)):
        (ran,) = made.run_all(["same_bytes_twice"], examples=5, jobs=2)
        assert ran.failure is None


def test_a_process_that_crashes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = imported(tmp_path, monkeypatch, "os._exit(1)")
    with pytest.raises(rw.OnnxRewriteError, match="a process ended without an answer"):
        list(made.run_all(["result_is_valid", "refused_is_untouched"], examples=10, jobs=2))


def test_a_run_of_one_property_draws_what_a_run_of_all_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "PORTION", 8)
    made = suite(pass_="clip", failures=tmp_path)
    (among,) = made.run_all(["result_is_valid"], examples=20, seed=3)
    assert made.run("result_is_valid", examples=20, seed=3).counts == among.counts
    assert among.examples == 20


@pytest.mark.parametrize(
    ("argv", "status", "says"),
    [
        (["clip", "--examples", "5", "--jobs", "0"], 2, "0 processes run nothing"),
        (["qkv", "--examples", "20", "--property", "fires_or_says_why"], 1, "of 20 instances are replaced"),
        (["qkv", "--examples", "20", "--property", "fires_or_says_why", "--declare", "fires_at_least=0"], 0, "1 of 1"),
        (["clip", "--examples", "5", "--declare", "same_bytes_twice=an example"], 0, "same_bytes_twice: an example"),
        (["clip", "--declare", "bounds reversed="], 2, "gives no reason"),
        (["clip", "--declare", "beauty=none"], 2, "nothing is called 'beauty'"),
        (["clip", "--declare", "fires_at_least=most"], 2, "no share"),
        (["clip", "--examples", "10"], 0, "14 of 14 properties hold"),
        (["clip", "--examples", "5", "--property", "same_bytes_twice"], 0, "1 of 1 properties hold"),
        (["clap"], 2, "did you mean clip"),
        (["clip", "--property", "beauty"], 2, "there is no property 'beauty'"),
        (["clip", "--examples", "0"], 2, "0 examples show nothing"),
    ],
)
def test_the_command(argv: list[str], status: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", *argv]) == status
    told = capsys.readouterr()
    assert says in told.out + told.err


def test_nothing_else_imports_the_kit() -> None:
    code = "import sys, onnx_rewrite.pipeline, onnx_rewrite.cli.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"hypothesis", "pytest", "onnx_rewrite.testing"} & set(done.stdout.split())
