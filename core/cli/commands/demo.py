"""`rewrite demo`: a guided run on the model that ships with this program."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_rewrite.cli import output
from onnx_rewrite.report import wording

if TYPE_CHECKING:
    from onnx_rewrite.report.schema import Report


def demo(*, dir: str | None = None, verbose: bool = False) -> int:
    """Rewrites the demo's model; `onnx_rewrite.cli.texts.DEMO` describes the options."""
    from rich.text import Text

    from onnx_rewrite import demo, pipeline
    from onnx_rewrite.report import terminal

    if dir is None:
        folder = Path(tempfile.mkdtemp(prefix="onnx-rewrite-demo-"))
    else:
        folder = Path(dir)
        folder.mkdir(parents=True, exist_ok=True)
    model = demo.copy_model(folder)
    rewritten = model.with_suffix(".rewritten.onnx")
    program = output.program()
    human = output.console()

    human.print(
        "A small vision model: a convolutional stem, one transformer block, a classifier, as PyTorch's exporter wrote "
        "it at opset 12. This is what runs now:\n"
    )
    command = f"{program} {wording.quoted(str(model))} --passes {demo.PASSES}"
    human.print(Text(f"  {command}", style="bold"), soft_wrap=True)
    human.print()

    with output.tracked() as progress:
        result = pipeline.run(model, demo.PASSES, progress=progress)
    result.save(rewritten)
    report = result.report

    glyphs = terminal.Glyphs(human)
    terminal.passes(report, human)
    human.print(
        "\nWhat was found and where. Each replacement was cut out of the model and run beside the nodes it replaces, "
        "on numbers large and small. error is how far it was from them, computed in float64, on its worst feed; "
        "bound is how far rounding alone may take it there."
    )
    terminal.sites(report, human, glyphs, verbose=verbose)
    terminal.summary(report, human, glyphs)
    terminal.warnings(report, human)
    terminal.next_steps(_steps(report, program, str(model), str(rewritten)), human)
    return 0


def _steps(report: Report, program: str, model: str, rewritten: str) -> list[tuple[str, str]]:
    report_file = wording.quoted(str(Path(model).with_name("report.json")))
    model, rewritten = wording.quoted(model), wording.quoted(rewritten)
    applied = [site.id for entry in report.passes for site in entry.sites if site.status == "applied"]
    skip = [("leave one site as it is", f'{program} {model} --skip "{applied[-1]}"')] if applied else []
    return [
        ("judge the two models again, on other inputs", f"{program} check {model} {rewritten} --seed 1"),
        ("see what is in a model, and what every pass would find in it", f"{program} inspect {model}"),
        *skip,
        ("write a report for programs", f"{program} {model} --report {report_file}"),
        ("see what a pass looks for", f"{program} passes ln"),
        ("find out what a model of your own would gain", f"{program} MODEL.onnx --dry-run"),
    ]
