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

Exported = tuple[torch.nn.Module, tuple[torch.Tensor, ...]]


def pictures(batch: int) -> tuple[torch.Tensor, ...]:
    return (torch.randn(batch, 3, 224, 224),)


def swin(batch: int) -> Exported:
    return torchvision.models.swin_t(weights=None), pictures(batch)


def resnet50(batch: int) -> Exported:
    return torchvision.models.resnet50(weights=None), pictures(batch)


def mobilenet_v2(batch: int) -> Exported:
    return torchvision.models.mobilenet_v2(weights=None), pictures(batch)


def with_head(model: torch.nn.Module) -> torch.nn.Module:
    """torchvision begins with a head of zeros, whose outputs tell nothing."""
    torch.nn.init.normal_(model.heads.head.weight, std=0.02)
    return model


def vit_b_16(batch: int) -> Exported:
    return with_head(torchvision.models.vit_b_16(weights=None)), pictures(batch)


def deit_tiny(batch: int) -> Exported:
    """timm's where it is installed; else a network of its sizes, with one projection for Q, K and V as timm has it."""
    try:
        import timm

        return timm.create_model("deit_tiny_patch16_224", pretrained=False), pictures(batch)
    except ImportError:
        pass

    class Attention(torch.nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.qkv, self.proj = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)

        def forward(self, x: torch.Tensor, *_: torch.Tensor, **__: object) -> tuple[torch.Tensor, None]:
            n, tokens, width = x.shape
            stack = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
            q, k, v = stack.unbind(0)
            x = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            return self.proj(x.transpose(1, 2).reshape(n, tokens, width)), None

    model = torchvision.models.VisionTransformer(224, 16, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768)
    for block in model.encoder.layers:
        block.self_attention = Attention(192, 3)
    return with_head(model), pictures(batch)


def clamped(batch: int) -> Exported:
    """MobileNetV2 with every ReLU6 spelled as torch.minimum(torch.maximum()), which exports as Max and Min."""

    class Clamp(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.minimum(torch.maximum(x, torch.tensor(0.0)), torch.tensor(6.0))

    model = torchvision.models.mobilenet_v2(weights=None)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.ReLU6):
                setattr(module, name, Clamp())
    return model, pictures(batch)


def bert(batch: int, tokens: int = 128) -> Exported:
    from transformers import BertConfig, BertModel

    config = BertConfig(attn_implementation="eager", return_dict=False)  # the defaults are those of BERT-base
    model = BertModel(config, add_pooling_layer=False)

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = model

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.bert(input_ids=ids, attention_mask=mask)[0]

    ids = torch.randint(0, 30000, (batch, tokens), dtype=torch.int64)
    return Hidden(), (ids, torch.ones(batch, tokens, dtype=torch.int64))


def bert_384(batch: int) -> Exported:
    return bert(batch, 384)


MODELS = {
    "swin_t": swin,
    "resnet50": resnet50,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v2_minmax": clamped,
    "bert": bert,
    "bert_384": bert_384,
    "vit_b_16": vit_b_16,
    "deit_tiny": deit_tiny,
}
OPSETS = {
    "mobilenet_v2": (12,),
    "mobilenet_v2_minmax": (12,),
    "resnet50": (12,),
    "bert_384": (12,),
    "vit_b_16": (14,),  # from 14 on there is scaled_dot_product_attention
    "deit_tiny": (14,),
}
OFTEN = 8
"""The batch that a file's name does not tell."""


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


def file(name: str, opset: int, batch: int, folder: Path) -> Path:
    return folder / (f"{name}_op{opset}.onnx" if batch == OFTEN else f"{name}_b{batch}_op{opset}.onnx")


def export(name: str, opset: int, batch: int, folder: Path) -> Path:
    torch.manual_seed(0)
    model, inputs = MODELS[name](batch)
    randomise(model)
    model.eval()
    path = file(name, opset, batch, folder)
    unfinished = path.with_suffix(".part")
    names = ["ids", "mask"] if name.startswith("bert") else ["x"]
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
    parser.add_argument("--batch", nargs="+", type=int, default=[OFTEN])
    parser.add_argument("--opset", type=int, default=None, help="this one alone (default: those of each model)")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    failed = 0
    wanted = [(batch, name) for batch in options.batch for name in options.models]
    for batch, name in wanted:
        for opset in OPSETS.get(name, (12, 17)) if options.opset is None else (options.opset,):
            if file(name, opset, batch, options.folder).is_file():
                continue
            began = time.perf_counter()
            try:
                path = export(name, opset, batch, options.folder)
            except Exception as error:  # one model that this version cannot export must not cost the others
                failed += 1
                print(f"{name} opset {opset}: {type(error).__name__}: {str(error).splitlines()[0][:200]}", flush=True)
                continue
            print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB, {time.perf_counter() - began:.1f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
