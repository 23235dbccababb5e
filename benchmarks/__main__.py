"""`python -m benchmarks NAME`: prints a table and writes benchmarks/results/NAME.json."""

from __future__ import annotations

import importlib
import sys

NAMES = {
    "scaling": "50,000 nodes, this project beside its peers",
    "memory": "3.2 GB of external weights",
    "tensorrt": "engines before and after passes, on a GPU",
    "kit": "examples a second of the testing kit",
    "kit-holds": "every property of our passes on 10,000 drawn examples",
    "deform-conv": "ways to write a deformable convolution, as engines on a GPU",
    "deform-kernel": "the deformable convolution's kernel on a GPU: right, and how fast",
    "deform-roofline": "how far that kernel is from what an H100 could do, from a kept result",
    "deform-split": "what fp32 loses as three products of TF32, emulated",
    "deform-engine": "the plugins inside TensorRT: right, and how fast",
    "kernels": "kernels of TensorRT-RTX engines of the tests' models, without a GPU",
    "mhsa": "attention: spellings on TensorRT, kernels of TensorRT-RTX, onnxruntime on the CPU",
    "fuzz": "random graphs around the patterns, every rewrite compared",
    "mutants": "wrong passes and engines, and which properties find them",
    "peers-fuzz": "drawn graphs through other rewriters, and which properties each breaks",
}


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in NAMES:
        print("usage: python -m benchmarks NAME [OPTIONS]\n")
        for name, what in NAMES.items():
            print(f"  {name:14} {what}")
        return 2
    return importlib.import_module(f"benchmarks.{arguments[0].replace('-', '_')}").main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
