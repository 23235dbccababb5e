"""`python -m benchmarks NAME`: prints a table and writes benchmarks/results/NAME.json."""

from __future__ import annotations

import importlib
import sys

NAMES = {
    "scaling": "50,000 nodes, this project beside its peers",
    "memory": "3.2 GB of external weights",
    "tensorrt": "engines before and after passes, on a GPU",
    "kit": "examples a second of the testing kit",
    "mhsa": "attention: spellings on TensorRT, kernels of TensorRT-RTX, onnxruntime on the CPU",
    "fuzz": "random graphs around the patterns, every rewrite compared",
}


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in NAMES:
        print("usage: python -m benchmarks NAME [OPTIONS]\n")
        for name, what in NAMES.items():
            print(f"  {name:10} {what}")
        return 2
    return importlib.import_module(f"benchmarks.{arguments[0]}").main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
