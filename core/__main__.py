"""`python -m onnx_rewrite` is the program `rewrite`."""

from __future__ import annotations

import sys

from onnx_rewrite.cli import main

if __name__ == "__main__":
    sys.exit(main())
