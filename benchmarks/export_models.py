"""Exports full-size models with random weights, for measurements: `python3 benchmarks/export_models.py FOLDER`.

Needs torch, torchvision and transformers, and nothing of this project. BatchNormalization is kept as nodes of its own.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import torch
import torchvision


def swin() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    return torchvision.models.swin_t(weights=None), (torch.randn(8, 3, 224, 224),)


def resnet50() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    return torchvision.models.resnet50(weights=None), (torch.randn(8, 3, 224, 224),)


def mobilenet_v2() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    return torchvision.models.mobilenet_v2(weights=None), (torch.randn(8, 3, 224, 224),)


def clamped() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """MobileNetV2 with every ReLU6 spelled as torch.minimum(torch.maximum()), which exports as Max and Min."""

    class Clamp(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.minimum(torch.maximum(x, torch.tensor(0.0)), torch.tensor(6.0))

    model = torchvision.models.mobilenet_v2(weights=None)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.ReLU6):
                setattr(module, name, Clamp())
    return model, (torch.randn(8, 3, 224, 224),)


def bert() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    from transformers import BertConfig, BertModel

    config = BertConfig(attn_implementation="eager", return_dict=False)  # the defaults are those of BERT-base
    model = BertModel(config, add_pooling_layer=False)

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = model

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.bert(input_ids=ids, attention_mask=mask)[0]

    ids = torch.randint(0, 30000, (8, 128), dtype=torch.int64)
    return Hidden(), (ids, torch.ones(8, 128, dtype=torch.int64))


MODELS = {
    "swin_t": swin,
    "resnet50": resnet50,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v2_minmax": clamped,
    "bert": bert,
}
OPSETS = {"mobilenet_v2": (12,), "mobilenet_v2_minmax": (12,), "resnet50": (12,)}


def randomise(model: torch.nn.Module) -> None:
    """Statistics and affine parameters that are not those of a new model, so that folding them does something."""
    for module in model.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.LayerNorm)):
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.2, 0.2)
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.running_mean.uniform_(-0.2, 0.2)
                    module.running_var.uniform_(0.5, 1.5)


def export(name: str, opset: int, folder: Path) -> Path:
    torch.manual_seed(0)
    model, inputs = MODELS[name]()
    randomise(model)
    model.eval()
    path = folder / f"{name}_op{opset}.onnx"
    unfinished = path.with_suffix(".part")
    names = ["ids", "mask"] if name == "bert" else ["x"]
    options = {
        "opset_version": opset,
        "input_names": names,
        "output_names": ["y"],
        "training": torch.onnx.TrainingMode.PRESERVE,  # EVAL folds BatchNormalization into convolutions
        "do_constant_folding": True,
    }
    try:
        torch.onnx.export(model, inputs, str(unfinished), dynamo=False, **options)
    except TypeError:  # a torch from before the second exporter
        torch.onnx.export(model, inputs, str(unfinished), **options)
    unfinished.replace(path)  # whoever waits for the file finds a whole one
    return path


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    failed = 0
    for name in options.models:
        for opset in OPSETS.get(name, (12, 17)):
            if (options.folder / f"{name}_op{opset}.onnx").is_file():
                continue
            began = time.perf_counter()
            try:
                path = export(name, opset, options.folder)
            except Exception as error:  # one model that this version cannot export must not cost the others
                failed += 1
                print(f"{name} opset {opset}: {type(error).__name__}: {str(error).splitlines()[0][:200]}", flush=True)
                continue
            print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB, {time.perf_counter() - began:.1f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
