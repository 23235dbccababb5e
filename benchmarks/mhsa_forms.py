"""What `python -m benchmarks mhsa` measures: forms of attention, models, and which of them comes first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from benchmarks.attention_models import FAMILIES

SPELLING = "mhsa:form=spelling"
VARIANTS: dict[str, str | None] = {
    "original": None,
    "spelling": SPELLING,
    "scale=q": f"{SPELLING}:scale=q",
    "mask=apart": f"{SPELLING}:mask=apart",
    "qkv": f"qkv,{SPELLING}",
    "stacked": f"{SPELLING}:packed=stacked",
    "rank=3": f"{SPELLING}:rank=3",
    "keys=twice": f"{SPELLING}:keys=twice",
    "scale=both": f"{SPELLING}:scale=both",
    "stacked,q,twice": f"{SPELLING}:packed=stacked:scale=q:keys=twice",
    "qkv,stacked": f"qkv,{SPELLING}:packed=stacked",
    "qkv,q,twice": f"qkv,{SPELLING}:scale=q:keys=twice",
}
"""Of attention blocks alone, in the order of what can be learnt."""

ONLY = {
    "mask=apart": ("swin_t",),
    "qkv": ("bert_128", "bert_384"),
    "qkv,stacked": ("bert_128", "bert_384"),
    "qkv,q,twice": ("bert_128", "bert_384"),
    "rank=3": ("vit_b",),
    "stacked": ("vit_b", "swin_t"),
    "stacked,q,twice": ("vit_b", "swin_t"),
}
"""Families that a variant is something of its own for."""

MODEL_FORMS: dict[str, str | None] = {
    "original": None,
    "mhsa": SPELLING,
    "core": f"{SPELLING}:level=core",
    "qkv,mhsa": f"qkv,{SPELLING}",
    "mask": "mask",
    "ln": "ln",
    "ln,mhsa": f"ln,{SPELLING}",
    "scale=q": f"{SPELLING}:scale=q",
}
"""Of whole models, as TensorRT 8.6 is given them, those without a mask too, which `mhsa` by itself leaves there."""

CPU_FORMS: dict[str, str | None] = {
    "original": None,
    "mhsa": "mhsa",
    "MultiHeadAttention": "mhsa:form=microsoft:level=heads",
    "Attention-23": "mhsa:form=attention",
    "qkv,Attention-23": "qkv,mhsa:form=attention",
    "ln,mhsa": "ln,mhsa",
}


def rewritten(
    model: onnx.ModelProto | Path, passes: str | None, target: str, verify: str = "local"
) -> tuple[onnx.ModelProto, int]:
    """The model after passes, and how many sites they replaced; as it is where they cannot."""
    import onnx_rewrite as rw

    if passes is None:
        return onnx.load(model) if isinstance(model, Path) else model, 0
    result = rw.rewrite(model, passes, target=target, verify=verify)  # type: ignore[arg-type]
    return result.to_proto(), result.report.applied


@dataclass(frozen=True)
class Group:
    """Engines of one model that are run in turn.

    Attributes:
        model: A family of `attention_models`, or the stem of a file.
        batch: How many examples at once.
        precision: "fp16", "tf32", or "fp32" without TF32.
        forms: The original first.
    """

    model: str
    batch: int
    precision: str
    forms: tuple[str, ...]

    @property
    def micro(self) -> bool:
        """Whether it is of attention blocks alone."""
        return self.model in FAMILIES

    @property
    def name(self) -> str:
        """For files."""
        return f"{self.model}-{self.batch}-{self.precision}"

    def passes(self, form: str) -> str | None:
        """What makes a form."""
        return (VARIANTS if self.micro else MODEL_FORMS)[form]

    def file(self, folder: Path) -> Path:
        """Where an export of it lies."""
        name, _, opset = self.model.rpartition("_")
        return folder / (f"{self.model}.onnx" if self.batch == 8 else f"{name}_b{self.batch}_{opset}.onnx")


SWIN, VIT, DEIT, BERT, LONG = "swin_t_op12", "vit_b_16_op14", "deit_tiny_op14", "bert_op12", "bert_384_op12"
WHOLE = (VIT, DEIT, BERT, LONG, SWIN)


def plan() -> list[Group]:
    """What the H100 is asked, the most important first; the same engines may be in several groups."""
    two, first = ("original", "mhsa"), ("original", "spelling")
    found: list[Group] = []
    for precision in ("fp16", "tf32"):
        found += [Group(model, 8, precision, two) for model in WHOLE]
    for batch in (1, 32):
        found += [Group(model, batch, precision, two) for precision in ("fp16", "tf32") for model in WHOLE]
    found += _blocks([8, 1, 32], ["fp16", "fp32"], first)
    for forms in ((*two, "ln", "ln,mhsa"), tuple(MODEL_FORMS)):
        for batch in (8, 1, 32):
            found += [Group(model, batch, precision, forms) for precision in ("fp16", "tf32") for model in WHOLE]
    found += _blocks([8, 1, 32], ["fp16", "fp32"], tuple(VARIANTS))
    found += [Group(model, 8, "fp32", two) for model in WHOLE]
    return list(dict.fromkeys(found))


def _blocks(batches: Sequence[int], precisions: Sequence[str], forms: Sequence[str]) -> Iterator[Group]:
    for precision in precisions:
        for batch in batches:
            for family in FAMILIES:
                yield Group(family, batch, precision, forms_of(family, forms))


def forms_of(family: str, forms: Sequence[str]) -> tuple[str, ...]:
    """Those of the forms that are something of their own for a family."""
    return tuple(form for form in forms if family in ONLY.get(form, (family,)))
